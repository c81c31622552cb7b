"""The lanes on disk: one file a process, with a digest of every byte.

A file is a line of JSON (which call, which lanes, which arrays), the arrays' rows for
these lanes as they are in memory, and the digest of all that. The lanes of two calls
are kept in turn, so that one whole set is there while the next is written.
"""

import json
import mmap
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from optjax.sweep._arrays import as_bytes, placed
from optjax.sweep._errors import DamagedError
from optjax.sweep._store.sealed import digest

#: Arrays whose first axis is the lanes'.
Lanes = Sequence[jax.Array]

_DIGEST_BYTES = digest().digest_size


def write_lanes(path: Path, about: Mapping[str, Any], lanes: Lanes) -> None:
    """Write the lanes of this process's devices.

    Args:
      path: the file, which may be there already and then is lost.
      about: what they are, as plain data; given to `read_lanes` again.
      lanes: all of them.
    """
    blocks = [_blocks(array) for array in lanes]
    header = {
        **about,
        "lanes": [[start, stop] for start, stop, _ in (blocks[0] if blocks else ())],
        "arrays": [_kind(array) for array in lanes],
    }
    seal = digest()
    with path.open("wb") as file:

        def add(data: Any) -> None:
            seal.update(data)
            file.write(data)

        add(json.dumps(header).encode() + b"\n")
        for array_blocks in blocks:
            for *_, shard in array_blocks:
                add(as_bytes(shard.data))
        file.write(seal.digest())
        file.flush()
        os.fsync(file.fileno())


def read_lanes(
    paths: Sequence[Path], about: Mapping[str, Any], like: Lanes
) -> list[jax.Array]:
    """The lanes, from the files of all processes.

    Args:
      paths: a file of each process.
      about: as in `write_lanes`.
      like: lanes of the same shapes, dtypes and sharding.

    Raises:
      DamagedError: where a file is not what `write_lanes` made of `about` and of
        arrays such as `like`, or is not there.
    """
    whole = [np.empty(array.shape, array.dtype) for array in like]
    missing = set(range(like[0].shape[0])) if like else set()
    for path in paths:
        header, data = _read(path, about)
        if header["arrays"] != [_kind(array) for array in like]:
            raise DamagedError(path, "its arrays are those of another program")
        at = 0
        for array in whole:
            for start, stop in header["lanes"]:
                rows = array[start:stop]
                rows[...] = (
                    data[at : at + rows.nbytes].view(array.dtype).reshape(rows.shape)
                )
                at += rows.nbytes
                missing -= set(range(start, stop))
    if missing:
        raise DamagedError(paths[0], f"it has no lane {min(missing)}")
    return [placed(array, of.sharding) for array, of in zip(whole, like, strict=True)]


def check_lanes(paths: Sequence[Path], about: Mapping[str, Any]) -> None:
    """Read the files through, for their digests.

    Raises:
      DamagedError: as `read_lanes`, whatever the arrays are.
    """
    for path in paths:
        _read(path, about)


def _read(path: Path, about: Mapping[str, Any]) -> tuple[dict[str, Any], np.ndarray]:
    """A file's header and what follows it, mapped and not copied."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size <= _DIGEST_BYTES:
                raise DamagedError(path, "it was cut")
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise DamagedError(path, error.strerror or str(error)) from None
    data = np.frombuffer(mapped, np.uint8)
    seal = digest()
    seal.update(data[:-_DIGEST_BYTES].data)
    if seal.digest() != data[-_DIGEST_BYTES:].tobytes():
        raise DamagedError(path, "it was changed after it was written")
    end = mapped.find(b"\n")
    header = json.loads(mapped[:end])
    if {key: header.get(key) for key in about} != dict(about):
        raise DamagedError(path, "it is of another call")
    return header, data[end + 1 : -_DIGEST_BYTES]


def _kind(array: jax.Array) -> list[Any]:
    return [array.dtype.name, *array.shape]


def _blocks(array: jax.Array) -> list[tuple[int, int, Any]]:
    """This process's (first lane, lane after the last, shard), in order."""
    found = []
    for shard in array.addressable_shards:
        start, stop, _ = shard.index[0].indices(array.shape[0])
        found.append((start, stop, shard))
    return sorted(found, key=lambda block: block[0])
