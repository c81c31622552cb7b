"""Odd trees and odd gradients: every row takes them, or says what is wrong."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiling import jit
from loop import NOISE, START, STEPS, assert_same_path, scan
from rows import CASES, each_case

import optjax

pytestmark = pytest.mark.usefixtures("cheaply_compiled")


INT32_MAX = np.iinfo(np.int32).max


def shares_a_rate(case):
    """SWATS reduces over the tree, these over a leaf; the rest is by coordinate."""
    return case.row in ("swats", "graftbound") or (
        case.row == "adashift" and case.flags.get("reduction") != "none"
    )


@each_case
def test_shapes(case):
    """Leaves of any shape, sized or not, and of none do not disturb each other."""

    def reshaped(tree):
        return {
            "scalar": tree["scalar"],
            "matrix": tree["matrix"].reshape(2, 1, 3),
            "column": tree["vector"].reshape(3, 1),
            "no_size": jnp.zeros((0,)),
            "list": [None, jnp.zeros((2, 0)), {}],
            "nothing": None,
            "empty": [None, {}, ()],
        }

    path = jit(
        lambda: scan(case.interior(), reshaped(START), [*map(reshaped, NOISE)])
    )()
    assert path["no_size"].shape == (STEPS, 0)
    assert path["list"][0] is None
    assert path["list"][1].shape == (STEPS, 2, 0)
    assert path["list"][2] == {}
    assert path["nothing"] is None
    assert path["empty"] == [None, {}, ()]
    back = {
        "scalar": path["scalar"],
        "matrix": path["matrix"].reshape(STEPS, 2, 3),
        "vector": path["column"].reshape(STEPS, 3),
    }
    assert_same_path(back, case.path())


@pytest.mark.parametrize("tree", [{}, (), [None, {}]], ids=repr)
@each_case
def test_empty_trees(case, tree):
    tx = case.interior()
    state = tx.init(tree)
    updates, after = tx.update(tree, state, tree)
    assert updates == tree
    assert jax.tree.structure(after) == jax.tree.structure(state)


def updates_of(tx, params, gradients):
    """The updates for given gradients, stacked."""

    def step(state, g):
        return tx.update(g, state, params)[::-1]

    return jax.lax.scan(step, tx.init(params), gradients)[1]


SOUND = np.array([1.0, -0.5, 0.3])


def at_first(value):
    """Four gradients with a strange first coordinate, then four sound ones."""
    strange = np.array([value, *SOUND[1:]])
    signs = np.array([[1.0], [-1.0], [1.0], [1.0]])
    return np.concatenate([signs * strange, signs * SOUND])


def strange_gradients(dtype):
    """Of each kind eight steps of three coordinates."""
    smallest = float(jnp.finfo(dtype).smallest_subnormal)
    return {
        "zero": np.zeros((8, 3)),
        "subnormal": np.tile([smallest, 4 * smallest, 1.0], (8, 1)),
        "huge": at_first(6e4 if dtype == "float16" else 1e30),
        "infinite": at_first(np.inf),
        "nan": at_first(np.nan),
        "sound": at_first(1.0),
    }


DTYPES = ("float32", "bfloat16", "float16")
STRANGE = {dtype: strange_gradients(dtype) for dtype in DTYPES}
KINDS = tuple(STRANGE["float32"])
# What is decayed would move without a gradient.
AT = np.array([[0.0 if kind in ("zero", "subnormal") else 1.0] * 3 for kind in KINDS])
BY_NAME = {str(case): case for case in CASES}


@functools.cache
def strange_updates(name):
    """Of all dtypes and kinds, by default numbers and by those of the case."""
    case = BY_NAME[name]
    params = {dtype: jnp.asarray(AT, dtype) for dtype in DTYPES}
    gradients = {
        dtype: jnp.asarray(np.stack([*kinds.values()], axis=1), dtype)
        for dtype, kinds in STRANGE.items()
    }

    def run(tx):
        run = functools.partial(updates_of, tx)
        # A kind is a row of a leaf, or a lane where a row would see the others.
        run = jax.vmap(run, (0, 1), 1) if shares_a_rate(case) else run
        return run(params, gradients)

    updates = jit(lambda: [run(case.default()), run(case.interior())])()
    return [
        dict(zip(KINDS, np.moveaxis(np.asarray(leaf, np.float32), 1, 0), strict=True))
        for leaf in jax.tree.leaves(updates)
    ]


def runs(case, kind):
    """The updates, and those of sound gradients, of each dtype and both numbers."""
    for updates in strange_updates(str(case)):
        yield updates[kind], updates["sound"]


@each_case
def test_no_gradient_is_no_step(case):
    """Optax's Adam in float16 makes it NaN: 0 / (0 + ε) where ε = 1e-8 is 0."""
    # Yogi's m starts at 1e-6.
    largest = 1e-4 if case.row == "yogi" else 0.0
    for updates, _ in runs(case, "zero"):
        assert np.all(np.abs(updates) <= largest)


@each_case
def test_subnormal_gradients(case):
    """They are steps downhill and no longer than an unlucky ordinary one."""
    for updates, _ in runs(case, "subnormal"):
        assert np.all(np.isfinite(updates))
        assert np.all(updates <= 0)
        assert np.all(updates >= -20 * case.learning_rate)


@each_case
def test_huge_gradients(case):
    """1e30 squared is infinite, the updates are not."""
    for updates, sound in runs(case, "huge"):
        assert np.all(np.isfinite(updates))
        if not shares_a_rate(case):
            np.testing.assert_array_equal(updates[:, 1:], sound[:, 1:])


@pytest.mark.parametrize("name", ["adagrad", "rmsprop", "adam", "yogi", "radam"])
def test_a_square_that_overflowed_stops_its_coordinate(name):
    """ν = ∞ stays: the coordinate's rate is 0 from then on, in Optax too."""
    params, gradients = jnp.ones(3), jnp.asarray(at_first(1e30), jnp.float32)
    for library in (optjax, optax) if name != "yogi" else (optjax,):
        tx = getattr(library, name)(0.1)
        after = jit(functools.partial(updates_of, tx))(params, gradients)[-2:]
        assert np.all(after[:, 0] == 0.0)
        assert np.all(after[:, 1:] != 0.0)


@pytest.mark.parametrize("kind", ["infinite", "nan"])
@each_case
def test_infinite_and_nan_gradients(case, kind):
    """The update is not finite either: `optax.apply_if_finite` is the way round it.

    It is so in the coordinate that had the gradient, and in all that share its rate.
    """
    for updates, sound in runs(case, kind):
        # AdaShift's first updates are zero: it has no rate yet.
        assert not np.any(np.isfinite(updates[case.flags.get("keep_num", 0) : 4, 0]))
        if not shares_a_rate(case):
            np.testing.assert_array_equal(updates[:, 1:], sound[:, 1:])
        elif case.row in ("swats", "graftbound"):
            assert np.all(np.isfinite(updates[:, 1:]))
        elif kind == "nan":
            assert np.all(np.isnan(updates[4, 1:]))
        else:
            assert np.all(updates[4, 1:] == 0.0)


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
