"""Read the effective rate of every leaf from the records of one update."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from optjax._groups import leaf_names
from optjax._observe import Observation, Record, trace_once

__all__ = ["Rate", "is_same", "limit_of", "read_rates"]

# Bounds are taken to have converged if at this step they are within this factor of
# each other.
_FOREVER, _CONVERGED = 1e30, 1.001


class Rate(NamedTuple):
    """V_t of one leaf; lo_t and hi_t; the rate that both converge to; s_t."""

    rate: jax.Array
    lower: Any
    upper: Any
    limit: Any
    schedule: Any


def read_rates(records: Sequence[Record]) -> dict[str, Rate]:
    """The rate of each leaf that has one, by the leaf's name.

    Without bounds they are 0 and infinity, and what they converge to is NaN, save for
    SGD, whose rate is 1 at every step.
    """
    result: dict[str, Rate] = {}
    current: dict[str, Rate] = {}
    for index, record in enumerate(records):
        if record.kind == "precondition":
            v = record.values["rate"]
            lower, upper, limit = _bounds(record, records[:index])
            current = {
                name: Rate(leaf, lower, upper, limit, 1.0)
                for name, leaf in zip(leaf_names(v), jax.tree.leaves(v), strict=True)
            }
            result |= current
        elif record.kind == "descend":
            s = record.at_this_step("learning_rate")
            result |= {name: r._replace(schedule=s) for name, r in current.items()}
            current = {}
    return result


def _bounds(precondition: Record, before: Sequence[Record]) -> tuple[Any, Any, Any]:
    if "sgd_rate" in precondition.values:
        found = precondition.values["sgd_rate"]
        return 0.0, jnp.inf, jnp.where(found > 0, found, jnp.nan)
    # Only of the primitive that returned V itself: another's are in another unit.
    v = precondition.values["rate"]
    made_by = next((r for r in reversed(before) if is_same(r.returned, v)), None)
    if made_by is not None and made_by.kind == "rate_by_one":
        return 0.0, jnp.inf, 1.0
    if made_by is None or made_by.kind != "bound_clip":
        return 0.0, jnp.inf, jnp.nan
    lower, upper = made_by.values["lower"], made_by.values["upper"]
    at = made_by.at_this_step
    return at("lower"), at("upper"), limit_of(lower, upper)


def limit_of(lower: Any, upper: Any) -> Any:
    """The rate that two bounds converge to, NaN where they never meet."""

    def run(_: Observation) -> Any:
        low, high = (b(_FOREVER) if callable(b) else b for b in (lower, upper))
        return jnp.where(high <= low * _CONVERGED, low, jnp.nan)

    # Without the effects that a bound may have: no step is taken here.
    program = trace_once(run)
    return program.compute(program.value)


def is_same(one: Any, other: Any) -> bool:
    """Whether two trees hold the very same arrays."""
    ours, theirs = jax.tree.leaves(one), jax.tree.leaves(other)
    return len(ours) == len(theirs) and all(
        a is b for a, b in zip(ours, theirs, strict=True)
    )
