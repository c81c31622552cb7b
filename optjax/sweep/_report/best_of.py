"""What a smaller budget would have found."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from optjax._page.parts import Picture, axis
from optjax.sweep._report.study import Study
from optjax.sweep._report.words import is_log

_MOST_PLACES = 60


def expected_best(study: Study) -> Picture:
    """The best median that so many configurations, drawn at random, would have had."""
    series: list[dict[str, Any]] = []
    for standing in study.standings:
        optimizer = standing.best.config.optimizer
        found = study.ranking.configurations(optimizer)
        medians = [best.median for best in found if math.isfinite(best.median)]
        if len(found) > 1 and medians:
            worst = medians[-1]
            padded = [*medians, *[worst] * (len(found) - len(medians))]
            ks = _places(len(found))
            series.append(
                {
                    "name": optimizer,
                    "x": ks,
                    "y": [mean_of_best(padded, k) for k in ks],
                }
            )
    scores = [y for line in series for y in line["y"]]
    return Picture(
        "Expected best of k configurations",
        "What a smaller budget would have found: the mean of the best median among k "
        "configurations of these, drawn without replacement. What diverged counts as "
        "the worst that did not.",
        {
            "kind": "lines",
            "x": axis("configurations", [x for line in series for x in line["x"]]),
            "y": axis(study.ranking.label, scores, is_log=is_log(study, scores)),
            "series": series,
        },
    )


def mean_of_best(ordered: Sequence[float], k: int) -> float:
    """The mean of the best of k values out of these, which have the best first."""
    count = len(ordered)
    # The i-th is best where the other k − 1 are among those after it.
    weight, total = k / count, 0.0
    for i, value in enumerate(ordered):
        total += weight * value
        left = count - i - 1
        if left < k - 1 or not left:
            break
        weight *= (left - k + 1) / left
    return total


def _places(count: int) -> list[int]:
    """Numbers from 1 to `count`, all of them where they are few."""
    return sorted({round(k) for k in np.geomspace(1, count, min(count, _MOST_PLACES))})
