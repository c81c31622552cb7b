"""A live display of a sweep on a terminal; nothing elsewhere."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optjax.sweep._run import Status

__all__ = ["FINISHED_BEFORE", "Tally", "live_display"]

#: What is said of a directory that had everything.
FINISHED_BEFORE = "finished before; nothing was run"


class Tally:
    """A sweep's status in words, with speed and time left."""

    def __init__(
        self,
        metric: str,
        unit: str = "steps",
        units: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Start the clock; an update counts as so many of the unit."""
        self._metric = metric
        self._unit, self._units = unit, units
        self._clock = clock
        self._began = clock()

    def trials_line(self, status: "Status") -> str:
        """Trials by what became of them."""
        parts = [
            f"{status.done:,} of {status.total:,} trials",
            f"{status.running} running",
        ]
        if status.stopped:
            parts.append(f"{status.stopped} stopped")
        parts.append(f"{status.diverged} diverged")
        return " · ".join(parts)

    def speed_line(self, status: "Status") -> str:
        """Updates a second over all lanes, and at most how long it still takes."""
        seconds = max(self._clock() - self._began, 1e-9)
        if not status.steps and status.done == status.total:
            return FINISHED_BEFORE
        if not status.steps:
            return f"{status.optimizer}: compiling"
        speed = status.steps / seconds
        left = status.most_steps_left / speed
        return (
            f"{status.optimizer} · {speed * self._units:,.0f} {self._unit}/s · "
            f"at most {_duration(left)} left"
        )

    def best_line(self, status: "Status") -> str:
        """The best trial so far."""
        if status.best is None:
            return ""
        return f"best {self._metric} {status.best:.4g}: {status.best_config}"


@contextmanager
def live_display(
    metric: str, unit: str = "steps", units: int = 1
) -> Iterator[Callable[["Status"], None]]:
    """Yield a function that shows each `Status` it is handed.

    Quiet where standard error is not a terminal or rich is not installed.
    """
    tally = Tally(metric, unit, units)
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TimeElapsedColumn
        from rich.text import Text
    except ModuleNotFoundError:
        yield lambda status: None
        return
    console = Console(file=sys.stderr)
    if not console.is_terminal:
        yield lambda status: None
        return

    class Display(Progress):
        """A bar of trials with the tally below."""

        lines: tuple[str, ...] = ()

        def get_renderables(self) -> Iterable[Any]:
            yield self.make_tasks_table(self.tasks)
            for line in self.lines:
                yield Text(f"  {line}", overflow="ellipsis", no_wrap=True)

    with Display(
        SpinnerColumn(),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as display:
        bar = display.add_task("", total=None)

        def show(status: "Status") -> None:
            display.lines = (
                tally.trials_line(status),
                tally.speed_line(status),
                tally.best_line(status),
            )
            display.update(bar, total=status.total, completed=status.done)

        yield show


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
