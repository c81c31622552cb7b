"""Small leaves in one array, so that what is done to each of them is done once to all.

XLA makes a kernel or more of what happens to a leaf, however small, and each takes it
some milliseconds to compile and a part of a microsecond to start. A pointwise function
of a hundred small leaves is one of an array that has them all.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import accumulate
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

__all__ = ["ROW", "Joint", "current_joint", "is_small", "joining"]

# More arrays XLA copies to put them together. Of no more it makes a part of each kernel
# that uses them, where every number looks for its array.
_FUSED = 8

#: A leaf begins at a multiple of it, so that no row has two leaves' numbers.
ROW = 256

# More are copied at the cost of what a kernel of their own takes.
_SMALL = 8192


def is_small(leaf: Any) -> bool:
    """Whether it pays to copy a leaf: not one split over a mesh of explicit axes."""
    aval = jax.typeof(leaf)
    return math.prod(aval.shape) <= _SMALL and not any(aval.sharding.spec)


class Joint:
    """Leaves that lie one after the other in an array, and where.

    Each begins a row of `ROW` numbers. What fills up the last one of the leaf before is
    made of no leaf, and nothing may be made of it.
    """

    def __init__(self) -> None:
        # Each leaf with it, so that no other gets its id.
        self._places: dict[int, tuple[Any, jax.Array, int]] = {}

    def join(self, leaves: Sequence[Any]) -> jax.Array:
        """The leaves in one flat array, as they lie already where they do."""
        starts = _starts(leaves)
        places = [self._places.get(id(leaf)) for leaf in leaves]
        array = places[0][1] if places[0] is not None else None
        if array is not None and array.size == starts[-1]:
            lies = [None if at is None else (id(at[1]), at[2]) for at in places]
            if lies == [(id(array), start) for start in starts[:-1]]:
                return array
        parts: list[Any] = []
        for leaf in leaves:
            parts += [jnp.ravel(leaf), *_filling(leaf, 1 + _FUSED // len(leaves))]
        array = jnp.concatenate(parts)
        self._note(leaves, array)
        return array

    def map(
        self, f: Callable[..., Any], rows: Sequence[Sequence[Any]], dtype: Any
    ) -> list[jax.Array]:
        """f of every row of leaves, a pointwise function, on all of them at once.

        Where it returns a number that is the one of every coordinate.
        """
        columns = [self.join(column) for column in zip(*rows, strict=True)]
        result = jnp.asarray(f(*columns), dtype)
        return self._part(
            jnp.broadcast_to(result, columns[0].shape), [row[0] for row in rows]
        )

    def _part(self, array: jax.Array, like: Sequence[Any]) -> list[jax.Array]:
        """An array as leaves of the shapes of these."""
        sizes = [jnp.size(leaf) for leaf in like]
        parts = lax.split(array, [n for size in sizes for n in (size, -size % ROW)])
        leaves = [
            part.reshape(jnp.shape(leaf))
            for part, leaf in zip(parts[::2], like, strict=True)
        ]
        self._note(leaves, array)
        return leaves

    def _note(self, leaves: Sequence[Any], array: jax.Array) -> None:
        for leaf, start in zip(leaves, _starts(leaves)[:-1], strict=True):
            self._places[id(leaf)] = leaf, array, start


def _filling(leaf: Any, pieces: int) -> list[np.ndarray]:
    """What fills up a leaf's last row, in so many pieces if it has as many numbers."""
    # Of equal numbers, or of ascending ones, XLA would make a kernel.
    numbers = np.arange(-jnp.size(leaf) % ROW)[::-1].astype(jnp.result_type(leaf))
    return [piece for piece in np.array_split(numbers, pieces) if len(piece)]


def _starts(leaves: Sequence[Any]) -> list[int]:
    return [0, *accumulate(-(-jnp.size(leaf) // ROW) * ROW for leaf in leaves)]


_current: ContextVar[Joint | None] = ContextVar("joint", default=None)


def current_joint() -> Joint | None:
    """Where small leaves are joined, if they are."""
    return _current.get()


@contextmanager
def joining() -> Iterator[Joint]:
    """Join the small leaves of what is computed inside the block."""
    joint = Joint()
    token = _current.set(joint)
    try:
        yield joint
    finally:
        _current.reset(token)
