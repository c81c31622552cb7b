"""An audit's table: the elasticity of each hyper-parameter in each group."""

from collections.abc import Mapping
from typing import Any

import numpy as np


def table(audit: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Its lines; the turn stands beside the elasticity where it is larger."""
    groups = list(audit)
    names = [name for name in audit[groups[0]] if "second" not in name]
    rows = [["∂ log‖Δx‖ / ∂ log", *names]]
    rows += [
        [group, *(_cell(effects[name]) for name in names)]
        for group, effects in ((group, audit[group]) for group in groups)
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _cell(effect: Any) -> str:
    if not np.isfinite(effect.elasticity):
        return "–"
    length = f"{effect.elasticity:.2g}" if abs(effect.elasticity) >= 5e-4 else "0"
    return f"{length} ∠{effect.turn:.1g}" if effect.turn >= 5e-3 else length
