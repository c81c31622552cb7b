"""From trials to a ranking: pure statistics, no training and no printing.

A diverged trial takes part in every statistic, as one that is worse than any
accuracy: it is neither left out nor taken for an accuracy of 0. With three seeds of
which one diverged, the median is therefore the lower of the other two, and the spread
begins at "diverged"; with two diverged, the learning rate itself counts as diverged.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from optjax._race.results import DIVERGED, Result

#: How far below its best, in accuracy, an optimizer is still "within 1 %".
TOLERANCE = 0.01

# Accuracies are multiples of 1 / (validation images), in float32.
_ROUNDING = 1e-6

_DIVERGED_ACCURACY = -math.inf
_NEVER = math.inf


class Cell(NamedTuple):
    """One optimizer at one learning rate, over the seeds.

    Accuracies are those of each trial's best evaluation; −inf stands for diverged.
    `steps_to_target` is the median, with a trial that never got there as +inf.
    """

    learning_rate: float
    median: float
    low: float
    high: float
    steps_to_target: float
    final_loss: float
    diverged: int

    @property
    def order(self) -> tuple[float, ...]:
        """Sort key, best first.

        Higher median accuracy; then the higher worst seed, fewer steps to the target,
        the lower final loss, and the smaller learning rate. Ties in accuracy are
        common: the digits' validation set knows only 361 accuracies.
        """
        return (
            -self.median,
            -self.low,
            self.steps_to_target,
            self.final_loss,
            self.learning_rate,
        )


class Standing(NamedTuple):
    """One optimizer's line in the ranking.

    Attributes:
        optimizer: a name in `OPTIMIZERS`.
        best: its best learning rate, or None where every learning rate diverged.
        lowest: the smallest of the neighbouring learning rates around the best whose
            median accuracy is within `TOLERANCE` of it.
        highest: the largest of them.
        below_grid: the range reaches the grid's lower end, so it may be wider still.
        above_grid: likewise at the upper end.
        diverged: diverged trials, over all learning rates.
        trials: all trials.
    """

    optimizer: str
    best: Cell | None
    lowest: float
    highest: float
    below_grid: bool
    above_grid: bool
    diverged: int
    trials: int

    @property
    def decades(self) -> float:
        """The width of the range: log10(highest / lowest)."""
        return math.log10(self.highest / self.lowest)


def cells(trials: Iterable[Result]) -> list[Cell]:
    """Return one optimizer's cells, by ascending learning rate."""
    by_rate: dict[float, list[Result]] = {}
    for trial in trials:
        by_rate.setdefault(trial.learning_rate, []).append(trial)
    return [_cell(rate, by_rate[rate]) for rate in sorted(by_rate)]


def standing(optimizer: str, trials: Sequence[Result]) -> Standing:
    """Return one optimizer's line from all its trials."""
    grid = cells(trials)
    best = min(range(len(grid)), key=lambda i: grid[i].order)
    diverged = sum(cell.diverged for cell in grid)
    if grid[best].median == _DIVERGED_ACCURACY:
        nan = math.nan
        return Standing(optimizer, None, nan, nan, False, False, diverged, len(trials))
    enough = grid[best].median - TOLERANCE - _ROUNDING
    first = last = best
    while first > 0 and grid[first - 1].median >= enough:
        first -= 1
    while last < len(grid) - 1 and grid[last + 1].median >= enough:
        last += 1
    return Standing(
        optimizer,
        grid[best],
        lowest=grid[first].learning_rate,
        highest=grid[last].learning_rate,
        below_grid=first == 0,
        above_grid=last == len(grid) - 1,
        diverged=diverged,
        trials=len(trials),
    )


def rank(trials: Iterable[Result]) -> list[Standing]:
    """Return every optimizer's standing, best first.

    In the order of `Cell.order`, but for the learning rate; full ties keep the order
    in which the optimizers came. Where every learning rate diverged comes last.
    """
    by_optimizer: dict[str, list[Result]] = {}
    for trial in trials:
        by_optimizer.setdefault(trial.optimizer, []).append(trial)
    standings = [standing(name, group) for name, group in by_optimizer.items()]
    worst = (math.inf,)
    return sorted(standings, key=lambda s: s.best.order[:-1] if s.best else worst)


def _cell(learning_rate: float, trials: Sequence[Result]) -> Cell:
    accuracies = [
        _DIVERGED_ACCURACY if t.best_accuracy is None else t.best_accuracy
        for t in trials
    ]
    return Cell(
        learning_rate,
        median=float(np.median(accuracies)),
        low=min(accuracies),
        high=max(accuracies),
        steps_to_target=float(
            np.median(
                [
                    _NEVER if t.steps_to_target is None else t.steps_to_target
                    for t in trials
                ]
            )
        ),
        final_loss=float(
            np.median(
                [math.inf if t.final_loss is None else t.final_loss for t in trials]
            )
        ),
        diverged=sum(t.status == DIVERGED for t in trials),
    )
