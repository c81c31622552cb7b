"""What each argument is: its annotation says so, and `checked` refuses the rest.

    @checked
    def ema(decay: Decay, debias: bool = True, ...):

For a type checker `Decay` is a number; for `checked` it is one in [0, 1). What is
concrete is checked before any work. Of what JAX traces only dtype and shape are known,
and only they are looked at. A number in half precision is handed on in float32.
"""

import functools
import inspect
import math
import operator
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Annotated, Any, ParamSpec, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optjax._precision import Scalar, precise

__all__ = [
    "FLAG",
    "ArrayTree",
    "Count",
    "Decay",
    "Finite",
    "FloatDType",
    "InexactDType",
    "Kind",
    "Mask",
    "Names",
    "NonNegative",
    "OptimizerState",
    "Positive",
    "Schedule",
    "Share",
    "Size",
    "Text",
    "Transformation",
    "WeightDecay",
    "above",
    "at_least",
    "between",
    "check",
    "check_positive",
    "checked",
    "checked_by",
    "dtype",
    "function",
    "function_or",
    "instance",
    "is_real_array",
    "kinds_of",
    "methods",
    "nonnegative",
    "number",
    "one_of",
    "or_none",
    "positive",
    "schedule",
    "shown",
    "vector",
    "whole",
    "without_kind",
]

_P = ParamSpec("_P")
_R = TypeVar("_R")

_TINY, _HUGE = (float(x) for x in (np.finfo(np.float32).tiny, np.finfo(np.float32).max))
_INT32_MAX = 2**31 - 1
_ARRAYS = (jax.Array, np.ndarray, np.generic)


class Kind:
    """What an argument is: `words` follow "must be" in the message that refuses it."""

    def __init__(self, words: str, hint: str = ""):
        self.words, self.hint = words, hint

    def __repr__(self) -> str:
        return self.words

    def accepts(self, value: Any) -> bool:
        """Whether a value may be handed on."""
        raise NotImplementedError

    def taken(self, value: Any) -> Any:
        """What the function gets of a value that is accepted."""
        return value

    def advice(self, value: Any) -> str:
        """What to do about a value that is refused."""
        del value
        return self.hint

    def fault(self, value: Any) -> str:
        """What is wrong with a value, to follow the argument's name; "" if nothing."""
        if self.accepts(value):
            return ""
        advice = self.advice(value)
        end = f" {advice}." if advice else ""
        return f"must be {self.words}, got {shown(value)}.{end}"


class _Number(Kind):
    """One real number for which `holds`."""

    def __init__(self, words: str, holds: Callable[[float], bool], hint: str = ""):
        super().__init__(words, hint)
        self.holds = holds

    def accepts(self, value: Any) -> bool:
        if type(value) is float:
            return self.holds(value)
        if not isinstance(value, _ARRAYS) and hasattr(value, "__jax_array__"):
            value = value.__jax_array__()
        if isinstance(value, _ARRAYS):
            if not _is_real(value.dtype) or value.shape:
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
        if isinstance(value, _ARRAYS):
            if value.shape:
                advice = [_SEVERAL]
            elif _is_real(value.dtype) and value.dtype.itemsize < 4:
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


class _FunctionOr(Kind):
    """A function of one argument, or what is of another kind."""

    def __init__(self, words: str, other: Kind, hint: str):
        super().__init__(f"{words} or {other.words}", hint)
        self.other = other

    def accepts(self, value: Any) -> bool:
        if callable(value):
            return not _is_uncalled(value) and _takes(value, 1)
        return self.other.accepts(value)

    def taken(self, value: Any) -> Any:
        return value if callable(value) else self.other.taken(value)

    def advice(self, value: Any) -> str:
        if callable(value):
            return _uncalled(value) or self.hint
        return self.other.advice(value)


class _Whole(Kind):
    """A Python integer, or what Python takes for one."""

    def __init__(self, least: int, most: int, hint: str, may_be_traced: bool):
        range_ = f">= {least}" if most == _INT32_MAX else f"from {least} to {most}"
        super().__init__(f"an integer {range_}", hint)
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

    def advice(self, value: Any) -> str:
        if isinstance(value, int) and value > self.most == _INT32_MAX:
            return "It is counted in int32, which ends at 2**31 - 1"
        if isinstance(value, jax.core.Tracer) and not self.hint:
            return "It shapes the program and cannot be traced"
        return self.hint


