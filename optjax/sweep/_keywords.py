"""Where a hyper-parameter goes: to the function that has a keyword of its name."""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from optjax.sweep._records import PLAIN

_BY_KEYWORD = (
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.KEYWORD_ONLY,
)
_POSITIONAL = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)


class Keywords(NamedTuple):
    """What a function can be given by keyword.

    Attributes:
      named: its parameters by name.
      takes_any: whether it takes any other too.
    """

    named: Mapping[str, inspect.Parameter]
    takes_any: bool = False


def keywords(function: Callable[..., Any], given: int = 0) -> Keywords:
    """As `declared`; none where the function, such as one in C, does not say."""
    try:
        return declared(function, given)
    except (TypeError, ValueError):
        return Keywords({})


def declared(function: Callable[..., Any], given: int = 0) -> Keywords:
    """The keywords of a function after those arguments that it is given by position.

    Raises:
      TypeError, ValueError: where it has no signature.
    """
    parameters = list(_signature(function).parameters.values())
    positional = [p for p in parameters if p.kind in _POSITIONAL][:given]
    return Keywords(
        {
            p.name: p
            for p in parameters
            if p.kind in _BY_KEYWORD and p not in positional
        },
        any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters),
    )


def as_data(taker: Keywords) -> Keywords:
    """The same without what may have no pickle: annotations and objects."""
    return taker._replace(
        named={
            name: inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=p.default if isinstance(p.default, PLAIN) else p.empty,
            )
            for name, p in taker.named.items()
        }
    )


def share(
    takers: Sequence[Keywords], values: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Each function's share: what it names, and any other that no function names."""
    named = {name for taker in takers for name in taker.named}
    return [
        {
            name: value
            for name, value in values.items()
            if name in taker.named or (taker.takes_any and name not in named)
        }
        for taker in takers
    ]


def with_keywords(
    function: Callable[..., Any], takers: Sequence[Keywords], *, given: int = 1
) -> Callable[..., Any]:
    """The function of so many arguments, saying that it takes the takers' keywords.

    What several take is required where one of them requires it, and is of the type that
    the first says.
    """
    merged: dict[str, inspect.Parameter] = {}
    for name, parameter in (p for taker in takers for p in taker.named.items()):
        known = merged.setdefault(name, parameter)
        if known.annotation is parameter.empty:
            known = known.replace(annotation=parameter.annotation)
        if parameter.default is parameter.empty:
            known = known.replace(default=parameter.empty)
        merged[name] = known.replace(kind=inspect.Parameter.KEYWORD_ONLY)
    positional = [
        inspect.Parameter(f"given_{i}", inspect.Parameter.POSITIONAL_ONLY)
        for i in range(given)
    ]
    parameters = [*positional, *merged.values()]
    if any(taker.takes_any for taker in takers):
        parameters.append(inspect.Parameter("others", inspect.Parameter.VAR_KEYWORD))
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return function


def of_the_trial(
    names: Iterable[str], trial: Keywords, optimizer: Keywords
) -> frozenset[str]:
    """Those hyper-parameters that are the trial's; the rest are the optimizer's.

    The optimizer's factory may take any keyword: it then has those that neither names.
    """
    return frozenset(
        name
        for name in names
        if name in trial.named
        or (trial.takes_any and name not in optimizer.named and not optimizer.takes_any)
    )


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    if isinstance(function, type) and function.__init__ is not object.__init__:  # type: ignore[misc]
        # Of a class whose metaclass is called, such as NNX's, that says more.
        function = functools.partial(function.__init__, None)  # type: ignore[misc]
    try:
        return inspect.signature(function, eval_str=True)
    except Exception:
        # An annotation may name what is imported for type checkers alone.
        return inspect.signature(function)
