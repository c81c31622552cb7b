"""Weight decay: add λ x to the gradient (L2) or to the step (decoupled)."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from optjax.observe import note, recorded
from optjax.precision import is_known, precise
from optjax.tree import map_leaves

__all__ = ["add_decayed_weights"]


def add_decayed_weights(
    weight_decay: optax.ScalarOrSchedule = 0.0, mask: Any = None
) -> optax.GradientTransformationExtraArgs:
    """u ↦ u + λ x, as `optax.add_decayed_weights`, for gradients of wrong shape too.

    Optax broadcasts them against the parameters without a word. Where λ is known to be
    0 the parameters are not needed and nothing is computed; the state is that of any
    other λ.

    Args:
      weight_decay: λ, a number or a schedule.
      mask: a tree of booleans, or a function of the parameters that returns one:
        which leaves are decayed.
    """
    weight_decay = precise(weight_decay)
    theirs = optax.add_decayed_weights(weight_decay)
    is_zero = is_known(weight_decay) and weight_decay == 0

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None
    ) -> tuple[optax.Updates, Any]:
        if params is None:
            raise ValueError(
                "weight decay needs the parameters: update(gradients, state, params)."
            )
        if callable(weight_decay):
            decay = weight_decay(state.count)
            state = state._replace(count=optax.safe_increment(state.count))
        else:
            decay = weight_decay
        note(weight_decay=decay)
        return map_leaves(
            lambda u, x: u + decay * _as_wide(x, u), updates, params
        ), state

    ours = optax.GradientTransformation(theirs.init, update)
    if mask is not None:
        ours = optax.masked(ours, mask)
    if is_zero:
        ours = optax.GradientTransformation(ours.init, optax.identity().update)
    return recorded(
        "add_decayed_weights",
        ours,
        weight_decay=weight_decay,
        mask=mask,
    )


def _as_wide(x: jax.Array, as_: jax.Array) -> jax.Array:
    """A parameter in a dtype no narrower than the update's, and so its decay.

    λ x of bfloat16 parameters would else be rounded where the update is float32.
    """
    return x.astype(jnp.promote_types(x.dtype, as_.dtype))