class _Flag(Kind):
    """True or False, by which a program is chosen."""

    def __init__(self) -> None:
        super().__init__("True or False")

    def accepts(self, value: Any) -> bool:
        return isinstance(value, (bool, np.bool_))

    def advice(self, value: Any) -> str:
        if isinstance(value, str):
            return "A text that is not empty would count as true"
        if isinstance(value, jax.core.Tracer):
            return "It chooses a program, which a traced value cannot"
        return ""


#: What `bool` means.
FLAG = _Flag()


class _DType(Kind):
    """A dtype, by any of its names."""

    def __init__(self, words: str, of: Any, hint: str):
        super().__init__(words, hint)
        self.of = of

    def accepts(self, value: Any) -> bool:
        if not isinstance(value, (str, type, np.dtype)):
            return False
        try:
            return bool(jnp.issubdtype(jnp.dtype(value), self.of))
        except TypeError:
            return False


class _OneOf(Kind):
    """One of a few names."""

    def __init__(self, names: Iterable[str]):
        self.names = tuple(names)
        super().__init__(f"one of {', '.join(self.names)}")

    def accepts(self, value: Any) -> bool:
        return isinstance(value, str) and value in self.names


class _Transformation(Kind):
    """What has `init` and `update`."""

    def __init__(self) -> None:
        super().__init__("a gradient transformation, with init and update")

    def accepts(self, value: Any) -> bool:
        functions = getattr(value, "init", None), getattr(value, "update", None)
        return not isinstance(value, type) and all(map(callable, functions))

    def advice(self, value: Any) -> str:
        return _uncalled(value) or "Such as optjax.adam(1e-3)"


class _Mask(Kind):
    """None, a tree of booleans, or a function of the parameters that returns one."""

    def __init__(self) -> None:
        super().__init__(
            "None, a tree of booleans, or a function of the parameters that returns one"
        )

    def accepts(self, value: Any) -> bool:
        if callable(value):
            return not _is_uncalled(value) and _takes(value, 1)
        leaves = jax.tree.leaves(value)
        return all(isinstance(leaf, (bool, np.bool_)) for leaf in leaves)


class _Tree(Kind):
    """A tree whose leaves have shape and dtype."""

    def __init__(self, words: str, hint: str, *, may_be_none: bool):
        super().__init__(words, hint)
        self.may_be_none = may_be_none

    def accepts(self, value: Any) -> bool:
        if value is None and not self.may_be_none:
            return False
        return all(map(_is_arraylike, jax.tree.leaves(value)))

    def advice(self, value: Any) -> str:
        for path, leaf in jax.tree_util.tree_leaves_with_path(value):
            if path and not _is_arraylike(leaf):
                at = jax.tree_util.keystr(path)
                return f"At {at} it has {shown(leaf)}; {self.hint}"
        return self.hint[:1].upper() + self.hint[1:]


class _Function(Kind):
    """A function that can be called with so many arguments."""

    def __init__(
        self,
        words: str,
        arguments: int | None,
        hint: str,
        *,
        may_be_class: bool,
        has_keywords: bool,
    ):
        super().__init__(words, hint)
        self.arguments, self.may_be_class = arguments, may_be_class
        self.has_keywords = has_keywords

    def accepts(self, value: Any) -> bool:
        if self.arguments is None or not callable(value):
            return callable(value)
        if isinstance(value, type) and not self.may_be_class:
            return False
        return _takes(value, self.arguments, or_more=self.has_keywords)


class _Instance(Kind):
    """What is of a class."""

    def __init__(self, of: type | tuple[type, ...], words: str, hint: str = ""):
        super().__init__(words, hint)
        self.of = of

    def accepts(self, value: Any) -> bool:
        return isinstance(value, self.of)


