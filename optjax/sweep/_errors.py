"""What a sweep refuses or cannot do, each in one line that says what to do."""

import os
import sysconfig
import traceback
from pathlib import Path

from optjax._arguments.checked import checked_by

__all__ = [
    "DamagedError",
    "NotWrittenError",
    "RefusedError",
    "SweepError",
    "checked",
    "in_own_code",
    "one_line",
]

_OURS = Path(__file__).parents[1]


class SweepError(ValueError):
    """A sweep that cannot start or go on; one line says which trial or key and why."""


class NotWrittenError(SweepError):
    """A sweep that its directory has no room for, or that may not write there."""


class RefusedError(SweepError):
    """A directory that is not for this sweep; another one may be."""


class DamagedError(RefusedError):
    """A file of a sweep that is not as the sweep left it."""

    def __init__(self, path: Path, why: str) -> None:
        """Name the file and say what to do."""
        self.path, self.why = path, why
        super().__init__(
            f"{path} is damaged: {why}. Put the file back as it was, or choose "
            "another out= and begin again"
        )


#: `optjax._arguments.checked.checked`, with a sweep's error.
checked = checked_by(lambda name, fault: SweepError(f"{name} {fault.rstrip('.')}"))


def one_line(error: Exception) -> str:
    """An error in one line: a sweep's own words, or its kind and its first line."""
    if isinstance(error, SweepError):
        return str(error)
    first_line = (str(error).strip().splitlines() or ["no message"])[0]
    return f"{type(error).__name__}: {first_line}"


def in_own_code(error: BaseException) -> str:
    """` (model.py, line 12)`: the last frame that is the user's, or nothing.

    Not the user's are optjax, what is installed, and Python itself.
    """
    installed = {sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}
    elsewhere = (str(_OURS) + os.sep, *(f"{path}{os.sep}" for path in installed), "<")
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(elsewhere):
            path = Path(frame.filename)
            if path.is_relative_to(Path.cwd()):
                path = path.relative_to(Path.cwd())
            return f" ({path}, line {frame.lineno})"
    return ""
