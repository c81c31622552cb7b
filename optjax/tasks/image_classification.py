"""Image classification by the recipe of the AdaBound paper, as a trial.

Luo et al., ICLR 2019: batches of 128, crops and mirror images, 200 epochs, a tenth of
the learning rate after epoch 150, L2 of 5e-4 in the gradient for every optimizer.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from optjax._hyperparameter import check_positive
from optjax.sweep._trial import Factory, Metrics, Trial
from optjax.tasks._augment import normalise, random_crop_and_flip
from optjax.tasks._data.images import Images
from optjax.tasks._epochs import batches_an_epoch, next_batch

__all__ = ["ImageState", "Recipe", "steps_an_epoch", "trial"]

_EVALUATION_BATCH = 500


class Recipe(NamedTuple):
    """How to train; the paper's by default.

    Attributes:
        batch_size: images an update.
        epochs: how long, for the caller: `epochs * steps_an_epoch(...)` updates.
        decay_after: the epochs at the full learning rate; then it is a tenth.
        weight_decay: λ of the L2 penalty λ|x|²/2, added to the gradient as λx.
        augment: crop and mirror the training images at random.
    """

    batch_size: int = 128
    epochs: int = 200
    decay_after: int = 150
    weight_decay: float = 5e-4
    augment: bool = True


class ImageState(NamedTuple):
    """All that one trial carries from step to step.

    `rest` is what the model changes itself: the batch statistics.
    """

    params: nnx.State
    rest: nnx.State
    opt_state: optax.OptState
    hyper: Mapping[str, jax.Array]
    key: jax.Array
    order: jax.Array
    updates_done: jax.Array


def steps_an_epoch(images: Images, recipe: Recipe) -> int:
    """How many updates an epoch has; its last, incomplete batch is left out."""
    return batches_an_epoch(len(images.train_x), recipe.batch_size)


def trial(
    factory: Factory,
    images: Images,
    make_model: Callable[..., nnx.Module],
    recipe: Recipe | None = None,
    *,
    dtype: Any = jnp.float32,
) -> Trial:
    """Return the training of `make_model(...)` on `images` by `factory(**hyper)`.

    Args:
        factory: the optimizer's; it is called with a schedule as `learning_rate`, the
            trial's learning rate and after `recipe.decay_after` epochs a tenth of it.
        images: the data, which stay uint8 on the device.
        make_model: `make_model(image_shape, classes, dtype=..., rngs=...)`, a model of
            float32 images to logits, such as those of `optjax.tasks.models`.
        recipe: the paper's by default.
        dtype: of the model's computation, such as jnp.bfloat16.

    Returns:
        A trial with the metrics train_loss, val_loss, val_accuracy and finite. The
        losses are cross-entropies without the L2 penalty.

    Example:
        >>> import functools
        >>> import numpy as np
        >>> from optjax import sweep
        >>> from optjax.tasks import image_classification
        >>> from optjax.tasks._data.images import Images
        >>> from optjax.tasks.models import MLP
        >>> x, y = np.zeros((32, 4, 4, 3), np.uint8), np.zeros(32, np.int32)
        >>> images = Images(x, y, x, y, classes=2)
        >>> recipe = image_classification.Recipe(batch_size=16, decay_after=2)
        >>> trial = functools.partial(
        ...     image_classification.trial,
        ...     images=images, make_model=MLP, recipe=recipe,
        ... )
        >>> result = sweep.run(
        ...     trial, {"optimizer": ["adabound"], "learning_rate": [1e-3]},
        ...     steps=6, evaluate_every=2, metric="val_accuracy", seeds=1,
        ...     strategy="map", progress=False,
        ... )
        >>> len(result.records)
        1
    """
    recipe = Recipe() if recipe is None else recipe
    check_positive("It counts epochs", decay_after=recipe.decay_after)
    decay_step = recipe.decay_after * steps_an_epoch(images, recipe)

    def new_model(key: jax.Array) -> nnx.Module:
        shape, rngs = images.train_x.shape[1:], nnx.Rngs(key)
        return make_model(shape, images.classes, dtype=dtype, rngs=rngs)

    graphdef = nnx.graphdef(nnx.eval_shape(lambda: new_model(jax.random.key(0))))

    def model_of(params: nnx.State, rest: nnx.State) -> Any:
        # Copies, as Flax forbids changing variables made outside a transformation.
        return nnx.merge(graphdef, params, rest, copy=True)

    def optimizer(hyper: Mapping[str, Any]) -> optax.GradientTransformation:
        learning_rate = optax.piecewise_constant_schedule(
            hyper["learning_rate"], {decay_step: 0.1}
        )
        return optax.chain(
            optax.add_decayed_weights(recipe.weight_decay),
            factory(**{**hyper, "learning_rate": learning_rate}),
        )

    def init(key: jax.Array, hyper: Mapping[str, jax.Array]) -> ImageState:
        params_key, batch_key = jax.random.split(key)
        model = new_model(params_key)
        params = nnx.state(model, nnx.Param)
        return ImageState(
            params=params,
            rest=nnx.state(model, nnx.Not(nnx.Param)),
            opt_state=optimizer(hyper).init(params),
            hyper=hyper,
            key=batch_key,
            order=jnp.arange(len(images.train_x)),
            updates_done=jnp.zeros((), jnp.int32),
        )

    def mean_loss(
        params: nnx.State, rest: nnx.State, x: jax.Array, y: jax.Array
    ) -> tuple[jax.Array, nnx.State]:
        model = model_of(params, rest)
        model.train()
        losses = optax.softmax_cross_entropy_with_integer_labels(model(x), y)
        return jnp.mean(losses), nnx.state(model, nnx.Not(nnx.Param))

    def step(state: ImageState) -> tuple[ImageState, Metrics]:
        order_key, augment_key = jax.random.split(state.key)
        order, drawn = next_batch(
            order_key, state.order, state.updates_done, recipe.batch_size
        )
        x, y = jnp.asarray(images.train_x)[drawn], jnp.asarray(images.train_y)[drawn]
        if recipe.augment:
            x = random_crop_and_flip(
                jax.random.fold_in(augment_key, state.updates_done), x
            )
        (loss, rest), grads = jax.value_and_grad(mean_loss, has_aux=True)(
            state.params, state.rest, normalise(x), y
        )
        updates, opt_state = optimizer(state.hyper).update(
            grads, state.opt_state, state.params
        )
        state = state._replace(
            params=optax.apply_updates(state.params, updates),
            rest=rest,
            opt_state=opt_state,
            order=order,
            updates_done=state.updates_done + 1,
        )
        return state, {"train_loss": loss}

    def evaluate(state: ImageState) -> Metrics:
        model = model_of(state.params, state.rest)
        model.eval()

        def loss_and_hit(test: tuple[jax.Array, jax.Array]) -> Any:
            x, y = test
            logits = model(normalise(x[None]))[0]
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, y)
            return loss, jnp.argmax(logits) == y

        losses, hits = jax.lax.map(
            loss_and_hit,
            (jnp.asarray(images.test_x), jnp.asarray(images.test_y)),
            batch_size=_EVALUATION_BATCH,
        )
        finite = [jnp.all(jnp.isfinite(p)) for p in jax.tree.leaves(state.params)]
        return {
            "val_loss": jnp.mean(losses),
            "val_accuracy": jnp.mean(hits),
            "finite": jnp.all(jnp.stack(finite)),
        }

    return Trial(init, step, evaluate)
