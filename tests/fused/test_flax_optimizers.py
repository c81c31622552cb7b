"""`optjax.fused.nnx.Optimizer` and `optjax.fused.linen.TrainState` train as Flax's."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiling import jit
from flax import linen, nnx
from flax.training import train_state
from test_apply_step import ADAM, SCHEDULE, assert_same, needs_library

import optjax
from optjax.fused._library import fused_step_available
from optjax.fused.linen import TrainState
from optjax.fused.nnx import Optimizer

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

INPUTS = jnp.asarray(np.random.default_rng(2).normal(size=(4, 5, 3)), jnp.float32)


class Model(nnx.Module):
    """Two layers, one of them twice, and a variable that is not trained."""

    def __init__(self):
        self.first = nnx.Linear(3, 3, rngs=nnx.Rngs(0))
        self.again = self.first
        self.last = nnx.Linear(3, 2, rngs=nnx.Rngs(1))
        self.calls = nnx.BatchStat(jnp.zeros(()))

    def __call__(self, inputs):
        self.calls[...] += 1
        return self.last(self.again(nnx.relu(self.first(inputs))))


@nnx.jit
def step_nnx(model, optimizer, inputs, arguments):
    """One program for each optimizer, whichever test trains with it."""

    def loss(model):
        return jnp.mean(jnp.square(model(inputs) - inputs[:, :2]))

    optimizer.update(model, nnx.grad(loss)(model), **arguments)


def train_nnx(optimizer_class, tx, steps, **arguments):
    model = Model()
    optimizer = optimizer_class(model, tx, wrt=nnx.Param)
    for inputs in INPUTS[:steps]:
        step_nnx(model, optimizer, inputs, arguments)
    return model, optimizer


NNX = {
    "adam": (ADAM, {}),
    "adaboundw": (optjax.adaboundw(SCHEDULE, gamma=0.5), {}),
    "polyak": (optax.polyak_sgd(1.0), {"value": jnp.array(2.0)}),
}


@pytest.mark.parametrize("name", NNX)
def test_nnx_optimizer(name):
    """As Flax's own; each goes on from where the other was."""
    tx, arguments = NNX[name]
    model, optimizer = train_nnx(nnx.Optimizer, tx, 4, **arguments)
    expected = nnx.state((model, optimizer))
    for first, second in [(Optimizer, nnx.Optimizer), (nnx.Optimizer, Optimizer)]:
        model, optimizer = train_nnx(first, tx, 2, **arguments)
        checkpoint = nnx.to_pure_dict(nnx.state((model, optimizer)))
        model, optimizer = train_nnx(second, tx, 0, **arguments)
        state = nnx.state((model, optimizer))
        nnx.replace_by_pure_dict(state, jax.tree.map(np.asarray, checkpoint))
        nnx.update((model, optimizer), state)
        for inputs in INPUTS[2:]:
            step_nnx(model, optimizer, inputs, arguments)
        assert_same(nnx.state((model, optimizer)), expected, rtol=1e-5)
        assert optimizer.step[...] == 4


@needs_library
def test_nnx_optimizer_is_compiled():
    model = Model()
    optimizer = Optimizer(model, ADAM, wrt=nnx.Param)
    step = nnx.jit(lambda model, optimizer, grads: optimizer.update(model, grads))
    text = step.lower(model, optimizer, nnx.state(model, nnx.Param)).as_text()
    assert text.count("custom_call @optjax_step") == 1


@pytest.mark.skipif(
    "graph" not in inspect.signature(nnx.Optimizer).parameters,
    reason="this Flax has no tree mode",
)
def test_nnx_optimizer_without_a_graph():
    """A model that is a tree, in Flax's tree mode."""
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    grads = jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param))
    states = []
    for each in (Optimizer, nnx.Optimizer):
        model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
        optimizer = each(model, ADAM, wrt=nnx.Param, graph=False)
        optimizer.update(model, grads)
        states.append(nnx.state((model, optimizer)))
    assert_same(*states)


def train_linen(state, inputs):
    def loss(params):
        outputs = state.apply_fn({"params": params}, inputs)
        return jnp.mean(jnp.square(outputs - inputs[:, :2]))

    return state.apply_gradients(grads=jax.grad(loss)(state.params))


@pytest.mark.parametrize("row", ["adam", "amsbound", "yogi"])
def test_linen_train_state(row):
    """As Flax's own; each goes on from where the other was."""
    tx = optjax.OPTIMIZERS[row].factory(0.05)
    model = linen.Dense(2)
    params = model.init(jax.random.key(0), INPUTS[0])["params"]
    # To JAX 0.10 the structures of two dataclasses of equal fields are equal, and a
    # function that is jitted once may be taken from the cache for the other class.
    step = {
        each: jit(lambda state, inputs: train_linen(state, inputs))
        for each in (TrainState, train_state.TrainState)
    }

    def create(each):
        return each.create(apply_fn=model.apply, params=params, tx=tx)

    def contents(state):
        return {
            "step": jnp.asarray(state.step),
            "params": state.params,
            "opt_state": state.opt_state,
        }

    theirs = train_state.TrainState
    expected = create(theirs)
    for inputs in INPUTS:
        expected = step[theirs](expected, inputs)
    for first, second in [(TrainState, theirs), (theirs, TrainState)]:
        state = create(first)
        for inputs in INPUTS[:2]:
            state = step[first](state, inputs)
        state = create(second).replace(**contents(state))
        for inputs in INPUTS[2:]:
            state = step[second](state, inputs)
        assert_same(contents(state), contents(expected), rtol=1e-5)
    if fused_step_available():
        text = step[TrainState].lower(create(TrainState), INPUTS[0]).as_text()
        assert text.count("custom_call @optjax_step") == (row != "yogi")


def test_linen_train_state_with_gradients_that_overwrite():
    """Flax's scales of FP8, and further fields to replace."""
    params = {"params": {"w": jnp.ones(2)}, "_overwrite_with_gradient": jnp.ones(1)}
    states = []
    for each in (TrainState, train_state.TrainState):
        state = each.create(apply_fn=None, params=params, tx=ADAM)
        grads = jax.tree.map(lambda x: 2 * x, params)
        state = state.apply_gradients(grads=grads, apply_fn=abs)
        assert state.step == 1
        assert state.apply_fn is abs
        states.append((state.params, state.opt_state))
    assert_same(*states)
