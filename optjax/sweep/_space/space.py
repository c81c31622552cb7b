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

import dataclasses
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, get_args

import jax
import numpy as np

from optjax._arguments.kind import Kind
from optjax._arguments.named import Count
from optjax._arguments.numbers import Whole
from optjax._arguments.objects import Instance, OneOf
from optjax._names import listing
from optjax.sweep._arguments import Trainable
from optjax.sweep._contract import as_make_trial
from optjax.sweep._errors import SweepError, checked
from optjax.sweep._keywords import Keywords, keywords
from optjax.sweep._records import Config
from optjax.sweep._rows import FACTORIES
from optjax.sweep._schedules import with_schedules
from optjax.sweep._space.checks import (
    check_finite,
    check_is_taken,
    check_known_optimizer,
    check_values,
)
from optjax.sweep._space.distributions import (
    Choice,
    Distribution,
    LogUniform,
    PerOptimizer,
    Static,
    Uniform,
)
from optjax.sweep._space.searched import Searched, restrict
from optjax.sweep._trial import Factory

_MOST_CONFIGURATIONS = 1_000_000


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
      draws: configurations an optimizer; required if a distribution is continuous. Of
        a space that is finite for all, at most as many as it has.
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
    if draws is not None:
        _check_draws([each for part in parts for each in part.chosen], draws)
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


def _check_draws(chosen: Sequence[Searched], draws: int) -> None:
    """See that there is something to draw, of one optimizer at least."""
    most = max(optimizer.product_size for optimizer in chosen)
    if most < draws and all(optimizer.is_finite for optimizer in chosen):
        raise SweepError(
            f"the space is finite, with at most {most:,} configurations an optimizer, "
            f"and draws={draws} asks for more; leave it out to run them all"
        )


def searched(
    space: Space,
    *,
    factories: Factories | None = None,
    trial: Trainable | None = None,
) -> list[Searched]:
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
    chosen: tuple[Searched, ...]

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
            restrict(name, factories[name], dimensions, own) for name in names
        )
        for key in keys:
            check_is_taken(key, chosen, factories, own)
        for optimizer in chosen:
            check_values(optimizer)
        return cls(keys, chosen)

    def size(self, draws: int | None) -> int:
        if draws is not None:
            return draws * len(self.chosen)
        check_finite(self.chosen)
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
        check_known_optimizer("optimizer", name, factories)
    return list(dict.fromkeys(chosen.values))


def _dimension(
    key: str, value: Any, factories: Mapping[str, Factory]
) -> Distribution | PerOptimizer:
    if not isinstance(value, PerOptimizer):
        return _plain_dimension(key, value)
    for name in value.by_name:
        check_known_optimizer(key, name, factories)
    return PerOptimizer(
        {
            name: _plain_dimension(f"{key} of {name}", inner)
            for name, inner in value.by_name.items()
        }
    )


def _plain_dimension(where: str, value: Any) -> Distribution:
    if isinstance(value, (np.ndarray, jax.Array)) and value.ndim == 1:
        value = value.tolist()
    if isinstance(value, (Choice, Uniform, LogUniform)):
        dimension: Distribution = value
    elif isinstance(value, (list, tuple, range)):
        dimension = Choice(tuple(value))
    elif isinstance(value, PerOptimizer):
        raise SweepError(f"{where}: only and per_optimizer cannot stand here")
    elif isinstance(value, (Mapping, Set, Iterator)):
        raise SweepError(
            f"{where}: must be a value, a list of values or a distribution, got a "
            f"{type(value).__name__}; turn it into a list"
        )
    else:
        dimension = Choice((value,))
    try:
        dimension.check()
    except SweepError as error:
        raise SweepError(f"{where}: {error}") from None
    if isinstance(dimension, Choice):
        values = tuple(map(_python_value, dimension.values))
        dimension = dataclasses.replace(dimension, values=values)
    return dimension


def _python_value(value: Any) -> Any:
    """NumPy and JAX scalars as Python's."""
    is_array = isinstance(value, (np.generic, np.ndarray, jax.Array))
    return value.item() if is_array and value.ndim == 0 else value


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
    points: np.ndarray = sobol.random_base2(whole)
    return points[:draws]


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
