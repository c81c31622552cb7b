"""State in fewer bits inside the compiled step: the same bits as without it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiling import jit

import optjax
from optjax._compression import BLOCK, ROOTED, SIGNED, encode
from optjax._rounding import random_bits, round_stochastically, step_key
from optjax.fused._kernel import (
    Accumulator,
    Coefficients,
    Direction,
    Form,
    Leaves,
    Storage,
)
from optjax.fused._library import fused_step_available
from optjax.fused._primitive import step

pytestmark = pytest.mark.skipif(
    not fused_step_available(),
    reason="no compiled step: run `python hatch_build.py`, which needs a C++ compiler",
)

ROWS = {
    "momentum": optjax.sgd(0.1, momentum=0.9),
    "nesterov": optjax.sgd(0.1, momentum=0.9, nesterov=True),
    "adagrad": optjax.adagrad(0.1),
    "rmsprop": optjax.rmsprop(0.01),
    "adamw": optjax.adamw(0.01),
    "nadam": optjax.nadam(0.01),
    "amsbound": optjax.amsbound(0.01, final_lr=1.0),
    "graftbound": optjax.graftbound(0.01, gamma=0.5),
}
# Of whole blocks of codes, not of whole ones, too small for codes, and for all.
START = {
    "a": np.zeros((4, 10, 128), np.float32),
    "b": np.zeros((3, 41, 83), np.float32),
    "c": np.zeros(700, np.float32),
    "d": np.zeros((), np.float32),
}
WRAPPERS = {
    "stochastic rounding": optjax.stochastic_rounding,
    "eight bits": optjax.compressed,
}
each_wrapper = pytest.mark.parametrize("name", WRAPPERS)
STEPS = 6


def noise(seed=0):
    rng = np.random.default_rng(seed)

    def draw(x):
        size = (STEPS, *x.shape)
        wide = rng.standard_normal(size) * np.exp(3 * rng.standard_normal(size))
        return wide.astype(np.float32)

    return jax.tree.map(draw, START)


NOISE = noise()


def update_and_apply(tx, grads, state, params):
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state


def path(step, tx):
    """Of parameters and state along given gradients, to what they are then."""

    def run(carry, grads):
        return jax.lax.scan(
            lambda carry, g: (step(tx, g, carry[1], carry[0]), None), carry, grads
        )[0]

    return run


def assert_same(actual, expected):
    """What is rounded to the bit, float32 to rounding."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    pairs = zip(
        jax.tree_util.tree_leaves_with_path(actual),
        jax.tree.leaves(expected),
        strict=True,
    )
    for (path, got), want in pairs:
        assert got.dtype == want.dtype
        where = jax.tree_util.keystr(path)
        got, want = np.asarray(got), np.asarray(want)
        if got.dtype == np.float32:
            size = np.abs(want).max()
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-6 * size)
        else:
            np.testing.assert_array_equal(got, want, where)


CODED = ("momentum", "adagrad", "nadam", "amsbound", "graftbound")


@pytest.mark.parametrize(
    ("name", "row"),
    [("stochastic rounding", row) for row in ROWS]
    + [("eight bits", row) for row in CODED],
)
def test_stores_as_the_pure_path_to_the_bit(name, row):
    tx = WRAPPERS[name](ROWS[row], seed=7)
    told = optjax.explain_step(tx, START)
    assert told.others == {}
    assert {leaf: name in form for leaf, form in told.compiled.items()} == {
        "a": True,
        "b": True,
        "c": name == "stochastic rounding",
        "d": False,
    }
    fused, pure = (
        jax.jit(path(step, tx)) for step in (optjax.apply_step, update_and_apply)
    )
    # Each shape's loops are compiled anew. Both kinds of codes lie in whole blocks too.
    leaves = "abd" if name == "eight bits" and row in ("momentum", "adagrad") else "bd"
    x = {leaf: START[leaf] for leaf in leaves}
    first, rest = (
        {leaf: NOISE[leaf][half] for leaf in x} for half in (slice(3), slice(3, None))
    )
    start = x, jit(tx.init)(x)
    half = fused(start, first)
    whole = fused(half, rest)
    pure_half = jax.tree.map(np.asarray, pure(start, first))
    assert_same(whole, pure(pure_half, rest))
    # In the middle of it either takes over from the other.
    assert_same(fused(pure_half, rest), whole)
    assert_same(pure(half, rest), whole)


