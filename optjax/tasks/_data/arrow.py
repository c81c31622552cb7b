"""Tables in the Hugging Face schema, `img: struct<bytes, path>, label: int64`."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from optjax.tasks._data.decode import decode, image_size
from optjax.tasks._data.problem import DataError
from optjax.tasks._data.split import Split

_IMAGE_COLUMNS = ("img", "image")
_LABEL_COLUMNS = ("label", "fine_label")
_SCHEMA = "the columns img: struct<bytes: binary, path: string> and label: integer"


class Source(NamedTuple):
    """A table that is read in batches: its name in messages, schema and rows.

    `batches(columns)` reads these columns, a `pyarrow.Table` at a time.
    """

    name: str
    schema: pa.Schema
    rows: int
    batches: Callable[[Sequence[str]], Iterator[pa.Table]]


def read_split(sources: Sequence[Source], advance: Callable[[int], None]) -> Split:
    """Decode the images of `sources`, one after the other; call `advance(images)`.

    Raises:
      DataError: where a table is empty, its columns are others, an image cannot be
        decoded or is of another size, or a label is missing or out of range.
    """
    for source in sources:
        if source.rows == 0:
            raise DataError("at least one image", f"no rows in {source.name}")
    columns = [_columns(source) for source in sources]
    classes = _declared_classes(sources[0].schema, columns[0][1])
    rows = sum(source.rows for source in sources)
    x, y, done = np.empty((rows, 0, 0, 3), np.uint8), np.empty(rows, np.int32), 0
    for source, (image, label) in zip(sources, columns, strict=True):
        start = done
        for batch in source.batches((image, label)):

            def place(
                i: int, name: str = source.name, first: int = done - start
            ) -> str:
                return f"{name}, row {first + i}"

            encoded = pc.struct_field(batch[image], "bytes").to_pylist()
            if done == 0:
                x = np.empty((rows, *image_size(encoded[0], place(0)), 3), np.uint8)
            stop = done + len(encoded)
            y[done:stop] = _labels(batch[label], classes, place)
            decode(encoded, x[done:stop], place)
            advance(len(encoded))
            done = stop
    return Split(x, y, classes)


def _columns(source: Source) -> tuple[str, str]:
    """The names of the image and label columns."""
    types = {field.name: field.type for field in source.schema}
    image = next((name for name in _IMAGE_COLUMNS if name in types), "")
    label = next((name for name in _LABEL_COLUMNS if name in types), "")
    if (
        image
        and label
        and _is_image(types[image])
        and pa.types.is_integer(types[label])
    ):
        return image, label
    found = ", ".join(f"{name}: {kind}" for name, kind in types.items()) or "none"
    raise DataError(_SCHEMA, f"{found} in {source.name}")


def _is_image(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        return False
    inner = kind.field("bytes").type
    return bool(pa.types.is_binary(inner) or pa.types.is_large_binary(inner))


def _declared_classes(schema: pa.Schema, label: str) -> int | None:
    """The number of class names in the metadata that `datasets` writes."""
    try:
        metadata = json.loads((schema.metadata or {})[b"huggingface"])
        return len(metadata["info"]["features"][label]["names"]) or None
    except (KeyError, TypeError, ValueError):
        return None


def _labels(
    column: pa.ChunkedArray, classes: int | None, place: Callable[[int], str]
) -> np.ndarray:
    limit = 2**31 if classes is None else classes
    labels = column.to_pylist()
    for row, label in enumerate(labels):
        if label is None or not 0 <= label < limit:
            found = "none" if label is None else label
            raise DataError(
                f"a label from 0 to {limit - 1} a row", f"{found} in {place(row)}"
            )
    return np.array(labels, np.int32)
