"""What the pictures of a sweep have in common: a frame, and words around it."""

import io
import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from optjax.sweep._ranking import Ranking

DPI = 150


class SweepFigure(Figure):
    """A figure that a notebook shows even where pyplot was never imported."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        page = io.BytesIO()
        self.savefig(page, format="png", dpi=DPI)
        # Two thirds of the pixels' size, to be sharp on dense screens.
        return page.getvalue(), {"width": round(100 * self.get_figwidth())}


def frame(ax: Axes | None, width: float) -> tuple[Figure, Axes]:
    """A figure and its axes: those given, or new ones."""
    if ax is not None:
        # The whole one, where the axes are in a part of it.
        return ax.figure.figure, ax
    # Not pyplot's: no window and no state to clean up. The user's style decides the
    # colours, so that ink and page go together.
    figure = SweepFigure(figsize=(width, 4.2), dpi=DPI, layout="constrained")
    ax = figure.add_subplot()
    ax.grid(alpha=0.3)
    ax.set_axisbelow(True)
    return figure, ax


def draw_title(ax: Axes, parts: Sequence[str]) -> None:
    """Write the parts above the axes, as wide as these are."""
    inches = ax.get_window_extent().width / ax.figure.dpi
    # Small letters are about 1/13 inch wide.
    ax.set_title(wrapped(parts, max(20, int(13 * inches))), fontsize="small")


def wrapped(parts: Sequence[str], width: int) -> str:
    """The parts on lines of at most `width`, broken between them where possible."""
    unbroken = [part.replace(" ", "\N{NO-BREAK SPACE}") for part in parts]
    return textwrap.fill("; ".join(unbroken), width).replace("\N{NO-BREAK SPACE}", " ")


def over_seeds(result: Ranking, *, shaded: bool = True) -> str:
    """What a value over the seeds is, in words."""
    seeds = len({record.trial.seed for record in result.records})
    if seeds == 1:
        return "one seed"
    return f"median of {seeds} seeds" + ", range shaded" * shaded
