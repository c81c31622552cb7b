"""Where in a user's own code an error was raised."""

import os
import sysconfig
import traceback
from pathlib import Path

__all__ = ["in_own_code"]

_OURS = Path(__file__).parents[1]


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
