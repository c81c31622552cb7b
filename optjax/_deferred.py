"""One equation for a function of many leaves, made only where it is wanted.

It stands in the programs of `trace_once` alone: bound in any other trace it is the
equations of the function itself, leaf by leaf.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, Primitive, jaxpr_as_fun

from optjax._observe import current
from optjax._precision import sqrt, store

__all__ = ["map_rows"]


class _Kind(NamedTuple):
    """The function as traced for rows of one type, and how many constants it holds."""

    jaxpr: Any
    constants: int


def map_rows(f: Callable[..., Any], rows: Sequence[tuple[Any, ...]]) -> list[Any]:
    """f of every row, as one equation; for `store`, the leaf where nothing is cast."""
    if f is store:
        kept = {i: store(*row) for i, row in enumerate(rows) if _is_of_type(*row)}
        casts = iter(_map_rows(f, [r for i, r in enumerate(rows) if i not in kept]))
        return [kept[i] if i in kept else next(casts) for i in range(len(rows))]
    return _map_rows(f, rows)


def _is_of_type(leaf: Any, like: Any) -> bool:
    return bool(leaf.dtype == like.dtype)


def _map_rows(f: Callable[..., Any], rows: Sequence[tuple[Any, ...]]) -> list[Any]:
    if not rows:
        return []
    leaves = [leaf for row in rows for leaf in row]
    if f is sqrt:  # One call for all leaves, with a derivative of its own.
        return _map.bind(*leaves, kinds=(), which=(), width=1, is_cast=False)
    numbers: dict[Any, int] = {}
    kinds: list[_Kind] = []
    constants: list[Any] = []
    which = []
    for row in rows:
        types = tuple(map(jax.typeof, row))
        if types not in numbers:
            closed = jax.make_jaxpr(f)(*row)
            numbers[types] = len(kinds)
            kinds.append(_Kind(closed.jaxpr, len(closed.consts)))
            constants += closed.consts
        which.append(numbers[types])
    return _map.bind(
        *constants,
        *leaves,
        kinds=tuple(kinds),
        which=tuple(which),
        width=len(rows[0]),
        is_cast=f is store,
    )


class _Map(Primitive):
    """Its equation where leaves are deferred, and what it stands for elsewhere."""

    multiple_results = True

    def bind(self, *operands: Any, **params: Any) -> Any:
        observation = current()
        if observation is None or not observation.defers():
            return _expand(*operands, **params)
        results = super().bind(*operands, **params)
        for i, leaf in enumerate(results):
            # A cast has no constants, and two operands a row.
            observation.defer(leaf, operands[2 * i] if params["is_cast"] else None)
        return results


_map = _Map("optjax_map")


def _expand(
    *operands: Any,
    kinds: Sequence[_Kind],
    which: Sequence[int],
    width: int,
    is_cast: bool,
) -> list[Any]:
    del is_cast
    if not kinds:
        roots: list[Any] = sqrt(list(operands))
        return roots
    functions, start = [], 0
    for kind in kinds:
        constants = operands[start : start + kind.constants]
        functions.append(jaxpr_as_fun(ClosedJaxpr(kind.jaxpr, list(constants))))
        start += kind.constants
    leaves = operands[start:]
    return [
        functions[kind](*leaves[i * width : (i + 1) * width])[0]
        for i, kind in enumerate(which)
    ]


@_map.def_abstract_eval
def _(*operands: Any, kinds: Any, which: Any, width: int, is_cast: bool) -> list[Any]:
    del width, is_cast
    if not kinds:
        return list(operands)
    return [kinds[kind].jaxpr.outvars[0].aval for kind in which]
