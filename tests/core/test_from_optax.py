"""A run of Optax's optimizers goes on in ours of the same name."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optjax
from optjax import OPTIMIZERS
from optjax._places import counters, is_counter

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

PARAMS = {"a": np.array([1.0, -2.0]), "b": np.array([[0.5], [3.0]])}
DROPS = optax.piecewise_constant_schedule(0.1, {7: 0.1})
ARGUMENTS = {
    "sgd": {"momentum": 0.9, "nesterov": True},
    "adagrad": {},
    "rmsprop": {"centered": True, "momentum": 0.9},
    "adadelta": {"weight_decay": 0.01},
    "adam": {},
    "adamw": {},
    "adamax": {},
    "nadam": {},
    "nadamw": {},
    "amsgrad": {},
    "yogi": {},
    "adabelief": {},
    "radam": {},
}


@pytest.fixture(autouse=True)
def float64():
    """In float32 Optax's 1 − βᵗ has lost its digits (docs/differences.md)."""
    with jax.enable_x64(True):
        yield


def go(tx, state, params, counts):
    for k in counts:
        grads = jax.tree.map(lambda x, k=k: jnp.sin(x + k), PARAMS)
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def check(old, new, rtol=1e-7):
    start = jax.tree.map(jnp.asarray, PARAMS)
    params, state = go(old, old.init(start), start, range(5))
    ours = optjax.from_optax_state(state, new, PARAMS)
    assert jax.tree.structure(ours) == jax.tree.structure(new.init(PARAMS))
    expected, _ = go(old, state, params, range(5, 12))
    actual, _ = go(new, ours, params, range(5, 12))
    for want, got in zip(*map(jax.tree.leaves, (expected, actual)), strict=True):
        np.testing.assert_allclose(got, want, rtol=rtol)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_goes_on(name):
    arguments = {"learning_rate": DROPS, **ARGUMENTS[name]}
    check(getattr(optax, name)(**arguments), getattr(optjax, name)(**arguments))


def test_goes_on_in_a_partition():
    def parts(of):
        parts = {"x": of.adam(0.1), "y": of.sgd(0.1, momentum=0.9)}
        return optax.chain(
            optax.clip_by_global_norm(1.0), optax.partition(parts, {"a": "x", "b": "y"})
        )

    check(parts(optax), parts(optjax))


WRAPPERS = {
    # After five batches one is gathered, of two.
    "batches": lambda tx: optax.MultiSteps(tx, 2),
    "finite": lambda tx: optax.apply_if_finite(tx, 3),
    "masked": lambda tx: optax.masked(tx, {"a": True, "b": False}),
    "two averages": lambda tx: optax.chain(tx, optax.ema(0.9)),
    "two momenta": lambda tx: optax.chain(optax.trace(0.5), tx),
    "chains": lambda tx: optax.chain(optax.chain(optax.clip(1.0), tx), optax.scale(2)),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("rate", [0.1, DROPS], ids=["number", "schedule"])
@pytest.mark.parametrize("name", ["sgd", "rmsprop", "adam", "adamw"])
def test_goes_on_in_a_wrapper(name, rate, wrapper):
    def made(of):
        factory, arguments = getattr(of, name), ARGUMENTS[name]
        return WRAPPERS[wrapper](factory(learning_rate=rate, **arguments))

    check(made(optax), made(optjax))


@pytest.mark.parametrize("wrapper", [None, "batches", "chains"])
@pytest.mark.parametrize("rate", [0.1, DROPS], ids=["number", "schedule"])
@pytest.mark.parametrize("name", ARGUMENTS)
def test_injected_numbers_go_on_as_they_are(name, rate, wrapper):
    """Those that were set by hand too: no learning rate is lost on the way."""

    def made(of, dtype):
        factory = of.inject_hyperparams(getattr(of, name), hyperparam_dtype=dtype)
        tx = factory(learning_rate=rate, **ARGUMENTS[name])
        return tx if wrapper is None else WRAPPERS[wrapper](tx)

    old, new = made(optax, jnp.float64), made(optjax, jnp.float64)
    check(old, new)
    if rate == 0.1:
        state = optjax.set_hyperparameters(old.init(PARAMS), learning_rate=0.03)
        ours = optjax.from_optax_state(state, new, PARAMS)
        assert optjax.hyperparameters(ours)["learning_rate"] == pytest.approx(0.03)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (optax.adam(0.1), optjax.amsgrad(0.1), "nu_max"),
        (optax.amsgrad(0.1), optjax.adam(0.1), "nu_max"),
        (optax.sgd(0.1, momentum=0.9), optjax.sgd(0.1), "trace"),
        (optax.sgd(0.1), optjax.sgd(DROPS), "count of steps"),
        (optax.adam(0.1), optjax.compressed(optjax.adam(0.1)), "in their own storage"),
        (optax.adam(0.1), optjax.packed(optjax.adam(0.1)), "in their own storage"),
    ],
)
def test_another_is_refused(old, new, words):
    with pytest.raises(ValueError, match=words):
        optjax.from_optax_state(old.init(PARAMS), new, PARAMS)


def test_a_monitor_of_ours_has_seen_nothing_yet():
    start = jax.tree.map(jnp.asarray, PARAMS)
    old, new = optax.adam(0.1), optjax.monitor(optjax.adam(0.1), every=1)
    params, state = go(old, old.init(start), start, range(5))
    ours = optjax.from_optax_state(state, new, PARAMS)
    jax.tree.map(
        np.testing.assert_array_equal, ours.summaries, new.init(PARAMS).summaries
    )
    _, ours = go(new, ours, params, range(5, 6))
    assert optjax.read_report(ours)["overall"].step == 6


def test_other_parameters_are_refused():
    other = {"a": jnp.ones(3), "b": jnp.ones((2, 1))}
    with pytest.raises(ValueError, match=r"shape \(3,\) and the other one of \(2,\)"):
        optjax.from_optax_state(optax.adam(0.1).init(other), optjax.adam(0.1), PARAMS)


def test_what_counts_steps_is_known_by_its_name():
    """No step makes a number larger that `is_counter` does not find."""
    parts = {name: row.factory(DROPS) for name, row in OPTIMIZERS.items()}
    tx = optax.chain(*parts.values(), optax.scale_by_schedule(DROPS))
    leaves = jax.tree_util.tree_leaves_with_path(tx.init(PARAMS))
    found = {path for path, leaf in leaves if is_counter(path, leaf)}
    growing = counters(tx, PARAMS)
    assert growing <= found
    assert len({path[0] for path in growing}) > len(parts) / 2
