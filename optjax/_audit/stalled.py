"""Averages of squares that half precision keeps from moving."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from optjax._places import place_of
from optjax._rounding import StochasticRoundingState

# What libraries call ν, a sum of squares too.
_SQUARES = ("nu", "sum_of_squares")
_HALF = (jnp.bfloat16, jnp.float16)


def stalled(before: Any, after: Any, gradients: Any, names: Sequence[str]) -> jax.Array:
    """The share of each leaf's ν that a step has left as it was, of shape (leaves,).

    Of those that are not 0 and have a gradient. NaN where no ν is in half precision,
    and where it is rounded at random, so that it moves on average.
    """
    old, new = _squares(before), _squares(after)
    found = []
    kind = jnp.result_type(float)
    for name, gradient in zip(names, jax.tree.leaves(gradients), strict=True):
        nu = old.get(name)
        if nu is None or nu.shape != gradient.shape:
            found.append(jnp.array(jnp.nan, kind))
            continue
        counts = (nu != 0) & (gradient != 0)
        still = jnp.sum((counts & (nu == new[name])).astype(kind))
        found.append(still / jnp.maximum(jnp.sum(counts.astype(kind)), 1))
    return jnp.stack(found)


def _squares(state: Any) -> dict[str, jax.Array]:
    """The arrays of ν in half precision, by their parameters' names."""

    def is_rounded(node: Any) -> bool:
        return isinstance(node, StochasticRoundingState)

    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state, is_leaf=is_rounded):
        place = place_of(path, _SQUARES)
        if place.leaf is not None and getattr(leaf, "dtype", None) in _HALF:
            name = jax.tree_util.keystr(place.leaf, simple=True, separator="/")
            found[name] = leaf
    return found
