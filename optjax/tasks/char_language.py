"""Predicting a text character by character with LSTMs, as a trial."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from optjax._hyperparameter import check_positive
from optjax.sweep._trial import Factory, Metrics, Trial
from optjax.tasks._data.text import Text
from optjax.tasks._epochs import batches_an_epoch, next_batch
from optjax.tasks.models.char_lstm import CharLSTM

__all__ = ["Recipe", "TextState", "steps_an_epoch", "trial"]

_EVALUATION_BATCH = 256


class Recipe(NamedTuple):
    """How to train.

    Attributes:
        batch_size: windows an update.
        sequence_length: characters that a window predicts, each from those before it
            in the window.
        epochs: how long, for the caller: `epochs * steps_an_epoch(...)` updates.
        decay_after: the epochs at the full learning rate; then it is a tenth.
        weight_decay: λ of the L2 penalty λ|x|²/2, added to the gradient as λx.
        clip_norm: the largest norm of a loss gradient, before λx is added; longer
            ones are scaled down to it. `math.inf` clips nothing.
    """

    batch_size: int = 64
    sequence_length: int = 64
    epochs: int = 40
    decay_after: int = 30
    weight_decay: float = 0.0
    clip_norm: float = 1.0


class TextState(NamedTuple):
    """All that one trial carries from step to step."""

    params: nnx.State
    opt_state: optax.OptState
    hyper: Mapping[str, jax.Array]
    key: jax.Array
    order: jax.Array
    updates_done: jax.Array


def steps_an_epoch(text: Text, recipe: Recipe) -> int:
    """How many updates an epoch has; its last, incomplete batch is left out."""
    windows = _windows(len(text.train), recipe.sequence_length, "training")
    return batches_an_epoch(windows, recipe.batch_size)


def _windows(characters: int, length: int, part: str) -> int:
    """How many windows predict `length` characters each, and no character twice."""
    if not 1 <= length < characters:
        raise ValueError(
            f"a window must predict from 1 to {characters - 1} characters, one less "
            f"than the {part} text has, got sequence_length={length}; choose a shorter "
            "window or a longer text"
        )
    return (characters - 1) // length


def trial(
    factory: Factory,
    text: Text,
    recipe: Recipe | None = None,
    *,
    layers: int = 1,
    hidden: int = 256,
    dtype: Any = jnp.float32,
) -> Trial:
    """Return the training of a `CharLSTM` on `text` by `factory(**hyper)`.

    The text is cut into windows, which are drawn in a new order in each epoch; every
    window starts from an LSTM state of zeros, in training and in validation.

    Args:
        factory: the optimizer's; it is called with a schedule as `learning_rate`, the
            trial's learning rate and after `recipe.decay_after` epochs a tenth of it.
        text: the characters' numbers.
        recipe: `Recipe()` by default.
        layers: how many LSTMs on top of each other.
        hidden: the units of each.
        dtype: of the model's products, such as jnp.bfloat16.

    Returns:
        A trial with the metrics train_loss and val_loss in nats a character,
        val_accuracy, the share of next characters that get the largest logit, and
        finite. The losses are cross-entropies without the L2 penalty.

    Example:
        >>> import functools
        >>> import numpy as np
        >>> from optjax import sweep
        >>> from optjax.tasks import char_language
        >>> from optjax.tasks._data.text import Text
        >>> ids = np.tile(np.arange(3, dtype=np.uint8), 40)
        >>> recipe = char_language.Recipe(batch_size=4, sequence_length=5)
        >>> trial = functools.partial(
        ...     char_language.trial, text=Text(ids, ids, "abc"), recipe=recipe, hidden=8
        ... )
        >>> result = sweep.run(
        ...     trial, {"optimizer": ["adabound"], "learning_rate": [1e-3]},
        ...     steps=5, evaluate_every=5, metric="val_loss", mode="min", seeds=1,
        ...     strategy="map", progress=False,
        ... )
        >>> len(result.records)
        1
    """
    recipe = Recipe() if recipe is None else recipe
    check_positive("It counts epochs", decay_after=recipe.decay_after)
    length = recipe.sequence_length
    windows = _windows(len(text.train), length, "training")
    decay_step = recipe.decay_after * steps_an_epoch(text, recipe)
    validation = _windows(len(text.validation), length, "validation")

    def new_model(key: jax.Array) -> CharLSTM:
        return CharLSTM(
            len(text.vocabulary),
            layers=layers,
            hidden=hidden,
            dtype=dtype,
            rngs=nnx.Rngs(key),
        )

    graphdef = nnx.graphdef(nnx.eval_shape(lambda: new_model(jax.random.key(0))))

    def optimizer(hyper: Mapping[str, Any]) -> optax.GradientTransformation:
        learning_rate = optax.piecewise_constant_schedule(
            hyper["learning_rate"], {decay_step: 0.1}
        )
        return optax.chain(
            optax.clip_by_global_norm(recipe.clip_norm),
            optax.add_decayed_weights(recipe.weight_decay),
            factory(**{**hyper, "learning_rate": learning_rate}),
        )

    def init(key: jax.Array, hyper: Mapping[str, jax.Array]) -> TextState:
        params_key, order_key = jax.random.split(key)
        params = nnx.state(new_model(params_key), nnx.Param)
        return TextState(
            params=params,
            opt_state=optimizer(hyper).init(params),
            hyper=hyper,
            key=order_key,
            order=jnp.arange(windows),
            updates_done=jnp.zeros((), jnp.int32),
        )

    def losses_and_hits(
        params: nnx.State, characters: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        characters = characters.astype(jnp.int32)
        known, to_come = characters[:, :-1], characters[:, 1:]
        logits = nnx.merge(graphdef, params)(known)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, to_come)
        return losses, jnp.argmax(logits, axis=-1) == to_come

    def mean_loss(params: nnx.State, characters: jax.Array) -> jax.Array:
        return jnp.mean(losses_and_hits(params, characters)[0])

    def step(state: TextState) -> tuple[TextState, Metrics]:
        order, drawn = next_batch(
            state.key, state.order, state.updates_done, recipe.batch_size
        )
        places = drawn[:, None] * length + jnp.arange(length + 1)
        loss, grads = jax.value_and_grad(mean_loss)(
            state.params, jnp.asarray(text.train)[places]
        )
        updates, opt_state = optimizer(state.hyper).update(
            grads, state.opt_state, state.params
        )
        state = state._replace(
            params=optax.apply_updates(state.params, updates),
            opt_state=opt_state,
            order=order,
            updates_done=state.updates_done + 1,
        )
        return state, {"train_loss": loss}

    def evaluate(state: TextState) -> Metrics:
        def window(number: jax.Array) -> tuple[jax.Array, jax.Array]:
            places = number * length + jnp.arange(length + 1)
            return losses_and_hits(
                state.params, jnp.asarray(text.validation)[places][None]
            )

        losses, hits = jax.lax.map(
            window, jnp.arange(validation), batch_size=_EVALUATION_BATCH
        )
        finite = [jnp.all(jnp.isfinite(p)) for p in jax.tree.leaves(state.params)]
        return {
            "val_loss": jnp.mean(losses),
            "val_accuracy": jnp.mean(hits),
            "finite": jnp.all(jnp.stack(finite)),
        }

    return Trial(init, step, evaluate)
