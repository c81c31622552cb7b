"""Where nothing is wrong nothing is said: every row's default on three tasks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rows import ROWS

import optjax

STEPS = 20
RANDOM = np.random.default_rng(0)


def array(*shape):
    return jnp.asarray(RANDOM.normal(size=shape), jnp.float32)


PARAMS = {
    "hidden": {"kernel": array(4, 8) / 2, "bias": array(8) / 10},
    "out": {"kernel": array(8, 3) / 3, "bias": array(3) / 10},
}
INPUTS = array(STEPS, 32, 4)
TARGETS = jnp.tanh(INPUTS @ array(4, 3)) + 0.1 * array(STEPS, 32, 3)


def outputs(params, x):
    hidden = jnp.tanh(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    return hidden @ params["out"]["kernel"] + params["out"]["bias"]


def regression(y, target):
    return jnp.mean((y - target) ** 2)


def classification(y, target):
    labels = jnp.argmax(target, axis=-1)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(y, labels))


def binary(y, target):
    return jnp.mean(optax.sigmoid_binary_cross_entropy(y, target > 0))


TASKS = regression, classification, binary


@functools.partial(jax.jit, static_argnames="factory")
def gradients_on_the_way(factory, learning_rate):
    """Those of 20 steps of training on each task."""
    tx = factory(learning_rate)

    def step(carry, batch, loss):
        params, state = carry
        x, y = batch
        grads = jax.grad(lambda params: loss(outputs(params, x), y))(params)
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), grads

    def train(loss):
        one = functools.partial(step, loss=loss)
        return jax.lax.scan(one, (PARAMS, tx.init(PARAMS)), (INPUTS, TARGETS))[1]

    return [train(loss) for loss in TASKS]


@pytest.mark.parametrize("case", ROWS, ids=lambda case: case.row)
def test_no_false_alarm(case):
    factory = optjax.OPTIMIZERS[case.row].factory
    hyper = {"learning_rate": case.learning_rate}
    for grads in gradients_on_the_way(factory, case.learning_rate):
        found = optjax.audit(factory, hyper, grads, PARAMS, steps=STEPS)
        assert found.verdicts == []
        # Nor is one step's audit, of a run that has just begun, alarming.
        first = jax.tree.map(lambda g: g[:1], grads)
        assert optjax.audit(factory, hyper, first, PARAMS, steps=1).verdicts == []
