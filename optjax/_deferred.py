"""One equation for a function of many leaves, made only where it is wanted.

It stands in the programs of `trace_once` alone: bound in any other trace it is the
equations of the function itself, leaf by leaf.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, Primitive, jaxpr_as_fun

from optjax._observe import Observation, current
from optjax._precision import sqrt, store

__all__ = ["Row", "cast_rows", "map_rows", "root_rows", "rows_of"]


#: A leaf's program, what that holds, and its operands.
Row = tuple[Any, Sequence[Any], Sequence[Any]]


class _Traced(NamedTuple):
    """A function as traced for rows of one type, and how many constants it holds."""

    jaxpr: Any
    constants: int


def map_rows(f: Callable[..., Any], rows: Sequence[tuple[Any, ...]]) -> list[Any]:
    """f of every row, as one equation."""
    if not rows:
        return []
    numbers: dict[Any, int] = {}
    programs: list[_Traced] = []
    constants: list[Any] = []
    which = []
    for row in rows:
        types = tuple(map(jax.typeof, row))
        if types not in numbers:
            closed = jax.make_jaxpr(f)(*row)
            numbers[types] = len(programs)
            programs.append(_Traced(closed.jaxpr, len(closed.consts)))
            constants += closed.consts
        which.append(numbers[types])
    leaves = [leaf for row in rows for leaf in row]
    results: list[Any] = _map.bind(
        *constants,
        *leaves,
        programs=tuple(programs),
        which=tuple(which),
        width=len(rows[0]),
    )
    return results


def cast_rows(
    observation: Observation, rows: Sequence[tuple[Any, Any]]
) -> list[jax.Array]:
    """`store` of every row, told as a cast; the leaf where nothing is cast."""
    narrow = [row for row in rows if not _is_of_type(*row)]
    casts = map_rows(store, narrow)
    for cast, (leaf, _) in zip(casts, narrow, strict=True):
        observation.defer(cast, source=leaf)
    left = iter(casts)
    return [store(*row) if _is_of_type(*row) else next(left) for row in rows]


def _is_of_type(leaf: Any, like: Any) -> bool:
    return bool(leaf.dtype == like.dtype)


def root_rows(leaves: Sequence[Any]) -> list[Any]:
    """The root of every leaf: one call, with a derivative of its own."""
    return _root.bind(*leaves)


def rows_of(equation: Any) -> list[Row] | None:
    """Of an equation of many leaves each one's row; None for any other equation."""
    if equation.primitive is _root:
        return [(_traced_sqrt(leaf.aval), (), [leaf]) for leaf in equation.invars]
    if equation.primitive is not _map:
        return None
    programs, which = equation.params["programs"], equation.params["which"]
    held, rows = _split(equation.invars, **equation.params)
    return [
        (programs[number].jaxpr, held[number], row)
        for number, row in zip(which, rows, strict=True)
    ]


@cache
def _traced_sqrt(aval: Any) -> Any:
    return jax.make_jaxpr(sqrt)(aval).jaxpr


class _Deferrable(Primitive):
    """Its equation where leaves are deferred, and what it stands for elsewhere."""

    multiple_results = True

    def __init__(
        self,
        name: str,
        expand: Callable[..., list[Any]],
        types: Callable[..., list[Any]],
    ):
        super().__init__(name)
        self._expand = expand
        Primitive.def_abstract_eval(self, types)

    def bind(self, *operands: Any, **params: Any) -> list[Any]:
        observation = current()
        if observation is None or not observation.defers():
            return self._expand(*operands, **params)
        results: list[Any] = Primitive.bind(self, *operands, **params)
        for leaf in results:
            observation.defer(leaf)
        return results


def _each(
    *operands: Any, programs: Sequence[_Traced], which: Sequence[int], width: int
) -> list[Any]:
    constants, rows = _split(operands, programs, which, width)
    functions = [
        jaxpr_as_fun(ClosedJaxpr(program.jaxpr, list(own)))
        for program, own in zip(programs, constants, strict=True)
    ]
    return [functions[number](*row)[0] for number, row in zip(which, rows, strict=True)]


def _split(
    operands: Sequence[Any],
    programs: Sequence[_Traced],
    which: Sequence[int],
    width: int,
) -> tuple[list[Sequence[Any]], list[Sequence[Any]]]:
    """What each program holds, and the leaves of each row."""
    constants, start = [], 0
    for program in programs:
        constants.append(operands[start : start + program.constants])
        start += program.constants
    leaves = operands[start:]
    return constants, [leaves[i * width : (i + 1) * width] for i in range(len(which))]


def _roots(*leaves: Any) -> list[Any]:
    roots: list[Any] = sqrt(leaves)
    return roots


def _types_of_each(
    *operands: Any, programs: Sequence[_Traced], which: Sequence[int], width: int
) -> list[Any]:
    del operands, width
    return [programs[number].jaxpr.outvars[0].aval for number in which]


def _types_of_roots(*leaves: Any) -> list[Any]:
    return list(leaves)


_map = _Deferrable("optjax_map", _each, _types_of_each)
_root = _Deferrable("optjax_root", _roots, _types_of_roots)
