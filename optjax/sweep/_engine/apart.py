"""A call that raises, done again in parts, to find the trials that raise by themselves.

What a lane does depends on no other, so the parts' results are the whole's.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

from optjax.sweep._engine.calls import Call
from optjax.sweep._engine.lane import Size
from optjax.sweep._engine.lanes import Assignment, Program
from optjax.sweep._engine.scheduler import Scheduler
from optjax.sweep._errors import of_a_call

Advance = Callable[[Any, Assignment, Size], tuple[Any, np.ndarray]]


class Apart(NamedTuple):
    """What a call has come to, but for the lanes that raise.

    Attributes:
      carry: the lanes after it.
      rows: as `Program.advance` returns them; None where nothing was measured.
      raised: by lane, what it raised, in one line.
    """

    carry: Any
    rows: np.ndarray | None
    raised: Mapping[int, str] = MappingProxyType({})

    @property
    def is_to_be_repeated(self) -> bool:
        """Whether to make it again, an evaluation at a time.

        So how far a trial came that raises does not depend on how long calls are.
        """
        return self.rows is None and not self.raised


def saved(program: Program, carry: Any) -> Sequence[np.ndarray] | None:
    """The lanes before a call, where one trial of it may raise."""
    return program.save(carry) if program.calls_host else None


def after_error(
    error: Exception,
    program: Program,
    before: Sequence[np.ndarray] | None,
    call: Call,
    told: Assignment,
    scheduler: Scheduler,
    advance: Advance,
) -> Apart:
    """What there is to do, or was done, after a call that has raised.

    Args:
      error: what it raised.
      program: of K lanes.
      before: the lanes as they were `saved`.
      call: the call; lanes that raise are taken out of it.
      told: what it was told.
      scheduler: which has not observed it.
      advance: what calls `Program.advance`.
    """
    if before is None:
        # It is no trial's own, and the states of all lanes are gone.
        all_lanes = scheduler.lanes().values()
        return Apart(program.start(), None, dict.fromkeys(all_lanes, of_a_call(error)))
    if call.size.evaluations > 1:
        return Apart(program.load(before), None)
    done = _advance(program, before, told, call.size, scheduler.idle, advance)
    call.lanes[[*done.raised]] = False
    return done


def _advance(
    program: Program,
    before: Sequence[np.ndarray],
    told: Assignment,
    size: Size,
    idle: np.ndarray,
    advance: Advance,
) -> Apart:
    """Do a call that has raised again, and by halves what raises again.

    For every lane that raises the call is done at most 1 + 2 log₂ K times. `idle` are
    the lanes that have no trial, shape (K,).
    """
    lanes = np.arange(len(idle))
    after = [array.copy() for array in before]
    sound: list[int] = []
    measured: dict[int, np.ndarray] = {}
    raised: dict[int, str] = {}
    parts = [np.flatnonzero(told.busy)]
    while parts:
        part = parts.pop()
        is_in = np.isin(lanes, part)
        # Some strategies run what is not busy with the rest: there copies of the part's
        # first lane run, which cannot raise unless that does.
        chosen = np.where(is_in, lanes, part[0])
        copies: Assignment = jax.tree.map(lambda array: array[chosen], told)  # noqa: B023
        carry = program.load([array[chosen] for array in before])
        try:
            carry, rows = advance(carry, copies._replace(busy=is_in), size)
        except Exception as error:
            if len(part) == 1:
                raised[int(part[0])] = of_a_call(error)
            else:
                parts += np.array_split(part, 2)
            continue
        sound += part.tolist()
        measured.update(zip(part.tolist(), rows[part], strict=True))
        for array, new in zip(after, program.save(carry), strict=True):
            array[part] = new[part]
    if not sound:
        return Apart(program.load(after), np.empty((len(lanes), 0, 0)), raised)
    # Nor is the next call to meet what has raised or ended.
    idle = idle | np.isin(lanes, [*raised])
    for array in after:
        array[idle] = array[sound[0]]
    like = measured[sound[0]]
    all_rows = np.full((len(lanes), *like.shape), np.nan, like.dtype)
    for lane, lane_rows in measured.items():
        all_rows[lane] = lane_rows
    return Apart(program.load(after), all_rows, raised)
