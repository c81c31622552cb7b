"""What is kept of the effective rates s_t · V_t: a few numbers a group."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from optjax._precision import abs_sq, widen
from optjax.monitoring._groups import sample
from optjax.monitoring._rates import Rate

__all__ = ["EDGES", "PROBABILITIES", "Summary", "empty", "summarise"]

#: The probabilities of `Summary.quantiles`.
PROBABILITIES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)

#: The edges, in log10 of the rate, of `Summary.histogram`: sixteen bins a decade.
EDGES = np.linspace(-10.0, 6.0, 257)


class Summary(NamedTuple):
    """The effective rates r = s_t · V_t of groups of coordinates after one step.

    In an optimizer's state every field has a leading axis, the groups; a report has
    one of these for each group. Before it there may be another axis: time, from
    `jax.lax.scan`, or the trials of a `jax.vmap`.

    Attributes:
      step: the step t = 1, 2, … that is described; 0 before the first.
      quantiles: of log10 r, at `PROBABILITIES`. NaN where the optimizer shows no
        rate for the group, as for frozen parameters. Rates that are NaN count as
        larger than all others here, and in none of the shares below.
      histogram: the share of coordinates in each bin of log10 r between `EDGES`;
        those outside are counted in the first or the last.
      lower: s_t · lo_t, the least of the group; 0 where the rate has no bounds.
      upper: s_t · hi_t, the largest; infinite where the rate has no bounds.
      at_lower: the share of coordinates with V at the lower bound.
      between: the share of those strictly between the bounds.
      at_upper: the share of those at the upper bound. Where the bounds have met, a
        coordinate is at both.
      schedule: s_t, the mean of the group.
      sgd_rate: s_t times the rate that both bounds converge to; NaN without one.
      near_sgd: the share of coordinates within the stated factor of `sgd_rate`.
      sgd_since: the first of the summarised steps since which `near_sgd` has not
        been below the stated share; −1 where it is below.
      grafted_rate: ‖r ⊙ m‖ / ‖m‖ with r before any bound: the rate at which SGD's step
        is as long as the adaptive one.
      update_ratio: ‖Δx‖ / ‖x‖ of the update that the optimizer returned.
    """

    step: Any
    quantiles: Any
    histogram: Any
    lower: Any
    upper: Any
    at_lower: Any
    between: Any
    at_upper: Any
    schedule: Any
    sgd_rate: Any
    near_sgd: Any
    sgd_since: Any
    grafted_rate: Any
    update_ratio: Any
    rate_elasticity: Any
    bound_elasticity: Any


def empty(groups: int) -> Summary:
    """The summary of so many groups before the first step."""

    def unknown(*shape: int) -> jax.Array:
        # Each its own buffer: one that is two leaves cannot be donated.
        return jnp.full((groups, *shape), jnp.nan, jnp.float32)

    return Summary(
        step=jnp.zeros(groups, jnp.int32),
        quantiles=unknown(len(PROBABILITIES)),
        histogram=jnp.zeros((groups, len(EDGES) - 1), jnp.float32),
        lower=unknown(),
        upper=unknown(),
        at_lower=unknown(),
        between=unknown(),
        at_upper=unknown(),
        schedule=unknown(),
        sgd_rate=unknown(),
        near_sgd=unknown(),
        sgd_since=jnp.full(groups, -1, jnp.int32),
        grafted_rate=unknown(),
        update_ratio=unknown(),
        rate_elasticity=unknown(),
        bound_elasticity=unknown(),
    )


def summarise(
    members: dict[str, list[str]],
    before: Summary,
    step: jax.Array,
    rates: Mapping[str, Rate],
    updates: Mapping[str, jax.Array],
    params: Mapping[str, jax.Array] | None,
    *,
    most: int | None,
    share: float,
    factor: float,
    audit: bool,
) -> Summary:
    """Summarise every group's rates, looking at `most` of its coordinates.

    All groups go through the same few operations together, so that the program does
    not grow with their number.
    """
    result = empty(len(members))._replace(
        step=jnp.full_like(before.step, step),
        grafted_rate=_grafted(members, rates),
        update_ratio=_ratio(members, updates, params),
    )
    leaves = {name: r.rate.size for name, r in rates.items() if r.rate.size}
    if not leaves:
        return result
    chosen = sample(leaves, members, most)
    sizes = chosen.sizes.astype(np.float32)
    is_member = np.arange(chosen.place.shape[1]) < chosen.sizes[:, None]

    def mean(value: jax.Array) -> jax.Array:
        # 0/0 is the NaN of a group without a rate.
        return jnp.sum(value, axis=1, dtype=jnp.float32, where=is_member) / sizes

    def of_leaf(value: Callable[[Rate], Any]) -> jax.Array:
        """One number for each chosen coordinate, from one for each leaf."""
        values = [value(rates[name]) for name in leaves]
        distinct = list({id(v): v for v in values}.values())
        index = {id(v): i for i, v in enumerate(distinct)}
        rows = np.array([index[id(v)] for v in values])[chosen.leaf]
        table = jnp.stack([jnp.float32(v) for v in distinct])
        return jnp.broadcast_to(
            table if len(distinct) == 1 else _at(table, rows), rows.shape
        )

    def of_coordinate(value: Callable[[str, Rate], jax.Array]) -> jax.Array:
        """One number for each chosen coordinate, from one for each coordinate."""
        seen = [
            _take(value(name, rates[name]), positions).astype(jnp.float32)
            for name, positions in zip(leaves, chosen.positions, strict=True)
        ]
        return _at(jnp.concatenate(seen), chosen.place)

    def bound(value: Callable[[Rate], Any]) -> jax.Array:
        if all(jnp.ndim(value(rates[name])) == 0 for name in leaves):
            return of_leaf(value)
        return of_coordinate(lambda _, r: jnp.broadcast_to(value(r), r.rate.shape))

    v = of_coordinate(lambda _, r: r.rate)
    lower, upper = bound(lambda r: r.lower), bound(lambda r: r.upper)
    limit, schedule = of_leaf(lambda r: r.limit), of_leaf(lambda r: r.schedule)
    log_rate = jnp.where(is_member, jnp.log10(schedule * v), jnp.nan)
    is_shown = chosen.sizes > 0
    near_sgd = mean((v >= limit / factor) & (v <= limit * factor))
    since = jnp.where(before.sgd_since < 0, step, before.sgd_since)
    least = jnp.min(jnp.where(is_member, schedule * lower, jnp.inf), axis=1)
    largest = jnp.max(jnp.where(is_member, schedule * upper, 0.0), axis=1)
    if audit:
        held = is_member & ~jnp.isnan(limit) & ((v <= lower) | (v >= upper))
        whole = of_coordinate(lambda name, _: updates[name])
        at_bound = -schedule * v * of_coordinate(lambda _, r: r.direction)
        square = jnp.sum(whole**2, axis=1, where=is_member)
        of_bounds = jnp.sum(whole * at_bound, axis=1, where=held) / square
        result = result._replace(
            rate_elasticity=1.0 - of_bounds, bound_elasticity=of_bounds
        )
    return result._replace(
        quantiles=_quantiles(log_rate, chosen.sizes),
        histogram=_histogram(log_rate, sizes),
        lower=jnp.where(is_shown, least, jnp.nan),
        upper=jnp.where(is_shown, largest, jnp.nan),
        at_lower=mean(v <= lower),
        between=mean((v > lower) & (v < upper)),
        at_upper=mean(v >= upper),
        schedule=mean(schedule),
        sgd_rate=mean(schedule * limit),
        near_sgd=near_sgd,
        sgd_since=jnp.where(near_sgd >= share, since, -1),
    )


def _at(x: jax.Array, index: Any) -> jax.Array:
    """x[index] without a look at the ends, whose masks XLA makes at every step."""
    taken: jax.Array = x.at[index].get(mode="promise_in_bounds")
    return taken


def _take(leaf: jax.Array, positions: np.ndarray) -> jax.Array:
    if len(positions) == leaf.size:
        return leaf.ravel()
    # Not a slice of the flattened leaf: that gathers one that is sharded.
    return _at(leaf, np.unravel_index(positions, leaf.shape))


def _quantiles(log_rate: jax.Array, sizes: np.ndarray) -> jax.Array:
    """At `PROBABILITIES` of each row, each the nearest of its values."""
    # XLA on the CPU sorts integers in a quarter of the time.
    ordered = jnp.sort(_to_integers(log_rate), axis=1)
    last = np.maximum(sizes - 1, 0)
    ranks = np.rint(np.outer(last, PROBABILITIES)).astype(np.int32)
    rows = np.arange(len(sizes))[:, None]
    return _from_integers(_at(ordered, (rows, ranks)))


def _to_integers(x: jax.Array) -> jax.Array:
    """int32 in the order of float32 numbers, NaN last."""
    bits = jax.lax.bitcast_convert_type(x, jnp.int32)
    ordered = jnp.where(bits < 0, bits ^ jnp.iinfo(jnp.int32).max, bits)
    return jnp.where(jnp.isnan(x), jnp.iinfo(jnp.int32).max, ordered)


def _from_integers(n: jax.Array) -> jax.Array:
    bits = jnp.where(n < 0, n ^ jnp.iinfo(jnp.int32).max, n)
    return jax.lax.bitcast_convert_type(bits, jnp.float32)


def _histogram(log_rate: jax.Array, sizes: np.ndarray) -> jax.Array:
    """The share of each row's values in each bin; NaN is in none."""
    bins = len(EDGES) - 1
    position = (log_rate - EDGES[0]) / (EDGES[1] - EDGES[0])
    index = jnp.clip(jnp.floor(position), 0, bins - 1)
    index = jnp.where(jnp.isnan(log_rate), bins, index).astype(jnp.int32)
    rows = np.arange(len(sizes))[:, None]
    counts = jnp.zeros((len(sizes), bins), jnp.float32).at[rows, index].add(1.0)
    shares: jax.Array = counts / np.maximum(sizes, 1)[:, None]
    return shares


def _grafted(members: dict[str, list[str]], rates: Mapping[str, Rate]) -> jax.Array:
    return _ratio(
        members,
        {name: r.schedule * r.free * widen(r.direction) for name, r in rates.items()},
        {name: r.direction for name, r in rates.items()},
    )


def _ratio(
    members: dict[str, list[str]],
    above: Mapping[str, jax.Array],
    below: Mapping[str, jax.Array] | None,
) -> jax.Array:
    """The ratio of two norms of each group; NaN for one that is not known."""
    if not below:
        return jnp.full(len(members), jnp.nan, jnp.float32)

    def squared_norms(tree: Mapping[str, jax.Array]) -> jax.Array:
        of_leaf = [jnp.sum(abs_sq(x)).astype(jnp.float32) for x in tree.values()]
        is_member = np.array(
            [[name in group for name in tree] for group in map(set, members.values())]
        )
        values = jnp.array(of_leaf, jnp.float32)
        return jnp.sum(jnp.where(is_member, values, 0.0), axis=1)

    return jnp.sqrt(squared_norms(above) / squared_norms(below))
