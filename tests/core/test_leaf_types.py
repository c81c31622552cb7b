"""Leaves that are no ordinary floats: integers, booleans, keys; half precision."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from reference import run
from reference.scan import moved
from rows import ROWS, each_row

import optjax

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

# Optax's NAdam debiases an integer gradient by a number cut to an integer, 0.
WITH_OPTAX = [
    case
    for case in ROWS
    if hasattr(optax, case.row) and case.row not in ("nadam", "nadamw")
]
# What is decayed is a fraction less, and that is cut: also in Optax.
WITHOUT_DECAY = [
    case for case in ROWS if case.row not in ("adamw", "nadamw", "adaboundw")
]
MIXED = {"w": jnp.array([1.0, -2.0, 0.5]), "n": jnp.arange(5, 8), "b": jnp.array(True)}


def walk(tx, gradients, params=MIXED, steps=3):
    state = tx.init(params)
    for _ in range(steps):
        updates, state = tx.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


@pytest.mark.parametrize("gradient", [0, 3])
@pytest.mark.parametrize("case", WITH_OPTAX, ids=str)
def test_integer_leaves_as_in_optax(case, gradient):
    """With integer gradients: a counter stands still, others are cut to integers."""
    params = {name: MIXED[name] for name in "wn"}
    gradients = {"w": params["w"], "n": jnp.full(3, gradient)}
    theirs = getattr(optax, case.row)(case.learning_rate)
    expected, _ = walk(theirs, gradients, params)
    actual, state = walk(case.default(), gradients, params)
    chex.assert_trees_all_equal_dtypes(actual, expected)
    chex.assert_trees_all_close(actual, expected, rtol=2e-5)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, case.default().init(params))


@pytest.mark.parametrize("case", WITHOUT_DECAY, ids=str)
def test_counters_and_flags_stand_still_in_every_row(case):
    gradients = {**jax.tree.map(jnp.zeros_like, MIXED), "w": MIXED["w"]}
    params = {name: MIXED[name] for name in "wn"}
    gradients = {name: gradients[name] for name in "wn"}
    after, _ = walk(case.default(), gradients, params)
    chex.assert_trees_all_equal(after["n"], params["n"])


@each_row
def test_apply_step_with_integer_leaves(case):
    params = {name: MIXED[name] for name in "wn"}
    gradients = {"w": params["w"], "n": jnp.zeros(3, jnp.int32)}
    tx = case.default()
    updates, expected = tx.update(gradients, tx.init(params), params)
    after, state = optjax.apply_step(tx, gradients, tx.init(params), params)
    chex.assert_trees_all_close(after, optax.apply_updates(params, updates), rtol=1e-6)
    chex.assert_trees_all_close(state, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["adam", "adabound", "adashift", "momentum"])
def test_keys_are_refused_by_name(name):
    params = {"w": jnp.ones(2), "rng": {"key": jax.random.key(0)}}
    with pytest.raises(ValueError, match=r"dtype key<fry> at \['rng'\]\['key'\]"):
        optjax.OPTIMIZERS[name].factory(0.1).init(params)


# ----------------------------------------------------------------------------------
# float16

SQUARES = ["adagrad", "rmsprop", "adam", "amsgrad", "yogi", "adabelief", "adadelta"]
OTHERS = ["adamax", "nadam", "radam", "padam", "nosadam", "adamod", "adabound"]


@pytest.mark.parametrize("size", [1e-6, 1e-3, 1.0, 300.0, 6e4])
@pytest.mark.parametrize("name", SQUARES + OTHERS)
def test_squares_of_float16_neither_vanish_nor_overflow(name, size):
    """The squares of these are below 6e-8 or above 65504, where float16 ends."""
    if size < 1e-3 and name in ("adagrad", "adadelta", "radam", "padam"):
        pytest.skip("their first updates are themselves below what float16 has")
    signs = np.array([1.0, -1.0, 1.0, 0.5])
    gradients = [
        {"x": np.float16(size * signs * s)} for s in (1.0, 0.75, -0.5, 1.0, 1.0)
    ]
    params = {"x": np.zeros(4, np.float16)}
    expected = moved(run(name, params, gradients, 1e-2), params)["x"]
    tx, x = getattr(optjax, name)(1e-2), jnp.zeros(4, jnp.float16)
    state, total = tx.init(x), np.zeros(4)
    for i, g in enumerate(gradients):
        updates, state = tx.update(jnp.asarray(g["x"]), state, x)
        assert updates.dtype == jnp.float16
        total = total + np.asarray(updates, float)
        atol = 1e-3 * np.max(np.abs(expected)) + 1e-7
        np.testing.assert_allclose(total, expected[i], rtol=1e-3, atol=atol)


@each_row
def test_state_of_float16_parameters(case):
    """float32, and what is asked for where it is."""
    x = jnp.ones(3, jnp.float16)
    for leaf in jax.tree.leaves(case.default().init(x)):
        assert leaf.dtype == jnp.float32 or leaf.shape == ()
    if case.row in SQUARES:
        tx = case.factory(learning_rate=0.1, nu_dtype=jnp.float16)
        dtypes = [leaf.dtype for leaf in jax.tree.leaves(tx.init(x))]
        assert jnp.float16 in dtypes


# ----------------------------------------------------------------------------------
# Hyper-parameters in half precision


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@each_row
def test_numbers_in_half_precision_are_those_numbers(case, dtype):
    """As if the same numbers were float32: nothing is computed in half precision."""
    # 0.95 in bfloat16 is below 1 − 2⁻⁸, so all stay in their ranges.
    half = {k: jnp.asarray(v, dtype) for k, v in case.hyperparameters().items()}
    full = {k: v.astype(jnp.float32) for k, v in half.items()}
    x = {"w": jnp.array([1.0, -2.0, 0.5])}
    paths = {}
    for name, values in (("half", half), ("full", full)):
        tx = case.factory(**values)
        state, params = tx.init(x), x
        for _ in range(4):
            updates, state = tx.update(params, state, params)
            params = optax.apply_updates(params, updates)
        paths[name] = params, state
    chex.assert_trees_all_close(paths["half"], paths["full"], rtol=1e-6)
    tx = case.factory(**half)
    state, params = tx.init(x), x
    for _ in range(4):
        params, state = optjax.apply_step(tx, params, state, params)
    chex.assert_trees_all_close((params, state), paths["full"], rtol=5e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_a_schedule_in_half_precision(dtype):
    """s λ is worked out in float32, in `update` and in `apply_step`."""

    def schedule(count):
        return jnp.asarray(0.013, dtype) / (1 + count.astype(dtype))

    x = jnp.ones(4)
    tx = optjax.adamw(schedule, weight_decay=0.3)
    updates, _ = tx.update(jnp.zeros(4), tx.init(x), x)
    exact = float(jnp.asarray(0.013, dtype)) * 0.3
    np.testing.assert_allclose(updates, -exact, rtol=1e-6)
    after, _ = optjax.apply_step(tx, jnp.zeros(4), tx.init(x), x)
    np.testing.assert_allclose(1 - after, exact, rtol=2e-5)
