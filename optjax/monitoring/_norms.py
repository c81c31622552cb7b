"""The norms of groups of leaves, in a few operations for all of them."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from optjax._joint import FEW, Joint, Layout, Shape, is_small, row_of
from optjax._precision import abs_sq, widen
from optjax.monitoring._rates import Rate

if TYPE_CHECKING:
    # It loads what importing optjax should not.
    from optjax._columns import Computed

__all__ = ["alike", "at", "by_index", "reduced", "square_norms"]

# So many sums are added up in each group as they are.
_FEW_ROWS = 1024


def square_norms(
    members: dict[str, list[str]],
    rates: Mapping[str, Rate],
    updates: Mapping[str, jax.Array],
    params: Mapping[str, jax.Array] | None,
    joint: Joint,
    computed: "Computed",
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

    def keep(of: Sequence[str], found: Mapping[str, jax.Array]) -> None:
        for name, column in sums.items():
            column.append(found[name])
        owners.extend(of)

    rows: dict[str, dict[str, jax.Array]] = {}
    for block in alike({name: arrays(name) for name in updates}, computed):
        cut = _Cut(block, [updates[name].shape for name in block], joint)
        column = computed.columns(cut)
        update = abs_sq(column([updates[name] for name in block]))
        squares = dict.fromkeys(_NORMS, jnp.zeros_like(update)) | {"update": update}
        if block[0] in rates:
            m = widen(column([rates[name].direction for name in block]))
            free = column([rates[name].free for name in block])
            s = column([rates[name].schedule for name in block])
            squares |= {"adaptive": abs_sq(s * free * m), "direction": abs_sq(m)}
        if block[0] in known:
            squares["params"] = abs_sq(column([known[name] for name in block]))
        if len(block) > 1:
            keep(cut.owners, cut.sums(squares))
        else:
            rows[block[0]] = _of_rows(squares)
    # Large leaves are small by now.
    shapes = [row["update"].shape for row in rows.values()]
    if len(rows) == 1 or sum(map(math.prod, shapes)) <= _FEW_ROWS:
        for name, row in rows.items():
            keep([name] * row["update"].size, row)
    else:
        cut = _Cut([*rows], shapes, joint)
        squares = {n: cut.lay([row[n] for row in rows.values()]) for n in _NORMS}
        keep(cut.owners, cut.sums(squares))
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


class _Cut(Layout):
    """Leaves in rows: small ones together, another one whole.

    Attributes:
      owners: the name of each row's leaf.
    """

    def __init__(self, names: Sequence[str], shapes: Sequence[Shape], joint: Joint):
        self.shapes, self._joint = shapes, joint
        sizes, row = [*map(math.prod, shapes)], row_of(shapes)
        counts = [-(-size // row) for size in sizes]
        self._leaf = np.repeat(np.arange(len(sizes)), counts)
        number = np.concatenate([np.arange(count) for count in counts])
        self._lengths = np.minimum(np.array(sizes)[self._leaf] - number * row, row)
        self.owners = [names[int(leaf)] for leaf in self._leaf]
        self.shape = shapes[0] if len(shapes) == 1 else (len(self.owners), row)

    def lay(self, leaves: Sequence[jax.Array]) -> jax.Array:
        if len(leaves) == 1:
            return leaves[0]
        return self._joint.join(leaves).reshape(self.shape)

    def spread(self, numbers: Sequence[Any]) -> jax.Array:
        of_row = at(jnp.stack(numbers), self._leaf)
        return jnp.broadcast_to(of_row[:, None], self.shape)

    def sums(self, squares: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """The sum of each row, float32."""
        is_inside = None
        if (self._lengths < self.shape[1]).any():
            # Made where it is used: as a constant it would be as large as the leaves.
            within = lax.broadcasted_iota(np.int32, self.shape, 1)
            is_inside = within < self._lengths[:, None].astype(np.int32)
        summed = [(x, "sum") for x in squares.values()]
        totals = reduced(summed, (1,), is_inside)
        found = [total.astype(jnp.float32) for total in totals]
        return dict(zip(squares, found, strict=True))


def _of_rows(squares: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """The sums of a large leaf's arrays over what lies together of it, flat.

    All in one loop, so that nothing of the size of the leaf is written down.
    """
    arrays = [jnp.atleast_1d(x) for x in squares.values()]
    if arrays[0].shape[-1] > FEW:
        arrays = [_in_rows(x) for x in arrays]
    shape = arrays[0].shape
    axis = len(shape) - 1
    while axis > 0 and math.prod(shape[axis - 1 :]) <= FEW:
        axis -= 1
    axes = [*range(axis, len(shape))]
    sums = map(jnp.ravel, reduced([(x, "sum") for x in arrays], axes))
    return dict(zip(squares, sums, strict=True))


def _in_rows(x: jax.Array) -> jax.Array:
    """The last axis as two, of rows of few numbers, the last filled up by zeros."""
    fill = [(0, 0)] * (x.ndim - 1) + [(0, -x.shape[-1] % FEW)]
    return jnp.pad(x, fill).reshape(*x.shape[:-1], -1, FEW)


def alike(leaves: Mapping[str, Sequence[Any]], computed: "Computed") -> list[list[str]]:
    """Which names to look at together: of small arrays made alike; others alone.

    Args:
      leaves: the arrays that belong to each name.
      computed: what they are of.
    """
    found: dict[Any, list[str]] = {}
    for name, arrays in leaves.items():
        is_one = all(map(is_small, arrays))
        made = tuple((x.dtype, computed.origin(x)) for x in arrays)
        key = made if is_one else name
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
        is_in = jnp.asarray(where)
        values = [
            lax.select(is_in, x, lax.full_like(x, start))
            for x, start in zip(values, starts, strict=True)
        ]
    if math.prod(values[0].shape[axis] for axis in axes) > FEW:
        return [whole(x, axes) for (*_, whole), x in zip(ways, values, strict=True)]

    def step(totals: Any, values: Any) -> list[Any]:
        return [f(a, b) for (_, f, _), a, b in zip(ways, totals, values, strict=True)]

    # A summary has no derivative, nor has JAX one of several reductions in one.
    found: list[jax.Array] = lax.reduce(lax.stop_gradient(values), starts, step, axes)
    return found
