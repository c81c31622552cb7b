"""Classification: the cross-entropy that trains, and what is measured of a model."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optjax.sweep._epochs import Batch
from optjax.sweep._trial import Metrics


def cross_entropy(logits: jax.Array, batch: Batch) -> jax.Array:
    """−log softmax(logits)[label], the mean over all of the batch's labels."""
    return jnp.mean(_cross_entropies(logits, batch[1]))


def evaluation(
    inputs: np.ndarray,
    labels: np.ndarray,
    batch_size: int,
    prepare: Callable[[jax.Array], jax.Array] = jnp.asarray,
) -> Callable[[Callable[..., jax.Array]], Metrics]:
    """`evaluate(predict)`: the loss and the accuracy over all examples.

    Args:
      inputs: of the model, examples first.
      labels: one or more an example.
      batch_size: examples in the model at a time.
      prepare: what is done to the inputs first.
    """

    def evaluate(predict: Callable[..., jax.Array]) -> Metrics:
        def measure(
            example: tuple[jax.Array, jax.Array],
        ) -> tuple[jax.Array, jax.Array]:
            x, y = example
            logits = predict(prepare(x[None]))[0]
            return _cross_entropies(logits, y), jnp.argmax(logits, axis=-1) == y

        examples = jnp.asarray(inputs), jnp.asarray(labels)
        losses, hits = jax.lax.map(measure, examples, batch_size=batch_size)
        return {"val_loss": jnp.mean(losses), "val_accuracy": jnp.mean(hits)}

    return evaluate


_cross_entropies = optax.softmax_cross_entropy_with_integer_labels
