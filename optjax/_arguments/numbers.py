"""Kinds of numbers, and of functions in place of one."""

import math
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from optjax._arguments.kind import ARRAYS, Kind, is_real, is_uncalled, takes, uncalled
from optjax._precision import precise

_TINY, _HUGE = (float(x) for x in (np.finfo(np.float32).tiny, np.finfo(np.float32).max))
_INT32_MAX = 2**31 - 1


class Number(Kind):
    """One real number for which `holds`."""

    def __init__(self, words: str, holds: Callable[[float], bool], hint: str = ""):
        super().__init__(words, hint)
        self.holds = holds

    def accepts(self, value: Any) -> bool:
        if type(value) is float:
            return self.holds(value)
        if not isinstance(value, ARRAYS) and hasattr(value, "__jax_array__"):
            value = value.__jax_array__()
        if isinstance(value, ARRAYS):
            if not is_real(value.dtype) or value.shape:
                return False
            if isinstance(value, jax.core.Tracer):
                return True
        elif isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        try:
            return bool(self.holds(float(value)))
        except OverflowError:
            return self.holds(math.inf)

    def taken(self, value: Any) -> Any:
        return precise(value)

    def advice(self, value: Any) -> str:
        advice = [self.hint] if self.hint else []
        if isinstance(value, ARRAYS):
            if value.shape:
                advice = [_SEVERAL]
            elif is_real(value.dtype) and value.dtype.itemsize < 4:
                advice.append(_HALF)
        elif type(value) in (int, float) and 0 < abs(value) < _TINY:
            advice = ["In float32 it is 0"]
        elif type(value) in (int, float) and _HUGE < abs(value) < math.inf:
            advice = ["In float32 it is infinite"]
        return ". ".join(advice)


_SEVERAL = (
    "A hyper-parameter is one number; for several at a time take jax.vmap over the "
    "function that makes the optimizer"
)
_HALF = (
    "If `optax.inject_hyperparams` made this value from bfloat16 or float16 parameters,"
    " pass it hyperparam_dtype=jnp.float32"
)


class FunctionOr(Kind):
    """A function of one argument, or what is of another kind."""

    def __init__(self, words: str, other: Kind, hint: str):
        super().__init__(f"{words} or {other.words}", hint)
        self.other = other

    def accepts(self, value: Any) -> bool:
        if callable(value):
            return not is_uncalled(value) and takes(value, 1)
        return self.other.accepts(value)

    def taken(self, value: Any) -> Any:
        return value if callable(value) else self.other.taken(value)

    def advice(self, value: Any) -> str:
        if callable(value):
            return uncalled(value) or self.hint
        return self.other.advice(value)


class Whole(Kind):
    """A Python integer, or what Python takes for one."""

    def __init__(
        self,
        least: int,
        most: int = _INT32_MAX,
        hint: str = "",
        may_be_traced: bool = False,
    ):
        range_ = f">= {least}" if most == _INT32_MAX else f"from {least} to {most}"
        one = f"the integer {least}"
        super().__init__(one if least == most else f"an integer {range_}", hint)
        self.least, self.most, self.may_be_traced = least, most, may_be_traced

    def accepts(self, value: Any) -> bool:
        if isinstance(value, jax.core.Tracer):
            is_whole = jnp.issubdtype(value.dtype, jnp.integer) and not value.shape
            return self.may_be_traced and bool(is_whole)
        if isinstance(value, (bool, np.bool_)):
            return False
        try:
            return self.least <= operator.index(value) <= self.most
        except TypeError:
            return False

    def taken(self, value: Any) -> Any:
        return value if isinstance(value, jax.core.Tracer) else operator.index(value)

    def advice(self, value: Any) -> str:
        if isinstance(value, int) and value > self.most == _INT32_MAX:
            return "It is counted in int32, which ends at 2**31 - 1"
        if isinstance(value, jax.core.Tracer) and not self.hint:
            return "It shapes the program and cannot be traced"
        return self.hint


def _has_float64() -> bool:
    return bool(jnp.result_type(float) == jnp.float64)


def is_finite(x: float) -> bool:
    # Above, it would be infinite where it meets the gradient.
    return abs(x) <= _HUGE or (_has_float64() and math.isfinite(x))


def _is_positive(x: float) -> bool:
    # Below, it would be flushed to 0.
    return x >= _TINY or (_has_float64() and x > 0)


def nonnegative(hint: str = "") -> Kind:
    """A finite number >= 0; `hint` ends the message that refuses another."""
    return Number("finite and >= 0", lambda x: x >= 0 and is_finite(x), hint)


def positive(hint: str = "") -> Kind:
    """A finite number > 0."""
    return Number(
        "positive and finite", lambda x: _is_positive(x) and is_finite(x), hint
    )


def between(low: float, high: float, hint: str = "") -> Kind:
    """low <= x <= high."""
    return Number(f"in [{low:g}, {high:g}]", lambda x: low <= x <= high, hint)


def above(low: float, hint: str = "", most: float = _HUGE) -> Kind:
    """low < x <= most."""
    words = f"finite and > {low:g}" if most == _HUGE else f"in ({low:g}, {most:g}]"
    return Number(words, lambda x: low < x <= most, hint)


def at_least(low: float, hint: str = "") -> Kind:
    """A finite number x >= low."""
    return Number(f"finite and >= {low:g}", lambda x: x >= low and is_finite(x), hint)


def schedule(hint: str = "") -> Kind:
    """A function of the number of steps taken, 0, 1, …, or a finite number >= 0."""
    return FunctionOr(
        "a schedule",
        nonnegative(hint),
        "A schedule is called with the number of steps taken and nothing else",
    )
