"""The digits task: 1,797 handwritten digits of 8×8 pixels, and a small network.

The images are the UCI "Optical Recognition of Handwritten Digits" test set that
scikit-learn carries in its package, so nothing is downloaded.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from optjax.sweep._trial import Factory, Metrics, Trial

PIXELS, HIDDEN, CLASSES = 64, 64, 10
VALIDATION_IMAGES = 360
BATCH_SIZE = 64
# The split belongs to the task: it is the same in every race, whatever its seeds.
SPLIT_SEED = 0


__all__ = ["MLP", "Digits", "DigitsState", "load", "trial"]


class Digits(NamedTuple):
    """The split data: images as rows of 64 standardised pixels, labels 0 to 9."""

    train_x: np.ndarray
    train_y: np.ndarray
    val_x: np.ndarray
    val_y: np.ndarray


def load() -> Digits:
    """Return 1,437 images for training and 360 for validation, split by class.

    Every pixel is shifted and scaled by its mean and standard deviation over the
    training images; a pixel that is constant there is only shifted.
    """
    x, y = load_digits(return_X_y=True)
    train_x, val_x, train_y, val_y = train_test_split(
        x, y, test_size=VALIDATION_IMAGES, stratify=y, random_state=SPLIT_SEED
    )
    scaler = StandardScaler().fit(train_x)
    return Digits(
        scaler.transform(train_x).astype(np.float32),
        train_y.astype(np.int32),
        scaler.transform(val_x).astype(np.float32),
        val_y.astype(np.int32),
    )


class MLP(nnx.Module):
    """64 pixels, 64 hidden units with ReLU, 10 logits."""

    def __init__(self, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(PIXELS, HIDDEN, rngs=rngs)
        self.logits = nnx.Linear(HIDDEN, CLASSES, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map images (n, 64) to logits (n, 10)."""
        return self.logits(nnx.relu(self.hidden(x)))


class DigitsState(NamedTuple):
    """All that one trial carries from step to step."""

    params: nnx.State
    opt_state: optax.OptState
    hyper: Mapping[str, jax.Array]
    key: jax.Array
    order: jax.Array
    updates_done: jax.Array


def trial(factory: Factory, data: Digits | None = None) -> Trial:
    """Return the training of one `MLP` on the digits by `factory(**hyper)`.

    Batches of 64 are taken from a permutation of the training images that is drawn
    anew for each epoch; the last, incomplete batch of an epoch is left out.
    """
    data = load() if data is None else data
    size = len(data.train_x)
    batches = size // BATCH_SIZE
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: MLP(nnx.Rngs(0))))

    def mean_loss_and_logits(
        params: nnx.State, x: jax.Array, y: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        logits = nnx.merge(graphdef, params)(x)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
        return jnp.mean(losses), logits

    def init(key: jax.Array, hyper: Mapping[str, jax.Array]) -> DigitsState:
        params_key, order_key = jax.random.split(key)
        params = nnx.state(MLP(nnx.Rngs(params_key)))
        return DigitsState(
            params=params,
            opt_state=factory(**hyper).init(params),
            hyper=hyper,
            key=order_key,
            order=jnp.arange(size),
            updates_done=jnp.zeros((), jnp.int32),
        )

    def step(state: DigitsState) -> tuple[DigitsState, Metrics]:
        epoch, batch = jnp.divmod(state.updates_done, batches)
        order = jax.lax.cond(
            batch == 0,
            lambda: jax.random.permutation(jax.random.fold_in(state.key, epoch), size),
            lambda: state.order,
        )
        rows = jax.lax.dynamic_slice_in_dim(order, batch * BATCH_SIZE, BATCH_SIZE)
        x, y = jnp.asarray(data.train_x)[rows], jnp.asarray(data.train_y)[rows]
        (loss, _), grads = jax.value_and_grad(mean_loss_and_logits, has_aux=True)(
            state.params, x, y
        )
        updates, opt_state = factory(**state.hyper).update(
            grads, state.opt_state, state.params
        )
        state = state._replace(
            params=optax.apply_updates(state.params, updates),
            opt_state=opt_state,
            order=order,
            updates_done=state.updates_done + 1,
        )
        return state, {"train_loss": loss}

    def evaluate(state: DigitsState) -> Metrics:
        y = jnp.asarray(data.val_y)
        loss, logits = mean_loss_and_logits(state.params, jnp.asarray(data.val_x), y)
        finite = [jnp.all(jnp.isfinite(p)) for p in jax.tree.leaves(state.params)]
        return {
            "val_loss": loss,
            "val_accuracy": jnp.mean(jnp.argmax(logits, axis=-1) == y),
            "finite": jnp.all(jnp.stack(finite)),
        }

    return Trial(init, step, evaluate)
