"""Residual networks for small images: He et al., CVPR 2016, with a 3×3 stem."""

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

__all__ = ["ResNet", "resnet8", "resnet34"]


class BasicBlock(nnx.Module):
    """ReLU(shortcut(x) + F(x)), with F two 3×3 convolutions, each normalised.

    The shortcut is the identity, or a 1×1 convolution where the shape changes.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        *,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.conv1 = convolution(inputs, outputs, 3, stride, dtype, rngs)
        self.norm1 = batch_norm(outputs, dtype, rngs)
        self.conv2 = convolution(outputs, outputs, 3, 1, dtype, rngs)
        self.norm2 = batch_norm(outputs, dtype, rngs)
        self.shortcut: nnx.List[nnx.Module] = nnx.List([])
        if stride != 1 or inputs != outputs:
            self.shortcut.append(convolution(inputs, outputs, 1, stride, dtype, rngs))
            self.shortcut.append(batch_norm(outputs, dtype, rngs))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (n, h, w, inputs) to (n, h / stride, w / stride, outputs)."""
        y = nnx.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        for layer in self.shortcut:
            x = layer(x)
        return nnx.relu(x + y)


class ResNet(nnx.Module):
    """A 3×3 stem, stages of basic blocks, the mean over the pixels, and logits.

    Args:
      image_shape: of one image: (height, width, channels).
      classes: how many logits.
      widths: the channels of each stage; all but the first halve height and width.
      blocks: how many blocks each stage has.
      dtype: of the computation; parameters, statistics and logits are float32.
      rngs: for the parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from optjax.tasks.models import ResNet
      >>> model = ResNet(
      ...     (8, 8, 3), 10, widths=(4, 8), blocks=(1, 1), rngs=nnx.Rngs(0)
      ... )
      >>> model(jnp.zeros((2, 8, 8, 3))).shape
      (2, 10)
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        classes: int,
        *,
        widths: Sequence[int],
        blocks: Sequence[int],
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        channels = widths[0]
        self.stem = convolution(image_shape[-1], channels, 3, 1, dtype, rngs)
        self.norm = batch_norm(channels, dtype, rngs)
        self.blocks: nnx.List[BasicBlock] = nnx.List([])
        for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                self.blocks.append(
                    BasicBlock(channels, width, stride, dtype=dtype, rngs=rngs)
                )
                channels = width
        self.logits = classifier(channels, classes, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map images (n, *image_shape) to logits (n, classes)."""
        x = nnx.relu(self.norm(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return self.logits(global_average(x))


def resnet34(
    image_shape: Sequence[int],
    classes: int,
    *,
    dtype: DTypeLike = jnp.float32,
    rngs: nnx.Rngs,
) -> ResNet:
    """ResNet-34: 64 to 512 channels, 3 + 4 + 6 + 3 blocks.

    It has 21,282,122 parameters for 32×32×3 images of 10 classes. Arguments as
    `ResNet`'s.

    Example:
      >>> from flax import nnx
      >>> from optjax.tasks.models import resnet34
      >>> model = nnx.eval_shape(lambda: resnet34((32, 32, 3), 10, rngs=nnx.Rngs(0)))
      >>> len(model.blocks)
      16
    """
    return ResNet(
        image_shape,
        classes,
        widths=(64, 128, 256, 512),
        blocks=(3, 4, 6, 3),
        dtype=dtype,
        rngs=rngs,
    )


def resnet8(
    image_shape: Sequence[int],
    classes: int,
    *,
    dtype: DTypeLike = jnp.float32,
    rngs: nnx.Rngs,
) -> ResNet:
    """ResNet-8: 16, 32 and 64 channels, a block each; small enough for a CPU.

    It has 78,042 parameters for 10 classes of colour images: the smallest of He et
    al.'s 6n + 2 layers, with 1×1 convolutions as shortcuts where the shape changes.
    Arguments as `ResNet`'s.

    Example:
      >>> from flax import nnx
      >>> from optjax.tasks.models import resnet8
      >>> model = nnx.eval_shape(lambda: resnet8((32, 32, 3), 10, rngs=nnx.Rngs(0)))
      >>> len(model.blocks)
      3
    """
    return ResNet(
        image_shape,
        classes,
        widths=(16, 32, 64),
        blocks=(1, 1, 1),
        dtype=dtype,
        rngs=rngs,
    )
