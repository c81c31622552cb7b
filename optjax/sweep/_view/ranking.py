"""The optimizers in order, each at its best configuration, with every seed."""

import math
import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from optjax.sweep._ranking import Ranking, Standing, varying
from optjax.sweep._view.figures import draw_title, frame

_BLUE, _VERMILLION = "#0072B2", "#D55E00"


def plot_ranking(result: Ranking, ax: Axes | None = None, subject: str = "") -> Figure:
    """A row an optimizer, best first: its median, its seeds, its configuration.

    Optimizers with the same median share a place, which is marked by "=".
    """
    found = result.standings()
    figure, ax = frame(ax, width=7.5)
    if len(found) > 12:
        figure.set_figheight(0.3 * len(found) + 0.8)
    shown = varying(
        [best for name in result.optimizers for best in result.configurations(name)]
    )
    scores = [[result.score(record) for record in s.best.records] for s in found]
    for row, (standing, seeds) in enumerate(zip(found, scores, strict=True)):
        finite = [score for score in seeds if math.isfinite(score)]
        ax.plot(finite, [row] * len(finite), "|", color=_BLUE, ms=11, alpha=0.7)
        if math.isfinite(standing.best.median):
            ax.plot(standing.best.median, row, "o", color=_BLUE, ms=6)
        if len(finite) < len(seeds):
            # At the worse edge, as what it counts as.
            ax.plot(
                0.015 if result.mode == "max" else 0.985,
                row,
                "x",
                color=_VERMILLION,
                transform=ax.get_yaxis_transform(),
                clip_on=False,
            )
    ax.set_yticks(range(len(found)), [_label(standing, shown) for standing in found])
    ax.set_ylim(len(found) - 0.4, -0.6)
    ax.set_xlabel(result.label)
    every = [score for seeds in scores for score in seeds if math.isfinite(score)]
    _set_ticks(ax, every)
    count = len({record.trial.seed for record in result.records})
    better = "right" if result.mode == "max" else "left"
    words = [
        *[subject] * bool(subject),
        f"best of each optimizer, {better} is better",
        "|: a seed",
        *[f"dot: median of {count}"] * (count > 1),
        *["=: the same median"] * any(standing.is_tied for standing in found),
        *["×: diverged"] * (len(every) < sum(map(len, scores))),
    ]
    draw_title(ax, words)
    return figure


def _set_ticks(ax: Axes, values: Sequence[float]) -> None:
    """Ticks within what was measured: an accuracy has none above 1."""
    if not values:
        ax.set_xticks([])
        return
    low, high = min(values), max(values)
    if low == high:
        ax.set_xticks([low], [f"{low:.4g}"])
        return
    slack = 1e-6 * (high - low)
    ax.set_xticks(
        [tick for tick in ax.get_xticks() if low - slack <= tick <= high + slack]
    )


def _label(standing: Standing, shown: Sequence[str]) -> str:
    config = standing.best.config
    values = config.values
    said = [
        f"{name.replace('learning_rate', 'lr')} {values[name]:.3g}"
        if isinstance(values[name], float)
        else f"{name} {values[name]}"
        for name in shown
        if name in values
    ]
    name = f"{standing.place}{'=' * standing.is_tied} {config.optimizer}"
    # A second line would touch the next row's.
    return textwrap.shorten(", ".join([name, *said]), 44, placeholder=" …")
