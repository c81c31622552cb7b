"""Stopping rules: which trials go on, from what all have reached until there.

A rule goes by the values alone, so that a sweep that is resumed decides as it did.
`SuccessiveHalving` and `Median` are two; a class of yours with the same two methods is
another.
"""

import bisect
import heapq
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np

from optjax._arguments.numbers import Whole
from optjax.sweep._errors import SweepError, blamed, check

#: `rung(arrived) -> goes_on`: which of the trials that arrive together go on. `arrived`
#: has shape (n, evaluations so far), float32, their values of the metric, higher is
#: better; where the sweep's mode is "min" they are negated. A trial that has diverged
#: has −inf from there on, and ends whatever is said of it. `goes_on` is n booleans.
Rung: TypeAlias = Callable[[np.ndarray], np.ndarray]


class StoppingRule(Protocol):
    """When to decide, and which trials go on.

    It says the same of the same arrivals in the same order. What a rule is, its fields
    and its code, is part of what a sweep's directory belongs to. It compares the trials
    of one optimizer.
    """

    def decides_at(self, steps: int, evaluate_every: int) -> Iterable[int]:
        """The updates after which it decides.

        Args:
          steps: updates in a whole trial.
          evaluate_every: updates between two evaluations.

        Returns:
          Multiples of `evaluate_every` below `steps`. At each all lanes wait for each
          other, so many of them make short calls of the compiled program.
        """
        ...

    def rung(self) -> Rung:
        """A function that decides at one of these updates.

        There is one for each of them. It is called with those that arrive together,
        again and again, and may remember who came before.
        """
        ...


