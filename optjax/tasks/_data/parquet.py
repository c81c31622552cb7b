"""Image data as Parquet: `train*.parquet` and `test*.parquet`, whole or in shards."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from optjax.sweep._errors import one_line
from optjax.tasks._data.arrow import Source
from optjax.tasks._data.problem import DataError

_BATCH_ROWS = 2048
_SHARD = re.compile(r"-(\d+)-of-(\d+)\.parquet$")


class ParquetFiles(NamedTuple):
    """The files of one data set, each part's in the order of their names."""

    train: list[Path]
    test: list[Path]


def find_parquet(folder: Path) -> ParquetFiles | None:
    """Return the Parquet files in `folder` or in its only subfolder that has any.

    Raises:
      DataError: where several subfolders have some, or a part or a shard is missing.
    """
    places = [folder, *sorted(f for f in folder.iterdir() if _is_open_folder(f))]
    found = {place: _files(place) for place in places}
    with_files = [place for place, files in found.items() if any(files)]
    if not with_files:
        return None
    if with_files[0] != folder and len(with_files) > 1:
        raise DataError(
            f"one data set in {folder}",
            f"several: {', '.join(place.name for place in with_files)}",
            "Name the subfolder",
        )
    files = found[with_files[0]]
    for part, paths in files._asdict().items():
        if not paths:
            names = ", ".join(path.name for path in (*files.train, *files.test))
            raise DataError(f"{part}*.parquet in {with_files[0]}", f"only {names}")
        _check_shards(paths)
    return files


def _is_open_folder(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _files(folder: Path) -> ParquetFiles:
    return ParquetFiles(
        sorted(folder.glob("train*.parquet")), sorted(folder.glob("test*.parquet"))
    )


def _check_shards(paths: Sequence[Path]) -> None:
    """All shards of one set, or files that are none."""
    shards = [_SHARD.search(path.name) for path in paths]
    if not any(shards):
        return
    numbers = [(int(shard[1]), int(shard[2])) for shard in shards if shard]
    of = numbers[0][1]
    if len(numbers) < len(paths) or numbers != [(i, of) for i in range(of)]:
        names = ", ".join(path.name for path in paths)
        raise DataError(
            f"all shards, 0 to {of - 1}, of one set and nothing beside them",
            f"{names} in {paths[0].parent}",
        )


def parquet_source(path: Path) -> Source:
    """Open a Parquet file; nothing but its footer is read yet.

    Raises:
      DataError: where the file is empty, cut short or no Parquet; from `batches` too,
        where the damage is further inside.
    """

    def damaged(error: Exception) -> DataError:
        size = path.stat().st_size
        return DataError(
            f"a whole Parquet file at {path}",
            f"{size:,} bytes that cannot be read ({one_line(error)})",
        )

    try:
        with pq.ParquetFile(path) as file:
            schema, rows = file.schema_arrow, file.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise damaged(error) from error

    def batches(columns: Sequence[str]) -> Iterator[pa.Table]:
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(_BATCH_ROWS, columns=list(columns)):
                    yield pa.Table.from_batches([batch])
        except (pa.ArrowException, OSError) as error:
            raise damaged(error) from error

    return Source(str(path), schema, rows, batches)
