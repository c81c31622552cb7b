"""Walk gradients and optimizer state together, or say where they differ."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from optjax.observe import Placeholder, is_followed
from optjax.precision import store

__all__ = ["map_leaves"]


def map_leaves(f: Callable[..., Any], updates: Any, *states: Any) -> Any:
    """Map `f` over the leaves of `updates` and the matching leaves of `states`.

    `jax.tree.map` broadcasts a (3,) gradient against a (1, 3) state without a
    word and reports a missing key without its path; an optimizer must do neither.

    Args:
      f: called with one leaf of each tree.
      updates: a tree of arrays; `None` is an empty subtree, as everywhere in JAX.
      *states: trees of the same structure, leaf shapes equal to those of `updates`.

    Returns:
      The tree of results, with the structure of `updates`.

    Raises:
      ValueError: where a tree lacks a leaf, has one too many or of another shape;
        the message names the path.
    """
    treedef: Any
    leaves, treedef = jax.tree.flatten(updates)
    columns = [leaves]
    for state in states:
        try:
            column = treedef.flatten_up_to(state)
        except (ValueError, TypeError, KeyError):
            raise ValueError(_first_difference(updates, state)) from None
        for leaf, other in zip(leaves, column, strict=True):
            if jnp.shape(leaf) != jnp.shape(other):
                raise ValueError(_first_difference(updates, state))
        columns.append(column)
    rows = zip(*columns, strict=True)
    if is_followed():
        return treedef.unflatten([_follow(f, *row) for row in rows])
    return treedef.unflatten([f(*row) for row in rows])


def _follow(f: Callable[..., Any], leaf: Any, *others: Any) -> Any:
    if f is not store:
        return Placeholder(jnp.shape(leaf), leaf.dtype)
    (like,) = others
    if leaf.dtype == like.dtype:
        return leaf
    return Placeholder(leaf.shape, like.dtype, source=leaf)


def _first_difference(updates: Any, state: Any) -> str:
    ours = _shapes_by_path(updates)
    theirs = _shapes_by_path(state)
    for path in [*ours, *(p for p in theirs if p not in ours)]:
        received, expected = ours.get(path, "no leaf"), theirs.get(path, "no leaf")
        if received != expected:
            where = f"at {path}" if path else "at the root"
            break
    else:
        where, received, expected = (
            "in their containers",
            str(jax.tree.structure(updates)),
            str(jax.tree.structure(state)),
        )
    return (
        "the gradients must have the structure and shapes of the parameters that "
        f"`init` was given: {where} the gradients have {received}, the parameters or "
        f"the state kept for them have {expected}. Pass `update` the gradients of the "
        "same parameters, or call `init` again."
    )


def _shapes_by_path(tree: Any) -> dict[str, str]:
    return {
        jax.tree_util.keystr(path): f"shape {jnp.shape(leaf)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
