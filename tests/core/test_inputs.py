"""Odd trees and odd gradients: every row takes them, or says what is wrong."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiling import jit
from loop import NOISE, START, STEPS, assert_same_path, scan, stack
from rows import CASES, ROWS

import optjax

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

each_case = pytest.mark.parametrize("case", CASES, ids=str)
each_row = pytest.mark.parametrize("case", ROWS, ids=str)

INT32_MAX = np.iinfo(np.int32).max


def updates_of(tx, params, gradients):
    """The updates for given gradients, stacked, and the last state."""
    state, path = tx.init(params), []
    for g in gradients:
        updates, state = tx.update(g, state, params)
        path.append(updates)
    return stack(path), state


def shares_a_rate(case):
    """SWATS reduces over the tree, these over a leaf; the rest is by coordinate."""
    return case.row in ("swats", "graftbound") or (
        case.row == "adashift" and case.flags.get("reduction") != "none"
    )


@each_case
def test_shapes(case):
    """Leaves of any shape, sized or not, do not disturb each other."""

    def reshaped(tree):
        return {
            "scalar": tree["scalar"],
            "matrix": tree["matrix"].reshape(2, 1, 3),
            "column": tree["vector"].reshape(3, 1),
            "no_size": jnp.zeros((0,)),
            "no_columns": jnp.zeros((2, 0)),
            "list": [None, jnp.zeros((0, 1)), {}],
        }

    path = jit(
        lambda: scan(case.interior(), reshaped(START), [*map(reshaped, NOISE)])
    )()
    expected = case.path()
    assert path["no_size"].shape == (STEPS, 0)
    assert path["no_columns"].shape == (STEPS, 2, 0)
    assert path["list"][0] is None
    assert path["list"][1].shape == (STEPS, 0, 1)
    back = {
        "scalar": path["scalar"],
        "matrix": path["matrix"].reshape(STEPS, 2, 3),
        "vector": path["column"].reshape(STEPS, 3),
    }
    assert_same_path(back, expected)


@pytest.mark.parametrize("tree", [{}, (), [None, {}]], ids=repr)
@each_case
def test_empty_trees(case, tree):
    tx = case.interior()
    state = tx.init(tree)
    updates, after = tx.update(tree, state, tree)
    assert updates == tree
    assert jax.tree.structure(after) == jax.tree.structure(state)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@each_case
def test_no_gradient_is_no_step(case, dtype):
    """Optax's Adam in float16 makes it NaN: 0 / (0 + ε) where ε = 1e-8 is 0."""
    zeros = {"x": jnp.zeros(3, dtype), "y": jnp.zeros((), dtype)}
    for tx in (case.default(), case.interior()):
        updates, _ = updates_of(tx, zeros, [zeros] * 5)
        for leaf in updates.values():
            # Yogi's m starts at 1e-6.
            largest = 1e-4 if case.row == "yogi" else 0.0
            assert np.all(np.abs(leaf.astype(np.float32)) <= largest), leaf


SOUND = np.array([1.0, -0.5, 0.3])


def at_first(value, dtype=jnp.float32):
    """Four gradients with a strange first coordinate, then four sound ones."""
    strange = np.array([value, *SOUND[1:]])
    signs = [1, -1, 1, 1]
    return [jnp.asarray(sign * strange, dtype) for sign in signs] + [
        jnp.asarray(sign * SOUND, dtype) for sign in signs
    ]


BY_NAME = {str(case): case for case in CASES}
MADE = ("default", "interior")


@functools.cache
def sound_updates(name, made, dtype):
    """What those with a strange coordinate are compared with, for many tests."""
    tx = getattr(BY_NAME[name], made)()
    return updates_of(tx, jnp.ones(3, dtype), at_first(1.0, dtype))[0]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@each_case
def test_subnormal_gradients(case, dtype):
    """They are steps downhill and no longer than an unlucky ordinary one."""
    smallest = jnp.finfo(dtype).smallest_subnormal
    g = jnp.asarray([smallest, 4 * smallest, 1.0], dtype)
    params = jnp.zeros(3, dtype)
    for tx in (case.default(), case.interior()):
        updates, _ = updates_of(tx, params, [g] * 4)
        assert np.all(np.isfinite(updates.astype(np.float32)))
        assert np.all(updates.astype(np.float32) <= 0)
        assert np.all(updates.astype(np.float32) >= -20 * case.learning_rate)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@each_case
def test_huge_gradients(case, dtype):
    """1e30 squared is infinite, the updates are not."""
    params = jnp.ones(3, dtype)
    for made in MADE:
        updates, _ = updates_of(getattr(case, made)(), params, at_first(1e30, dtype))
        assert np.all(np.isfinite(updates.astype(np.float32)))
        if not shares_a_rate(case):
            sound = sound_updates(str(case), made, dtype)
            np.testing.assert_array_equal(updates[:, 1:], sound[:, 1:])


@pytest.mark.parametrize("name", ["adagrad", "rmsprop", "adam", "yogi", "radam"])
def test_a_square_that_overflowed_stops_its_coordinate(name):
    """ν = ∞ stays: the coordinate's rate is 0 from then on, in Optax too."""
    params = jnp.ones(3)
    for library in (optjax, optax) if name != "yogi" else (optjax,):
        tx = getattr(library, name)(0.1)
        updates, _ = updates_of(tx, params, at_first(1e30))
        after = updates[-2:]
        assert np.all(after[:, 0] == 0.0)
        assert np.all(after[:, 1:] != 0.0)


