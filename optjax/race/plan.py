"""What a race will do, checked before any work starts."""

import difflib
import tempfile
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from optjax.optimizers import OPTIMIZERS
from optjax.tasks import TASKS

#: Half-decade steps, wide enough that every row of the family peaks inside.
LEARNING_RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0)

_MAX_SEED = 2**31 - 1


class Plan(NamedTuple):
    """A race: every optimizer × every learning rate × every seed.

    Attributes:
        task: a name in `TASKS`.
        optimizers: names in `OPTIMIZERS`.
        learning_rates: the grid, ascending.
        seeds: one a repetition; a seed fixes the initial parameters and the order of
            the batches, and is the same for every optimizer and learning rate.
        steps: updates in each trial.
        evaluate_every: updates between two evaluations.
    """

    task: str
    optimizers: tuple[str, ...]
    learning_rates: tuple[float, ...]
    seeds: tuple[int, ...]
    steps: int
    evaluate_every: int

    @property
    def trials_per_optimizer(self) -> int:
        """Learning rates × seeds."""
        return len(self.learning_rates) * len(self.seeds)

    @property
    def evaluation_steps(self) -> tuple[int, ...]:
        """The number of updates done at each evaluation."""
        return tuple(range(self.evaluate_every, self.steps + 1, self.evaluate_every))


def make_plan(
    *,
    task: str = "digits",
    optimizers: Iterable[str] = tuple(OPTIMIZERS),
    learning_rates: Iterable[float] = LEARNING_RATES,
    seeds: int = 3,
    first_seed: int = 0,
    steps: int = 300,
    evaluate_every: int = 10,
) -> Plan:
    """Return the plan, or raise ValueError in one line that names what is wrong.

    Args:
        task: a name in `TASKS`.
        optimizers: names in `OPTIMIZERS`, each once.
        learning_rates: positive and finite in float32, each once, in any order.
        seeds: how many seeds, ≥ 1.
        first_seed: the first of them, ≥ 0; the others follow it.
        steps: updates in each trial, ≥ 1.
        evaluate_every: updates between evaluations; divides `steps`.
    """
    _check_known("task", [task], TASKS)
    names = tuple(optimizers)
    if not names:
        raise ValueError("no optimizer given; name at least one, such as adam")
    _check_known("optimizer", names, OPTIMIZERS)
    _check_distinct("optimizer", names)
    rates = tuple(sorted(float(rate) for rate in learning_rates))
    _check_learning_rates(rates)
    _check_at_least("the number of seeds", seeds, 1)
    _check_at_least("the first seed", first_seed, 0)
    if first_seed + seeds - 1 > _MAX_SEED:
        raise ValueError(
            f"seeds must stay below 2³¹, got {first_seed} to {first_seed + seeds - 1}; "
            "choose a smaller first seed"
        )
    _check_at_least("the number of steps", steps, 1)
    _check_at_least("the steps between evaluations", evaluate_every, 1)
    if steps % evaluate_every:
        up = steps + evaluate_every - steps % evaluate_every
        raise ValueError(
            f"the number of steps must be a multiple of the {evaluate_every} steps "
            f"between evaluations, got {steps}; {up} would do"
        )
    return Plan(
        task,
        names,
        rates,
        tuple(range(first_seed, first_seed + seeds)),
        steps,
        evaluate_every,
    )


def make_directory(path: Path) -> None:
    """Make the output directory if it is absent; raise ValueError if unwritable."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except (FileExistsError, NotADirectoryError):
        raise ValueError(
            f"the output must be a directory, but {path} is or lies below a file; "
            "choose another path"
        ) from None
    except OSError as error:
        raise ValueError(
            f"cannot write to the output directory {path}: {error.strerror}; "
            "choose another path"
        ) from None


def _check_known(kind: str, names: Iterable[str], known: Collection[str]) -> None:
    for name in names:
        if name in known:
            continue
        close = difflib.get_close_matches(name.lower(), known, n=3)
        hint = (
            f"did you mean {' or '.join(close)}?"
            if close
            else f"known: {', '.join(known)}"
        )
        raise ValueError(f"unknown {kind} {name!r}; {hint}")


def _check_distinct(kind: str, values: Sequence[str]) -> None:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(
                f"each {kind} must be given once, got {value} "
                f"{values.count(value)} times; drop the repetition"
            )


def _check_learning_rates(rates: Sequence[float]) -> None:
    if not rates:
        raise ValueError("no learning rate given; name at least one, such as 0.01")
    for rate in rates:
        with np.errstate(over="ignore", under="ignore"):
            single = np.float32(rate)
        if not (single > 0 and np.isfinite(single)):
            raise ValueError(
                f"a learning rate must be positive and finite in float32, got {rate!r}"
            )
    # As in the files, and enough to tell any two float32 numbers apart.
    _check_distinct("learning rate", [f"{rate:.9g}" for rate in rates])


def _check_at_least(what: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{what} must be at least {least}, got {value}")
