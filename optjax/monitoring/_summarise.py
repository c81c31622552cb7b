"""Make a summary of the rates of one step: for all groups in a few operations."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from optjax._joint import Joint
from optjax.monitoring._groups import sample
from optjax.monitoring._norms import alike, at, by_index, reduced, square_norms
from optjax.monitoring._rates import Rate
from optjax.monitoring._summary import EDGES, PROBABILITIES, Tables, fill

__all__ = ["summarise"]


def summarise(
    members: dict[str, list[str]],
    before: Tables,
    step: jax.Array,
    rates: Mapping[str, Rate],
    updates: Mapping[str, jax.Array],
    params: Mapping[str, jax.Array] | None,
    joint: Joint,
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
    norms = square_norms(members, rates, updates, params, joint)
    columns = dict(
        zip(("adaptive", "direction", "update", "params"), norms, strict=True)
    )
    blocks = alike({n: [r.rate, r.direction] for n, r in rates.items() if r.rate.size})
    leaves = [name for block in blocks for name in block]
    if not leaves:
        return fill(step, jnp.full(len(members), -1, jnp.int32), before, **columns)
    whole = {name for block in blocks if len(block) > 1 for name in block}
    sizes_of = {name: rates[name].rate.size for name in leaves}
    chosen = sample(sizes_of, members, most, whole)
    positions = dict(zip(leaves, chosen.positions, strict=True))
    sizes = chosen.sizes.astype(np.float32)
    is_member = np.arange(chosen.place.shape[1]) < chosen.sizes[:, None]

    def of_leaf(value: Callable[[Rate], Any]) -> jax.Array:
        """One number for each chosen coordinate, from one for each leaf."""
        values = [value(rates[name]) for name in leaves]
        return jnp.broadcast_to(by_index(values, chosen.leaf), chosen.leaf.shape)

    def of_coordinate(value: Callable[[str, Rate], jax.Array]) -> jax.Array:
        """One number for each chosen coordinate, from one for each coordinate."""
        laid = []
        for block in blocks:
            values = [value(name, rates[name]) for name in block]
            if len(block) > 1:
                laid.append(joint.join(values))
            else:
                laid.append(_take(values[0], positions[block[0]]))
        return at(jnp.concatenate([x.astype(jnp.float32) for x in laid]), chosen.place)

    def bound(value: Callable[[Rate], Any]) -> jax.Array:
        if all(jnp.ndim(value(rates[name])) == 0 for name in leaves):
            return of_leaf(value)
        return of_coordinate(lambda _, r: jnp.broadcast_to(value(r), r.rate.shape))

    v = of_coordinate(lambda _, r: r.rate)
    lower, upper = bound(lambda r: r.lower), bound(lambda r: r.upper)
    limit, schedule = of_leaf(lambda r: r.limit), of_leaf(lambda r: r.schedule)
    is_near = (v >= limit / factor) & (v <= limit * factor)
    summed = {
        "at_lower": v <= lower,
        "between": (v > lower) & (v < upper),
        "at_upper": v >= upper,
        "near_sgd": is_near,
        "schedule": schedule,
        "sgd_rate": schedule * limit,
    }
    ways = {**dict.fromkeys(summed, "sum"), "lower": "min", "upper": "max"}
    values = [*summed.values(), schedule * lower, schedule * upper]
    if audit:
        moved = of_coordinate(lambda name, _: updates[name])
        at_bound = -schedule * v * of_coordinate(lambda _, r: r.direction)
        is_held = ~jnp.isnan(limit) & ((v <= lower) | (v >= upper))
        ways |= {"of_bounds": "sum", "step_square": "sum"}
        values += [jnp.where(is_held, moved * at_bound, 0.0), moved**2]
    found = reduced(
        [
            (x.astype(jnp.float32), way)
            for x, way in zip(values, ways.values(), strict=True)
        ],
        axes=(1,),
        where=is_member,
    )
    columns |= dict(zip(ways, found, strict=True))
    first = before.counts[:, 1]
    since = jnp.where(first < 0, step, first)
    # 0/0, NaN, of a group without a rate is no large share.
    is_sgd = columns["near_sgd"] / sizes >= share
    # XLA on the CPU sorts integers in a quarter of the time.
    log_rates = _to_integers(jnp.log10(schedule * v))
    if not is_member.all():
        log_rates = jnp.where(is_member, log_rates, _NAN)
    return fill(
        step,
        jnp.where(is_sgd, since, -1),
        before,
        coordinates=sizes,
        quantiles=_quantiles(log_rates, chosen.sizes),
        histogram=_histogram(log_rates),
        **columns,
    )


# Larger than every number's.
_NAN = np.iinfo(np.int32).max


def _take(leaf: jax.Array, positions: np.ndarray) -> jax.Array:
    if len(positions) == leaf.size:
        return leaf.ravel()
    # Not a slice of the flattened leaf: that gathers one that is sharded.
    return at(leaf, *np.unravel_index(positions, leaf.shape))


def _quantiles(log_rates: jax.Array, sizes: np.ndarray) -> jax.Array:
    """At `PROBABILITIES` of each row, each the nearest of its values."""
    # What is equal has no order to keep, which would take twice as long.
    ordered = jax.lax.sort(log_rates, dimension=1, is_stable=False)
    last = np.maximum(sizes - 1, 0)
    ranks = np.rint(np.outer(last, PROBABILITIES)).astype(np.int32)
    rows = np.arange(len(sizes))[:, None]
    return _from_integers(at(ordered, rows, ranks))


def _histogram(log_rates: jax.Array) -> jax.Array:
    """How many of each row's values are in each bin; NaN is in none."""
    rows, bins = len(log_rates), len(EDGES) - 1
    position = (_from_integers(log_rates) - EDGES[0]) / (EDGES[1] - EDGES[0])
    index = jnp.clip(jnp.floor(position), 0, bins - 1).astype(jnp.int32)
    # All rows in one: then XLA takes the places as they are. The last holds NaN.
    index += np.arange(rows, dtype=np.int32)[:, None] * bins
    index = jnp.where(log_rates == _NAN, rows * bins, index)
    counts = jnp.zeros(rows * bins + 1, jnp.float32)
    counts = counts.at[index.ravel().astype(jnp.uint32)].add(
        1.0, mode="promise_in_bounds"
    )
    return counts[:-1].reshape(rows, bins)


def _to_integers(x: jax.Array) -> jax.Array:
    """int32 in the order of float32 numbers, NaN last."""
    bits = jax.lax.bitcast_convert_type(x, jnp.int32)
    ordered = jnp.where(bits < 0, bits ^ _NAN, bits)
    return jnp.where(jnp.isnan(x), _NAN, ordered)


def _from_integers(n: jax.Array) -> jax.Array:
    bits = jnp.where(n < 0, n ^ _NAN, n)
    return jax.lax.bitcast_convert_type(bits, jnp.float32)
