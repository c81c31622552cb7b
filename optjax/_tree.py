"""Walk gradients and optimizer state together, or say where they differ."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

from optjax._observe import Observation, current
from optjax._precision import sqrt, store


def map_leaves(
    f: Callable[..., Any], updates: optax.Updates, *states: optax.Updates
) -> optax.Updates:
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
    rows, rebuild = _rows(updates, *states)
    if rows and _deferring() is not None:
        # Here, since it loads what importing optjax should not.
        from optjax._deferred import map_rows

        return rebuild(map_rows(f, rows))
    return rebuild(_each(f, rows))


def cast_leaves(values: optax.Updates, like: optax.Updates) -> optax.Updates:
    """Each leaf in the dtype of that of `like`, as `store` has it.

    Raises:
      ValueError: as `map_leaves` does.
    """
    rows, rebuild = _rows(values, like)
    observation = _deferring()
    if rows and observation is not None:
        from optjax._deferred import cast_rows

        return rebuild(cast_rows(observation, rows))
    return rebuild(_each(store, rows))


def pure(tree: Any) -> Any:
    """Arrays in place of the variables of Flax NNX, which only NNX makes."""
    nnx = sys.modules.get("flax.nnx")
    return tree if nnx is None else nnx.as_pure(tree)


def holds_arrays(field: Any) -> bool:
    """Whether a state's own field does.

    The scales of a compressed state are a tree like it, with None for its numbers.
    """
    return bool(jax.tree.leaves(field))


def root_leaves(tree: Any) -> Any:
    """The root of each leaf, as `sqrt` has it: one equation, not one a leaf."""
    rows, rebuild = _rows(tree)
    leaves = [leaf for (leaf,) in rows]
    if rows and _deferring() is not None:
        from optjax._deferred import root_rows

        return rebuild(root_rows(leaves))
    return rebuild(sqrt(leaves))


def _deferring() -> Observation | None:
    observation = current()
    return observation if observation is not None and observation.defers() else None


def _rows(updates: Any, *states: Any) -> tuple[list[Any], Callable[[Any], Any]]:
    """The leaves that belong together, and from one result for each the tree of them.

    Raises:
      ValueError: as `map_leaves` does.
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
    return list(zip(*columns, strict=True)), treedef.unflatten


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


def leaf_names(tree: Any) -> list[str]:
    """The name of each leaf, its path joined by "/", such as "hidden/kernel".

    Flax NNX hands `init` variables and `update` their values; the names agree.
    """
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    siblings = Counter(path[:-1] for path in paths)
    value = jax.tree_util.GetAttrKey("value")
    names = []
    for path in paths:
        # A variable has nothing but its value.
        if path and path[-1] == value and siblings[path[:-1]] == 1:
            path = path[:-1]
        names.append(jax.tree_util.keystr(path, simple=True, separator="/"))
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(
            "leaves are told apart by their paths joined by '/', but two are called "
            f"{twice[0]!r}. Name one of them otherwise."
        )
    return names


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
