"""Optimizers whose state is rounded to bfloat16: any, inside whatever wraps them.

What a rounding does to a number is in test_rounding.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiling import jit
from flax import nnx
from loop import NOISE, START, STEPS, assert_same_path, differ, gradient, scan, stack
from optax import contrib
from rows import each_row

import optjax
from optjax._rounding import (
    StochasticRoundingState,
    random_bits,
    round_stochastically,
    step_key,
    stochastic_rounding,
)

pytestmark = pytest.mark.usefixtures("cheaply_compiled")


def by_hand(inner, start=START, noise=NOISE, seed=0):
    """The path of a wrapped optimizer, each leaf of its state rounded by itself."""

    def rounded(state, count):
        def one(leaf):
            if not (leaf.ndim and leaf.dtype == jnp.float32):
                return leaf
            bits = random_bits(leaf, step_key(seed, count))
            # float32 again at once: nothing is lost by storing it as bfloat16.
            return round_stochastically(leaf, bits).astype(jnp.float32)

        return jax.tree.map(one, state)

    @jit
    def step(x, state, count, noise):
        updates, state = inner.update(gradient(x, noise), rounded(state, count), x)
        return optax.apply_updates(x, updates), state

    x, state, path = start, inner.init(start), []
    for count, n in enumerate(noise):
        x, state = step(x, state, count, n)
        path.append(x)
    return stack(path)


def compiled(tx, *args, **kwargs):
    return jit(lambda: scan(tx, *args, **kwargs))()


@pytest.mark.parametrize(
    "inner",
    [
        optax.adam(0.05),
        optjax.adam(0.05),
        optjax.adabound(0.05),
        optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.05)),
    ],
    ids=["optax.adam", "adam", "adabound", "chain"],
)
def test_state_is_widened_updated_and_rounded(inner):
    path, plain = compiled(stochastic_rounding(inner)), compiled(inner)
    assert_same_path(path, by_hand(inner))
    assert differ(path["matrix"], plain["matrix"], 1e-5)
    # A scalar's moments stay in float32.
    assert_same_path(path["scalar"], plain["scalar"])


@each_row
def test_every_row_keeps_its_arrays_in_bfloat16(case):
    inner = case.interior()
    tx = stochastic_rounding(inner)
    state = jax.eval_shape(tx.init, START)
    updates, after = jax.eval_shape(tx.update, START, state, START)
    assert after == state
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, START)
    assert isinstance(state, StochasticRoundingState)
    plain = jax.tree.leaves(jax.eval_shape(inner.init, START))
    for ours, theirs in zip(jax.tree.leaves(state.inner_state), plain, strict=True):
        rounds = theirs.ndim and theirs.dtype == jnp.float32
        assert ours.shape == theirs.shape
        assert ours.dtype == (jnp.bfloat16 if rounds else theirs.dtype)
    assert state.dtypes == {}


@pytest.mark.parametrize(
    ("outside", "inside"),
    [
        (lambda tx: optax.chain(optax.clip(0.5), tx, optax.scale(0.5)),) * 2,
        (lambda tx: optax.MultiSteps(tx, 2).gradient_transformation(),) * 2,
        (
            lambda tx: optax.masked(
                tx, {"matrix": True, "vector": False, "scalar": True}
            ),
            lambda tx: optax.masked(
                tx, lambda p: jax.tree.map(lambda x: x.ndim == 2, p)
            ),
        ),
        (
            lambda tx: optax.partition(
                {"a": tx, "b": optax.sgd(0.1)},
                {"matrix": "a", "vector": "b", "scalar": "a"},
            ),
        )
        * 2,
        (lambda tx: optax.apply_if_finite(tx, 3),) * 2,
        (lambda tx: contrib.schedule_free(tx, 0.05),) * 2,
    ],
    ids=[
        "chain",
        "multi_steps",
        "masked",
        "partition",
        "apply_if_finite",
        "schedule_free",
    ],
)
def test_wrappers_on_either_side(outside, inside):
    """The path of unrounded state, within what eight roundings can do to it."""
    adam = optax.adam(0.05)
    plain = {wrap: compiled(wrap(adam)) for wrap in {outside, inside}}
    for tx, expected in (
        (outside(stochastic_rounding(adam)), plain[outside]),
        (stochastic_rounding(inside(adam)), plain[inside]),
    ):
        state = jax.eval_shape(tx.init, START)
        assert any(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(state))
        path = compiled(tx)
        chex.assert_trees_all_close(path, expected, atol=0.02)
        assert differ(path, expected, 1e-6)


def test_lookahead_inside():
    """Its updates are a pair of trees, the gradients one."""
    tx = stochastic_rounding(optax.lookahead(optax.adam(0.05), 2, 0.5))
    start, noise = jax.tree.map(lambda x: x.astype(jnp.bfloat16), (START, NOISE))
    path = compiled(
        tx,
        optax.LookaheadParams.init_synced(start),
        noise,
        gradient=lambda params, noise: gradient(params.fast, noise),
    )
    chex.assert_trees_all_equal_dtypes(path.fast, start)
    assert differ(path.fast, stack([start] * STEPS))


def test_inject_hyperparams():
    """The injected numbers keep float32, and an edited one needs no compilation."""
    tx = optax.inject_hyperparams(optjax.adam)(0.05, b2=0.9)
    wrapped = stochastic_rounding(tx)
    state = wrapped.init(START)
    hyperparams = state.inner_state.hyperparams
    assert {x.dtype for x in hyperparams.values()} == {jnp.float32.dtype}
    traces = []

    @jit
    def run(state):
        traces.append(1)
        return scan(wrapped, state=state)

    assert_same_path(run(state), by_hand(tx))
    hyperparams = {**hyperparams, "learning_rate": jnp.float32(0)}
    inner_state = state.inner_state._replace(hyperparams=hyperparams)
    still = run(state._replace(inner_state=inner_state))
    assert not differ(still, stack([START] * STEPS))
    assert len(traces) == 1


def test_inject_hyperparams_around():
    """Of the optimizer that is wrapped, numbers as its arguments."""

    def factory(learning_rate):
        return stochastic_rounding(optjax.adam(learning_rate))

    path = compiled(optax.inject_hyperparams(factory)(0.05))
    assert_same_path(path, by_hand(optjax.adam(0.05)))


def test_flax_nnx_optimizer():
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(
        model, stochastic_rounding(optax.adam(0.05)), wrt=nnx.Param
    )
    structure = jax.tree.structure(nnx.state(optimizer))
    inputs = jnp.asarray(np.random.default_rng(1).normal(size=(8, 3)), jnp.float32)

    @nnx.jit
    def step(model, optimizer):
        def loss(model):
            return jnp.mean(jnp.square(model(inputs) - inputs[:, :2]))

        loss, grads = nnx.value_and_grad(loss)(model)
        optimizer.update(model, grads)
        return loss

    losses = [step(model, optimizer) for _ in range(100)]
    assert losses[-1] < 0.05 * losses[0]
    assert jax.tree.structure(nnx.state(optimizer)) == structure
    kept = [x for x in jax.tree.leaves(nnx.state(optimizer)) if x.ndim]
    assert {x.dtype for x in kept} == {jnp.bfloat16.dtype}


def test_bfloat16_parameters_are_optimized_in_float32():
    """Their optimizer's own state would be bfloat16 and stall."""
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), START)
    seen = []

    def update(updates, state, params=None):
        seen.append((updates, state, params))
        return updates, state

    inner = optax.GradientTransformation(
        lambda p: jax.tree.map(jnp.zeros_like, p), update
    )
    tx = stochastic_rounding(inner)
    updates, _ = tx.update(params, tx.init(params), params)
    assert {x.dtype for x in jax.tree.leaves(seen)} == {jnp.float32.dtype}
    chex.assert_trees_all_equal(updates, params)
    updates, state = tx.update(params, tx.init(params))
    chex.assert_trees_all_equal(updates, params)
    assert {x.dtype for x in jax.tree.leaves(state.inner_state)} == {
        jnp.bfloat16.dtype,
        jnp.float32.dtype,  # the scalar's
    }


