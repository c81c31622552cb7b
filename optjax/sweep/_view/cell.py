"""A progress bar that lives in the output of a notebook's cell."""

import html
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

# Each update is a message to the browser.
_SECONDS = 0.2


def shell() -> Any:
    """The notebook's shell, or None where this process is no notebook's kernel."""
    module = sys.modules.get("IPython")
    running = module.get_ipython() if module is not None else None
    return running if hasattr(running, "kernel") else None


class Bar:
    """A bar with lines of text below, in the place where it was first shown."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Show nothing yet."""
        self._clock = clock
        self._handle: Any = None
        self._shown_at = -_SECONDS

    def show(self, done: int, total: int, lines: Sequence[str]) -> None:
        """Show how much is done, at most a few times a second and at the end."""
        from IPython.display import HTML, display

        if self._clock() - self._shown_at < _SECONDS and done < total:
            return
        self._shown_at = self._clock()
        text = "<br>".join(html.escape(line) for line in lines if line)
        bar = HTML(
            f'<progress value="{done}" max="{total}" style="width: 24em"></progress>'
            f"<br>{text}"
        )
        if self._handle is None:
            self._handle = display(bar, display_id=True)
        else:
            self._handle.update(bar)
