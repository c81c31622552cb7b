"""Which directory to write into, whose it is, and that one process alone does."""

import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from optjax._arguments.kind import shown
from optjax.sweep._errors import DamagedError, RefusedError, SweepError
from optjax.sweep._store.sealed import read_sealed

T = TypeVar("T")


def as_directory(out: Any) -> Path:
    """The path that `out` stands for.

    Raises:
      SweepError: where it can be none.
    """
    if not isinstance(out, (str, os.PathLike)):
        raise SweepError(f"out must be the path of a directory, got {shown(out)}")
    text = os.fspath(out)
    if not isinstance(text, str) or not text or "\0" in text:
        raise SweepError(
            "out must be the path of a directory, which is not empty and has no NUL, "
            f"got {out!r}; the current directory is '.'"
        )
    return Path(text)


def claim(directory: Path, own: str, marker: str) -> None:
    """Refuse a directory in which somebody else's files are.

    Args:
      directory: where something is to be written.
      own: the one name that may be in it where it is new. Hidden files may be there,
        since nothing of that name is written.
      marker: the file below it that is written first and tells that it is ours.

    Raises:
      RefusedError: where it is neither new nor ours.
    """
    if (directory / marker).exists() or not directory.is_dir():
        return
    foreign = sorted(
        path.name
        for path in directory.iterdir()
        if path.name != own and not path.name.startswith(".")
    )
    if foreign:
        raise RefusedError(
            f"{directory} must be empty, or hold this experiment, but it has "
            f"{foreign[0]} and no {marker}; choose another out="
        )


def in_a_series(
    series: Path,
    marker: str,
    run: Callable[[Path], T],
    complain: Callable[[str], None],
) -> T:
    """What `run` returns in a new directory, or in one where it goes on.

    The directories are `series`-1, -2, …; the newest that is not finished is tried
    first, and is left as it is where it is not for this experiment.

    Args:
      series: their path up to the number.
      marker: a directory's progress, whose "finished" tells whether it is.
      run: raises RefusedError for a directory of another experiment, or in use.
      complain: called with what is damaged in the one that is left as it is.
    """
    made = {
        int(found[1])
        for path in (series.parent.iterdir() if series.parent.is_dir() else ())
        if (found := re.fullmatch(re.escape(series.name) + r"-([1-9]\d*)", path.name))
    }

    def numbered(number: int) -> Path:
        return series.with_name(f"{series.name}-{number}")

    def is_unfinished(number: int) -> bool:
        progress = read_sealed(numbered(number) / marker)
        return progress is not None and not progress["finished"]

    try:
        newest = next(filter(is_unfinished, sorted(made, reverse=True)), None)
        if newest is not None:
            return run(numbered(newest))
    except DamagedError as error:
        complain(str(error))
    except RefusedError:
        pass
    with contextlib.suppress(RefusedError):
        return run(numbered(max(made, default=0) + 1))
    # Another process was faster.
    return in_a_series(series, marker, run, complain)


class Lock:
    """Held by the process that writes, until it closes it or dies.

    The system forgets the lock with its file, so `check` has to be asked before each
    write.
    """

    def __init__(self, path: Path) -> None:
        """Take the lock.

        Raises:
          RefusedError: where another process has it.
        """
        self._path = path
        self._file = path.open("a+")
        try:
            import fcntl
        except ImportError:  # not a POSIX system
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.seek(0)
            owner = self._file.read().strip() or "unknown"
            self._file.close()
            raise RefusedError(
                f"another process (pid {owner}) is running a sweep in "
                f"{path.parent.parent}; wait for it, or choose another out="
            ) from None
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def check(self) -> None:
        """See that the lock still keeps others out.

        Raises:
          SweepError: where its file was deleted or replaced.
        """
        try:
            there = os.stat(self._path)
        except OSError:
            there = None
        if there is None or not os.path.samestat(there, os.fstat(self._file.fileno())):
            raise SweepError(
                f"{self._path} was deleted while this sweep ran, so that another "
                "process may be writing there: this one stops. The same command goes "
                "on from the last point saved, once no other runs"
            )

    def close(self) -> None:
        """Let others in."""
        self._file.close()
