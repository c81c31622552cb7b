"""Pictures of a sweep: a frame for a few optimizers, a panel each for many.

A diverged seed is drawn as what it counts as, worse than any value: the band over the
seeds then reaches the frame's worse edge, and a line has a gap where the median itself
has diverged.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from optjax.sweep._errors import SweepError
from optjax.sweep._ranking import Best, Ranking, numeric, varying
from optjax.sweep._records import DIVERGED, FINISHED, STOPPED, Record
from optjax.sweep._view.figures import (
    DPI,
    SweepFigure,
    check_not_empty,
    draw_title,
    frame,
    over_seeds,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


__all__ = ["plot_curves", "plot_sensitivity"]

# Okabe and Ito's colours that show on white and on black, told apart by every kind of
# colour vision; with more lines than colours the dashes change.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_DASHES = ("-", "--", ":", "-.")
_GREY = "0.65"

# How many lines in one frame can be told apart.
_MOST_IN_A_FRAME = 8


class _Line(NamedTuple):
    """One optimizer's line.

    Attributes:
      name: for a panel's title, where the others are told apart by their place.
      label: for the legend.
      x: places, ascending.
      median: at each place; with `worst` and `best`, infinite for diverged.
      worst: the worst seed's.
      best: the best seed's.
      diverged: the share of the seeds that diverged there.
      joined: whether neighbouring places are alike in everything but x.
      rank: the best median of all places, for the order of the panels.
      best_x: the place that ranks, where a dot stands.
      stopped: curves of trials that were stopped early.
    """

    name: str
    label: str
    x: np.ndarray
    median: np.ndarray
    worst: np.ndarray
    best: np.ndarray
    diverged: np.ndarray
    joined: bool = True
    rank: float = math.inf
    best_x: float | None = None
    stopped: tuple[np.ndarray, ...] = ()


class _Words(NamedTuple):
    """What stands around the lines."""

    title: Sequence[str]
    x_label: str
    y_label: str
    is_log_x: bool
    has_dots: bool
    is_max: bool
    target: float | None = None


def plot_sensitivity(
    result: Ranking, x: str = "learning_rate", ax: "Axes | None" = None
) -> Figure:
    """Metric against `x`: a line an optimizer, a band over seeds, × for diverged.

    Where other hyper-parameters vary too, a point is the best over them; points are
    not joined where each x was drawn with other values of the rest.
    """
    check_not_empty(result)
    lines: list[_Line] = []
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
            f"{', '.join(result.hyper_names) or 'none'}"
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
    words = _Words(
        parts,
        x,
        result.label,
        is_log_x=all(line.x[0] > 0 for line in lines),
        has_dots=True,
        is_max=result.mode == "max",
    )
    return _draw(lines, words, ax)


def _line_over(
    result: Ranking, optimizer: str, x: str, at: Mapping[float, Best], joined: bool
) -> _Line:
    places = sorted(at)
    points = [at[place] for place in places]
    best = result.best(optimizer)
    score = best.median
    shares = [
        sum(not r.has_score for r in point.records) / len(point.records)
        for point in points
    ]
    shown = f"{score:.3g}" if math.isfinite(score) else "diverged"
    return _Line(
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
    result: Ranking, ax: "Axes | None" = None, target: float | None = None
) -> Figure:
    """The metric over the updates: each optimizer's best configuration over its seeds.

    A seed counts as diverged from its first non-finite evaluation on. Trials that
    a rule stopped are thin and grey, and no part of a median unless none
    of the seeds has gone on.
    """
    check_not_empty(result)
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
    words = _Words(
        parts,
        "updates",
        result.label,
        is_log_x=False,
        has_dots=False,
        is_max=result.mode == "max",
        target=target,
    )
    return _draw(lines, words, ax)


def _line_of_best(result: Ranking, optimizer: str) -> _Line:
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
    return _Line(
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


# ------------------------------------------------------------------ lines in frames


def _draw(lines: Sequence[_Line], words: _Words, ax: "Axes | None") -> Figure:
    if ax is None and len(lines) > _MOST_IN_A_FRAME:
        return _draw_panels(sorted(lines, key=lambda line: line.rank), words)
    is_new = ax is None
    figure, ax = frame(ax, width=8.5)
    told_apart = list(lines)
    if len(lines) > _MOST_IN_A_FRAME:
        told_apart = sorted(lines, key=lambda line: line.rank)[: _MOST_IN_A_FRAME - 1]
        labels = {line.label for line in told_apart}
        told_apart = [line for line in lines if line.label in labels]
        others = [line for line in lines if line.label not in labels]
        _draw_grey(ax, others, label=f"the {len(others)} others")
    for line in lines:
        _draw_stopped(ax, line)
    styles = [_style(number) for number in range(len(told_apart))]
    for line, style in zip(told_apart, styles, strict=True):
        _draw_medians(ax, line, style, words)
    limits = _set_scales(ax, lines, words)
    _draw_target(ax, words)
    for row, (line, style) in enumerate(zip(told_apart, styles, strict=True)):
        _draw_band(ax, line, style["color"], limits[0 if words.is_max else 1])
        _draw_crosses(ax, line, style["color"], row, words)
    # Bands that end at the frame's edge must not push it further out.
    ax.set_ylim(limits, auto=None)
    ax.set_xlabel(words.x_label)
    ax.set_ylabel(words.y_label)
    draw_title(ax, words.title)
    if is_new:
        ax.legend(
            frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1)
        )
    else:
        ax.legend(framealpha=0.8, fontsize="small")
    return figure


def _draw_panels(lines: Sequence[_Line], words: _Words) -> Figure:
    columns = min(len(lines), 5)
    rows = math.ceil(len(lines) / columns)
    figure = SweepFigure(
        figsize=(2.1 * columns + 0.6, 1.7 * rows + 1), dpi=DPI, layout="constrained"
    )
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    axes = list(grid.flat)
    # Behind a line run the others, or where there are stopped trials, those.
    has_stopped = any(line.stopped for line in lines)
    style = {"color": _COLOURS[0], "linestyle": "-"}
    for ax, line in zip(axes, lines, strict=False):
        if has_stopped:
            _draw_stopped(ax, line)
        else:
            _draw_grey(ax, lines, label=None)
        _draw_medians(ax, line, style, words)
        ax.set_title(line.name, fontsize=8, loc="left")
        ax.tick_params(labelsize=7)
        ax.spines[["top", "right"]].set_visible(False)
    limits = _closer(_set_scales(axes[0], lines, words), lines, words)
    for ax, line in zip(axes, lines, strict=False):
        _draw_target(ax, words)
        _draw_band(ax, line, style["color"], limits[0 if words.is_max else 1])
        _draw_crosses(ax, line, _COLOURS[1], 0, words)
    axes[0].set_ylim(limits, auto=None)
    for ax in axes[len(lines) :]:
        ax.set_visible(False)
    # Where the last row is short, the panel above an empty place carries the labels.
    for ax in axes[max(0, len(lines) - columns) : len(lines)]:
        ax.tick_params(labelbottom=True)
    title = [*words.title, *["grey: the others"] * (not has_stopped)]
    figure.suptitle(wrapped(title, 22 * columns), fontsize=10)
    figure.supxlabel(words.x_label, fontsize=10)
    figure.supylabel(words.y_label, fontsize=10)
    return figure


def _style(number: int) -> dict[str, Any]:
    return {
        "color": _COLOURS[number % len(_COLOURS)],
        "linestyle": _DASHES[number // len(_COLOURS) % len(_DASHES)],
    }


def _draw_grey(ax: "Axes", lines: Sequence[_Line], label: str | None) -> None:
    for line in lines:
        style = "-" if line.joined else ""
        ax.plot(
            line.x,
            _finite(line.median),
            color=_GREY,
            linestyle=style,
            marker="" if line.joined else ".",
            markersize=2,
            lw=0.6,
            zorder=1,
            label=label,
        )
        label = None  # one entry for all of them


def _draw_stopped(ax: "Axes", line: _Line) -> None:
    # One collection, as there can be thousands.
    if line.stopped:
        ax.add_collection(
            LineCollection(line.stopped, colors=_GREY, linewidths=0.5, zorder=0)
        )


def _draw_medians(
    ax: "Axes", line: _Line, style: Mapping[str, Any], words: _Words
) -> None:
    median = _finite(line.median)
    has_dots = words.has_dots or len(line.x) == 1
    ax.plot(
        line.x,
        median,
        color=style["color"],
        linestyle=style["linestyle"] if line.joined else "",
        marker="o" if has_dots else "",
        markersize=3,
        label=line.label,
        zorder=3,
    )
    if line.best_x is not None:
        best = median[line.x == line.best_x]
        ax.plot(line.best_x, best[0], "o", ms=7, color=style["color"], zorder=4)


def _closer(
    limits: tuple[float, float], lines: Sequence[_Line], words: _Words
) -> tuple[float, float]:
    """Limits without the worst quarter of the points, where many lines compare.

    Every line's best is inside.
    """
    sign = 1.0 if words.is_max else -1.0
    medians = [sign * line.median[np.isfinite(line.median)] for line in lines]
    medians = [median for median in medians if len(median)]
    if not medians:
        return limits
    bests = [np.max(median) for median in medians]
    edge = min(np.quantile(np.concatenate(medians), 0.25), min(bests))
    edge -= 0.05 * (max(bests) - edge)
    low, high = limits
    return (max(low, edge), high) if words.is_max else (low, min(high, -edge))


def _draw_target(ax: "Axes", words: _Words) -> None:
    if words.target is not None:
        ax.axhline(words.target, color=_GREY, lw=0.8, ls=":", zorder=1)


def _set_scales(
    ax: "Axes", lines: Sequence[_Line], words: _Words
) -> tuple[float, float]:
    """Set scales for all that is finite, bands and stopped trials too.

    Returns the limits of the vertical axis.
    """
    if words.is_log_x:
        ax.set_xscale("log")
    xs = np.concatenate([line.x for line in lines])
    if words.is_log_x and xs.min() == xs.max():
        # A logarithmic axis finds no limits around a single place.
        ax.set_xlim(xs[0] / 3, xs[0] * 3)
    # Where the median has diverged, nothing of the band is drawn.
    points = [
        np.column_stack([line.x, values])[np.isfinite(line.median)]
        for line in lines
        for values in (line.median, line.worst, line.best)
    ]
    shown = np.concatenate([*points, *(p for line in lines for p in line.stopped)])
    shown = shown[np.isfinite(shown).all(axis=1)]
    if not len(shown):
        # All diverged: no values on the axis, but the places of the crosses.
        ax.set_yticks([])
        ax.update_datalim([(x, y) for line in lines for x in line.x for y in (0, 1)])
        ax.autoscale_view()
        return ax.get_ylim()
    low, high = shown[:, 1].min(), shown[:, 1].max()
    # A loss over decades reads only on a logarithmic axis.
    if not words.is_max and low > 0 and high / low > 100:
        ax.set_yscale("log")
    lost = [(x, high) for line in lines for x in line.x[line.diverged > 0]]
    ax.update_datalim([*shown, *lost])
    ax.autoscale_view()
    return ax.get_ylim()


def _draw_band(ax: "Axes", line: _Line, colour: str, edge: float) -> None:
    """The range over the seeds, as far as `edge` where one has diverged."""
    finite = np.isfinite(line.median)
    worst = np.where(np.isfinite(line.worst), line.worst, edge)
    around = np.concatenate([[False], finite, [False]])
    is_alone = finite & (~(around[:-2] | around[2:]) | (not line.joined))
    if is_alone.any():
        ax.vlines(
            line.x[is_alone],
            worst[is_alone],
            line.best[is_alone],
            color=colour,
            alpha=0.3,
            zorder=2,
        )
    if line.joined:
        ax.fill_between(
            line.x,
            worst,
            np.where(finite, line.best, np.nan),
            where=finite,
            color=colour,
            alpha=0.18,
            lw=0,
            zorder=2,
        )


def _draw_crosses(
    ax: "Axes", line: _Line, colour: str, row: int, words: _Words
) -> None:
    """× on the worse edge, each optimizer's row a little further in than the last."""
    height = 0.03 + 0.035 * row
    everyone = np.isclose(line.diverged, 1) | ~np.isfinite(line.median)
    for where, alpha in ((everyone, 1.0), (~everyone, 0.45)):
        x = line.x[where & (line.diverged > 0)]
        if len(x):
            ax.plot(
                x,
                np.full(len(x), height if words.is_max else 1 - height),
                "x",
                color=colour,
                alpha=alpha,
                markersize=5,
                transform=ax.get_xaxis_transform(),
                zorder=4,
            )


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.nan)
