"""Every row and flag against the float64 NumPy rules, in float64 and in float32.

The float64 comparison is the proof of exactness: nothing but rounding may differ. The
float32 one shows how much of that exactness is left in ordinary use. The rows that
Optax has too are in test_parity_optax.py in float32. That leaves of other shapes are
treated alike is in core/test_inputs.py, for all flags.
"""

import functools

import jax
import numpy as np
import optax
import pytest
from compiling import jit
from golden import problem
from reference import RULES, run
from reference.flags import (
    BY_LEAF,
    JOINED_MASK,
    MASK,
    MASKED,
    OWN,
    SAME_NAME,
    Flags,
    halved,
    joined,
)
from reference.scan import assert_same_path, displacements, follow, moved

import optjax

# Relative to the distance travelled. β₂ = 0.999 rounded to float32 makes the averages'
# own weights wrong by 1.3e-8 a step.
FLOAT32 = 3e-6
LESS_EXACT_IN_FLOAT32 = {
    # What leaves the window is subtracted from the sum of those that stay.
    "adashift": 1.5e-5,
    # The rounding of every coordinate of a leaf is in its one rate.
    "graftbound": 1e-5,
}


def load(name, leaves=None):
    """A golden problem, or some of its leaves; swats_split is swats in two leaves."""
    if name != "swats_split":
        params, grads = problem.load(name)
        leaves = leaves or list(params)
        return pick(params, leaves), [pick(tree, leaves) for tree in grads]

    def split(tree):
        return {"first": tree["matrix"][0], "rest": tree["matrix"][1:]}

    params, grads = problem.load("swats")
    return split(params), [split(tree) for tree in grads]


def pick(tree, leaves):
    return {key: tree[key] for key in leaves}


@functools.cache
def follow_rule(label, leaves=None):
    flags = LABELLED[label]
    params, grads = load(flags.problem, leaves)
    arguments = dict(flags.arguments)
    mask = arguments.pop("mask", None) or arguments.pop("weight_decay_mask", None)
    path = run(flags.name, params, grads, flags.learning_rate, mask=mask, **arguments)
    return moved(path, params)


ROWS = [name for name in optjax.OPTIMIZERS if name not in ("momentum", "nesterov")]
_GIVEN = {flags.name for flags in SAME_NAME + OWN}
PLAIN = [Flags(name) for name in ROWS if name not in _GIVEN]
ALL = SAME_NAME + OWN + PLAIN
LABELLED = {str(flags): flags for flags in ALL}


# In float32, which compiles long.
LEAVES = ("matrix", "vector")


@functools.cache
def paths(name, problem_name, dtype):
    """Ours, for all flags of a row together."""
    leaves = LEAVES if dtype == "float32" else tuple(MASK)
    if name in BY_LEAF:
        (params, grads), mask = load(problem_name, leaves), pick(MASK, leaves)
    else:
        params, grads = load(problem_name)
        join = functools.partial(joined, is_masked=name in MASKED)
        params, grads = join(params), [join(tree) for tree in grads]
        mask = JOINED_MASK
    rows = [
        flags
        for flags in (ALL if dtype == "float64" else OWN + PLAIN)
        if (flags.name, flags.problem) == (name, problem_name)
    ]
    with jax.enable_x64(dtype == "float64"):
        transformations = {str(flags): flags.optimizer(optjax, mask) for flags in rows}
        return follow(transformations, params, grads, dtype)


def rule(flags, leaves=None):
    """The path in NumPy, of the leaves that `paths` has."""
    if flags.name in BY_LEAF:
        return follow_rule(str(flags), leaves)
    return joined(follow_rule(str(flags)), 1, flags.name in MASKED)


@pytest.mark.parametrize("flags", ALL, ids=str)
def test_float64(flags):
    actual = paths(flags.name, flags.problem, "float64")[str(flags)]
    start, _ = load(flags.problem)
    if flags.name not in BY_LEAF:
        start = joined(start, is_masked=flags.name in MASKED)
    assert_same_path(actual, rule(flags), 1e-11, start=start)


@pytest.mark.parametrize("flags", OWN + PLAIN, ids=str)
def test_float32(flags):
    actual = paths(flags.name, flags.problem, "float32")[str(flags)]
    rtol = LESS_EXACT_IN_FLOAT32.get(flags.name, FLOAT32)
    assert_same_path(actual, rule(flags, LEAVES), rtol)


def test_no_two_cases_have_the_same_name():
    assert len(LABELLED) == len(ALL)


def test_every_row_of_the_table_has_a_rule():
    assert set(ROWS) <= set(RULES)


@pytest.mark.parametrize("name", ["momentum", "nesterov"])
def test_rows_that_are_sgd_with_momentum(name):
    params, grads = load("mixed")
    expected = moved(
        run("sgd", params, grads, 0.1, momentum=0.9, nesterov=name == "nesterov"),
        params,
    )
    actual = displacements(optjax.OPTIMIZERS[name].factory(0.1), params, grads)
    assert_same_path(actual, expected, 1e-6)


def test_swats_switches_within_the_steps_compared():
    # The other tests would not show Λ if Adam never ended.
    params, grads = load("swats_split")
    arguments = {"b2": 0.8, "eps": 1e-2}
    transformation = optjax.swats(0.11, **arguments)
    update = jit(transformation.update)
    state = transformation.init(params)
    for tree in grads:
        _, state = update(tree, state)
    assert int(optax.tree.get(state, "switched_at")) == 62


def test_a_schedule_scales_swats_from_outside():
    params, grads = load("swats_split")
    arguments = {"b2": 0.8, "eps": 1e-2}
    path = moved(run("swats", params, grads, 0.11, **arguments), params)
    share = np.array([halved(1.0)(count) for count in range(len(grads))])
    expected = {
        key: np.cumsum(
            np.diff(value, axis=0, prepend=0.0)
            * share.reshape(-1, *[1] * (value.ndim - 1)),
            axis=0,
        )
        for key, value in path.items()
    }
    actual = displacements(optjax.swats(halved(0.11), **arguments), params, grads)
    assert_same_path(actual, expected, FLOAT32)


def test_swats_does_not_switch_to_a_rate_that_ascends():
    # Algorithm 1 has no such condition: with b2 = 0, λ is γ itself, negative here
    # because momentum still points along the first gradient.
    params = {"x": np.zeros(2, np.float32)}
    gradients = [1.0, -0.3, 1.0, 1.0, 1.0, 1.0]
    grads = [{"x": np.full(2, g, np.float32)} for g in gradients]
    literal = run("swats", params, grads, 0.1, b2=0.0, eps=1e-3)
    guarded = run("swats", params, grads, 0.1, b2=0.0, eps=1e-3, positive=True)
    actual = displacements(optjax.swats(0.1, b2=0.0, eps=1e-3), params, grads)
    assert_same_path(actual, moved(guarded, params), 1e-5)
    assert literal[-1]["x"][0] > 0 > guarded[-1]["x"][0]
