"""What a sweep has measured so far: trials that have ended, updates done and to do."""

from collections import Counter
from collections.abc import Callable, Sequence

from optjax.sweep._engine.plan import Plan
from optjax.sweep._errors import SweepError
from optjax.sweep._records import (
    DIVERGED,
    FAILED,
    STOPPED,
    Curve,
    Record,
    Status,
    Times,
    TrialSpec,
    describe,
)


class Ledger:
    """Counts what happens, for displays and for the result.

    Attributes:
      total: trials in all.
      steps: updates done by this process since it started.
      steps_left: updates to do if no trial ends early.
      strategy: how a device runs its lanes, in words; "" until that is known.
      times: how long the calls took.
    """

    def __init__(
        self,
        plan: Plan,
        total: int,
        callbacks: Sequence[Callable[[Record], None]] = (),
    ) -> None:
        """Nothing has happened yet; each trial that ends is handed to the callbacks."""
        self._callbacks = callbacks
        self._metric = plan.metric
        self._pick = max if plan.mode == "max" else min
        self._records: list[Record] = []
        self._ends: Counter[str] = Counter()
        self._best: tuple[float, str] | None = None
        self.total = total
        self._steps = plan.steps
        self.steps = 0
        self.steps_left = total * plan.steps
        self.strategy = ""
        self.times = Times()

    def expect(self, trials: int) -> None:
        """So many more."""
        self.total += trials
        self.steps_left += trials * self._steps

    def count(self, updates: int) -> None:
        """Take in so many updates."""
        self.steps += updates
        self.steps_left -= updates

    def end(self, record: Record) -> None:
        """Take in a trial that has ended, and will not run the rest of its updates."""
        self.steps_left -= self._steps - record.steps
        self._records.append(record)
        for callback in self._callbacks:
            callback(record)
        self._ends[record.status] += 1
        if not record.has_score:
            return
        value = self._pick(record.curve.values[self._metric])
        if self._best is None or self._pick(value, self._best[0]) != self._best[0]:
            self._best = value, describe(record.trial.config)

    def fail(self, trials: Sequence[TrialSpec], error: SweepError) -> list[Record]:
        """Take in trials that break the contract, and return them as they ended."""
        failed = []
        for trial in trials:
            words = str(error).removeprefix(f"trial {describe(trial.config)}: ")
            failed.append(Record(trial, FAILED, 0, Curve((), {}), words))
            self.end(failed[-1])
        return failed

    @property
    def done(self) -> int:
        """How many trials have ended."""
        return len(self._records)

    def records(self, of: Sequence[TrialSpec] | None = None) -> list[Record]:
        """Those that have ended, or of some trials those, in the trials' order."""
        wanted = None if of is None else {spec.number for spec in of}
        return sorted(
            (r for r in self._records if wanted is None or r.trial.number in wanted),
            key=lambda record: record.trial.number,
        )

    def status(self, optimizer: str, running: int) -> Status:
        """How far the sweep is, with so many trials of an optimizer in lanes."""
        return Status(
            total=self.total,
            done=self.done,
            running=running,
            diverged=self._ends[DIVERGED],
            stopped=self._ends[STOPPED],
            failed=self._ends[FAILED],
            optimizer=optimizer,
            best=self._best[0] if self._best else None,
            best_config=self._best[1] if self._best else "",
            steps=self.steps,
            most_steps_left=self.steps_left,
        )
