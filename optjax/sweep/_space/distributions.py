"""What may stand at a hyper-parameter: values to choose from, and ranges."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, TypeAlias

import numpy as np

from optjax.sweep._errors import SweepError


@dataclass(frozen=True)
class Choice:
    """Finitely many values, each as likely as the others."""

    values: tuple[Any, ...]

    def at(self, unit: float) -> Any:
        """The value of a number in [0, 1): each has an interval of equal length."""
        return self.values[min(int(unit * len(self.values)), len(self.values) - 1)]

    def check(self) -> None:
        """At least one value, and none that is itself a list or a distribution."""
        if not self.values:
            raise SweepError("needs at least one value, got none")
        nested = [v for v in self.values if isinstance(v, _DIMENSIONS)]
        if nested:
            raise SweepError(
                f"takes values, got the distribution {nested[0]} among them; give each "
                "optimizer its own with per_optimizer"
            )
        first = self.values[0]
        if len(self.values) == 1 and isinstance(first, (list, tuple, np.ndarray)):
            raise SweepError(
                f"takes the values themselves, got one {type(first).__name__}; write "
                "grid(*values)"
            )


@dataclass(frozen=True)
class Static(Choice):
    """Finitely many values, each with a compiled program of its own."""


@dataclass(frozen=True)
class Uniform:
    """The numbers from `low` to `high`."""

    low: float
    high: float

    def whole_at(self, unit: float) -> int:
        """The integer of a number in [0, 1), both ends among them."""
        return min(
            math.floor(self.low + unit * (self.high - self.low + 1)), int(self.high)
        )

    def at(self, unit: float) -> float:
        """The value of a number in [0, 1): low + unit · (high − low)."""
        return min(self.low + unit * (self.high - self.low), self.high)

    def check(self) -> None:
        """Two finite numbers, low < high."""
        _check_ends(self.low, self.high)


@dataclass(frozen=True)
class LogUniform:
    """The numbers from `low` to `high`, each decade as likely as the others."""

    low: float
    high: float

    def at(self, unit: float) -> float:
        """The value of a number in [0, 1): low · (high / low)^unit."""
        low, high = math.log(self.low), math.log(self.high)
        return min(max(math.exp(low + unit * (high - low)), self.low), self.high)

    def whole_at(self, unit: float) -> int:
        """The integer of a number in [0, 1), both ends among them."""
        whole = LogUniform(self.low, self.high + 1).at(unit)
        return min(math.floor(whole), int(self.high))

    def check(self) -> None:
        """Two finite numbers, 0 < low < high."""
        _check_ends(self.low, self.high)
        if self.low <= 0:
            raise SweepError(
                f"a logarithmic range needs 0 < low, got low={self.low!r}; it cannot "
                "reach 0, so take a small low or uniform(low, high)"
            )


Distribution: TypeAlias = Choice | Uniform | LogUniform


@dataclass(frozen=True)
class PerOptimizer:
    """What stands at a key for each optimizer named; for the others it is absent."""

    by_name: Mapping[str, Any]


_DIMENSIONS = (Choice, Uniform, LogUniform, PerOptimizer)


def grid(*values: Any) -> Choice:
    """Each of `values`; the same as a plain list.

    A finite space is run in full. Where `draws` are taken, a value is drawn from it.

    Example:
      >>> from optjax.sweep import configurations, grid
      >>> space = {"optimizer": "adam", "learning_rate": grid(0.1, 0.01)}
      >>> [config.hyper for config in configurations(space)]
      [{'learning_rate': 0.1}, {'learning_rate': 0.01}]
    """
    return Choice(values)


def choice(*values: Any) -> Choice:
    """One of `values`: `grid`, by the name that suits categories.

    Example:
      >>> from optjax.sweep import choice, configurations
      >>> space = {"optimizer": choice("sgd", "adam"), "learning_rate": 0.1}
      >>> [config.optimizer for config in configurations(space)]
      ['sgd', 'adam']
    """
    return Choice(values)


def static(*values: Any) -> Static:
    """One of `values`, with a compiled program for each though they are numbers.

    For a number that Python tests, such as the rate of a dropout layer that does
    nothing at 0.

    Example:
      >>> from optjax.sweep import configurations, static
      >>> space = {"optimizer": "adam", "learning_rate": 0.1, "b1": static(0.0, 0.9)}
      >>> [config.static for config in configurations(space)]
      [{'b1': 0.0}, {'b1': 0.9}]
    """
    return Static(values)


def uniform(low: float, high: float) -> Uniform:
    """A number from `low` to `high`; an integer where the function wants one.

    Both ends must suit the optimizer.

    Example:
      >>> from optjax.sweep import uniform
      >>> uniform(0.5, 0.9).at(0.5)
      0.7
    """
    return Uniform(low, high)


def log_uniform(low: float, high: float) -> LogUniform:
    """A number from `low` > 0 to `high`, its logarithm uniform; see `uniform`.

    For learning rates and all that is searched over several orders of magnitude.

    Example:
      >>> from optjax.sweep import log_uniform
      >>> round(log_uniform(1e-4, 1.0).at(0.5), 6)
      0.01
    """
    return LogUniform(low, high)


def per_optimizer(**by_name: Any) -> PerOptimizer:
    """A distribution, list or value for each optimizer named.

    For an optimizer that is not named the key is absent, and its factory's default
    holds. Every optimizer draws the same unit numbers, so the n-th draws stay a pair.

    Example:
      >>> from optjax.sweep import configurations, per_optimizer
      >>> space = {
      ...     "optimizer": ["sgd", "adam"],
      ...     "learning_rate": per_optimizer(sgd=[0.1, 1.0], adam=1e-3),
      ... }
      >>> for config in configurations(space):
      ...     print(config.optimizer, config.hyper)
      sgd {'learning_rate': 0.1}
      sgd {'learning_rate': 1.0}
      adam {'learning_rate': 0.001}
    """
    return PerOptimizer(by_name)


def only(distribution: Any, /, *optimizers: str) -> PerOptimizer:
    """A distribution, list or value for the optimizers named; absent for the others.

    Example:
      >>> from optjax.sweep import configurations, only
      >>> space = {
      ...     "optimizer": ["adam", "adamw"],
      ...     "learning_rate": 0.1,
      ...     "b1": only([0.0, 0.9], "adamw"),
      ... }
      >>> for config in configurations(space):
      ...     print(config.optimizer, config.hyper)
      adam {'learning_rate': 0.1}
      adamw {'learning_rate': 0.1, 'b1': 0.0}
      adamw {'learning_rate': 0.1, 'b1': 0.9}
    """
    return PerOptimizer(dict.fromkeys(optimizers, distribution))


def _check_ends(low: Any, high: Any) -> None:
    for name, value in (("low", low), ("high", high)):
        if isinstance(value, (bool, str)) or not isinstance(value, Real):
            raise SweepError(f"{name} must be a number, got {value!r}")
        if not math.isfinite(value):
            raise SweepError(f"{name} must be finite, got {value!r}")
    if not low < high:
        raise SweepError(
            f"low < high must hold, got low={low!r} and high={high!r}; swap them, or "
            "give a plain value for a fixed one"
        )
