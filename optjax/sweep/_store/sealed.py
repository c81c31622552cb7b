"""JSON files that carry a digest of what they say, so that damage does not pass."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from optjax.sweep._errors import DamagedError
from optjax.sweep._store.files import write_atomically

__all__ = ["digest", "read_sealed", "write_sealed"]

_SEAL = "digest"


def digest() -> "hashlib.blake2b":
    """A running digest: `update(data)`, and `hexdigest()` at any time."""
    return hashlib.blake2b(digest_size=16)


def write_sealed(
    path: Path,
    data: Mapping[str, Any],
    *,
    default: Callable[[Any], Any] | None = None,
) -> None:
    """Write plain data and its digest; the file is there whole or not at all.

    Args:
      path: the file.
      data: what it is to say.
      default: makes plain data of what is not.
    """
    # What reading gives: lists for tuples and text for keys.
    plain = json.loads(json.dumps(data, default=default))
    text = json.dumps({**plain, _SEAL: _seal(plain)}, indent=1) + "\n"
    write_atomically(path, lambda to: to.write_text(text, encoding="utf-8"))


def read_sealed(path: Path) -> dict[str, Any] | None:
    """What a file says, or None where there is none.

    Raises:
      DamagedError: where it does not say what was written.
    """
    try:
        data = json.loads(path.read_bytes().decode())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DamagedError(path, error.strerror or str(error)) from None
    except (ValueError, RecursionError):
        raise DamagedError(path, "it is not JSON") from None
    if not isinstance(data, dict) or data.pop(_SEAL, None) != _seal(data):
        raise DamagedError(path, "it was changed after it was written")
    return data


def _seal(data: Any) -> str:
    seal = digest()
    seal.update(json.dumps(data, sort_keys=True).encode())
    return seal.hexdigest()
