"""Hyper-parameters of a running optimizer are read and set without recompiling."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiling import jit
from flax import linen, nnx
from flax.training.train_state import TrainState
from loop import NOISE, START, gradient
from rows import each_row

import optjax
import optjax.pytorch
from optjax import hyperparameters, inject_hyperparams, set_hyperparameters

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

# What shapes the state's beginning is used up by `init`.
ONLY_AT_FIRST = ("initial_accumulator_value", "initial_scale")


def counting(tx):
    """A compiled step, and the list of its traces."""
    traces = []

    @jit
    def step(x, state, n):
        traces.append(1)
        updates, state = tx.update(gradient(x, n), state, x)
        return optax.apply_updates(x, updates), state

    return step, traces


@each_row
def test_every_number_of_every_row_is_read_and_set_without_compiling_again(case):
    """After a change, the next step is that of an optimizer made with the new value."""
    values = case.hyperparameters()
    factory = functools.partial(optjax.OPTIMIZERS[case.row].factory, **case.flags)
    tx = inject_hyperparams(factory)(**values)
    state = tx.init(START)
    known = hyperparameters(state)
    assert {name: known[name] for name in values} == values
    assert all(isinstance(value, float) for value in known.values())

    step, traces = counting(tx)
    x = START
    for n in NOISE[:3]:
        x, state = step(x, state, n)
    changed = {
        name: 0.8 * value for name, value in values.items() if name not in ONLY_AT_FIRST
    }
    new = set_hyperparameters(state, **changed)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    np.testing.assert_allclose(
        [hyperparameters(new)[name] for name in changed], [*changed.values()], rtol=1e-6
    )
    # The state handed over is as it was.
    assert {name: hyperparameters(state)[name] for name in values} == values
    actual, _ = step(x, new, NOISE[3])
    assert len(traces) == 1
    made_anew = factory(**{**values, **changed})
    updates, _ = made_anew.update(gradient(x, NOISE[3]), state.inner_state, x)
    for name, leaf in optax.apply_updates(x, updates).items():
        np.testing.assert_allclose(actual[name], leaf, rtol=2e-5, atol=2e-6)


def test_flags_masks_dtypes_and_counts_are_left_alone():
    def mask(params):
        return {"matrix": True, "vector": False, "scalar": False}

    tx = inject_hyperparams(optjax.adaboundw)(
        0.01, mask=mask, fixed_decay=True, amsbound=False, mu_dtype=jnp.bfloat16
    )
    state = tx.init(START)
    assert set(hyperparameters(state)) == {
        *("learning_rate", "b1", "b2", "eps", "final_lr", "gamma", "weight_decay"),
        "base_lr",
    }
    zero = jax.tree.map(jnp.zeros_like, START)
    state = set_hyperparameters(state, weight_decay=0.5)
    updates, _ = tx.update(zero, state, START)
    np.testing.assert_allclose(updates["matrix"], -0.5 * START["matrix"], rtol=1e-6)
    assert not updates["vector"].any()

    shift = inject_hyperparams(optjax.adashift)(0.1, keep_num=3)
    assert set(hyperparameters(shift.init(START))) == {
        *("learning_rate", "b1", "b2", "eps")
    }


def test_integers_become_numbers_that_may_have_fractions():
    tx = inject_hyperparams(optjax.adabound)(1, final_lr=1, weight_decay=0)
    state = set_hyperparameters(tx.init(START), learning_rate=0.5, final_lr=0.25)
    found = hyperparameters(state)
    assert (found["learning_rate"], found["final_lr"]) == (0.5, 0.25)
    assert {x.dtype for x in state.hyperparams.values()} == {jnp.dtype(jnp.float32)}


def test_bfloat16_parameters_stay_finite():
    params, noise = jax.tree.map(lambda x: x.astype(jnp.bfloat16), (START, NOISE))
    step, _ = counting(inject_hyperparams(optjax.adam)(1e-3, b2=0.999))
    state = inject_hyperparams(optjax.adam)(1e-3, b2=0.999).init(params)
    assert hyperparameters(state)["b2"] == 0.999
    x = params
    for n in noise:
        x, state = step(x, state, n)
    for leaf in jax.tree.leaves(x):
        assert leaf.dtype == jnp.bfloat16
        assert np.isfinite(np.asarray(leaf, np.float32)).all()


def test_factories_of_optax():
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), START)
    tx = inject_hyperparams(optax.adamw)(1e-2, mask=lambda p: jax.tree.map(jnp.ndim, p))
    state = tx.init(params)
    assert hyperparameters(state) == {
        "learning_rate": 0.01,
        "b1": 0.9,
        "b2": 0.999,
        "eps": 1e-8,
        "eps_root": 0.0,
        "weight_decay": 1e-4,
    }
    state = set_hyperparameters(state, learning_rate=0.0)
    updates, _ = tx.update(params, state, params)
    assert not any(leaf.any() for leaf in jax.tree.leaves(updates))


def test_partial_and_lambda():
    tx = inject_hyperparams(functools.partial(optjax.sgd, momentum=0.5))(0.1)
    assert hyperparameters(tx.init(START)) == {"learning_rate": 0.1, "momentum": 0.5}
    tx = inject_hyperparams(lambda rate: optjax.sgd(rate))(rate=0.25)
    assert hyperparameters(tx.init(START)) == {"rate": 0.25}


def test_factories_with_arguments_of_any_name():
    """Those that are given go to the factory as they are."""

    def various(learning_rate, *others, momentum=0.0, **more):
        assert not others
        return optax.sgd(learning_rate, momentum, **more)

    tx = inject_hyperparams(various)(0.5, momentum=0.25, nesterov=True)
    state = tx.init(START)
    assert hyperparameters(state) == {"learning_rate": 0.5, "momentum": 0.25}
    state = set_hyperparameters(state, learning_rate=0.1)
    expected = optax.sgd(0.1, 0.25, nesterov=True)
    other = expected.init(START)
    for _ in range(2):
        updates, state = tx.update(START, state, START)
        wanted, other = expected.update(START, other, START)
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-6), updates, wanted
        )


def test_factories_of_pytorch():
    tx = inject_hyperparams(optjax.pytorch.Adam)(lr=0.1)
    state = set_hyperparameters(tx.init(START), lr=0.01)
    updates, _ = tx.update(START, state, START)
    adam = optjax.pytorch.Adam(lr=0.01)
    wanted, _ = adam.update(START, adam.init(START), START)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-6), updates, wanted
    )


def test_groups_of_pytorch_with_numbers_of_their_own_are_refused():
    """Which setting the number of all would not reach."""
    groups = [{"params": "*/bias", "weight_decay": 0.0}, {"params": "*"}]
    inject = inject_hyperparams(optjax.pytorch.AdamW)
    with pytest.raises(ValueError, match=r"weight_decay=0.0 in the group of '\*/bias"):
        inject(groups, lr=0.1)
    inject = inject_hyperparams(optjax.pytorch.AdamW, static_args="weight_decay")
    x = {"a": {"bias": jnp.ones(2), "kernel": jnp.ones(2)}}
    tx = inject(groups, lr=0.1)
    state = set_hyperparameters(tx.init(x), lr=0.01)
    updates, _ = tx.update(x, state, x)
    plain = optjax.pytorch.AdamW(groups, lr=0.01)
    expected, _ = plain.update(x, plain.init(x), x)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-6), updates, expected
    )


def test_static_args():
    tx = inject_hyperparams(optjax.adam, static_args="b1")(0.1, b1=0.5)
    assert "b1" not in hyperparameters(tx.init(START))
    with pytest.raises(ValueError, match=r"got \['beta'\]; it has learning_rate, b1"):
        inject_hyperparams(optjax.adam, static_args=("beta", "b1"))


def test_schedules_are_followed_and_not_set():
    tx = inject_hyperparams(optjax.adam)(
        lambda count: 0.1 * 0.5**count, b1=lambda count: 0.9 - 0.1 * count
    )
    state = tx.init(START)
    for n in NOISE[:3]:
        _, state = tx.update(gradient(START, n), state, START)
    found = hyperparameters(state)
    np.testing.assert_allclose([found["learning_rate"], found["b1"]], [0.025, 0.7])
    with pytest.raises(ValueError, match="b1 follows a schedule and would be overw"):
        set_hyperparameters(state, b1=0.5)
    assert hyperparameters(set_hyperparameters(state, eps=0.5))["eps"] == 0.5


def test_errors_of_setting():
    state = inject_hyperparams(optjax.adam)(0.1).init(START)
    known = "it has b1, b2, eps, eps_root, learning_rate"
    with pytest.raises(ValueError, match=f"no hyper-parameter 'lr' in the .* {known}"):
        set_hyperparameters(state, lr=0.1)
    for value in (float("nan"), float("inf"), jnp.inf):
        with pytest.raises(ValueError, match="must be finite in float32, got"):
            set_hyperparameters(state, learning_rate=value)
    with pytest.raises(ValueError, match=r"must have the shape \(\) or .* got \(3,\)"):
        set_hyperparameters(state, learning_rate=np.ones(3))
    for function in (hyperparameters, set_hyperparameters):
        with pytest.raises(ValueError, match=r"Make the optimizer by.*inject_hyper"):
            function(optjax.adam(0.1).init(START))


def test_set_inside_a_compiled_function_but_read_outside():
    tx = inject_hyperparams(optjax.sgd)(0.1)

    @jit
    def halve(state, rate):
        return set_hyperparameters(state, learning_rate=0.5 * rate)

    assert hyperparameters(halve(tx.init(START), 0.5))["learning_rate"] == 0.25
    with pytest.raises(ValueError, match="Read them from the state outside of it"):
        jit(hyperparameters)(tx.init(START))


def test_partition_of_two():
    tx = optax.partition(
        {
            "a": inject_hyperparams(optjax.adam)(0.1, b1=0.5),
            "b": inject_hyperparams(optjax.sgd)(0.2, momentum=0.7),
        },
        {"matrix": "a", "vector": "b", "scalar": "a"},
    )
    state = tx.init(START)
    with pytest.raises(ValueError, match=r"differ in learning_rate, 0\.1 and 0\.2; ha"):
        hyperparameters(state)
    assert hyperparameters(state.inner_states["b"])["learning_rate"] == 0.2
    # All that have the name are set; the rest is as it was.
    both = hyperparameters(set_hyperparameters(state, learning_rate=0.4, momentum=0.6))
    assert (both["learning_rate"], both["momentum"], both["b1"]) == (0.4, 0.6, 0.5)


@pytest.mark.parametrize("wraps", ["around", "inside"])
@pytest.mark.parametrize(
    "wrap",
    [optjax.compressed, lambda tx: optjax.packed(optjax.compressed(tx))],
    ids=["compressed", "packed"],
)
def test_of_a_compressed_state(wrap, wraps):
    """Whose scales are a tree like it, with nothing in the numbers' places."""

    def made(rate):
        if wraps == "around":
            return wrap(inject_hyperparams(optjax.adabound)(learning_rate=rate))
        inside = inject_hyperparams(
            lambda learning_rate: wrap(optjax.adabound(learning_rate))
        )
        return inside(learning_rate=rate)

    x, tx = {"w": jnp.ones((64, 128)), "b": jnp.ones(3)}, made(1e-2)
    state = set_hyperparameters(tx.init(x), learning_rate=1e-3, base_lr=1e-3)
    found = hyperparameters(state)
    assert (found["learning_rate"], found["base_lr"]) == (1e-3, 1e-3)
    updates, after = tx.update(x, state, x)
    other = made(1e-3)
    expected, _ = other.update(x, other.init(x), x)
    jax.tree.map(np.testing.assert_array_equal, updates, expected)
    # An audit turns them too.
    turned = optjax.audit(tx, x, after, x)["overall"]["learning_rate"].elasticity
    assert float(turned) == pytest.approx(1.0, abs=0.01)


