"""JAX's transformations: vmap, grad, jit and donation, eval_shape."""

import warnings

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiling import jit
from jax.flatten_util import ravel_pytree
from loop import NOISE, START, assert_same_path, differ, gradient, last, scan
from rows import FLAGGED, Case, each_case

pytestmark = pytest.mark.usefixtures("cheaply_compiled")


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


def derivatives(factory, values, noise, weights, along):
    """The parameters after every step, and the derivatives of a weighted sum of them.

    Forwards along each (values, start) of `along`, and backwards by values and start. A
    step is differentiated and not a loop of them, which takes half as long to compile.
    """
    start = {"x": AT["x"].astype(noise.dtype)}

    def floats(tree):
        return jax.tree.map(lambda leaf: leaf.astype(noise.dtype), tree)

    def begin(values, x):
        return floats((x, factory(**values).init(x)))

    def step(values, carry, noise):
        x, state = jax.tree.map(
            lambda leaf, like: leaf.astype(like.dtype), carry, begun
        )
        g = {"x": USED.astype(noise.dtype) * (x["x"] + noise)}
        updates, state = factory(**values).update(g, state, x)
        return floats((optax.apply_updates(x, updates), state))

    @jit
    def both_ways(values, carry, noise, tangents, cotangent):
        given = values, carry
        after, forwards = jax.linearize(lambda *given: step(*given, noise), *given)
        return (
            after,
            forwards(*tangents),
            jax.linear_transpose(forwards, *given)(cotangent),
        )

    begun = start, factory(**values).init(start)
    carry, begin_back = jax.vjp(begin, values, start)
    nothing = jax.tree.map(np.zeros_like, carry)
    carries = [carry]
    for n in noise:
        unused = (values, carry), carry
        carries.append(both_ways(values, carries[-1], n, *unused)[0])

    def forwards(along):
        tangent, total = jax.jvp(begin, (values, start), along)[1], 0.0
        for i, n in enumerate(noise):
            given = values, carries[i], n, (along[0], tangent), nothing
            tangent = both_ways(*given)[1]
            total += np.sum(weights[i] * tangent[0]["x"])
        return total

    cotangent, by_values = nothing, jax.tree.map(np.zeros_like, values)
    for before, n, weight in [*zip(carries[:-1], noise, weights, strict=True)][::-1]:
        x, state = cotangent
        cotangent = {"x": x["x"] + weight}, state
        given = values, before, n, (values, nothing), cotangent
        part, cotangent = both_ways(*given)[2]
        by_values = jax.tree.map(np.add, by_values, part)
    part, by_start = begin_back(cotangent)
    by_values = jax.tree.map(np.add, by_values, part)
    path = np.stack([x["x"] for x, _ in carries[1:]])
    return path, [forwards(each) for each in along], (by_values, by_start)


@each_case
def test_gradient_through_every_hyperparameter(case):
    """Finite and right beside a coordinate without gradient, both ways round."""
    noise = np.stack([np.asarray(n["vector"], np.float64) for n in NOISE])

    def loss(path):
        return np.sin(path[-1]).sum() + path[2].sum()

    def by_rule(values):
        """In NumPy."""
        gradient = lambda t, x: {"x": USED * (x["x"] + noise[t - 1])}  # noqa: E731
        return case.follow(AT, gradient, len(noise), **values)["x"]

    values = case.hyperparameters()
    expected = by_rule(values)
    weights = np.zeros_like(expected)
    weights[2], weights[-1] = 1.0, np.cos(expected[-1])
    along = {key: np.cos(i) for i, key in enumerate(values)}
    with jax.enable_x64(True):
        path, (slope,), (slopes, _) = derivatives(
            case.factory,
            {key: np.float64(value) for key, value in values.items()},
            noise,
            weights,
            [(along, {"x": np.zeros(3)})],
        )
    np.testing.assert_allclose(path, expected, 1e-12)
    parts = [along[key] * float(slopes[key]) for key in values]
    np.testing.assert_allclose(slope, sum(parts), 0.0, 1e-9 * np.abs(parts).sum())
    h = 1e-5
    for key, value in values.items():
        if value == 0.0:  # The end of its range: no difference around it.
            assert np.isfinite(slopes[key]), key
            continue
        above, below = (loss(by_rule({key: value + sign * h})) for sign in (1, -1))
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
    # One coordinate of all at a time, where the forward mode is asked for.
    point, unflatten = ravel_pytree((values, {"x": AT["x"].astype(np.float32)}))
    along = [unflatten(row) for row in np.eye(point.size, dtype=np.float32)]
    _, forwards, backwards = derivatives(
        case.factory,
        values,
        noise,
        np.ones_like(noise),
        along if case in NO_EPS else [],
    )
    chex.assert_tree_all_finite(backwards)
    backwards, _ = ravel_pytree(backwards)
    assert np.any(np.abs(backwards) > 1e-4)
    if case in NO_EPS:
        np.testing.assert_allclose(forwards, backwards, rtol=1e-3, atol=1e-3)
