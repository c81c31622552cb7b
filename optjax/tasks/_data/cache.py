"""Keep decoded images for the next time, under a name made of the files they are of."""

import hashlib
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from optjax.sweep._store.files import write_atomically
from optjax.tasks._data.split import Split

# To be raised whenever decoding gives other arrays than before.
_VERSION = 1


def cache_file(files: Sequence[Path], folder: Path | None) -> Path | None:
    """Return where the images of `files` are kept: another file once one has changed.

    `folder` is the user's own, such as ~/.cache/optjax, unless given. None where there
    is no such folder, or nothing to tell the images by.
    """
    folder = _users_folder() if folder is None else folder
    if folder is None or not files:
        return None
    digest = hashlib.sha256(f"{_VERSION}".encode())
    for file in files:
        status = file.stat()
        line = f"{file.resolve()}\0{status.st_size}\0{status.st_mtime_ns}\0"
        digest.update(os.fsencode(line))
    return folder / f"{digest.hexdigest()[:32]}.npz"


def _users_folder() -> Path | None:
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        # The XDG specification has relative paths ignored.
        return (given if given.is_absolute() else Path.home() / ".cache") / "optjax"
    except RuntimeError:
        return None


def load_cached(path: Path) -> tuple[Split, Split] | None:
    """Return the parts for training and testing; None unless they are there whole."""
    try:
        # np.load leaves a file open that is no archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            classes = int(arrays["classes"]) or None
            return (
                Split(arrays["train_x"], arrays["train_y"], classes),
                Split(arrays["test_x"], arrays["test_y"], classes),
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def save_cached(path: Path, train: Split, test: Split) -> None:
    """Write both parts whole or, where the disk refuses, not at all."""

    def write(temporary: Path) -> None:
        np.savez(
            temporary,
            train_x=train.x,
            train_y=train.y,
            test_x=test.x,
            test_y=test.y,
            classes=np.int32(train.classes or 0),
        )

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, write)
    except OSError:
        # The next time takes as long as this time: no reason to fail now.
        pass
