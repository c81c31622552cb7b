"""A point of a sweep to go on from, and the file that says which it is."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from optjax.sweep._errors import DamagedError
from optjax.sweep._records import Failure
from optjax.sweep._store.sealed import read_sealed, write_sealed


class Checkpoint(NamedTuple):
    """A consistent point of a sweep.

    Attributes:
      groups: finished groups.
      calls: calls done in the current group.
      within: the lanes that are between two evaluations.
      updates: how many these have done since the last.
      lanes: of each group that has begun, its strategy's name, or "" where it is the
        sweep's own, and how many it has.
      failures: of trials, by their numbers: evaluations that they had, and why.
      states: names of the files with the lanes' states, none at the start of a group.
      curves_bytes: length of the part of curves.csv that belongs to it; 0 before the
        sweep has begun.
      curves_digest: that part's.
      known_bytes: length of the part that a shorter run has measured, from whose end
        this one goes on; 0 where there was none.
      group_bytes: its length when the current group began.
      finished: whether results.csv is there too.
    """

    groups: int = 0
    calls: int = 0
    within: Sequence[int] = ()
    updates: int = 0
    lanes: Sequence[tuple[str, int]] = ()
    failures: Mapping[int, Failure] = MappingProxyType({})
    states: Sequence[str] = ()
    curves_bytes: int = 0
    curves_digest: str = ""
    known_bytes: int = 0
    group_bytes: int = 0
    finished: bool = False


def read_checkpoint(path: Path) -> Checkpoint:
    """What a file says, or the beginning where there is none.

    Raises:
      DamagedError: where it is not as it was written, or of another version.
    """
    saved = read_sealed(path)
    if saved is None:
        return Checkpoint()
    if set(saved) != set(Checkpoint._fields):
        raise DamagedError(path, "it is of another version of optjax")
    failures = {int(n): Failure(*each) for n, each in saved.pop("failures").items()}
    return Checkpoint(**saved, failures=failures)


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Make a file say it, whole or not at all."""
    plain = {**checkpoint._asdict(), "failures": dict(checkpoint.failures)}
    write_sealed(path, plain)
