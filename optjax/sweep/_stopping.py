"""Successive halving: at which evaluations a trial must be among the best to go on."""

from typing import NamedTuple

import numpy as np

from optjax._hyperparameter import whole
from optjax.sweep._problem import SweepError

__all__ = ["Rungs", "SuccessiveHalving"]


class SuccessiveHalving(NamedTuple):
    """Stop all but the best 1/eta of the trials at each rung.

    The rungs are at min_steps · eta^k updates, k = 0, 1, …, below the whole budget. A
    trial that reaches a rung goes on if its metric there is among the best 1/eta (at
    least one) of all that reached it so far, of the same optimizer. Lanes that reach a
    rung together are compared with each other first.

    Attributes:
      min_steps: updates that every trial gets.
      eta: the share that goes on is 1/eta; 3 by default.

    References: Jamieson & Talwalkar, "Non-stochastic best arm identification", AISTATS
    2016; Li et al., "A system for massively parallel hyperparameter tuning", MLSys
    2020 (asynchronous, as here).
    """

    min_steps: int
    eta: int = 3


class Rungs:
    """The evaluations that are rungs, and the metric of every trial that got there."""

    def __init__(
        self, halving: SuccessiveHalving | None, evaluate_every: int, evaluations: int
    ) -> None:
        """Place the rungs of a budget of `evaluations`; none without halving."""
        self._eta = halving.eta if halving else 1
        self._scores: dict[int, list[float]] = {}
        if halving is None:
            return
        for name, value, least in (
            ("eta", halving.eta, 2),
            ("min_steps", halving.min_steps, 1),
        ):
            if fault := whole(least).fault(value):
                raise SweepError(f"{name} {fault.rstrip('.')}")
        if halving.min_steps < 1 or halving.min_steps % evaluate_every:
            raise SweepError(
                f"min_steps must be a positive multiple of evaluate_every="
                f"{evaluate_every}, got {halving.min_steps}"
            )
        rung = halving.min_steps // evaluate_every
        while rung < evaluations:
            self._scores[rung] = []
            rung *= halving.eta
        if not self._scores:
            raise SweepError(
                f"min_steps must be less than the whole budget of "
                f"{evaluations * evaluate_every} steps, got {halving.min_steps}"
            )

    @property
    def at(self) -> tuple[int, ...]:
        """The rungs, in evaluations."""
        return tuple(self._scores)

    def go_on(self, rung: int, scores: np.ndarray) -> np.ndarray:
        """Which of the trials that reach `rung` together go on.

        Args:
          rung: one of `at`.
          scores: their metrics, higher is better; −inf for a diverged one, which never
            goes on.

        Returns:
          A boolean for each.
        """
        seen = self._scores[rung]
        seen.extend(float(score) for score in scores)
        places = max(1, len(seen) // self._eta)
        threshold = sorted(seen, reverse=True)[places - 1]
        return (scores >= threshold) & (scores > -np.inf)
