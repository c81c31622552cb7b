"""Predicting a text character by character with LSTMs."""

import functools

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from optjax.sweep._epochs import epochs
from optjax.sweep._supervised import from_nnx
from optjax.sweep._trial import Factory, Trial
from optjax.tasks._classification import cross_entropy, evaluation
from optjax.tasks._data.text import Text, load_text
from optjax.tasks._recipe import PAPER_RATES, Recipe
from optjax.tasks._task import Loaded, Settings
from optjax.tasks.models.char_lstm import CharLSTM

__all__ = ["RECIPE", "task", "trial"]

RECIPE = Recipe(batch_size=64, epochs=40, decay_after=30, clip_norm=1.0)
_LENGTH = 64
_EVALUATION_BATCH = 256


def trial(
    factory: Factory,
    data: Text,
    recipe: Recipe = RECIPE,
    *,
    sequence_length: int = _LENGTH,
    layers: int = 1,
    hidden: int = 256,
    dtype: DTypeLike = jnp.float32,
) -> Trial:
    """Return the training of a `CharLSTM` on a text by `factory(**hyper)`.

    The text is cut into windows, which are drawn in a new order in each epoch; every
    window starts from an LSTM state of zeros, in training and in validation.

    Args:
      factory: the optimizer's; it is called with a schedule as `learning_rate`, the
        trial's learning rate and after `recipe.decay_after` epochs a tenth of it.
      data: the characters' numbers.
      recipe: whose examples are windows.
      sequence_length: characters that a window predicts, each from those before it in
        the window.
      layers: how many LSTMs on top of each other.
      hidden: the units of each.
      dtype: of the model's products, such as jnp.bfloat16.

    Returns:
      A trial with the metrics train_loss and val_loss in nats a character,
      val_accuracy, the share of next characters that get the largest logit, and
      finite. The losses are cross-entropies without the L2 penalty.

    Raises:
      ValueError: where a window is longer than the text, a batch larger than the data,
        or the recipe's `decay_after` not positive.

    Example:
      >>> import functools
      >>> import numpy as np
      >>> from optjax import sweep
      >>> from optjax.tasks import Recipe, text
      >>> from optjax.tasks._data.text import Text
      >>> ids = np.tile(np.arange(3, dtype=np.uint8), 40)
      >>> trial = functools.partial(
      ...     text.trial,
      ...     data=Text(ids, ids, "abc"),
      ...     recipe=Recipe(batch_size=4, epochs=3, decay_after=2),
      ...     sequence_length=5,
      ...     hidden=8,
      ... )
      >>> result = sweep.run(
      ...     trial, {"optimizer": ["adabound"], "learning_rate": [1e-3]},
      ...     steps=5, evaluate_every=5, metric="val_loss", mode="min", seeds=1,
      ...     strategy="map", progress=False,
      ... )
      >>> len(result.records)
      1
    """
    known, to_come = _windows(data.train, sequence_length, "training")

    def new_model(rngs: nnx.Rngs) -> CharLSTM:
        characters = len(data.vocabulary)
        return CharLSTM(
            characters, layers=layers, hidden=hidden, dtype=dtype, rngs=rngs
        )

    return from_nnx(
        new_model,
        cross_entropy,
        epochs((known, to_come), recipe.batch_size),
        evaluation(
            *_windows(data.validation, sequence_length, "validation"), _EVALUATION_BATCH
        ),
        loss_name="train_loss",
    )(recipe.applied(factory, len(known)))


def task(layers: int, settings: Settings) -> Loaded:
    """The task of an LSTM on the user's text.

    Raises:
      ValueError: where the text cannot be loaded, or a setting cannot be met.
    """
    data = load_text(settings.source("a UTF-8 text file"))
    train, validation = settings.first(data.train, data.validation)
    data = data._replace(train=train, validation=validation)
    recipe = RECIPE.scaled(settings)
    windows = len(_windows(data.train, _LENGTH, "training")[0])
    an_epoch = recipe.updates_an_epoch(windows)
    return Loaded(
        functools.partial(
            trial,
            data=data,
            recipe=recipe,
            layers=layers,
            dtype=settings.compute_dtype(),
        ),
        f"LSTM of {layers} layer{'s' * (layers > 1)}, {len(data.train):,} + "
        f"{len(data.validation):,} characters, {recipe}",
        PAPER_RATES,
        seeds=1,
        steps=recipe.epochs * an_epoch,
        evaluate_every=an_epoch,
        unit="characters",
        units=recipe.batch_size * _LENGTH,
        is_long=True,
        dtype=settings.dtype,
    )


def _windows(
    characters: np.ndarray, length: int, part: str
) -> tuple[np.ndarray, np.ndarray]:
    """Windows of so many characters, and the characters that follow each of them.

    No character is predicted twice; what fills no window at the end is left out.
    """
    if not 1 <= length < len(characters):
        raise ValueError(
            f"a window must predict from 1 to {len(characters) - 1} characters, one "
            f"less than the {part} text has, got sequence_length={length}; choose a "
            "shorter window or a longer text"
        )
    shape = (len(characters) - 1) // length, length
    used = shape[0] * length
    return characters[:used].reshape(shape), characters[1 : used + 1].reshape(shape)
