"""A sweep in chunks: pieces of a group that any process can run and run again.

A chunk fills the lanes of one program once. Its records are written whole, to
chunks/N.json, so a chunk that is run twice, by a worker that was lost and by another,
still counts once.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from optjax.sweep._engine.groups import Settings, make_groups
from optjax.sweep._problem import DamagedError
from optjax.sweep._records import Record, TrialSpec
from optjax.sweep._result import record_from_json, record_to_json
from optjax.sweep._store.sealed import read_sealed, write_sealed
from optjax.sweep._store.store import named_errors
from optjax.sweep._trial import Factory, MakeTrial

__all__ = ["Chunk", "read_chunk", "run_chunk", "split", "write_chunk"]


class Chunk(NamedTuple):
    """Trials of one group, in order."""

    number: int
    specs: tuple[TrialSpec, ...]


def split(groups: Sequence[Sequence[TrialSpec]], size: int) -> list[Chunk]:
    """Cut each group's trials into chunks of at most `size`."""
    pieces = [
        tuple(group[start : start + size])
        for group in groups
        for start in range(0, len(group), size)
    ]
    return [Chunk(number, piece) for number, piece in enumerate(pieces)]


def run_chunk(
    make_trial: MakeTrial,
    factories: Mapping[str, Factory],
    chunk: Chunk,
    settings: Settings,
    strategy: str,
) -> list[Record]:
    """Run a chunk in this process as one compiled program."""
    (group,) = make_groups(make_trial, factories, chunk.specs, settings)
    program = group.compile(settings, strategy)
    scheduler, carry = group.schedule(settings), program.start()
    records: list[Record] = []
    while not scheduler.is_done:
        carry, rows = program.advance(carry, scheduler.assignment())
        records += scheduler.observe(rows)
    return records


def write_chunk(directory: Path, chunk: Chunk, records: Sequence[Record]) -> None:
    """Write a finished chunk, whole or not at all, with its digest.

    Raises:
      NotWrittenError: where there is no room for it.
    """
    path = _path(directory, chunk)
    # Of a static value that is not plain data, its words; `read_chunk` has the value.
    data = {"records": [record_to_json(record) for record in records]}
    with named_errors(directory, f"write chunk {chunk.number}"):
        path.parent.mkdir(exist_ok=True)
        write_sealed(path, data, default=repr)


def read_chunk(directory: Path, chunk: Chunk) -> list[Record] | None:
    """A finished chunk's records, or None where it is to be run.

    It is run too where its file is damaged or has other trials.
    """
    try:
        saved = read_sealed(_path(directory, chunk))
    except DamagedError:
        return None
    if saved is None:
        return None
    records = [record_from_json(record) for record in saved["records"]]
    specs = {spec.number: spec for spec in chunk.specs}
    if sorted(record.trial.number for record in records) != sorted(specs):
        return None
    return [record._replace(trial=specs[record.trial.number]) for record in records]


def _path(directory: Path, chunk: Chunk) -> Path:
    return directory / "chunks" / f"{chunk.number:06d}.json"
