"""The ranking as a table, on a terminal and in a notebook."""

import html
import math
from typing import TYPE_CHECKING, NamedTuple

from optjax.sweep._ranking import TOLERANCE, Ranking, Standing
from optjax.sweep._records import DIVERGED, FAILED, STOPPED

if TYPE_CHECKING:
    import rich.table


_TO_THE_LEFT = ("optimizer", "range", "hyper-parameters", "band")


class _Column(NamedTuple):
    """A column, a cell an optimizer; `note` explains it below the table."""

    name: str
    cells: list[str]
    is_left: bool = False
    is_folded: bool = False
    note: str = ""


def as_rich(ranking: Ranking, target: float | None) -> "rich.table.Table":
    """A table of rich's, which fits in 80 columns."""
    from rich import box
    from rich.table import Table

    columns = _columns(ranking, target)
    notes = [
        "Median and range over the seeds of each trial's best evaluation; a diverged "
        "(div.) trial counts as worse than any.",
        *(column.note for column in columns if column.note),
    ]
    table = Table(
        title=_heading(ranking),
        caption=" ".join(notes),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        # The box has a space of its own between columns.
        padding=0,
        show_edge=False,
    )
    for column in columns:
        table.add_column(
            # On several lines, since the numbers below are short.
            column.name.replace(" ", "\n"),
            justify="left" if column.is_left else "right",
            overflow="fold",
            no_wrap=not column.is_folded,
        )
    for row in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*row)
    return table


def as_html(ranking: Ranking) -> str:
    """The same for notebooks."""
    columns = _columns(ranking, None)
    rows = [
        [column.name for column in columns],
        *zip(*(column.cells for column in columns), strict=True),
    ]
    lines = [
        "".join(
            f"<{tag}>{html.escape(text).replace(chr(10), '<br>')}</{tag}>"
            for text in row
        )
        for tag, row in zip(["th", *["td"] * (len(rows) - 1)], rows, strict=True)
    ]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<p>{html.escape(_heading(ranking))}</p><table>{body}</table>"


def shown(value: float) -> str:
    """A value of the metric."""
    return "diverged" if math.isinf(value) else f"{value:.4g}"


def _heading(ranking: Ranking) -> str:
    better = "higher" if ranking.mode == "max" else "lower"
    return f"best {ranking.label} of each optimizer ({better} is better)"


def _columns(ranking: Ranking, target: float | None) -> list[_Column]:
    """The columns that say something, best optimizer first."""
    standings = ranking.standings(target)
    hyper = dict.fromkeys(
        name
        for standing in standings
        for name in (*standing.best.config.hyper, *standing.best.config.static)
    )
    # Where all have the same one, its name stands above.
    only = next(iter(hyper)) if len(hyper) == 1 else None
    columns = [
        _Column(
            "",
            [f"{s.place}{'=' * s.is_tied}" for s in standings],
            note="=: the same median." * any(s.is_tied for s in standings),
        ),
        _Column("optimizer", [s.best.config.optimizer for s in standings], True, True),
        _Column("median", [shown(s.best.median) for s in standings]),
        _Column("range", [_range(s) for s in standings], True),
    ]
    if hyper:
        name = f"best {only.replace('_', ' ')}" if only else "hyper-parameters"
        cells = [_hyper(s, only) for s in standings]
        columns.append(_Column(name, cells, only is None, True))
    # With one evaluation all that get there do so at once.
    if any(math.isfinite(s.steps_to_target) for s in standings) and any(
        len(record.curve.steps) > 1 for record in ranking.records
    ):
        steps = [
            f"{s.steps_to_target:.0f}" if math.isfinite(s.steps_to_target) else "–"
            for s in standings
        ]
        columns.append(_Column(f"steps to {target:g}", steps))
    if any(s.band for s in standings):
        note = (
            f"Band: the values around the best whose median is at most {TOLERANCE:.0%} "
            "worse; ≥ where it reaches the end of what was tried."
        )
        cells = [_band(s, only) for s in standings]
        columns.append(_Column("band", cells, is_folded=True, note=note))
    for status in (DIVERGED, FAILED, STOPPED):
        counts = [s.ends.get(status, 0) for s in standings]
        if any(counts):
            cells = [
                f"{count}/{s.trials}" if count else "–"
                for count, s in zip(counts, standings, strict=True)
            ]
            columns.append(_Column(status, cells))
    return columns


def _range(standing: Standing) -> str:
    best = standing.best
    if math.isinf(best.high):
        return "–"
    if math.isinf(best.low):
        return f"div.–{shown(best.high)}"
    return "–".join(shown(end) for end in sorted((best.low, best.high)))


def _hyper(standing: Standing, only: str | None) -> str:
    config = standing.best.config
    values = {
        name: f"{value:.4g}" if isinstance(value, float) else str(value)
        for name, value in config.values.items()
    }
    if only is not None:
        return values.get(only, "–")
    return "\n".join(f"{name}={value}" for name, value in values.items())


def _band(standing: Standing, only: str | None) -> str:
    band = standing.band
    if band is None:
        return "–"
    ends = f"{'≥' * band.is_open}{band.low:.3g}–{band.high:.3g}"
    return ends if only else f"{band.name} {ends}"
