"""`nnx.Optimizer` with the compiled step."""

from typing import Any, TypeVar

import optax
from flax import nnx

from optjax.fused._apply import apply_step

__all__ = ["Optimizer"]

_Model = TypeVar("_Model")


class Optimizer(nnx.Optimizer[_Model]):
    """An `nnx.Optimizer` whose `update` is `optjax.apply_step`.

    Arguments, state and checkpoints are those of `nnx.Optimizer`; `update` returns
    None, since the step does not make the updates.

    Example:
      >>> import jax, jax.numpy as jnp, optjax
      >>> from flax import nnx
      >>> from optjax.fused.nnx import Optimizer
      >>> model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
      >>> optimizer = Optimizer(model, optjax.adam(1e-3), wrt=nnx.Param)
      >>> @nnx.jit
      ... def train_step(model, optimizer, x):
      ...     grads = nnx.grad(lambda model: jnp.mean(model(x) ** 2))(model)
      ...     optimizer.update(model, grads)
      >>> train_step(model, optimizer, jnp.ones((4, 2)))
    """

    def update(self, model: _Model, grads: optax.Updates, /, **kwargs: Any) -> None:
        """Update the model's parameters and the optimizer's state in place."""
        # Not every Flax 0.12 has graph modes; None is the default where they are.
        graph = getattr(self, "graph", None)
        mode = {} if graph is None else {"graph": graph}
        params, state = apply_step(
            self.tx,
            nnx.as_pure(nnx.state(grads, self.wrt, **mode)),
            nnx.as_pure(self.opt_state),
            nnx.as_pure(nnx.state(model, self.wrt, **mode)),
            **nnx.as_pure(kwargs),
        )
        nnx.update(model, params)
        nnx.update(self.opt_state, nnx.state(state, **mode))
        self.step[...] += 1
