"""Read the effective rate of every leaf from the links of one update."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from optjax._observe import Observation, trace_once
from optjax._parts import Clip, ClipAround, Descend, Link, One, Product, Switched
from optjax._tree import leaf_names

__all__ = ["Rate", "is_same", "limit_of", "link_behind", "read_rates"]

# Bounds are taken to have converged if at this step they are within this factor of
# each other.
_FOREVER, _CONVERGED = 1e30, 1.001


class Rate(NamedTuple):
    """What one leaf's step is made of.

    Attributes:
      rate: V_t.
      lower: lo_t, one number or of the shape of the leaf.
      upper: hi_t, likewise.
      limit: the rate that both converge to, or are around now; NaN without one.
      free: V_t before it was bounded.
      direction: m_t.
      schedule: s_t.
    """

    rate: jax.Array
    lower: Any
    upper: Any
    limit: Any
    free: jax.Array
    direction: jax.Array
    schedule: Any = 1.0


def read_rates(links: Sequence[Link]) -> dict[str, Rate]:
    """The rate of each leaf that has one, by the leaf's name.

    Without bounds they are 0 and infinity, and what they converge to is NaN, save for
    SGD, whose rate is 1 at every step.
    """
    result: dict[str, Rate] = {}
    current: dict[str, Rate] = {}
    for index, link in enumerate(links):
        if isinstance(link.part, Product):
            v, m = link.part.rate, link.part.direction
            of_all = [v, *_bounds(link.part, links[:index]), m]
            # One number is that of every leaf.
            columns = [jax.tree.leaves(jax.tree.broadcast(x, v)) for x in of_all]
            current = {
                name: Rate(*leaf)
                for name, leaf in zip(
                    leaf_names(v), zip(*columns, strict=True), strict=True
                )
            }
            result |= current
        elif isinstance(link.part, Descend):
            s = link.part.now
            result |= {name: r._replace(schedule=s) for name, r in current.items()}
            current = {}
    return result


def _bounds(product: Product, before: Sequence[Link]) -> tuple[Any, Any, Any, Any]:
    """lo_t, hi_t, what they converge to, and the rate that they are bounds of."""
    v = product.rate
    if isinstance(product, Switched):
        found = product.sgd_rate
        return 0.0, jnp.inf, jnp.where(found > 0, found, jnp.nan), v
    match link_behind(v, before):
        case Link(part=One()):
            return 0.0, jnp.inf, 1.0, v
        case Link(part=ClipAround(lower=lower, upper=upper, rate=limit), received=free):
            return lower, upper, limit, free
        case Link(part=Clip(lower=lower, upper=upper, ends=ends), received=free):
            limit = jnp.nan if ends is None else limit_of(*ends)
            return lower, upper, limit, free
    return 0.0, jnp.inf, jnp.nan, v


def link_behind(tree: Any, links: Sequence[Link]) -> Link | None:
    """What returned the tree itself: what came before is in another unit."""
    behind = (link for link in reversed(links) if is_same(link.returned, tree))
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
