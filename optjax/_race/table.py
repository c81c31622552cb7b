"""The ranking as a table for the terminal."""

import math
from collections.abc import Sequence

from rich import box
from rich.table import Table

from optjax._race.plan import Plan
from optjax._race.results import TARGET_ACCURACY
from optjax._race.standings import Cell, Standing

CAPTION = (
    "Accuracy: validation accuracy of each trial's best evaluation, median and range "
    "over the seeds, at the best learning rate (lr). Band: the learning rates around "
    "it whose median is at most 1 % lower; ≥ where they reach the grid's end. A "
    "diverged (div.) trial counts as worse than any accuracy. Equal medians are "
    "ordered by worst seed, then steps, then final loss. Optimizers whose ranges "
    "overlap are not told apart by these seeds."
)


def ranking_table(plan: Plan, standings: Sequence[Standing]) -> Table:
    """Return the table of `rank(...)`'s standings."""
    table = Table(
        title=(
            f"{plan.task} · steps: {plan.steps} · learning rates: "
            f"{len(plan.grid)} · seeds: {len(plan.seeds)}"
        ),
        caption=CAPTION,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        # With the box's own space between columns, all nine fit in 80 characters.
        padding=0,
        show_edge=False,
    )
    table.add_column("", justify="right")
    table.add_column("optimizer", no_wrap=True)
    table.add_column("accuracy\nmedian %", justify="right", no_wrap=True)
    table.add_column("min–max", no_wrap=True)
    table.add_column("best\nlr", justify="right", overflow="fold")
    table.add_column(
        f"steps\nto {100 * TARGET_ACCURACY:.0f} %", justify="right", no_wrap=True
    )
    table.add_column("1 % band\ndecades", justify="right", no_wrap=True)
    table.add_column("from–to", overflow="fold")
    table.add_column("diverged", justify="right", no_wrap=True)
    for place, standing in enumerate(standings, 1):
        table.add_row(str(place), standing.optimizer, *_cells(standing))
    return table


def _cells(standing: Standing) -> list[str]:
    diverged = f"{standing.diverged}/{standing.trials}" if standing.diverged else "–"
    best = standing.best
    if best is None:
        return ["diverged", "–", "–", "–", "–", "–", diverged]
    at_least = "≥" if standing.below_grid or standing.above_grid else ""
    return [
        f"{100 * best.median:.2f}",
        _spread(best),
        f"{best.learning_rate:g}",
        f"{best.steps_to_target:.0f}" if math.isfinite(best.steps_to_target) else "–",
        f"{at_least}{standing.decades:.1f}",
        f"{standing.lowest:g}–{standing.highest:g}",
        diverged,
    ]


def _spread(cell: Cell) -> str:
    low = f"{100 * cell.low:.2f}" if math.isfinite(cell.low) else "div."
    return f"{low}–{100 * cell.high:.2f}"
