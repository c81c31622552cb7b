"""The layers that the convolutional networks share, set as in PyTorch.

A run is to be comparable with the published ones, whose code is PyTorch: its padding,
its initial scale of the kernels, its decay of the running statistics.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

#: PyTorch's default: uniform within 1/√(fan-in), a third of LeCun's variance.
KERNEL_INIT = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def convolution(
    inputs: int, outputs: int, size: int, stride: int, dtype: DTypeLike, rngs: nnx.Rngs
) -> nnx.Conv:
    """A size × size convolution without bias, padded alike on all sides."""
    return nnx.Conv(
        inputs,
        outputs,
        (size, size),
        stride,
        padding=size // 2,
        use_bias=False,
        kernel_init=KERNEL_INIT,
        dtype=dtype,
        rngs=rngs,
    )


def batch_norm(features: int, dtype: DTypeLike, rngs: nnx.Rngs) -> nnx.BatchNorm:
    """Batch normalisation; its statistics are float32 in every `dtype`.

    The running variance averages the batches' biased variances, PyTorch's the unbiased
    ones: a difference of 1/(pixels in a batch).
    """
    return nnx.BatchNorm(features, momentum=0.9, epsilon=1e-5, dtype=dtype, rngs=rngs)


def classifier(inputs: int, classes: int, rngs: nnx.Rngs) -> nnx.Linear:
    """The layer from float32 features to float32 logits; the bias starts at 0."""
    return nnx.Linear(inputs, classes, kernel_init=KERNEL_INIT, rngs=rngs)


def global_average(x: jax.Array) -> jax.Array:
    """The mean of each channel over the pixels: (n, h, w, c) to float32 (n, c)."""
    return jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
