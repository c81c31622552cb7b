"""A configuration as the line of code that makes its optimizer."""

import inspect
from collections.abc import Sequence
from typing import Any

from optjax.optimizers import OPTIMIZERS
from optjax.sweep._keywords import Keywords, declared
from optjax.sweep._records import FINISHED, Config, Record
from optjax.sweep._rows import FACTORIES
from optjax.sweep._schedules import written
from optjax.sweep._store.files import as_text


def pasted(
    config: Config, records: Sequence[Record], own: Keywords | None = None
) -> str:
    """The line that makes the optimizer: tx = optjax.adam(0.01).

    Args:
      config: with its numbers.
      records: its trials. One that has run to its end says of how many `steps` a
        schedule is.
      own: what its factory takes where that is the caller's, under a name of theirs.
    """
    others, imports = {}, ""
    if own is None and config.optimizer in OPTIMIZERS:
        call = "optjax." + OPTIMIZERS[config.optimizer].call.removesuffix(")")
    else:
        module, _, attribute = config.optimizer.rpartition(":")
        imports = f"from {module} import {attribute}\n" if module else ""
        call = f"{attribute}("
    takes = _takes(config) if own is None else own
    ended = [record.steps for record in records if record.status == FINISHED]
    literals = {name: _literal(value) for name, value in config.values.items()}
    values = written(takes, literals, max(ended, default=None))
    if values != literals:
        imports += "from optjax import sweep\n"
    if not takes.takes_any:
        others = {name: v for name, v in values.items() if name not in takes.named}
        values = {name: v for name, v in values.items() if name in takes.named}
    arguments = [
        value if name == "learning_rate" and call.endswith("(") else f"{name}={value}"
        for name, value in sorted(
            values.items(), key=lambda item: item[0] != "learning_rate"
        )
    ]
    given = [] if call.endswith("(") else [""]
    line = f"{imports}tx = {call}{', '.join([*given, *arguments])})"
    if others:
        rest = ", ".join(f"{name}={value}" for name, value in others.items())
        line += f"  # and of the training: {rest}"
    return line


def _literal(value: Any) -> str:
    return as_text(value) if isinstance(value, float) else repr(value)


def _takes(config: Config) -> Keywords:
    """What its factory takes; where nobody knows, anything beside a learning rate."""
    try:
        return declared(FACTORIES[config.optimizer])
    except (KeyError, TypeError, ValueError):
        rate = inspect.Parameter("learning_rate", inspect.Parameter.KEYWORD_ONLY)
        rates = {name: rate for name in config.values if name == rate.name}
        return Keywords(rates, takes_any=True)
