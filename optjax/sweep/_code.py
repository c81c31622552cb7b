"""A configuration as the line of code that makes its optimizer."""

import inspect
from collections.abc import Callable
from typing import Any

from optjax.optimizers import OPTIMIZERS
from optjax.sweep._records import Config
from optjax.sweep._rows import FACTORIES
from optjax.sweep._store.files import as_text

__all__ = ["pasted"]


def pasted(config: Config) -> str:
    """The line that makes the optimizer: tx = optjax.adam(0.01)."""
    values, others = config.values, {}
    factory, own = _factory(config.optimizer), ""
    if config.optimizer in OPTIMIZERS:
        call = "optjax." + OPTIMIZERS[config.optimizer].call.removesuffix(")")
    else:
        module, _, attribute = config.optimizer.rpartition(":")
        own = f"from {module} import {attribute}\n" if module else ""
        call = f"{attribute}("
    takes = _parameters(factory)
    if takes is not None:
        others = {name: v for name, v in values.items() if name not in takes}
        values = {name: v for name, v in values.items() if name in takes}
    arguments = [
        _literal(value)
        if name == "learning_rate" and call.endswith("(")
        else f"{name}={_literal(value)}"
        for name, value in sorted(
            values.items(), key=lambda item: item[0] != "learning_rate"
        )
    ]
    given = [] if call.endswith("(") else [""]
    line = f"{own}tx = {call}{', '.join([*given, *arguments])})"
    if others:
        rest = ", ".join(f"{name}={_literal(value)}" for name, value in others.items())
        line += f"  # and of the training: {rest}"
    return line


def _literal(value: Any) -> str:
    return as_text(value) if isinstance(value, float) else repr(value)


def _factory(optimizer: str) -> Callable[..., Any] | None:
    try:
        return FACTORIES[optimizer]
    except (KeyError, ValueError):
        return None


def _parameters(factory: Callable[..., Any] | None) -> set[str] | None:
    """The arguments that a factory takes; None where nobody knows."""
    if factory is None:
        return None
    parameters = inspect.signature(factory).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return {parameter.name for parameter in parameters}
