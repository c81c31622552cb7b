"""What stands at a hyper-parameter, written on a command line or in TOML."""

import re
from collections.abc import Mapping
from typing import Any

from optjax._names import did_you_mean
from optjax.sweep._errors import SweepError
from optjax.sweep._space.distributions import (
    Choice,
    Distribution,
    LogUniform,
    PerOptimizer,
    Static,
    Uniform,
    only,
)

#: What is drawn from, by the names that text has.
RANGES = {"log": LogUniform, "log_uniform": LogUniform, "uniform": Uniform}
_SCALES: dict[str, type[LogUniform | Uniform]] = {"log": LogUniform, "linear": Uniform}
_LITERALS = {"true": True, "True": True, "false": False, "False": False, "None": None}


def parse_dimension(value: Any) -> Any:
    """What a space holds at a key, from command-line text or a value read from TOML.

    Text is "log(low, high)", "uniform(low, high)", "static(value, ...)", or one or more
    values with commas between them; true, false and None are meant literally, what
    reads as a number is one, all else is a string. A TOML array is a grid, in which
    "None" stands for None, and a table one of

        {low = 1e-4, high = 1.0, scale = "log"}      # or "linear", the default
        {values = [0.1, 1.0]}
        {adam = "log(1e-4, 0.1)", sgd = [0.1, 1.0]}  # per_optimizer

    the first two also with only = ["adabound", ...].

    Returns:
      A distribution or a plain value. Ranges are checked by `configurations`, which
      knows the key.

    Raises:
      SweepError: with the text or table that cannot be read, and why.

    Example:
      >>> from optjax.sweep import parse_dimension
      >>> parse_dimension("log(1e-4, 1)")
      LogUniform(low=0.0001, high=1)
      >>> parse_dimension("0.1, None")
      Choice(values=(0.1, None))
      >>> parse_dimension({"low": 0.5, "high": 0.99})
      Uniform(low=0.5, high=0.99)
    """
    if isinstance(value, str):
        return _parse_text(value)
    if isinstance(value, Mapping):
        return _parse_table(value)
    if isinstance(value, (list, tuple)):
        return Choice(tuple(None if item == "None" else item for item in value))
    return value


def _parse_text(text: str) -> Any:
    call = re.fullmatch(r"\s*(\w+)\s*\((.*)\)\s*", text)
    if call is None and ("(" in text or ")" in text):
        raise SweepError(
            f"cannot read {text!r}; write log(low, high), uniform(low, high) or values "
            "with commas between them"
        )
    items = [item.strip() for item in (call[2] if call else text).split(",")]
    if not all(items):
        raise SweepError(f"cannot read {text!r}: a value is missing")
    for item in items:
        if re.search(r"\s", item):
            raise SweepError(
                f"cannot read {text!r}: write commas between values, such as "
                f"{', '.join(item.split())}"
            )
    values = [_parse_item(item) for item in items]
    if call is None:
        return values[0] if len(values) == 1 else Choice(tuple(values))
    if call[1] == "static":
        return Static(tuple(values))
    if call[1] not in RANGES:
        raise SweepError(
            f"cannot read {text!r}: {call[1]} is not a distribution; write "
            "log(low, high), uniform(low, high) or static(value, ...)"
        )
    if len(values) != 2:
        raise SweepError(
            f"cannot read {text!r}: {call[1]} takes two numbers, low and high, got "
            f"{len(values)}"
        )
    return RANGES[call[1]](*values)


def _parse_item(text: str) -> Any:
    if text in _LITERALS:
        return _LITERALS[text]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            pass
    return text


def _parse_table(table: Mapping[str, Any]) -> Any:
    if not table:
        raise SweepError("cannot read the empty table {}; give low and high, or values")
    own = {"low", "high", "scale", "values", "only"}
    if not own & set(table):
        return PerOptimizer(
            {name: parse_dimension(value) for name, value in table.items()}
        )
    known = {"values", "only"} if "values" in table else own - {"values"}
    for key in table:
        if key not in known:
            raise SweepError(
                f"cannot read {dict(table)}: {key!r} does not belong there"
                f"{did_you_mean(key, sorted(known))}"
            )
    dimension = _table_values(table) if "values" in table else _table_range(table)
    if "only" not in table:
        return dimension
    names = [table["only"]] if isinstance(table["only"], str) else table["only"]
    if not isinstance(names, list):
        raise SweepError(f"cannot read {dict(table)}: only must be an array of names")
    return only(dimension, *names)


def _table_values(table: Mapping[str, Any]) -> Any:
    if not isinstance(table["values"], list):
        raise SweepError(f"cannot read {dict(table)}: values must be an array")
    return parse_dimension(table["values"])


def _table_range(table: Mapping[str, Any]) -> Distribution:
    for key in ("low", "high"):
        if key not in table:
            raise SweepError(f"cannot read {dict(table)}: {key} is missing")
    scale = table.get("scale", "linear")
    if scale not in list(_SCALES):
        raise SweepError(
            f'cannot read {dict(table)}: scale must be "log" or "linear", got {scale!r}'
        )
    return _SCALES[scale](table["low"], table["high"])
