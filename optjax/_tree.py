"""Walk gradients and optimizer state together, or say where they differ."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from optjax._observe import current
from optjax._precision import sqrt

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
    rows = list(zip(*columns, strict=True))
    observation = current()
    if rows and observation is not None and observation.defers():
        # Here, since it loads what importing optjax should not.
        from optjax._deferred import map_rows

        return treedef.unflatten(map_rows(f, rows))
    if f is sqrt:  # One equation with a derivative of its own, not one a leaf.
        return treedef.unflatten(sqrt(leaves))
    return treedef.unflatten(_each(f, rows))


#: From this many leaves of one type on it pays to trace `f` once for all of them.
_MANY = 8


def _each(f: Callable[..., Any], rows: list[tuple[Any, ...]]) -> Iterator[Any]:
    """f of every row; while JAX traces, `f` itself once for all rows of one type.

    Most of the time that tracing takes is spent in Python and jax.numpy. The jaxpr
    that `f` gave for one leaf can be repeated for a thousand without either.
    """
    if not any(isinstance(leaf, jax.core.Tracer) for row in rows[:1] for leaf in row):
        yield from (f(*row) for row in rows)
        return
    # Here, since it loads what importing optjax should not.
    from jax.extend.core import jaxpr_as_fun

    types = [tuple(map(jax.typeof, row)) for row in rows]
    leaves_of = Counter(types)
    programs: dict[tuple[Any, ...], Callable[..., Any]] = {}
    for row, kind in zip(rows, types, strict=True):
        if leaves_of[kind] < _MANY:
            yield f(*row)
            continue
        if kind not in programs:
            programs[kind] = jaxpr_as_fun(jax.make_jaxpr(f)(*row))
        (result,) = programs[kind](*row)
        yield result


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
