"""What is to come where nothing is wrong: when closing bounds begin to decide."""

from typing import Any

import numpy as np

from optjax._audit.measure import Measured

_FEW, _ALL = 0.01, 0.99


def notes(layout: Any, measured: Measured) -> list[str]:
    """By the rates of the last step."""
    first, last = np.asarray(measured.forecast, np.float64)
    held = np.asarray(measured.told.at_bound, np.float64)[-1]
    known = np.isfinite(first) & np.isfinite(held)
    if not known.any() or np.all(held[known] >= _ALL):
        return []
    which = np.flatnonzero(known)
    leaf = which[np.argmin(first[which])]
    until = np.max(last[which])
    says = []
    if np.all(held[known] < _FEW):
        says.append(
            f"{final_rate(layout, measured)} has no effect before about step "
            f"{_about(first[leaf])}, when the bounds hold the first 1 % of "
            f"{layout.leaves[leaf]}"
        )
    # A learning rate outside of the bounds goes on to scale the step.
    if np.isfinite(until) and np.any(measured.told.is_relative):
        says.append(
            f"learning_rate is inert from about step {_about(until)} on, when they "
            "hold 99 % everywhere"
        )
    return [f"By the rates of now: {'; '.join(says)}."] if says else []


def final_rate(layout: Any, measured: Measured) -> str:
    """What the rate is called on which bounds close: one's own may have no name."""
    is_named = "final_lr" in layout.hyperparameters
    return "final_lr" if is_named or np.any(measured.told.is_relative) else "their rate"


def held_since(measured: Measured, leaves: list[int]) -> str:
    """Since when rates that are held have been, had they been what they are now."""
    since = np.max(np.asarray(measured.forecast, np.float64)[1, leaves])
    # From the first step on is no news.
    is_known = np.isfinite(since) and round(since) > 1
    return f" since about step {_about(since)}" if is_known else ""


def _about(step: float) -> str:
    """Two digits of it."""
    return f"{float(f'{step:.2g}'):,.0f}"
