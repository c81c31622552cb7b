"""A sweep in pieces, parts of a group that any process can run and run again.

A piece fills the lanes of one program once. Its records are written whole, to
pieces/N.json, so a piece that is run twice, by a worker that was lost and by another,
still counts once.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from optjax.sweep._engine.apart import Apart, after_error, saved
from optjax.sweep._engine.groups import make_groups
from optjax.sweep._engine.lanes import Program
from optjax.sweep._engine.plan import Plan
from optjax.sweep._errors import DamagedError, SweepError
from optjax.sweep._records import (
    FAILED,
    Record,
    TrialSpec,
    record_from_json,
    record_to_json,
)
from optjax.sweep._store.sealed import read_sealed, write_sealed
from optjax.sweep._store.store import named_errors
from optjax.sweep._strategies import Strategy, StrategyName
from optjax.sweep._trial import Factory, MakeTrial, State

_WHOLE = 2**31 - 1


class Piece(NamedTuple):
    """Trials of one group, in order."""

    number: int
    specs: tuple[TrialSpec, ...]


def split(groups: Sequence[Sequence[TrialSpec]], size: int) -> list[Piece]:
    """Cut each group's trials into pieces of at most `size`."""
    parts = [
        tuple(group[start : start + size])
        for group in groups
        for start in range(0, len(group), size)
    ]
    return [Piece(number, part) for number, part in enumerate(parts)]


def run_piece(
    make_trial: MakeTrial,
    factories: Mapping[str, Factory],
    piece: Piece,
    plan: Plan,
    strategy: StrategyName | Strategy,
) -> list[Record]:
    """Run a piece in this process as one compiled program."""
    return _run(make_trial, factories, piece, plan, strategy)[0]


def train_alone(
    make_trial: MakeTrial,
    factories: Mapping[str, Factory],
    spec: TrialSpec,
    plan: Plan,
    state: State | None = None,
) -> State:
    """Run one trial alone in a lane, from a state if given, and return its last one.

    Raises:
      SweepError: where it fails.
    """
    piece = Piece(0, (spec,))
    (record,), program, carry = _run(make_trial, factories, piece, plan, "map", state)
    if record.status == FAILED:
        raise SweepError(f"trial {spec.number} failed again: {record.message}")
    return program.state(carry, 0)


def _run(
    make_trial: MakeTrial,
    factories: Mapping[str, Factory],
    piece: Piece,
    plan: Plan,
    strategy: StrategyName | Strategy,
    state: State | None = None,
) -> tuple[list[Record], Program, Any]:
    """The piece's records, and the lanes as they are at the end.

    Where a state is given, the piece is one trial, which goes on from it.
    """
    (group,) = make_groups(make_trial, factories, piece.specs, plan)
    program = group.compile(plan, strategy)
    rungs = plan.rungs()
    scheduler, carry = group.schedule(plan, strategy, rungs), program.start()
    records: list[Record] = []
    if state is not None:
        carry = program.put(carry, 0, state)
    # Nothing is saved or shown in between.
    work = _WHOLE
    while not scheduler.is_done:
        call = group.next_call(plan, strategy, scheduler, work)
        told, before = scheduler.assignment(call.lanes), saved(program, carry)
        if state is not None:
            told = told._replace(fresh=np.zeros_like(told.fresh))
        try:
            done = Apart(*program.advance(carry, told, call.size))
        except Exception as error:
            done = after_error(
                error, program, before, call, told, scheduler, program.advance
            )
        carry = done.carry
        work = plan.evaluate_every if done.is_to_be_repeated else _WHOLE
        if done.rows is not None:
            records += scheduler.observe(call, scheduler.measured(call, done.rows))
        records += scheduler.fail(done.raised)
    return records, program, carry


def write_piece(directory: Path, piece: Piece, records: Sequence[Record]) -> None:
    """Write a finished piece, whole or not at all, with its digest.

    Raises:
      NotWrittenError: where there is no room for it.
    """
    path = _path(directory, piece)
    # Of a static value that is not plain data, its words; `read_piece` has the value.
    data = {"records": [record_to_json(record) for record in records]}
    with named_errors(directory, f"write piece {piece.number}"):
        path.parent.mkdir(exist_ok=True)
        write_sealed(path, data, default=repr)


def read_piece(directory: Path, piece: Piece) -> list[Record] | None:
    """A finished piece's records, or None where it is to be run.

    It is run too where its file is damaged or has other trials.
    """
    try:
        saved = read_sealed(_path(directory, piece))
    except DamagedError:
        return None
    if saved is None:
        return None
    records = [record_from_json(record) for record in saved["records"]]
    specs = {spec.number: spec for spec in piece.specs}
    if sorted(record.trial.number for record in records) != sorted(specs):
        return None
    return [record._replace(trial=specs[record.trial.number]) for record in records]


def _path(directory: Path, piece: Piece) -> Path:
    return directory / "pieces" / f"{piece.number:06d}.json"
