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
for all but adabound. `only` and `per_optimizer` say so explicitly. A key that a
function of the trial takes applies to all.

A list of spaces is all of theirs, so that what depends on another choice has a space of
its own:

    [{"optimizer": "adam", "activation": "relu"},
     {"optimizer": "adam", "activation": "leaky", "slope": uniform(0.0, 0.3)}]
"""

import inspect
import itertools
import math
import types
import typing
from collections.abc import (
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
    Set,
)
from numbers import Integral, Real
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, get_args

import jax
import numpy as np

from optjax._arguments.checked import without_kind
from optjax._arguments.kind import Kind
from optjax._arguments.named import Count
from optjax._arguments.numbers import Whole
from optjax._arguments.objects import Instance, OneOf
from optjax._names import did_you_mean, listing
from optjax.sweep._arguments import Trainable
from optjax.sweep._contract import as_make_trial
from optjax.sweep._errors import SweepError, checked, in_own_code
from optjax.sweep._keywords import Keywords, declared, keywords, of_the_trial
from optjax.sweep._records import Config, describe
from optjax.sweep._rows import FACTORIES
from optjax.sweep._schedules import with_schedules
from optjax.sweep._space.distributions import (
    Choice,
    Distribution,
    LogUniform,
    PerOptimizer,
    Static,
    Uniform,
)
from optjax.sweep._trial import Factory

__all__ = [
    "Draws",
    "Factories",
    "Method",
    "Searched",
    "Space",
    "configurations",
    "keys_of",
    "same",
    "searched",
]

_MOST_CONFIGURATIONS = 1_000_000
_SMALLEST = float(np.finfo(np.float32).tiny)
_LARGEST = float(np.finfo(np.float32).max)


class _SpaceKind(Kind):
    def accepts(self, value: Any) -> bool:
        if isinstance(value, (list, tuple)) and not isinstance(value, Config):
            return bool(value) and all(isinstance(x, (Mapping, Config)) for x in value)
        return isinstance(value, (Mapping, Config))


Space: TypeAlias = Annotated[
    Mapping[str, Any] | Config | Sequence[Mapping[str, Any] | Config],
    _SpaceKind(
        "a mapping of names to values, a configuration, or a list of these",
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
    trial: Trainable | None = None,
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
    annotation has an int or bool default; integers given through **kwargs, or for a
    parameter of the trial's that has neither; `static` values; and everything that is
    not a real number, such as True, None or a string. A range at a parameter that is
    annotated int, or has an int default, gives integers, both ends among them.

    Args:
      space: hyper-parameters by name, with the names of the optimizers under
        "optimizer", which may be left out where there is one factory; or a list of such
        spaces and of configurations.
      draws: configurations an optimizer; required if a distribution is continuous.
      method: "sobol" (scrambled Sobol points, which cover evenly, best with a power
        of two) or "random" (independent).
      seed: of the points, >= 0.
      factories: optimizers by name, by default the rows of `optjax.OPTIMIZERS`, those
        of installed packages, and any `module:attribute`. What one takes is read off
        its signature; of a `functools.partial`, a keyword preset can be overridden.
      trial: as `run` takes it, for the hyper-parameters that are the trial's.

    Returns:
      At least one configuration.

    Raises:
      SweepError: naming the key, for one that neither a chosen optimizer takes nor the
        trial, or both, an unknown optimizer, a parameter without default that is
        missing, and a value that is out of range. Every value of a grid and both ends
        of a range are handed to the factory.

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
    parts = _parts(space, factories, trial)
    count = sum(part.size(draws) for part in parts)
    if count > _MOST_CONFIGURATIONS:
        raise SweepError(
            f"the space has {count:,} configurations, and the most is "
            f"{_MOST_CONFIGURATIONS:,}; take a coarser grid or fewer draws="
        )
    distinct: dict[Any, Config] = {}
    for part in parts:
        for config in part.drawn(draws, method, seed):
            distinct.setdefault(same(config), config)
    return list(distinct.values())


def searched(
    space: Space,
    *,
    factories: Factories | None = None,
    trial: Trainable | None = None,
) -> list["Searched"]:
    """What a search searches: each optimizer of each space.

    Raises:
      SweepError: as `configurations`.
    """
    parts = _parts(space, factories, trial)
    return [optimizer for part in parts for optimizer in part.chosen]


def _parts(
    space: Space, factories: Factories | None, trial: Trainable | None
) -> list["_Part"]:
    # How long a schedule is matters to none of the checks.
    factories = with_schedules(factories or FACTORIES, keys_of(space), steps=1)
    own = Keywords({}) if trial is None else keywords(as_make_trial(trial), 1)
    given: Any = [space] if isinstance(space, (Mapping, Config)) else space
    return [_Part.of(part, factories, own) for part in given]


def keys_of(space: Space) -> set[str]:
    """All keys, of its parts too."""
    if isinstance(space, Mapping):
        return {*space}
    if isinstance(space, Config):
        return {*space.hyper, *space.static}
    return set().union(*map(keys_of, space))


class _Part(NamedTuple):
    """One space, checked: its keys, and the optimizers that they apply to."""

    keys: tuple[str, ...]
    chosen: tuple["Searched", ...]

    @classmethod
    def of(
        cls,
        space: Mapping[str, Any] | Config,
        factories: Mapping[str, Factory],
        own: Keywords,
    ) -> "_Part":
        if isinstance(space, Config):
            numbers = dict(space.hyper)
            fixed = {key: Static((value,)) for key, value in space.static.items()}
            space = {"optimizer": space.optimizer, **numbers, **fixed}
        keys = tuple(key for key in space if key != "optimizer")
        names = _chosen_names(space, factories)
        dimensions = {key: _dimension(key, space[key], factories) for key in keys}
        chosen = tuple(
            _restrict(name, factories[name], dimensions, own) for name in names
        )
        for key in keys:
            _check_is_taken(key, chosen, factories, own)
        for optimizer in chosen:
            _check_values(optimizer)
        return cls(keys, chosen)

    def size(self, draws: int | None) -> int:
        if draws is not None:
            return draws * len(self.chosen)
        _check_finite(self.chosen)
        return sum(optimizer.product_size for optimizer in self.chosen)

    def drawn(self, draws: int | None, method: str, seed: int) -> Iterator[Config]:
        if draws is None:
            for optimizer in self.chosen:
                yield from optimizer.product()
            return
        points = _unit_points(draws, len(self.keys), method, seed)
        rows = [dict(zip(self.keys, point, strict=True)) for point in points.tolist()]
        for optimizer in self.chosen:
            yield from map(optimizer.at, rows)


class Searched(NamedTuple):
    """One chosen optimizer and the dimensions that apply to it.

    `parameters` are the factory's and the trial's, and `own` the keys of the trial's.
    """

    name: str
    factory: Factory
    parameters: Mapping[str, inspect.Parameter]
    dimensions: Mapping[str, Distribution]
    own: frozenset[str]

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
        plain = {key: _python_value(value) for key, value in values.items()}
        static = {k: v for k, v in plain.items() if self.is_static(k, v)}
        hyper = {k: float(v) for k, v in plain.items() if k not in static}
        return Config(self.name, hyper, static)

    def is_static(self, key: str, value: Any) -> bool:
        dimension = self.dimensions.get(key)
        if isinstance(value, bool) or not isinstance(value, Real):
            return True
        if isinstance(dimension, Static):
            return True
        parameter = self.parameters.get(key)
        if parameter is None:
            return isinstance(value, Integral)
        if key in self.own and _says_nothing(parameter):
            # All of them, so that 0 among rates is one of the rates.
            return isinstance(dimension, Choice) and all(
                isinstance(value, Integral) for value in dimension.values
            )
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
    own: Keywords,
) -> Searched:
    """The optimizer with the dimensions that its factory or the trial takes."""
    factory_takes = _keywords_of(name, factory)
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
        if _is_required(parameter) and key not in applicable:
            who = name if key in factory_takes.named else "the trial"
            raise SweepError(
                f"{who} needs {key}, which the space does not give it; add {key} to "
                "the space"
            )
    mine = of_the_trial(applicable, own, factory_takes)
    return Searched(name, factory, parameters, applicable, mine)


def _keywords_of(name: str, factory: Factory) -> Keywords:
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


def _is_required(parameter: inspect.Parameter | None) -> bool:
    return parameter is not None and parameter.default is inspect.Parameter.empty


def _says_nothing(parameter: inspect.Parameter) -> bool:
    return parameter.annotation is parameter.empty and _is_required(parameter)


def _is_integer(
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


def _check_is_taken(
    key: str,
    chosen: Collection[Searched],
    factories: Mapping[str, Factory],
    own: Keywords,
) -> None:
    if any(key in optimizer.dimensions for optimizer in chosen):
        return
    names = ", ".join(optimizer.name for optimizer in chosen)
    if any(key in optimizer.parameters for optimizer in chosen):
        raise SweepError(f"{key} is restricted to optimizers other than {names}")
    takers = [n for n, f in factories.items() if key in _keywords_of(n, f).named]
    if takers:
        hint = f"; {listing(takers, 5)} would"
    else:
        known = dict.fromkeys(p for optimizer in chosen for p in optimizer.parameters)
        hint = did_you_mean(key, known)
    nor = " and no function of the trial" if own.named else ""
    raise SweepError(f"no chosen optimizer ({names}){nor} takes {key!r}{hint}")


def _check_values(optimizer: Searched) -> None:
    """Hand every value of a grid and both ends of a range to the factory."""
    required: dict[str, tuple[Any, ...]] = {}
    optional: dict[str, tuple[Any, ...]] = {}
    for key, dimension in optimizer.dimensions.items():
        if isinstance(dimension, Choice):
            values = tuple(_python_value(value) for value in dimension.values)
        else:
            values = (float(dimension.low), float(dimension.high))
            if optimizer.is_static(key, 0.0):
                values = _whole_ends(optimizer, key, dimension)
        for value in values:
            if not optimizer.is_static(key, value):
                _check_fits_float32(f"{key}={value!r} of {optimizer.name}", value)
        if key in optimizer.own:
            continue
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


def _whole_ends(
    optimizer: Searched, key: str, dimension: Uniform | LogUniform
) -> tuple[int, int]:
    """The ends of a range of integers."""
    parameter = optimizer.parameters[key]
    is_whole = float(dimension.low).is_integer() and float(dimension.high).is_integer()
    if is_whole and _is_integer(parameter, frozenset({int, "int"})):
        return int(dimension.low), int(dimension.high)
    what = "an integer" if _is_integer(parameter, {int, "int"}) else "a boolean"
    raise SweepError(
        f"{key} of {optimizer.name} is {what} and cannot be drawn from {dimension}; "
        "give whole ends or a list of values"
    )


def _build(what: str, optimizer: Searched, values: Mapping[str, Any]) -> None:
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


def _check_finite(chosen: Iterable[Searched]) -> None:
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


def same(config: Config) -> Any:
    """What is equal of two configurations that compute the same."""
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