class _Methods(Kind):
    """What has methods of these names."""

    def __init__(self, names: tuple[str, ...], hint: str):
        super().__init__(f"an object with {' and '.join(names)}", hint)
        self.names = names

    def accepts(self, value: Any) -> bool:
        return all(callable(getattr(value, name, None)) for name in self.names)


class _Vector(Kind):
    """One axis of real numbers."""

    def __init__(self, words: str, size: int | None):
        super().__init__(words)
        self.size = size

    def accepts(self, value: Any) -> bool:
        if not isinstance(value, (np.ndarray, jax.Array)) or value.ndim != 1:
            return False
        return _is_real(value.dtype) and self.size in (None, value.size)


class _Names(Kind):
    """A name or some."""

    def __init__(self) -> None:
        super().__init__("a name or names")

    def accepts(self, value: Any) -> bool:
        if isinstance(value, str):
            return True
        is_collection = isinstance(value, (list, tuple, Set))
        return is_collection and all(isinstance(name, str) for name in value)


class _OrNone(Kind):
    def __init__(self, kind: Kind):
        super().__init__(f"None or {kind.words}")
        self.kind = kind

    def accepts(self, value: Any) -> bool:
        return not self.fault(value)

    def fault(self, value: Any) -> str:
        fault = "" if value is None else self.kind.fault(value)
        return fault.replace("must be ", "must be None or ", 1)

    def taken(self, value: Any) -> Any:
        return None if value is None else self.kind.taken(value)


def _has_float64() -> bool:
    return jnp.result_type(float) == jnp.float64


def _is_finite(x: float) -> bool:
    # Above, it would be infinite where it meets the gradient.
    return abs(x) <= _HUGE or (_has_float64() and math.isfinite(x))


def _is_positive(x: float) -> bool:
    # Below, it would be flushed to 0.
    return x >= _TINY or (_has_float64() and x > 0)


def nonnegative(hint: str = "") -> Kind:
    """A finite number >= 0; `hint` ends the message that refuses another."""
    return _Number("finite and >= 0", lambda x: x >= 0 and _is_finite(x), hint)


def positive(hint: str = "") -> Kind:
    """A finite number > 0."""
    return _Number(
        "positive and finite", lambda x: _is_positive(x) and _is_finite(x), hint
    )


def between(low: float, high: float, hint: str = "") -> Kind:
    """low <= x <= high."""
    return _Number(f"in [{low:g}, {high:g}]", lambda x: low <= x <= high, hint)


def above(low: float, hint: str = "", most: float = _HUGE) -> Kind:
    """low < x <= most."""
    words = f"finite and > {low:g}" if most == _HUGE else f"in ({low:g}, {most:g}]"
    return _Number(words, lambda x: low < x <= most, hint)


def at_least(low: float, hint: str = "") -> Kind:
    """A finite number x >= low."""
    return _Number(f"finite and >= {low:g}", lambda x: x >= low and _is_finite(x), hint)


def function_or(words: str, other: Kind, hint: str) -> Kind:
    """A function of one argument, or what is of another kind."""
    return _FunctionOr(words, other, hint)


def schedule(hint: str = "") -> Kind:
    """A function of the number of steps taken, 0, 1, …, or a finite number >= 0."""
    return _FunctionOr(
        "a schedule",
        nonnegative(hint),
        "A schedule is called with the number of steps taken and nothing else",
    )


def whole(
    least: int, most: int = _INT32_MAX, hint: str = "", may_be_traced: bool = False
) -> Kind:
    """An integer from `least` to `most`, a Python one unless it may be traced."""
    return _Whole(least, most, hint, may_be_traced)


def or_none(kind: Kind) -> Kind:
    """The kind, or None."""
    return _OrNone(kind)


def dtype(words: str, of: Any, hint: str = "") -> Kind:
    """A dtype, or the name of one, that is a subtype."""
    return _DType(words, of, hint)


def one_of(names: Iterable[str]) -> Kind:
    """One of the names."""
    return _OneOf(names)


def function(
    words: str,
    arguments: int | None = None,
    hint: str = "",
    *,
    may_be_class: bool = False,
    has_keywords: bool = False,
) -> Kind:
    """What can be called, with so many arguments where that is said.

    Args:
      words: what it is.
      arguments: how many.
      hint: what to do where it is none.
      may_be_class: whether it may be a class too.
      has_keywords: whether somebody else gives what more it requires, by keyword.
    """
    return _Function(
        words, arguments, hint, may_be_class=may_be_class, has_keywords=has_keywords
    )


