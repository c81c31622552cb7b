"""Every row trains Flax and Equinox models as it trains plain dictionaries."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import jit
from flax import linen, nnx
from flax.training.train_state import TrainState
from loop import assert_same_path, differ, last
from rows import each_row

pytestmark = pytest.mark.usefixtures("cheaply_compiled")


STEPS = 4
INPUTS = np.random.default_rng(1).normal(size=(STEPS, 5, 3)).astype(np.float32)


def loss(outputs, inputs):
    """Of a linear layer that should return the first two inputs."""
    return jnp.mean(jnp.square(outputs - inputs[:, :2]))


def expected(case, kernel, bias):
    """The layer's parameters after every step, in NumPy."""

    def gradient(t, x):
        inputs = INPUTS[t - 1]
        error = inputs @ x["kernel"] + x["bias"] - inputs[:, :2]
        slope = 2 * error / error.size
        return {"kernel": inputs.T @ slope, "bias": slope.sum(axis=0)}

    path = case.follow({"kernel": kernel, "bias": bias}, gradient, STEPS)
    return {key: leaf.astype(np.float32) for key, leaf in path.items()}


@each_row
def test_flax_nnx_optimizer(case):
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, case.interior(), wrt=nnx.Param)
    structure = jax.tree.structure(nnx.state(optimizer))

    @nnx.jit
    def step(model, optimizer, inputs):
        grads = nnx.grad(lambda m: loss(m(inputs), inputs))(model)
        optimizer.update(model, grads)

    def parameters():
        return {"kernel": np.asarray(model.kernel), "bias": np.asarray(model.bias)}

    start, path = parameters(), []
    for inputs in INPUTS:
        step(model, optimizer, inputs)
        path.append(parameters())
    assert jax.tree.structure(nnx.state(optimizer)) == structure
    path = jax.tree.map(lambda *leaves: np.stack(leaves), *path)
    assert_same_path(path, expected(case, **start))


DENSE = linen.Dense(2)


@functools.cache
def two():
    keys = jax.random.split(jax.random.key(0), 2)
    return jit(jax.vmap(lambda key: DENSE.init(key, INPUTS[0])["params"]))(keys)


@each_row
def test_flax_linen_train_state(case):
    """Created and stepped under vmap: an ensemble of two networks."""

    def step(state, inputs):
        grads = jax.grad(
            lambda params: loss(state.apply_fn({"params": params}, inputs), inputs)
        )(state.params)
        state = state.apply_gradients(grads=grads)
        return state, state.params

    @jit
    @jax.vmap
    def run(params):
        state = TrainState.create(
            apply_fn=DENSE.apply, params=params, tx=case.interior()
        )
        last, path = jax.lax.scan(step, state, INPUTS)
        return last.step, path

    steps, paths = jax.device_get(run(two()))
    np.testing.assert_array_equal(steps, [STEPS, STEPS])
    assert differ(paths["kernel"][0], paths["kernel"][1])
    for i in range(2):
        start, path = (jax.tree.map(lambda x, i=i: x[i], x) for x in (two(), paths))
        assert_same_path(path, expected(case, **start))


@functools.cache
def layer():
    return eqx.nn.MLP(3, 2, 0, 0, key=jax.random.key(0))


@each_row
def test_equinox_module(case):
    """Its filtered tree has None where a leaf is no parameter."""
    is_none = [
        leaf is None
        for leaf in jax.tree.leaves(
            eqx.filter(layer(), eqx.is_inexact_array), is_leaf=lambda leaf: leaf is None
        )
    ]
    assert any(is_none)
    tx, model = case.interior(), layer()

    @eqx.filter_jit
    def step(model, state, inputs):
        grads = eqx.filter_grad(lambda m: loss(jax.vmap(m)(inputs), inputs))(model)
        updates, state = tx.update(grads, state, eqx.filter(model, eqx.is_array))
        return eqx.apply_updates(model, updates), state

    def parameters():
        (layer,) = model.layers
        return {"kernel": np.asarray(layer.weight).T, "bias": np.asarray(layer.bias)}

    start = parameters()
    state = tx.init(eqx.filter(model, eqx.is_inexact_array))
    for inputs in INPUTS:
        model, state = step(model, state, inputs)
    assert_same_path(parameters(), last(expected(case, **start)))
