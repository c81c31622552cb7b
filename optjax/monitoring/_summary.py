"""What is kept of the effective rates s_t · V_t: a few numbers a group."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

__all__ = [
    "EDGES",
    "PADDING",
    "PROBABILITIES",
    "Summary",
    "Tables",
    "coordinates_of",
    "empty",
    "fill",
    "quantiles_of",
    "read_tables",
]

#: The probabilities of `Summary.quantiles`.
PROBABILITIES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)

#: The edges, in log10 of the rate, of `Summary.histogram`: sixteen bins a decade.
EDGES = np.linspace(-10.0, 6.0, 257)


class Summary(NamedTuple):
    """The effective rates r = s_t · V_t of groups of coordinates after one step.

    A report has one of these for each group; of all of them together every field has
    an axis, the groups. Before it there may be another one: time, from `jax.lax.scan`,
    or the trials of a `jax.vmap`.

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


class Tables(NamedTuple):
    """What an optimizer's state keeps of all groups: two arrays with a row a group.

    They hold what was looked at and sums, from which `read_tables` makes summaries:
    what is not computed in the step is not compiled in it, and each array more of a
    state costs a step's call about a microsecond.

    Attributes:
      words: int32, the columns of `_COUNTS`, and the float32 bits of those of
        `_NUMBERS`.
      rates: float32, those looked at, in no order; `PADDING` fills up the rows.
    """

    words: Any
    rates: Any


#: No rate: those are not negative.
PADDING = np.float32(-1.0)

# Of the coordinates looked at it is said how many are where.
_COUNTS = ("step", "sgd_since", "at_lower", "between", "at_upper", "near_sgd")
_NUMBERS = (
    # The rates are to be multiplied by the factor.
    *("schedule", "sgd_rate", "factor", "lower", "upper"),
    # Squares of norms: ‖r ⊙ m‖, ‖m‖, ‖Δx‖, ‖x‖.
    *("adaptive", "direction", "update", "params"),
    # Sums of the audit: what of the step the bounds decide, and |step|².
    *("of_bounds", "step_square"),
)


def empty(groups: int, coordinates: int) -> Tables:
    """The tables of so many groups, and coordinates in each, before the first step."""
    return fill(
        jnp.full((groups, coordinates), PADDING), step=0, sgd_since=jnp.int32(-1)
    )


def coordinates_of(tables: Tables) -> int:
    """How many of a group the tables have room for."""
    width: int = tables.rates.shape[-1]
    return width


def fill(rates: jax.Array, **columns: Any) -> Tables:
    """The tables after a step.

    Args:
      rates: of each group a row.
      columns: of all groups one number, or one of each; 0 where not given.
    """
    # Side by side in one kernel; XLA makes more of a stack of them.
    names = (*_COUNTS, *_NUMBERS)
    shape = len(rates), len(names)
    place = jax.lax.broadcasted_iota(jnp.int32, shape, 1)
    words = jnp.zeros(shape, jnp.int32)
    for i, name in enumerate(names):
        if name in columns:
            is_count = name in _COUNTS
            column = jnp.asarray(columns[name], jnp.int32 if is_count else jnp.float32)
            column = jax.lax.bitcast_convert_type(column, jnp.int32)
            column = jax.lax.broadcast_in_dim(column, shape, range(column.ndim))
            words = jax.lax.select(place == i, column, words)
    return Tables(words, rates)


def quantiles_of(tables: Tables, probabilities: Sequence[float]) -> Any:
    """Of the rates of all groups, at a last axis of probabilities; while JAX traces."""
    is_rate = tables.rates != PADDING
    rates = jnp.where(is_rate, tables.rates, np.float32(np.nan))
    # The bits of what is not negative have its order, and NaN's are the largest; XLA on
    # the CPU sorts integers in a quarter of the time.
    words = jax.lax.bitcast_convert_type(rates, jnp.int32)
    last = jnp.maximum(is_rate.sum(-1, keepdims=True) - 1, 0)
    ranks = jnp.rint(last * np.array(probabilities, np.float32)).astype(jnp.int32)
    # What is equal has no order to keep, which would take twice as long.
    words = jax.lax.sort(words, is_stable=False)
    found = jnp.take_along_axis(words, ranks, axis=-1)
    factor = len(_COUNTS) + _NUMBERS.index("factor")
    found, factors = (
        jax.lax.bitcast_convert_type(x, jnp.float32)
        for x in (found, tables.words[..., factor, None])
    )
    return found * factors


def read_tables(tables: Tables) -> Summary:
    """The summaries in NumPy, of which every field has the groups for an axis."""
    words, rates = map(np.asarray, tables)
    numbers = np.ascontiguousarray(words[..., len(_COUNTS) :]).view(np.float32)
    of = {name: words[..., i] for i, name in enumerate(_COUNTS)}
    of |= {name: numbers[..., i] for i, name in enumerate(_NUMBERS)}
    is_rate = rates != PADDING
    n = np.float32(is_rate.sum(-1))
    last = np.maximum(n - 1, 0)[..., None]
    known = np.where(n > 0, np.float32(1), np.float32(np.nan))
    with np.errstate(all="ignore"):
        rates = np.where(is_rate, rates, np.float32(np.nan)) * of["factor"][..., None]
        log_rates = np.sort(np.log10(rates), axis=-1)
        ranks = np.rint(last * np.array(PROBABILITIES)).astype(int)
        # 0/0 is the NaN of a group without a rate.
        of_bounds = of["of_bounds"] / of["step_square"]
        return Summary(
            step=of["step"],
            quantiles=np.take_along_axis(log_rates, ranks, axis=-1),
            histogram=_histogram(log_rates) / np.maximum(n, 1)[..., None],
            lower=of["lower"] * known,
            upper=of["upper"] * known,
            at_lower=np.float32(of["at_lower"]) / n,
            between=np.float32(of["between"]) / n,
            at_upper=np.float32(of["at_upper"]) / n,
            schedule=of["schedule"] * known,
            sgd_rate=of["sgd_rate"] * known,
            near_sgd=np.float32(of["near_sgd"]) / n,
            sgd_since=of["sgd_since"],
            grafted_rate=np.sqrt(of["adaptive"] / of["direction"]),
            update_ratio=np.sqrt(of["update"] / of["params"]),
            rate_elasticity=1 - of_bounds,
            bound_elasticity=of_bounds,
        )


def _histogram(log_rates: np.ndarray) -> np.ndarray:
    """How many of the last axis are in each bin; NaN is in none."""
    bins = len(EDGES) - 1
    place = (log_rates - np.float32(EDGES[0])) / np.float32(EDGES[1] - EDGES[0])
    index = np.nan_to_num(np.clip(np.floor(place), 0, bins - 1), nan=bins).astype(int)
    rows = index.reshape(-1, index.shape[-1])
    rows = rows + np.arange(len(rows))[:, None] * (bins + 1)
    counts = np.bincount(rows.ravel(), minlength=len(rows) * (bins + 1))
    counts = counts.reshape(*log_rates.shape[:-1], bins + 1)[..., :-1]
    return counts.astype(np.float32)
