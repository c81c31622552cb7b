"""Bounds around a measured rate: which rate, of which leaves, and until when."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiling import jit

import optjax

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

RNG = np.random.default_rng(0)
SHAPES = {"in": {"w": (4, 3), "b": (3,)}, "out": {"w": (3, 2)}}
STEPS = 12


def drawn():
    shapes = jax.tree.map(
        lambda shape: RNG.normal(size=shape), SHAPES, is_leaf=lambda s: type(s) is tuple
    )
    # Layers of different sizes, so that it matters which are measured together.
    shapes["out"]["w"] *= 100
    return jax.tree.map(jnp.float32, shapes)


START, PATH = drawn(), [drawn() for _ in range(STEPS)]


def bounded(clip, b1=0.9):
    """AdaBound's form with another clip."""
    rate = optax.chain(
        optjax.rate_by_accumulated_square(
            optjax.ema_of_squares(0.999, debias=False), 1e-8
        ),
        optjax.correct_bias(b1, 0.999, 1e-2),
        clip,
    )
    return optjax.basic_form(optjax.ema(b1, debias=False), rate, 1.0)


def run(tx, path=PATH):
    """All updates, and all states."""

    def step(state, g):
        updates, state = tx.update(g, state, START)
        return state, (updates, state)

    stacked = jax.tree.map(lambda *g: jnp.stack(g), *path)
    return jit(lambda: jax.lax.scan(step, tx.init(START), stacked)[1])()


def measured(state):
    """f_t of each leaf, after every step."""
    return optax.tree.get(state, "rate", filtering=lambda _, x: type(x) is dict)


def ema(states):
    return optax.tree.get(states, "ema")


def norms(states):
    """‖V ⊙ m‖ and ‖m‖ in float64 of every leaf and step, from m and ν of the states."""
    m, nu = (optax.tree.get(states, name) for name in ("ema", "nu"))
    t = np.arange(1, STEPS + 1)
    scale = 1e-2 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)

    def norm(x):
        return np.sqrt(np.sum(x.reshape(STEPS, -1) ** 2, axis=1))

    def of_leaf(m, nu):
        m, nu = np.asarray(m, np.float64), np.asarray(nu, np.float64)
        factor = scale.reshape(-1, *[1] * (m.ndim - 1))
        return norm(factor * m / (np.sqrt(nu) + 1e-8)), norm(m)

    pairs = jax.tree.map(of_leaf, m, nu)
    return tuple(
        jax.tree.map(lambda p, i=i: p[i], pairs, is_leaf=lambda p: type(p) is tuple)
        for i in (0, 1)
    )


def together(*parts):
    return np.sqrt(sum(part**2 for part in parts))


@pytest.mark.parametrize("freeze_after", [np.inf, 5.0])
def test_around_a_number_is_adabound_to_the_bit(freeze_after):
    """Until it freezes."""
    tx = bounded(
        optjax.bound_around(0.1, *optjax.hyperbolic_bounds(1.0, 0.3), freeze_after)
    )
    ours, _ = run(tx)
    theirs, _ = run(optjax.adabound(1e-2, final_lr=0.1, gamma=0.3))
    last = int(min(freeze_after, STEPS))
    for got, want in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
        np.testing.assert_array_equal(got[:last], want[:last])
        assert last == STEPS or np.any(got[last:] != want[last:])


GROUPS = {
    "each leaf": None,
    "all": 0,
    "layers": 1,
    "a function": lambda name: name.split("/")[-1],
}


@pytest.mark.parametrize("groups", GROUPS)
def test_the_rate_is_that_of_the_group(groups):
    target = optjax.grafted_target(GROUPS[groups])
    tx = bounded(optjax.bound_around(target, *optjax.hyperbolic_bounds(1.0, 0.3)))
    _, states = run(tx)
    steps, directions = norms(states)
    leaves = [("in", "w"), ("in", "b"), ("out", "w")]
    name = {
        "each leaf": lambda path: path,
        "all": lambda path: "",
        "layers": lambda path: path[0],
        "a function": lambda path: path[1],
    }[groups]
    for path in leaves:
        group = [other for other in leaves if name(other) == name(path)]
        above, below = (
            together(*(tree[layer][kind] for layer, kind in group))
            for tree in (steps, directions)
        )
        got = measured(states)[path[0]][path[1]]
        np.testing.assert_allclose(got, above / below, rtol=2e-6)


def test_an_average_starts_at_the_first_and_is_debiased():
    tx = bounded(
        optjax.bound_around(
            optjax.grafted_target(decay=0.6), *optjax.hyperbolic_bounds(1.0, 0.3)
        )
    )
    _, states = run(tx)
    steps, directions = norms(states)
    f = steps["in"]["w"] / directions["in"]["w"]
    weights = np.array([0.6**k for k in range(STEPS)])
    expected = [
        np.sum(f[: t + 1] * weights[: t + 1][::-1]) / np.sum(weights[: t + 1])
        for t in range(STEPS)
    ]
    np.testing.assert_allclose(measured(states)["in"]["w"], expected, rtol=3e-6)