@each_wrapper
def test_vmap_over_seeds_and_states(name):
    x, grads = ({leaf: of[leaf] for leaf in "bd"} for of in (START, NOISE))

    def wrapped(seed):
        return WRAPPERS[name](optjax.adam(0.01), seed=seed)

    seeds = np.arange(3)
    states = jit(jax.vmap(lambda seed: wrapped(seed).init(x)))(seeds)

    def lanes(step):
        def lane(seed, state):
            return path(step, wrapped(seed))((x, state), grads)

        return jit(jax.vmap(lane))(seeds, states)

    fused, pure = lanes(optjax.apply_step), lanes(update_and_apply)
    assert_same(fused, pure)
    ema = fused[1].inner_state[0].direction.ema["b"]
    assert (ema[0] != ema[1]).any()


def test_numbers_that_bfloat16_ends_at():
    """Through a step that keeps its gradients: infinite, NaN, and the largest."""
    top = [0x7F7F0000, 0x7F7F7FFF, 0x7F7F8000, 0x7F7FFFFF, 0x7F800000, 0x7FC00000]
    words = np.array([*top, 0x7F800001, 0, 1, 0x00800001, 0x3F80FFFF], np.uint32)
    both = np.concatenate([words, words | 2**31]).view(np.float32)
    x = np.tile(both, 30)
    form = Form(Direction.AVERAGE, Accumulator.ONE, storage=Storage.STOCHASTIC)
    leaves = Leaves([np.zeros_like(x)], [np.zeros(x.shape, jnp.bfloat16)])

    @jax.jit
    def both_ways(x):
        key = step_key(5, jnp.int32(9))
        new = step(form, Coefficients().pack(), [x], leaves, jnp.stack(key))
        return new.m[0], round_stochastically(x, random_bits(x, key))

    actual, expected = (np.asarray(y, np.float32) for y in both_ways(x))
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("kind", [SIGNED, ROOTED], ids=str)
def test_blocks_that_have_no_scale(kind):
    """Zeros, an infinity, a NaN, and numbers too small, beside a last block in part."""
    x = np.random.default_rng(0).standard_normal(6 * BLOCK - 50).astype(np.float32)
    x[:BLOCK] = 0.0
    x[BLOCK + 3], x[2 * BLOCK + 5] = np.inf, np.nan
    x[3 * BLOCK : 4 * BLOCK] *= 1e-36
    signed = kind == SIGNED
    form = Form(
        Direction.AVERAGE if signed else Direction.GRADIENT,
        Accumulator.ONE if signed else Accumulator.AVERAGE,
        storage=Storage.COMPRESSED,
    )
    like = np.zeros(x.shape, kind), np.zeros(6, np.float32)
    leaves = form.leaves([np.zeros_like(x)], *([y] for y in like))

    @jax.jit
    def both_ways(x):
        key = step_key(5, jnp.int32(9))
        new = step(form, Coefficients().pack(), [x], leaves, jnp.stack(key))
        value = x if signed else jnp.square(x)
        return new, encode(value, random_bits(value, key), kind)

    new, expected = jax.tree.map(np.asarray, both_ways(x))
    column = ("m", "m_scale") if signed else ("nu", "nu_scale")
    codes, scales = (getattr(new, name)[0] for name in column)
    np.testing.assert_array_equal(scales, expected[1])
    usual = np.repeat(np.isfinite(scales), BLOCK)[: x.size]
    np.testing.assert_array_equal(codes[usual], expected[0][usual])


PARTLY = {
    "one branch": optjax.basic_form(
        optjax.ema(0.9),
        optjax.rate_by_accumulated_square(
            optjax.stochastic_rounding(optjax.ema_of_squares(0.99))
        ),
        0.1,
    ),
    "codes in part": optjax.basic_form(
        optjax.ema(0.9),
        optjax.compressed(
            optjax.rate_by_accumulated_square(optjax.ema_of_squares(0.99))
        ),
        0.1,
    ),
    "bfloat16 by choice": optjax.stochastic_rounding(
        optjax.adam(0.1, mu_dtype=jnp.bfloat16)
    ),
}


@pytest.mark.parametrize("name", PARTLY)
def test_a_state_that_is_rounded_in_part_is_not_compiled(name):
    told = optjax.explain_step(PARTLY[name], {"w": jnp.zeros(5000)})
    assert list(told.others) == ["w"]
    assert "its state is not all" in told.others["w"]