@pytest.mark.parametrize("value", [np.inf, np.nan])
@each_case
def test_infinite_and_nan_gradients(case, value):
    """The update is not finite either: `optax.apply_if_finite` is the way round it.

    It is so in the coordinate that had the gradient, and in all that share its rate.
    """
    params = jnp.ones(3)
    for made in MADE:
        updates, _ = updates_of(getattr(case, made)(), params, at_first(value))
        # AdaShift's first updates are zero: it has no rate yet.
        assert not np.any(np.isfinite(updates[case.flags.get("keep_num", 0) : 4, 0]))
        if not shares_a_rate(case):
            sound = sound_updates(str(case), made, jnp.float32)
            np.testing.assert_array_equal(updates[:, 1:], sound[:, 1:])
        elif case.row in ("swats", "graftbound"):
            assert np.all(np.isfinite(updates[:, 1:]))
        elif np.isnan(value):
            assert np.all(np.isnan(updates[4, 1:]))
        else:
            assert np.all(updates[4, 1:] == 0.0)


@pytest.mark.parametrize("value", [np.inf, np.nan])
@each_row
def test_apply_if_finite_skips_what_is_not(case, value):
    tx, params = optax.apply_if_finite(case.interior(), 5), jnp.ones(3)
    tx = tx._replace(update=jit(tx.update))
    gradients = at_first(value)
    updates, state = updates_of(tx, params, gradients)
    assert np.all(updates[:4] == 0.0)
    sound, _ = updates_of(case.interior(), params, gradients[4:])
    np.testing.assert_allclose(updates[4:], sound, rtol=1e-5, atol=1e-7)
    assert int(state.total_notfinite) == 4


def with_counts(state, count):
    def replaced(path, leaf):
        is_count = isinstance(path[-1], jax.tree_util.GetAttrKey) and (
            path[-1].name == "count"
        )
        return jnp.full_like(leaf, count) if is_count else leaf

    return jax.tree_util.tree_map_with_path(replaced, state)


def counts(state):
    return [
        int(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
        if isinstance(path[-1], jax.tree_util.GetAttrKey) and path[-1].name == "count"
    ]


@each_case
def test_counter_at_the_end_of_int32(case):
    """It stays there, and the steps go on as they did."""
    tx, params = case.interior(), jnp.ones(3)
    g = jnp.asarray(SOUND, jnp.float32)
    state = tx.init(params)
    for _ in range(4):
        _, state = tx.update(g, state, params)
    # That of an average that is not debiased stands still.
    last = [INT32_MAX - (count == 0) for count in counts(state)]
    state, late = with_counts(state, 10**9), with_counts(state, INT32_MAX - 1)
    for _ in range(4):
        expected, state = tx.update(g, state, params)
        updates, late = tx.update(g, late, params)
        assert np.all(np.isfinite(updates))
        if case.row != "adashift":  # Its slot in the window is the count modulo n.
            np.testing.assert_allclose(updates, expected, rtol=1e-5)
    assert counts(late) == last
    without_counter = ("sgd", "momentum", "nesterov", "adagrad", "adadelta")
    assert bool(counts(late)) == (case.row not in without_counter)


PARAMS = {"a": jnp.ones((1, 3)), "b": {"c": jnp.ones(2)}}
MISMATCHES = {
    "missing key": ({"a": jnp.ones((1, 3)), "b": {}}, r"\['b'\]\['c'\]"),
    "extra key": (
        {"a": jnp.ones((1, 3)), "b": {"c": jnp.ones(2), "d": jnp.ones(1)}},
        r"\['b'\]\['d'\].*shape \(1,\).*no leaf",
    ),
    "None for a leaf": ({"a": None, "b": {"c": jnp.ones(2)}}, r"\['a'\].*no leaf"),
    "shape": (
        {"a": jnp.ones((1, 3)), "b": {"c": jnp.ones(3)}},
        r"\['b'\]\['c'\].*shape \(3,\).*shape \(2,\)",
    ),
    "shape that broadcasts": (
        {"a": jnp.ones(3), "b": {"c": jnp.ones(2)}},
        r"\['a'\].*shape \(3,\).*shape \(1, 3\)",
    ),
    "container": ([jnp.ones((1, 3)), {"c": jnp.ones(2)}], r"\[0\]"),
}


@pytest.mark.parametrize("mismatch", MISMATCHES)
@pytest.mark.parametrize("case", [case for case in CASES if case.row != "sgd"], ids=str)
def test_mismatched_gradients(case, mismatch):
    gradients, where = MISMATCHES[mismatch]
    for tx in (case.default(), case.interior()):
        with pytest.raises(ValueError, match=where):
            tx.update(gradients, tx.init(PARAMS), PARAMS)


def test_plain_sgd_keeps_nothing_and_compares_gradients_with_the_parameters():
    tx = optjax.sgd(0.1)
    assert not jax.tree.leaves(tx.init(PARAMS))
    updates, _ = tx.update({"z": jnp.ones(2)}, tx.init(PARAMS))
    np.testing.assert_allclose(updates["z"], -0.1)
    with pytest.raises(ValueError, match="structure and shapes"):
        tx.update({"z": jnp.ones(2)}, tx.init(PARAMS), PARAMS)


@pytest.mark.parametrize("name", ["adamw", "nadamw", "adaboundw"])
def test_decay_needs_the_parameters(name):
    tx = getattr(optjax, name)(0.1)
    with pytest.raises(ValueError, match="weight decay needs the parameters"):
        tx.update(PARAMS, tx.init(PARAMS))


@pytest.mark.parametrize("name", ["adadelta", "adabound", "amsbound"])
def test_only_l2_needs_the_parameters(name):
    plain = getattr(optjax, name)(0.1)
    plain.update(PARAMS, plain.init(PARAMS))
    decayed = getattr(optjax, name)(0.1, weight_decay=0.1)
    with pytest.raises(ValueError, match="weight decay needs the parameters"):
        decayed.update(PARAMS, decayed.init(PARAMS))
