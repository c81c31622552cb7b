"""Image classification: the recipe against arithmetic by hand, and pure trials."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import optjax
from optjax import sweep
from optjax.tasks import Recipe
from optjax.tasks import images as task
from optjax.tasks._augment import CIFAR10_MEAN, CIFAR10_STD, normalise
from optjax.tasks._data.images import Images
from optjax.tasks.models import MLP, ResNet

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

CLASSES = 3
# Four batches an epoch, and 6 images left over; a tenth of the rate from update 8 on.
RECIPE = Recipe(batch_size=16, epochs=3, decay_after=2, weight_decay=5e-4)
LINEAR = functools.partial(MLP, hidden=())
RESNET = functools.partial(ResNet, widths=(4,), blocks=(1,))


@pytest.fixture(scope="module")
def images():
    """Noise whose colour tells the class."""
    random = np.random.default_rng(0)

    def part(n):
        y = random.integers(0, CLASSES, n).astype(np.int32)
        x = random.integers(0, 160, (n, 6, 6, 3))
        x[np.arange(n), :, :, y] += 60
        return x.astype(np.uint8), y

    return Images(*part(70), *part(23), CLASSES)


def start(trial, learning_rate=0.1, seed=0):
    return jax.jit(trial.init)(
        jax.random.key(seed), {"learning_rate": jnp.float32(learning_rate)}
    )


def arrays(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def test_the_recipe_is_the_papers():
    assert Recipe(128, 200, 150, weight_decay=5e-4) == task.PAPER
    assert task.PAPER.updates_an_epoch(examples=50_000) == 390


def test_training_is_softmax_regression_by_hand(images):
    """Weight decay is L2 for SGD, and the last four of 12 rates are a tenth."""
    recipe = RECIPE._replace(weight_decay=0.05)
    trial = task.trial(optjax.sgd, images, LINEAR, recipe, augment=False)
    state, step = start(trial), jax.jit(trial.step)
    kernel = np.asarray(state.params["logits"]["kernel"][...], np.float64)
    bias = np.asarray(state.params["logits"]["bias"][...], np.float64)
    pixels = (images.train_x / 255 - CIFAR10_MEAN) / CIFAR10_STD
    for update in range(12):
        state, metrics = step(state)
        batch = update % 4 * 16
        rows = np.asarray(state.batches.order)[batch : batch + 16]
        x, y = pixels[rows].reshape(16, -1), np.eye(CLASSES)[images.train_y[rows]]
        exponential = np.exp(x @ kernel + bias)
        probability = exponential / exponential.sum(axis=1, keepdims=True)
        loss = -np.mean(np.log((probability * y).sum(axis=1)))
        np.testing.assert_allclose(metrics["train_loss"], loss, rtol=1e-4)
        rate = 0.1 if update < 8 else 0.01
        kernel -= rate * (x.T @ (probability - y) / 16 + 0.05 * kernel)
        bias -= rate * ((probability - y).mean(axis=0) + 0.05 * bias)
    np.testing.assert_allclose(
        state.params["logits"]["kernel"][...], kernel, rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(
        state.params["logits"]["bias"][...], bias, rtol=1e-4, atol=1e-6
    )


def test_the_rate_falls_to_a_tenth_at_the_epoch(images):
    def updates(learning_rate):
        """SGD that keeps its last update in its state."""
        sgd = optax.sgd(learning_rate)

        def init(params):
            return sgd.init(params), params

        def update(gradient, state, params=None):
            ones = jax.tree.map(jnp.ones_like, gradient)
            step, inner = sgd.update(ones, state[0], params)
            return step, (inner, step)

        return optax.GradientTransformation(init, update)

    trial = task.trial(updates, images, LINEAR, RECIPE)
    state, step = start(trial, 0.25), jax.jit(trial.step)
    sizes = []
    for _ in range(10):
        state, _ = step(state)
        sizes.append({float(x) for x in arrays(state.opt_state[2][1])[0].ravel()})
    tenth = float(np.float32(0.25) * np.float32(0.1))
    assert sizes == [{-0.25}] * 8 + [{-tenth}] * 2


@pytest.mark.parametrize("name", optjax.OPTIMIZERS)
def test_every_optimizer_takes_the_schedule(images, name):
    """Traced, as the engine does; the state keeps its structure and dtypes."""
    factory = optjax.OPTIMIZERS[name].factory
    trial = task.trial(factory, images, LINEAR, RECIPE)
    before = jax.eval_shape(lambda: start(trial))
    after, metrics = jax.eval_shape(trial.step, before)
    assert before == after
    assert metrics.keys() == {"train_loss"}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_state_is_float32_whatever_the_model_computes_in(images, dtype):
    trial = task.trial(optjax.adabound, images, RESNET, RECIPE, dtype=dtype)
    before = jax.eval_shape(lambda: start(trial))
    after, metrics = jax.eval_shape(trial.step, before)
    assert before == after
    metrics = {**metrics, **jax.eval_shape(trial.evaluate, before)}
    assert {name: (leaf.shape, leaf.dtype.name) for name, leaf in metrics.items()} == {
        "train_loss": ((), "float32"),
        "val_loss": ((), "float32"),
        "val_accuracy": ((), "float32"),
        "finite": ((), "bool"),
    }
    for leaf in jax.tree.leaves((before.params, before.rest)):
        assert leaf.dtype == jnp.float32


def test_every_epoch_is_another_permutation(images):
    trial = task.trial(optjax.sgd, images, LINEAR, RECIPE)
    state, step = start(trial), jax.jit(trial.step)
    orders = []
    for _ in range(5):
        state, _ = step(state)
        orders.append(np.asarray(state.batches.order))
    for order in orders[1:4]:
        np.testing.assert_array_equal(order, orders[0])
    assert (orders[4] != orders[0]).any()
    assert np.sort(orders[0]).tolist() == np.sort(orders[4]).tolist() == list(range(70))


def test_images_are_augmented_in_bytes_and_anew_each_time(images, monkeypatch):
    seen = []

    def record(key, batch):
        seen.append((jax.random.key_data(key).tolist(), np.asarray(batch)))
        return batch

    monkeypatch.setattr(task, "random_crop_and_flip", record)
    trial = task.trial(optjax.sgd, images, LINEAR, RECIPE)
    first, other = start(trial), start(trial, seed=1)
    # The first updates of two epochs, and one with another seed.
    for state, number in ((first, 0), (first, 4), (other, 4)):
        after, _ = trial.step(state._replace(updates_done=jnp.int32(number)))
        _, batch = seen[-1]
        rows = np.asarray(after.batches.order)[:16]
        np.testing.assert_array_equal(batch, images.train_x[rows])
        assert batch.dtype == np.uint8
    keys = [key for key, _ in seen]
    assert all(keys.count(key) == 1 for key in keys)
    plain = task.trial(optjax.sgd, images, LINEAR, RECIPE, augment=False)
    plain.step(first)
    assert len(seen) == 3


def test_evaluation_is_over_all_test_images_with_running_statistics(
    images, monkeypatch
):
    monkeypatch.setattr(task, "_EVALUATION_BATCH", 10)
    trial = task.trial(optjax.sgd, images, RESNET, RECIPE)
    state, step = start(trial), jax.jit(trial.step)
    before = arrays(state.rest)
    for _ in range(3):
        state, _ = step(state)
    for old, new in zip(before, arrays(state.rest), strict=True):
        assert (old != new).any()

    model = RESNET((6, 6, 3), CLASSES, rngs=nnx.Rngs(0))
    nnx.update(model, state.params, state.rest)
    model.eval()
    logits = np.asarray(nnx.jit(lambda m, x: m(x))(model, normalise(images.test_x)))
    logits = logits.astype(np.float64)
    right = logits[np.arange(23), images.test_y]
    loss = np.mean(np.log(np.exp(logits).sum(axis=1)) - right)
    accuracy = np.mean(logits.argmax(axis=1) == images.test_y)

    metrics = jax.jit(trial.evaluate)(state)
    np.testing.assert_allclose(metrics["val_loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(metrics["val_accuracy"], accuracy, rtol=1e-6)
    assert bool(metrics["finite"])


def test_evaluate_sees_a_parameter_that_is_not_finite(images):
    trial = task.trial(optjax.sgd, images, LINEAR, RECIPE)
    state = start(trial)
    params = jax.tree.map(lambda p: p.at[(0,) * p.ndim].set(jnp.inf), state.params)
    assert not jax.jit(trial.evaluate)(state._replace(params=params))["finite"]


def sweep_of(trial, **options):
    return sweep.run(
        trial,
        {"optimizer": ["adabound"], "learning_rate": [1e-3, 1e-2]},
        **{
            "steps": 12,
            "evaluate_every": 4,
            "metric": "val_accuracy",
            "seeds": 2,
            "strategy": "map",
            "progress": False,
            **options,
        },
    )


def curves(result):
    return [record.curve.values for record in result.records]


def test_a_sweep_learns_and_goes_on_exactly_where_it_was(images, tmp_path):
    trial = functools.partial(task.trial, data=images, make_model=MLP, recipe=RECIPE)
    whole = curves(sweep_of(trial))
    assert max(values["val_accuracy"][-1] for values in whole) > 0.9
    assert len({values["val_loss"] for values in whole}) == 4

    calls = []

    def interrupt(status):
        calls.append(status)
        if len(calls) == 3:
            raise KeyboardInterrupt

    options = {"lanes": 1, "checkpoint_seconds": 0.0, "out": tmp_path / "sweep"}
    with pytest.raises(sweep.Interrupted) as stopped:
        sweep_of(trial, progress=interrupt, **options)
    assert len(stopped.value.result.records) < 4
    assert curves(sweep_of(trial, **options)) == whole


def test_several_networks_at_once_train_as_each_alone(images):
    trial = task.trial(optjax.adabound, images, RESNET, RECIPE)
    alone = [start(trial, rate, seed=seed) for seed, rate in enumerate((0.01, 0.1))]
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone)

    def run(state):
        state, metrics = trial.step(state)
        return {**metrics, **trial.evaluate(state)}

    at_once, one = jax.jit(jax.vmap(run))(together), jax.jit(run)
    for number, state in enumerate(alone):
        for name, value in one(state).items():
            np.testing.assert_allclose(at_once[name][number], value, rtol=1e-4)


def test_a_batch_larger_than_the_data_is_named(images):
    with pytest.raises(ValueError, match=r"from 1 to 70 examples.*batch_size=71"):
        task.trial(optjax.sgd, images, LINEAR, RECIPE._replace(batch_size=71))
    with pytest.raises(ValueError, match=r"decay_after must be positive.*got 0"):
        task.trial(optjax.sgd, images, LINEAR, RECIPE._replace(decay_after=0))
