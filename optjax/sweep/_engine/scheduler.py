"""Which trial is in which lane: a deterministic function of the metrics seen so far.

Being deterministic it need not be saved: after a crash the recorded metrics are fed
to a new scheduler, which arrives where the old one was.
"""

from collections.abc import Sequence

import numpy as np

from optjax.sweep._engine.lanes import Assignment
from optjax.sweep._records import (
    DIVERGED,
    FINISHED,
    STOPPED,
    Curve,
    Mode,
    Record,
    TrialSpec,
)
from optjax.sweep._stopping import StoppingRule, ask

__all__ = ["Scheduler"]

_IDLE = -1


class Scheduler:
    """Keeps K lanes full from a list of trials and decides when each one ends."""

    def __init__(
        self,
        trials: Sequence[TrialSpec],
        *,
        lanes: int,
        devices: int,
        metrics: Sequence[str],
        metric: str,
        mode: Mode,
        evaluate_every: int,
        evaluations: int,
        evaluations_per_call: int,
        stopping: StoppingRule | None = None,
        decisions: Sequence[int] = (),
    ) -> None:
        """Fill the lanes with the first trials.

        Args:
          trials: the group's trials, in the order they start.
          lanes: K, a multiple of `devices`.
          devices: how many equal blocks of lanes run at the same time.
          metrics: names of the metrics' columns.
          metric: the one that ranks.
          mode: "max" or "min".
          evaluate_every: updates between two evaluations.
          evaluations: a trial's whole budget.
          evaluations_per_call: how many a call runs; divides the budget and each of
            `decisions`.
          stopping: which trials go on.
          decisions: the evaluations at which it is asked.
        """
        self._trials = trials
        self._metrics = tuple(metrics)
        self._column = self._metrics.index(metric)
        self._finite = (
            self._metrics.index("finite") if "finite" in self._metrics else None
        )
        self._sign = 1.0 if mode == "max" else -1.0
        self._every = evaluate_every
        self._evaluations = evaluations
        self._per_call = evaluations_per_call
        self._stopping = stopping
        # Of each decision the trials that have come there, in order.
        self._came: dict[int, list[int]] = {at: [] for at in decisions}
        # What a rule sees: higher is better, −inf from a divergence on.
        self._values = np.full(
            (len(trials), max(decisions, default=0)), -np.inf, np.float32
        )
        # Free lanes are filled device by device in turn, so that the last few trials
        # of a group do not all land on one.
        self._order = np.arange(lanes).reshape(devices, -1).T.ravel()
        self._trial = np.full(lanes, _IDLE)
        self._done = np.zeros(lanes, int)
        self._fresh = np.zeros(lanes, bool)
        self._waiting = 0
        self._rows: dict[int, list[np.ndarray]] = {}
        names = {name for trial in trials for name in trial.config.hyper}
        self._hyper = {
            name: np.array([trial.config.hyper[name] for trial in trials], np.float32)
            for name in sorted(names)
        }
        self._seeds = np.array([trial.seed for trial in trials], np.int32)
        self._refill()

    @property
    def busy(self) -> np.ndarray:
        """Which lanes have a trial."""
        return self._trial != _IDLE

    @property
    def running(self) -> int:
        """How many lanes have a trial."""
        return int(self.busy.sum())

    @property
    def is_done(self) -> bool:
        """Whether every trial has ended."""
        return not self.busy.any()

    def lane_trials(self) -> list[TrialSpec]:
        """The trials of the busy lanes, in lane order."""
        return [self._trials[i] for i in self._trial[self.busy]]

    def lane_steps(self) -> np.ndarray:
        """Updates done by each busy lane before the coming call."""
        return self._done[self.busy] * self._every

    def assignment(self) -> Assignment:
        """What to tell the program for the next call."""
        index = np.where(self.busy, self._trial, 0)
        return Assignment(
            busy=self.busy,
            fresh=self._fresh.copy(),
            seed=self._seeds[index],
            hyper={name: values[index] for name, values in self._hyper.items()},
        )

    def observe(self, rows: np.ndarray) -> list[Record]:
        """Take in a call's metrics and refill the lanes that became free.

        Args:
          rows: shape (K, evaluations a call, names); idle lanes are ignored.

        Returns:
          The trials that ended, in lane order.
        """
        busy = np.flatnonzero(self.busy)
        self._done[busy] += self._per_call
        self._fresh[:] = False
        sound = np.isfinite(rows[busy]).all(axis=2)
        if self._finite is not None:
            sound &= rows[busy, :, self._finite] != 0
        ended: dict[int, str] = {}
        for position, lane in enumerate(busy):
            kept = rows[lane]
            if not sound[position].all():
                kept = kept[: int(np.argmin(sound[position])) + 1]
                ended[int(lane)] = DIVERGED
            elif self._done[lane] >= self._evaluations:
                ended[int(lane)] = FINISHED
            self._rows.setdefault(int(self._trial[lane]), []).append(kept)
            self._show_rule(int(lane), kept if sound[position].all() else kept[:-1])
        self._decide(busy, ended)
        records = [self._record(lane, status) for lane, status in sorted(ended.items())]
        self._trial[list(ended)] = _IDLE
        self._refill()
        return records

    def _show_rule(self, lane: int, rows: np.ndarray) -> None:
        """Let a rule see a call's values, those before a divergence."""
        trial, first = self._trial[lane], self._done[lane] - self._per_call
        seen = self._values[trial, first:][: len(rows)]
        seen[:] = self._sign * rows[: len(seen), self._column]

    def _decide(self, busy: np.ndarray, ended: dict[int, str]) -> None:
        for at, came in self._came.items():
            here = [int(lane) for lane in busy if self._done[lane] == at]
            if self._stopping is None or not here:
                continue
            came += self._trial[here].tolist()
            everyone = self._values[came, :at]
            goes_on = ask(self._stopping, everyone[-len(here) :], everyone)
            for lane, is_going_on in zip(here, goes_on, strict=True):
                if not is_going_on:
                    ended.setdefault(lane, STOPPED)

    def _record(self, lane: int, status: str) -> Record:
        trial = int(self._trial[lane])
        rows = np.concatenate(self._rows.pop(trial))
        steps = (np.arange(len(rows)) + 1) * self._every
        values = {
            name: tuple(rows[:, column].tolist())
            for column, name in enumerate(self._metrics)
        }
        curve = Curve(tuple(steps.tolist()), values)
        return Record(self._trials[trial], status, int(steps[-1]), curve)

    def _refill(self) -> None:
        free = [lane for lane in self._order if self._trial[lane] == _IDLE]
        left = len(self._trials) - self._waiting
        for lane in free[:left]:
            self._trial[lane] = self._waiting
            self._done[lane] = 0
            self._fresh[lane] = True
            self._waiting += 1
