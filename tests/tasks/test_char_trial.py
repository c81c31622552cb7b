"""The character language model: windows, clipping, schedule, and a pure trial."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import optjax
from optjax import sweep
from optjax.tasks import Recipe
from optjax.tasks import text as task
from optjax.tasks._data.text import Text
from optjax.tasks.models import CharLSTM

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

# 20 windows of 6: five batches an epoch. A tenth of the rate from update 10 on.
RECIPE = Recipe(batch_size=4, epochs=3, decay_after=2, clip_norm=1.0)
VOCABULARY = "abcde"


@pytest.fixture(scope="module")
def text():
    """Counting, with an error here and there; the last 4 characters fill no window."""
    random = np.random.default_rng(0)

    def part(n):
        ids = np.arange(n) % 5
        ids[random.random(n) < 0.05] = 0
        return ids.astype(np.uint8)

    return Text(part(125), part(40), VOCABULARY)


def start(trial, learning_rate=0.1, seed=0):
    return jax.jit(trial.init)(
        jax.random.key(seed), {"learning_rate": jnp.float32(learning_rate)}
    )


def make_trial(factory, text, recipe=RECIPE, **options):
    return task.trial(
        factory, text, recipe, **{"sequence_length": 6, "hidden": 8, **options}
    )


def arrays(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


@nnx.jit
def losses_and_guesses(model, ids):
    logits = model(ids[:, :-1].astype(jnp.int32))
    chosen = jnp.take_along_axis(logits, ids[:, 1:, None].astype(jnp.int32), axis=-1)
    losses = jax.nn.logsumexp(logits, axis=-1) - chosen[..., 0]
    return losses, jnp.argmax(logits, axis=-1)


@nnx.jit
def loss_and_gradient(model, ids):
    return nnx.value_and_grad(lambda m: jnp.mean(losses_and_guesses(m, ids)[0]))(model)


def model_of(state):
    model = CharLSTM(5, hidden=8, rngs=nnx.Rngs(0))
    nnx.update(model, state.params)
    return model


def windows(ids, count):
    """Of 6 characters and the next, where a window's last is its successor's first."""
    return np.stack([ids[6 * i : 6 * i + 7] for i in range(count)])


@pytest.mark.parametrize(("characters", "windows"), [(125, 20), (121, 20), (120, 19)])
def test_windows_of_an_epoch(text, characters, windows):
    """121 characters are 120 predictions; one less and the twentieth is gone."""
    trial = make_trial(optax.sgd, text._replace(train=text.train[:characters]))
    state = jax.eval_shape(lambda: start(trial))
    assert state.batches.order.size == windows


def test_training_is_by_hand_what_it_is(text):
    """Clipped, then decayed; a tenth of the rate after two epochs; whole epochs."""
    recipe = RECIPE._replace(weight_decay=0.05, clip_norm=0.2)
    trial = make_trial(optax.sgd, text, recipe)
    state, step = start(trial, 0.5), jax.jit(trial.step)
    model, cut = model_of(state), windows(text.train, 20)

    params, drawn, norms = arrays(state.params), [], []
    for update in range(12):
        state, metrics = step(state)
        first = update % 5 * 4
        rows = np.asarray(state.batches.order)[first : first + 4]
        drawn += rows.tolist()
        loss, grads = loss_and_gradient(model, cut[rows])
        np.testing.assert_allclose(metrics["train_loss"], loss, rtol=1e-4)
        grads = arrays(grads)
        norm = math.sqrt(sum(float(np.sum(g.astype(np.float64) ** 2)) for g in grads))
        norms.append(norm)
        scale = min(1.0, 0.2 / norm)
        rate = 0.5 if update < 10 else 0.05
        params = [
            p - rate * (scale * g + 0.05 * p)
            for p, g in zip(params, grads, strict=True)
        ]
        treedef = jax.tree.structure(state.params)
        nnx.update(model, treedef.unflatten([jnp.asarray(p) for p in params]))
    # Both sides of the limit were seen.
    assert min(norms) < 0.2 < max(norms)
    assert sorted(drawn[: 5 * 4]) == sorted(drawn[5 * 4 : 10 * 4]) == list(range(20))
    assert drawn[:20] != drawn[20:40]
    for ours, theirs in zip(arrays(state.params), params, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


def test_an_infinite_limit_clips_nothing(text):
    free = RECIPE._replace(clip_norm=math.inf)
    trial = make_trial(optax.sgd, text, free)
    state = start(trial, 1.0)
    model, before = model_of(state), arrays(state.params)
    state, _ = jax.jit(trial.step)(state)
    ids = windows(text.train, 20)[np.asarray(state.batches.order)[:4]]
    # Along the gradient, a step with a rate of 1 is as long as the loss is steep.
    steps = [new - old for new, old in zip(arrays(state.params), before, strict=True)]
    _, gradient = loss_and_gradient(model, ids)
    for step, g in zip(steps, arrays(gradient), strict=True):
        np.testing.assert_allclose(step, -g, rtol=1e-3, atol=1e-5)


def test_evaluation_is_over_all_windows(text, monkeypatch):
    monkeypatch.setattr(task, "_EVALUATION_BATCH", 4)
    trial = make_trial(optax.sgd, text)
    state = start(trial)
    # (40 − 1) // 6 windows, in batches of 4 and 2.
    cut = windows(text.validation, 6)
    losses, guesses = losses_and_guesses(model_of(state), cut)
    metrics = jax.jit(trial.evaluate)(state)
    np.testing.assert_allclose(metrics["val_loss"], np.mean(losses), rtol=1e-5)
    np.testing.assert_allclose(
        metrics["val_accuracy"], np.mean(guesses == cut[:, 1:]), rtol=1e-6
    )
    assert 0 < metrics["val_accuracy"] < 1
    assert bool(metrics["finite"])
    params = jax.tree.map(lambda p: p.at[(0,) * p.ndim].set(jnp.inf), state.params)
    assert not jax.jit(trial.evaluate)(state._replace(params=params))["finite"]


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_state_and_metrics_keep_their_dtypes(text, layers, dtype):
    trial = make_trial(optjax.adabound, text, layers=layers, dtype=dtype)
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
    assert {leaf.dtype.name for leaf in jax.tree.leaves(before.params)} == {"float32"}


def test_a_sweep_learns_and_is_deterministic(text):
    trial = functools.partial(
        task.trial, data=text, recipe=RECIPE, sequence_length=6, hidden=16
    )

    def curves():
        result = sweep.run(
            trial,
            {"optimizer": ["amsbound"], "learning_rate": [1e-2, 3e-2]},
            steps=40,
            evaluate_every=10,
            metric="val_accuracy",
            seeds=2,
            strategy="map",
            progress=False,
        )
        return [record.curve.values for record in result.records]

    first = curves()
    assert max(values["val_accuracy"][-1] for values in first) > 0.8
    assert len({values["val_loss"] for values in first}) == 4
    assert first == curves()


def test_a_text_that_is_too_short_is_named(text):
    with pytest.raises(ValueError, match=r"from 1 to 39 .*validation.*_length=40"):
        make_trial(optax.sgd, text, RECIPE._replace(batch_size=1), sequence_length=40)
    with pytest.raises(ValueError, match=r"from 1 to 20 examples.*batch_size=21"):
        make_trial(optax.sgd, text, RECIPE._replace(batch_size=21))
    with pytest.raises(ValueError, match=r"decay_after must be positive.*got 0"):
        make_trial(optax.sgd, text, RECIPE._replace(decay_after=0))
