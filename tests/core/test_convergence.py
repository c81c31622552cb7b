"""Every row reaches known minima, and AdaBound the one that Adam runs away from."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiling import jit

import optjax
from optjax.problems import minimize, online_convex, quadratic, rosenbrock

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

LEARNING_RATES = 10.0 ** np.arange(-5.0, 1.25, 0.25)

# The start, the steps allowed and the value to reach with the best learning rate.
PROBLEMS = {
    "parabola": (quadratic, [1.0, -2.0, 3.0], 1_000, 1e-4),
    "ill-conditioned quadratic": (
        lambda x: quadratic(x, condition=1e3),
        [1.0, 1.0, -1.0, 1.0],
        10_000,
        1e-4,
    ),
    "rosenbrock": (rosenbrock, [-1.2, 1.0], 30_000, 1e-3),
}
FUNCTIONS, STARTS, STEPS, TARGETS = zip(*PROBLEMS.values(), strict=True)


def value(which, x):
    """Of one of the problems, at the first coordinates of x."""
    sizes = map(len, STARTS)
    branches = [
        lambda x, f=f, n=n: f(x[:n]) for f, n in zip(FUNCTIONS, sizes, strict=True)
    ]
    return jax.lax.switch(which, branches, x)


@pytest.mark.parametrize("name", optjax.OPTIMIZERS)
def test_reaches_the_minima(name):
    """Of each problem within its steps, all problems and learning rates at once."""
    factory = optjax.OPTIMIZERS[name].factory
    # The bound is set so wide that the learning rate alone decides.
    bounded = "final_lr" in inspect.signature(factory).parameters

    @jit
    @functools.partial(jax.vmap, in_axes=(0, 0, 0, None))
    @functools.partial(jax.vmap, in_axes=(None, None, None, 0))
    def final_value(which, steps, start, learning_rate):
        more = {"final_lr": learning_rate} if bounded else {}
        tx = optax.chain(
            factory(learning_rate, **more),
            optax.scale_by_schedule(lambda count: jnp.where(count < steps, 1.0, 0.0)),
        )
        f = functools.partial(value, which)
        x, _ = minimize(tx, f, start, max(STEPS))
        return f(x)

    starts = np.zeros((len(PROBLEMS), max(map(len, STARTS))), np.float32)
    for i, start in enumerate(STARTS):
        starts[i, : len(start)] = start
    problems = np.arange(len(PROBLEMS)), np.array(STEPS), starts
    values = np.asarray(final_value(*problems, LEARNING_RATES.astype(np.float32)))
    for problem, target, reached in zip(PROBLEMS, TARGETS, values, strict=True):
        found = dict(zip(LEARNING_RATES, reached, strict=True))
        assert np.nanmin(reached) < target, (problem, found)


def inverse_root_schedule(count):
    return 0.5 / jnp.sqrt(count + 1.0)


# Where each went over 2e6 steps from x = 0; −1 is the best point, +1 the worst.
TAILS = {
    "adam": (0.99, 1.0),
    "sgd": (-1.0, -0.7),
    "amsgrad": (-1.0, -0.95),
    "adabound": (-1.0, -0.95),
    "amsbound": (-1.0, -0.95),
}


@pytest.mark.parametrize("name", TAILS)
def test_the_convex_problem_that_adam_gets_wrong(name):
    factory = getattr(optjax, name)
    flags = {} if name == "sgd" else {"b1": 0.9, "b2": 0.99}
    tx = factory(inverse_root_schedule, **flags)
    means = jit(lambda: online_convex(tx, steps=2_000_000, chunks=100))()
    lowest, highest = TAILS[name]
    assert lowest <= means[-1] <= highest, means


def test_online_convex_refuses_a_ragged_last_chunk():
    with pytest.raises(ValueError, match="multiple of chunks, got 10 and 3"):
        online_convex(optjax.sgd(0.1), steps=10, chunks=3)
