"""Pictures of what was tried: parallel coordinates, isolation, pairs of two."""

import math
from collections.abc import Sequence
from typing import Any

from optjax._page.parts import Picture, axis
from optjax.sweep._ranking import Best, numeric
from optjax.sweep._report.study import Study
from optjax.sweep._report.words import (
    is_log,
    middle_seed,
    over_seeds,
    row_numbers,
    value_column,
)

# Lines that a parallel picture can carry.
_MOST_LINES = 300
_MOST_CELLS = 400
# Places of a hyper-parameter that was drawn, for the best at each.
_PLACES = 12


def parallel(study: Study, names: Sequence[str]) -> Picture:
    ranking = study.ranking
    row_of = row_numbers(study)
    chosen = [best for best in ranking.configurations() if math.isfinite(best.median)]
    rows = [row_of[id(middle_seed(study, best))] for best in chosen[:_MOST_LINES]]
    axes = [{"column": "optimizer", "label": "optimizer"}] * (
        len(ranking.optimizers) > 1
    ) + [
        {
            "column": name,
            "label": name,
            "log": axis("", [numeric(r.trial.config, name) for r in ranking.records])[
                "log"
            ],
        }
        for name in names
    ]
    axes.append({"column": value_column(study), "label": ranking.label, "log": False})
    few = (
        f"the best {len(rows)} of {len(chosen)} configurations"
        if len(chosen) > len(rows)
        else "a line a configuration"
    )
    return Picture(
        "Parallel coordinates",
        f"Hyper-parameters and what came of them, {few} (the middle seed); bright is "
        "better.",
        {
            "kind": "parallel",
            "axes": axes,
            "rows": rows,
            "max": ranking.mode == "max",
            "wide": True,
        },
    )


def isolation(study: Study, name: str) -> Picture:
    ranking = study.ranking
    found = [
        (value, best)
        for best in ranking.configurations()
        if (value := numeric(best.config, name)) is not None
        and math.isfinite(best.median)
    ]
    values = [value for value, _ in found]
    x = axis(name, values)
    place = _places(values, is_log=x["log"])
    top: dict[float, tuple[float, float]] = {}
    # Best first, so that the first at a place is the best there.
    for value, best in found:
        top.setdefault(place(value), (value, best.median))
    scores = [best.median for _, best in found]
    return Picture(
        f"Isolation of {name}",
        f"Every trial over {name}; the line is the best median at each value, whatever "
        "the other hyper-parameters are.",
        {
            "kind": "dots",
            "column": name,
            "value": value_column(study),
            "x": x,
            "y": axis(ranking.label, scores, is_log=is_log(study, scores)),
            "best": sorted(top.values()),
        },
    )


def _places(values: Sequence[float], *, is_log: bool) -> Any:
    """A function to the place of a value: itself on a grid, a bin where drawn."""
    if len(set(values)) <= 2 * _PLACES:
        return lambda value: value
    at = math.log if is_log else float
    low, high = at(min(values)), at(max(values))
    width = (high - low) / _PLACES
    return lambda value: min(int((at(value) - low) / width), _PLACES - 1)


def heatmaps(study: Study, numbers: Sequence[str]) -> list[Picture]:
    """A heat map for each optimizer and pair whose values form a grid."""
    found = []
    for standing in study.standings[:4]:
        optimizer = standing.best.config.optimizer
        varied = [name for name in study.varied(optimizer) if name in numbers]
        pairs = [(x, y) for i, x in enumerate(varied) for y in varied[i + 1 :]]
        for x, y in pairs[:6]:
            spec = _cells(study, optimizer, x, y)
            if spec is not None:
                found.append(
                    Picture(
                        f"{optimizer}: {x} and {y}",
                        f"{study.ranking.label}, {over_seeds(study, what='median')}; "
                        "the best over the other hyper-parameters. × diverged.",
                        spec,
                    )
                )
    return found


def _cells(study: Study, optimizer: str, x: str, y: str) -> dict[str, Any] | None:
    ranking, row_of = study.ranking, row_numbers(study)
    at: dict[tuple[float, float], Best] = {}
    for best in ranking.configurations(optimizer):
        a, b = numeric(best.config, x), numeric(best.config, y)
        if a is not None and b is not None:
            at.setdefault((a, b), best)
    xs, ys = (sorted({place[i] for place in at}) for i in (0, 1))
    if not 1 < len(xs) * len(ys) <= _MOST_CELLS or 2 * len(at) < len(xs) * len(ys):
        return None
    return {
        "kind": "cells",
        "x": {"label": x, "values": xs},
        "y": {"label": y, "values": ys},
        "label": ranking.label,
        "max": ranking.mode == "max",
        "cells": [
            {
                "x": a,
                "y": b,
                "value": best.median,
                "rows": [row_of[id(record)] for record in best.records],
            }
            for (a, b), best in sorted(at.items())
        ],
    }
