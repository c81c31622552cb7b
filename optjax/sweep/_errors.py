"""What a sweep refuses or cannot do, each in one line that says what to do."""

import contextlib
import importlib
import os
import re
import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from optjax._arguments.checked import checked_by
from optjax._arguments.kind import Kind

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


def _refused(name: str, fault: str) -> SweepError:
    return SweepError(f"{name} {fault.rstrip('.')}")


#: `optjax._arguments.checked.checked`, with a sweep's error.
checked = checked_by(_refused)


def check(kind: Kind, **values: Any) -> None:
    """The same for values that only the body of a function knows."""
    for name, value in values.items():
        if fault := kind.fault(value):
            raise _refused(name, fault)


def library(module: str, who: str, package: str) -> Any:
    """A module of a library that not everybody has.

    Args:
      module: its name.
      who: says who needs it, and begins the message where it is missing.
      package: what to install, in a shell's words.

    Raises:
      SweepError: where it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if not f"{module}.".startswith(f"{error.name}."):  # installed, but broken
            raise
        raise SweepError(f"{who}; run: pip install {package}") from None


@contextlib.contextmanager
def blamed(who: str, at: str = "", but: type[Exception] = SweepError) -> Iterator[None]:
    """Make of an error of the user's code a sweep's, which says who raised it.

    Args:
      who: begins the message.
      at: stands after the error's own words.
      but: a kind of error that is left as it is, beside a sweep's.

    Raises:
      SweepError: where the block raises anything.
    """
    try:
        yield
    except (SweepError, but):
        raise
    except Exception as error:
        raise SweepError(
            f"{who} raised {one_line(error)}{at}{in_own_code(error)}"
        ) from error


def first_line(error: Exception) -> str:
    """Of an error's own words."""
    return (str(error).strip().splitlines() or ["no message"])[0]


def one_line(error: Exception) -> str:
    """An error in one line: a sweep's own words, or its kind and its first line."""
    if isinstance(error, SweepError):
        return str(error)
    return f"{type(error).__name__}: {first_line(error)}"


def in_own_code(error: BaseException) -> str:
    """` (model.py, line 12)`: the last frame that is the user's, or nothing.

    Not the user's are optjax, what is installed, and Python itself.
    """
    frames = traceback.extract_tb(error.__traceback__)
    return _last_own((frame.filename, frame.lineno or 0) for frame in frames)


def of_a_call(error: Exception) -> str:
    """In one line what a compiled program raised: its own words, or a callback's."""
    # XLA tells of a callback's exception by the traceback, as text.
    frames = re.findall(r'File "(.+?)", line (\d+)', str(error))
    if not frames:
        return one_line(error)
    last_line = str(error).strip().splitlines()[-1]
    return last_line + _last_own((file, int(line)) for file, line in frames)


def _last_own(frames: Iterable[tuple[str, int]]) -> str:
    elsewhere = (f"{_OURS}{os.sep}", f"{sysconfig.get_path('stdlib')}{os.sep}", "<")
    for file, line in reversed(list(frames)):
        path = Path(file)
        # There are several such folders: a user's own, and that below an environment.
        is_installed = {"site-packages", "dist-packages"} & {*path.parts}
        if not is_installed and not file.startswith(elsewhere):
            if path.is_relative_to(Path.cwd()):
                path = path.relative_to(Path.cwd())
            return f" ({path}, line {line})"
    return ""
