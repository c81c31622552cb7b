"""The race's tables on disk. A file is there whole or not at all."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from optjax._race.execute import Curves, lanes
from optjax._race.plan import Plan
from optjax._race.results import Result, sound
from optjax.sweep._store.files import write_csv

RESULT_COLUMNS = (
    "optimizer",
    "learning_rate",
    "seed",
    "status",
    "steps",
    "best_accuracy",
    "final_accuracy",
    "final_loss",
    "steps_to_95",
)
CURVE_COLUMNS = (
    "optimizer",
    "learning_rate",
    "seed",
    "step",
    "train_loss",
    "val_loss",
    "val_accuracy",
)


def write_results(path: Path, trials: Iterable[Result]) -> None:
    """Write one row a trial; what a diverged trial lacks stays empty."""
    write_csv(path, RESULT_COLUMNS, trials)


def write_curves(path: Path, plan: Plan, curves: Mapping[str, Curves]) -> None:
    """Write one row an evaluation; from divergence on, the accuracy stays empty."""
    write_csv(path, CURVE_COLUMNS, _curve_rows(plan, curves))


def _curve_rows(
    plan: Plan, curves: Mapping[str, Curves]
) -> Iterator[tuple[str | float | None, ...]]:
    for optimizer, of in curves.items():
        accuracy = of.val_accuracy.astype(object)
        accuracy[~sound(of)] = None
        columns = [of.train_loss.tolist(), of.val_loss.tolist(), accuracy.tolist()]
        for lane, (learning_rate, seed) in enumerate(lanes(plan, optimizer)):
            measured = zip(*(column[lane] for column in columns), strict=True)
            for step, values in zip(plan.evaluation_steps, measured, strict=True):
                yield optimizer, learning_rate, seed, step, *values
