"""A sweep's metric over two hyper-parameters of one optimizer."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from optjax._page.parts import spans_decades
from optjax.sweep._errors import SweepError
from optjax.sweep._ranking import Best, Ranking, numeric, numeric_names, varying
from optjax.sweep._view.figures import draw_title, frame, over_seeds


def plot_heatmap(
    result: Ranking,
    x: str,
    y: str,
    optimizer: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """The metric's median over seeds, over two hyper-parameters of one optimizer.

    Cells where they form a grid, coloured points where they were drawn. × marks
    diverged; where further hyper-parameters vary, a place has the best over them.
    Bright is better.
    """
    if x == y:
        raise SweepError(f"x and y must be two hyper-parameters, got {x!r} twice")
    optimizer = _with_both(result, x, y) if optimizer is None else optimizer
    result.best(optimizer)  # names an unknown optimizer
    found: list[Best] = []
    at: dict[tuple[float, float], Best] = {}
    for best in result.configurations(optimizer):
        first, second = numeric(best.config, x), numeric(best.config, y)
        if first is not None and second is not None:
            found.append(best)
            at.setdefault((first, second), best)
    if not at:
        has = numeric_names(result.configurations(optimizer))
        raise SweepError(
            f"{optimizer} has no trial with both numeric hyper-parameters {x!r} and "
            f"{y!r}; it has {', '.join(has) or 'none'}"
        )
    figure, ax = frame(ax, width=7)
    ax.grid(visible=False)
    xs, ys = (sorted({place[axis] for place in at}) for axis in (0, 1))
    values = {p: best.median for p, best in at.items() if math.isfinite(best.median)}
    lost = [place for place in at if place not in values]
    cmap = "viridis" if result.mode == "max" else "viridis_r"
    norm = _colour_scale(list(values.values()))
    if len(at) == len(xs) * len(ys):
        drawn: Any = _cells(ax, xs, ys, values, norm, cmap)
        lost = [(xs.index(a), ys.index(b)) for a, b in lost]
    else:
        drawn = _points(ax, xs, ys, values, norm, cmap)
    if lost:
        ax.plot(*zip(*lost, strict=True), "x", color="#D55E00", ms=9, mew=2)
    better = "higher" if result.mode == "max" else "lower"
    bar = figure.colorbar(drawn, ax=ax)
    bar.set_label(f"{result.label} ({better} is better)")
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    others = [name for name in varying(found) if name not in (x, y)]
    chosen = "best over them" if len(found) > len(at) else "drawn anew for each point"
    parts = [
        f"{optimizer}: {over_seeds(result, shaded=False)}",
        *["× diverged"] * bool(lost),
        *[f"{', '.join(others)}: {chosen}"] * bool(others),
    ]
    draw_title(ax, parts)
    return figure


def _with_both(result: Ranking, x: str, y: str) -> str:
    having = dict.fromkeys(
        record.trial.config.optimizer
        for record in result.records
        if None not in (numeric(record.trial.config, n) for n in (x, y))
    )
    if len(having) != 1:
        raise SweepError(
            f"pass optimizer=, one of those that have both {x!r} and {y!r}: "
            f"{', '.join(having) or 'there is none'}"
        )
    return next(iter(having))


def _colour_scale(values: Sequence[float]) -> Normalize:
    """Logarithmic where the values span decades, or the few worst hide all others."""
    if not values:
        return Normalize(0, 1)
    low, high = min(values), max(values)
    return LogNorm(low, high) if spans_decades(low, high) else Normalize(low, high)


def _cells(
    ax: Axes,
    xs: Sequence[float],
    ys: Sequence[float],
    values: Mapping[tuple[float, float], float],
    norm: Normalize,
    cmap: str,
) -> Any:
    columns = {place: index for index, place in enumerate(xs)}
    rows = {place: index for index, place in enumerate(ys)}
    grid = np.full((len(ys), len(xs)), np.nan)
    for (a, b), value in values.items():
        grid[rows[b], columns[a]] = value
    drawn = ax.imshow(grid, origin="lower", aspect="auto", cmap=cmap, norm=norm)
    # At most sixteen labels an axis, so that they do not run into each other.
    every_x, every_y = math.ceil(len(xs) / 16), math.ceil(len(ys) / 16)
    shown = [f"{v:.3g}" for v in xs[::every_x]]
    ax.set_xticks(range(0, len(xs), every_x), shown, rotation=45, ha="right")
    ax.set_yticks(range(0, len(ys), every_y), [f"{v:.3g}" for v in ys[::every_y]])
    if len(xs) <= 10 and len(ys) <= 16:
        for (row, column), value in np.ndenumerate(grid):
            if math.isfinite(value):
                red, green, blue, _ = colormaps[cmap](norm(value))
                is_bright = 0.3 * red + 0.59 * green + 0.11 * blue > 0.5
                ink = "black" if is_bright else "white"
                text = f"{value:.3g}"
                ax.text(column, row, text, ha="center", va="center", color=ink, size=8)
    return drawn


def _points(
    ax: Axes,
    xs: Sequence[float],
    ys: Sequence[float],
    values: Mapping[tuple[float, float], float],
    norm: Normalize,
    cmap: str,
) -> Any:
    for name, places in (("x", xs), ("y", ys)):
        if spans_decades(places[0], places[-1]):
            getattr(ax, f"set_{name}scale")("log")
    return ax.scatter(
        [place[0] for place in values],
        [place[1] for place in values],
        c=list(values.values()),
        s=60,
        cmap=cmap,
        norm=norm,
        edgecolors="0.5",
        linewidths=0.5,
    )
