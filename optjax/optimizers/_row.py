"""A line of the family's table."""

import inspect
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import optax

__all__ = ["EMA", "RMS", "Optimizer", "Row"]

Optimizer: TypeAlias = optax.GradientTransformationExtraArgs

#: What many rows have in common.
EMA = "ema(g)"
RMS = "1/(√ν+ε), ν = ema(g²)"


class Row(NamedTuple):
    """x[t+1] = x[t] − s_t · V_t ⊙ m_t in words: an optimizer's parts, and its source.

    Attributes:
      factory: makes the optimizer: the learning rate first, defaults for the rest.
      direction: m_t.
      rate: V_t, without its bound.
      bound: what V_t is clipped to, "–" without.
      schedule: s_t.
      paper: authors and year.

    Example:
      >>> import optjax
      >>> optjax.OPTIMIZERS["nesterov"].call
      'sgd(momentum=0.9, nesterov=True)'
    """

    factory: Callable[..., Optimizer]
    direction: str
    rate: str
    bound: str
    schedule: str
    paper: str

    @property
    def call(self) -> str:
        """The factory, and what the row gives it, as one writes them."""
        factory = self.factory
        given = getattr(factory, "keywords", {})
        words = ", ".join(f"{name}={value!r}" for name, value in given.items())
        return f"{inspect.unwrap(getattr(factory, 'func', factory)).__name__}({words})"
