"""From curves to one result a trial."""

from typing import NamedTuple

import numpy as np

from optjax._race.execute import Curves, lanes
from optjax._race.plan import Plan

TARGET_ACCURACY = 0.95
FINISHED, DIVERGED = "finished", "diverged"


class Result(NamedTuple):
    """One trial.

    A trial has diverged if a loss or a parameter was not finite at any evaluation. It
    then has no accuracy and no loss: they are None, not 0, whatever it reached before.

    Attributes:
        optimizer: a name in `OPTIMIZERS`.
        learning_rate: as in the plan.
        seed: as in the plan.
        status: FINISHED or DIVERGED.
        steps: updates done, or for a diverged trial, done when it was seen to have.
        best_accuracy: the highest validation accuracy of all evaluations.
        final_accuracy: validation accuracy at the last evaluation.
        final_loss: validation loss at the last evaluation.
        steps_to_target: updates at the first evaluation with a validation accuracy of
            at least `TARGET_ACCURACY`; None if there was none.
    """

    optimizer: str
    learning_rate: float
    seed: int
    status: str
    steps: int
    best_accuracy: float | None
    final_accuracy: float | None
    final_loss: float | None
    steps_to_target: int | None


def sound(curves: Curves) -> np.ndarray:
    """Return, for each trial and evaluation, whether all was finite up to there."""
    finite = np.isfinite(curves.train_loss) & np.isfinite(curves.val_loss)
    return np.logical_and.accumulate(finite & curves.finite, axis=1)


def results(plan: Plan, optimizer: str, curves: Curves) -> list[Result]:
    """Return one `Result` for each of the grid's trials, in the order of `lanes`."""
    steps = plan.evaluation_steps
    still_sound = sound(curves)
    out = []
    for i, (learning_rate, seed) in enumerate(lanes(plan, optimizer)):
        if not still_sound[i, -1]:
            first_bad = steps[int(np.argmin(still_sound[i]))]
            trial = Result(
                optimizer, learning_rate, seed, DIVERGED, first_bad, *[None] * 4
            )
        else:
            accuracy = curves.val_accuracy[i]
            reached = np.flatnonzero(accuracy >= np.float32(TARGET_ACCURACY))
            trial = Result(
                optimizer,
                learning_rate,
                seed,
                FINISHED,
                plan.steps,
                best_accuracy=float(accuracy.max()),
                final_accuracy=float(accuracy[-1]),
                final_loss=float(curves.val_loss[i, -1]),
                steps_to_target=steps[reached[0]] if reached.size else None,
            )
        out.append(trial)
    return out
