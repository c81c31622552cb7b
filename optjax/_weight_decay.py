"""Weight decay: add λ x to the gradient (L2) or to the step (decoupled)."""

from typing import Any

import jax
import optax

from optjax._form import in_gradient_dtype
from optjax._observe import note, recorded
from optjax._precision import is_known, precise, widen
from optjax._tree import map_leaves

__all__ = ["add_decayed_weights", "with_l2"]


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
            lambda u, x: _add_decayed(u, decay, x), updates, params
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


def with_l2(
    optimizer: optax.GradientTransformation,
    weight_decay: optax.ScalarOrSchedule,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """The optimizer of g + λ x."""
    return in_gradient_dtype(
        optax.chain(add_decayed_weights(weight_decay, mask), optimizer)
    )


def _add_decayed(u: jax.Array, decay: Any, x: jax.Array) -> jax.Array:
    """u + λ x in the widest of their dtypes, by which x must not be rounded before.

    JAX would do the same but for λ x, and not where it is told not to promote.
    """
    is_array = not is_known(decay) and not getattr(decay, "weak_type", False)
    if is_array or u.dtype != x.dtype:
        u, x = widen(u), widen(x)
    return u + decay * x
