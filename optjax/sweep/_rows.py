"""Optimizers by name: the table's rows, installed packages', and `module:attribute`.

A package adds rows by entry points, each a factory or a `Row`:

    [project.entry-points."optjax.optimizers"]
    mine = "mypackage.optimizers:mine"
"""

import importlib
import importlib.metadata
import operator
from collections.abc import Iterator, Mapping
from typing import Any

from optjax.optimizers import OPTIMIZERS, Row
from optjax.sweep._errors import SweepError, in_own_code, one_line
from optjax.sweep._trial import Factory

__all__ = ["ROWS", "known_factories", "load_attribute"]

_GROUP = "optjax.optimizers"


class _Rows(Mapping[str, Row]):
    """The rows by name. What is not in the table is imported when it is asked for."""

    def __getitem__(self, name: str) -> Row:
        """A row, of a name or of `module:attribute`.

        Raises:
          KeyError: where nothing is called so.
          SweepError: where it cannot be imported or is no row.
        """
        if name in OPTIMIZERS:
            return OPTIMIZERS[name]
        if ":" in name:
            return _as_row(load_attribute(name, who := f"optimizer {name}"), name, who)
        point = _installed()[name]
        who = f"optimizer {name} of the package {point.dist and point.dist.name}"
        return _as_row(load_attribute(point.value, who), point.value, who)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (":" in name or name in _names())

    def __iter__(self) -> Iterator[str]:
        return iter(_names())

    def __len__(self) -> int:
        return len(_names())


class _Factories(Mapping[str, Factory]):
    def __getitem__(self, name: str) -> Factory:
        return ROWS[name].factory

    def __contains__(self, name: object) -> bool:
        return name in ROWS

    def __iter__(self) -> Iterator[str]:
        return iter(ROWS)

    def __len__(self) -> int:
        return len(ROWS)


#: `optjax.OPTIMIZERS`, what installed packages add, and any `module:attribute`.
ROWS: Mapping[str, Row] = _Rows()


def known_factories() -> Mapping[str, Factory]:
    """The factories of `ROWS`."""
    return _Factories()


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
    if not module_name or not attribute:
        raise SweepError(f"{who}: write module:attribute, got {words!r}")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise SweepError(
            f"{who}: cannot import {module_name}: {one_line(error)}{in_own_code(error)}"
        ) from None
    try:
        return operator.attrgetter(attribute)(module)
    except AttributeError:
        raise SweepError(
            f"{who}: {module_name} has no attribute {attribute!r}"
        ) from None


def _names() -> dict[str, None]:
    # The table's own names stay its own.
    return dict.fromkeys([*OPTIMIZERS, *_installed()])


def _installed() -> dict[str, importlib.metadata.EntryPoint]:
    return {
        point.name: point for point in importlib.metadata.entry_points(group=_GROUP)
    }


def _as_row(value: Any, words: str, who: str) -> Row:
    if isinstance(value, Row):
        return value
    if callable(value):
        return Row(value, "–", "–", "–", "–", words)
    raise SweepError(f"{who}: {words} must be a factory or a Row, got {value!r}")
