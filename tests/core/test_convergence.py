"""Every row reaches known minima, and AdaBound the one that Adam runs away from."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
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


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", optjax.OPTIMIZERS)
def test_reaches_the_minimum(name, problem):
    f, start, steps, target = PROBLEMS[problem]
    factory = optjax.OPTIMIZERS[name].factory

    @jit
    @jax.vmap
    def final_value(learning_rate):
        # The bound is set so wide that the learning rate alone decides.
        bounded = "final_lr" in inspect.signature(factory).parameters
        tx = (
            factory(learning_rate, final_lr=learning_rate)
            if bounded
            else factory(learning_rate)
        )
        x, _ = minimize(tx, f, jnp.array(start), steps)
        return f(x)

    values = np.asarray(final_value(jnp.asarray(LEARNING_RATES)))
    best = np.nanmin(values)
    assert best < target, dict(zip(LEARNING_RATES, values, strict=True))


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
