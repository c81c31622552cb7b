"""Rows inside random compositions of Optax's wrappers, run in every way JAX has."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiling import jit
from hypothesis import given
from hypothesis import strategies as st
from rows import ROWS

import optjax

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

STEPS, TRIALS = 4, 3
PARAMS = {"w": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "b": jnp.array([0.3, -0.1])}

WRAPPERS = {
    "chain, clipped before": lambda tx: optax.chain(optax.clip(1.0), tx),
    "chain, norm before": lambda tx: optax.chain(optax.clip_by_global_norm(0.5), tx),
    "chain, scaled after": lambda tx: optax.chain(tx, optax.scale(0.5)),
    "chain, decayed before": lambda tx: optax.chain(
        optax.add_decayed_weights(0.01), tx
    ),
    "masked": lambda tx: optax.masked(tx, {"w": True, "b": False}),
    "partition": lambda tx: optax.partition(
        {"theirs": optax.sgd(0.1), "ours": tx}, {"w": "ours", "b": "theirs"}
    ),
    "MultiSteps": lambda tx: optax.MultiSteps(tx, 2).gradient_transformation(),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 2),
    "flatten": optax.flatten,
    "named_chain": lambda tx: optax.named_chain(
        ("clip", optax.clip(2.0)), ("ours", tx)
    ),
    "monitor": lambda tx: optjax.monitor(tx, every=2),
    "injected": lambda tx: tx,
}
#: Whose state or update needs the tree that the others flatten or leave out, or whose
#: `cond` and flat array hide the rates that a monitor looks for.
INNERMOST = ("injected", "monitor")
OUTERMOST = ("masked", "partition", "flatten")


@st.composite
def compositions(draw):
    """A row, and the wrappers around it from the inside to the outside."""
    case = draw(st.sampled_from(ROWS))
    inside = draw(st.lists(st.sampled_from(INNERMOST), max_size=2, unique=True))
    middle = draw(
        st.lists(
            st.sampled_from([w for w in WRAPPERS if w not in INNERMOST + OUTERMOST]),
            max_size=3,
        )
    )
    outside = draw(st.lists(st.sampled_from(OUTERMOST), max_size=1))
    return case, (*sorted(inside), *middle, *outside)


def composed(case, wrappers):
    if "injected" in wrappers:
        make = optjax.inject_hyperparams(optjax.OPTIMIZERS[case.row].factory)
        tx = make(**case.flags, **case.hyperparameters())
    else:
        tx = case.interior()
    for wrapper in wrappers:
        tx = WRAPPERS[wrapper](tx)
    return tx


def gradients(seed):
    keys = jax.random.split(jax.random.key(seed), len(PARAMS))
    return {
        name: jax.random.normal(key, (STEPS, *x.shape))
        for key, (name, x) in zip(keys, PARAMS.items(), strict=True)
    }


def update_and_apply(tx, grads, state, params):
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state


def loop(step, params, state, grads):
    for t in range(STEPS):
        g = jax.tree.map(lambda g, t=t: g[t], grads)
        params, state = step(g, state, params)
    return params, state


def scan(step, params, state, grads):
    def body(carry, g):
        return step(g, carry[1], carry[0]), None

    return jax.lax.scan(body, (params, state), grads)[0]


def assert_close(got, want):
    got, want = jax.tree.leaves(got), jax.tree.leaves(want)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


@given(compositions(), st.integers(0, 2**31 - 1))
def test_every_way_of_running_gives_the_same(composition, seed):
    tx = composed(*composition)
    state, grads = tx.init(PARAMS), gradients(seed)

    def step(grads, state, params):
        return update_and_apply(tx, grads, state, params)

    def fused(grads, state, params):
        return optjax.apply_step(tx, grads, state, params)

    jitted = jit(step)
    want, want_state = loop(jitted, PARAMS, state, grads)
    assert any(
        np.any(a != b)
        for a, b in zip(jax.tree.leaves(want), jax.tree.leaves(PARAMS), strict=True)
    )
    assert_close(loop(step, PARAMS, state, grads)[0], want)
    for how in (step, fused):
        ran = jit(lambda *run, how=how: scan(how, *run))
        params, after = ran(PARAMS, state, grads)
        assert_close(params, want)
        assert jax.tree.structure(after) == jax.tree.structure(want_state)
    assert_close(loop(jit(fused), PARAMS, state, grads)[0], want)

    many = [gradients(seed ^ trial) for trial in range(TRIALS)]
    stacked = jax.tree.map(lambda *g: jnp.stack(g), *many)
    for how in (step, fused):
        ran = jit(jax.vmap(lambda g, how=how: scan(how, PARAMS, tx.init(PARAMS), g)[0]))
        together = ran(stacked)
        for trial, g in enumerate(many):
            alone = loop(jitted, PARAMS, tx.init(PARAMS), g)[0]
            assert_close(jax.tree.map(lambda x, i=trial: x[i], together), alone)
