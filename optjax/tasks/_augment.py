"""Change images at random on the device, and put pixels on the scale of a network."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

# As published with most CIFAR-10 recipes, AdaBound's among them. The deviations are the
# mean of each image's own; over all pixels they would be 0.247, 0.243 and 0.262.
CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2023, 0.1994, 0.2010)


def random_crop_and_flip(key: jax.Array, images: jax.Array, pad: int = 4) -> jax.Array:
    """Shift every image by up to `pad` pixels each way, and mirror every other one.

    Each image gets `pad` rows and columns of zeros on all sides, a window of its old
    size is cut out at a place drawn uniformly from all (2·pad + 1)², and the window is
    mirrored left to right with probability 1/2. Images are drawn for independently.

    Args:
      key: the random key; the same key gives the same images.
      images: (n, h, w, c) of any dtype. Zero is black in raw pixels but the mean in
        normalised ones: augment first, as the recipes do, then `normalise`.
      pad: the largest shift in pixels, a Python integer of 0 or more.

    Returns:
      Images of the same shape and dtype.

    Raises:
      ValueError: where `images` has another number of axes, or `pad` is negative.

    Example:
      batch = normalise(random_crop_and_flip(key, images), CIFAR10_MEAN, CIFAR10_STD)
    """
    if images.ndim != 4:
        raise ValueError(
            f"images must be (n, h, w, c), got {images.shape}; for a single image "
            "pass images[None]"
        )
    if pad < 0:
        raise ValueError(f"pad must be 0 or more pixels, got {pad}; 4 is usual")
    images = jnp.asarray(images)
    corner_key, mirror_key = jax.random.split(key)
    corners = jax.random.randint(corner_key, (len(images), 2), 0, 2 * pad + 1)
    mirrored = jax.random.bernoulli(mirror_key, shape=(len(images), 1, 1, 1))
    padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))

    def window(image: jax.Array, corner: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (*corner, 0), images.shape[1:])

    windows = jax.vmap(window)(padded, corners)
    return jnp.where(mirrored, windows[:, :, ::-1], windows)


def normalise(
    images: jax.Array,
    mean: Sequence[float] = CIFAR10_MEAN,
    std: Sequence[float] = CIFAR10_STD,
) -> jax.Array:
    """(images / 255 − mean) / std, in float32; images in floating point are not / 255.

    Args:
      images: (..., c), integers from 0 to 255 or floating point from 0 to 1.
      mean: what is subtracted, a value for each of the c channels.
      std: what is divided by, a value for each of the c channels.

    Returns:
      The images in float32, also where they were float16 or bfloat16.

    Raises:
      ValueError: where `mean` or `std` has not one value a channel.

    Example:
      normalise(jnp.zeros((1, 32, 32, 3), jnp.uint8))  # −2.43, −2.42, −2.22 all over
    """
    scale = 255 if jnp.issubdtype(images.dtype, jnp.integer) else 1
    shift, width = jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32)
    if not shift.shape == width.shape == images.shape[-1:]:
        raise ValueError(
            f"mean and std must have one value for each of the {images.shape[-1]} "
            f"channels, got shapes {shift.shape} and {width.shape}"
        )
    return (jnp.asarray(images, jnp.float32) / scale - shift) / width
