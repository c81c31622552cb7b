"""Names in error messages."""

import difflib
from collections.abc import Collection, Iterable


def meant(name: str, known: Collection[str], most: int = 3) -> str:
    """The end of a message on a wrong name: what may have been meant; "" if nothing."""
    close = difflib.get_close_matches(str(name).lower(), [*known], n=most)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def did_you_mean(name: str, known: Collection[str], otherwise: str = "") -> str:
    """The same, or where no name is near, what is known and what else to do."""
    return meant(name, known) or f"; known: {listing(known, 12)}{otherwise}"


def listing(names: Iterable[str], most: int) -> str:
    """The first `most` of the names, with commas."""
    names = list(names)
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
