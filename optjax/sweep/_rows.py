"""Optimizers by name: the table's rows, installed packages', and `module:attribute`.

A package adds rows by entry points, each a factory or a `Row`:

    [project.entry-points."optjax.optimizers"]
    mine = "mypackage.optimizers:mine"
"""

import importlib
import importlib.metadata
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from optjax._names import meant
from optjax.optimizers import OPTIMIZERS, Row
from optjax.sweep._errors import SweepError, in_own_code, one_line
from optjax.sweep._trial import Factory

_T = TypeVar("_T", covariant=True)

_GROUP = "optjax.optimizers"

#: What else a name may be, for messages.
YOUR_OWN = "; for your own give module:attribute"


class _ByName(Mapping[str, _T]):
    """Something of each row. What is not in the table is imported when asked for."""

    def __init__(self, of: Callable[[Row], _T]) -> None:
        self._of = of

    def __getitem__(self, name: str) -> _T:
        """Of a name or of `module:attribute`.

        Raises:
          KeyError: where nothing is called so.
          SweepError: where it cannot be imported or is no row.
        """
        return self._of(_row(name))

    # To look through all installed packages takes long: only for what is not here.
    def __bool__(self) -> bool:
        return bool(OPTIMIZERS)

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        return name in OPTIMIZERS or ":" in name or name in _installed()

    def __iter__(self) -> Iterator[str]:
        return iter(_names())

    def __len__(self) -> int:
        return len(_names())


#: `optjax.OPTIMIZERS`, what installed packages add, and any `module:attribute`; the
#: rows and their factories.
ROWS: Mapping[str, Row] = _ByName(lambda row: row)
FACTORIES: Mapping[str, Factory] = _ByName(lambda row: row.factory)


def load_attribute(words: str, who: str) -> Any:
    """What `module:attribute` stands for.

    Args:
      words: both.
      who: begins the message of an error.

    Raises:
      SweepError: for a module that cannot be imported, with the file and line of the
        user's that fails, and for an attribute that is not there.
    """
    module_name, _, attribute = words.partition(":")
    if not module_name or not attribute or module_name.endswith(".py"):
        raise SweepError(
            f"{who}: write module:attribute, got {words!r}; mine:trial is what mine.py "
            "calls trial"
        )
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise SweepError(
            f"{who}: cannot import {module_name}: {one_line(error)}{in_own_code(error)}"
        ) from None
    try:
        return operator.attrgetter(attribute)(module)
    except AttributeError:
        hint = meant(attribute, [n for n in vars(module) if n[:1] != "_"])
        raise SweepError(
            f"{who}: {module_name} has no attribute {attribute!r}{hint}"
        ) from None


def _row(name: str) -> Row:
    if name in OPTIMIZERS:
        # The table's own names stay its own.
        return OPTIMIZERS[name]
    words, who = name, f"optimizer {name}"
    if ":" not in name:
        point = _installed()[name]
        package = point.dist.name if point.dist else "an unknown package"
        words, who = point.value, f"{who} of {package}"
    value = load_attribute(words, who)
    if isinstance(value, Row):
        return value
    if callable(value):
        return Row(value, "–", "–", "–", "–", words)
    raise SweepError(f"{who}: {words} must be a factory or a Row, got {value!r}")


def _names() -> dict[str, None]:
    return dict.fromkeys([*OPTIMIZERS, *_installed()])


def _installed() -> dict[str, importlib.metadata.EntryPoint]:
    points = importlib.metadata.entry_points(group=_GROUP)
    return {point.name: point for point in points}
