"""The digits task: the split is fixed, disjoint and stratified; the trial is pure."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

import optjax
from optjax.tasks import TASKS, digits

pytestmark = pytest.mark.usefixtures("cheaply_compiled")


@pytest.fixture(scope="module")
def data():
    return digits.load()


@pytest.fixture(scope="module")
def trial(data):
    return digits.trial(optjax.adam, data)


@pytest.fixture(scope="module")
def step(trial):
    return jax.jit(trial.step)


@pytest.fixture(scope="module")
def init(trial):
    return jax.jit(trial.init)


def start(init, seed=0, learning_rate=0.01):
    return init(jax.random.key(seed), {"learning_rate": jnp.float32(learning_rate)})


def test_split_is_a_partition(data):
    assert data.train_x.shape == (1437, 64)
    assert data.val_x.shape == (360, 64)
    # All 1,797 images differ, so a repeated row would be an image in both parts.
    both = np.concatenate([data.train_x, data.val_x])
    assert len(np.unique(both, axis=0)) == 1797
    every_label = np.concatenate([data.train_y, data.val_y])
    _, labels = load_digits(return_X_y=True)
    assert np.bincount(every_label).tolist() == np.bincount(labels).tolist()


def test_split_is_stratified(data):
    share = np.bincount(data.val_y) / np.bincount(
        np.concatenate([data.train_y, data.val_y])
    )
    # Of 174 to 183 images a class, a fifth within one image.
    np.testing.assert_allclose(share, 360 / 1797, atol=1 / 174)


def test_split_is_fixed(data):
    np.random.seed(12345)
    again = digits.load()
    for ours, theirs in zip(data, again, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert data.val_y[:10].tolist() == [7, 6, 3, 7, 7, 3, 2, 8, 9, 3]


def test_pixels_are_standardised_by_the_training_images_alone(data):
    np.testing.assert_allclose(data.train_x.mean(axis=0), 0, atol=1e-5)
    constant = data.train_x.std(axis=0) == 0
    np.testing.assert_allclose(data.train_x.std(axis=0)[~constant], 1, atol=1e-4)
    assert 0 < constant.sum() < 10
    assert np.abs(data.val_x.mean(axis=0)).max() > 0.01
    assert data.train_x.dtype == data.val_x.dtype == np.float32


def test_trial_learns(trial, init, step):
    evaluate = jax.jit(trial.evaluate)
    state = start(init)
    before = evaluate(state)
    assert 0 < before["val_accuracy"] < 0.35
    for _ in range(60):
        state, metrics = step(state)
    after = evaluate(state)
    assert after["val_accuracy"] > 0.9
    assert after["val_loss"] < before["val_loss"]
    assert metrics["train_loss"] < 0.5
    assert bool(after["finite"])


def test_evaluate_sees_a_parameter_that_is_not_finite(trial, init):
    state = start(init)
    params = jax.tree.map(lambda p: p.at[(0,) * p.ndim].set(jnp.inf), state.params)
    assert not jax.jit(trial.evaluate)(state._replace(params=params))["finite"]


def test_seed_decides_parameters_and_batches(init, step):
    def run(seed, learning_rate):
        state = start(init, seed, learning_rate)
        first = jax.tree.leaves(state.params)
        state, _ = step(state)
        return first, np.asarray(state.batches.order)

    params, order = run(0, 0.01)
    same_params, same_order = run(0, 0.1)
    other_params, other_order = run(1, 0.01)
    for a, b in zip(params, same_params, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(order, same_order)
    assert any((a != b).any() for a, b in zip(params, other_params, strict=True))
    assert (order != other_order).any()


def test_every_epoch_is_another_permutation(init, step):
    state = start(init)
    batches = 1437 // digits.BATCH_SIZE
    orders = []
    for _ in range(batches + 1):
        state, _ = step(state)
        orders.append(np.asarray(state.batches.order))
    first, last_of_first, second = orders[0], orders[batches - 1], orders[batches]
    np.testing.assert_array_equal(first, last_of_first)
    assert (first != second).any()
    assert np.sort(first).tolist() == np.sort(second).tolist() == list(range(1437))


def test_state_keeps_its_structure_and_dtypes(trial, init):
    before = jax.eval_shape(lambda: start(trial.init))
    after, _ = jax.eval_shape(trial.step, before)
    assert before == after


def test_registry_loads_the_task():
    make_trial = TASKS["digits"].load().make_trial
    shapes = jax.eval_shape(
        lambda: make_trial(optjax.sgd).init(
            jax.random.key(0), {"learning_rate": jnp.float32(0.1)}
        )
    )
    assert {leaf.shape for leaf in jax.tree.leaves(shapes.params)} == {
        (64, 64),
        (64,),
        (64, 10),
        (10,),
    }
