"""`checked` refuses what is not of the kind that a function's annotations say."""

import functools
import inspect
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, ParamSpec, TypeVar

from optjax._arguments.kind import Kind
from optjax._arguments.numbers import positive
from optjax._arguments.objects import FLAG, OrNone

_P = ParamSpec("_P")
_R = TypeVar("_R")


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
            return OrNone(kinds[0])
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
