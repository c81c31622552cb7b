"""The norms of groups of leaves, in a few operations for all of them."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from optjax._joint import Joint, is_small
from optjax._precision import abs_sq, widen
from optjax.monitoring._rates import Rate

__all__ = ["alike", "at", "by_index", "reduced", "square_norms"]

# So many coordinates of a small leaf are summed at a time.
_CHUNK = 256


def square_norms(
    members: dict[str, list[str]],
    rates: Mapping[str, Rate],
    updates: Mapping[str, jax.Array],
    params: Mapping[str, jax.Array] | None,
    joint: Joint,
) -> dict[str, jax.Array]:
    """‖s V ⊙ m‖² with V before any bound, ‖m‖², ‖Δx‖² and ‖x‖² of each group.

    0 for what has no such arrays, and NaN for parameters that are not known.
    """
    known: Mapping[str, jax.Array] = {} if params is None else params

    def arrays(name: str) -> list[jax.Array]:
        of_rate = [rates[name].free, rates[name].direction] if name in rates else []
        return [updates[name], *of_rate, *([known[name]] if name in known else [])]

    sums: dict[str, list[jax.Array]] = {name: [] for name in _NORMS}
    owners: list[str] = []
    for block in alike({name: arrays(name) for name in updates}):
        cut = _Cut(block, [updates[name].size for name in block], joint)
        squares: dict[str, jax.Array] = {}
        if block[0] in rates:
            m = widen(cut(lambda name: rates[name].direction))
            free = cut(lambda name: rates[name].free)
            s = cut.numbers([rates[name].schedule for name in block])
            squares |= {"adaptive": abs_sq(s * free * m), "direction": abs_sq(m)}
        squares["update"] = abs_sq(cut(updates.__getitem__))
        if block[0] in known:
            squares["params"] = abs_sq(cut(known.__getitem__))
        of_block = dict(zip(squares, cut.sums([*squares.values()]), strict=True))
        none = jnp.zeros(len(cut.owners), jnp.float32)
        for name, column in sums.items():
            column.append(of_block.get(name, none))
        owners += cut.owners
    if not owners:
        return dict.fromkeys(_NORMS, jnp.zeros(len(members), jnp.float32))
    is_member = np.array(
        [[name in group for name in owners] for group in map(set, members.values())]
    )
    columns = [jnp.concatenate(column) for column in sums.values()]
    columns = [jnp.broadcast_to(x, is_member.shape) for x in columns]
    totals = reduced([(x, "sum") for x in columns], axes=(1,), where=is_member)
    norms = dict(zip(sums, totals, strict=True))
    if params is None:
        norms["params"] = jnp.full_like(norms["params"], jnp.nan)
    return norms


_NORMS = ("adaptive", "direction", "update", "params")


class _Cut:
    """Leaves in chunks: small ones together, another one whole.

    Attributes:
      owners: the name of each chunk's leaf.
    """

    def __init__(self, names: Sequence[str], sizes: Sequence[int], joint: Joint):
        self._names, self._joint = names, joint
        self.owners = list(names)
        if len(names) == 1:
            return
        total, counts = sum(sizes), [-(-size // _CHUNK) for size in sizes]
        self._leaf = np.repeat(np.arange(len(sizes)), counts)
        number = np.concatenate([np.arange(count) for count in counts])
        start = (np.cumsum(sizes) - sizes)[self._leaf] + number * _CHUNK
        length = np.array(sizes)[self._leaf] - number * _CHUNK
        # Made where they are used: as a constant it would be as large as the leaves.
        within = lax.broadcasted_iota(np.uint32, (len(start), _CHUNK), 1)
        index = start.astype(np.uint32)[:, None] + within
        self._index = jnp.minimum(index, np.uint32(total - 1))
        self._is_inside = within < np.minimum(length, _CHUNK).astype(np.uint32)[:, None]
        self.owners = [names[int(leaf)] for leaf in self._leaf]

    def __call__(self, leaf: Callable[[str], Any]) -> jax.Array:
        leaves: list[jax.Array] = [leaf(name) for name in self._names]
        if len(leaves) == 1:
            return leaves[0]
        return at(self._joint.join(leaves), self._index)

    def numbers(self, values: Sequence[Any]) -> Any:
        """One number of each leaf, to go with its coordinates."""
        if len(values) == 1:
            return values[0]
        return jnp.reshape(by_index(values, self._leaf), (-1, 1))

    def sums(self, squares: Sequence[jax.Array]) -> list[jax.Array]:
        """The sum of each chunk, float32."""
        if len(self._names) > 1:
            summed = [(x, "sum") for x in squares]
            totals = reduced(summed, axes=(1,), where=self._is_inside)
        else:
            totals = _whole_sums(squares)
        return [jnp.ravel(total.astype(jnp.float32)) for total in totals]


def _whole_sums(squares: Sequence[jax.Array]) -> list[jax.Array]:
    """The sums of arrays of one shape: of few numbers at a time, and then of those.

    The first are of what lies together, all in one loop, so that nothing of the size of
    the arrays is written down.
    """
    while (ndim := squares[0].ndim) > 0:
        shape = squares[0].shape
        if shape[-1] > _FEW:
            squares = [_in_rows(x) for x in squares]
            continue
        axis = ndim - 1
        while axis > 0 and math.prod(shape[axis - 1 :]) <= _FEW:
            axis -= 1
        axes = range(axis, ndim)
        squares = reduced([(x, "sum") for x in squares], [*axes])
    return [*squares]


def _in_rows(x: jax.Array) -> jax.Array:
    """The last axis as two, of rows of few numbers, the last filled up by zeros."""
    fill = [(0, 0)] * (x.ndim - 1) + [(0, -x.shape[-1] % _FEW)]
    return jnp.pad(x, fill).reshape(*x.shape[:-1], -1, _FEW)


def alike(leaves: Mapping[str, Sequence[Any]]) -> list[list[str]]:
    """Which names to look at together: of small arrays of the same types; others alone.

    Args:
      leaves: the arrays that belong to each name.
    """
    found: dict[Any, list[str]] = {}
    for name, arrays in leaves.items():
        is_one = all(map(is_small, arrays))
        key = tuple(x.dtype for x in arrays) if is_one else name
        found.setdefault(key, []).append(name)
    return list(found.values())


def at(x: jax.Array, *index: Any) -> jax.Array:
    """x[index] without a look at the ends, whose masks XLA makes at every step."""
    # What is unsigned is not looked at for what is negative.
    places = tuple(lax.convert_element_type(i, np.uint32) for i in index)
    taken: jax.Array = x.at[places].get(mode="promise_in_bounds")
    return taken


def by_index(values: Sequence[Any], index: np.ndarray) -> jax.Array:
    """values[index] of numbers; just the number where all are the same one."""
    distinct = {id(value): value for value in values}
    number = {name: i for i, name in enumerate(distinct)}
    table = jnp.stack([jnp.float32(value) for value in distinct.values()])
    if len(distinct) == 1:
        return table[0]
    return at(table, np.array([number[id(value)] for value in values])[index])


# How two are one, what that begins with, and the same of whole arrays.
_WAYS: dict[str, tuple[float, Callable[..., Any], Callable[..., Any]]] = {
    "sum": (0.0, lax.add, jnp.sum),
    "min": (np.inf, lax.min, jnp.min),
    "max": (-np.inf, lax.max, jnp.max),
}
# Of more, a sum one after the other loses digits. XLA adds up a single array as a tree.
_FEW = 4096


def reduced(
    operands: Sequence[tuple[jax.Array, str]],
    axes: Sequence[int],
    where: Any = None,
) -> list[jax.Array]:
    """Sums, minima and maxima of arrays of one shape; of few numbers in one loop.

    Args:
      operands: each array, and "sum", "min" or "max".
      axes: the axes that are gone afterwards.
      where: what is looked at, an array of that shape; None for everything.
    """
    ways = [_WAYS[way] for _, way in operands]
    values = [x for x, _ in operands]
    starts = [
        np.array(start, x.dtype) for (start, *_), x in zip(ways, values, strict=True)
    ]
    # A constant of nothing but True is one that XLA would write out at every step.
    if where is not None and not (isinstance(where, np.ndarray) and where.all()):
        values = [jnp.where(where, x, s) for x, s in zip(values, starts, strict=True)]
    if math.prod(values[0].shape[axis] for axis in axes) > _FEW:
        return [whole(x, axes) for (*_, whole), x in zip(ways, values, strict=True)]

    def step(totals: Any, values: Any) -> list[Any]:
        return [f(a, b) for (_, f, _), a, b in zip(ways, totals, values, strict=True)]

    # A summary has no derivative, nor has JAX one of several reductions in one.
    found: list[jax.Array] = lax.reduce(lax.stop_gradient(values), starts, step, axes)
    return found
