"""Where nothing is wrong nothing is said: every row's default on three tasks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiling import jit
from rows import ROWS

import optjax

STEPS = 20
RANDOM = np.random.default_rng(0)


def array(*shape):
    return RANDOM.normal(size=shape).astype(np.float32)


# A matrix and a vector: every leaf more is compiled again for every row.
PARAMS = {"hidden": {"kernel": array(4, 8) / 2, "bias": array(8) / 10}}
OUT = array(8, 3) / 3
INPUTS = array(STEPS, 32, 4)
TARGETS = np.tanh(INPUTS @ array(4, 3)) + np.float32(0.1) * array(STEPS, 32, 3)


def outputs(params, x):
    hidden = jnp.tanh(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    return hidden @ OUT


def regression(y, target):
    return jnp.mean((y - target) ** 2)


def classification(y, target):
    labels = jnp.argmax(target, axis=-1)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(y, labels))


def binary(y, target):
    return jnp.mean(optax.sigmoid_binary_cross_entropy(y, target > 0))


TASKS = regression, classification, binary


@functools.partial(jit, static_argnames="task")
def gradient(task, params, x, y):
    return jax.grad(lambda params: task(outputs(params, x), y))(params)


def gradients_on_the_way(task, state, advance):
    """Those of 20 steps of training."""
    params, way = PARAMS, []
    for x, y in zip(INPUTS, TARGETS, strict=True):
        way.append(gradient(task, params, x, y))
        params, state = advance(params, state, way[-1])
    return jax.tree.map(lambda *gs: np.stack(gs), *way)


@pytest.mark.parametrize("case", ROWS, ids=lambda case: case.row)
def test_no_false_alarm(case):
    """Of the 20 steps together, and of each."""
    factory = optjax.OPTIMIZERS[case.row].factory
    hyper = {"learning_rate": case.learning_rate}
    tx = factory(**hyper)

    @jit
    def advance(params, state, g):
        updates, state = tx.update(g, state, params)
        return optax.apply_updates(params, updates), state

    for task in TASKS:
        grads = gradients_on_the_way(task, tx.init(PARAMS), advance)
        found = optjax.audit(factory, hyper, grads, PARAMS, steps=STEPS)
        found = jax.device_get(found)
        assert found.verdicts == []
        for step in range(STEPS):
            assert found.at(step).verdicts == [], step
