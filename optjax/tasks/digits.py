"""The digits task: 1,797 handwritten digits of 8×8 pixels, and a small network.

The images are the UCI "Optical Recognition of Handwritten Digits" test set that
scikit-learn carries in its package, so nothing is downloaded.
"""

import functools
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from optjax.sweep._epochs import epochs
from optjax.sweep._supervised import from_nnx
from optjax.sweep._trial import Factory, Trial
from optjax.tasks._classification import cross_entropy, evaluation
from optjax.tasks._task import Loaded, Settings

__all__ = ["MLP", "Digits", "load", "task", "trial"]

PIXELS, HIDDEN, CLASSES = 64, 64, 10
VALIDATION_IMAGES = 360
BATCH_SIZE = 64
# The split belongs to the task: it is the same in every race, whatever its seeds.
SPLIT_SEED = 0


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


def trial(factory: Factory, data: Digits | None = None) -> Trial:
    """Return the training of one `MLP` on the digits by `factory(**hyper)`.

    Batches of 64 are taken from a permutation of the training images that is drawn
    anew for each epoch; the last, incomplete batch of an epoch is left out.
    """
    data = load() if data is None else data
    return from_nnx(
        MLP,
        cross_entropy,
        epochs((data.train_x, data.train_y), BATCH_SIZE),
        evaluation(data.val_x, data.val_y, batch_size=len(data.val_x)),
        loss_name="train_loss",
    )(factory)


def task(settings: Settings) -> Loaded:
    """The task, which has its own data and batches.

    Raises:
      ValueError: for any setting.
    """
    for name in settings.given:
        raise ValueError(
            f"the task digits has its own data and batches and takes no {name}=; "
            "set steps=, or choose another task"
        )
    return Loaded(
        functools.partial(trial, data=load()),
        "1,437 + 360 images of 8×8 pixels, MLP 64-64-10",
        target=0.95,
    )
