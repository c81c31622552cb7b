"""Densely connected networks for small images: Huang et al., CVPR 2017, 3×3 stem."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from optjax.tasks.models._layers import (
    batch_norm,
    classifier,
    convolution,
    global_average,
)

__all__ = ["DenseNet", "densenet121"]


class DenseLayer(nnx.Module):
    """`growth` new channels beside those that came in.

    The new ones are made by a 1×1 convolution to 4 × growth channels, the bottleneck,
    and a 3×3 one; each is preceded by normalisation and ReLU.
    """

    def __init__(self, inputs: int, growth: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.norm1 = batch_norm(inputs, dtype, rngs)
        self.conv1 = convolution(inputs, 4 * growth, 1, 1, dtype, rngs)
        self.norm2 = batch_norm(4 * growth, dtype, rngs)
        self.conv2 = convolution(4 * growth, growth, 3, 1, dtype, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (n, h, w, inputs) to (n, h, w, inputs + growth)."""
        y = self.conv1(nnx.relu(self.norm1(x)))
        y = self.conv2(nnx.relu(self.norm2(y)))
        return jnp.concatenate([x, y], axis=-1)


class Transition(nnx.Module):
    """Fewer channels by a 1×1 convolution, and half the height and width."""

    def __init__(self, inputs: int, outputs: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.norm = batch_norm(inputs, dtype, rngs)
        self.conv = convolution(inputs, outputs, 1, 1, dtype, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (n, h, w, inputs) to (n, h / 2, w / 2, outputs)."""
        x = self.conv(nnx.relu(self.norm(x)))
        y: jax.Array = nnx.avg_pool(x, (2, 2), strides=(2, 2))
        return y


class DenseNet(nnx.Module):
    """A 3×3 stem, dense blocks with transitions between, the mean, and logits.

    Args:
      image_shape: of one image: (height, width, channels).
      classes: how many logits.
      growth: the channels that each layer adds; the stem has twice as many.
      blocks: the layers of each dense block.
      compression: the share of the channels that a transition keeps.
      dtype: of the computation; parameters, statistics and logits are float32.
      rngs: for the parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from optjax.tasks.models import DenseNet
      >>> model = DenseNet((8, 8, 3), 10, growth=4, blocks=(1, 1), rngs=nnx.Rngs(0))
      >>> model(jnp.zeros((2, 8, 8, 3))).shape
      (2, 10)
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        classes: int,
        *,
        growth: int,
        blocks: Sequence[int],
        compression: float = 0.5,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        channels = 2 * growth
        self.stem = convolution(image_shape[-1], channels, 3, 1, dtype, rngs)
        self.layers: nnx.List[nnx.Module] = nnx.List([])
        for block, count in enumerate(blocks):
            if block > 0:
                kept = int(channels * compression)
                self.layers.append(Transition(channels, kept, dtype=dtype, rngs=rngs))
                channels = kept
            for _ in range(count):
                self.layers.append(DenseLayer(channels, growth, dtype=dtype, rngs=rngs))
                channels += growth
        self.norm = batch_norm(channels, dtype, rngs)
        self.logits = classifier(channels, classes, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map images (n, *image_shape) to logits (n, classes)."""
        x = self.stem(x)
        for layer in self.layers:
            x = layer(x)
        return self.logits(global_average(nnx.relu(self.norm(x))))


def densenet121(
    image_shape: Sequence[int],
    classes: int,
    *,
    dtype: DTypeLike = jnp.float32,
    rngs: nnx.Rngs,
) -> DenseNet:
    """DenseNet-121: growth 32, blocks of 6, 12, 24 and 16 layers.

    It has 6,956,298 parameters for 32×32×3 images of 10 classes. Arguments as
    `DenseNet`'s.

    Example:
      >>> from flax import nnx
      >>> from optjax.tasks.models import densenet121
      >>> model = nnx.eval_shape(
      ...     lambda: densenet121((32, 32, 3), 10, rngs=nnx.Rngs(0))
      ... )
      >>> len(model.layers)
      61
    """
    return DenseNet(
        image_shape,
        classes,
        growth=32,
        blocks=(6, 12, 24, 16),
        dtype=dtype,
        rngs=rngs,
    )