@dataclass(frozen=True)
class SuccessiveHalving:
    """Stop all but the best 1/eta of the trials at each rung.

    The rungs are at min_steps · eta^k updates, k = 0, 1, …, below the whole budget. A
    trial that reaches a rung goes on if its metric there is among the best 1/eta (at
    least one) of all that reached it so far, of the same optimizer, whatever its static
    hyper-parameters are. Lanes that reach a rung together are compared with each other
    first. It takes O(log n) a trial.

    Attributes:
      min_steps: updates that every trial gets.
      eta: the share that goes on is 1/eta; 3 by default.

    Example:
      >>> from optjax.sweep import SuccessiveHalving
      >>> SuccessiveHalving(min_steps=30).decides_at(steps=900, evaluate_every=10)
      [30, 90, 270, 810]

    References: Jamieson & Talwalkar, "Non-stochastic best arm identification", AISTATS
    2016; Li et al., "A system for massively parallel hyperparameter tuning", MLSys
    2020 (asynchronous, as here).
    """

    min_steps: int
    eta: int = 3

    def decides_at(self, steps: int, evaluate_every: int) -> list[int]:
        """The rungs.

        Raises:
          SweepError: for an eta below 2, and a first rung that is no evaluation or not
            below the budget.
        """
        check(Whole(2), eta=self.eta)
        _check_first("min_steps", self.min_steps, steps, evaluate_every)
        rungs, rung = [], self.min_steps
        while rung < steps:
            rungs.append(rung)
            rung *= self.eta
        return rungs

    def rung(self) -> Rung:
        """Those go on whose last value is among the best 1/eta."""
        seen = _Ranked()

        def go_on(arrived: np.ndarray) -> np.ndarray:
            last = arrived[:, -1]
            seen.add(last)
            return last >= seen.best(max(1, len(seen) // self.eta))[0]

        return go_on


@dataclass(frozen=True)
class Median:
    """Stop a trial whose best value is worse than the median of the averages.

    At an evaluation a trial goes on if the best value that it has had is at least the
    median, over all trials that have come there, of the mean of a trial's values until
    there (its own among them).

    Attributes:
      warm_up: updates that every trial gets.
      every: updates between two decisions; by default those between two evaluations.
      min_trials: as long as fewer have come to a decision, all go on; 5 by default.

    Example:
      >>> from optjax.sweep import Median
      >>> list(Median(warm_up=100, every=50).decides_at(steps=300, evaluate_every=10))
      [100, 150, 200, 250]

    References: Golovin et al., "Google Vizier: a service for black-box optimization",
    KDD 2017, section 3.2.
    """

    warm_up: int
    every: int | None = None
    min_trials: int = 5

    def decides_at(self, steps: int, evaluate_every: int) -> range:
        """From the end of the warm-up on.

        Raises:
          SweepError: for a warm-up that is no evaluation or not below the budget, and
            decisions between evaluations.
        """
        every = evaluate_every if self.every is None else self.every
        check(Whole(1), min_trials=self.min_trials)
        _check_first("warm_up", self.warm_up, steps, evaluate_every)
        _check_multiple("every", every, evaluate_every)
        return range(self.warm_up, steps, every)

    def rung(self) -> Rung:
        """Those go on whose best is not below the median average."""
        averages = _Ranked()

        def go_on(arrived: np.ndarray) -> np.ndarray:
            averages.add(arrived.mean(axis=1, dtype=np.float64))
            if len(averages) < self.min_trials:
                return np.ones(len(arrived), bool)
            upper, lower = averages.best((len(averages) + 1) // 2)
            median = upper if len(averages) % 2 else (upper + lower) / 2
            is_sound: np.ndarray = arrived.max(axis=1) >= median
            return is_sound

        return go_on


class _Ranked:
    """Numbers in two heaps: the best so many, and the others."""

    def __init__(self) -> None:
        self._best: list[float] = []
        self._others: list[float] = []

    def __len__(self) -> int:
        return len(self._best) + len(self._others)

    def add(self, values: np.ndarray) -> None:
        for value in values.tolist():
            heapq.heappush(self._others, -heapq.heappushpop(self._best, value))

    def best(self, places: int) -> tuple[float, float]:
        """The worst of the best so many, which never become fewer, and the next one."""
        while len(self._best) < places:
            heapq.heappush(self._best, -heapq.heappop(self._others))
        return self._best[0], -self._others[0] if self._others else -np.inf


class Rungs:
    """A rule's decisions among the trials that it compares.

    Attributes:
      at: the evaluations at which it decides, ascending.
    """

    def __init__(self, rule: StoppingRule, at: tuple[int, ...]) -> None:
        """Nobody has come yet.

        Raises:
          SweepError: where the rule raises, as all other methods.
        """
        self._rule, self.at = rule, at
        with _blamed(rule):
            self._rungs = {place: rule.rung() for place in at}

    def __contains__(self, at: int) -> bool:
        """Whether it decides after so many evaluations."""
        return at in self._rungs

    def after(self, evaluations: int) -> int | None:
        """Where a trial comes next that has had so many, or None."""
        index = bisect.bisect_left(self.at, evaluations)
        return self.at[index] if index < len(self.at) else None

    def stop(self, at: int, arrived: Mapping[int, np.ndarray]) -> list[int]:
        """Which of those that arrive together do not go on.

        Args:
          at: where they arrive.
          arrived: of each its values, higher is better, those of `at` evaluations or,
            of one that has diverged before, fewer.
        """
        values = np.full((len(arrived), at), -np.inf, np.float32)
        for row, of_trial in zip(values, arrived.values(), strict=True):
            row[: len(of_trial)] = of_trial
        with _blamed(self._rule):
            answer = np.asarray(self._rungs[at](values))
        if answer.shape != (len(arrived),) or answer.dtype != bool:
            raise SweepError(
                f"the stopping rule {type(self._rule).__name__} must say of each of "
                f"the trials that arrive whether it goes on; of {len(arrived)} its "
                f"rung returned {answer.dtype}{list(answer.shape)}"
            )
        return [who for who, on in zip(arrived, answer, strict=True) if not on]


def decisions(rule: StoppingRule, steps: int, evaluate_every: int) -> tuple[int, ...]:
    """The evaluations at which a rule decides, ascending; it is tried out at each.

    Raises:
      SweepError: where it decides at others than a trial has, or cannot answer.
    """
    with _blamed(rule):
        at = sorted(set(rule.decides_at(steps, evaluate_every)))
    for step in at:
        if not 0 < step < steps or step % evaluate_every:
            raise SweepError(
                f"the stopping rule {type(rule).__name__} must decide at multiples of "
                f"evaluate_every={evaluate_every} below steps={steps}, got {step}"
            )
    places = tuple(step // evaluate_every for step in at)
    for place in places:
        zeros = np.zeros(place, np.float32)
        Rungs(rule, (place,)).stop(place, {0: zeros, 1: zeros})
    return places


def _blamed(rule: StoppingRule) -> AbstractContextManager[None]:
    return blamed(f"the stopping rule {type(rule).__name__}")


def _check_multiple(name: str, value: int, evaluate_every: int) -> None:
    check(Whole(1), **{name: value})
    if value % evaluate_every:
        raise SweepError(
            f"{name} must be a positive multiple of evaluate_every={evaluate_every}, "
            f"got {value}"
        )


def _check_first(name: str, value: int, steps: int, evaluate_every: int) -> None:
    _check_multiple(name, value, evaluate_every)
    if value >= steps:
        raise SweepError(
            f"{name} must be less than the whole budget of {steps} steps, got {value}"
        )
