"""The pictures of a sweep's page, as data, and the table that they refer to."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from optjax._page.parts import Picture, axis
from optjax.monitoring._metrics import NO_RATE, RATE_METRICS
from optjax.sweep._ranking import Best, numeric
from optjax.sweep._report.best_of import expected_best
from optjax.sweep._report.importance import importance_picture
from optjax.sweep._report.space_pictures import heatmaps, isolation, parallel
from optjax.sweep._report.study import Study
from optjax.sweep._report.words import (
    cell,
    closer,
    is_log,
    is_numeric,
    middle_seed,
    over_seeds,
    row_numbers,
    value_column,
    varies,
)
from optjax.sweep._store.files import as_text

# Every trial's curve is in the page where all together have at most so many values.
_MOST_VALUES = 60_000


def trials(study: Study) -> Mapping[str, Any]:
    """The table of trials, whose rows the pictures refer to by their number."""
    ranking = study.ranking
    names = [name for name in ranking.hyper_names if varies(study, name)]
    several = len(ranking.optimizers) > 1
    columns = [
        "trial",
        *["optimizer"] * several,
        *names,
        "seed",
        "status",
        "steps",
        value_column(study),
    ]
    rows = []
    for record in ranking.records:
        config = record.trial.config
        values = config.values
        score = ranking.score(record)
        rows.append(
            [
                record.trial.number,
                *[config.optimizer] * several,
                *(cell(values.get(name)) for name in names),
                record.trial.seed,
                record.status,
                record.steps,
                score if math.isfinite(score) else None,
            ]
        )
    return {"columns": columns, "rows": rows}


def pictures(study: Study) -> list[Picture]:
    """Those that have something to show."""
    names = [name for name in study.ranking.hyper_names if varies(study, name)]
    numbers = [name for name in names if is_numeric(study, name)]
    first = ["learning_rate"] if "learning_rate" in numbers else numbers[:1]
    several = len(study.standings) > 1
    found = [
        *[_ranking(study)] * (several or study.seeds > 1),
        *(_sensitivity(study, name) for name in first if _is_joined(study, name)),
        *_curves(study),
        *_rates(study),
        *importance_picture(study),
        *[parallel(study, names)] * (len(names) > 1),
        *(isolation(study, name) for name in numbers if len(names) > 1),
        *heatmaps(study, numbers),
        *[expected_best(study)] * (len(study.ranking.configurations()) > 2),
    ]
    return found


def _ranking(study: Study) -> Picture:
    ranking, row_of = study.ranking, row_numbers(study)
    varied = {name for o in ranking.optimizers for name in study.varied(o)}
    rows = []
    for standing in study.standings:
        best = standing.best
        values = best.config.values
        inside = ", ".join(
            f"{name.replace('learning_rate', 'lr')} {as_text(cell(values[name]))}"
            for name in values
            if name in varied
        )
        finite = [
            (score, row_of[id(record)])
            for record in best.records
            if math.isfinite(score := ranking.score(record))
        ]
        rows.append(
            {
                "label": f"{standing.place}{'=' * standing.is_tied} "
                f"{best.config.optimizer}" + f" {inside}" * bool(inside),
                "value": best.median,
                "low": min((score for score, _ in finite), default=None),
                "high": max((score for score, _ in finite), default=None),
                "dots": finite,
            }
        )
    better = "right" if ranking.mode == "max" else "left"
    ties = " = marks equal medians." * any(s.is_tied for s in study.standings)
    return Picture(
        "Ranking",
        f"Each optimizer at its best: {over_seeds(study)}, {better} is better.{ties}",
        {"kind": "intervals", "x": axis(ranking.label, [], is_log=False), "rows": rows},
    )


def _is_joined(study: Study, name: str) -> bool:
    """Whether neighbouring values differ in nothing else, for some optimizer."""
    return any(
        len(study.tried(name, optimizer)) < len(study.ranking.configurations(optimizer))
        or study.varied(optimizer) == [name]
        for optimizer in study.ranking.optimizers
    )


def _sensitivity(study: Study, name: str) -> Picture:
    ranking, row_of = study.ranking, row_numbers(study)
    series: list[dict[str, Any]] = []
    for standing in study.standings:
        at: dict[float, Best] = {}
        for best in ranking.configurations(standing.best.config.optimizer):
            value = numeric(best.config, name)
            if value is not None:
                at.setdefault(value, best)
        places = sorted(at)
        if len(places) > 1:
            series.append(
                {
                    "name": standing.best.config.optimizer,
                    "x": places,
                    "y": [at[x].median for x in places],
                    "low": [at[x].low for x in places],
                    "high": [at[x].high for x in places],
                    "rows": [row_of[id(middle_seed(study, at[x]))] for x in places],
                }
            )
    every = [x for line in series for x in line["x"]]
    scores = [y for line in series for y in line["y"]]
    others = "; the best over the other hyper-parameters" * any(
        len(study.varied(o)) > 1 for o in ranking.optimizers
    )
    return Picture(
        f"Sensitivity to {name}",
        f"{ranking.label} at each {name}: {over_seeds(study)}{others}. A gap is a "
        "value that diverged.",
        {
            "kind": "lines",
            "x": axis(name, every),
            "y": axis(ranking.label, scores, is_log=is_log(study, scores)),
            "series": series,
            "domain": closer(study, [line["y"] for line in series]),
            "dots": True,
            "wide": len(series) > 8,
        },
    )


def _curves(study: Study) -> list[Picture]:
    ranking = study.ranking
    if all(len(record.curve.steps) < 2 for record in ranking.records):
        return []
    series: list[dict[str, Any]] = []
    for standing in study.standings:
        members = [r for r in standing.best.records if r.has_score]
        if not members:
            continue
        length = min(len(record.curve.steps) for record in members)
        values = np.array(
            [record.curve.values[ranking.metric][:length] for record in members]
        )
        series.append(
            {
                "name": standing.best.config.optimizer,
                "x": list(members[0].curve.steps[:length]),
                "y": np.median(values, axis=0).tolist(),
                "low": values.min(axis=0).tolist(),
                "high": values.max(axis=0).tolist(),
            }
        )
    scores = [y for line in series for y in line["y"]]
    spec: dict[str, Any] = {
        "kind": "lines",
        "x": axis("updates", [], is_log=False),
        "y": axis(ranking.label, scores, is_log=is_log(study, scores)),
        "series": series,
        "domain": closer(study, [line["y"] for line in series]),
        "wide": len(series) > 8,
    }
    said = f"Each optimizer's best configuration: {over_seeds(study)}."
    if sum(len(record.curve.steps) for record in ranking.records) <= _MOST_VALUES:
        longest = max(ranking.records, key=lambda record: len(record.curve.steps))
        spec["steps"] = list(longest.curve.steps)
        spec["curves"] = [
            record.curve.values.get(ranking.metric, ()) for record in ranking.records
        ]
        said += " A trial that is chosen has its own curve."
    return [Picture("Curves", said, spec)]


def _rates(study: Study) -> list[Picture]:
    """Where trials return a monitor's rates, those of each optimizer's best."""
    series = []
    for standing in study.standings:
        record = middle_seed(study, standing.best)
        values = record.curve.values
        if record.has_score and values.keys() >= RATE_METRICS.keys():
            low, middle, high = (
                [rate if rate > NO_RATE else math.nan for rate in values[name]]
                for name in RATE_METRICS
            )
            series.append(
                {
                    "name": standing.best.config.optimizer,
                    "x": list(record.curve.steps),
                    "y": middle,
                    "low": low,
                    "high": high,
                }
            )
    if not series:
        return []
    return [
        Picture(
            "Effective rates",
            "Each optimizer's best configuration, its middle seed: the median over the "
            "coordinates, and the band that holds 90 % of them.",
            {
                "kind": "lines",
                "x": axis("updates", [], is_log=False),
                "y": axis("effective rate s·V", [], is_log=True),
                "series": series,
                "wide": len(series) > 8,
            },
        )
    ]
