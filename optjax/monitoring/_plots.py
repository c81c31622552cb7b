"""Pictures of effective rates over training. They need matplotlib."""

import math
from collections.abc import Sequence
from typing import Annotated, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from optjax._arguments.checked import checked
from optjax._arguments.named import Names, Text
from optjax._arguments.objects import Instance
from optjax._groups import OVERALL
from optjax.monitoring._report import Report, Reports, stack_reports
from optjax.monitoring._summary import EDGES, PROBABILITIES

__all__ = ["plot_quantiles", "plot_rates", "plot_transition"]

AxesToDrawIn: TypeAlias = Annotated[Axes, Instance(Axes, "matplotlib axes")]

_BLUE, _ORANGE, _GREEN = "#0072B2", "#D55E00", "#009E73"
_DPI = 110
_COLUMNS = 3
# A band that has hardly begun to close would take the picture for itself.
_MARGIN = 1.0


@checked
def plot_rates(
    reports: Reports, group: Text = OVERALL, ax: AxesToDrawIn | None = None
) -> Figure:
    """The histogram of log10 of the rates over training, with the closing band.

    Each column is a summarised step, and the darker a place the more coordinates have
    that rate. The lines are the bounds, and the rate that they converge to.

    Args:
      reports: reports in the order of time, or one whose first axis is time.
      group: the group to show.
      ax: where to draw; a figure of its own by default.

    Raises:
      ValueError: for reports with another leading axis than one of time.

    Example:
        figure = plot_rates(reports)
        figure.savefig("rates.png")
    """
    over_time = _over_time(reports)
    summary = over_time[group]
    figure, ax = _axes(ax, 7.0, 4.2)
    steps = over_time.steps
    # Where the schedule is 0, as a warm-up's first, so is every rate: no place on a
    # logarithmic axis.
    histogram = np.where(summary.schedule[:, None] == 0, 0.0, summary.histogram)
    mesh = ax.pcolormesh(
        _edges(steps),
        EDGES,
        np.ma.masked_equal(histogram.T, 0.0),
        cmap="Blues",
        norm=PowerNorm(0.5, 0.0, max(float(histogram.max()), 1e-6)),
        rasterized=True,
    )
    colorbar = ax.figure.colorbar(mesh, ax=ax, pad=0.02)
    colorbar.set_label("share of coordinates")
    low, high = _visible(histogram, summary.sgd_rate)
    if np.isfinite(summary.upper).any():
        for bound, label in ((summary.upper, "upper"), (summary.lower, "lower")):
            ax.plot(steps, _log10(bound), color=_ORANGE, lw=1.5)
            _label_where_visible(ax, steps, _log10(bound), label, low, high)
    sgd = _log10(summary.sgd_rate)
    if np.isfinite(sgd).any():
        first = int(np.argmax(np.isfinite(sgd)))
        ax.plot(steps, sgd, color=_GREEN, lw=1.2, ls="--")
        ax.annotate(
            "SGD",
            (steps[first], sgd[first]),
            (4, 4),
            textcoords="offset points",
            color=_GREEN,
        )
    ax.set_ylim(low, high)
    _log_labels(ax)
    _step_axis(ax, steps)
    ax.set_xlabel("step")
    ax.set_ylabel("effective rate s·V")
    ax.set_title(f"Rates of {_of(group)}", loc="left")
    return figure


@checked
def plot_transition(reports: Reports, ax: AxesToDrawIn | None = None) -> Figure:
    """How much of each group is SGD: a row a group, a column a summarised step.

    A mark stands at the step since which the group counts as SGD.

    Args:
      reports: reports in the order of time, or one whose first axis is time.
      ax: where to draw; a figure of its own by default.

    Raises:
      ValueError: for reports with another leading axis than one of time.
    """
    over_time = _over_time(reports)
    names = list(over_time)
    shares = np.stack([over_time[name].near_sgd for name in names])
    longest = max(map(len, names))
    figure, ax = _axes(ax, 6.0 + 0.08 * longest, 1.3 + 0.3 * len(names))
    # Groups without a rate, such as frozen ones, are grey.
    ax.set_facecolor("#DDDDDD")
    mesh = ax.pcolormesh(
        _edges(over_time.steps),
        np.arange(len(names) + 1) - 0.5,
        np.ma.masked_invalid(shares),
        cmap="Blues",
        vmin=0.0,
        vmax=1.0,
        rasterized=True,
    )
    colorbar = ax.figure.colorbar(mesh, ax=ax, pad=0.02)
    colorbar.set_label("share near the SGD rate")
    for row, name in enumerate(names):
        since = int(over_time[name].sgd_since[-1])
        if since >= 0:
            ax.plot(since, row, marker="D", color=_ORANGE, ms=6, mec="white")
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    _step_axis(ax, over_time.steps)
    ax.set_xlabel("step")
    ax.set_title("When it became SGD (◆)", loc="left")
    return figure


