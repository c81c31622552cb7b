"""What of a space is refused before anything is drawn, in words that name the key."""

import math
from collections.abc import Collection, Iterable, Mapping
from numbers import Real
from typing import Any

import numpy as np

from optjax._names import did_you_mean, listing
from optjax.sweep._errors import SweepError, in_own_code, one_line
from optjax.sweep._keywords import Keywords
from optjax.sweep._records import describe
from optjax.sweep._rows import YOUR_OWN
from optjax.sweep._space.distributions import Choice, LogUniform, Uniform
from optjax.sweep._space.searched import Searched, is_integer, is_required, keywords_of
from optjax.sweep._trial import Factory

_SMALLEST = float(np.finfo(np.float32).tiny)
_LARGEST = float(np.finfo(np.float32).max)


def check_is_taken(
    key: str,
    chosen: Collection[Searched],
    factories: Mapping[str, Factory],
    own: Keywords,
) -> None:
    """Refuse a key that nobody takes."""
    if any(key in optimizer.dimensions for optimizer in chosen):
        return
    names = ", ".join(optimizer.name for optimizer in chosen)
    if any(key in optimizer.parameters for optimizer in chosen):
        raise SweepError(f"{key} is restricted to optimizers other than {names}")
    takers = [n for n, f in factories.items() if key in keywords_of(n, f).named]
    if takers:
        hint = f"; {listing(takers, 5)} would"
    else:
        known = dict.fromkeys(p for optimizer in chosen for p in optimizer.parameters)
        hint = did_you_mean(key, known)
    nor = " and no function of the trial" if own.named else ""
    raise SweepError(f"no chosen optimizer ({names}){nor} takes {key!r}{hint}")


def check_values(optimizer: Searched) -> None:
    """Hand every value of a grid and both ends of a range to the factory."""
    required: dict[str, tuple[Any, ...]] = {}
    optional: dict[str, tuple[Any, ...]] = {}
    for key, dimension in optimizer.dimensions.items():
        if isinstance(dimension, Choice):
            values = dimension.values
        else:
            values = (float(dimension.low), float(dimension.high))
            if optimizer.is_static(key, 0.0):
                values = _whole_ends(optimizer, key, dimension)
        for value in values:
            if not optimizer.is_static(key, value):
                _check_fits_float32(f"{key}={value!r} of {optimizer.name}", value)
        if key in optimizer.own:
            continue
        needed = is_required(optimizer.parameters.get(key))
        (required if needed else optional)[key] = values
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
    if is_whole and is_integer(parameter, frozenset({int, "int"})):
        return int(dimension.low), int(dimension.high)
    what = "an integer" if is_integer(parameter, {int, "int"}) else "a boolean"
    raise SweepError(
        f"{key} of {optimizer.name} is {what} and cannot be drawn from {dimension}; "
        "give whole ends or a list of values"
    )


def _build(what: str, optimizer: Searched, values: Mapping[str, Any]) -> None:
    config = optimizer.config(values)
    # As float32 holds them: 0.99999999 is a good decay, but arrives as 1.
    hyper = {key: float(np.float32(value)) for key, value in config.hyper.items()}
    try:
        made = optimizer.factory(**hyper, **config.static)
    except ValueError as error:
        message = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise SweepError(f"{what}: {message}{in_own_code(error)}") from error
    except Exception as error:
        raise SweepError(f"{what}: {one_line(error)}{in_own_code(error)}") from error
    if made is None:
        raise SweepError(
            f"{what}: the factory must return an optimizer, got None; let it return"
        )


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


def check_finite(chosen: Iterable[Searched]) -> None:
    """Refuse ranges where a full product is asked for."""
    for optimizer in chosen:
        for key, dimension in optimizer.dimensions.items():
            if not isinstance(dimension, Choice):
                raise SweepError(
                    f"{key} is a range, from {dimension.low:g} to {dimension.high:g}, "
                    "so the space has no full product; pass draws=, the configurations "
                    "an optimizer, such as draws=16"
                )


def check_known_optimizer(
    where: str, name: Any, factories: Mapping[str, Factory]
) -> None:
    """Refuse a name that is no optimizer's."""
    if not isinstance(name, str):
        raise SweepError(f"{where}: an optimizer is given by its name, got {name!r}")
    if name not in factories:
        hint = did_you_mean(name, factories, YOUR_OWN)
        raise SweepError(f"{where}: there is no optimizer {name!r}{hint}")
