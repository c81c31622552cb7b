"""Run a race's grids of trials on the sweep engine."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from optjax import sweep
from optjax._race.plan import Plan
from optjax.tasks import Loaded

# These programs run for about as long as they take to compile. LLVM's level 1 takes
# a third off the compilation and costs no measurable speed at this size.
_CPU_COMPILER_OPTIONS: dict[str, str | bool] = {"xla_backend_optimization_level": "1"}


class Curves(NamedTuple):
    """What was measured, each an array of shape (trials, evaluations).

    A plan's trials are in the order of `lanes`. `train_loss` is the mean over the
    updates since the evaluation before. A trial that diverged has NaN, and False, from
    the evaluation after that.
    """

    train_loss: np.ndarray
    val_loss: np.ndarray
    val_accuracy: np.ndarray
    finite: np.ndarray


def lanes(plan: Plan, optimizer: str) -> list[tuple[float, int]]:
    """Return the (learning rate, seed) of each trial, learning rates slowest."""
    rates = plan.learning_rates[optimizer]
    return [(rate, seed) for rate in rates for seed in plan.seeds]


def execute(
    plan: Plan,
    task: Loaded,
    on_done: Callable[[str, Curves], None],
    *,
    on_status: Callable[[sweep.Status], None] | None = None,
    store: Path | None = None,
    other_versions: bool = False,
) -> sweep.SweepResult:
    """Call `on_done(optimizer, curves)` for each of the plan's optimizers as it ends.

    While one program runs, the next one compiles.

    Args:
        plan: the trials.
        task: what they train.
        on_done: called once an optimizer.
        on_status: called while they run.
        store: the sweep's directory, from which an interrupted race goes on. Long
            trials are saved there at every evaluation. None keeps nothing.
        other_versions: whether other libraries may have begun it there.
    """
    on_cpu = jax.default_backend() == "cpu"

    def on_group(name: str, records: Sequence[sweep.Record]) -> None:
        on_done(name, _curves(plan, records))

    return sweep.run(
        task.make_trial,
        {
            "optimizer": plan.optimizers,
            "learning_rate": sweep.per_optimizer(**plan.learning_rates),
        },
        steps=plan.steps,
        evaluate_every=plan.evaluate_every,
        metric="val_accuracy",
        seeds=plan.seeds,
        # Matrices this small gain nothing from batching on a CPU, and each trial's
        # numbers then do not depend on which others are in the race.
        strategy="map" if on_cpu else "vmap",
        out=store,
        checkpoint_seconds=0.0 if task.is_long else 30.0,
        evaluations_per_call=task.evaluations_per_call,
        about=task.words(plan.task),
        other_versions=other_versions,
        progress=on_status or False,
        on_group=on_group,
        compiler_options=(
            _CPU_COMPILER_OPTIONS if on_cpu and not task.is_long else None
        ),
    )


def _curves(plan: Plan, records: Sequence[sweep.Record]) -> Curves:
    shape = len(records), len(plan.evaluation_steps)

    def column(name: str) -> np.ndarray:
        array = np.full(shape, np.nan, np.float32)
        for row, record in zip(array, records, strict=True):
            measured = record.curve.values[name]
            row[: len(measured)] = measured
        return array

    return Curves(
        column("train_loss"),
        column("val_loss"),
        column("val_accuracy"),
        column("finite") == 1,
    )
