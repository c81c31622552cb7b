"""Look inside an update while JAX traces it.

A primitive wrapped by `recorded` tells what it computes, and whoever calls `update`
within `observing()` receives the records in the order of the computation. That is
Python at trace time: outside `observing()` nothing is kept, and the compiled program
is the same either way.

A record's arrays belong to the trace that made them. An optimizer that is called
inside another's `lax.cond` must be observed in there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import optax

__all__ = ["Record", "observing", "record", "recorded"]


class Record(NamedTuple):
    """What one primitive did in one update.

    Attributes:
        kind: the primitive's name, such as "ema" or "bound_clip".
        values: its hyper-parameters, by name.
        state: its state before.
        new_state: its state after.
        received: the updates that it was given.
        returned: the updates that it returned.
    """

    kind: str
    values: dict[str, Any]
    state: Any
    new_state: Any
    received: Any
    returned: Any


_records: ContextVar[list[Record] | None] = ContextVar("records", default=None)


@contextmanager
def observing() -> Iterator[list[Record]]:
    """Collect the records of the updates called inside the block."""
    records: list[Record] = []
    token = _records.set(records)
    try:
        yield records
    finally:
        _records.reset(token)


def record(new: Record) -> None:
    """Tell an observer, if there is one."""
    records = _records.get()
    if records is not None:
        records.append(new)


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
        record(Record(kind, values, state, new_state, updates, returned))
        return returned, new_state

    return optax.GradientTransformationExtraArgs(inner.init, update)
