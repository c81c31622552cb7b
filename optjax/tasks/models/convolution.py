"""A convolution whose gradients are fast inside loops on a CPU too.

Outside of loops XLA brings every convolution into the one form that its CPU library
runs, images by height by width by channels. Inside of a `lax.scan` it leaves the two
convolutions of the backward pass as they are, and runs them with plain loops, tens of
times slower. Here they are written in that form from the start, for CPUs alone.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

__all__ = ["Convolution", "convolve"]


class Convolution(nnx.Module):
    """A size × size convolution without bias, size // 2 zeros on each side.

    Args:
      inputs: channels that come in.
      outputs: channels that go out.
      size: of the kernel, an odd number.
      stride: pixels from one output to the next.
      kernel_init: `kernel_init(key, (size, size, inputs, outputs))`.
      dtype: of the computation; the kernel is float32.
      rngs: for the kernel.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        stride: int,
        *,
        kernel_init: nnx.Initializer,
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        shape = (size, size, inputs, outputs)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape, jnp.float32))
        self.stride = stride
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (n, h, w, inputs) to (n, ⌈h / stride⌉, ⌈w / stride⌉, outputs)."""
        kernel = self.kernel[...].astype(self.dtype)
        return convolve(x.astype(self.dtype), kernel, self.stride)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Return the convolution of (n, h, w, i) with (size, size, i, o), size // 2 zeros.

    Args:
      x: images.
      kernel: of an odd size; `stride` is at most size // 2 + 1, or size is 1.
      stride: pixels from one output to the next, in both directions.
    """
    pad = kernel.shape[0] // 2
    return _library_convolution(x, kernel, ((pad, pad), (pad, pad)), stride=stride)


def _library_convolution(
    x: jax.Array,
    kernel: jax.Array,
    padding: Any,
    *,
    stride: int = 1,
    spread_x: int = 1,
    spread_kernel: int = 1,
) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        lhs_dilation=(spread_x, spread_x),
        rhs_dilation=(spread_kernel, spread_kernel),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _forward(x: jax.Array, kernel: jax.Array, stride: int) -> Any:
    return convolve(x, kernel, stride), (x, kernel)


def _backward(
    stride: int, saved: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return jax.lax.platform_dependent(
        *saved,
        dy,
        cpu=functools.partial(_backward_for_the_library, stride=stride),
        default=functools.partial(_backward_as_jax_has_it, stride=stride),
    )


def _backward_as_jax_has_it(
    x: jax.Array, kernel: jax.Array, dy: jax.Array, *, stride: int
) -> tuple[jax.Array, jax.Array]:
    pad = kernel.shape[0] // 2
    padding = ((pad, pad), (pad, pad))
    _, transposed = jax.vjp(
        lambda x, kernel: _library_convolution(x, kernel, padding, stride=stride),
        x,
        kernel,
    )
    return transposed(dy)


def _backward_for_the_library(
    x: jax.Array, kernel: jax.Array, dy: jax.Array, *, stride: int
) -> tuple[jax.Array, jax.Array]:
    size, pad = kernel.shape[0], kernel.shape[0] // 2
    # How far the outputs reach on the grid of the inputs, in height and in width.
    reach = [(outputs - 1) * stride + 1 for outputs in dy.shape[1:3]]

    # Every input pixel collects from the outputs that it went to: the outputs, spread
    # over the inputs' grid, are convolved with the kernel upside down.
    before = size - 1 - pad
    dx = _library_convolution(
        dy,
        kernel[::-1, ::-1].swapaxes(2, 3),
        [
            (before, n + size - 1 - before - r)
            for n, r in zip(x.shape[1:3], reach, strict=True)
        ],
        spread_x=stride,
    )

    # Every kernel entry collects input × output over images and places: channels take
    # the part of the images, images that of the channels, and outputs that of a kernel.
    after = [r + size - 1 - pad - n for n, r in zip(x.shape[1:3], reach, strict=True)]
    # Pixels that no output came from; only a 1×1 kernel with a stride has some.
    height, width = (
        n + min(0, end) for n, end in zip(x.shape[1:3], after, strict=True)
    )
    dkernel = _library_convolution(
        x[:, :height, :width].transpose(3, 1, 2, 0),
        dy.transpose(1, 2, 0, 3),
        [(pad, max(0, end)) for end in after],
        spread_kernel=stride,
    )
    return dx, dkernel.transpose(1, 2, 0, 3)


convolve.defvjp(_forward, _backward)
