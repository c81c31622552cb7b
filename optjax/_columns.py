"""Leaves of a program, many laid together or some coordinates of each.

XLA makes a kernel or more of what happens to a leaf, and of one of which some
coordinates are taken it writes down all. Where leaves are pointwise in others, and all
in the same way, it is those that are laid together or taken, and the program of a
coordinate runs once.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal, Var

from optjax._deferred import Row, rows_of
from optjax._joint import Layout, Shape
from optjax._observe import Program
from optjax._pointwise import OneEquation, pointwise_form, run_pointwise

__all__ = ["Computed"]


class Computed:
    """What a program computes of these operands; each thing once, where asked for.

    Args:
      program: the program.
      operands: as `Program.compute` takes them.
    """

    def __init__(self, program: Program, *operands: Any):
        self._program = program
        self._known = program.known(*operands)
        # How each variable is made: by the rows of one equation, or by one of its own.
        self._rows: dict[Any, Row] = {}
        self._origins: dict[Any, int] = {}
        for equation in program.equations:
            rows = rows_of(equation)
            if rows is None:
                ones = [OneEquation(equation, out) for out in equation.outvars]
                rows = [(one, (), one.invars) for one in ones]
            else:
                self._origins |= dict.fromkeys(equation.outvars, id(equation))
            self._rows |= zip(equation.outvars, rows, strict=True)

    def atom(self, leaf: Any) -> Any:
        """A leaf of the program's as its variable; anything else is itself."""
        variable = self._program.variable(leaf)
        return leaf if variable is None else variable

    def values(self, atoms: Sequence[Any]) -> list[Any]:
        """What variables, literals and arrays are."""
        unknown = dict.fromkeys(a for a in atoms if self._is_left(a))
        if unknown:
            found = self._program.values([*unknown], self._known)
            self._known.update(zip(unknown, found, strict=True))
        return [self._there(a) for a in atoms]

    def _there(self, atom: Any) -> Any:
        if isinstance(atom, Literal):
            return atom.val
        return self._known[atom] if isinstance(atom, Var) else atom

    def value(self, leaf: Any) -> Any:
        """A leaf, computed."""
        return self.values([self.atom(leaf)])[0]

    def origin(self, leaf: Any) -> Any:
        """What those have in common that may be made alike."""
        atom = self.atom(leaf)
        return self._origins.get(atom, 0) if self._is_left(atom) else None

    def row(self, atom: Any) -> Row | None:
        """How it is made of others; None where it is known."""
        return self._rows[atom] if self._is_left(atom) else None

    def columns(self, layout: Layout) -> "Columns":
        """What lays out leaves of a block."""
        return Columns(self, layout)

    def _is_left(self, atom: Any) -> bool:
        """Whether it is still to be computed."""
        return isinstance(atom, Var) and atom not in self._known


class Columns:
    """Leaves of a block laid out, each column of them made once."""

    def __init__(self, computed: Computed, layout: Layout):
        self._computed, self._layout = computed, layout
        # Each with its atoms, so that no others get their ids.
        self._found: dict[tuple[int, ...], tuple[Any, Any]] = {}

    def __call__(self, leaves: Sequence[Any]) -> jax.Array:
        """The array of these leaves, or of a number for each."""
        column = self._column([self._computed.atom(leaf) for leaf in leaves])
        dtype = jnp.result_type(*leaves)
        return jnp.broadcast_to(jnp.asarray(column, dtype), self._layout.shape)

    def _column(self, atoms: Sequence[Any]) -> Any:
        name = tuple(map(id, atoms))
        if name not in self._found:
            self._found[name] = atoms, self._make(atoms)
        return self._found[name][1]

    def _make(self, atoms: Sequence[Any]) -> Any:
        computed, layout = self._computed, self._layout
        shapes = [_shape(atom) for atom in atoms]
        if not any(shapes):
            numbers = computed.values(atoms)
            is_one = all(number is numbers[0] for number in numbers)
            return numbers[0] if is_one else layout.spread(numbers)
        rows = _alike(map(computed.row, atoms), shapes)
        if rows is None:
            values = computed.values(atoms)
            return layout.lay([*map(jnp.broadcast_to, values, layout.shapes)])
        jaxpr, held, _ = rows[0]
        constants = [self._column([atom] * len(atoms)) for atom in held]
        lines = zip(*(operands for *_, operands in rows), strict=True)
        return run_pointwise(jaxpr, constants, [*map(self._column, lines)])[0]


def _shape(atom: Any) -> Shape:
    shape: Shape = atom.aval.shape if hasattr(atom, "aval") else jnp.shape(atom)
    return shape


def _alike(rows: Iterable[Row | None], shapes: Sequence[Shape]) -> list[Row] | None:
    """The rows, where one pointwise program is that of all but for their shapes."""
    found: list[Row] = []
    forms: dict[int, Any] = {}
    for row, shape in zip(rows, shapes, strict=True):
        if row is None:
            return None
        jaxpr, held, _ = row
        if id(jaxpr) not in forms:
            form = pointwise_form(jaxpr, shape)
            forms[id(jaxpr)] = form and (form, *map(id, held))
        found.append(row)
    first, *others = forms.values()
    is_one = first is not None and all(form == first for form in others)
    return found if is_one else None
