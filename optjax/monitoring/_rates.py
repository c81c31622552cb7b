"""Read the effective rate of every leaf from the links of one update."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from optjax._observe import Observation, trace_once
from optjax._parts import Clip, Descend, Link, One, Part, Product, Switched
from optjax.monitoring._groups import leaf_names

__all__ = ["Rate", "is_same", "limit_of", "part_behind", "read_rates"]

# Bounds are taken to have converged if at this step they are within this factor of
# each other.
_FOREVER, _CONVERGED = 1e30, 1.001


class Rate(NamedTuple):
    """V_t of one leaf; lo_t and hi_t; the rate that both converge to; s_t; m_t.

    A bound is one number or has the shape of the leaf.
    """

    rate: jax.Array
    lower: Any
    upper: Any
    limit: Any
    schedule: Any
    direction: Any


def read_rates(links: Sequence[Link]) -> dict[str, Rate]:
    """The rate of each leaf that has one, by the leaf's name.

    Without bounds they are 0 and infinity, and what they converge to is NaN, save for
    SGD, whose rate is 1 at every step.
    """
    result: dict[str, Rate] = {}
    current: dict[str, Rate] = {}
    for index, link in enumerate(links):
        if isinstance(link.part, Product):
            v = link.part.rate
            *bounds, limit = _bounds(link.part, links[:index])
            # One number is that of every leaf.
            lower, upper = (jax.tree.leaves(jax.tree.broadcast(b, v)) for b in bounds)
            m = jax.tree.leaves(link.part.direction)
            leaves = zip(jax.tree.leaves(v), lower, upper, m, strict=True)
            current = {
                name: Rate(rate, low, high, limit, 1.0, direction)
                for name, (rate, low, high, direction) in zip(
                    leaf_names(v), leaves, strict=True
                )
            }
            result |= current
        elif isinstance(link.part, Descend):
            s = link.part.now
            result |= {name: r._replace(schedule=s) for name, r in current.items()}
            current = {}
    return result


def _bounds(product: Product, before: Sequence[Link]) -> tuple[Any, Any, Any]:
    if isinstance(product, Switched):
        found = product.sgd_rate
        return 0.0, jnp.inf, jnp.where(found > 0, found, jnp.nan)
    match part_behind(product.rate, before):
        case One():
            return 0.0, jnp.inf, 1.0
        case Clip(lower=lower, upper=upper, ends=ends):
            return lower, upper, jnp.nan if ends is None else limit_of(*ends)
    return 0.0, jnp.inf, jnp.nan


def part_behind(tree: Any, links: Sequence[Link]) -> Part | None:
    """The part that returned the tree itself: what came before is in another unit."""
    behind = (link.part for link in reversed(links) if is_same(link.returned, tree))
    return next(behind, None)


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
