"""Pictures of a sweep's metric, over a hyper-parameter and over the updates.

A diverged seed is drawn as what it counts as, worse than any value.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from optjax.sweep._errors import SweepError
from optjax.sweep._ranking import Best, Ranking, numeric, numeric_names, varying
from optjax.sweep._records import DIVERGED, FINISHED, STOPPED, Record
from optjax.sweep._view.figures import over_seeds
from optjax.sweep._view.lines import Line, Words, draw


def plot_sensitivity(
    result: Ranking, x: str = "learning_rate", ax: Axes | None = None
) -> Figure:
    """Metric against `x`: a line an optimizer, a band over seeds, × for diverged.

    Where other hyper-parameters vary too, a point is the best over them; points are
    not joined where each x was drawn with other values of the rest.
    """
    lines: list[Line] = []
    best_over: dict[str, None] = {}
    apart: dict[str, None] = {}
    for optimizer in result.optimizers:
        found = [
            (value, best)
            for best in result.configurations(optimizer)
            if (value := numeric(best.config, x)) is not None
        ]
        if not found:
            continue
        others = [n for n in varying([best for _, best in found]) if n != x]
        at: dict[float, Best] = {}
        for value, best in found:
            at.setdefault(value, best)
        joined = not others or len(at) < len(found)
        (best_over if joined else apart).update(dict.fromkeys(others))
        lines.append(_line_over(result, optimizer, x, at, joined))
    if not lines:
        raise SweepError(
            f"no trial has the numeric hyper-parameter {x!r}; there are "
            f"{', '.join(numeric_names(result.configurations())) or 'none'}"
        )
    partly = any(((line.diverged > 0) & (line.diverged < 1)).any() for line in lines)
    diverged = any(line.diverged.any() for line in lines)
    parts = [
        over_seeds(result),
        "dot: best",
        *["× diverged" + ", pale: some of the seeds" * partly] * diverged,
        *[f"{', '.join(best_over)}: best over them"] * bool(best_over),
        *[f"{', '.join(apart)}: drawn anew for each point"] * bool(apart),
    ]
    words = Words(
        parts,
        x,
        result.label,
        is_log_x=all(line.x[0] > 0 for line in lines),
        has_dots=True,
        is_max=result.mode == "max",
    )
    return draw(lines, words, ax)


def _line_over(
    result: Ranking, optimizer: str, x: str, at: Mapping[float, Best], joined: bool
) -> Line:
    places = sorted(at)
    points = [at[place] for place in places]
    best = result.best(optimizer)
    score = best.median
    shares = [
        sum(not r.has_score for r in point.records) / len(point.records)
        for point in points
    ]
    shown = f"{score:.3g}" if math.isfinite(score) else "diverged"
    return Line(
        f"{optimizer}: {shown}",
        optimizer,
        np.array(places, float),
        np.array([point.median for point in points]),
        np.array([point.low for point in points]),
        np.array([point.high for point in points]),
        np.array(shares),
        joined,
        -score if result.mode == "max" else score,
        numeric(best.config, x) if math.isfinite(score) else None,
    )


def plot_curves(
    result: Ranking, ax: Axes | None = None, target: float | None = None
) -> Figure:
    """The metric over the updates: each optimizer's best configuration over its seeds.

    A seed counts as diverged from its first non-finite evaluation on. Trials that
    a rule stopped are thin and grey, and no part of a median unless none
    of the seeds has gone on.
    """
    lines = [_line_of_best(result, optimizer) for optimizer in result.optimizers]
    stopped = sum(len(line.stopped) for line in lines)
    diverged = any(line.diverged.any() for line in lines)
    parts = [
        "each optimizer's best configuration",
        over_seeds(result),
        *["× a seed diverges"] * diverged,
        *([] if target is None else [f"dotted: {target:g}"]),
        *[f"thin grey: {stopped} trial{'s' * (stopped > 1)} stopped early"]
        * bool(stopped),
    ]
    words = Words(
        parts,
        "updates",
        result.label,
        is_log_x=False,
        has_dots=False,
        is_max=result.mode == "max",
        target=target,
    )
    return draw(lines, words, ax)


def _line_of_best(result: Ranking, optimizer: str) -> Line:
    best = result.best(optimizer)
    finished = [r for r in best.records if r.status == FINISHED]
    ended = [r for r in best.records if r.status != STOPPED]
    members = ended if finished else list(best.records)
    scores, steps, newly = _curves_of(result, members)
    order = np.sort(scores, axis=0)
    worst, top = (order[0], order[-1])[:: 1 if result.mode == "max" else -1]
    label = optimizer
    if "learning_rate" in best.config.hyper:
        label += f", learning rate {best.config.hyper['learning_rate']:.3g}"
    if math.isinf(best.high):
        label = f"{optimizer}: diverged"
    elif len(members) < len(best.records):
        label += f", {len(members)} of {len(best.records)} seeds"
    return Line(
        label.replace("learning rate", "lr"),
        label,
        steps,
        np.median(scores, axis=0),
        worst,
        top,
        newly,
        rank=-best.median if result.mode == "max" else best.median,
        stopped=tuple(
            np.column_stack([record.curve.steps, record.curve.values[result.metric]])
            for record in result.records
            if record.status == STOPPED and record.trial.config.optimizer == optimizer
        ),
    )


def _curves_of(
    result: Ranking, members: Sequence[Record]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores (seeds, evaluations), steps, and the share that diverges at each."""
    going = [r for r in members if r.status != DIVERGED]
    lengths = [len(r.curve.steps) for r in going or members]
    length = min(lengths) if going else max(lengths)
    longest = max(members, key=lambda r: len(r.curve.steps))
    scores = np.full((len(members), length), result.worst)
    newly = np.zeros(length)
    for row, record in zip(scores, members, strict=True):
        sound = record.curve.values[result.metric][:length]
        if record.status == DIVERGED and len(record.curve.steps) <= length:
            newly[len(record.curve.steps) - 1] += 1 / len(members)
            sound = sound[: len(record.curve.steps) - 1]
        row[: len(sound)] = sound
    return scores, np.array(longest.curve.steps[:length], float), newly
