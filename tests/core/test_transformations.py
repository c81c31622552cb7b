"""JAX's transformations: vmap, grad, jit and donation, eval_shape."""

import warnings

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiling import jit
from loop import NOISE, START, assert_same_path, differ, gradient, last, scan
from rows import CASES, FLAGGED, Case

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

each_case = pytest.mark.parametrize("case", CASES, ids=str)


@each_case
def test_vmap_over_every_hyperparameter(case):
    """A batch that changes one at a time, against the rule of one at a time."""
    values = case.hyperparameters()
    batch = [values, *({**values, key: 0.8 * values[key]} for key in values)]
    traces = []

    @jit
    @jax.vmap
    def run(hyperparameters):
        traces.append(1)
        return scan(case.factory(**hyperparameters))

    paths = jax.device_get(run(jax.tree.map(lambda *x: np.float32(x), *batch)))
    lanes = [{key: path[i] for key, path in paths.items()} for i in range(len(batch))]
    for path, hyperparameters in zip(lanes, batch, strict=True):
        assert_same_path(path, case.path(**hyperparameters))
    assert len(traces) == 1
    for key, path in zip(values, lanes[1:], strict=True):
        expected = values[key] != 0.0 and case.has_effect(key)
        assert differ(path, lanes[0], 1e-6) == expected, key


@each_case
def test_one_program_with_donated_buffers(case):
    """Neither another value nor the second step after the first is compiled again.

    Every buffer of parameters and state is reused, none is given away twice.
    """
    traces = []

    def step(hyperparameters, x, state, noise):
        traces.append(1)
        tx = case.factory(**hyperparameters)
        updates, state = tx.update(gradient(x, noise), state, x)
        return optax.apply_updates(x, updates), state

    step = jit(step, donate_argnums=(1, 2))
    for factor in (1.0, 0.8):
        values = {key: factor * v for key, v in case.hyperparameters().items()}
        x = jax.tree.map(jnp.copy, START)
        state = case.factory(**values).init(x)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for noise in NOISE:
                given = jax.tree.leaves((x, state))
                x, state = step(values, x, state, noise)
                assert all(leaf.is_deleted() for leaf in given)
        assert_same_path(x, last(case.path(**values)))
    assert len(traces) == 1


@each_case
def test_eval_shape_of_init(case):
    """The state's shapes without the state, from the parameters' shapes alone."""
    shapes = jax.eval_shape(lambda: START)
    abstract = jax.eval_shape(case.interior().init, shapes)
    state = case.interior().init(START)
    chex.assert_trees_all_equal_shapes_and_dtypes(abstract, state)


# The first coordinate has no gradient: √ν has an infinite slope at its ν = 0.
USED = np.array([0.0, 1.0, 1.0])
AT = {"x": np.array([0.5, 1.0, -2.0])}


def differentiable_path(tx, x, noise):
    """Of the derivative only what a step starts from is kept, which compiles faster."""

    @jax.checkpoint
    def step(carry, noise):
        x, state = carry
        g = {"x": USED.astype(noise.dtype) * (x["x"] + noise)}
        updates, state = tx.update(g, state, x)
        x = optax.apply_updates(x, updates)
        return (x, state), x["x"]

    return jax.lax.scan(step, (x, tx.init(x)), noise)[1]


@each_case
def test_gradient_through_every_hyperparameter(case):
    """Finite and right beside a coordinate without gradient, both ways round."""
    noise = np.stack([np.asarray(n["vector"], np.float64) for n in NOISE])

    def loss(path, library):
        return library.sin(path[-1]).sum() + path[2].sum()

    def by_rule(values):
        """In NumPy."""
        gradient = lambda t, x: {"x": USED * (x["x"] + noise[t - 1])}  # noqa: E731
        return loss(case.follow(AT, gradient, len(noise), **values)["x"], np)

    def by_row(values):
        tx = case.factory(**values)
        return loss(differentiable_path(tx, AT, noise), jnp)

    values = case.hyperparameters()
    along = {key: np.cos(i) for i, key in enumerate(values)}

    @jit
    def both_ways(values):
        reached, forwards = jax.linearize(by_row, values)
        (slopes,) = jax.linear_transpose(forwards, values)(jnp.ones_like(reached))
        return reached, forwards(along), slopes

    with jax.enable_x64(True):
        given = {key: np.float64(value) for key, value in values.items()}
        reached, slope, slopes = both_ways(given)
    np.testing.assert_allclose(reached, by_rule(values), 1e-12)
    parts = [along[key] * float(slopes[key]) for key in values]
    np.testing.assert_allclose(slope, sum(parts), 0.0, 1e-9 * np.abs(parts).sum())
    h = 1e-5
    for key, value in values.items():
        if value == 0.0:  # The end of its range: no difference around it.
            assert np.isfinite(slopes[key]), key
            continue
        above, below = (by_rule({key: value + sign * h}) for sign in (1, -1))
        difference = (above - below) / (2 * h)
        np.testing.assert_allclose(slopes[key], difference, 1e-5, 1e-7, key)


NO_EPS = [
    Case("adagrad", 0.1, {}, {"initial_accumulator_value": 0.0, "eps": 0.0}, "eps=0"),
    Case("rmsprop", 0.1, {"decay": 0.9}, {"eps": 0.0}, "eps=0"),
    Case("rmsprop", 0.1, {"decay": 0.9}, {"eps": 0.0, "centered": True}, "variance"),
    Case("adam", 0.1, {"b1": 0.9, "b2": 0.999}, {"eps": 0.0}, "eps=0"),
    Case("adamax", 0.1, {"b1": 0.9, "b2": 0.999}, {"eps": 0.0}, "eps=0"),
    Case("padam", 0.1, {"p": 0.25}, {"eps": 0.0}, "eps=0"),
    Case("adashift", 0.1, {"b1": 0.9}, {"eps": 0.0, "keep_num": 2}, "eps=0"),
    Case("adabound", 0.1, {"b1": 0.9, "gamma": 1e-3}, {"eps": 0.0}, "eps=0"),
    Case("adabound", 0.1, {"b1": 0.9, "gamma": 0.0}, {}, "gamma=0"),
]


@pytest.mark.parametrize("case", FLAGGED + NO_EPS, ids=str)
def test_gradient_through_the_defaults(case):
    """In float32, where ε = 1e-8 or 0 is all that stands between 1/√ν and 1/0."""
    values = {
        key: np.float32(value)
        for key, value in case.hyperparameters().items()
        if case in NO_EPS or key in ("learning_rate", "b1", "b2", "b3", "decay", "rho")
    }
    noise = np.stack([n["vector"] for n in NOISE])

    def loss(values, x):
        return jnp.sum(differentiable_path(case.factory(**values), x, noise))

    start = {"x": AT["x"].astype(np.float32)}
    reverse = jit(jax.grad(loss, (0, 1)))(values, start)
    chex.assert_tree_all_finite(reverse)
    assert differ(reverse, jax.tree.map(np.zeros_like, reverse))
    if case in NO_EPS:
        forward = jit(jax.jacfwd(loss, (0, 1)))(values, start)
        chex.assert_tree_all_finite(forward)
        chex.assert_trees_all_close(reverse, forward, rtol=1e-3, atol=1e-3)
