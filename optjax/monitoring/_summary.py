"""What is kept of the effective rates s_t · V_t: a few numbers a group."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

__all__ = [
    "EDGES",
    "PROBABILITIES",
    "Summary",
    "Tables",
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

    They hold sums, from which `read_tables` makes summaries: what is not computed in
    the step is not compiled in it, and each array more of a state costs a step's call
    about a microsecond.

    Attributes:
      counts: int32, `Summary.step` and `Summary.sgd_since`.
      numbers: float32, the columns of `_WIDTHS` side by side.
    """

    counts: Any
    numbers: Any


# How many columns each has. Those of coordinates are sums over the ones looked at.
_WIDTHS = {
    "quantiles": len(PROBABILITIES),
    "histogram": len(EDGES) - 1,
    **dict.fromkeys(
        (
            *("coordinates", "at_lower", "between", "at_upper", "near_sgd"),
            *("schedule", "sgd_rate", "lower", "upper"),
            # Squares of norms: ‖r ⊙ m‖, ‖m‖, ‖Δx‖, ‖x‖.
            *("adaptive", "direction", "update", "params"),
            # Of the audit: what of the step the bounds decide, and |step|².
            *("of_bounds", "step_square"),
        ),
        1,
    ),
}


def empty(groups: int) -> Tables:
    """The tables of so many groups before the first step."""
    row = [
        np.full(width, np.nan if name in ("quantiles", "step_square") else 0.0)
        for name, width in _WIDTHS.items()
    ]
    return Tables(
        jnp.tile(jnp.array([0, -1], jnp.int32), (groups, 1)),
        jnp.tile(jnp.asarray(np.concatenate(row), jnp.float32), (groups, 1)),
    )


def fill(step: Any, sgd_since: Any, before: Tables, **columns: Any) -> Tables:
    """The tables after a step; what is not given is as in `empty`.

    Args:
      step: the step.
      sgd_since: of each group.
      before: tables of the same groups.
      columns: of each group one number or a row of them.
    """
    groups = before.counts.shape[0]
    unknown = empty(1).numbers
    parts, start = [], 0
    for name, width in _WIDTHS.items():
        part = columns.get(name, unknown[0, start : start + width])
        start += width
        if jnp.shape(part) == (groups,) and name in columns:
            part = part[:, None]
        parts.append(jnp.broadcast_to(jnp.float32(part), (groups, width)))
    steps = jnp.full_like(sgd_since, step)
    return Tables(jnp.stack([steps, sgd_since], axis=1), jnp.concatenate(parts, axis=1))


def quantiles_of(tables: Tables) -> Any:
    """`Summary.quantiles` of all groups, also while JAX traces."""
    return tables.numbers[..., : _WIDTHS["quantiles"]]


def read_tables(tables: Tables) -> Summary:
    """The summaries in NumPy, of which every field has the groups for an axis."""
    numbers = np.asarray(tables.numbers)
    ends = np.cumsum([*_WIDTHS.values()])
    split = dict(zip(_WIDTHS, np.split(numbers, ends[:-1], axis=-1), strict=True))
    of = {name: x if _WIDTHS[name] > 1 else x[..., 0] for name, x in split.items()}
    n = of["coordinates"]
    with np.errstate(all="ignore"):
        # 0/0 is the NaN of a group without a rate.
        of_bounds = of["of_bounds"] / of["step_square"]
        return Summary(
            step=np.asarray(tables.counts)[..., 0],
            quantiles=of["quantiles"],
            histogram=of["histogram"] / np.maximum(n, 1)[..., None],
            lower=np.where(n > 0, of["lower"], np.float32(np.nan)),
            upper=np.where(n > 0, of["upper"], np.float32(np.nan)),
            at_lower=of["at_lower"] / n,
            between=of["between"] / n,
            at_upper=of["at_upper"] / n,
            schedule=of["schedule"] / n,
            sgd_rate=of["sgd_rate"] / n,
            near_sgd=of["near_sgd"] / n,
            sgd_since=np.asarray(tables.counts)[..., 1],
            grafted_rate=np.sqrt(of["adaptive"] / of["direction"]),
            update_ratio=np.sqrt(of["update"] / of["params"]),
            rate_elasticity=1 - of_bounds,
            bound_elasticity=of_bounds,
        )
