"""JSON files that carry a digest of what they say, so that damage does not pass."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from optjax.sweep._errors import DamagedError
from optjax.sweep._store.files import write_atomically

_SEAL = "digest"
# Items at a time: of a million trials there is to be no second copy.
_BLOCK = 4096
# Of what is equal the seal is equal, in whatever order the keys are.
_in_order = json.JSONEncoder(sort_keys=True).encode


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

    def plain(value: Any) -> Any:
        # What reading gives: lists for tuples and text for keys.
        return json.loads(json.dumps(value, default=default))

    def write(to: Path) -> None:
        seal = digest()
        with to.open("w", encoding="utf-8") as file:
            for sealed, written in _pieces(data, plain):
                seal.update(sealed.encode())
                if sealed == "}":
                    file.write(f',\n"{_SEAL}": "{seal.hexdigest()}"')
                file.write(written)

    write_atomically(path, write)


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


def _seal(data: Mapping[str, Any]) -> str:
    seal = digest()
    for sealed, _ in _pieces(data):
        seal.update(sealed.encode())
    return seal.hexdigest()


def _pieces(
    data: Mapping[str, Any], plain: Callable[[Any], Any] = lambda value: value
) -> Iterator[tuple[str, str]]:
    """The text of a dictionary in parts, as it is sealed and as it is written.

    Written, each item of its lists is on a line. The last part is the brace at the end.
    """
    following = ", ", ",\n"
    yield "{", "{"
    for place, name in enumerate(sorted(data)):
        if place:
            yield following
        yield 2 * (f"{json.dumps(name)}: ",)
        value = data[name]
        if not isinstance(value, (list, tuple)):
            value = plain(value)
            yield _in_order(value), json.dumps(value)
            continue
        yield "[", "["
        for start in range(0, len(value), _BLOCK):
            if start:
                yield following
            for place_in, item in enumerate(plain(value[start : start + _BLOCK])):
                if place_in:
                    yield following
                yield _in_order(item), json.dumps(item)
        yield "]", "]"
    yield "}", "}\n"
