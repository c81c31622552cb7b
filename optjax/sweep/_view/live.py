"""How far a sweep is: live on a terminal and in a notebook, by log lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from optjax.sweep._ranking import Ranking
from optjax.sweep._records import Mode, Record, Status, describe
from optjax.sweep._view.cell import Bar as CellBar
from optjax.sweep._view.cell import shell
from optjax.sweep._view.leaderboard import Leaderboard
from optjax.sweep._view.table import shown

#: What is said of a directory that had everything.
FINISHED_BEFORE = "finished before; nothing was run"

# Seconds between two lines where there is no terminal.
_BETWEEN_LINES = 60.0


class Tally:
    """A sweep's status in words, with speed and time left."""

    def __init__(
        self,
        metric: str,
        unit: str = "steps",
        units: int = 1,
        clock: Callable[[], float] = time.monotonic,
        *,
        optimizers: Sequence[str] = (),
    ):
        """Start the clock; an update counts as so many of the unit."""
        self._optimizers = list(optimizers)
        self._metric = metric
        self._unit, self._units = unit, units
        self._clock = clock
        self._began = clock()

    def trials_line(self, status: Status) -> str:
        """Trials by what became of them."""
        counts = {
            "running": status.running,
            "stopped": status.stopped,
            "diverged": status.diverged,
            "failed": status.failed,
        }
        parts = [f"{count} {name}" for name, count in counts.items() if count]
        return " · ".join([f"{status.done:,} of {status.total:,} trials", *parts])

    def speed_line(self, status: Status) -> str:
        """Updates a second over all lanes, and at most how long it still takes."""
        seconds = max(self._clock() - self._began, 1e-9)
        if not status.steps and status.done == status.total:
            return FINISHED_BEFORE
        if not status.steps:
            return "compiling"
        speed = status.steps / seconds
        left = status.most_steps_left / speed
        rate = f"{speed * self._units:,.0f} {self._unit}/s"
        return f"{rate} · at most {_duration(left)} left"

    def running_line(self, status: Status) -> str:
        """The same, with the optimizer that runs and which of how many it is."""
        speed, whose = self.speed_line(status), status.optimizer
        if not whose:
            return speed
        if len(self._optimizers) > 1 and whose in self._optimizers:
            place = self._optimizers.index(whose) + 1
            whose += f", {place} of {len(self._optimizers)}"
        return f"{speed} {whose}" if speed == "compiling" else f"{whose} · {speed}"

    def best_line(self, status: Status) -> str:
        """The best trial so far."""
        if status.best is None:
            return ""
        return f"best {self._metric} {status.best:.4g}: {status.best_config}"

    def lines(self, status: Status) -> tuple[str, str, str]:
        """All of them."""
        return (
            self.trials_line(status),
            self.running_line(status),
            self.best_line(status),
        )


class Display(NamedTuple):
    """What a sweep tells of itself while it runs.

    Attributes:
      show: called with each `Status`.
      on_record: called with each record of a trial that has ended.
      on_group: called with an optimizer's name and its records as they have ended.
    """

    show: Callable[[Status], None]
    on_record: Callable[[Record], None] = lambda record: None
    on_group: Callable[[str, Sequence[Record]], None] | None = None


@contextmanager
def live_display(
    metric: str,
    mode: Mode = "max",
    *,
    title: str = "",
    unit: str = "steps",
    units: int = 1,
    optimizers: Sequence[str] = (),
    seeds: int = 1,
    has_lines: bool = False,
) -> Iterator[Display]:
    """Yield a display.

    It is live where standard error is a terminal and in a notebook. Elsewhere it is a
    line a minute.

    Args:
      metric: that ranks.
      mode: what is best of it.
      title: what it is called.
      unit: what updates are counted in.
      units: how many of them an update is.
      optimizers: their names in the order in which they run, to say how far it is.
      seeds: trials of a configuration.
      has_lines: whether a log has a line an optimizer too.
    """
    tally = Tally(title or metric, unit, units, optimizers=optimizers)
    if shell() is not None:
        in_cell = CellBar()
        yield Display(
            lambda status: in_cell.show(status.done, status.total, tally.lines(status))
        )
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TimeElapsedColumn
        from rich.text import Text
    except ModuleNotFoundError:
        yield _lines(tally, metric, mode, has_lines)
        return
    console = Console(file=sys.stderr)
    if not console.is_terminal:
        yield _lines(tally, metric, mode, has_lines)
        return
    board = Leaderboard(metric, mode, seeds)

    class Bar(Progress):
        """A bar of trials with the tally and the leaderboard below."""

        lines: tuple[str, ...] = ()

        def get_renderables(self) -> Iterable[Any]:
            yield self.make_tasks_table(self.tasks)
            for line in (*self.lines, *board.rows()):
                yield Text(f"  {line}", overflow="ellipsis", no_wrap=True)

    with Bar(
        SpinnerColumn(),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as display:
        bar = display.add_task("", total=None)

        def show(status: Status) -> None:
            display.lines = tally.lines(status)[:2]
            display.update(bar, total=status.total, completed=status.done)

        yield Display(show, board.add)


def _lines(
    tally: Tally,
    metric: str,
    mode: Mode,
    has_groups: bool,
    clock: Callable[[], float] = time.monotonic,
) -> Display:
    last: list[str] = []
    said_at = [clock()]

    def say(words: Sequence[str]) -> None:
        print(" · ".join(filter(None, words)), file=sys.stderr, flush=True)
        said_at[0] = clock()

    def show(status: Status) -> None:
        last[:] = [tally.trials_line(status), tally.speed_line(status)]
        if clock() - said_at[0] >= _BETWEEN_LINES:
            say(tally.lines(status))

    def on_group(optimizer: str, records: Sequence[Record]) -> None:
        best = Ranking(tuple(records), metric, mode).best()
        at = describe(best.config).removeprefix(optimizer)
        say([f"{optimizer} {shown(best.median)} {at}", *last])

    return Display(show, on_group=on_group if has_groups else None)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
