"""CIFAR-10 as its authors distribute it: pickled batches, or the archive of them."""

import io
import math
import pickle
import tarfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from optjax.sweep._errors import one_line
from optjax.tasks._data.problem import DataError
from optjax.tasks._data.split import Split

_TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))
_TEST = "test_batch"
_NAMES = (*_TRAIN, _TEST)
_FOLDER = "cifar-10-batches-py"
_ARCHIVE = "cifar-10-python.tar.gz"
_CLASSES = 10


def find_python_batches(path: Path) -> Path | None:
    """Return the folder of the batches, or the archive; None where there is neither.

    `path` is the archive, the folder of the batches, or a folder with one of these.
    """
    if path.is_file():
        return path if path.name.endswith((".tar.gz", ".tgz", ".tar")) else None
    for folder in (path, path / _FOLDER):
        if any((folder / name).is_file() for name in _NAMES):
            return folder
    return path / _ARCHIVE if (path / _ARCHIVE).is_file() else None


def read_python_batches(path: Path) -> tuple[Split, Split]:
    """Read the training and the test images from what `find_python_batches` found.

    Raises:
      DataError: where a batch is missing or damaged, or is no dictionary of images and
        labels.
    """
    files = _from_archive(path) if path.is_file() else _from_folder(path)
    missing = [name for name in _NAMES if name not in files]
    if missing:
        raise DataError(
            f"{', '.join(_NAMES)} in {path}",
            f"{', '.join(files) or 'none of them'}; {', '.join(missing)} missing",
        )
    batches = {name: _read_batch(files[name], f"{path}/{name}") for name in _NAMES}
    train = [batches[name] for name in _TRAIN]
    sizes = {batch.x.shape[1:] for batch in batches.values()}
    if len(sizes) > 1:
        found = ", ".join(f"{h}×{w}" for h, w, _ in sorted(sizes))
        raise DataError("images of one size", f"{found} in {path}")
    return (
        Split(
            np.concatenate([batch.x for batch in train]),
            np.concatenate([batch.y for batch in train]),
            _CLASSES,
        ),
        batches[_TEST],
    )


def _from_folder(folder: Path) -> Mapping[str, bytes]:
    return {
        name: (folder / name).read_bytes()
        for name in _NAMES
        if (folder / name).is_file()
    }


def _from_archive(path: Path) -> Mapping[str, bytes]:
    """The batches in memory: nothing that the archive names is written to the disk."""
    files = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = member.name.rpartition("/")[2]
                if name in _NAMES and (file := archive.extractfile(member)):
                    files[name] = file.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(
            f"a whole archive at {path}",
            f"{path.stat().st_size:,} bytes that cannot be unpacked "
            f"({one_line(error)})",
        ) from error
    return files


def _read_batch(pickled: bytes, place: str) -> Split:
    batch = _unpickle(pickled, place)
    data, labels = batch.get(b"data"), batch.get(b"labels")
    if data is None or labels is None:
        found = ", ".join(repr(key) for key in batch) or "nothing"
        raise DataError("the keys b'data' and b'labels'", f"{found} in {place}")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2:
        raise DataError("b'data' as a matrix of uint8", f"{_kind(data)} in {place}")
    images, pixels = data.shape
    side = math.isqrt(pixels // 3)
    if not images or not side or 3 * side * side != pixels:
        raise DataError(
            "rows of three square channels, such as 3072 = 3×32×32",
            f"{images} rows of {pixels} in {place}",
        )
    x = data.reshape(images, 3, side, side).transpose(0, 2, 3, 1)
    return Split(np.ascontiguousarray(x), _labels(labels, images, place), _CLASSES)


def _labels(labels: Any, images: int, place: str) -> np.ndarray:
    try:
        y = np.asarray(labels)
    except ValueError:
        y = np.empty(0)
    if y.shape != (images,) or not np.issubdtype(y.dtype, np.integer):
        raise DataError(
            f"{images} whole numbers as b'labels'", f"{_kind(labels)} in {place}"
        )
    wrong = np.flatnonzero((y < 0) | (y >= _CLASSES))
    if wrong.size:
        raise DataError(
            f"a label from 0 to {_CLASSES - 1} a row",
            f"{y[wrong[0]]} in {place}, row {wrong[0]}",
        )
    return y.astype(np.int32)


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype}{list(value.shape)}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return f"a {type(value).__name__}"


def _unpickle(pickled: bytes, place: str) -> dict[Any, Any]:
    try:
        # Python 2 wrote the batches: its strings are bytes.
        batch = _ArraysOnly(io.BytesIO(pickled), encoding="bytes").load()
    except Exception as error:  # Damaged bytes make pickle raise nearly anything.
        raise DataError(
            f"a pickled dictionary at {place}",
            f"{len(pickled):,} bytes that cannot be unpickled ({one_line(error)})",
        ) from error
    if not isinstance(batch, dict):
        raise DataError(f"a pickled dictionary at {place}", _kind(batch))
    return batch


def _encode(text: str, encoding: str) -> bytes:
    """What Python 3's protocol 2 makes bytes with; no other codec is let in."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in {encoding!r}")
    return text.encode("latin1")


def _safe() -> dict[tuple[str, str], Callable[..., Any]]:
    """All that a pickle of dictionaries, lists, bytes and arrays may call."""
    array = np.empty(0, np.uint8)
    # By way of an array: NumPy has both functions under private names alone.
    reconstruct: Any = array.__reduce__()[0]
    from_buffer: Any = array.__reduce_ex__(5)[0]
    allowed: dict[tuple[str, str], Callable[..., Any]] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _encode,
    }
    for core in ("numpy.core", "numpy._core"):
        allowed[f"{core}.multiarray", "_reconstruct"] = reconstruct
        allowed[f"{core}.numeric", "_frombuffer"] = from_buffer
    return allowed


class _ArraysOnly(pickle.Unpickler):
    """A downloaded pickle is not trusted: it may name arrays and nothing else."""

    _allowed = _safe()

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        try:
            return self._allowed[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"{module}.{name} is not among what a batch may hold"
            ) from None
