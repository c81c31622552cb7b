"""Numbers that a key decides, of few operations: a normal's are long in compiling."""

import math

import jax
import jax.numpy as jnp
import numpy as np


def numbers(key, *shape):
    """Multiples of a quarter between -1.5 and 1.5."""
    first, second = jax.random.key_data(key)
    odd = np.arange(3, 2 * math.prod(shape) + 3, 2, dtype=np.uint32).reshape(shape)
    return ((7 * first + second + 1) * odd % 13).astype(jnp.float32) / 4 - 1.5
