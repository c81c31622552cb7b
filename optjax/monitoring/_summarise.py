"""Make a summary of the rates of one step: for all groups in a few operations."""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from optjax._joint import Joint, Layout, Shape, starts_of
from optjax.monitoring._groups import sample
from optjax.monitoring._norms import alike, at, by_index, reduced, square_norms
from optjax.monitoring._rates import Rate
from optjax.monitoring._summary import PADDING, Tables, coordinates_of, fill

if TYPE_CHECKING:
    # It loads what importing optjax should not.
    from optjax._columns import Computed

__all__ = ["summarise"]

# Of rates that are known, such as 1, XLA would count more as it compiles, for seconds.
_MANY = 1 << 15


def summarise(
    members: dict[str, list[str]],
    before: Tables,
    step: jax.Array,
    rates: Mapping[str, Rate],
    updates: Mapping[str, jax.Array],
    params: Mapping[str, jax.Array] | None,
    computed: "Computed",
    *,
    most: int | None,
    share: float,
    factor: float,
    audit: bool,
) -> Tables:
    """Summarise every group's rates, looking at `most` of its coordinates.

    All groups, and all small leaves, go through the same few operations together, so
    that the program hardly grows with their number.
    """
    joint = Joint()
    columns = square_norms(members, rates, updates, params, joint, computed)
    width = coordinates_of(before)
    # In the order in which `Joint` has the leaves: JAX sorts a dictionary's names.
    known = {name: rates[name] for name in updates if name in rates}
    pairs = {n: [r.rate, r.direction] for n, r in known.items() if r.rate.size}
    blocks = alike(pairs, computed)
    leaves = [name for block in blocks for name in block]
    if not leaves:
        padding = jnp.full((len(members), width), PADDING)
        return fill(padding, step=step, sgd_since=jnp.int32(-1), **columns)
    chosen = sample({n: rates[n].rate.size for n in leaves}, members, most, width)
    positions = dict(zip(leaves, chosen.positions, strict=True))
    layouts = [
        _Chosen({n: rates[n].rate.shape for n in block}, positions, joint)
        for block in blocks
    ]
    # Of one block nothing is laid down first.
    is_one_block = len(blocks) == 1
    if is_one_block:
        layouts = [layouts[0].at(chosen.place)]
    choose = [computed.columns(layout) for layout in layouts]

    def of_leaf(value: Callable[[Rate], Any]) -> jax.Array:
        """One number for each chosen coordinate, from one for each leaf."""
        numbers = [computed.value(value(rates[name])) for name in leaves]
        return by_index(numbers, chosen.leaf)

    def of_coordinate(value: Callable[[str, Rate], jax.Array]) -> jax.Array:
        """One number for each chosen coordinate, from one for each coordinate."""
        laid = [
            column([value(name, rates[name]) for name in block]).astype(jnp.float32)
            for block, column in zip(blocks, choose, strict=True)
        ]
        return laid[0] if is_one_block else at(jnp.concatenate(laid), chosen.place)

    def bound(value: Callable[[Rate], Any]) -> jax.Array:
        if all(jnp.ndim(value(rates[name])) == 0 for name in leaves):
            return of_leaf(value)
        return of_coordinate(lambda _, r: value(r))

    def rates_of(value: jax.Array) -> jax.Array:
        """Those >= 0 as they are, others one NaN, and `PADDING` for none at all."""
        value = jnp.where(value >= 0, value, jnp.nan)
        return value if is_member.all() else jnp.where(is_member, value, PADDING)

    is_member = np.arange(width) < chosen.sizes[:, None]
    sizes = chosen.sizes.astype(np.float32)
    v = of_coordinate(lambda _, r: r.rate)
    if width > _MANY:
        v = jax.lax.optimization_barrier(v)
    v = rates_of(v)
    schedule = of_leaf(lambda r: r.schedule)
    # What is one number for all is multiplied by where summaries are read.
    is_one = schedule.ndim == 0
    kept = v if is_one else rates_of(schedule * v)
    lower, upper = bound(lambda r: r.lower), bound(lambda r: r.upper)
    limit = of_leaf(lambda r: r.limit)
    counted = {
        "at_lower": v <= lower,
        "between": (v > lower) & (v < upper),
        "at_upper": v >= upper,
        "near_sgd": (v >= limit / factor) & (v <= limit * factor),
    }
    of_groups = {name: (x.astype(jnp.int32), "sum") for name, x in counted.items()}
    of_groups |= {
        "schedule": (schedule, "sum"),
        "sgd_rate": (schedule * limit, "sum"),
        "lower": (schedule * lower, "min"),
        "upper": (schedule * upper, "max"),
    }
    if audit:
        moved = of_coordinate(lambda name, _: updates[name])
        at_bound = -schedule * v * of_coordinate(lambda _, r: r.direction)
        is_held = ~jnp.isnan(limit) & ((v <= lower) | (v >= upper))
        of_groups |= {
            "of_bounds": (jnp.where(is_held, moved * at_bound, 0.0), "sum"),
            "step_square": (moved**2, "sum"),
        }
    # In one loop. What is one number for all coordinates is that of every group.
    rows = {name: pair for name, pair in of_groups.items() if pair[0].ndim}
    found = dict(zip(rows, reduced([*rows.values()], (1,), is_member), strict=True))
    for mean in ("schedule", "sgd_rate"):
        if mean in found:
            found[mean] /= sizes
    columns |= {name: value for name, (value, _) in of_groups.items()} | found
    columns["factor"] = schedule if is_one else jnp.float32(1.0)
    first = before.words[:, 1]
    # 0/0, NaN, of a group without a rate is no large share.
    share_near = columns["near_sgd"] / (sizes if np.ptp(sizes) else sizes[0])
    since = jnp.where(first < 0, step, first)
    since = jnp.where(share_near >= share, since, -1)
    return fill(kept, step=step, sgd_since=since, **columns)


class _Chosen(Layout):
    """Some coordinates of leaves, one after the other."""

    def __init__(
        self,
        leaves: Mapping[str, Shape],
        positions: Mapping[str, np.ndarray],
        joint: Joint,
    ):
        self.shapes, self._joint = [*leaves.values()], joint
        chosen = [positions[name] for name in leaves]
        starts = starts_of(self.shapes)
        self._leaf = np.repeat(np.arange(len(chosen)), [*map(len, chosen)])
        self._index = np.concatenate(
            [start + each for start, each in zip(starts, chosen, strict=True)]
        )
        self.shape = self._index.shape

    def at(self, place: np.ndarray) -> "_Chosen":
        """Those at a place among them."""
        some = copy(self)
        some._leaf, some._index = self._leaf[place], self._index[place]
        some.shape = place.shape
        return some

    def lay(self, leaves: Sequence[jax.Array]) -> jax.Array:
        if len(leaves) > 1:
            return at(self._joint.join(leaves), self._index)
        (leaf,) = leaves
        if np.array_equal(self._index, np.arange(leaf.size)):
            return leaf.ravel()
        # Not a slice of the flattened leaf: that gathers one that is sharded.
        return at(leaf, *np.unravel_index(self._index, leaf.shape))

    def spread(self, numbers: Sequence[Any]) -> jax.Array:
        return at(jnp.stack(numbers), self._leaf)
