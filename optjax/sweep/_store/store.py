"""A sweep on disk: nothing measured is lost, whenever the process dies.

    results.csv          one row a trial, written when the sweep ends
    curves.csv           every evaluation, appended as it is measured
    sweep/               what the sweep needs to go on; nothing else is ever removed
        progress.json    how much of curves.csv counts, and which lanes belong to it
        sweep.json       what the sweep is; a directory belongs to one sweep
        times.json       how long the calls took, of which nothing depends
        states/          the lanes after some call, for sweeps that run long enough
        pieces/          finished pieces, where a cluster runs them
        kept/            the final states of trials, where they are wanted
        lock             held by the process that writes

progress.json is replaced atomically and last, so at any moment the directory describes
one consistent point. What curves.csv has beyond it is cut off on resuming and measured
again, to the same digits. Every byte that counts is under a digest: that of curves.csv
in progress.json, each other file's in itself.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from optjax.sweep._errors import DamagedError, NotWrittenError, RefusedError, SweepError
from optjax.sweep._records import Measured, Times
from optjax.sweep._store.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from optjax.sweep._store.curves import Curves, Replayed
from optjax.sweep._store.directory import Lock, claim
from optjax.sweep._store.identity import Asked, check_same
from optjax.sweep._store.longer import check_goes_on
from optjax.sweep._store.sealed import read_sealed, write_sealed
from optjax.sweep._store.states import Lanes, check_lanes, read_lanes, write_lanes

#: What of a directory is the sweep's own.
OWN = "sweep"
_PROGRESS = "progress.json"
_TIMES = "times.json"
#: The first file of a sweep's directory.
MARKER = f"{OWN}/{_PROGRESS}"
_FORMAT = 6
# The lanes of two points, so that one is whole while the next is written.
_TURNS = "ab"


class Store:
    """Writes one sweep's directory; `writes` is False in all processes but the first.

    Use as a context manager: it holds the lock.
    """

    def __init__(
        self, directory: Path, *, writes: bool = True, asked: Asked | None = None
    ) -> None:
        """Choose the directory; nothing is touched before `__enter__`."""
        self.directory = directory
        self._asked = Asked() if asked is None else asked
        #: What the sweep needs to go on.
        self.own = directory / OWN
        self._progress = self.own / _PROGRESS
        self._writes = writes
        self._lock: Lock | None = None
        self._curves = Curves(directory / "curves.csv")
        self._checkpoint = Checkpoint()

    def __enter__(self) -> "Store":
        """Make the directory and take its lock.

        Raises:
          SweepError: where it cannot be written, has files of somebody else's, or is
            in use.
        """
        if not self._writes:
            return self
        try:
            claim(self.directory, OWN, MARKER)
            self.own.mkdir(parents=True, exist_ok=True)
            claim(self.own, "lock", _PROGRESS)
            self._lock = Lock(self.own / "lock")
        except OSError as error:
            raise SweepError(
                f"cannot write to the directory {self.directory}: "
                f"{error.strerror or error}; choose another out="
            ) from None
        return self

    def __exit__(self, *_: object) -> None:
        """Close the files and release the lock."""
        self._curves.close()
        if self._lock is not None:
            self._lock.close()

    def open(
        self,
        identity: Mapping[str, Any],
        columns: Sequence[str],
        *,
        other_versions: bool = False,
    ) -> Checkpoint:
        """Begin the sweep that `identity` says, or go on with it.

        The first process opens before the others, which only read.

        Args:
          identity: plain data; see `optjax.sweep._store.identity`.
          columns: the metrics of every row of curves.csv.
          other_versions: whether other libraries may have begun it.

        Returns:
          Where to go on from.

        Raises:
          SweepError: if the directory holds another sweep, or one of fewer steps from
            whose end this one cannot go on.
          DamagedError: if what counts in it is not as it was left.
        """
        self._curves.columns = tuple(columns)
        wanted = self._described(identity)
        checkpoint = read_checkpoint(self._progress)
        saved = self.saved_identity()
        if saved is not None:
            wanted = check_same(
                saved, wanted, self.directory, other_versions=other_versions
            )
        elif checkpoint.curves_bytes:
            raise DamagedError(self.own / "sweep.json", "it is not there")
        if not checkpoint.curves_bytes:
            if self._writes:
                self._begin(checkpoint, wanted)
            return self._checkpoint
        self._checkpoint = checkpoint
        self._read_curves()
        is_longer = saved is not None and wanted["steps"] > saved["steps"]
        if saved is not None and is_longer:
            check_goes_on(saved, wanted, checkpoint, self._curves.rows(), self.own)
        if self._writes:
            if is_longer:
                # Before sweep.json: until that says so, it is the shorter run, whose
                # trials have all ended.
                known = self._curves.bytes
                self.commit(Checkpoint(failures=checkpoint.failures, known_bytes=known))
            if wanted != saved:
                self._write_identity(wanted)
            self._check_states()
            self._open_curves()
        return self._checkpoint

    def grow(self, identity: Mapping[str, Any]) -> None:
        """Write down that trials have been added, before anything of them is run."""
        if not self._writes:
            return
        saved, wanted = self.saved_identity(), self._described(identity)
        if saved is not None and identity:
            wanted = check_same(saved, wanted, self.directory)
        self._check_alone()
        self._write_identity(wanted)

    def read(self) -> tuple[dict[str, Any], Checkpoint, Iterator[Replayed]]:
        """What a directory says: of its sweep, how far that is, and its evaluations.

        Those measured since the last point too, as far as whole lines are there.

        Raises:
          RefusedError: where there is no sweep in it, or one of another version.
          DamagedError: where what counts in it is not as it was left.
        """
        identity = self.saved_identity()
        self._checkpoint = read_checkpoint(self._progress)
        if identity is None or not self._checkpoint.curves_bytes:
            raise RefusedError(
                f"{self.directory} holds no sweep; give the out= of one that has begun"
            )
        if identity.get("format") != _FORMAT:
            raise RefusedError(
                f"{self.directory} holds a sweep of another version of optjax, which "
                "wrote it in another way; read its CSV files"
            )
        self._curves.columns = tuple(identity["metrics"])
        self._read_curves()
        self._curves.read_on()
        return identity, self._checkpoint, self.replay(known=True)

    def _described(self, identity: Mapping[str, Any]) -> dict[str, Any]:
        asked = {"title": self._asked.title, "command": list(self._asked.command)}
        columns = list(self._curves.columns)
        return {"format": _FORMAT, **identity, "metrics": columns, "asked": asked}

    def _write_identity(self, identity: Mapping[str, Any]) -> None:
        with named_errors(self.directory, "write sweep.json"):
            write_sealed(self.own / "sweep.json", identity)

    def saved_identity(self) -> dict[str, Any] | None:
        """What sweep.json says, or None where there is none."""
        return read_sealed(self.own / "sweep.json")

    def append(self, measured: Sequence[Measured], *, in_turns: bool = False) -> None:
        """Add evaluations to curves.csv.

        Args:
          measured: those of each trial.
          in_turns: the first of each trial, then the second of each, rather than trial
            by trial.
        """
        if self._curves.is_open:
            with named_errors(self.directory, "write curves.csv"):
                self._check_alone()
                self._curves.add(measured, in_turns=in_turns)

    def known(self) -> dict[int, np.ndarray]:
        """What a shorter run has measured, by trial: shape (evaluations, metrics)."""
        found: dict[int, list[np.ndarray]] = {}
        for number, rows in self._curves.rows(end=self._checkpoint.known_bytes):
            found.setdefault(number, []).append(rows)
        return {number: np.concatenate(parts) for number, parts in found.items()}

    def replay(self, *, known: bool = False) -> Iterator[Replayed]:
        """The committed metrics, in the order in which they were measured.

        Args:
          known: those of a shorter run too.
        """
        rows = self._curves.rows(0 if known else self._checkpoint.known_bytes)
        self._curves.forget()
        return rows

    def commit(self, checkpoint: Checkpoint) -> None:
        """Make a point the one to resume from; its states must be saved already."""
        before, self._checkpoint = self._checkpoint, self._now(checkpoint)
        if not self._writes:
            return
        with named_errors(self.directory, f"write {_PROGRESS}"):
            if self._curves.is_open:
                self._curves.sync()
            self._check_alone()
            write_checkpoint(self._progress, self._checkpoint)
            # Those of the point before, and of a process that died while it saved.
            files = max(jax.process_count(), len(before.states))
            names = {f"{turn}-{number}" for turn in _TURNS for number in range(files)}
            for name in names - {*self._checkpoint.states}:
                self._states(name).unlink(missing_ok=True)

    def write_results(self, write: Callable[[Path], None]) -> None:
        """Let `write` make results.csv, and call the sweep finished."""
        if self._writes:
            with named_errors(self.directory, "write results.csv"):
                self._check_alone()
                write(self.directory / "results.csv")
        if not self._checkpoint.finished:
            self.commit(self._checkpoint._replace(finished=True))

    def save_states(self, group: int, calls: int, lanes: Lanes) -> list[str]:
        """Save the lanes; every process takes part and writes its own.

        Returns:
          The files' names, for `Checkpoint.states`.
        """
        # Never where the lanes are that the last point needs.
        turn = _TURNS["a-0" in self._checkpoint.states]
        names = [f"{turn}-{number}" for number in range(jax.process_count())]
        path = self._states(names[jax.process_index()])
        with named_errors(self.directory, "save the lanes' states"):
            self._check_alone()
            path.parent.mkdir(parents=True, exist_ok=True)
            write_lanes(path, {"group": group, "calls": calls, "files": names}, lanes)
        return names

    def read_times(self) -> Times:
        """How long the calls took that are done; nothing of what is damaged."""
        with contextlib.suppress(DamagedError):
            return Times((read_sealed(self.own / _TIMES) or {}).get("of"))
        return Times()

    def write_times(self, times: Times) -> None:
        """Keep how long they took."""
        if self._writes:
            with named_errors(self.directory, f"write {_TIMES}"):
                write_sealed(self.own / _TIMES, {"of": times.of})

    def load_states(self, like: Lanes) -> list[jax.Array]:
        """The saved lanes, in the shapes, dtypes and sharding of `like`."""
        return read_lanes(*self._saved_states(), like)

    def _saved_states(self) -> tuple[list[Path], dict[str, Any]]:
        point, names = self._checkpoint, self._checkpoint.states
        about = {"group": point.groups, "calls": point.calls, "files": list(names)}
        return [self._states(name) for name in names], about

    def _states(self, name: str) -> Path:
        return self.own / "states" / name

    def _begin(self, checkpoint: Checkpoint, wanted: Mapping[str, Any]) -> None:
        """Write the first point; until it says so, nothing counts as begun."""
        with named_errors(self.directory, f"write {self.own}"):
            write_checkpoint(self._progress, checkpoint)
            write_sealed(self.own / "sweep.json", wanted)
        self._open_curves()
        with named_errors(self.directory, "write curves.csv"):
            self._check_alone()
            self._curves.add_header()
        self.commit(Checkpoint())

    def _read_curves(self) -> None:
        point = self._checkpoint
        self._curves.read(point.curves_bytes, point.curves_digest)

    def _open_curves(self) -> None:
        with named_errors(self.directory, "write curves.csv"):
            self._curves.open()

    def _check_states(self) -> None:
        """Begin the current group again where its lanes are damaged."""
        try:
            check_lanes(*self._saved_states())
        except DamagedError as error:
            warnings.warn(
                f"{error.path} is damaged: {error.why}. The optimizer that was running "
                "begins again",
                stacklevel=2,
            )
            point = self._checkpoint
            self._curves.count(point.group_bytes)
            self.commit(
                Checkpoint(
                    groups=point.groups, lanes=point.lanes, failures=point.failures
                )
            )

    def _now(self, checkpoint: Checkpoint) -> Checkpoint:
        """The point with what the store knows of it."""
        before = self._checkpoint
        begins = checkpoint.groups != before.groups or not before.curves_bytes
        return checkpoint._replace(
            curves_bytes=self._curves.bytes,
            curves_digest=self._curves.digest,
            group_bytes=self._curves.bytes if begins else before.group_bytes,
            known_bytes=checkpoint.known_bytes or before.known_bytes,
        )

    def _check_alone(self) -> None:
        """See that nobody else has written since this process did."""
        if self._lock is not None:
            self._lock.check()
        if self._curves.is_open:
            self._curves.check()


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
