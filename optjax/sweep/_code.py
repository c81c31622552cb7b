"""A configuration as the line of code that makes its optimizer."""

from collections.abc import Sequence
from typing import Any

from optjax.optimizers import OPTIMIZERS
from optjax.sweep._keywords import Keywords, declared
from optjax.sweep._records import FINISHED, Config, Record
from optjax.sweep._rows import FACTORIES
from optjax.sweep._schedules import written
from optjax.sweep._store.files import as_text


def pasted(config: Config, records: Sequence[Record]) -> str:
    """The line that makes the optimizer: tx = optjax.adam(0.01).

    Args:
      config: with its numbers.
      records: its trials. One that has run to its end says of how many `steps` a
        schedule is.
    """
    others, own = {}, ""
    if config.optimizer in OPTIMIZERS:
        call = "optjax." + OPTIMIZERS[config.optimizer].call.removesuffix(")")
    else:
        module, _, attribute = config.optimizer.rpartition(":")
        own = f"from {module} import {attribute}\n" if module else ""
        call = f"{attribute}("
    takes = _takes(config.optimizer)
    ended = [record.steps for record in records if record.status == FINISHED]
    literals = {name: _literal(value) for name, value in config.values.items()}
    values = written(takes, literals, max(ended, default=None))
    if values != literals:
        own += "from optjax import sweep\n"
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
    line = f"{own}tx = {call}{', '.join([*given, *arguments])})"
    if others:
        rest = ", ".join(f"{name}={value}" for name, value in others.items())
        line += f"  # and of the training: {rest}"
    return line


def _literal(value: Any) -> str:
    return as_text(value) if isinstance(value, float) else repr(value)


def _takes(optimizer: str) -> Keywords:
    """What its factory takes; anything, where nobody knows."""
    try:
        return declared(FACTORIES[optimizer])
    except (KeyError, TypeError, ValueError):
        return Keywords({}, takes_any=True)