def test_arrays_that_are_bfloat16_by_choice_stay_it():
    """So that both branches of a wrapper's cond agree."""
    inner = optax.apply_if_finite(optax.adam(0.05, mu_dtype=jnp.bfloat16), 3)
    tx = stochastic_rounding(inner)
    state = jit(tx.init)(START)
    assert {x.dtype for x in state.dtypes.values()} == {jnp.bfloat16.dtype}
    assert_same_path(compiled(tx), by_hand(inner))


def test_float64_comes_back_as_float64():
    with jax.enable_x64(True):
        start = jax.tree.map(lambda x: x.astype(jnp.float64), START)
        inner = optax.apply_if_finite(optax.adam(0.05), 3)
        tx = stochastic_rounding(inner)
        state = jax.eval_shape(tx.init, start)
        assert {x.dtype for x in state.dtypes.values()} == {np.dtype("float64")}
        updates, after = jax.eval_shape(tx.update, start, state, start)
        assert after == state
        assert {x.dtype for x in jax.tree.leaves(updates)} == {np.dtype("float64")}


def test_what_is_no_wide_array_stays():
    kept = {
        "integers": jnp.arange(3),
        "half": jnp.ones(3, jnp.float16) / 3,
        "complex": jnp.ones(3, jnp.complex64) / 3,
        "keys": jax.random.split(jax.random.key(0), 2),
        "bits": jnp.arange(3) > 1,
        "number": jnp.float32(1) / 3,
        "nothing": None,
    }
    inner = optax.GradientTransformation(
        lambda params: kept, lambda g, state, params=None: (g, state)
    )
    tx = stochastic_rounding(inner)
    state = tx.init(jnp.ones(3))
    for after in (state, tx.update(jnp.ones(3), state)[1]):
        chex.assert_trees_all_equal(after.inner_state, kept)


def test_derivatives_are_those_without_rounding():
    """Of the loss after eight steps by the decay, which acts through ν alone."""

    def loss(b2, wrap):
        path = scan(wrap(optjax.adam(0.05, b2=b2)))
        return sum(jnp.sum(leaf[-1] ** 2) for leaf in jax.tree.leaves(path))

    plain = jit(jax.grad(lambda b2: loss(b2, lambda tx: tx)))(0.9)

    def rounded(seed):
        return jax.grad(loss)(0.9, lambda tx: stochastic_rounding(tx, seed=seed))

    ours = np.asarray(jit(jax.vmap(rounded))(jnp.arange(256)))
    assert ours.std() > 1e-3
    error = ours.mean() - plain
    assert abs(error) < 4 * ours.std() / np.sqrt(ours.size)
    assert abs(error) < 0.03 * abs(plain)
