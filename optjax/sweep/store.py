"""A sweep on disk: nothing measured is lost, whenever the process dies.

    sweep.json      what the sweep is; a directory belongs to one sweep
    curves.csv      every evaluation, appended as it is measured
    progress.json   how much of curves.csv counts, and which lane states belong to it
    states-N/       the lanes after N calls (Orbax), for sweeps that run long enough
    results.csv     one row a trial, written when the sweep ends
    lock            held by the process that writes

progress.json is replaced atomically and last, so at any moment the directory describes
one consistent point. What curves.csv has beyond it is cut off on resuming and measured
again, to the same digits.
"""

import contextlib
import csv
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from optjax.sweep.files import write_atomically
from optjax.sweep.identity import check_same
from optjax.sweep.problem import NotWrittenError, SweepError
from optjax.sweep.records import TrialSpec

__all__ = ["Progress", "Store", "named_errors"]

_FORMAT = 1


class Progress(NamedTuple):
    """A consistent point of a sweep.

    Attributes:
      groups: finished groups.
      calls: calls done in the current group.
      curves_bytes: length of the part of curves.csv that belongs to it.
      states: name of the directory with the lanes' states, or None at the start of a
        group.
    """

    groups: int = 0
    calls: int = 0
    curves_bytes: int = 0
    states: str | None = None


