"""The fully connected network, for images of any size."""

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

__all__ = ["MLP"]


class MLP(nnx.Module):
    """The image's values as one row, hidden layers with ReLU, and logits.

    Args:
      image_shape: of one image, such as (28, 28, 1).
      classes: how many logits.
      hidden: the units of each hidden layer.
      dtype: of the hidden layers' computation; parameters and logits are float32.
      rngs: for the parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from optjax.tasks.models import MLP
      >>> model = MLP((28, 28, 1), 10, hidden=(128, 64), rngs=nnx.Rngs(0))
      >>> model(jnp.zeros((2, 28, 28, 1))).shape
      (2, 10)
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        classes: int,
        *,
        hidden: Sequence[int] = (256,),
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        sizes = (math.prod(image_shape), *hidden)
        self.hidden = nnx.List(
            nnx.Linear(inputs, outputs, dtype=dtype, rngs=rngs)
            for inputs, outputs in itertools.pairwise(sizes)
        )
        self.logits = nnx.Linear(sizes[-1], classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map images (n, *image_shape) to logits (n, classes)."""
        x = x.reshape(len(x), -1)
        for layer in self.hidden:
            x = nnx.relu(layer(x))
        return self.logits(x.astype(jnp.float32))
