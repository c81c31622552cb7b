"""One equation for a function of many leaves, made only where it is wanted.

It stands in the programs of `trace_once` alone: bound in any other trace it is the
equations of the function itself, leaf by leaf.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, Primitive, jaxpr_as_fun

from optjax._joint import current_joint, is_small
from optjax._observe import Observation, current
from optjax._pointwise import is_pointwise, run_pointwise
from optjax._precision import sqrt, store

__all__ = ["cast_rows", "map_rows", "root_rows"]


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
    results: list[Any] = [None] * len(rows)
    joint = current_joint()
    if joint is not None:
        for members in _alike(programs, constants, which, rows):
            number = which[members[0]]
            jaxpr, own = programs[number].jaxpr, constants[number]
            parts = joint.map(
                lambda *columns, jaxpr=jaxpr, own=own: run_pointwise(
                    jaxpr, own, columns
                )[0],
                [rows[i] for i in members],
                jaxpr.outvars[0].aval.dtype,
            )
            for i, part in zip(members, parts, strict=True):
                results[i] = part
    functions = [
        jaxpr_as_fun(ClosedJaxpr(program.jaxpr, list(own)))
        for program, own in zip(programs, constants, strict=True)
    ]
    return [
        functions[number](*row)[0] if result is None else result
        for number, row, result in zip(which, rows, results, strict=True)
    ]


def _alike(
    programs: Sequence[_Traced],
    constants: Sequence[Any],
    which: Sequence[int],
    rows: Sequence[Any],
) -> list[list[int]]:
    """Rows of small leaves of which one pointwise program can be run end to end.

    Two functions of a coordinate are the same where they are traced alike.
    """
    keys: dict[int, Any] = {}
    found: dict[Any, list[int]] = {}
    for i, (number, row) in enumerate(zip(which, rows, strict=True)):
        if not all(map(is_small, row)):
            continue
        if number not in keys:
            keys[number] = _of_one_coordinate(programs[number], constants[number])
        found.setdefault(keys[number], []).append(i)
    found.pop(None, None)
    return [members for members in found.values() if len(members) > 1]


def _of_one_coordinate(program: _Traced, constants: Sequence[Any]) -> Any:
    """What tells a pointwise program from others, None for one that is not."""
    jaxpr = program.jaxpr
    if not is_pointwise(jaxpr, jaxpr.invars[0].aval.shape):
        return None
    numbers = [jax.ShapeDtypeStruct((), var.aval.dtype) for var in jaxpr.invars]
    of_one = jax.make_jaxpr(partial(run_pointwise, jaxpr, constants))(numbers)
    return str(of_one), tuple(map(id, constants))


def _roots(*leaves: Any) -> list[Any]:
    joint = current_joint()
    roots: list[Any] = [None] * len(leaves)
    if joint is not None:
        alike: dict[Any, list[int]] = {}
        for i, leaf in enumerate(leaves):
            if is_small(leaf):
                alike.setdefault(leaf.dtype, []).append(i)
        for dtype, members in alike.items():
            parts = joint.map(sqrt, [leaves[i : i + 1] for i in members], dtype)
            for i, part in zip(members, parts, strict=True):
                roots[i] = part
    left = iter(sqrt([x for x, r in zip(leaves, roots, strict=True) if r is None]))
    return [next(left) if root is None else root for root in roots]


def _types_of_each(
    *operands: Any, programs: Sequence[_Traced], which: Sequence[int], width: int
) -> list[Any]:
    del operands, width
    return [programs[number].jaxpr.outvars[0].aval for number in which]


def _types_of_roots(*leaves: Any) -> list[Any]:
    return list(leaves)


_map = _Deferrable("optjax_map", _each, _types_of_each)
_root = _Deferrable("optjax_root", _roots, _types_of_roots)
