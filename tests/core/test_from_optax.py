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


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (optax.adam(0.1), optjax.amsgrad(0.1), "nu_max"),
        (optax.amsgrad(0.1), optjax.adam(0.1), "nu_max"),
        (optax.sgd(0.1, momentum=0.9), optjax.sgd(0.1), "trace"),
        (optax.sgd(0.1), optjax.sgd(DROPS), "count of steps"),
    ],
)
def test_another_is_refused(old, new, words):
    with pytest.raises(ValueError, match=words):
        optjax.from_optax_state(old.init(PARAMS), new, PARAMS)


def test_what_counts_steps_is_known_by_its_name():
    """No step makes a number larger that `is_counter` does not find."""
    parts = {name: row.factory(DROPS) for name, row in OPTIMIZERS.items()}
    tx = optax.chain(*parts.values(), optax.scale_by_schedule(DROPS))
    leaves = jax.tree_util.tree_leaves_with_path(tx.init(PARAMS))
    found = {path for path, leaf in leaves if is_counter(path, leaf)}
    growing = counters(tx, PARAMS)
    assert growing <= found
    assert len({path[0] for path in growing}) > len(parts) / 2
