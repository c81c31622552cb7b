"""Decode PNG and JPEG bytes into one array.

In one thread: images as small as CIFAR-10's take less time than threads do to take
turns at the interpreter (measured: 1.3 to 1.7 times as long with 2 to 6 of them).
"""

import io
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from optjax.sweep._errors import one_line
from optjax.tasks._data.problem import DataError

# Decoders of other formats stay unused: downloaded bytes need no more of them.
_FORMATS = ("JPEG", "PNG")
# Of the other modes, 16 and 32 bits a channel, RGB would silently keep 8.
_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})


def image_size(encoded: bytes | None, place: str) -> tuple[int, int]:
    """Return an image's height and width, from its header alone."""
    try:
        with _open(encoded) as image:
            return image.height, image.width
    except Exception as error:  # Pillow raises whatever its decoders do.
        raise _undecodable(encoded, place, error) from error


def decode(
    encoded: Sequence[bytes | None], out: np.ndarray, place: Callable[[int], str]
) -> None:
    """Write image i, in RGB, to `out[i]`; `out` is (n, h, w, 3) in uint8.

    Grey images get three equal channels, and transparency is dropped.

    Raises:
      DataError: where a row has no image, one that cannot be decoded or one of another
        size; it says which, by `place(i)`.
    """
    for row, image in enumerate(encoded):
        try:
            size, mode = _decode_into(out[row], image)
        except Exception as error:  # Pillow raises whatever its decoders do.
            raise _undecodable(image, place(row), error) from error
        if size != out.shape[1:3]:
            raise DataError(
                f"images of one size, {out.shape[1]}×{out.shape[2]} as the first",
                f"one of {size[0]}×{size[1]} in {place(row)}",
            )
        if mode not in _MODES:
            raise DataError(
                "images of 8 bits a channel",
                f"one of Pillow's mode {mode!r} in {place(row)}",
            )


def _decode_into(out: np.ndarray, encoded: bytes | None) -> tuple[tuple[int, int], str]:
    """Return size and mode; decode only what has the size of `out` and a good mode."""
    with _open(encoded) as image:
        size, mode = (image.height, image.width), image.mode
        # Compared before decoding: a few bytes can claim a gigantic image.
        if size == out.shape[:2] and mode in _MODES:
            out[...] = np.asarray(image.convert("RGB"))
    return size, mode


def _open(encoded: bytes | None) -> Image.Image:
    return Image.open(io.BytesIO(encoded or b""), formats=_FORMATS)


def _undecodable(encoded: bytes | None, place: str, error: Exception) -> DataError:
    if not encoded:
        return DataError("the bytes of an image", f"none in {place}")
    return DataError(
        "an image in PNG or JPEG",
        f"{len(encoded):,} bytes in {place} that cannot be decoded ({one_line(error)})",
    )
