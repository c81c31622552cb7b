"""Many leaves of one type, which are traced once, step as few leaves do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import jit
from jax.extend.core import jaxprs_in_params
from loop import NOISE, START, assert_same_path, scan
from rows import each_row

import optjax
from optjax import _tree
from optjax._precision import sqrt
from optjax._tree import map_leaves

pytestmark = pytest.mark.usefixtures("cheaply_compiled")


COPIES = _tree._MANY


def many(tree, copies=COPIES):
    """Copies of a leaf that differ in value, another, and one in half precision."""
    vectors = {f"vector{i}": tree["vector"] * (1.0 + 0.1 * i) for i in range(copies)}
    half = tree["vector"].astype(jnp.bfloat16)
    return {**vectors, "matrix": tree["matrix"], "half": half}


MANY = many(START)


@each_row
def test_traced_once_is_the_same(case, monkeypatch):
    """What is traced for one leaf is repeated for those of its type."""
    monkeypatch.setattr(_tree, "_MANY", 3)
    start, *noise = (many(tree, copies=3) for tree in (START, *NOISE[:3]))
    path = jit(lambda: scan(case.interior(), start, noise))()
    expected = case.path(start, noise)
    del path["half"], expected["half"]
    assert_same_path(path, expected)


def test_each_type_is_traced_once():
    seen = []

    def double(x):
        seen.append((x.shape, x.dtype.name))
        return 2 * x

    doubled = jax.jit(lambda tree: map_leaves(double, tree))(MANY)
    assert sorted(seen) == sorted(
        [((3,), "float32"), ((2, 3), "float32"), ((3,), "bfloat16")]
    )
    for key, leaf in MANY.items():
        assert doubled[key].dtype == leaf.dtype
        np.testing.assert_array_equal(doubled[key], 2 * leaf)


def test_what_is_traced_may_hold_a_traced_number():
    def total(factor, leaves):
        halves = map_leaves(lambda x: factor * x, leaves)
        return sum(jnp.sum(x) for x in halves)

    leaves = [jnp.full(3, float(i)) for i in range(COPIES)]
    expected = 3.0 * sum(range(COPIES))
    derivative = jax.jit(jax.grad(total))(0.5, leaves)
    np.testing.assert_allclose(derivative, expected, rtol=1e-6)
    batch = jax.jit(jax.vmap(total, (0, None)))(jnp.array([1.0, 2.0]), leaves)
    np.testing.assert_allclose(batch, [expected, 2 * expected], rtol=1e-6)


def test_the_root_of_a_tree_has_derivative_zero_at_zero():
    roots = [jnp.array([0.0, 4.0]) for _ in range(COPIES)]
    y, dy = jax.jit(lambda x: jax.jvp(lambda x: map_leaves(sqrt, x), (x,), (x,)))(roots)
    for value, tangent in zip(y, dy, strict=True):
        np.testing.assert_array_equal(value, [0.0, 2.0])
        np.testing.assert_array_equal(tangent, [0.0, 1.0])
    gradient = jax.grad(lambda x: sum(jnp.sum(r) for r in map_leaves(sqrt, x)))(roots)
    np.testing.assert_array_equal(gradient[-1], [0.0, 0.25])


@pytest.mark.parametrize(
    ("name", "most"),
    [("sgd", 3), ("adagrad", 12), ("rmsprop", 9), ("adam", 16), ("adabound", 16)],
)
def test_equations_a_leaf(name, most):
    """No more than Optax 0.2.8 has, for AdaBound than its Adam; sgd's V = 1 is dead."""
    tx = getattr(optjax, name)(0.1)

    def equations(leaves):
        params = [jnp.zeros(2)] * leaves

        def step(params, state, grads):
            updates, state = tx.update(grads, state, params)
            return jax.tree.map(jnp.add, params, updates), state

        return count(jax.make_jaxpr(step)(params, tx.init(params), params).jaxpr)

    assert equations(20) - equations(19) <= most


def count(jaxpr):
    return sum(1 + sum(map(count, jaxprs_in_params(eqn.params))) for eqn in jaxpr.eqns)
