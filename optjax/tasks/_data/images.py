"""Images with labels, for training and testing: found, read, checked and described."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from optjax.sweep._errors import one_line
from optjax.tasks._data.arrow import Source, read_split
from optjax.tasks._data.cache import cache_file, load_cached, save_cached
from optjax.tasks._data.hugging_face import find_hugging_face
from optjax.tasks._data.parquet import find_parquet, parquet_source
from optjax.tasks._data.problem import DataError
from optjax.tasks._data.progress import progress
from optjax.tasks._data.python_batches import find_python_batches, read_python_batches
from optjax.tasks._data.split import Split

_FORMATS = (
    "train*.parquet and test*.parquet, or data_batch_1 to data_batch_5 and test_batch, "
    "or cifar-10-python.tar.gz"
)


class Images(NamedTuple):
    """Images (n, h, w, 3) in uint8; labels (n,), 0 to classes − 1, in int32."""

    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    classes: int


def load_images(source: str | Path, cache: Path | None = None) -> Images:
    """Load the images of a folder, an archive or a Hugging Face data set.

    Args:
      source: a folder with `train*.parquet` and `test*.parquet` in the schema of the
        Hugging Face data set `cifar10` (`img: struct<bytes, path>` of PNG or JPEG
        bytes, `label: int64`), whole or in shards, in the folder or a subfolder; or a
        folder with the original batches of CIFAR-10 for Python, or their archive
        `cifar-10-python.tar.gz`; or `"hf:NAME"`, loaded by Hugging Face `datasets`
        where that is installed.
      cache: the folder that decoded images are kept in, so that they are decoded once;
        `$XDG_CACHE_HOME/optjax` or `~/.cache/optjax` unless given.

    Returns:
      The images. Without declared class names, classes are counted from the labels.

    Raises:
      DataError: where there is no such data, or it is damaged or inconsistent; the
        message says what was sought, what was found, and how to get the data.

    Example:
      images = load_images("cifar10")
      print(describe(images))  # 50,000 + 10,000 images of 32×32×3, 10 classes
    """
    name = str(source)
    try:
        if name.startswith("hf:"):
            train, test = _from_hugging_face(name.removeprefix("hf:"), cache)
        else:
            train, test = _from_disk(Path(source).expanduser(), cache)
    except OSError as error:
        raise DataError(f"images at {name}", one_line(error)) from error
    return _joined(train, test, name)


def describe(images: Images) -> str:
    """Return one line: how many images, of what shape, of how many classes."""
    shape = "×".join(str(size) for size in images.train_x.shape[1:])
    return (
        f"{len(images.train_x):,} + {len(images.test_x):,} images of {shape}, "
        f"{images.classes} classes"
    )


def _from_disk(path: Path, cache: Path | None) -> tuple[Split, Split]:
    if not path.exists():
        raise DataError(f"a folder with images at {path}", "nothing there")
    if path.is_dir() and (files := find_parquet(path)):
        return _decoded(
            [parquet_source(file) for file in files.train],
            [parquet_source(file) for file in files.test],
            cache_file([*files.train, *files.test], cache),
        )
    if batches := find_python_batches(path):
        return read_python_batches(batches)
    if path.is_dir():
        names = sorted(file.name for file in path.iterdir())
        found = ", ".join(names[:8]) + (" …" if len(names) > 8 else "")
        raise DataError(f"{_FORMATS}, in {path}", found or "an empty folder")
    raise DataError(f"a folder with {_FORMATS}", f"the file {path}")


def _from_hugging_face(name: str, cache: Path | None) -> tuple[Split, Split]:
    found = find_hugging_face(name)
    return _decoded([found.train], [found.test], cache_file(found.files, cache))


def _decoded(
    train: Sequence[Source], test: Sequence[Source], cached: Path | None
) -> tuple[Split, Split]:
    """Both parts, from the cache if they are there, else to the cache."""
    if cached is not None and (parts := load_cached(cached)):
        return parts
    images = sum(source.rows for source in (*train, *test))
    with progress("decoding images", images) as advance:
        parts = read_split(train, advance), read_split(test, advance)
    if cached is not None:
        save_cached(cached, *parts)
    return parts


def _joined(train: Split, test: Split, name: str) -> Images:
    """Check the parts against each other."""
    if train.x.shape[1:] != test.x.shape[1:]:
        sizes = [f"{part.x.shape[1]}×{part.x.shape[2]}" for part in (train, test)]
        raise DataError(
            "images of one size",
            f"{sizes[0]} for training, {sizes[1]} for testing in {name}",
        )
    classes = train.classes or _counted_classes(train, name)
    if test.y.max() >= classes:
        raise DataError(
            f"labels from 0 to {classes - 1}, as in training",
            f"the label {test.y.max()} among the test images of {name}",
        )
    return Images(train.x, train.y, test.x, test.y, classes)


def _counted_classes(train: Split, name: str) -> int:
    """One more than the largest label, every label being in use."""
    used = np.unique(train.y)
    unused = np.flatnonzero(used != np.arange(len(used)))
    if unused.size:
        raise DataError(
            "labels that start at 0 and leave none out",
            f"no training image with the label {unused[0]}, but some with "
            f"{used[-1]}, in {name}",
        )
    return len(used)
