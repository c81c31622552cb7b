"""Packed state inside the compiled step: in place, to the bit, and in few arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import jit

import optjax
from optjax._packing import unpack
from optjax.fused._library import fused_step_available

pytestmark = pytest.mark.skipif(
    not fused_step_available(),
    reason="no compiled step: run `python hatch_build.py`, which needs a C++ compiler",
)

ROWS = {
    "momentum": optjax.sgd(0.1, momentum=0.9),
    "adam": optjax.adam(0.1),
    "amsgrad": optjax.amsgrad(0.1),
    "adaboundw": optjax.adaboundw(0.1),
    "graftbound": optjax.graftbound(0.1),
    "stochastic": optjax.stochastic_rounding(optjax.nadam(0.1)),
}
# More than a call takes, and of sizes that fit no block.
SIZES = [91, 5, 1, 34] * 8 + [7]


def draw(seed, sizes=SIZES):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(n).astype(np.float32) for n in sizes]


X, G = draw(0), draw(1)


def steps(tx, params, grads, count=3):
    def step(carry, _):
        return optjax.apply_step(tx, grads, carry[1], carry[0]), None

    return jax.lax.scan(step, (params, tx.init(params)), length=count)[0]


def assert_equal(actual, expected, rtol=0.0):
    for got, want in zip(*map(jax.tree.leaves, (actual, expected)), strict=True):
        assert got.dtype == want.dtype
        got, want = np.float64(got), np.float64(want)
        np.testing.assert_allclose(got, want, 0, rtol * np.abs(want).max())


@pytest.mark.parametrize(
    ("leaves", "compiled"),
    [(len(SIZES), jit), (4, jax.jit)],
    ids=["two calls", "as users have it"],
)
@pytest.mark.parametrize("row", ROWS)
def test_steps_as_the_unpacked_to_the_bit(row, leaves, compiled):
    own, tx, x, g = ROWS[row], optjax.packed(ROWS[row]), X[:leaves], G[:leaves]
    told = optjax.explain_step(tx, x)
    assert not told.others
    assert all(form.endswith("packed") for form in told.compiled.values())
    params, state = compiled(lambda: steps(tx, x, g))()
    expected, own_state = compiled(lambda: steps(own, x, g))()
    assert_equal(params, expected)
    assert_equal(unpack(state, x), own_state)


def test_the_program_takes_one_array_a_field():
    tx = optjax.packed(ROWS["adam"])

    def step(params, state, grads):
        return optjax.apply_step(tx, grads, state, params)

    state = tx.init(X)
    assert len(jax.tree.leaves(state)) == 4
    text = jax.jit(step, donate_argnums=(0, 1)).lower(X, state, G).as_text()
    assert text.count("custom_call") == 2
    # Nothing but the calls touches a packed array.
    touching = [line for line in text.splitlines() if f"<{sum(SIZES)}xf32>" in line]
    others = ("slice", "concatenate", "add", "multiply")
    assert touching
    assert not any(f"stablehlo.{op}" in line for line in touching for op in others)


def test_lanes_of_vmap_and_derivatives():
    small, grads = draw(0, [5, 3]), draw(1, [5, 3])

    def run(tx, rate, grads):
        return steps(tx(optjax.adam(rate)), small, grads)[0]

    rates = jnp.array([0.1, 0.01])
    own, packed = (
        jax.jit(jax.vmap(lambda r, wrap=wrap: run(wrap, r, grads)))(rates)
        for wrap in (lambda tx: tx, optjax.packed)
    )
    assert_equal(packed, own)
    own, packed = (
        jit(jax.jacfwd(lambda r, wrap=wrap: run(wrap, r, grads)))(0.1)
        for wrap in (lambda tx: tx, optjax.packed)
    )
    assert_equal(packed, own, rtol=1e-6)


PARTLY = {
    "one branch": optjax.basic_form(
        optjax.ema(0.9),
        optjax.packed(optjax.rate_by_accumulated_square(optjax.ema_of_squares(0.99))),
        0.1,
    ),
    "each branch": optjax.basic_form(
        optjax.packed(optjax.ema(0.9), mask=[False] + [True] * 32),
        optjax.packed(optjax.rate_by_accumulated_square(optjax.ema_of_squares(0.99))),
        0.1,
    ),
}


@pytest.mark.parametrize("name", PARTLY)
def test_a_state_that_is_packed_in_part_is_not_compiled(name):
    told = optjax.explain_step(PARTLY[name], X)
    assert not told.compiled
    assert set(told.others.values()) == {"its state is not all packed alike"}


def test_rounding_around_packing_is_told_the_right_order():
    inside_out = optjax.stochastic_rounding(optjax.packed(optjax.adam(0.1)))
    told = optjax.explain_step(inside_out, X)
    assert not told.compiled
    (why,) = set(told.others.values())
    assert "put packed around stochastic_rounding" in why
    own = optjax.packed(optjax.stochastic_rounding(optjax.adam(0.1)))
    assert not optjax.explain_step(own, X).others


@pytest.mark.parametrize("names", ["ab", "abc"])
def test_a_leaf_that_is_not_compiled_keeps_those_packed_with_it(names):
    start = {name: jnp.ones(3) for name in names}
    grads = {**start, "b": jnp.ones(3, jnp.float16)}
    tx = optjax.packed(ROWS["adam"])
    params, state = jax.jit(steps, static_argnums=0)(tx, start, grads)
    expected, own = jax.jit(steps, static_argnums=0)(ROWS["adam"], start, grads)
    assert_equal(params, expected, rtol=1e-6)
    assert_equal(unpack(state, start), own, rtol=1e-6)
