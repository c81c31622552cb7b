"""Image data by name, such as `hf:cifar10`, through Hugging Face `datasets`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from optjax.sweep._errors import one_line
from optjax.tasks._data.arrow import Source
from optjax.tasks._data.problem import DataError

_BATCH_ROWS = 2048


class HuggingFaceSources(NamedTuple):
    """The parts of one data set, and the files that `datasets` keeps them in."""

    train: Source
    test: Source
    files: list[Path]


def find_hugging_face(name: str) -> HuggingFaceSources:
    """Return the parts `train` and `test` of a data set, downloaded where need be.

    Raises:
      DataError: where `datasets` is not installed, cannot load the name, or loads
        something without these two parts.
    """
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise DataError(
            f"Hugging Face `datasets`, to load {name!r}",
            "no such package (pip install datasets)",
        ) from error
    try:
        parts = datasets.load_dataset(name)
    except Exception as error:  # The network, the hub and every builder have theirs.
        raise DataError(
            f"the data set {name!r} at Hugging Face", one_line(error)
        ) from error
    missing = [part for part in ("train", "test") if part not in parts]
    if missing:
        raise DataError(
            f"the parts train and test of {name!r}", f"{', '.join(parts) or 'none'}"
        )
    return HuggingFaceSources(
        _source(f"hf:{name}, train", parts["train"]),
        _source(f"hf:{name}, test", parts["test"]),
        [
            Path(file["filename"])
            for part in ("train", "test")
            for file in parts[part].cache_files
        ],
    )


def _source(name: str, dataset: Any) -> Source:
    def batches(columns: Sequence[str]) -> Iterator[Any]:
        # As Arrow, images are the bytes of the file: `datasets` decodes none.
        tables = dataset.select_columns(list(columns)).with_format("arrow")
        yield from tables.iter(batch_size=_BATCH_ROWS)

    return Source(name, dataset.features.arrow_schema, len(dataset), batches)
