"""curves.csv: a line an evaluation, of which those up to some byte count."""

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from optjax.sweep._errors import DamagedError, SweepError
from optjax.sweep._records import Measured
from optjax.sweep._store.files import number_as_text
from optjax.sweep._store.sealed import digest


class Replayed(NamedTuple):
    """Evaluations of one trial that were measured one after the other.

    Attributes:
      number: the trial's.
      rows: shape (evaluations, metrics).
    """

    number: int
    rows: np.ndarray


class Curves:
    """The file: what counts of it is read, and after that is appended.

    Attributes:
      bytes: how much of it counts.
      columns: the metrics of every line.
      is_open: whether lines can be added.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: Any = None
        self._digest = digest()
        # What was read, until it has been replayed.
        self._data = b""
        self.bytes = 0
        self.columns: Sequence[str] = ()

    @property
    def is_open(self) -> bool:
        return self._file is not None

    @property
    def digest(self) -> str:
        """That of what counts."""
        return self._digest.hexdigest()

    def read(self, length: int, seal: str) -> None:
        """Read what counts: so many bytes, with this digest.

        Raises:
          DamagedError: where it is not as it was written.
        """
        try:
            with self._path.open("rb") as file:
                self._data = file.read(length)
        except OSError as error:
            raise DamagedError(self._path, error.strerror or str(error)) from None
        self.count(length)
        if self.bytes < length:
            why = f"it has {self.bytes:,} of {length:,} bytes"
            raise DamagedError(self._path, why)
        if self.digest != seal:
            raise DamagedError(self._path, "it was changed after it was written")

    def read_on(self) -> None:
        """Read what follows too, as far as whole lines are there."""
        whole = self._path.read_bytes()
        self._data = whole[: whole.rfind(b"\n") + 1]

    def count(self, length: int) -> None:
        """Let so many of the bytes that were read count, and no others."""
        self._data = self._data[:length]
        self.bytes, self._digest = len(self._data), digest()
        self._digest.update(self._data)

    def rows(self, begin: int = 0, end: int | None = None) -> Iterator[Replayed]:
        """The evaluations between two bytes of what was read, in order."""
        return _rows_in(self._data[begin:end], len(self.columns), has_header=not begin)

    def forget(self) -> None:
        """Give back the memory of what was read."""
        self._data = b""

    def open(self) -> None:
        """Open it for lines to come, and cut off what does not count."""
        self._file = self._path.open("ab")
        if os.fstat(self._file.fileno()).st_size > self.bytes:
            self._file.truncate(self.bytes)

    def add_header(self) -> None:
        """Begin it."""
        names = "trial", "optimizer", "seed", "step", *self.columns
        self._add(f"{','.join(names)}\n")

    def add(self, measured: Sequence[Measured], *, in_turns: bool) -> None:
        """Add evaluations, trial by trial, or the first of each, then the second."""
        lines = list[list[str]]()
        for trial, steps, rows in measured:
            whose = f"{trial.number},{trial.config.optimizer},{trial.seed}"
            lines.append(
                [
                    f"{whose},{step},{','.join(map(number_as_text, row))}\n"
                    for step, row in zip(steps, rows.tolist(), strict=True)
                ]
            )
        ordered = itertools.zip_longest(*lines, fillvalue="") if in_turns else lines
        self._add("".join(itertools.chain.from_iterable(ordered)))

    def _add(self, text: str) -> None:
        data = text.encode()
        self._file.write(data)
        self._file.flush()
        self.bytes += len(data)
        self._digest.update(data)

    def check(self) -> None:
        """See that nobody else has written to it since.

        Raises:
          SweepError: where somebody has.
        """
        size = os.fstat(self._file.fileno()).st_size
        if size != self.bytes:
            raise SweepError(
                f"{self._path} was changed by something else while this sweep wrote "
                f"it: it has {size:,} bytes and not {self.bytes:,}. This sweep stops; "
                "the same command goes on from the last point saved"
            )

    def sync(self) -> None:
        """Wait until it is on the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close it; what a full disk could not take was reported when it was added."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()


def _rows_in(data: bytes, metrics: int, *, has_header: bool) -> Iterator[Replayed]:
    lines = iter(data.decode().split("\n")[:-1])
    if has_header:
        next(lines, None)
    of_trials = itertools.groupby(lines, lambda line: line.partition(",")[0])
    for number, rows in of_trials:
        values = [row.split(",")[-metrics:] for row in rows]
        yield Replayed(int(number), np.array(values, np.float32))
