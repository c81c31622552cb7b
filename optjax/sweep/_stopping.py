"""Stopping rules: which trials go on, from what all have reached until there.

A rule is a function of the values alone, so that a sweep that is resumed decides again
as it did. `SuccessiveHalving` and `Median` are two; a class of yours with the same two
methods is another.
"""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from optjax._hyperparameter import whole
from optjax.sweep._errors import SweepError, in_own_code, one_line

__all__ = ["Median", "StoppingRule", "SuccessiveHalving", "ask", "decisions"]


class StoppingRule(Protocol):
    """When to decide, and which trials go on.

    Both methods are pure: they return the same for the same arguments and keep nothing,
    as those of a frozen dataclass do. What a rule is, its fields and its code, is part
    of what a sweep's directory belongs to. It compares trials of one program: of one
    optimizer with one set of static hyper-parameters.
    """

    def decides_at(self, steps: int, evaluate_every: int) -> Iterable[int]:
        """The updates after which it decides.

        Args:
          steps: updates in a whole trial.
          evaluate_every: updates between two evaluations.

        Returns:
          Multiples of `evaluate_every` below `steps`. Each ends a call of the compiled
          program, so many of them make short calls.
        """
        ...

    def go_on(self, arrived: np.ndarray, everyone: np.ndarray) -> np.ndarray:
        """Which of the trials that come to a decision together go on.

        Args:
          arrived: shape (n, evaluations so far), float32: their values of the metric,
            higher is better; where the sweep's mode is "min", they are negated. A trial
            that has diverged has −inf from there on, and ends whatever is said of it.
          everyone: shape (m, evaluations so far): those of all trials that have come
            there until now, in order; the last n are `arrived`.

        Returns:
          A boolean for each of the n.
        """
        ...


@dataclass(frozen=True)
class SuccessiveHalving:
    """Stop all but the best 1/eta of the trials at each rung.

    The rungs are at min_steps · eta^k updates, k = 0, 1, …, below the whole budget. A
    trial that reaches a rung goes on if its metric there is among the best 1/eta (at
    least one) of all that reached it so far, of the same optimizer. Lanes that reach a
    rung together are compared with each other first.

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
        _check_whole("eta", self.eta, 2)
        _check_first("min_steps", self.min_steps, steps, evaluate_every)
        rungs, rung = [], self.min_steps
        while rung < steps:
            rungs.append(rung)
            rung *= self.eta
        return rungs

    def go_on(self, arrived: np.ndarray, everyone: np.ndarray) -> np.ndarray:
        """Those whose last value is among the best 1/eta."""
        places = max(1, len(everyone) // self.eta)
        threshold = np.sort(everyone[:, -1])[-places]
        return arrived[:, -1] >= threshold


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
        _check_whole("min_trials", self.min_trials, 1)
        _check_first("warm_up", self.warm_up, steps, evaluate_every)
        _check_multiple("every", every, evaluate_every)
        return range(self.warm_up, steps, every)

    def go_on(self, arrived: np.ndarray, everyone: np.ndarray) -> np.ndarray:
        """Those whose best is not below the median average."""
        if len(everyone) < self.min_trials:
            return np.ones(len(arrived), bool)
        averages = everyone.mean(axis=1, dtype=np.float64)
        return arrived.max(axis=1) >= np.median(averages)


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
        two = np.zeros((2, step // evaluate_every), np.float32)
        ask(rule, two, two)
    return tuple(step // evaluate_every for step in at)


def ask(
    rule: StoppingRule, arrived: np.ndarray, everyone: np.ndarray
) -> Iterable[bool]:
    """What a rule's `go_on` says, one for each that arrived.

    Raises:
      SweepError: where it says something else, or raises.
    """
    with _blamed(rule):
        answer = np.asarray(rule.go_on(arrived, everyone))
    if answer.shape != (len(arrived),) or answer.dtype != bool:
        raise SweepError(
            f"the stopping rule {type(rule).__name__} must say of each of the trials "
            f"that arrive whether it goes on; of {len(arrived)} its go_on returned "
            f"{answer.dtype}{list(answer.shape)}"
        )
    return answer.tolist()


@contextlib.contextmanager
def _blamed(rule: StoppingRule) -> Iterator[None]:
    try:
        yield
    except SweepError:
        raise
    except Exception as error:
        raise SweepError(
            f"the stopping rule {type(rule).__name__} raised {one_line(error)}"
            f"{in_own_code(error)}"
        ) from error


def _check_whole(name: str, value: int, least: int) -> None:
    if fault := whole(least).fault(value):
        raise SweepError(f"{name} {fault.rstrip('.')}")


def _check_multiple(name: str, value: int, evaluate_every: int) -> None:
    _check_whole(name, value, 1)
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
