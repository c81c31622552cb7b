"""Weight decay: add λ x to the gradient (L2) or to the step (decoupled)."""

from typing import Any

import jax
import optax

from optjax._form import in_gradient_dtype
from optjax._observe import tell
from optjax._parts import Decay, Link
from optjax._precision import Scalar, is_known, is_zero, precise, widen
from optjax._tree import map_leaves


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

    def add(
        updates: optax.Updates, state: Any, params: optax.Params, *, decay: Any
    ) -> tuple[optax.Updates, Any]:
        if callable(weight_decay):
            state = state._replace(count=optax.safe_increment(state.count))
        return map_leaves(
            lambda u, x: _add_decayed(u, decay, x), updates, params
        ), state

    ours = optax.GradientTransformationExtraArgs(theirs.init, add)
    if mask is not None:
        ours = optax.masked(ours, mask)

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None
    ) -> tuple[optax.Updates, Any]:
        decay, decayed, new_state = weight_decay, updates, state
        if not is_zero(weight_decay):
            if params is None:
                raise ValueError(
                    "weight decay needs the parameters: "
                    "update(gradients, state, params)."
                )
            if callable(weight_decay):
                counted = state if mask is None else state.inner_state
                decay = weight_decay(counted.count)
            decayed, new_state = ours.update(updates, state, params, decay=decay)
        part = Decay(weight_decay, mask, decay)
        tell(Link(part, updates, decayed, state, new_state, params))
        return decayed, new_state

    return optax.with_extra_args_support(
        optax.GradientTransformation(ours.init, update)
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


def _add_decayed(u: jax.Array, decay: Scalar, x: jax.Array) -> jax.Array:
    """u + λ x in the widest of their dtypes, by which x must not be rounded before.

    JAX would do the same but for λ x, and not where it is told not to promote.
    """
    is_array = not is_known(decay) and not getattr(decay, "weak_type", False)
    if is_array or u.dtype != x.dtype:
        u, x = widen(u), widen(x)
    return u + decay * x
