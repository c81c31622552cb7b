"""What a race will do, checked before any work starts."""

import difflib
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from optjax.optimizers import OPTIMIZERS
from optjax.sweep._records import MOST_TRIALS
from optjax.tasks import TASKS

#: Half-decade steps, wide enough that every row of the family peaks inside.
LEARNING_RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0)

_MAX_SEED = 2**31 - 1


class Plan(NamedTuple):
    """A race: every optimizer × every learning rate × every seed.

    Attributes:
        task: a name in `TASKS`.
        optimizers: names in `OPTIMIZERS`.
        learning_rates: for each optimizer, ascending.
        seeds: one a repetition; a seed fixes the initial parameters and the order of
            the batches, and is the same for every optimizer and learning rate.
        steps: updates in each trial.
        evaluate_every: updates between two evaluations.
    """

    task: str
    optimizers: tuple[str, ...]
    learning_rates: Mapping[str, tuple[float, ...]]
    seeds: tuple[int, ...]
    steps: int
    evaluate_every: int

    @property
    def trials(self) -> int:
        """Learning rates × seeds, over all optimizers."""
        return sum(map(len, self.learning_rates.values())) * len(self.seeds)

    @property
    def grid(self) -> tuple[float, ...]:
        """Every learning rate that some optimizer tries, ascending."""
        return tuple(sorted(set().union(*self.learning_rates.values())))

    @property
    def evaluation_steps(self) -> tuple[int, ...]:
        """The number of updates done at each evaluation."""
        return tuple(range(self.evaluate_every, self.steps + 1, self.evaluate_every))


def make_plan(
    *,
    task: str = "digits",
    optimizers: Iterable[str] = tuple(OPTIMIZERS),
    learning_rates: Iterable[float] | Mapping[str, Iterable[float]] = LEARNING_RATES,
    seeds: int = 3,
    first_seed: int = 0,
    steps: int = 300,
    evaluate_every: int = 10,
) -> Plan:
    """Return the plan, or raise ValueError in one line that names what is wrong.

    Args:
        task: a name in `TASKS`.
        optimizers: names in `OPTIMIZERS`, each once.
        learning_rates: positive and finite in float32, each once, in any order; the
            same for every optimizer, or by the optimizer's name.
        seeds: how many seeds, ≥ 1.
        first_seed: the first of them, ≥ 0; the others follow it.
        steps: updates in each trial, ≥ 1.
        evaluate_every: updates between evaluations; divides `steps`.
    """
    check_known("task", [task], TASKS)
    names = tuple(optimizers)
    if not names:
        raise ValueError("no optimizer given; name at least one, such as adam")
    check_known("optimizer", names, OPTIMIZERS)
    _check_distinct("optimizer", names)
    if not isinstance(learning_rates, Mapping):
        learning_rates = dict.fromkeys(names, tuple(learning_rates))
    rates = {
        name: tuple(sorted(float(rate) for rate in learning_rates.get(name, ())))
        for name in names
    }
    for name, of_optimizer in rates.items():
        _check_learning_rates(name, of_optimizer)
    _check_at_least("the number of seeds", seeds, 1)
    grid = sum(map(len, rates.values()))
    if grid * seeds > MOST_TRIALS:
        raise ValueError(
            f"a race may have {MOST_TRIALS:,} trials, got {grid} learning rates of "
            f"{len(names)} optimizers × {seeds:,} seeds = {grid * seeds:,}; take fewer "
            "seeds"
        )
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


def check_known(kind: str, names: Iterable[str], known: Collection[str]) -> None:
    """Raise ValueError for the first name that is not known, with those near it."""
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


def _check_learning_rates(optimizer: str, rates: Sequence[float]) -> None:
    if not rates:
        raise ValueError(
            f"no learning rate given for {optimizer}; name at least one, such as 0.01"
        )
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