@checked
def plot_quantiles(reports: Reports, groups: Names | None = None) -> Figure:
    """The median rate over training, with bands for half and 90 % of coordinates.

    Args:
      reports: reports in the order of time, or one whose first axis is time.
      groups: which groups, a panel each; all by default.

    Raises:
      ValueError: for reports with another leading axis than one of time, or no group.
    """
    over_time = _over_time(reports)
    names = list(over_time) if groups is None else list(groups)
    if not names:
        raise ValueError("plot_quantiles needs at least one group, got none.")
    columns = min(_COLUMNS, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(
        (3.4 * columns + 0.8, 2.4 * rows + 0.6),
        dpi=_DPI,
        layout="constrained",
        facecolor="white",
    )
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for ax, name in zip(axes.flat, names, strict=False):
        quantiles = over_time[name].quantiles
        column = {p: quantiles[:, PROBABILITIES.index(p)] for p in PROBABILITIES}
        for low, high, alpha in ((0.05, 0.95, 0.2), (0.25, 0.75, 0.35)):
            ax.fill_between(
                over_time.steps,
                column[low],
                column[high],
                color=_BLUE,
                alpha=alpha,
                lw=0,
            )
        ax.plot(over_time.steps, column[0.5], color=_BLUE)
        if np.isfinite(over_time[name].sgd_rate).any():
            ax.plot(
                over_time.steps,
                _log10(over_time[name].sgd_rate),
                color=_GREEN,
                ls="--",
                lw=1.2,
            )
        ax.set_title(name, loc="left", fontsize="medium")
        ax.grid(alpha=0.3)
        _log_labels(ax)
        _step_axis(ax, over_time.steps)
    for ax in list(axes.flat)[len(names) :]:
        ax.remove()
    # Where no panel is below, the common axis has its numbers here.
    for ax in list(axes.flat)[max(len(names) - columns, 0) : len(names)]:
        ax.tick_params(labelbottom=True)
    figure.supxlabel("step")
    figure.supylabel("effective rate s·V")
    figure.suptitle("Median, half and 90 % of coordinates; dashed: the SGD rate")
    return figure


def _over_time(reports: Sequence[Report] | Report) -> Report:
    over_time = stack_reports(reports)
    if not len(over_time.steps):
        raise ValueError(
            "nothing to draw: none of the reports has seen a step. Take them after "
            "`update`, from an optimizer whose monitor is on (every >= 1)."
        )
    return over_time


def _axes(ax: Axes | None, width: float, height: float) -> tuple[Figure, Axes]:
    if ax is None:
        figure = Figure(
            (width, height), dpi=_DPI, layout="constrained", facecolor="white"
        )
        return figure, figure.subplots()
    root = ax.get_figure(root=True)
    assert isinstance(root, Figure)
    return root, ax


def _edges(steps: np.ndarray) -> np.ndarray:
    """Borders halfway between the steps, so that each has a column of its own."""
    if len(steps) == 1:
        return np.array([steps[0] - 0.5, steps[0] + 0.5])
    if _is_logarithmic(steps):
        between = np.sqrt(steps[1:] * steps[:-1].astype(float))
    else:
        between = (steps[1:] + steps[:-1]) / 2
    return np.concatenate([[steps[0]], between, [steps[-1]]])


def _is_logarithmic(steps: np.ndarray) -> bool:
    # Bounds close as 1/t: on a linear axis all of it happens at the left edge.
    return bool(steps[-1] >= 100 * steps[0])


def _log10(values: np.ndarray) -> np.ndarray:
    """Of what has one; NaN is not drawn."""
    return np.log10(np.where(values > 0, values, np.nan))


def _visible(histogram: np.ndarray, sgd_rate: np.ndarray) -> tuple[float, float]:
    """The range of log10 rates that occur, and that of the SGD rate."""
    bins = np.flatnonzero(histogram.sum(axis=0))
    ends = [EDGES[bins[0]], EDGES[bins[-1] + 1]] if len(bins) else []
    known = sgd_rate[np.isfinite(sgd_rate) & (sgd_rate > 0)]
    ends += list(np.log10(known))
    if not ends:
        return float(EDGES[0]), float(EDGES[-1])
    return float(min(ends)) - _MARGIN, float(max(ends)) + _MARGIN


def _label_where_visible(
    ax: Axes, steps: np.ndarray, y: np.ndarray, text: str, low: float, high: float
) -> None:
    inside = np.flatnonzero((y > low + 0.2) & (y < high - 0.2))
    if len(inside):
        place = inside[0]
        above = y[place] > y[-1]
        ax.annotate(
            text,
            (float(steps[place]), float(y[place])),
            (6, 2 if above else -2),
            textcoords="offset points",
            va="bottom" if above else "top",
            color=_ORANGE,
        )


def _step_axis(ax: Axes, steps: np.ndarray) -> None:
    if _is_logarithmic(steps):
        ax.set_xscale("log")
    else:
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if len(steps) == 1:
        ax.set_xlim(steps[0] - 0.5, steps[0] + 0.5)
    else:
        ax.set_xlim(steps[0], steps[-1])


def _log_labels(ax: Axes) -> None:
    ax.yaxis.set_major_locator(MaxNLocator(7, integer=True, min_n_ticks=2))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"$10^{{{y:g}}}$"))


def _of(group: str) -> str:
    return "all coordinates" if group == OVERALL else group
