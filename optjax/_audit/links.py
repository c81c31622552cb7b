"""What the parts of an optimizer here say of its step, where they are within reach."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from optjax._observe import trace_of
from optjax._parts import Descend, Link, RelativeToBase, Root, Shifted
from optjax._precision import widen
from optjax._tree import leaf_names
from optjax.monitoring._rates import read_rates


class Told(NamedTuple):
    """What is known without turning anything; NaN of what has no such part.

    Attributes:
      at_bound: (leaves,), the share of coordinates whose rate is at a closing bound.
      below_floor: (leaves,), the share of those whose √ν is not above ε.
      learning_rate: the factor of the last part.
      waits: whether gradients are only gathered, as AdaShift's first are.
      is_relative: whether bounds are measured by the learning rate at first, α_0.
      stalled: (leaves,), the share of ν that half precision keeps where it is.
    """

    at_bound: Any
    below_floor: Any
    learning_rate: Any
    waits: Any
    is_relative: Any
    stalled: Any = jnp.nan


def read_links(links: Sequence[Link], names: Sequence[str], update: Any) -> Told:
    """Of the leaves by name. What happened in a `cond` within the update is over."""
    links = in_reach(links, update)
    at_bound: dict[str, Any] = {}
    for name, rate in read_rates(links).items():
        closes = ~jnp.isnan(jnp.asarray(rate.limit))
        is_at = (rate.rate <= rate.lower) | (rate.rate >= rate.upper)
        at_bound[name] = jnp.where(closes, _share(is_at), jnp.nan)
    below: dict[str, Any] = {}
    learning_rate: Any = jnp.nan
    waits, is_relative = jnp.array(False), jnp.array(False)
    for link in links:
        match link.part:
            case Shifted(rate=rates):
                still = [jnp.all(rate == 0) for rate in jax.tree.leaves(rates)]
                waits = jnp.all(jnp.stack(still))
            case Root(eps=eps, eps_root=eps_root):
                tree = link.received
                for name, nu in zip(
                    leaf_names(tree), jax.tree.leaves(tree), strict=True
                ):
                    root = jnp.sqrt(widen(nu) + eps_root)
                    below[name] = _share((root <= eps) | (nu <= eps_root))
            case Descend(now=now):
                learning_rate = now
            case RelativeToBase():
                is_relative = jnp.array(True)
    learning_rate = jnp.asarray(learning_rate, jnp.result_type(float))
    rows = _row(at_bound, names), _row(below, names)
    return Told(*rows, learning_rate, waits, is_relative)


def in_reach(links: Sequence[Link], update: Any) -> list[Link]:
    """Without those whose arrays belong to a trace that is over."""
    mine = {trace_of(leaf) for leaf in jax.tree.leaves(update)} | {None}
    return [
        link
        for link in links
        if all(trace_of(x) in mine for x in jax.tree.leaves((link.part, link.received)))
    ]


def _share(is_true: jax.Array) -> jax.Array:
    return jnp.mean(is_true.astype(jnp.result_type(float)))


def _row(found: dict[str, Any], names: Sequence[str]) -> jax.Array:
    kind = jnp.result_type(float)
    return jnp.stack([jnp.asarray(found.get(name, jnp.nan), kind) for name in names])
