"""The race's two pictures: small multiples, each with the whole field in grey.

Twenty-three lines in one frame cannot be told apart. Here each optimizer has a panel
of its own, in the order of the ranking, on common axes; the other optimizers' lines
run behind it, so that it can be compared with the field at a glance.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from optjax._race.execute import Curves
from optjax._race.plan import Plan
from optjax._race.results import TARGET_ACCURACY, Result, sound
from optjax._race.standings import Cell, Standing, cells

# Okabe and Ito's palette, which colour-blind readers can tell apart.
BLUE, VERMILLION, GREY = "#0072B2", "#D55E00", "#BBBBBB"

Lines = Mapping[str, tuple[np.ndarray, ...]]


def plot_learning_curves(
    path: Path, plan: Plan, standings: Sequence[Standing], curves: Mapping[str, Curves]
) -> None:
    """Draw validation accuracy over steps at each optimizer's best learning rate."""
    lines = {
        s.optimizer: (
            np.array(plan.evaluation_steps),
            *_accuracy_over_seeds(plan, s.optimizer, s.best, curves[s.optimizer]),
        )
        for s in standings
        if s.best is not None
    }

    def title(standing: Standing) -> str:
        if standing.best is None:
            return f"{standing.optimizer}: diverged"
        return f"{standing.optimizer}, lr {standing.best.learning_rate:g}"

    figure, axes = _panels(
        standings,
        lines,
        title,
        f"Learning curves on {plan.task}: each optimizer at its best learning rate "
        f"(lr); line: median of {len(plan.seeds)} seeds, band: min to max, "
        f"dotted: {100 * TARGET_ACCURACY:.0f} %, grey: the others",
        "step",
    )
    for axis in axes:
        axis.axhline(
            100 * TARGET_ACCURACY, color="black", linewidth=0.8, linestyle=":", zorder=1
        )
        axis.set_xlim(0, plan.steps)
    figure.savefig(path, dpi=120)


def plot_sensitivity(
    path: Path, plan: Plan, standings: Sequence[Standing], trials: Sequence[Result]
) -> None:
    """Draw best validation accuracy against learning rate, diverged trials marked."""
    grids = {
        s.optimizer: cells([t for t in trials if t.optimizer == s.optimizer])
        for s in standings
    }
    lines = {name: _accuracy_over_rates(grid) for name, grid in grids.items()}

    def title(standing: Standing) -> str:
        if standing.best is None:
            return f"{standing.optimizer}: diverged"
        return f"{standing.optimizer}: {100 * standing.best.median:.1f} %"

    figure, axes = _panels(
        standings,
        lines,
        title,
        f"Learning-rate sensitivity on {plan.task} after at most {plan.steps} steps; "
        f"line: median of {len(plan.seeds)} seeds, band: min to max, ×: "
        "diverged seeds, dot: best, grey: the others",
        "learning rate",
        log_x=True,
    )
    margin = 1.5
    axes[0].set_xlim(plan.grid[0] / margin, plan.grid[-1] * margin)
    for axis, standing in zip(axes, standings, strict=True):
        if standing.best is not None:
            axis.plot(
                standing.best.learning_rate,
                100 * standing.best.median,
                "o",
                color=BLUE,
                markersize=6,
                clip_on=False,
                zorder=4,
            )
        for cell in grids[standing.optimizer]:
            if cell.diverged:
                _mark_diverged(axis, cell)
    figure.savefig(path, dpi=120)


def _panels(
    standings: Sequence[Standing],
    lines: Lines,
    title: Callable[[Standing], str],
    heading: str,
    x_label: str,
    *,
    log_x: bool = False,
) -> tuple[Figure, list[Axes]]:
    columns = min(len(standings), 6)
    rows = math.ceil(len(standings) / columns)
    figure = Figure(
        figsize=(2.4 * columns + 1.2, 2.0 * rows + 1.2), layout="constrained"
    )
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    axes = list(grid.flat)
    floor = _floor(lines)
    for axis, standing in zip(axes, standings, strict=False):
        for x, median, _, _ in lines.values():
            axis.plot(x, median, color=GREY, linewidth=0.6, zorder=0)
        if standing.optimizer in lines:
            x, median, low, high = lines[standing.optimizer]
            axis.fill_between(
                x, low, high, color=BLUE, alpha=0.25, linewidth=0, zorder=2
            )
            marker = "." if log_x else ""
            axis.plot(x, median, color=BLUE, linewidth=1.8, marker=marker, zorder=3)
        axis.set_title(title(standing), fontsize=9, loc="left")
        axis.set_ylim(floor, 100)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        if log_x:
            axis.set_xscale("log")
    for axis in axes[len(standings) :]:
        axis.set_visible(False)
    # Where the last row is short, the panel above an empty place carries the labels.
    for index in range(max(0, len(standings) - columns), len(standings)):
        axes[index].tick_params(labelbottom=True)
    figure.suptitle(heading, fontsize=10, wrap=True)
    figure.supxlabel(x_label, fontsize=10)
    figure.supylabel("validation accuracy, %", fontsize=10)
    return figure, axes[: len(standings)]


def _floor(lines: Lines) -> float:
    """Return a lower end for the accuracy axis that shows every best with room."""
    medians = [median[np.isfinite(median)] for _, median, _, _ in lines.values()]
    bests = [median.max() for median in medians if median.size]
    return max(0.0, 10 * math.floor((min(bests, default=0.0) - 20) / 10))


def _accuracy_over_seeds(
    plan: Plan, optimizer: str, best: Cell, curves: Curves
) -> tuple[np.ndarray, ...]:
    rates = plan.learning_rates[optimizer]
    first = rates.index(best.learning_rate) * len(plan.seeds)
    lanes = slice(first, first + len(plan.seeds))
    accuracy = np.where(sound(curves), curves.val_accuracy, -np.inf)[lanes]
    return _percent(
        np.median(accuracy, axis=0), accuracy.min(axis=0), accuracy.max(axis=0)
    )


def _accuracy_over_rates(grid: Sequence[Cell]) -> tuple[np.ndarray, ...]:
    median, low, high = np.array([(c.median, c.low, c.high) for c in grid]).T
    rates = np.array([c.learning_rate for c in grid])
    return rates, *_percent(median, low, high)


def _percent(
    median: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Return percentages with a gap where the median seed has diverged."""
    gap = ~np.isfinite(median)
    # Where only the worst seed has diverged, the band reaches the bottom.
    low = np.where(np.isfinite(low), low, 0.0)
    return tuple(np.where(gap, np.nan, 100 * y) for y in (median, low, high))


def _mark_diverged(axis: Axes, cell: Cell) -> None:
    bottom = axis.get_xaxis_transform()
    axis.plot(
        cell.learning_rate,
        0.06,
        "x",
        color=VERMILLION,
        markersize=5,
        transform=bottom,
        zorder=4,
    )
    axis.text(
        cell.learning_rate,
        0.11,
        str(cell.diverged),
        color=VERMILLION,
        fontsize=7,
        horizontalalignment="center",
        transform=bottom,
    )
