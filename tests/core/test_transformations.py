"""JAX's transformations: vmap and grad over hyper-parameters, donation, eval_shape."""

import warnings

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from absl.testing import parameterized
from compiling import jit
from loop import NOISE, START, assert_same_path, differ, gradient, scan, stack, walk
from rows import CASES, ROWS, Case

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

each_case = pytest.mark.parametrize("case", CASES, ids=str)


@each_case
def test_vmap_over_every_hyperparameter(case):
    """A batch that changes one at a time, against Python numbers one at a time."""
    values = case.hyperparameters()
    batch = [values, *({**values, key: 0.8 * values[key]} for key in values)]
    traces = []

    @jit
    @jax.vmap
    def run(hyperparameters):
        traces.append(1)
        return scan(case.factory(**hyperparameters))

    paths = run(stack(jax.tree.map(jnp.float32, batch)))
    for i, hyperparameters in enumerate(batch):
        path = jax.tree.map(lambda leaf, i=i: leaf[i], paths)
        assert_same_path(path, case.path(**hyperparameters))
    assert len(traces) == 1
    plain, *others = (
        jax.tree.map(lambda leaf, i=i: leaf[i], paths) for i in range(len(batch))
    )
    for key, path in zip(values, others, strict=True):
        expected = values[key] != 0.0 and case.has_effect(key)
        assert differ(path, plain, 1e-6) == expected, key


@each_case
def test_no_recompilation(case):
    """Neither for another value, nor for the second step after the first."""
    traces = []

    @jit
    def step(hyperparameters, x, state, noise):
        traces.append(1)
        tx = case.factory(**hyperparameters)
        updates, state = tx.update(gradient(x, noise), state, x)
        return optax.apply_updates(x, updates), state

    for factor in (1.0, 0.8):
        values = {key: factor * v for key, v in case.hyperparameters().items()}
        x, state = START, case.factory(**values).init(START)
        for noise in NOISE[:3]:
            x, state = step(values, x, state, noise)
        expected = walk(case.factory(**values), noise=NOISE[:3])
        assert_same_path(x, jax.tree.map(lambda leaf: leaf[-1], expected))
    assert len(traces) == 1


@each_case
def test_donation(case):
    """Every buffer of parameters and state is reused, none is given away twice."""
    tx = case.interior()

    def step(x, state, noise):
        updates, state = tx.update(gradient(x, noise), state, x)
        return optax.apply_updates(x, updates), state

    step = jit(step, donate_argnums=(0, 1))
    x = jax.tree.map(jnp.copy, START)
    state = tx.init(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for noise in NOISE:
            given = jax.tree.leaves((x, state))
            x, state = step(x, state, noise)
            assert all(leaf.is_deleted() for leaf in given)
    assert_same_path(x, jax.tree.map(lambda leaf: leaf[-1], case.path()))


@each_case
def test_eval_shape_of_init(case):
    """The state's shapes without the state, from the parameters' shapes alone."""
    shapes = jax.eval_shape(lambda: START)
    abstract = jax.eval_shape(case.interior().init, shapes)
    state = case.interior().init(START)
    chex.assert_trees_all_equal_shapes_and_dtypes(abstract, state)


# The first coordinate has no gradient: √ν has an infinite slope at its ν = 0.
USED = np.array([0.0, 1.0, 1.0])


def gradient_but_one(x, noise):
    return {"x": USED.astype(x["x"].dtype) * (x["x"] + noise)}


@each_case
def test_gradient_through_every_hyperparameter(case):
    """Finite and right beside a coordinate without gradient, both ways round."""
    with jax.enable_x64(True):
        start = {"x": jnp.array([0.5, 1.0, -2.0])}
        noise = [jnp.asarray(np.asarray(n["vector"]), jnp.float64) for n in NOISE]

        def loss(hyperparameters):
            tx = case.factory(**hyperparameters)
            path = scan(tx, start, noise, gradient_but_one)["x"]
            return jnp.sum(jnp.sin(path[-1])) + jnp.sum(path[2])

        # One program at a batch of points: each tangent where the values are, and no
        # tangent at h to either side.
        values = {key: jnp.float64(v) for key, v in case.hyperparameters().items()}
        zero, h = dict.fromkeys(values, 0.0), 1e-5
        at = [(values, {**zero, key: 1.0}) for key in values] + [
            ({**values, key: values[key] + sign * h}, zero)
            for key in values
            for sign in (1, -1)
        ]
        push = jax.vmap(lambda x, dx: jax.jvp(loss, (x,), (dx,)))
        reverse, (losses, tangents) = jit(
            lambda values, at: (jax.grad(loss)(values), push(*at))
        )(values, jax.tree.map(lambda *x: jnp.stack(jnp.float64(x)), *at))
        forward = dict(zip(values, tangents, strict=False))
        shifted = losses[len(values) :]
        differences = (shifted[::2] - shifted[1::2]) / (2 * h)
        for key, difference in zip(values, differences, strict=True):
            np.testing.assert_allclose(reverse[key], forward[key], 1e-9, 1e-12, key)
            if values[key] == 0.0:  # The end of its range: no difference around it.
                assert np.isfinite(reverse[key]), key
            else:
                np.testing.assert_allclose(reverse[key], difference, 1e-5, 1e-7, key)


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


@pytest.mark.parametrize("case", CASES + NO_EPS, ids=str)
def test_gradient_through_the_defaults(case):
    """In float32, where ε = 1e-8 or 0 is all that stands between 1/√ν and 1/0."""
    values = {
        key: value
        for key, value in case.hyperparameters().items()
        if case in NO_EPS or key in ("learning_rate", "b1", "b2", "b3", "decay", "rho")
    }
    noise = [n["vector"] for n in NOISE]

    def loss(values, x):
        tx = case.factory(**values)
        return jnp.sum(scan(tx, {"x": x}, noise, gradient_but_one)["x"])

    start = jnp.array([0.5, 1.0, -2.0])
    reverse = jit(jax.grad(loss, (0, 1)))(values, start)
    chex.assert_tree_all_finite(reverse)
    if case in NO_EPS:
        forward = jit(jax.jacfwd(loss, (0, 1)))(values, start)
        chex.assert_tree_all_finite(forward)
        chex.assert_trees_all_close(reverse, forward, rtol=1e-3, atol=1e-3)
    assert differ(reverse, jax.tree.map(jnp.zeros_like, reverse))


class UpdateVariants(chex.TestCase):
    """The first update, compiled or not, on a device or from the host."""

    @chex.variants(
        with_jit=True, without_jit=True, with_device=True, without_device=True
    )
    @parameterized.named_parameters((str(case), case) for case in ROWS)
    def test_update(self, case):
        tx = case.interior()
        x, state, path = START, tx.init(START), []
        update = self.variant(tx.update)
        for noise in NOISE:
            updates, state = update(gradient(x, noise), state, x)
            x = optax.apply_updates(x, updates)
            path.append(x)
        assert_same_path(stack(path), case.path())