def instance(of: type | tuple[type, ...], words: str, hint: str = "") -> Kind:
    """What is of a class."""
    return _Instance(of, words, hint)


def methods(*names: str, hint: str = "") -> Kind:
    """What has methods of these names."""
    return _Methods(names, hint)


def number(words: str, holds: Callable[[float], bool], hint: str = "") -> Kind:
    """One real number for which `holds`."""
    return _Number(words, holds, hint)


def vector(words: str, size: int | None = None) -> Kind:
    """An array of one axis, of so many numbers where that is said."""
    return _Vector(words, size)


#: β: the share of the old average that a step keeps.
Decay: TypeAlias = Annotated[
    Scalar,
    _Number(
        "in [0, 1)",
        lambda x: 0 <= x < 1,
        "It is the share of the old average that a step keeps: try 0.9 for gradients, "
        "0.999 for their squares",
    ),
]
NonNegative: TypeAlias = Annotated[Scalar, nonnegative()]
Positive: TypeAlias = Annotated[Scalar, positive()]
Finite: TypeAlias = Annotated[Scalar, _Number("finite", _is_finite)]
Share: TypeAlias = Annotated[float, between(0, 1)]
#: From 0, and from 1.
Count: TypeAlias = Annotated[int, whole(0)]
Size: TypeAlias = Annotated[int, whole(1)]
Schedule: TypeAlias = Annotated[
    optax.ScalarOrSchedule,
    schedule(
        "The update subtracts learning_rate times the direction, so a positive value "
        "descends"
    ),
]
WeightDecay: TypeAlias = Annotated[optax.ScalarOrSchedule, schedule()]
_CUT = "Such as jnp.bfloat16; integers would cut what is stored"
#: Of a first moment, which may be complex, and of squares, which are real.
InexactDType: TypeAlias = Annotated[
    Any, or_none(dtype("a floating-point or complex dtype", jnp.inexact, _CUT))
]
FloatDType: TypeAlias = Annotated[
    Any, or_none(dtype("a real floating-point dtype", jnp.floating, _CUT))
]
Transformation: TypeAlias = Annotated[optax.GradientTransformation, _Transformation()]
Mask: TypeAlias = Annotated[Any, _Mask()]
ArrayTree: TypeAlias = Annotated[
    Any, _Tree("a tree of arrays", "its leaves must be arrays", may_be_none=True)
]
OptimizerState: TypeAlias = Annotated[
    Any,
    _Tree(
        "an optimizer's state, a tree of arrays",
        "it is what init returned or update",
        may_be_none=False,
    ),
]

Text: TypeAlias = Annotated[str, instance(str, "a text")]
Names: TypeAlias = Annotated[str | Iterable[str], _Names()]


def kinds_of(function: Callable[..., Any]) -> dict[str, Kind | None]:
    """What each argument of a function is; None where its annotation does not say."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: _kind(p.annotation) for p in parameters}


def without_kind(annotation: Any) -> Any:
    """The annotation as a type checker takes it."""
    return typing.get_args(annotation)[0] if _is_annotated(annotation) else annotation


def _kind(annotation: Any) -> Kind | None:
    if _is_annotated(annotation):
        found = [x for x in typing.get_args(annotation) if isinstance(x, Kind)]
        return found[-1] if found else None
    if annotation is bool:
        return FLAG
    if isinstance(annotation, types.UnionType) or (
        typing.get_origin(annotation) is typing.Union
    ):
        members = typing.get_args(annotation)
        kinds = [kind for kind in map(_kind, members) if kind is not None]
        if type(None) in members and len(kinds) == 1 and len(members) == 2:
            return _OrNone(kinds[0])
    return None


def _is_annotated(annotation: Any) -> bool:
    return typing.get_origin(annotation) is Annotated


def checked(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """The function, which refuses what is not of the kind that its annotations say.

    Raises:
      ValueError: `NAME must be WHAT, got VALUE. ADVICE.`, before the function starts.
    """
    return checked_by(_value_error)(function)


def checked_by(
    error: Callable[[str, str], Exception],
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """`checked` with another error, made of the argument's name and the rest."""

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        kinds = kinds_of(function)
        parameters = inspect.signature(function).parameters
        others = next(
            (kinds[p.name] for p in parameters.values() if p.kind is p.VAR_KEYWORD),
            None,
        )
        by_position = [
            (name, kinds[name])
            for name, parameter in parameters.items()
            if parameter.kind
            in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        ]

        @functools.wraps(function)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            # Defaults are known to be good.
            given = list(args)
            for i, ((name, kind), value) in enumerate(
                zip(by_position, args, strict=False)
            ):
                if kind is not None:
                    if fault := kind.fault(value):
                        raise error(name, fault)
                    given[i] = kind.taken(value)
            for name, value in kwargs.items():
                kind = kinds.get(name, others)
                if kind is not None:
                    if fault := kind.fault(value):
                        raise error(name, fault)
                    kwargs[name] = kind.taken(value)
            return function(*given, **kwargs)  # type: ignore[arg-type]

        return call

    return decorate


