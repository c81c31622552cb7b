"""A space of hyper-parameters, and the configurations drawn from it.

A space maps names to what may stand there:

    space = {
        "optimizer": ["sgd", "adam", "adabound"],
        "learning_rate": log_uniform(1e-4, 1.0),
        "b1": [0.8, 0.9, 0.95],
        "eps": 1e-8,
        "final_lr": log_uniform(1e-2, 1.0),
    }

A plain value is fixed, a list, tuple or one-dimensional array is a grid. A key applies
to the optimizers whose factory takes it: above, `b1` is absent for sgd and `final_lr`
for all but adabound. `only` and `per_optimizer` say so explicitly.
"""

import inspect
import itertools
import math
import types
import typing
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from numbers import Integral, Real
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, get_args

import jax
import numpy as np

from optjax._arguments.checked import without_kind
from optjax._arguments.named import Count
from optjax._arguments.numbers import Whole
from optjax._arguments.objects import Instance, OneOf
from optjax._names import did_you_mean, listing
from optjax.sweep._errors import SweepError, checked, in_own_code
from optjax.sweep._records import Config, describe
from optjax.sweep._rows import FACTORIES
from optjax.sweep._space.distributions import (
    Choice,
    Distribution,
    LogUniform,
    PerOptimizer,
    Uniform,
)
from optjax.sweep._trial import Factory

__all__ = ["Draws", "Factories", "Method", "Space", "configurations"]

_MOST_CONFIGURATIONS = 1_000_000
_SMALLEST = float(np.finfo(np.float32).tiny)
_LARGEST = float(np.finfo(np.float32).max)


Space: TypeAlias = Annotated[
    Mapping[str, Any],
    Instance(
        Mapping,
        "a mapping of names to values",
        'Such as {"optimizer": "adam", "learning_rate": [0.1, 0.01]}',
    ),
]
Draws: TypeAlias = Annotated[int, Whole(1)]
MethodName = Literal["sobol", "random"]
Method: TypeAlias = Annotated[MethodName, OneOf(get_args(MethodName))]
Factories: TypeAlias = Annotated[
    Mapping[str, Factory], Instance(Mapping, "a mapping of names to factories")
]


@checked
def configurations(
    space: Space,
    *,
    draws: Draws | None = None,
    method: Method = "sobol",
    seed: Count = 0,
    factories: Factories | None = None,
) -> list[Config]:
    """The configurations of a space, checked.

    Without `draws`, which asks for a finite space, they are the full product: by
    optimizer, then by the first key given, the last key changing fastest. With
    `draws`, each optimizer gets that many points of the unit cube, one coordinate a
    key in the order given, mapped through the key's distribution: the same points for
    every optimizer, so that they are paired in the keys they share. A longer drawing
    begins with the shorter one.

    Configurations whose numbers are equal in float32 are kept once, so drawing from
    grids may give fewer than `draws`.

    A number becomes a traced hyper-parameter (`Config.hyper`), also when it is written
    as an integer. Static (`Config.static`, a compiled program for each value) are all
    values of a parameter of the factory that is annotated int or bool, or without an
    annotation has an int or bool default; an integer given through **kwargs; and
    everything that is not a real number, such as True, None or a string.

    Args:
      space: hyper-parameters by name, with the names of the optimizers under
        "optimizer", which may be left out where there is one factory.
      draws: configurations an optimizer; required if a distribution is continuous.
      method: "sobol" (scrambled Sobol points, which cover evenly, best with a power
        of two) or "random" (independent).
      seed: of the points, >= 0.
      factories: optimizers by name, by default the rows of `optjax.OPTIMIZERS`, those
        of installed packages, and any `module:attribute`. What one takes is read off
        its signature; of a `functools.partial`, a keyword preset can be overridden.

    Returns:
      At least one configuration.

    Raises:
      SweepError: naming the key, for one that no chosen optimizer takes, an unknown
        optimizer, a parameter without default that is missing, and a value that is out
        of range. Every value of a grid and both ends of a range are handed to the
        factory.

    Example:
      >>> from optjax.sweep import configurations, log_uniform
      >>> space = {"optimizer": ["adam", "adabound"],
      ...          "learning_rate": log_uniform(1e-4, 1.0), "final_lr": [0.1, 1.0]}
      >>> for config in configurations(space, draws=2):
      ...     print(config.optimizer, sorted(config.hyper))
      adam ['learning_rate']
      adam ['learning_rate']
      adabound ['final_lr', 'learning_rate']
      adabound ['final_lr', 'learning_rate']
    """
    if factories is None:
        factories = FACTORIES
    keys = [key for key in space if key != "optimizer"]
    names = _chosen_names(space, factories)
    dimensions = {key: _dimension(key, space[key], factories) for key in keys}
    chosen = [_restrict(name, factories[name], dimensions) for name in names]
    for key in keys:
        _check_is_taken(key, chosen, factories)
    for optimizer in chosen:
        _check_values(optimizer)
    if draws is None:
        _check_finite(chosen)
        count = sum(optimizer.product_size for optimizer in chosen)
    else:
        count = draws * len(chosen)
    if count > _MOST_CONFIGURATIONS:
        raise SweepError(
            f"the space has {count:,} configurations, and the most is "
            f"{_MOST_CONFIGURATIONS:,}; take a coarser grid or fewer draws="
        )
    if draws is None:
        drawn = (config for optimizer in chosen for config in optimizer.product())
    else:
        points = _unit_points(draws, len(keys), method, seed)
        rows = [dict(zip(keys, point, strict=True)) for point in points.tolist()]
        drawn = (optimizer.at(row) for optimizer in chosen for row in rows)
    distinct: dict[Any, Config] = {}
    for config in drawn:
        distinct.setdefault(_identity(config), config)
    return list(distinct.values())


