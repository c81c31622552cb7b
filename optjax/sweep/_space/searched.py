"""One optimizer of a space, with the dimensions that apply to it."""

import inspect
import itertools
import math
import types
import typing
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

from optjax._arguments.checked import without_kind
from optjax._names import did_you_mean, listing
from optjax.sweep._errors import SweepError
from optjax.sweep._keywords import Keywords, declared, of_the_trial
from optjax.sweep._records import Config
from optjax.sweep._space.distributions import Choice, Distribution, PerOptimizer, Static
from optjax.sweep._trial import Factory

# One for all configurations, of which there may be a million.
_NOTHING: dict[str, Any] = {}


@dataclass(frozen=True)
class Searched:
    """One chosen optimizer and the dimensions that apply to it.

    `parameters` are the factory's and the trial's, and `own` the keys of the trial's.
    """

    name: str
    factory: Factory
    parameters: Mapping[str, inspect.Parameter]
    dimensions: Mapping[str, Distribution]
    own: frozenset[str]
    _known: dict[tuple[str, bool], bool] = field(default_factory=dict, init=False)

    @property
    def is_finite(self) -> bool:
        return all(isinstance(of, Choice) for of in self.dimensions.values())

    @property
    def product_size(self) -> int:
        return math.prod(len(values) for values in self._finite().values())

    def product(self) -> Iterator[Config]:
        finite = self._finite()
        for values in itertools.product(*finite.values()):
            yield self.config(dict(zip(finite, values, strict=True)))

    @property
    def free(self) -> dict[str, Distribution]:
        """The dimensions in which there is something to choose."""
        return {
            key: dimension
            for key, dimension in self.dimensions.items()
            if not isinstance(dimension, Choice) or len(dimension.values) > 1
        }

    def at(self, unit: Mapping[str, float]) -> Config:
        """The configuration of numbers in [0, 1], for all that are free at least."""
        return self.config(
            {key: self.value_at(key, unit.get(key, 0.0)) for key in self.dimensions}
        )

    def value_at(self, key: str, unit: float) -> Any:
        """What stands at a key for a number in [0, 1)."""
        dimension = self.dimensions[key]
        if not isinstance(dimension, Choice) and self.is_static(key, 0.0):
            return dimension.whole_at(unit)
        return dimension.at(unit)

    def config(self, values: Mapping[str, Any]) -> Config:
        static = {k: v for k, v in values.items() if self.is_static(k, v)}
        hyper = {k: float(v) for k, v in values.items() if k not in static}
        return Config(self.name, hyper, static or _NOTHING)

    def is_static(self, key: str, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, Real):
            return True
        of = key, isinstance(value, Integral)
        if of not in self._known:
            self._known[of] = self._is_static(*of)
        return self._known[of]

    def _is_static(self, key: str, is_whole: bool) -> bool:
        dimension = self.dimensions.get(key)
        if isinstance(dimension, Static):
            return True
        parameter = self.parameters.get(key)
        if parameter is None:
            return is_whole
        if key in self.own and _says_nothing(parameter):
            # All of them, so that 0 among rates is one of the rates.
            return isinstance(dimension, Choice) and all(
                isinstance(value, Integral) for value in dimension.values
            )
        return is_integer(parameter)

    def _finite(self) -> dict[str, tuple[Any, ...]]:
        return {
            key: dim.values
            for key, dim in self.dimensions.items()
            if isinstance(dim, Choice)
        }


def restrict(
    name: str,
    factory: Factory,
    dimensions: Mapping[str, Distribution | PerOptimizer],
    own: Keywords,
) -> Searched:
    """The optimizer with the dimensions that its factory or the trial takes."""
    factory_takes = keywords_of(name, factory)
    for key in dimensions:
        if key in factory_takes.named and key in own.named:
            raise SweepError(
                f"{key} is a keyword of {name} and one of the trial's, so it cannot be "
                "told whose is meant; rename the trial's"
            )
    parameters = {**factory_takes.named, **own.named}
    takes_any = factory_takes.takes_any or own.takes_any
    applicable: dict[str, Distribution] = {}
    for key, dimension in dimensions.items():
        is_taken = takes_any or key in parameters
        if not isinstance(dimension, PerOptimizer):
            if is_taken:
                applicable[key] = dimension
        elif name in dimension.by_name:
            if not is_taken:
                raise SweepError(
                    f"{key} is given for {name}, which does not take it"
                    f"{did_you_mean(key, parameters)}"
                )
            applicable[key] = dimension.by_name[name]
    for key, parameter in parameters.items():
        if is_required(parameter) and key not in applicable:
            who = name if key in factory_takes.named else "the trial"
            has = f" of {listing(dimensions, 5)}" if dimensions else ""
            raise SweepError(
                f"{who} needs {key}, which the space{has} does not give it; add {key} "
                "to the space"
            )
    mine = of_the_trial(applicable, own, factory_takes)
    return Searched(name, factory, parameters, applicable, mine)


def keywords_of(name: str, factory: Factory) -> Keywords:
    """The keywords of an optimizer's factory."""
    if not callable(factory):
        raise SweepError(
            f"factories must map names to callables, but {name} is a "
            f"{type(factory).__name__}"
        )
    try:
        return declared(factory)
    except (TypeError, ValueError):
        raise SweepError(
            f"cannot tell what hyper-parameters {name} takes, as {factory!r} has no "
            "signature; wrap it in a function"
        ) from None


def is_required(parameter: inspect.Parameter | None) -> bool:
    """Whether there is no default."""
    return parameter is not None and parameter.default is inspect.Parameter.empty


def _says_nothing(parameter: inspect.Parameter) -> bool:
    return parameter.annotation is parameter.empty and is_required(parameter)


def is_integer(
    parameter: inspect.Parameter,
    kinds: Set[Any] = frozenset({int, bool, "int", "bool"}),
) -> bool:
    """Whether the function wants a Python integer or boolean, which no tracer is."""
    annotation = without_kind(parameter.annotation)
    if annotation in (inspect.Parameter.empty, Any):
        return type(parameter.default) in kinds
    if isinstance(annotation, types.UnionType) or (
        typing.get_origin(annotation) is typing.Union
    ):
        members = set(typing.get_args(annotation)) - {type(None)}
    else:
        members = {annotation}
    return members <= kinds
