"""A sweep's result from its directory, without the code that was trained."""

import bisect
import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from optjax.sweep._errors import DamagedError, SweepError
from optjax.sweep._records import Config, Curve, Record, TrialSpec
from optjax.sweep._result import SweepResult, hyper_cells
from optjax.sweep._store.files import as_text
from optjax.sweep._store.sealed import read_sealed

__all__ = ["read_result"]


def read_result(directory: Path) -> SweepResult:
    """What a sweep that has ended, or was interrupted, left in its directory.

    Raises:
      SweepError: where there is no sweep, or it has written no results.csv yet.
      DamagedError: where the files do not fit each other.
    """
    said = read_sealed(directory / "sweep" / "sweep.json")
    if said is None:
        raise SweepError(f"{directory} holds no sweep: it has no sweep/sweep.json")
    rows = _table(directory / "results.csv")
    if rows is None:
        raise SweepError(
            f"{directory} has no results.csv yet, which a sweep writes when it ends or "
            "is interrupted; run its command again to go on"
        )
    curves = _curves(directory / "curves.csv", said["metrics"])
    names = _names(said)
    configs = {
        _key(optimizer, hyper_cells(config, names), seed): config
        for optimizer, hyper, static, seed in said["trials"]
        for config in [Config(optimizer, hyper, static)]
    }
    columns = hyper_cells(Config("", {}, {}), names)
    records = []
    for row in rows:
        number, seed, steps = (int(row[name]) for name in ("trial", "seed", "steps"))
        cells = {name: row.get(name, "") for name in columns}
        try:
            config = configs[_key(row["optimizer"], cells, seed)]
            # One that failed may have none.
            curve = _until(curves.get(number, Curve((), {})), steps)
        except KeyError:
            raise DamagedError(
                directory / "results.csv", f"trial {number} is not in the sweep"
            ) from None
        spec = TrialSpec(number, config, seed)
        message = row.get("message", "")
        records.append(Record(spec, row["status"], steps, curve, message))
    about = {
        **said["about"],
        "steps": said["steps"],
        "evaluate_every": said["evaluate_every"],
    }
    return SweepResult(tuple(records), said["metric"], said["mode"], about=about)


def _names(said: Mapping[str, Any]) -> list[str]:
    names: dict[str, None] = {}
    for _, hyper, static, _ in said["trials"]:
        names.update(dict.fromkeys([*hyper, *static]))
    return list(names)


def _key(optimizer: str, cells: Mapping[str, Any], seed: int) -> Any:
    return optimizer, seed, tuple((name, as_text(v)) for name, v in cells.items())


def _table(path: Path) -> list[dict[str, str]] | None:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    return list(csv.DictReader(io.StringIO(text)))


def _curves(path: Path, metrics: Sequence[str]) -> dict[int, Curve]:
    """Every trial's evaluations."""
    steps: dict[int, list[int]] = {}
    values: dict[int, list[list[float]]] = {}
    for row in _table(path) or []:
        number = int(row["trial"])
        steps.setdefault(number, []).append(int(row["step"]))
        measured = [float(np.float32(row[name])) for name in metrics]
        values.setdefault(number, []).append(measured)
    by_metric = {
        number: dict(zip(metrics, zip(*rows, strict=True), strict=True))
        for number, rows in values.items()
    }
    return {number: Curve(tuple(at), by_metric[number]) for number, at in steps.items()}


def _until(curve: Curve, step: int) -> Curve:
    """The curve up to a step; after a divergence the program went on."""
    count = bisect.bisect_right(curve.steps, step)
    kept = {name: values[:count] for name, values in curve.values.items()}
    return Curve(curve.steps[:count], kept)
