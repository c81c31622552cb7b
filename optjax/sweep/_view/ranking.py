"""The optimizers in order, each at its best configuration, with every seed."""

import math
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from optjax.sweep._ranking import Best, Ranking, varying
from optjax.sweep._view.figures import check_not_empty, frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes


__all__ = ["plot_ranking"]

_BLUE, _VERMILLION = "#0072B2", "#D55E00"


def plot_ranking(result: Ranking, ax: "Axes | None" = None) -> Figure:
    """A row an optimizer, best first: its median, its seeds, its configuration."""
    check_not_empty(result)
    found = result.best_of_each()
    figure, ax = frame(ax, width=7.5)
    if len(found) > 12:
        figure.set_figheight(0.33 * len(found))
    shown = varying(
        [best for name in result.optimizers for best in result.configurations(name)]
    )
    for row, best in enumerate(found):
        scores = [result.score(record) for record in best.records]
        finite = [score for score in scores if math.isfinite(score)]
        ax.plot(finite, [row] * len(finite), "|", color=_BLUE, ms=11, alpha=0.7)
        if math.isfinite(best.median):
            ax.plot(best.median, row, "o", color=_BLUE, ms=6)
        if len(finite) < len(scores):
            ax.plot(
                0.985,
                row,
                "x",
                color=_VERMILLION,
                transform=ax.get_yaxis_transform(),
                clip_on=False,
            )
    ax.set_yticks(range(len(found)), [_label(best, shown) for best in found])
    ax.invert_yaxis()
    ax.set_xlabel(result.label)
    seeds = len({record.trial.seed for record in result.records})
    better = "right" if result.mode == "max" else "left"
    words = [f"best of each optimizer, {better} is better", "|: a seed"]
    words += [f"dot: median of {seeds}"] if seeds > 1 else []
    words += (
        ["×: diverged"]
        if any(not math.isfinite(result.score(r)) for b in found for r in b.records)
        else []
    )
    ax.set_title("; ".join(words), fontsize="small")
    return figure


def _label(best: Best, shown: list[str]) -> str:
    values = {**best.config.hyper, **best.config.static}
    said = [
        f"{name.replace('learning_rate', 'lr')} {values[name]:.3g}"
        if isinstance(values[name], float)
        else f"{name} {values[name]}"
        for name in shown
        if name in values
    ]
    return (
        f"{best.config.optimizer}\n{', '.join(said)}"
        if said
        else (best.config.optimizer)
    )
