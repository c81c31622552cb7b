"""Image classification by the recipe of the AdaBound paper.

Luo et al., ICLR 2019: batches of 128, crops and mirror images, 200 epochs, a tenth of
the learning rate after epoch 150, L2 of 5e-4 in the gradient for every optimizer.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from optjax.sweep._epochs import Batch, epochs
from optjax.sweep._supervised import from_nnx
from optjax.sweep._trial import Factory, Trial
from optjax.tasks._augment import normalise, random_crop_and_flip
from optjax.tasks._classification import cross_entropy, evaluation
from optjax.tasks._data.images import Images, describe, load_images
from optjax.tasks._recipe import PAPER_RATES, Recipe
from optjax.tasks._task import Loaded, Settings

__all__ = ["PAPER", "task", "trial"]

PAPER = Recipe(batch_size=128, epochs=200, decay_after=150, weight_decay=5e-4)
_EVALUATION_BATCH = 500


def trial(
    factory: Factory,
    data: Images,
    make_model: Callable[..., nnx.Module],
    recipe: Recipe = PAPER,
    *,
    augment: bool = True,
    dtype: DTypeLike = jnp.float32,
) -> Trial:
    """Return the training of `make_model(...)` on images by `factory(**hyper)`.

    Args:
      factory: the optimizer's; it is called with a schedule as `learning_rate`, the
        trial's learning rate and after `recipe.decay_after` epochs a tenth of it.
      data: the images, which stay uint8 on the device.
      make_model: `make_model(image_shape, classes, dtype=..., rngs=...)`, a model of
        float32 images to logits, such as those of `optjax.tasks.models`.
      recipe: the paper's by default.
      augment: crop and mirror the training images at random.
      dtype: of the model's computation, such as jnp.bfloat16.

    Returns:
      A trial with the metrics train_loss, val_loss, val_accuracy and finite. The losses
      are cross-entropies without the L2 penalty.

    Raises:
      ValueError: where a batch is larger than the data, or the recipe's `decay_after`
        is not positive.

    Example:
      >>> import functools
      >>> import numpy as np
      >>> from optjax import sweep
      >>> from optjax.tasks import Recipe, images
      >>> from optjax.tasks._data.images import Images
      >>> from optjax.tasks.models import MLP
      >>> x, y = np.zeros((32, 4, 4, 3), np.uint8), np.zeros(32, np.int32)
      >>> trial = functools.partial(
      ...     images.trial,
      ...     data=Images(x, y, x, y, classes=2),
      ...     make_model=MLP,
      ...     recipe=Recipe(batch_size=16, epochs=3, decay_after=2),
      ... )
      >>> result = sweep.run(
      ...     trial, {"optimizer": ["adabound"], "learning_rate": [1e-3]},
      ...     steps=6, evaluate_every=2, metric="val_accuracy", seeds=1,
      ...     strategy="map", progress=False,
      ... )
      >>> len(result.records)
      1
    """

    def new_model(rngs: nnx.Rngs) -> nnx.Module:
        shape = data.train_x.shape[1:]
        return make_model(shape, data.classes, dtype=dtype, rngs=rngs)

    def prepare(key: jax.Array, batch: Batch) -> Batch:
        x, y = batch
        return normalise(random_crop_and_flip(key, x) if augment else x), y

    return from_nnx(
        new_model,
        cross_entropy,
        epochs((data.train_x, data.train_y), recipe.batch_size, prepare),
        evaluation(data.test_x, data.test_y, _EVALUATION_BATCH, normalise),
        loss_name="train_loss",
    )(recipe.applied(factory, len(data.train_x)))


def task(make_model: Callable[..., nnx.Module], settings: Settings) -> Loaded:
    """The task of a model on the user's images, by the paper's recipe.

    Raises:
      ValueError: where the images cannot be loaded, or a setting cannot be met.
    """
    data = load_images(settings.source("a folder with CIFAR-10, or hf:cifar10"))
    train_x, test_x = settings.first(data.train_x, data.test_x)
    train_y, test_y = settings.first(data.train_y, data.test_y)
    data = Images(train_x, train_y, test_x, test_y, data.classes)
    recipe = PAPER.scaled(settings)
    an_epoch = recipe.updates_an_epoch(len(data.train_x))
    return Loaded(
        functools.partial(
            trial,
            data=data,
            make_model=make_model,
            recipe=recipe,
            dtype=settings.compute_dtype(),
        ),
        f"{make_model.__name__}, {describe(data)}, {recipe}",
        PAPER_RATES,
        seeds=1,
        steps=recipe.epochs * an_epoch,
        evaluate_every=an_epoch,
        unit="images",
        units=recipe.batch_size,
        is_long=True,
        dtype=settings.dtype,
    )
