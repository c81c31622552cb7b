"""Programs that work coordinate by coordinate, and one run on other shapes."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp

#: Coordinate by coordinate, by the names that JAX gives them.
POINTWISE = frozenset(
    re.findall(
        r"\w+",
        """
        abs add add_any and atan2 bitcast_convert_type cbrt ceil clamp complex conj
        convert_element_type copy copy_p cos cosh div eq erf exp exp2 expm1 floor ge gt
        imag integer_pow is_finite le log log1p logistic lt max min mul ne neg nextafter
        not or pow real reduce_precision rem round rsqrt select_n shift_left
        shift_right_arithmetic shift_right_logical sign sin sinh sqrt square
        stop_gradient sub tan tanh xor
        """,
    )
)
# Calls that are written out.
_CALLS = ("pjit", "jit", "closed_call", "custom_jvp_call", "custom_vjp_call")


def called(equation: Any) -> Any:
    """What an equation calls once with its own operands, or None."""
    for name in ("jaxpr", "call_jaxpr"):
        inner = equation.params.get(name)
        if equation.primitive.name in _CALLS and inner is not None:
            return inner
    return None


class OneEquation:
    """A program of one equation and one of its results.

    Attributes:
      constvars: none.
      invars: the variables that it is made of.
      eqns: the equation.
      outvars: the result.
    """

    def __init__(self, equation: Any, result: Any):
        self.constvars: list[Any] = []
        self.invars = [atom for atom in equation.invars if not hasattr(atom, "val")]
        self.eqns, self.outvars = [equation], [result]


def is_pointwise(jaxpr: Any, shape: tuple[int, ...]) -> bool:
    """Whether each coordinate of what it returns is made of the same one of operands.

    Of operands of one shape, and of single numbers.
    """
    for equation in jaxpr.eqns:
        inner = called(equation)
        if inner is not None:
            if not is_pointwise(inner.jaxpr, shape):
                return False
            continue
        name = equation.primitive.name
        if name == "broadcast_in_dim":
            if equation.invars[0].aval.shape:
                return False
        elif name not in POINTWISE:
            return False
        if any(var.aval.shape not in ((), shape) for var in equation.outvars):
            return False
    return True


def pointwise_form(jaxpr: Any, shape: tuple[int, ...]) -> Any:
    """What two pointwise programs have in common that are the same but for a shape.

    None for one that is not pointwise. What a program holds is not in its form.
    """
    if not is_pointwise(jaxpr, shape):
        return None
    number: dict[Any, Any] = {}
    form: list[Any] = []
    for var in (*jaxpr.constvars, *jaxpr.invars):
        number[var] = len(number)
        form.append(var.aval.dtype)
    for equation in jaxpr.eqns:
        inner = called(equation)
        if inner is not None:
            what: Any = pointwise_form(inner.jaxpr, shape), *map(id, inner.consts)
        elif equation.primitive.name == "broadcast_in_dim":
            what = "broadcast_in_dim"
        else:
            what = equation.primitive, str(equation.params)
        form.append((what, *(_name(atom, number) for atom in equation.invars)))
        for var in equation.outvars:
            number[var] = len(number)
    return (*form, *(_name(atom, number) for atom in jaxpr.outvars))


def _name(atom: Any, number: Mapping[Any, int]) -> Any:
    """The number of a variable; a literal, as itself and with its type."""
    if hasattr(atom, "val"):
        return repr(atom.val), atom.aval.dtype, atom.aval.weak_type
    return number[atom]


def run_pointwise(
    jaxpr: Any, constants: Sequence[Any], operands: Sequence[Any]
) -> list[Any]:
    """The results of a pointwise program on operands of another shape.

    What is the same for all coordinates is one number.
    """
    # Twenty-five modules, which `import optjax` does without.
    from jax.extend.core import Literal

    known = dict(zip(jaxpr.constvars, constants, strict=True))
    known |= dict(zip(jaxpr.invars, operands, strict=True))

    def value(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else known[atom]

    for equation in jaxpr.eqns:
        values = [value(atom) for atom in equation.invars]
        inner = called(equation)
        if inner is not None:
            results = run_pointwise(inner.jaxpr, inner.consts, values)
        elif equation.primitive.name == "broadcast_in_dim":
            results = values[:1]
        else:
            if equation.primitive.name == "select_n":
                types = [atom.aval.dtype for atom in equation.invars]
                values = jnp.broadcast_arrays(*map(jnp.asarray, values, types))
            result = equation.primitive.bind(*values, **equation.params)
            results = result if equation.primitive.multiple_results else [result]
        known.update(zip(equation.outvars, results, strict=True))
    return [value(atom) for atom in jaxpr.outvars]
