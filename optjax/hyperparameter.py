"""Check hyper-parameters where they are concrete; let tracers pass."""

from typing import Any

import jax
import numpy as np

__all__ = [
    "check_decay",
    "check_learning_rate",
    "check_non_negative",
    "check_positive",
    "check_range",
]

_BF16_HINT = (
    " If `optax.inject_hyperparams` made this value from bfloat16 or float16 "
    "parameters, pass it hyperparam_dtype=jnp.float32."
)


def check_decay(**values: Any) -> None:
    """0 <= value < 1, as the decay rate of a running average must."""
    for name, value in values.items():
        if _fails(value, lambda x: (x >= 0) & (x < 1)):
            raise ValueError(
                f"{name} must satisfy 0 <= {name} < 1, got {_shown(value)}. It is the "
                "share of the old average that a step keeps: try 0.9 for gradients, "
                "0.999 for their squares." + (_BF16_HINT if _is_array(value) else "")
            )


def check_positive(hint: str = "", **values: Any) -> None:
    """0 < value < infinity."""
    for name, value in values.items():
        if _fails(value, lambda x: (x > 0) & np.isfinite(x)):
            raise ValueError(
                f"{name} must be positive and finite, got {_shown(value)}."
                f"{_sentence(hint)}"
            )


def check_non_negative(hint: str = "", **values: Any) -> None:
    """0 <= value < infinity."""
    for name, value in values.items():
        if _fails(value, lambda x: (x >= 0) & np.isfinite(x)):
            raise ValueError(
                f"{name} must be finite and >= 0, got {_shown(value)}.{_sentence(hint)}"
            )


def check_range(low: Any, high: Any, hint: str = "", **values: Any) -> None:
    """low <= value <= high; the ends may be infinite, or traced like the value."""
    if isinstance(low, jax.core.Tracer) or isinstance(high, jax.core.Tracer):
        return
    for name, value in values.items():
        if _fails(value, lambda x: (x >= low) & (x <= high)):
            raise ValueError(
                f"{name} must satisfy {low} <= {name} <= {high}, got {_shown(value)}."
                f"{_sentence(hint)}"
            )


def check_learning_rate(learning_rate: Any) -> None:
    """A schedule, or a finite number >= 0."""
    if not callable(learning_rate):
        check_non_negative(
            "The update subtracts learning_rate times the direction, so a positive "
            "value descends",
            learning_rate=learning_rate,
        )


def _fails(value: Any, holds: Any) -> bool:
    if isinstance(value, jax.core.Tracer):
        return False
    if isinstance(value, (bool, str)) or value is None:
        return True
    try:
        number = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):  # No number: a function, a complex one.
        return True
    return not bool(np.all(holds(number)))


def _is_array(value: Any) -> bool:
    return isinstance(value, (jax.Array, np.ndarray))


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str) else str(value)


def _sentence(hint: str) -> str:
    return f" {hint}." if hint else ""