def test_states_of_several_trials():
    tx = inject_hyperparams(optjax.sgd)(0.1)
    params = jax.tree.map(lambda x: jnp.stack([x] * 3), START)
    states = jax.vmap(tx.init)(params)
    rates = np.array([0.1, 0.2, 0.4], np.float32)
    states = set_hyperparameters(states, learning_rate=rates)
    np.testing.assert_array_equal(hyperparameters(states)["learning_rate"], rates)
    updates, _ = jit(jax.vmap(tx.update))(params, states, params)
    np.testing.assert_allclose(
        updates["vector"], -rates[:, None] * START["vector"], rtol=1e-6
    )
    one = hyperparameters(set_hyperparameters(states, learning_rate=0.5))
    np.testing.assert_array_equal(one["learning_rate"], [0.5] * 3)


INPUTS = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32)


def test_nnx_optimizer():
    """Assigning to `opt_state` is all."""
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    tx = optjax.monitor(inject_hyperparams(optjax.adabound)(0.01), every=1)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    traces = []

    @nnx.jit
    def step(model, optimizer):
        traces.append(1)
        grads = nnx.grad(lambda m: jnp.mean(jnp.square(m(INPUTS))))(model)
        optimizer.update(model, grads)

    step(model, optimizer)
    assert hyperparameters(optimizer.opt_state)["learning_rate"] == 0.01
    optimizer.opt_state = set_hyperparameters(optimizer.opt_state, learning_rate=0.0)
    before = np.asarray(model.kernel[...])
    structure = jax.tree.structure(nnx.state(optimizer))
    step(model, optimizer)
    # The bounds are scaled with the rate: to 0.
    report = optjax.read_report(optimizer.opt_state)["overall"]
    assert report.schedule == report.upper == 0.0
    np.testing.assert_array_equal(model.kernel[...], before)
    assert hyperparameters(optimizer.opt_state)["learning_rate"] == 0.0
    assert jax.tree.structure(nnx.state(optimizer)) == structure
    assert len(traces) == 1


def test_linen_train_state():
    model = linen.Dense(2)
    traces = []

    @jit
    def step(state):
        traces.append(1)

        def loss(params):
            return jnp.mean(jnp.square(state.apply_fn({"params": params}, INPUTS)))

        return state.apply_gradients(grads=jax.grad(loss)(state.params))

    params = model.init(jax.random.key(0), INPUTS)["params"]
    tx = inject_hyperparams(optjax.sgd)(0.1)
    state = step(TrainState.create(apply_fn=model.apply, params=params, tx=tx))
    state = set_hyperparameters(state, learning_rate=0.0)
    after = step(state)
    np.testing.assert_array_equal(after.params["kernel"], state.params["kernel"])
    assert hyperparameters(after) == {"learning_rate": 0.0}
    assert len(traces) == 1
