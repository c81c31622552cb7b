"""Lines in a frame, or where there are many, in a panel each.

A band over the seeds reaches the frame's worse edge where one has diverged, and a line
has a gap where the median itself has.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from optjax.sweep._view.figures import DPI, SweepFigure, draw_title, frame, wrapped

# Okabe and Ito's colours that show on white and on black, told apart by every kind of
# colour vision; with more lines than colours the dashes change.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_DASHES = ("-", "--", ":", "-.")
_GREY = "0.65"

# How many lines in one frame can be told apart.
_MOST_IN_A_FRAME = 8


class Line(NamedTuple):
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


class Words(NamedTuple):
    """What stands around the lines."""

    title: Sequence[str]
    x_label: str
    y_label: str
    is_log_x: bool
    has_dots: bool
    is_max: bool
    target: float | None = None


def draw(lines: Sequence[Line], words: Words, ax: Axes | None) -> Figure:
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


def _draw_panels(lines: Sequence[Line], words: Words) -> Figure:
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


def _draw_grey(ax: Axes, lines: Sequence[Line], label: str | None) -> None:
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


def _draw_stopped(ax: Axes, line: Line) -> None:
    # One collection, as there can be thousands.
    if line.stopped:
        ax.add_collection(
            LineCollection(line.stopped, colors=_GREY, linewidths=0.5, zorder=0)
        )


def _draw_medians(ax: Axes, line: Line, style: Mapping[str, Any], words: Words) -> None:
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
    limits: tuple[float, float], lines: Sequence[Line], words: Words
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


def _draw_target(ax: Axes, words: Words) -> None:
    if words.target is not None:
        ax.axhline(words.target, color=_GREY, lw=0.8, ls=":", zorder=1)


def _set_scales(ax: Axes, lines: Sequence[Line], words: Words) -> tuple[float, float]:
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


def _draw_band(ax: Axes, line: Line, colour: str, edge: float) -> None:
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


def _draw_crosses(ax: Axes, line: Line, colour: str, row: int, words: Words) -> None:
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
