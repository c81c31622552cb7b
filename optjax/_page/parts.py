"""What a page is made of, as plain data."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

#: How much a verdict asks for: nothing, to be known, to be acted on.
Level = Literal["good", "note", "warning"]


class Verdict(NamedTuple):
    """A finding in words.

    Attributes:
      kind: which one, in a word.
      level: how much it asks for.
      says: the finding, a sentence.
      evidence: the numbers it rests on.
      next: a command or code to run, or "" where there is nothing to do.
    """

    kind: str
    level: Level
    says: str
    evidence: str
    next: str = ""


class Picture(NamedTuple):
    """A picture to be drawn by the page.

    Attributes:
      title: of it.
      caption: what is to be seen, in words.
      spec: its kind and data; see `assets/page.js`.
    """

    title: str
    caption: str
    spec: Mapping[str, Any]


class Table(NamedTuple):
    """A table of texts; a column whose name is in `numbers` stands to the right."""

    title: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: frozenset[str] = frozenset()


class Page(NamedTuple):
    """All of a page.

    Attributes:
      title: its heading.
      lead: what it is about, a line or two.
      code: the line to paste, or "".
      verdicts: the findings, the first first.
      tables: tables of texts.
      pictures: what is drawn.
      trials: `columns` and `rows` of the table that can be sorted, whose rows the
        pictures share, or None.
    """

    title: str
    lead: Sequence[str]
    verdicts: Sequence[Verdict]
    pictures: Sequence[Picture]
    code: str = ""
    tables: Sequence[Table] = ()
    trials: Mapping[str, Any] | None = None


Axis = dict[str, Any]


def axis(
    label: str, values: Sequence[float | None], *, is_log: bool | None = None
) -> Axis:
    """An axis: logarithmic where positive values span decades, unless told."""
    finite = [v for v in values if v is not None and math.isfinite(v)]
    if is_log is None:
        is_log = bool(finite) and spans_decades(min(finite), max(finite))
    return {"label": label, "log": is_log}


def spans_decades(low: float, high: float) -> bool:
    """Whether numbers from low to high are positive and read on a logarithmic scale."""
    return low > 0 and high / low > 30


def plain(value: Any) -> Any:
    """Data for JSON: six digits, and None for what is not finite."""
    if isinstance(value, Mapping):
        return {str(key): plain(of) for key, of in value.items()}
    if isinstance(value, bool) or value is None or isinstance(value, int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        short = float(f"{value:.6g}")
        return int(short) if short.is_integer() and abs(short) < 1e15 else short
    if isinstance(value, Sequence):
        return [plain(of) for of in value]
    return plain(value.item() if hasattr(value, "item") else str(value))
