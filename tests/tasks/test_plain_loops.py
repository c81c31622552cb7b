"""The tasks' trajectories are to the bit those of loops written out plainly.

Each reference is one task's equations in a few lines, with its own use of the random
key and nothing of the tasks' code but models, augmentation and data. Both run in this
process, one operation at a time: two programs of one equation may differ in the last
bit, by what XLA fuses, but the same operations in the same order may not.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import optjax
from optjax.tasks import Recipe, digits
from optjax.tasks import images as image_task
from optjax.tasks import text as text_task
from optjax.tasks._augment import normalise, random_crop_and_flip
from optjax.tasks._data.images import Images
from optjax.tasks._data.text import Text
from optjax.tasks.models import MLP, CharLSTM, ResNet

# An operation is one program on both sides, however it is compiled.
pytestmark = pytest.mark.usefixtures("cheaply_compiled")

RESNET = functools.partial(ResNet, widths=(4,), blocks=(1,))
HEAVY_BALL = functools.partial(optjax.sgd, momentum=0.9)
RATE = jnp.float32(0.01)


def reference(model, optimizer, loss, draw, order_key, examples, batch_size, steps):
    """Losses and parameters; `draw(rows, step)` makes a batch."""
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def update(params, rest, state, rows, step):
        batch = draw(rows, step)

        def objective(params):
            trained = nnx.merge(graphdef, params, rest, copy=True)
            value = loss(trained(batch[0]), batch[1])
            return value, nnx.state(trained, nnx.Not(nnx.Param))

        (value, rest), g = jax.value_and_grad(objective, has_aux=True)(params)
        updates, state = optimizer(RATE).update(g, state, params)
        return optax.apply_updates(params, updates), rest, state, value

    state, losses = optimizer(RATE).init(params), []
    for step in range(steps):
        epoch, batch = divmod(step, examples // batch_size)
        order = jax.random.permutation(jax.random.fold_in(order_key, epoch), examples)
        rows = order[batch * batch_size : (batch + 1) * batch_size]
        params, rest, state, value = update(params, rest, state, rows, step)
        losses.append(value)
    return losses, params


def cross_entropy(logits, labels):
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return jnp.mean(losses)


def with_drop(factory, drop, *before):
    """By a tenth of the rate from update `drop` on, after other transformations."""

    def optimizer(rate):
        schedule = optax.piecewise_constant_schedule(rate, {drop: 0.1})
        return optax.chain(*before, factory(schedule))

    return optimizer


def assert_same_bits(trial, key, losses, params):
    state, ours = trial.init(key, {"learning_rate": RATE}), []
    for _ in losses:
        state, metrics = trial.step(state)
        ours.append(metrics["train_loss"])
    np.testing.assert_array_equal(np.array(ours), np.array(losses))
    leaves = zip(jax.tree.leaves(state.params), jax.tree.leaves(params), strict=True)
    for a, b in leaves:
        np.testing.assert_array_equal(a, b)
    assert len(set(map(float, losses))) == len(losses)


@pytest.mark.parametrize(("factory", "seed"), [(optjax.adam, 0), (optjax.adabound, 1)])
def test_digits(factory, seed):
    # Two updates an epoch.
    whole = digits.load()
    data = whole._replace(train_x=whole.train_x[:150], train_y=whole.train_y[:150])
    params_key, order_key = jax.random.split(jax.random.key(seed))
    expected = reference(
        digits.MLP(nnx.Rngs(params_key)),
        factory,
        cross_entropy,
        lambda rows, step: (
            jnp.asarray(data.train_x)[rows],
            jnp.asarray(data.train_y)[rows],
        ),
        order_key,
        examples=150,
        batch_size=64,
        steps=4,
    )
    assert_same_bits(digits.trial(factory, data), jax.random.key(seed), *expected)


@pytest.mark.parametrize(
    ("model", "dtype", "augment"),
    [(MLP, jnp.float32, False), (RESNET, jnp.float32, True), (MLP, jnp.bfloat16, True)],
    ids=["mlp", "resnet", "bfloat16"],
)
def test_images(model, dtype, augment):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (70, 6, 6, 3)).astype(np.uint8)
    y = rng.integers(0, 3, 70).astype(np.int32)
    params_key, batch_key = jax.random.split(jax.random.key(2))
    order_key, augment_key = jax.random.split(batch_key)

    def draw(rows, step):
        drawn = jnp.asarray(x)[rows]
        if augment:
            key = jax.random.fold_in(augment_key, step)
            drawn = random_crop_and_flip(key, drawn)
        return normalise(drawn), jnp.asarray(y)[rows]

    # Two updates an epoch, the rate a tenth from the second on.
    expected = reference(
        model((6, 6, 3), 3, dtype=dtype, rngs=nnx.Rngs(params_key)),
        with_drop(optjax.adabound, 2, optax.add_decayed_weights(0.05)),
        cross_entropy,
        draw,
        order_key,
        examples=70,
        batch_size=32,
        steps=4,
    )
    trial = image_task.trial(
        optjax.adabound,
        Images(x, y, x, y, 3),
        model,
        Recipe(32, epochs=2, decay_after=1, weight_decay=0.05),
        augment=augment,
        dtype=dtype,
    )
    assert_same_bits(trial, jax.random.key(2), *expected)


@pytest.mark.parametrize("clip_norm", [0.2, math.inf])
def test_text(clip_norm):
    ids = np.random.default_rng(0).integers(0, 5, 125).astype(np.uint8)
    params_key, order_key = jax.random.split(jax.random.key(2))

    def draw(rows, step):
        characters = jnp.asarray(ids)[rows[:, None] * 6 + jnp.arange(7)]
        return characters[:, :-1], characters[:, 1:]

    # 20 windows: two updates an epoch, the rate a tenth from the second on.
    clip = [] if clip_norm == math.inf else [optax.clip_by_global_norm(clip_norm)]
    expected = reference(
        CharLSTM(5, hidden=8, rngs=nnx.Rngs(params_key)),
        with_drop(HEAVY_BALL, 2, *clip, optax.add_decayed_weights(0.05)),
        cross_entropy,
        draw,
        order_key,
        examples=20,
        batch_size=10,
        steps=4,
    )
    trial = text_task.trial(
        HEAVY_BALL,
        Text(ids, ids, "abcde"),
        Recipe(10, epochs=2, decay_after=1, weight_decay=0.05, clip_norm=clip_norm),
        sequence_length=6,
        hidden=8,
    )
    assert_same_bits(trial, jax.random.key(2), *expected)
