"""Every state is a plain tree of arrays: Flax and Orbax save it, Optax maps it."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiling import jit
from flax import serialization
from flax.training import checkpoints
from flax.training.train_state import TrainState
from loop import START
from rows import ROWS

import optjax
from optjax import OPTIMIZERS

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

WRAPPERS = {
    "bare": lambda case: case.default(),
    "monitor": lambda case: optjax.monitor(case.default()),
    "monitor-all": lambda case: optjax.monitor(case.default(), groups=0),
    "monitor-leaves": lambda case: optjax.monitor(case.default(), groups=None),
    "rounding": lambda case: optjax.stochastic_rounding(case.default()),
    "inject": lambda case: optjax.inject_hyperparams(OPTIMIZERS[case.row].factory)(
        learning_rate=case.learning_rate
    ),
    "both": lambda case: optjax.monitor(optjax.stochastic_rounding(case.default())),
}
EACH = [
    *[(case, "bare") for case in ROWS],
    *[
        (case, wrapper)
        for case in ROWS
        for wrapper in WRAPPERS
        if case.row in ("adam", "adabound", "swats") and wrapper != "bare"
    ],
]
each = pytest.mark.parametrize(("case", "wrapper"), EACH, ids=str)


def filled(tx):
    """A state as a step leaves it, in its shapes and dtypes, of numbers unlike others.

    That a step changes neither is in test_dtypes and in the monitor's tests.
    """
    numbers = itertools.count(1)
    return jax.tree.map(
        lambda leaf: np.full(leaf.shape, next(numbers)).astype(leaf.dtype),
        jax.eval_shape(tx.init, START),
    )


@each
def test_flax_serialization(case, wrapper):
    tx = WRAPPERS[wrapper](case)
    state = filled(tx)
    empty = jax.tree.map(np.zeros_like, state)
    restored = serialization.from_bytes(empty, serialization.to_bytes(state))
    chex.assert_trees_all_equal(restored, state)
    assert jax.tree.structure(restored) == jax.tree.structure(state)


@each
def test_tree_map_params(case, wrapper):
    """Arrays of the parameters' shapes are mapped, and no others."""
    tx = WRAPPERS[wrapper](case)
    state = filled(tx)
    same = optax.tree_map_params(tx, lambda leaf: leaf, state)
    chex.assert_trees_all_equal(same, state)
    marked = optax.tree_map_params(
        tx, lambda leaf: True, state, transform_non_params=lambda leaf: False
    )
    of_params = sum(jax.tree.leaves(marked))
    assert of_params % len(jax.tree.leaves(START)) == 0
    assert (of_params == 0) == (case.row == "sgd")


def monitored():
    return optjax.monitor(optjax.adabound(1e-3), every=1)


def test_a_report_of_what_flax_saved(tmp_path):
    state = TrainState.create(apply_fn=None, params=START, tx=monitored())
    state = jit(lambda state: state.apply_gradients(grads=START))(state)
    expected = optjax.read_report(state)
    checkpoints.save_checkpoint(tmp_path.absolute(), state, 0)
    with_target = checkpoints.restore_checkpoint(tmp_path.absolute(), state)
    plain = serialization.to_state_dict(state)
    for report in map(optjax.read_report, (with_target, plain)):
        assert list(report) == list(expected) == [*sorted(START), "overall"]
        chex.assert_trees_all_equal(dict(report), dict(expected))


def test_a_report_of_what_orbax_restores_without_a_target(tmp_path):
    """It makes mappings of named tuples."""
    ocp = pytest.importorskip("orbax.checkpoint")
    tx = monitored()
    _, state = tx.update(START, tx.init(START), START)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "state")
    assert not isinstance(restored, tuple)
    report, expected = map(optjax.read_report, (restored, state))
    chex.assert_trees_all_equal(dict(report), dict(expected))


def test_groups_of_any_name():
    params = {"größe": jnp.ones(2), "a b": jnp.ones(1), "層": jnp.ones(3)}
    tx = optjax.monitor(optjax.sgd(0.1), every=1)
    states = jax.vmap(lambda _: tx.update(params, tx.init(params), params)[1])(
        np.arange(3)
    )
    report = optjax.read_report(states)
    assert list(report) == [*sorted(params), "overall"]
    assert report.steps.shape == (3,)
    with pytest.raises(ValueError, match="must not contain the character 0"):
        optjax.monitor(optjax.sgd(0.1), groups=lambda _: "a\0b").init(params)


def test_groups_that_do_not_fit_are_refused_while_tracing():
    tx = optjax.monitor(optjax.sgd(0.1), every=1)
    fewer = {"matrix": START["matrix"]}
    with pytest.raises(ValueError, match="monitor's state has the groups"):
        jit(tx.update)(fewer, tx.init(START), fewer)
