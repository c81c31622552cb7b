"""From a bounded optimizer's state to that of the SGD that goes on for it."""

import functools
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax

from optjax._base_rate import BaseRateState
from optjax._direction import EmaState, TraceState
from optjax._places import is_counter

__all__ = ["hand_over"]

_Node = TypeVar("_Node")


def hand_over(old: optax.OptState, new: optax.OptState, per_sum: Any) -> Any:
    """The SGD's state with the momentum, the steps and the base of the old one.

    Args:
      old: the bounded optimizer's.
      new: the SGD's, as its `init` gives it.
      per_sum: the direction as a multiple of the sum that momentum SGD keeps.

    Raises:
      ValueError: where the old state has not what the new one needs.
    """
    memories: list[EmaState | TraceState] = [
        *_nodes(EmaState, old),
        *_nodes(TraceState, old),
    ]

    def carried(node: Any) -> Any:
        if not isinstance(node, TraceState):
            return node
        treedef: Any
        like, treedef = jax.tree.flatten(node.trace)
        if len(memories) != 1:
            raise ValueError(_not_the_state(f"{len(memories)} momenta"))
        (memory,) = memories
        if isinstance(memory, TraceState):
            kept, scale = memory.trace, 1.0
        else:
            kept, scale = memory.ema, per_sum
        # By leaves: Flax NNX keeps each in a variable, of one kind here, another there.
        leaves = jax.tree.leaves(kept)
        if list(map(jnp.shape, leaves)) != list(map(jnp.shape, like)):
            raise ValueError(_not_the_state("a momentum of other shapes"))
        return TraceState(
            treedef.unflatten(
                [
                    jnp.asarray(m / scale, x.dtype)
                    for m, x in zip(leaves, like, strict=True)
                ]
            )
        )

    new = jax.tree.map(carried, new, is_leaf=lambda node: isinstance(node, TraceState))
    if isinstance(new, BaseRateState):
        found = _nodes(BaseRateState, old)
        if len(found) != 1:
            raise ValueError(_not_the_state(f"{len(found)} base learning rates"))
        (base,) = jax.tree.leaves(found[0].base_lr)
        new = new._replace(base_lr=jnp.array(base, new.base_lr.dtype, copy=True))
    counts = _counts(old)

    def counted(path: Any, leaf: Any) -> Any:
        if not is_counter(path, leaf):
            return leaf
        if not counts:
            raise ValueError(_not_the_state("no count of steps"))
        # Some stand still, such as that of an average that is not debiased.
        return jnp.array(functools.reduce(jnp.maximum, counts), copy=True)

    return jax.tree_util.tree_map_with_path(counted, new)


def _nodes(kind: type[_Node], state: Any) -> list[_Node]:
    def is_one(node: Any) -> bool:
        return isinstance(node, kind)

    return [n for n in jax.tree.leaves(state, is_leaf=is_one) if isinstance(n, kind)]


def _counts(state: Any) -> list[Any]:
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return [leaf for path, leaf in leaves if is_counter(path, leaf)]


def _not_the_state(found: str) -> str:
    return (
        "hand_over needs the state of the optimizer that sgd_equivalent was given, and "
        f"its parameters; found {found} in it. Where that optimizer was part of a "
        "larger one, hand over its part of the state."
    )
