"""Any text as the numbers of its characters."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from optjax.sweep._errors import one_line
from optjax.tasks._data.problem import GET_TEXT, DataError

# The shortest text that predicts anything: one character and the next.
_SHORTEST = 2


class Text(NamedTuple):
    """A text's characters as indices into `vocabulary`, its sorted characters.

    Indices are uint8, or int32 where the text has more than 256 different characters.
    """

    train: np.ndarray
    validation: np.ndarray
    vocabulary: str


def load_text(path: str | Path, validation_share: float = 0.1) -> Text:
    """Load a text in UTF-8; its last tenth is for validation.

    Args:
      path: the file. Line ends stay as they are.
      validation_share: the part of the characters, from the end, that is kept for
        validation; greater than 0 and less than 1.

    Returns:
      The text. `"".join(text.vocabulary[i] for i in text.train)` reads it back.

    Raises:
      DataError: where there is no such file, it is not UTF-8 (the message gives the
        byte), or too short for two characters in each part.
      ValueError: where `validation_share` is out of its range.

    Example:
      text = load_text("tinyshakespeare.txt")
      len(text.vocabulary)  # 65
    """
    if not 0 < validation_share < 1:
        raise ValueError(
            f"validation_share must be between 0 and 1, got {validation_share}; "
            "0.1 keeps the last tenth"
        )
    path = Path(path).expanduser()
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"text in UTF-8 in {path}",
            f"byte 0x{error.object[error.start]:02x} at offset {error.start}, where "
            f"there is {error.reason}",
            GET_TEXT,
        ) from error
    except OSError as error:
        raise DataError(f"a text at {path}", one_line(error), GET_TEXT) from error
    points = np.frombuffer(text.encode("utf-32-le"), "<u4")
    used, ids = np.unique(points, return_inverse=True)
    kept = len(ids) - int(len(ids) * validation_share)
    if min(kept, len(ids) - kept) < _SHORTEST:
        raise DataError(
            f"{_SHORTEST} characters for training and for validation in {path}",
            f"{kept} and {len(ids) - kept}",
            GET_TEXT,
        )
    ids = ids.astype(np.uint8 if len(used) <= 256 else np.int32)
    return Text(ids[:kept], ids[kept:], "".join(map(chr, used)))
