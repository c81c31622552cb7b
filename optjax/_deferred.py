"""One equation for a function of many leaves, made only where it is wanted.

It stands in the programs of `trace_once` alone: bound in any other trace it is the
equations of the function itself, leaf by leaf.
"""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import accumulate
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, Primitive, jaxpr_as_fun

from optjax._observe import Observation, current
from optjax._precision import sqrt, store

__all__ = ["cast_rows", "map_rows", "root_rows", "row_of"]


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


def row_of(equation: Any, i: int) -> tuple[Any, Sequence[Any], Sequence[Any]] | None:
    """Of an equation of many leaves the i-th: its program, what it holds, and operands.

    None for any other equation.
    """
    if equation.primitive is _root:
        (leaf,) = equation.invars[i : i + 1]
        return _traced_sqrt(leaf.aval), (), [leaf]
    if equation.primitive is not _map:
        return None
    programs, which, width = (
        equation.params[n] for n in ("programs", "which", "width")
    )
    ends = [*accumulate(program.constants for program in programs)]
    number, first = which[i], ends[-1] + i * width
    held = equation.invars[ends[number] - programs[number].constants : ends[number]]
    return programs[number].jaxpr, held, equation.invars[first : first + width]


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
    constants, start = [], 0
    for program in programs:
        constants.append(operands[start : start + program.constants])
        start += program.constants
    leaves = operands[start:]
    rows = [leaves[i * width : (i + 1) * width] for i in range(len(which))]
    functions = [
        jaxpr_as_fun(ClosedJaxpr(program.jaxpr, list(own)))
        for program, own in zip(programs, constants, strict=True)
    ]
    return [functions[number](*row)[0] for number, row in zip(which, rows, strict=True)]


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
