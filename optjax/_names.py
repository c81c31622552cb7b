"""Names in error messages."""

import difflib
from collections.abc import Iterable

__all__ = ["did_you_mean", "listing"]


def did_you_mean(name: str, known: Iterable[str], most: int = 3) -> str:
    """The end of a message on a wrong name: what may have been meant, or is known."""
    known = list(known)
    close = difflib.get_close_matches(str(name).lower(), known, n=most)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    return f"; known: {listing(known, 12)}"


def listing(names: Iterable[str], most: int) -> str:
    """The first `most` of the names, with commas."""
    names = list(names)
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
