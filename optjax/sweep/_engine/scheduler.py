"""Which trial is in which lane: a deterministic function of the metrics seen so far.

Being deterministic it need not be saved: after a crash the recorded metrics are fed
to a new scheduler, which arrives where the old one was.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from optjax.sweep._engine.calls import Call, Left
from optjax.sweep._engine.lane import is_sound
from optjax.sweep._engine.lanes import Assignment
from optjax.sweep._records import (
    DIVERGED,
    FAILED,
    FINISHED,
    STOPPED,
    Curve,
    Failure,
    Measured,
    Mode,
    Record,
    TrialSpec,
)
from optjax.sweep._stopping import Rungs

_IDLE = -1


class Scheduler:
    """Keeps K lanes full from a list of trials and decides when each one ends.

    It goes in rounds: every trial in a lane is taken equally far, unless it diverges,
    then the rule decides, and free lanes are refilled.
    """

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
        evaluations_a_round: int,
        allow_nan: Collection[str] = (),
        rungs: Rungs | None = None,
        failures: Mapping[int, Failure] | None = None,
        known: Mapping[int, np.ndarray] | None = None,
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
          evaluations_a_round: divides the budget and each decision of `rungs`.
          allow_nan: metrics that may be NaN or infinite.
          rungs: which trials go on; of all that are compared with these.
          failures: those that are known already, by the trials' numbers.
          known: what a shorter run has measured of trials that go on from its end, by
            their numbers, others' too: each of shape (evaluations, metrics).
        """
        self._trials = trials
        self._metrics = tuple(metrics)
        self._column = self._metrics.index(metric)
        self._sign = 1.0 if mode == "max" else -1.0
        self._every = evaluate_every
        self._evaluations = evaluations
        self._a_round = evaluations_a_round
        self._allow_nan = allow_nan
        self._rungs = rungs
        #: By the trials' numbers, those to come too.
        self.failures = dict(failures or {})
        self._known = known or {}
        # Free lanes are filled device by device in turn, so that the last few trials
        # of a group do not all land on one.
        self._order = np.arange(lanes).reshape(devices, -1).T.ravel()
        self._trial = np.full(lanes, _IDLE)
        self._done = np.zeros(lanes, int)
        self._left = np.zeros(lanes, int)
        # Those without their trial's state: it begins, or it goes on from one kept.
        self._fresh = np.zeros(lanes, bool)
        self._goes_on = np.zeros(lanes, bool)
        self._within = np.zeros(lanes, bool)
        self._updates = 0
        self._waiting = 0
        self._lane: dict[int, int] = {}
        # Of the trials in lanes, and of those that have diverged in this round.
        self._rows: dict[int, list[np.ndarray]] = {}
        self._diverged: dict[int, np.ndarray] = {}
        self._steps: dict[int, tuple[int, ...]] = {}
        names = {name for trial in trials for name in trial.config.hyper}
        self._hyper = {
            name: np.array([trial.config.hyper[name] for trial in trials], np.float32)
            for name in sorted(names)
        }
        self._seeds = np.array([trial.seed for trial in trials], np.int32)
        #: Trials that had ended before they began.
        self.ended_before = self._refill()

    @property
    def running(self) -> int:
        """How many lanes have a trial."""
        return int((self._trial != _IDLE).sum())

    @property
    def is_done(self) -> bool:
        """Whether every trial has ended."""
        return not self.running

    def lanes(self) -> dict[int, int]:
        """The lanes of the trials that are in one, by the trials' numbers."""
        return dict(self._lane)

    @property
    def idle(self) -> np.ndarray:
        """Which lanes have no trial, shape (K,)."""
        idle: np.ndarray = self._trial == _IDLE
        return idle

    @property
    def left(self) -> Left:
        """What the round has left to do."""
        return Left(self._left.copy(), self._within.copy(), self._updates)

    def resume(self, within: Sequence[int], updates: int) -> None:
        """Say which lanes are how far between two evaluations."""
        self._within[list(within)] = True
        self._updates = updates
        # Whatever has no rows and no updates yet has not begun.
        self._fresh &= ~self._within

    def assignment(self, busy: np.ndarray) -> Assignment:
        """What to tell the program of the lanes that are busy in the next call."""
        # What runs idle lanes with the others is not to meet there what has ended.
        index = np.where(busy, self._trial, self._trial[busy.argmax()])
        return Assignment(
            busy=busy,
            fresh=self._fresh & busy & ~self._goes_on,
            seed=self._seeds[index],
            hyper={name: values[index] for name, values in self._hyper.items()},
        )

    def going_on(self, busy: np.ndarray) -> dict[int, TrialSpec]:
        """Of the lanes that are busy in the next call, those that need a kept state."""
        lanes = np.flatnonzero(self._fresh & busy & self._goes_on).tolist()
        return {lane: self._trials[self._trial[lane]] for lane in lanes}

    def measured(self, call: Call, rows: np.ndarray) -> list[Measured]:
        """What a call has measured, of its lanes in order.

        Args:
          call: as it was asked for.
          rows: shape (K, most evaluations, metrics), what the program returned.
        """
        if not call.size.evaluates or not call.lanes.any():
            return []
        lanes, count = np.flatnonzero(call.lanes), call.size.evaluations
        these = rows[lanes, :count]
        sound = is_sound(these, self._metrics, self._allow_nan)
        ends = np.where(sound.all(axis=1), count, sound.argmin(axis=1) + 1)
        steps = (self._done[lanes, None] + np.arange(1, count + 1)) * self._every
        trials = [self._trials[index] for index in self._trial[lanes].tolist()]
        return [
            Measured(trial, at[:end], row[:end])
            for trial, at, row, end in zip(
                trials, steps.tolist(), these, ends.tolist(), strict=True
            )
        ]

    def observe(self, call: Call, measured: Sequence[Measured]) -> list[Record]:
        """Take in a call, and refill the lanes that are free at the end of a round.

        Returns:
          The trials that ended.
        """
        self._fresh &= ~call.lanes
        self._within[:] = not call.size.evaluates and call.lanes
        self._updates = 0 if call.size.evaluates else self._updates + call.size.updates
        records = self._take([(trial.number, rows) for trial, _, rows in measured])
        return records + self._next_round()

    def fail(self, messages: Mapping[int, str]) -> list[Record]:
        """End the trials of some lanes, each with why.

        Returns:
          All trials that ended.
        """
        records = []
        for lane, message in messages.items():
            number = self._trials[self._trial[lane]].number
            self.failures[number] = Failure(int(self._done[lane]), message)
            records.append(self._end(lane, FAILED))
        if not self._within.any():
            self._updates = 0
        return records + self._next_round()

    def take(self, trial: int, rows: np.ndarray) -> list[Record]:
        """Take in further evaluations of one trial in a lane.

        Args:
          trial: its number in the sweep.
          rows: shape (evaluations, metrics).

        Returns:
          The trials that ended.
        """
        records = list[Record]()
        while len(rows):
            lane = self._lane[trial]
            in_round = int(self._left[lane])
            records += self._take([(trial, rows[:in_round])]) + self._next_round()
            rows = rows[in_round:]
        return records

    def _take(self, taken: Sequence[tuple[int, np.ndarray]]) -> list[Record]:
        """Take in what trials have measured in this round."""
        if not taken:
            return []
        lanes = np.array([self._lane[number] for number, _ in taken])
        counts = [len(rows) for _, rows in taken]
        self._fresh[lanes] = False
        self._done[lanes] += counts
        self._left[lanes] -= counts
        for number, rows in taken:
            self._rows[number].append(rows)
        last = np.stack([rows[-1] for _, rows in taken])
        sound = is_sound(last, self._metrics, self._allow_nan)
        whole = self._done[lanes] >= self._evaluations
        records = list[Record]()
        ends = ~sound | whole | bool(self.failures)
        for place in np.flatnonzero(ends).tolist():
            lane = int(lanes[place])
            if not sound[place]:
                records.append(self._end(lane, DIVERGED))
            elif whole[place]:
                records.append(self._end(lane, FINISHED))
            elif self._left[lane] and self._has_failed(lane):
                records.append(self._end(lane, FAILED))
        return records

    def _has_failed(self, lane: int) -> bool:
        number = self._trials[self._trial[lane]].number
        failure = self.failures.get(number)
        return failure is not None and failure.evaluations == self._done[lane]

    def _next_round(self) -> list[Record]:
        """Decide, and refill the lanes, where all have come to the end of a round."""
        return [] if self._left.any() else [*self._decide(), *self._refill()]

    def _decide(self) -> list[Record]:
        """Ask the rule about those that have come to a decision."""
        if self._rungs is None:
            return []
        arrived: dict[int, dict[int, np.ndarray]] = {}
        for lane, values in self._diverged.items():
            at = self._rungs.after(len(values))
            if at is not None:
                arrived.setdefault(at, {})[lane] = values
        self._diverged.clear()
        for lane in np.flatnonzero(self._trial != _IDLE).tolist():
            at = int(self._done[lane])
            if at in self._rungs:
                arrived.setdefault(at, {})[lane] = self._values(lane)
        stopped = [
            lane
            for at, values in sorted(arrived.items())
            for lane in self._rungs.stop(at, dict(sorted(values.items())))
            if self._trial[lane] != _IDLE
        ]
        return [self._end(lane, STOPPED) for lane in stopped]

    def _values(self, lane: int) -> np.ndarray:
        """What a rule sees of a lane's trial: higher is better."""
        rows = self._rows[self._trials[self._trial[lane]].number]
        return self._sign * np.concatenate([part[:, self._column] for part in rows])

    def _end(self, lane: int, status: str) -> Record:
        if status == DIVERGED and self._rungs is not None:
            self._diverged[lane] = self._values(lane)
            self._diverged[lane][-1] = -np.inf
        trial = self._trials[self._trial[lane]]
        parts = self._rows.pop(trial.number)
        count = sum(map(len, parts))
        if count not in self._steps:
            # One tuple for all trials of a length.
            last = count * self._every
            self._steps[count] = tuple(range(self._every, last + 1, self._every))
        columns = (
            np.concatenate(parts).T.tolist() if parts else [()] * len(self._metrics)
        )
        values = dict(zip(self._metrics, map(tuple, columns), strict=True))
        del self._lane[trial.number]
        self._trial[lane], self._left[lane] = _IDLE, 0
        self._within[lane] = False
        curve = Curve(self._steps[count], values)
        message = self.failures[trial.number].message if status == FAILED else ""
        return Record(trial, status, count * self._every, curve, message)

    def _refill(self) -> list[Record]:
        """Begin a round, or several where all that is in the lanes has ended."""
        records = list[Record]()
        while True:
            free = self._order[self._trial[self._order] == _IDLE].tolist()
            begin = range(self._waiting, len(self._trials))
            known = dict[int, np.ndarray]()
            for lane, index in zip(free, begin, strict=False):
                number = self._trials[index].number
                self._trial[lane], self._done[lane] = index, 0
                self._lane[number], self._rows[number] = lane, []
                self._goes_on[lane] = number in self._known
                if self._goes_on[lane]:
                    known[number] = self._known[number]
                self._waiting = index + 1
            left = self._evaluations - self._done
            self._left[:] = np.where(self._trial == _IDLE, 0, left)
            records += self._take([*known.items()])
            self._fresh[free] = self._trial[free] != _IDLE
            np.minimum(self._left, self._a_round, out=self._left)
            if self.failures:
                lanes = np.flatnonzero(self._left).tolist()
                failed = filter(self._has_failed, lanes)
                records += [self._end(lane, FAILED) for lane in failed]
            if self._left.any() or self._waiting == len(self._trials):
                return records