class _Optimizer(NamedTuple):
    """One chosen optimizer and the dimensions that apply to it."""

    name: str
    factory: Factory
    parameters: Mapping[str, inspect.Parameter]
    dimensions: Mapping[str, Distribution]

    @property
    def product_size(self) -> int:
        return math.prod(len(values) for values in self._finite().values())

    def product(self) -> Iterator[Config]:
        finite = self._finite()
        for values in itertools.product(*finite.values()):
            yield self.config(dict(zip(finite, values, strict=True)))

    def at(self, unit: Mapping[str, float]) -> Config:
        return self.config(
            {key: dim.at(unit[key]) for key, dim in self.dimensions.items()}
        )

    def config(self, values: Mapping[str, Any]) -> Config:
        plain = {key: _python_value(value) for key, value in values.items()}
        static = {k: v for k, v in plain.items() if self.is_static(k, v)}
        hyper = {k: float(v) for k, v in plain.items() if k not in static}
        return Config(self.name, hyper, static)

    def is_static(self, key: str, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, Real):
            return True
        parameter = self.parameters.get(key)
        if parameter is None:
            return isinstance(value, Integral)
        return _is_integer(parameter)

    def _finite(self) -> dict[str, tuple[Any, ...]]:
        return {
            key: dim.values
            for key, dim in self.dimensions.items()
            if isinstance(dim, Choice)
        }


def _chosen_names(
    space: Mapping[str, Any], factories: Mapping[str, Factory]
) -> list[str]:
    if "optimizer" not in space:
        if len(factories) == 1:
            return list(factories)
        raise SweepError(
            'the space has no "optimizer"; add one or a list of '
            f"{listing(factories, 5)}"
        )
    chosen = _plain_dimension("optimizer", space["optimizer"])
    if not isinstance(chosen, Choice):
        raise SweepError(
            f"optimizer must be a name, a list or a choice of names, got {chosen}"
        )
    for name in chosen.values:
        _check_known_optimizer("optimizer", name, factories)
    return list(dict.fromkeys(chosen.values))


def _dimension(
    key: str, value: Any, factories: Mapping[str, Factory]
) -> Distribution | PerOptimizer:
    if not isinstance(value, PerOptimizer):
        return _plain_dimension(key, value)
    for name in value.by_name:
        _check_known_optimizer(key, name, factories)
    return PerOptimizer(
        {
            name: _plain_dimension(f"{key} of {name}", inner)
            for name, inner in value.by_name.items()
        }
    )