def check(kind: Kind, **values: Any) -> None:
    """The same for values that only the body of a function knows."""
    for name, value in values.items():
        if fault := kind.fault(value):
            raise _value_error(name, fault)


def check_positive(hint: str = "", **values: Any) -> None:
    """0 < value < infinity."""
    check(positive(hint), **values)


def _value_error(name: str, fault: str) -> Exception:
    return ValueError(f"{name} {fault}")


def is_real_array(value: Any) -> bool:
    """Whether it is an array or scalar of NumPy's or JAX's, of real numbers."""
    return isinstance(value, _ARRAYS) and _is_real(value.dtype)


def _is_real(dtype: Any) -> bool:
    return bool(
        jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)
    )


def _is_arraylike(leaf: Any) -> bool:
    if isinstance(getattr(leaf, "shape", None), tuple) and hasattr(leaf, "dtype"):
        # NumPy's may also hold texts and objects.
        is_numpy = isinstance(leaf, (np.ndarray, np.generic))
        return not is_numpy or any(
            jnp.issubdtype(leaf.dtype, kind) for kind in (jnp.number, jnp.bool_)
        )
    return isinstance(leaf, (bool, int, float, complex))


def _takes(
    function: Callable[..., Any], arguments: int, *, or_more: bool = False
) -> bool:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # A builtin does not say.
        return True
    bind = signature.bind_partial if or_more else signature.bind
    try:
        bind(*[None] * arguments)
    except TypeError:
        return False
    return True


def _is_uncalled(value: Any) -> bool:
    """A class, or a function of these libraries that makes what is wanted.

    What it makes, a schedule or the functions of a transformation, is a local function.
    """
    if isinstance(value, type):
        return True
    module = str(getattr(value, "__module__", "")).partition(".")[0]
    # An object of theirs, such as a schedule, has no name.
    name = getattr(value, "__qualname__", "<an object>.")
    return module in ("optax", "optjax") and "." not in name


def _uncalled(value: Any) -> str:
    if not callable(value) or not _is_uncalled(value):
        return ""
    return f"It has not been called: {value.__name__}(...)"


_LONGEST = 60


def shown(value: Any) -> str:
    """A value as a message shows it, in one short line."""
    if isinstance(value, type):
        return value.__name__
    if inspect.isroutine(value) or isinstance(value, functools.partial):
        return f"the function {getattr(value, '__qualname__', 'functools.partial')}"
    if isinstance(value, jax.core.Tracer):
        return f"a traced {value.dtype}{list(value.shape)}"
    if isinstance(value, (np.ndarray, jax.Array)) and value.shape:
        return f"an array of shape {value.shape}"
    if isinstance(value, (str, bytes, Mapping, list, tuple, set, frozenset)):
        text = repr(value)
    else:
        text = str(value)
    text = " ".join(text.split())
    if len(text) > _LONGEST or not text:
        text = f"{text[: _LONGEST - 1]}… (a {type(value).__name__})"
    return text
