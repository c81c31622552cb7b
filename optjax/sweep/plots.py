"""Pictures of a sweep, legible on a light page and on a dark one."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from optjax.sweep.problem import SweepError
from optjax.sweep.records import DIVERGED, STOPPED, Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from optjax.sweep.result import Best, SweepResult

__all__ = ["plot_curves", "plot_heatmap", "plot_sensitivity"]

# Okabe and Ito's colours, told apart by every kind of colour vision; with more lines
# than colours the dashes change.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", ":", "-.")
_LEGEND_INSIDE = 8


def plot_sensitivity(
    result: "SweepResult", x: str = "learning_rate", ax: "Axes | None" = None
) -> "Figure":
    """Metric against `x`: a line an optimizer, a band over seeds, × for diverged.

    Where other hyper-parameters vary too, a point is the best over them. × marks the
    values of x at which even that has diverged, on the axis' worse edge.
    """
    figure, ax = _axes(ax)
    others = [
        name for name in _varying(result.records, result.hyper_names) if name != x
    ]
    positive = True
    any_line = any_drawn = False
    for number, optimizer in enumerate(result.optimizers):
        at: dict[float, Best] = {}
        for best in result.configurations(optimizer):
            value = best.config.hyper.get(x)
            if value is not None:
                at.setdefault(value, best)
        if not at:
            continue
        any_line = True
        values = sorted(at)
        positive &= values[0] > 0
        points = [at[value] for value in values]
        style = _style(number)
        # Where each x was drawn with other values of the rest, a line would zigzag
        # between them.
        drawn_apart = len(at) == len(result.configurations(optimizer)) and others
        any_drawn |= bool(drawn_apart)
        line = {**style, "linestyle": ""} if drawn_apart else style
        finite = np.array([math.isfinite(point.median) for point in points])
        median = _finite([point.median for point in points])
        ax.plot(values, median, marker="o", markersize=3.5, label=optimizer, **line)
        low = _finite([point.low for point in points])
        high = _finite([point.high for point in points])
        low = np.where(np.isnan(low), median, low)
        if drawn_apart:
            ax.vlines(values, low, high, color=style["color"], alpha=0.3)
        else:
            ax.fill_between(values, low, high, color=style["color"], alpha=0.15, lw=0)
        if finite.any():
            best_at = int(
                (np.nanargmax if result.mode == "max" else np.nanargmin)(median)
            )
            ax.plot(values[best_at], median[best_at], "o", ms=9, color=style["color"])
        lost = [v for v, ok in zip(values, finite, strict=True) if not ok]
        edge = 0.02 if result.mode == "max" else 0.98
        # Each optimizer's row of crosses a little further in than the last.
        shift = 0.03 * number * (1 if result.mode == "max" else -1)
        ax.plot(
            lost,
            [edge + shift] * len(lost),
            "x",
            color=style["color"],
            transform=ax.get_xaxis_transform(),
        )
    if not any_line:
        raise SweepError(
            f"no trial has the numeric hyper-parameter {x!r}; there are "
            f"{', '.join(result.hyper_names)}"
        )
    if positive:
        ax.set_xscale("log")
    rest = "varied too" if any_drawn else "best over them shown"
    best_over = f"; {', '.join(others)}: {rest}" if others else ""
    seeds = len({record.trial.seed for record in result.records})
    ax.set_xlabel(x)
    ax.set_ylabel(result.metric)
    ax.set_title(
        f"median of {seeds} seed{'s' * (seeds > 1)}, range shaded, × diverged"
        f"{best_over}",
        fontsize="medium",
    )
    _scale_errors(ax, result)
    _legend(ax)
    return figure


def plot_curves(result: "SweepResult", ax: "Axes | None" = None) -> "Figure":
    """The metric over the updates: each optimizer's best configuration over its seeds.

    Trials that successive halving stopped are thin and grey.
    """
    figure, ax = _axes(ax)
    stopped = [record for record in result.records if record.status == STOPPED]
    for record in stopped:
        ax.plot(
            record.curve.steps,
            record.curve.values[result.metric],
            color="0.75",
            lw=0.5,
            zorder=0,
        )
    for number, optimizer in enumerate(result.optimizers):
        best = result.best(optimizer)
        ran = [record for record in best.records if record.status != DIVERGED]
        ran = [record for record in ran if record.status != STOPPED] or ran
        if not ran:
            continue
        steps, curves = _together(ran, result.metric)
        style = _style(number)
        label = optimizer
        if "learning_rate" in best.config.hyper:
            label += f", learning rate {best.config.hyper['learning_rate']:.3g}"
        ax.plot(steps, np.median(curves, axis=0), label=label, **style)
        ax.fill_between(
            steps,
            curves.min(axis=0),
            curves.max(axis=0),
            color=style["color"],
            alpha=0.15,
            lw=0,
        )
    ax.set_xlabel("updates")
    ax.set_ylabel(result.metric)
    grey = f"; grey: {len(stopped)} stopped early" if stopped else ""
    ax.set_title(
        f"best configuration of each optimizer, range over seeds shaded{grey}",
        fontsize="medium",
    )
    _scale_errors(ax, result)
    _legend(ax)
    return figure


def plot_heatmap(
    result: "SweepResult",
    x: str,
    y: str,
    optimizer: str | None = None,
    ax: "Axes | None" = None,
) -> "Figure":
    """The metric's median over seeds, over two hyper-parameters of one optimizer.

    Cells where they form a grid, coloured points where they were drawn. × marks
    diverged; where further hyper-parameters vary, a place has the best over them.
    """
    if optimizer is None:
        having = [
            name
            for name in result.optimizers
            if {x, y} <= set(result.best(name).config.hyper)
        ]
        if len(having) != 1:
            raise SweepError(
                f"pass optimizer=, one of those that have both {x!r} and {y!r}: "
                f"{', '.join(having) or 'there is none'}"
            )
        optimizer = having[0]
    at: dict[tuple[float, float], float] = {}
    for best in result.configurations(optimizer):
        hyper = best.config.hyper
        if not {x, y} <= set(hyper):
            raise SweepError(
                f"{optimizer} has no numeric hyper-parameters {x!r} and {y!r}; it has "
                f"{', '.join(hyper)}"
            )
        at.setdefault((hyper[x], hyper[y]), best.median)
    figure, ax = _axes(ax)
    ax.grid(visible=False)
    xs, ys = (sorted({place[axis] for place in at}) for axis in (0, 1))
    is_grid = len(at) == len(xs) * len(ys)
    values = {place: value for place, value in at.items() if math.isfinite(value)}
    lost = [place for place, value in at.items() if not math.isfinite(value)]
    norm = _colour_scale(list(values.values()))
    if is_grid:
        drawn = _cells(ax, xs, ys, values, norm)
        lost = [(xs.index(a), ys.index(b)) for a, b in lost]
    else:
        drawn = ax.scatter(
            [place[0] for place in values],
            [place[1] for place in values],
            c=list(values.values()),
            s=60,
            cmap="viridis",
            norm=norm,
            edgecolors="black",
            linewidths=0.5,
        )
        for name, places in (("x", xs), ("y", ys)):
            if places[0] > 0 and places[-1] / places[0] > 30:
                getattr(ax, f"set_{name}scale")("log")
    if lost:
        ax.plot(*zip(*lost, strict=True), "x", color="#D55E00", ms=9, mew=2)
    bar = figure.colorbar(drawn, ax=ax)
    bar.set_label(result.metric)
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.set_title(f"{optimizer}: median over seeds, × diverged", fontsize="medium")
    return figure


def _colour_scale(values: Sequence[float]) -> Any:
    """Logarithmic where the values span decades, or the few worst hide all others."""
    from matplotlib.colors import LogNorm, Normalize

    if not values:
        return Normalize(0, 1)
    low, high = min(values), max(values)
    return LogNorm(low, high) if low > 0 and high / low > 30 else Normalize(low, high)


def _cells(ax: "Axes", xs: list[float], ys: list[float], values: Any, norm: Any) -> Any:
    grid = np.full((len(ys), len(xs)), np.nan)
    for (a, b), value in values.items():
        grid[ys.index(b), xs.index(a)] = value
    drawn = ax.imshow(grid, origin="lower", aspect="auto", cmap="viridis", norm=norm)
    ax.set_xticks(range(len(xs)), [f"{v:.3g}" for v in xs], rotation=45, ha="right")
    ax.set_yticks(range(len(ys)), [f"{v:.3g}" for v in ys])
    if grid.size <= 100 and np.isfinite(grid).any():
        for (row, column), value in np.ndenumerate(grid):
            if math.isfinite(value):
                ink = "black" if norm(value) > 0.5 else "white"
                text = f"{value:.3g}"
                ax.text(column, row, text, ha="center", va="center", color=ink, size=8)
    return drawn


def _axes(ax: "Axes | None") -> tuple[Any, Any]:
    if ax is not None:
        return ax.figure, ax
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise SweepError(
            "pictures need matplotlib; run: pip install 'optjax[race]'"
        ) from None
    # Not pyplot's: no window and no state, and white whatever the page's colour is.
    figure = Figure(figsize=(7, 4.2), dpi=150, layout="constrained", facecolor="white")
    ax = figure.add_subplot()
    ax.grid(alpha=0.3)
    ax.set_axisbelow(True)
    return figure, ax


def _style(number: int) -> dict[str, Any]:
    return {
        "color": _COLOURS[number % len(_COLOURS)],
        "linestyle": _DASHES[number // len(_COLOURS) % len(_DASHES)],
    }


def _finite(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, float)
    return np.where(np.isfinite(array), array, np.nan)


def _varying(records: Sequence[Record], names: Sequence[str]) -> list[str]:
    varying = []
    for name in names:
        by_optimizer: dict[str, set[str]] = {}
        for record in records:
            config = record.trial.config
            values = {**config.hyper, **config.static}
            if name in values:
                by_optimizer.setdefault(config.optimizer, set()).add(repr(values[name]))
        if any(len(values) > 1 for values in by_optimizer.values()):
            varying.append(name)
    return varying


def _together(records: Sequence[Record], metric: str) -> tuple[np.ndarray, np.ndarray]:
    """The curves as far as all of them go."""
    length = min(len(record.curve.steps) for record in records)
    curves = [record.curve.values[metric][:length] for record in records]
    return np.array(records[0].curve.steps[:length]), np.array(curves)


def _scale_errors(ax: "Axes", result: "SweepResult") -> None:
    """A loss over decades reads only on a logarithmic axis."""
    scores = [result.score(record) for record in result.records]
    finite = [score for score in scores if math.isfinite(score)]
    is_wide = finite and min(finite) > 0 and max(finite) / min(finite) > 100
    if result.mode == "min" and is_wide:
        ax.set_yscale("log")


def _legend(ax: "Axes") -> None:
    count = len(ax.get_legend_handles_labels()[0])
    if count <= _LEGEND_INSIDE:
        ax.legend(frameon=False, fontsize="small")
    else:
        ax.legend(
            frameon=False,
            fontsize="x-small",
            loc="upper left",
            bbox_to_anchor=(1.01, 1.0),
            ncols=math.ceil(count / 14),
        )
