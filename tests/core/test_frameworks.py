"""Every row trains Flax and Equinox models as it trains plain dictionaries."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import jit
from flax import linen, nnx
from flax.training.train_state import TrainState
from loop import NOISE, START, assert_same_path, scan, walk
from rows import ROWS

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

each_row = pytest.mark.parametrize("case", ROWS, ids=str)

STEPS = 4
INPUTS = jnp.asarray(np.random.default_rng(1).normal(size=(STEPS, 5, 3)), jnp.float32)


def loss(parameters, inputs):
    """Of a linear layer that should return the first two inputs."""
    outputs = inputs @ parameters["kernel"] + parameters["bias"]
    return jnp.mean(jnp.square(outputs - inputs[:, :2]))


gradient = jit(jax.grad(loss))


@each_row
def test_flax_nnx_optimizer(case):
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    start = {"kernel": model.kernel[...], "bias": model.bias[...]}
    optimizer = nnx.Optimizer(model, case.interior(), wrt=nnx.Param)
    structure = jax.tree.structure(nnx.state(optimizer))

    @nnx.jit
    def step(model, optimizer, inputs):
        grads = nnx.grad(lambda m: jnp.mean(jnp.square(m(inputs) - inputs[:, :2])))(
            model
        )
        optimizer.update(model, grads)

    path = {"kernel": [], "bias": []}
    for inputs in INPUTS:
        step(model, optimizer, inputs)
        path["kernel"].append(model.kernel[...])
        path["bias"].append(model.bias[...])
    assert jax.tree.structure(nnx.state(optimizer)) == structure
    expected = walk(case.interior(), start, INPUTS, gradient)
    assert_same_path({key: jnp.stack(path[key]) for key in path}, expected)


@each_row
def test_flax_linen_train_state(case):
    """Created and stepped under vmap: an ensemble of two networks."""
    model = linen.Dense(2)

    def create(key):
        variables = model.init(key, INPUTS[0])
        return TrainState.create(
            apply_fn=model.apply, params=variables["params"], tx=case.interior()
        )

    def step(state, inputs):
        def loss(params):
            outputs = state.apply_fn({"params": params}, inputs)
            return jnp.mean(jnp.square(outputs - inputs[:, :2]))

        state = state.apply_gradients(grads=jax.grad(loss)(state.params))
        return state, state.params

    keys = jax.random.split(jax.random.key(0), 2)
    states = jax.vmap(create)(keys)
    run = jit(jax.vmap(lambda state: jax.lax.scan(step, state, INPUTS)))
    last, path = run(states)
    assert jnp.array_equal(last.step, jnp.array([STEPS, STEPS]))
    for i, key in enumerate(keys):
        start = model.init(key, INPUTS[0])["params"]
        expected = walk(case.interior(), start, INPUTS, gradient)
        assert_same_path(jax.tree.map(lambda p, i=i: p[i], path), expected)


MLP = eqx.nn.MLP(3, 2, 4, 1, key=jax.random.key(0))
PARAMETERS, STATIC = eqx.partition(MLP, eqx.is_inexact_array)


def loss_of_mlp(parameters, inputs):
    outputs = jax.vmap(eqx.combine(parameters, STATIC))(inputs)
    return jnp.mean(jnp.square(outputs - inputs[:, :2]))


@jit
def gradient_of_leaves(leaves, inputs):
    """Of the parameters that are arrays, by their number."""
    tree = jax.tree.unflatten(jax.tree.structure(PARAMETERS), leaves.values())
    return dict(enumerate(jax.tree.leaves(jax.grad(loss_of_mlp)(tree, inputs))))


@each_row
def test_equinox_module(case):
    """Its filtered tree has None where a leaf is no parameter."""
    leaves = jax.tree.leaves(PARAMETERS, is_leaf=lambda leaf: leaf is None)
    assert any(leaf is None for leaf in leaves)
    tx, model = case.interior(), MLP

    @eqx.filter_jit
    def step(model, state, inputs):
        grads = eqx.filter_grad(
            lambda m: loss_of_mlp(eqx.filter(m, eqx.is_inexact_array), inputs)
        )(model)
        updates, state = tx.update(grads, state, eqx.filter(model, eqx.is_array))
        return eqx.apply_updates(model, updates), state

    state = tx.init(eqx.filter(model, eqx.is_inexact_array))
    for inputs in INPUTS:
        model, state = step(model, state, inputs)
    start = dict(enumerate(jax.tree.leaves(PARAMETERS)))
    expected = walk(tx, start, INPUTS, gradient_of_leaves)
    actual = jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))
    assert_same_path(
        dict(enumerate(actual)), {key: path[-1] for key, path in expected.items()}
    )


@each_row
def test_none_leaves(case):
    """Empty subtrees, which change nothing and stay where they are."""

    def with_none(tree):
        return {"inner": tree, "nothing": None, "empty": [None, {}, ()]}

    tx = case.interior()
    path = jit(lambda: scan(tx, with_none(START), [*map(with_none, NOISE)]))()
    assert path["nothing"] is None
    assert path["empty"] == [None, {}, ()]
    assert_same_path(path["inner"], case.path())