@pytest.mark.parametrize("late", [False, True])
def test_the_bounds_are_around_this_or_the_last_rate(late):
    """Of which there is none at the first step."""
    closed = optjax.bound_around(optjax.grafted_target(late=late), 1.0, 1.0)
    updates, states = run(bounded(closed))
    f, m, u = (tree["out"]["w"] for tree in (measured(states), ema(states), updates))
    for t in range(late, STEPS):
        np.testing.assert_allclose(u[t], -f[t - late] * m[t], rtol=1e-6)
    free, _ = run(bounded(optjax.bound_clip(0.0, np.inf)))
    is_free = np.array_equal(u[0], free["out"]["w"][0])
    assert is_free == late


def test_the_projection_is_that_of_swats():
    """Λ of a run in which SWATS has not switched, of all leaves together."""
    b1, b2 = 0.5, 0.9
    # Growing, so that the rate never settles.
    path = [jax.tree.map(lambda g, t=t: 1.2**t * g, PATH[0]) for t in range(STEPS)]
    swats = optjax.scale_by_swats(1e-2, b1, b2, eps=1e-12)
    rate = optax.chain(
        optjax.rate_by_accumulated_square(
            optjax.ema_of_squares(b2, debias=False), 1e-12
        ),
        optjax.correct_bias(b1, b2, 1e-2),
        optjax.bound_around(optjax.projected_target(0, b2), 0.0, np.inf),
    )
    tx = optjax.precondition(optjax.ema(b1, debias=False), rate)
    (ours, states), (theirs, known) = run(tx, path), run(swats, path)
    t = np.arange(1, STEPS + 1)
    expected = np.asarray(known.rate_ema, np.float64) / (1 - b2**t)
    assert not np.any(known.switched_at)
    np.testing.assert_allclose(measured(states)["in"]["w"], expected, rtol=1e-5)
    for got, want in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5)


def test_a_projection_that_would_ascend_is_not_taken():
    tx = optjax.bound_around(optjax.projected_target(decay=0.0), 1.0, 1.0)
    v, g = jnp.ones(2), jnp.array([1.0, 2.0])
    _, state = tx.update(v, tx.init(v), direction=2 * g, gradient=g)
    _, after = tx.update(v, state, direction=2 * g, gradient=-g)
    assert state.rate == after.rate == 2.0


def test_without_a_direction_the_rate_is_what_it_was():
    """And before there is one, the rate is not bounded; both are finite."""
    zero = jax.tree.map(jnp.zeros_like, START)
    some = {**zero, "out": PATH[0]["out"]}
    tx = bounded(optjax.bound_around(optjax.grafted_target(), 1.0, 1.0), b1=0.0)
    updates, states = run(tx, [zero, some, some, zero, PATH[1]])
    assert all(np.all(np.isfinite(u)) for u in jax.tree.leaves(updates))
    f = jax.tree.map(np.asarray, measured(states))
    assert np.all(f["in"]["w"][:4] == 0)
    assert f["out"]["w"][0] == 0
    assert f["out"]["w"][2] == f["out"]["w"][3] > 0
    assert f["in"]["w"][4] > 0


@pytest.mark.parametrize("groups", [None, 0])
def test_a_frozen_rate_is_the_last_one_of_every_coordinate(groups):
    tx = optjax.graftbound(0.1, b1=0.0, gamma=0.01, groups=groups, freeze_after=5)
    updates, states = run(tx)
    for leaf, f, *g in zip(
        jax.tree.leaves(updates),
        jax.tree.leaves(measured(states)),
        *map(jax.tree.leaves, PATH),
        strict=True,
    ):
        assert np.all(np.asarray(f[4:]) == f[4])
        assert f[3] != f[4]
        for t in range(5, STEPS):
            np.testing.assert_allclose(leaf[t], -0.1 * f[4] * g[t], rtol=1e-6)


def test_outside_of_a_form_it_says_where_it_belongs():
    tx = optjax.bound_around(optjax.grafted_target(), 0.5, 2.0)
    with pytest.raises(ValueError, match="rate branch"):
        tx.update(START, tx.init(START))
    fixed = optjax.bound_around(0.1, 0.5, 2.0)
    assert np.all(fixed.update(START, fixed.init(START))[0]["in"]["w"] <= 0.2)


def test_no_leaves():
    tx = optjax.graftbound(0.1)
    updates, state = tx.update({}, tx.init({}))
    assert updates == {}
    assert optax.tree.get_all_with_path(state, "rate")
