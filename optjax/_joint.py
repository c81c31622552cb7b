"""Small leaves in one array, so that what is done to each of them is done once to all.

XLA makes a kernel or more of what happens to a leaf, however small, and each takes it
some milliseconds to compile and a part of a microsecond to start. A pointwise function
of a hundred small leaves is one of an array that has them all.
"""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["FEW", "Joint", "Layout", "Shape", "is_small", "row_of", "starts_of"]

Shape = tuple[int, ...]

# More arrays XLA copies to put them together. Of no more it makes a part of each kernel
# that uses them, where every number looks for its array.
_FUSED = 8

#: Of more numbers, a sum one after the other loses digits.
FEW = 4096

# Of leaves that have no better divisor, and the least that is one.
_ROW, _LEAST = 256, 64

# More are copied at the cost of what a kernel of their own takes.
_SMALL = 8192


def is_small(leaf: Any) -> bool:
    """Whether it pays to copy a leaf: not one split over a mesh of explicit axes."""
    aval = jax.typeof(leaf)
    return math.prod(aval.shape) <= _SMALL and not any(aval.sharding.spec)


class Layout(Protocol):
    """How the leaves of a block are one array.

    Attributes:
      shapes: of the leaves.
      shape: of the array.
    """

    shapes: Sequence[Shape]
    shape: Shape

    def lay(self, leaves: Sequence[jax.Array]) -> jax.Array:
        """The array, or what is chosen of it, of such leaves."""

    def spread(self, numbers: Sequence[Any]) -> jax.Array:
        """The array of leaves that are one number each."""


class Joint:
    """Leaves that lie one after the other in an array.

    Each begins a row, of as many numbers as `row_of` says. What fills up the last one
    of the leaf before is made of no leaf, and nothing may be made of it.
    """

    def __init__(self) -> None:
        # With the leaves, so that no others get their ids.
        self._arrays: dict[tuple[int, ...], tuple[Any, jax.Array]] = {}

    def join(self, leaves: Sequence[Any]) -> jax.Array:
        """The leaves in one flat array, the same one for the same leaves."""
        name = tuple(map(id, leaves))
        if name not in self._arrays:
            row = row_of([*map(jnp.shape, leaves)])
            parts: list[Any] = []
            for leaf in leaves:
                fill = _filling(-jnp.size(leaf) % row, 1 + _FUSED // len(leaves))
                parts += [jnp.ravel(leaf), *(x.astype(leaf.dtype) for x in fill)]
            self._arrays[name] = leaves, jnp.concatenate(parts)
        return self._arrays[name][1]


def _filling(size: int, pieces: int) -> list[np.ndarray]:
    """So many numbers, in so many pieces if they are as many."""
    # Of equal numbers, or of ascending ones, XLA would make a kernel.
    numbers = np.arange(size)[::-1]
    return [piece for piece in np.array_split(numbers, pieces) if len(piece)]


def row_of(shapes: Sequence[Shape]) -> int:
    """The length of the rows that leaves of these shapes begin, no more than `FEW`.

    Many leaves fill theirs where they can, since what fills up is one more array each.
    """
    if len(shapes) > _FUSED:
        common = math.gcd(*map(math.prod, shapes))
        for length in range(min(common, FEW), _LEAST - 1, -1):
            if common % length == 0:
                return length
    return _ROW


def starts_of(shapes: Sequence[Shape]) -> list[int]:
    """Where in their array leaves of these shapes begin."""
    row = row_of(shapes)
    rows = [-(-math.prod(shape) // row) for shape in shapes]
    return [row * start for start in accumulate(rows[:-1], initial=0)]
