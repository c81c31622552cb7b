"""Leaves of a state as plain arrays, for lanes and files."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def packing(shape: Any) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """The state as a list of plain arrays, and back.

    Keys become their words and zero-size leaves are left out, since neither can be
    put in a file.
    """
    treedef: Any
    leaves, treedef = jax.tree.flatten(shape)

    def pack(state: Any) -> list[jax.Array]:
        return [
            as_plain(leaf, want)
            for leaf, want in zip(jax.tree.leaves(state), leaves, strict=True)
            if want.size
        ]

    def unpack(packed: list[jax.Array]) -> Any:
        arrays = iter(packed)

        def leaf(want: Any) -> Any:
            if not want.size:
                return jnp.zeros(want.shape, want.dtype)
            return as_leaf(next(arrays), want)

        return treedef.unflatten([leaf(want) for want in leaves])

    return pack, unpack


def as_plain(leaf: Any, like: Any) -> Any:
    """A leaf in the dtype of `like`, and of keys their words."""
    return jax.random.key_data(leaf) if _is_key(like) else jnp.asarray(leaf, like.dtype)


def as_leaf(plain: Any, like: Any) -> Any:
    """The leaf again."""
    if _is_key(like):
        return jax.random.wrap_key_data(plain, impl=like.dtype._impl.name)
    return jnp.asarray(plain, like.dtype)


def as_bytes(array: Any) -> np.ndarray:
    """An array's memory in order; NumPy gives no buffer of dtypes such as bfloat16."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def placed(array: np.ndarray, sharding: jax.sharding.Sharding) -> jax.Array:
    """An array on devices, of which some may be other processes'."""
    return jax.make_array_from_callback(
        array.shape, sharding, lambda index: array[index]
    )


def _is_key(leaf: Any) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))
