"""When closing bounds will meet the rates, by the rates of now.

The bounds of an optimizer here are known functions of the step. At which step they
begin to hold one coordinate in a hundred, and at which all but one, is found by
halving: each time the share that they would hold is counted.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from optjax._audit.links import in_reach
from optjax._observe import Observation, trace_once
from optjax._parts import Clip, ClipAround, Link, Product
from optjax._tree import leaf_names
from optjax.monitoring._rates import link_behind

#: Of the coordinates: the first, and all but the last.
SHARES = (0.01, 0.99)
# To a hundredth of a doubling, up to a step that no run has.
_ROUNDS, _DOUBLINGS = 12, 40.0


def held_at(links: Sequence[Link], update: Any, steps: jax.Array) -> dict[str, Any]:
    """The share of a leaf's rates that its bounds would hold at a step, by its name.

    Args:
      links: of one update.
      update: what it returned.
      steps: of every leaf, those at which to look; of shape (looks, leaves).
    """
    names, found = leaf_names(update), {}
    links = in_reach(links, update)
    for index, link in enumerate(links):
        if not isinstance(link.part, Product):
            continue
        behind = link_behind(link.part.rate, links[:index])
        ends = None if behind is None else _closing(behind.part)
        if behind is None or ends is None:
            continue
        rates = behind.received
        for name, rate in zip(leaf_names(rates), jax.tree.leaves(rates), strict=True):
            looks = steps[:, names.index(name)]
            bounds = [_at(ends, step) for step in looks]
            held = [(rate <= low) | (rate >= high) for low, high in bounds]
            kind = jnp.result_type(float)
            found[name] = jnp.stack([jnp.mean(one.astype(kind)) for one in held])
    return found


def meetings(
    held: Callable[[jax.Array], dict[str, Any]], names: Sequence[str]
) -> jax.Array:
    """The steps at which so many are held, of shape (shares, leaves).

    Infinite for never, and NaN of a leaf without closing bounds.
    """
    shape = len(SHARES), len(names)
    looks = jnp.zeros(shape, jnp.float32)
    bounded = jax.eval_shape(held, looks).keys()
    if not bounded:
        return jnp.full(shape, jnp.nan, jnp.float32)
    wanted = jnp.array(SHARES)[:, None]

    def halve(_: Any, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = (low + high) / 2
        share = held(2**middle)
        columns = [share.get(name, jnp.full(len(SHARES), jnp.nan)) for name in names]
        is_held = jnp.stack(columns, axis=1) >= wanted
        return jnp.where(is_held, low, middle), jnp.where(is_held, middle, high)

    _, found = jax.lax.fori_loop(0, _ROUNDS, halve, (looks, looks + _DOUBLINGS))
    steps = jnp.where(found < _DOUBLINGS, 2**found, jnp.inf)
    return jnp.where(jnp.array([name in bounded for name in names]), steps, jnp.nan)


def _closing(part: Any) -> tuple[Any, Any] | None:
    """Bounds that are known functions of the step."""
    if not isinstance(part, Clip) or isinstance(part, ClipAround):
        return None
    is_known = part.ends is not None and any(map(callable, part.ends))
    return part.ends if is_known else None


def _at(ends: tuple[Any, Any], step: jax.Array) -> tuple[Any, Any]:
    """Without the effects that a bound may have: no step is taken here."""

    def both(_: Observation, step: jax.Array) -> list[Any]:
        return [end(step) if callable(end) else end for end in ends]

    program = trace_once(both, step)
    low, high = program.compute(program.value, step)
    return low, high
