"""Epochs of arrays: every example once, in a new order, prepared anew; and sources."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from optjax import sweep

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

X = np.arange(10, dtype=np.float32)[:, None]


def drawn(batches, steps, key=0):
    carried, found = batches.init(jax.random.key(key)), []
    draw = jax.jit(batches.draw)
    for step in range(steps):
        carried, batch = draw(carried, step)
        found.append([np.asarray(part) for part in batch])
    return found


def test_every_example_once_an_epoch_in_another_order():
    found = drawn(sweep.epochs((X, -X), 5), steps=4)
    for x, y in found:
        assert x.shape == (5, 1)
        np.testing.assert_array_equal(x, -y)
    first, second = (
        np.concatenate([x for x, _ in half]).ravel() for half in (found[:2], found[2:])
    )
    assert sorted(first) == sorted(second) == list(range(10))
    assert (first != second).any()
    other = drawn(sweep.epochs((X,), 5), steps=1, key=1)
    assert (other[0][0] != found[0][0]).any()


def test_preparation_has_a_new_key_at_every_update():
    def prepare(key, batch):
        (x,) = batch
        return x, jax.random.normal(key, x.shape)

    found = drawn(sweep.epochs((X,), 10, prepare), steps=3)
    noise = [tuple(y.ravel()) for _, y in found]
    assert len(set(noise)) == 3
    assert sorted(found[0][0].ravel()) == list(range(10))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((X, X[:3]), 2), "equally many examples"),
        ((X, 2), "a tuple of arrays"),
        (((), 2), "a tuple of arrays"),
        (((X,), 11), "from 1 to 10 examples.*batch_size=11"),
        (((X,), 2, lambda batch: batch), "prepare must be .* function"),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        sweep.epochs(*arguments)


def test_a_source_of_ones_own_carries_what_it_likes():
    """A counter that the batches are made of."""
    batches = sweep.Batches(
        lambda key: jnp.zeros(()),
        lambda count, step: (count + 2, (jnp.full((1, 1), count),)),
    )
    trial = sweep.from_nnx(
        lambda rngs: nnx.Linear(1, 1, rngs=rngs),
        lambda outputs, batch: jnp.sum(batch[0]) + 0 * jnp.sum(outputs),
        batches,
        loss_name="counted",
    )(optax.sgd)
    state = jax.jit(trial.init)(jax.random.key(0), {"learning_rate": jnp.float32(0.1)})
    step = jax.jit(trial.step)
    for expected in (0, 2, 4):
        state, metrics = step(state)
        assert metrics == {"counted": expected}
    with pytest.raises(ValueError, match=r"batch must be .* or Batches"):
        sweep.from_nnx(nnx.Linear, lambda outputs, batch: 0.0, (1, 2))


def test_a_parameter_that_is_not_finite_is_seen():
    trial = sweep.from_nnx(
        lambda rngs: nnx.Linear(1, 1, rngs=rngs),
        lambda outputs, batch: jnp.mean(outputs),
        sweep.epochs((X,), 5),
    )(optax.sgd)
    state = trial.init(jax.random.key(0), {"learning_rate": jnp.float32(0.1)})
    assert trial.evaluate(state) == {"finite": True}
    params = jax.tree.map(lambda p: p.at[0].set(jnp.inf), state.params)
    assert trial.evaluate(state._replace(params=params)) == {"finite": False}