class Store:
    """Writes one sweep's directory; `writes` is False in all processes but the first.

    Use as a context manager: it holds the lock.
    """

    def __init__(self, directory: Path, *, writes: bool = True) -> None:
        """Choose the directory; nothing is touched before `__enter__`."""
        self.directory = directory
        self._writes = writes
        self._lock: Any = None
        self._curves: io.TextIOWrapper | None = None
        self._columns: tuple[str, ...] = ()
        self._bytes = 0

    def __enter__(self) -> "Store":
        """Make the directory and take its lock."""
        if not self._writes:
            return self
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(self.directory / "lock")
        except OSError as error:
            raise SweepError(
                f"cannot write to the directory {self.directory}: "
                f"{error.strerror or error}; choose another out="
            ) from None
        return self

    def __exit__(self, *_: object) -> None:
        """Close the files and release the lock."""
        if self._curves is not None:
            # What a full disk could not take was reported when it was written.
            with contextlib.suppress(OSError):
                self._curves.close()
        if self._lock is not None:
            self._lock.close()

    def open(self, description: Mapping[str, Any], columns: Sequence[str]) -> Progress:
        """Begin the sweep that `description` says, or go on with it.

        Args:
          description: plain data; equal descriptions are the same sweep.
          columns: the metrics of every row of curves.csv.

        Returns:
          Where to go on from.

        Raises:
          SweepError: if the directory holds another sweep.
        """
        self._columns = tuple(columns)
        wanted = {"format": _FORMAT, **description, "metrics": list(columns)}
        path = self.directory / "sweep.json"
        if path.exists():
            check_same(json.loads(path.read_text()), wanted, self.directory)
        elif self._writes:
            with named_errors(self.directory, "write sweep.json"):
                write_atomically(
                    path, lambda to: to.write_text(json.dumps(wanted, indent=1) + "\n")
                )
        progress = self._read_progress()
        self._bytes = progress.curves_bytes
        if self._writes:
            with named_errors(self.directory, "write curves.csv"):
                self._open_curves()
            self._remove_states(keep=progress.states)
        return progress

    def saved_description(self) -> dict[str, Any] | None:
        """What sweep.json says, or None where there is none."""
        path = self.directory / "sweep.json"
        return json.loads(path.read_text()) if path.exists() else None

    def append(
        self, trials: Sequence[TrialSpec], steps: np.ndarray, rows: np.ndarray
    ) -> None:
        """Add a call's evaluations to curves.csv.

        Args:
          trials: the n busy lanes' trials.
          steps: shape (n, evaluations), updates done at each.
          rows: shape (n, evaluations, metrics).
        """
        if self._curves is None:
            return
        lines = io.StringIO()
        for trial, at, values in zip(trials, steps, rows, strict=True):
            name = f"{trial.number},{trial.config.optimizer},{trial.seed}"
            for step, row in zip(at.tolist(), values.tolist(), strict=True):
                # Nine digits tell any two float32 numbers apart.
                numbers = ",".join(f"{value:.9g}" for value in row)
                lines.write(f"{name},{step},{numbers}\n")
        text = lines.getvalue()
        with named_errors(self.directory, "write curves.csv"):
            self._curves.write(text)
            self._curves.flush()
        self._bytes += len(text.encode())

    def replay(self, rows_per_call: Iterator[int]) -> Iterator[np.ndarray]:
        """The committed metrics, call by call, as arrays (rows, metrics).

        Args:
          rows_per_call: how many rows the next call has; asked before each.
        """
        path = self.directory / "curves.csv"
        if not self._bytes:
            return
        committed = path.read_bytes()[: self._bytes].decode()
        lines = csv.reader(io.StringIO(committed))
        next(lines)
        first = 4
        for count in rows_per_call:
            rows = [next(lines, None) for _ in range(count)]
            if any(row is None for row in rows):
                raise SweepError(
                    f"{path} is shorter than progress.json says; it was changed by "
                    "something else. Choose another out="
                )
            yield np.array([row[first:] for row in rows if row], np.float32).reshape(
                count, len(self._columns)
            )

    def commit(self, progress: Progress) -> None:
        """Make a point the one to resume from; its states must be saved already."""
        if not self._writes:
            return
        progress = progress._replace(curves_bytes=self._bytes)
        with named_errors(self.directory, "write progress.json"):
            if self._curves is not None:
                os.fsync(self._curves.fileno())
            write_atomically(
                self.directory / "progress.json",
                lambda to: to.write_text(json.dumps(progress._asdict()) + "\n"),
            )
        self._remove_states(keep=progress.states)

    def write_results(self, write: Callable[[Path], None]) -> None:
        """Let `write` make results.csv."""
        with named_errors(self.directory, "write results.csv"):
            write(self.directory / "results.csv")

    def save_states(self, name: str, carry: Any) -> None:
        """Save the lanes (every process takes part; each writes its own lanes)."""
        import orbax.checkpoint as ocp

        with (
            named_errors(self.directory, "save the lanes' states"),
            ocp.StandardCheckpointer() as checkpointer,
        ):
            checkpointer.save(self._absolute(name), carry, force=True)

    def load_states(self, name: str, like: Any) -> Any:
        """The saved lanes, in the shapes, dtypes and sharding of `like`."""
        import jax
        import orbax.checkpoint as ocp

        target = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like
        )
        with ocp.StandardCheckpointer() as checkpointer:
            return checkpointer.restore(self._absolute(name), target)

    def _absolute(self, name: str) -> Path:
        return (self.directory / name).resolve()

    def _read_progress(self) -> Progress:
        path = self.directory / "progress.json"
        return Progress(**json.loads(path.read_text())) if path.exists() else Progress()

    def _open_curves(self) -> None:
        path = self.directory / "curves.csv"
        if not self._bytes:
            header = ",".join(("trial", "optimizer", "seed", "step", *self._columns))
            path.write_text(header + "\n", encoding="utf-8")
            self._bytes = len(header.encode()) + 1
        elif path.stat().st_size > self._bytes:
            os.truncate(path, self._bytes)
        self._curves = path.open("a", encoding="utf-8", newline="")

    def _remove_states(self, keep: str | None) -> None:
        for path in self.directory.glob("states-*"):
            if path.name != keep:
                shutil.rmtree(path, ignore_errors=True)


def _lock(path: Path) -> Any:
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        return None
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        owner = file.read().strip() or "unknown"
        file.close()
        raise SweepError(
            f"another process (pid {owner}) is running a sweep in {path.parent}; wait "
            "for it, or choose another out="
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


@contextlib.contextmanager
def named_errors(directory: Path, what: str) -> Iterator[None]:
    """Make of an error of the system one that says what could not be written.

    Raises:
      NotWrittenError: where the block raises an OSError.
    """
    try:
        yield
    except OSError as error:
        raise NotWrittenError(
            f"cannot {what} in {directory}: {error.strerror or error}. Everything "
            "measured until then is there and readable; mend this and run the same "
            "command again to go on"
        ) from error
