"""What the pictures of a sweep have in common: columns, rows, words."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from optjax._page.parts import spans_decades
from optjax.sweep._ranking import Best, numeric
from optjax.sweep._records import Record
from optjax.sweep._report.study import Study
from optjax.sweep._store.files import as_text


def value_column(study: Study) -> str:
    return f"best {study.ranking.metric}"


def cell(value: Any) -> Any:
    return (
        value
        if value is None or isinstance(value, int | float | str)
        else as_text(value)
    )


def varies(study: Study, name: str) -> bool:
    return any(
        name in study.varied(optimizer) for optimizer in study.ranking.optimizers
    )


def is_numeric(study: Study, name: str) -> bool:
    values = [numeric(r.trial.config, name) for r in study.ranking.records]
    return len({value for value in values if value is not None}) > 1


def row_numbers(study: Study) -> Mapping[int, int]:
    """The row of each record, by its identity."""
    return {id(record): row for row, record in enumerate(study.ranking.records)}


def over_seeds(study: Study, *, what: str = "median and range") -> str:
    """What a value over the seeds is, in words."""
    seeds = len({record.trial.seed for record in study.ranking.records})
    return "one seed" if seeds == 1 else f"{what} of {seeds} seeds"


def middle_seed(study: Study, best: Best) -> Record:
    """The record of the middle seed."""
    ordered = sorted(best.records, key=study.ranking.score)
    return ordered[len(ordered) // 2]


def closer(study: Study, lines: Sequence[Sequence[float]]) -> list[float] | None:
    """The ends of an axis without the worst quarter of what many lines have.

    Every line's best is inside. None where there is too little to leave out.
    """
    sign = study.ranking.sign
    scores = [[sign * y for y in line if math.isfinite(y)] for line in lines]
    scores = [line for line in scores if line]
    every = sorted(y for line in scores for y in line)
    if len(every) < 8 or is_log(study, [sign * y for y in every]):
        return None
    low, high = min(every[len(every) // 4], *map(max, scores)), every[-1]
    if not high > low or high - low > 0.5 * (high - every[0]):
        return None
    margin = 0.05 * (high - low)
    return sorted([sign * (low - margin), sign * (high + margin / 2)])


def is_log(study: Study, values: Sequence[float]) -> bool:
    # A loss over decades reads only on a logarithmic axis.
    finite = [value for value in values if math.isfinite(value)]
    is_loss = study.ranking.mode == "min"
    return is_loss and bool(finite) and spans_decades(min(finite), max(finite))
