"""Write a file whole or not at all, and tables as CSV."""

import csv
import io
import math
import os
import secrets
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

_MOST = float(np.finfo(np.float32).max)


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a temporary file beside `path`, then rename it to `path`.

    The file is on the disk before it has its name, so that after a power failure too
    there is the old one or the new one, and none that is cut short.
    """
    # Not tempfile's: that one is readable by its owner alone, whatever the umask says.
    temporary = path.with_name(f".{path.stem}-{secrets.token_hex(8)}{path.suffix}")
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.filename != str(temporary):
            raise
        # The name that was asked for, and not one that nobody knows.
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_csv(
    path: Path, columns: Sequence[str], rows: Iterable[Iterable[Any]]
) -> None:
    """Write a table atomically, each value `as_text`; one that is there stays."""
    # Text in memory takes four bytes a letter.
    memory = io.BytesIO()
    with io.TextIOWrapper(memory, "utf-8", newline="") as table:
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([as_text(value) for value in row] for row in rows)
        table.flush()
        data = memory.getvalue()
    if not (path.is_file() and path.read_bytes() == data):
        write_atomically(path, lambda to: to.write_bytes(data))


def as_text(value: Any) -> str:
    """A value in a table: nothing for None, numbers as `number_as_text`."""
    if value is None:
        return ""
    if isinstance(value, float):
        return number_as_text(value)
    text = str(value)
    # An address would differ from one run of the same sweep to the next.
    return (
        getattr(value, "__name__", type(value).__name__) if " at 0x" in text else text
    )


def number_as_text(value: float) -> str:
    """The shortest text that reads back to the same float32."""
    if _MOST < abs(value) < math.inf:
        return repr(value)
    return f"{float(str(np.float32(value))):.9g}"