def _plain_dimension(where: str, value: Any) -> Distribution:
    if isinstance(value, (np.ndarray, jax.Array)) and value.ndim == 1:
        value = value.tolist()
    if isinstance(value, (list, tuple, range)):
        value = Choice(tuple(value))
    elif isinstance(value, PerOptimizer):
        raise SweepError(f"{where}: only and per_optimizer cannot stand here")
    elif isinstance(value, (Mapping, Set, Iterator)):
        raise SweepError(
            f"{where}: must be a value, a list of values or a distribution, got a "
            f"{type(value).__name__}; turn it into a list"
        )
    elif not isinstance(value, (Choice, Uniform, LogUniform)):
        value = Choice((value,))
    try:
        value.check()
    except SweepError as error:
        raise SweepError(f"{where}: {error}") from None
    return value


def _restrict(
    name: str,
    factory: Factory,
    dimensions: Mapping[str, Distribution | PerOptimizer],
) -> _Optimizer:
    """The optimizer with the dimensions that its factory takes."""
    parameters, takes_any = _parameters(name, factory)
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
        if _is_required(parameter) and key not in applicable:
            raise SweepError(
                f"{name} needs {key}, which the space does not give it; add {key} to "
                "the space"
            )
    return _Optimizer(name, factory, parameters, applicable)


def _parameters(
    name: str, factory: Factory
) -> tuple[Mapping[str, inspect.Parameter], bool]:
    """The parameters that can be given by keyword, and whether any other can."""
    if not callable(factory):
        raise SweepError(
            f"factories must map names to callables, but {name} is a "
            f"{type(factory).__name__}"
        )
    try:
        found = _signature(factory).parameters.values()
    except (TypeError, ValueError):
        raise SweepError(
            f"cannot tell what hyper-parameters {name} takes, as {factory!r} has no "
            "signature; wrap it in a function"
        ) from None
    by_keyword = (
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.KEYWORD_ONLY,
    )
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in found)
    return {p.name: p for p in found if p.kind in by_keyword}, takes_any


def _signature(factory: Factory) -> inspect.Signature:
    try:
        return inspect.signature(factory, eval_str=True)
    except Exception:
        # An annotation may name what is imported for type checkers alone.
        return inspect.signature(factory)


def _is_required(parameter: inspect.Parameter | None) -> bool:
    return parameter is not None and parameter.default is inspect.Parameter.empty


def _is_integer(parameter: inspect.Parameter) -> bool:
    """Whether the factory wants a Python integer or boolean, which no tracer is."""
    annotation = without_kind(parameter.annotation)
    if annotation in (inspect.Parameter.empty, Any):
        return isinstance(parameter.default, int)
    if isinstance(annotation, types.UnionType) or (
        typing.get_origin(annotation) is typing.Union
    ):
        members = set(typing.get_args(annotation)) - {type(None)}
    else:
        members = {annotation}
    return members <= {int, bool, "int", "bool"}


def _check_is_taken(
    key: str, chosen: Collection[_Optimizer], factories: Mapping[str, Factory]
) -> None:
    if any(key in optimizer.dimensions for optimizer in chosen):
        return
    names = ", ".join(optimizer.name for optimizer in chosen)
    if any(key in optimizer.parameters for optimizer in chosen):
        raise SweepError(f"{key} is restricted to optimizers other than {names}")
    takers = [n for n, f in factories.items() if key in _parameters(n, f)[0]]
    if takers:
        hint = f"; {listing(takers, 5)} would"
    else:
        known = dict.fromkeys(p for optimizer in chosen for p in optimizer.parameters)
        hint = did_you_mean(key, known)
    raise SweepError(f"no chosen optimizer ({names}) takes {key!r}{hint}")


