"""Run grids of trials, each optimizer's whole grid as one compiled program."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from optjax.race.plan import Plan
from optjax.tasks import Metrics, State, Trial

# These programs run for about as long as they take to compile. LLVM's level 1 takes
# a third off the compilation and costs no measurable speed at this size.
_CPU_COMPILER_OPTIONS = {"xla_backend_optimization_level": 1}


class Curves(NamedTuple):
    """What was measured, each an array of shape (trials, evaluations).

    A plan's trials are in the order of `lanes`. `train_loss` is the mean over the
    updates since the evaluation before.
    """

    train_loss: np.ndarray
    val_loss: np.ndarray
    val_accuracy: np.ndarray
    finite: np.ndarray


def lanes(plan: Plan) -> list[tuple[float, int]]:
    """Return the (learning rate, seed) of each trial, learning rates slowest."""
    return [(rate, seed) for rate in plan.learning_rates for seed in plan.seeds]


def execute(
    plan: Plan, trials: Iterable[tuple[str, Trial]]
) -> Iterator[tuple[str, Curves]]:
    """Yield (optimizer, curves) for each of `trials`, in order, as they finish.

    While one program runs, the next one compiles.
    """
    rates, seeds = zip(*lanes(plan), strict=True)
    grid = np.array(rates, np.float32), np.array(seeds, np.int32)
    running: tuple[str, Metrics] | None = None
    for name, trial in trials:
        # The dispatch is asynchronous: this returns once the program has compiled.
        started = name, _grid_program(plan, trial)(*grid)
        if running is not None:
            yield _finished(*running)
        running = started
    if running is not None:
        yield _finished(*running)


def _finished(name: str, measured: Metrics) -> tuple[str, Curves]:
    return name, Curves(**{key: np.asarray(value) for key, value in measured.items()})


def _grid_program(plan: Plan, trial: Trial) -> Callable[..., Metrics]:
    on_cpu = jax.default_backend() == "cpu"

    def until_evaluation(state: State, _: None) -> tuple[State, Metrics]:
        state, steps = jax.lax.scan(
            lambda state, _: trial.step(state), state, length=plan.evaluate_every
        )
        at_end = trial.evaluate(state)
        return state, {
            "train_loss": jnp.mean(steps["train_loss"]),
            "val_loss": at_end["val_loss"],
            "val_accuracy": at_end["val_accuracy"],
            "finite": at_end["finite"],
        }

    def one(lane: tuple[jax.Array, jax.Array]) -> Metrics:
        learning_rate, seed = lane
        state = trial.init(jax.random.key(seed), {"learning_rate": learning_rate})
        evaluations = len(plan.evaluation_steps)
        return jax.lax.scan(until_evaluation, state, length=evaluations)[1]

    def grid(learning_rates: jax.Array, seeds: jax.Array) -> Metrics:
        if on_cpu:
            # One after the other inside the program: a batch of matrices this small
            # is no faster than its members on a CPU, and each trial's numbers do not
            # depend on which others are in the grid.
            return jax.lax.map(one, (learning_rates, seeds))
        return jax.vmap(one)((learning_rates, seeds))

    return jax.jit(grid, compiler_options=_CPU_COMPILER_OPTIONS if on_cpu else None)
