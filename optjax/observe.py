"""Look inside an update while JAX traces it.

A primitive wrapped by `recorded` tells what it computes, and whoever calls `update`
within `observing()` receives the records in the order of the computation. That is
Python at trace time: outside `observing()` nothing is kept, and the compiled program
is the same either way.

`observing(compute=False)` only follows an update: scalars are computed, and for the
arrays of parameters, moments and rates a `Placeholder` goes from one primitive to the
next. It tells what an update of thousands of leaves is made of without tracing any.

A record's arrays belong to the trace that made them. An optimizer that is called
inside another's `lax.cond` must be observed in there.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import optax

__all__ = ["Placeholder", "Record", "is_followed", "observing", "record", "recorded"]


class Record(NamedTuple):
    """What one primitive did in one update.

    Attributes:
        kind: the primitive's name, such as "ema" or "bound_clip".
        values: its hyper-parameters, by name.
        state: its state before.
        new_state: its state after.
        received: the updates that it was given.
        returned: the updates that it returned.
        params: the parameters that it was given.
    """

    kind: str
    values: dict[str, Any]
    state: Any
    new_state: Any
    received: Any
    returned: Any
    params: Any = None


class Placeholder:
    """An array that is not computed; `source` is what it would be a cast of.

    Code that asks for more than shape and dtype gets an error, never an answer: to
    Python any object has a truth value and can be compared.
    """

    __slots__ = ("dtype", "shape", "source")

    def __init__(self, shape: tuple[int, ...], dtype: Any, source: Any = None):
        self.shape, self.dtype, self.source = shape, dtype, source

    @property
    def ndim(self) -> int:
        """The number of dimensions, 0 to `jnp.ndim` of what has none."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements, 1 to `jnp.size` of what has none."""
        return math.prod(self.shape)

    def _unknown(self, *_: Any) -> Any:
        raise TypeError("the numbers of a placeholder are not computed")

    __eq__ = __ne__ = __bool__ = __array__ = _unknown
    __hash__ = object.__hash__


class _Observation(NamedTuple):
    records: list[Record]
    compute: bool


_current: ContextVar[_Observation | None] = ContextVar("observation", default=None)


@contextmanager
def observing(compute: bool = True) -> Iterator[list[Record]]:
    """Collect the records of the updates called inside the block."""
    observation = _Observation([], compute)
    token = _current.set(observation)
    try:
        yield observation.records
    finally:
        _current.reset(token)


def is_followed() -> bool:
    """Whether arrays are only followed, by placeholders, and not computed."""
    observation = _current.get()
    return observation is not None and not observation.compute


def record(new: Record) -> None:
    """Tell an observer, if there is one."""
    observation = _current.get()
    if observation is not None:
        observation.records.append(new)


def recorded(
    kind: str, transformation: optax.GradientTransformation, **values: Any
) -> optax.GradientTransformationExtraArgs:
    """The same transformation, each of its updates told to an observer."""
    inner = optax.with_extra_args_support(transformation)

    def update(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        returned, new_state = inner.update(updates, state, params, **extra)
        record(Record(kind, values, state, new_state, updates, returned, params))
        return returned, new_state

    return optax.GradientTransformationExtraArgs(inner.init, update)