def _check_values(optimizer: _Optimizer) -> None:
    """Hand every value of a grid and both ends of a range to the factory."""
    required: dict[str, tuple[Any, ...]] = {}
    optional: dict[str, tuple[Any, ...]] = {}
    for key, dimension in optimizer.dimensions.items():
        if isinstance(dimension, Choice):
            values = tuple(_python_value(value) for value in dimension.values)
        else:
            values = (float(dimension.low), float(dimension.high))
            if optimizer.is_static(key, 0.0):
                raise SweepError(
                    f"{key} of {optimizer.name} is an integer or a boolean and cannot "
                    f"be drawn from {dimension}; give a list of values"
                )
        for value in values:
            if not optimizer.is_static(key, value):
                _check_fits_float32(f"{key}={value!r} of {optimizer.name}", value)
        is_required = _is_required(optimizer.parameters.get(key))
        (required if is_required else optional)[key] = values
    base = {key: values[0] for key, values in required.items()}
    for key, values in (required | optional).items():
        for value in values:
            given = base | {key: value}
            # Optional keys come last, when the required ones are known to be good.
            blamed = given if key in required else {key: value}
            what = ", ".join(f"{k}={v!r}" for k, v in blamed.items())
            _build(f"{what} of {optimizer.name}", optimizer, given)
    together = base | {key: values[0] for key, values in optional.items()}
    _build(describe(optimizer.config(together)), optimizer, together)


def _build(what: str, optimizer: _Optimizer, values: Mapping[str, Any]) -> None:
    config = optimizer.config(values)
    # As float32 holds them: 0.99999999 is a good decay, but arrives as 1.
    hyper = {key: float(np.float32(value)) for key, value in config.hyper.items()}
    try:
        optimizer.factory(**hyper, **config.static)
    except Exception as error:
        message = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise SweepError(f"{what}: {message}{in_own_code(error)}") from error


def _check_fits_float32(what: str, value: Real) -> None:
    try:
        size = abs(float(value))
    except OverflowError:
        size = math.nan
    # Smaller numbers are flushed to 0. Infinity is for the factory to judge.
    if not (size == 0 or size == math.inf or _SMALLEST <= size <= _LARGEST):
        raise SweepError(
            f"{what}: must be a number that float32 holds, 0 or from "
            f"{_SMALLEST:.2g} to {_LARGEST:.2g} in size"
        )


def _check_finite(chosen: Iterable[_Optimizer]) -> None:
    for optimizer in chosen:
        for key, dimension in optimizer.dimensions.items():
            if not isinstance(dimension, Choice):
                raise SweepError(
                    f"{key} is a range, from {dimension.low:g} to {dimension.high:g}, "
                    "so the space has no full product; pass draws=, the configurations "
                    "an optimizer, such as draws=16"
                )


def _unit_points(draws: int, dimensions: int, method: str, seed: int) -> np.ndarray:
    """`draws` points of [0, 1)^dimensions; more draws begin with the same points."""
    generator = np.random.default_rng(seed)
    if method == "random":
        return generator.random((draws, dimensions))
    # scipy.stats takes long to import.
    from scipy.stats import qmc

    sobol = qmc.Sobol(dimensions, scramble=True, seed=generator)
    # SciPy warns of any other number, as their balance is only then complete.
    whole = (draws - 1).bit_length()
    return sobol.random_base2(whole)[:draws]


def _identity(config: Config) -> Any:
    hyper = tuple((key, np.float32(value)) for key, value in config.hyper.items())
    static = tuple(
        (key, type(value), _hashable(value)) for key, value in config.static.items()
    )
    return config.optimizer, hyper, static


def _hashable(value: Any) -> Any:
    try:
        hash(value)
    except TypeError:
        return id(value)
    return value


def _python_value(value: Any) -> Any:
    """NumPy and JAX scalars as Python's."""
    is_scalar = isinstance(value, (np.generic, np.ndarray, jax.Array)) and (
        value.ndim == 0
    )
    return value.item() if is_scalar else value


def _check_known_optimizer(
    where: str, name: Any, factories: Mapping[str, Factory]
) -> None:
    if not isinstance(name, str):
        raise SweepError(f"{where}: an optimizer is given by its name, got {name!r}")
    if name not in factories:
        raise SweepError(
            f"{where}: there is no optimizer {name!r}{did_you_mean(name, factories)}"
        )
