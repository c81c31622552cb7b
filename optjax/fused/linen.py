"""Flax linen's `TrainState` with the compiled step."""

from collections.abc import Mapping
from typing import Any, Self

import optax
from flax.linen.fp8_ops import OVERWRITE_WITH_GRADIENT
from flax.training import train_state

from optjax.fused._apply import apply_step

__all__ = ["TrainState"]


class TrainState(train_state.TrainState):
    """A `flax.training.train_state.TrainState` that steps by `optjax.apply_step`.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> from optjax.fused.linen import TrainState
      >>> state = TrainState.create(
      ...     apply_fn=None, params={"w": jnp.ones(2)}, tx=optjax.sgd(0.5)
      ... )
      >>> state = state.apply_gradients(grads={"w": jnp.array([1.0, -1.0])})
      >>> state.params["w"], int(state.step)
      (Array([0.5, 1.5], dtype=float32), 1)
    """

    def apply_gradients(self, *, grads: optax.Updates, **kwargs: Any) -> Self:
        """The state after one step; `kwargs` replace further fields of it."""
        if isinstance(grads, Mapping) and OVERWRITE_WITH_GRADIENT in grads:
            state: Self = train_state.TrainState.apply_gradients(
                self, grads=grads, **kwargs
            )
            return state
        params, opt_state = apply_step(self.tx, grads, self.opt_state, self.params)
        return self.replace(
            step=self.step + 1, params=params, opt_state=opt_state, **kwargs
        )
