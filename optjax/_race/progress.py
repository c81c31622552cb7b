"""Say how far the race is: a live display on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from optjax._race.plan import Plan
from optjax._race.results import DIVERGED, Result
from optjax._race.standings import Standing, standing

Report = Callable[[str, Sequence[Result]], None]


class Tally:
    """The race so far, in words."""

    def __init__(self, plan: Plan, clock: Callable[[], float] = time.monotonic):
        self._plan = plan
        self._clock = clock
        self._start = clock()
        self._best: Standing | None = None
        self.optimizers = 0
        self.trials = 0
        self.diverged = 0

    def add(self, optimizer: str, trials: Sequence[Result]) -> Standing:
        """Count one optimizer's trials and return its standing."""
        self.optimizers += 1
        self.trials += len(trials)
        self.diverged += sum(trial.status == DIVERGED for trial in trials)
        new = standing(optimizer, trials)
        if new.best is not None and (
            self._best is None
            or self._best.best is None
            or new.best.order < self._best.best.order
        ):
            self._best = new
        return new

    @property
    def trials_line(self) -> str:
        """Trials done and diverged, speed, and time left or taken."""
        return (
            f"{self.trials} of {self._plan.trials} trials, {self.diverged} diverged · "
            f"{self._speed()} · {self._time_left()}"
        )

    @property
    def best_line(self) -> str:
        """The best optimizer so far."""
        return f"best so far: {describe(self._best)}" if self._best else ""

    def _speed(self) -> str:
        seconds = max(self._clock() - self._start, 1e-9)
        return f"{self.trials * self._plan.steps / seconds:,.0f} steps/s"

    def _time_left(self) -> str:
        if not self.optimizers:
            return "time left unknown"
        seconds = self._clock() - self._start
        left = len(self._plan.optimizers) - self.optimizers
        if not left:
            return f"took {seconds:.0f} s"
        return f"about {seconds / self.optimizers * left:.0f} s left"


def describe(standing: Standing) -> str:
    """Return an optimizer's name with its best accuracy and learning rate."""
    if standing.best is None:
        return f"{standing.optimizer}, diverged at every learning rate"
    return (
        f"{standing.optimizer} {100 * standing.best.median:.2f} % "
        f"at learning rate {standing.best.learning_rate:g}"
    )


@contextmanager
def progress(plan: Plan, console: Console) -> Iterator[Report]:
    """Yield `report(optimizer, trials)`, to be called as each optimizer finishes."""
    tally = Tally(plan)
    if not console.is_terminal:

        def print_line(optimizer: str, trials: Sequence[Result]) -> None:
            line = f"{describe(tally.add(optimizer, trials))} · {tally.trials_line}"
            console.print(line, soft_wrap=True, markup=False, highlight=False)

        yield print_line
        return

    with _Live(tally, console) as live:
        bar = live.add_task("compiling the first", total=len(plan.optimizers))

        def advance(optimizer: str, trials: Sequence[Result]) -> None:
            tally.add(optimizer, trials)
            live.update(bar, advance=1, description="optimizers")

        yield advance


class _Live(Progress):
    """A bar of optimizers, with the tally below."""

    def __init__(self, tally: Tally, console: Console):
        self._tally = tally
        super().__init__(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        for line in (self._tally.trials_line, self._tally.best_line):
            yield Text(f"  {line}", overflow="ellipsis", no_wrap=True)
