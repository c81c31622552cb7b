"""The basic form: x[t+1] = x[t] − s_t · V_t ⊙ m_t.

    m_t   direction   the gradient, or a running average of it
    V_t   rate        a per-coordinate step size, > 0
    s_t   schedule    a scalar multiplier over time

Every optimizer here is one choice of the three:

    SGD        m = g           V = 1
    Adam       m = ema(g)      V = 1 / (√ema(g²) + ε)
    AdaBound   m = ema(g)      V = clip(α / (√ema(g²) + ε), lo_t, hi_t)

A linear chain cannot say this: the accumulator behind V must see the gradient and
not m, and AdaBound's bound must see V before it meets m. So the gradient branches
into two ordinary gradient transformations, and their outputs multiply.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optjax._arguments.checked import checked
from optjax._arguments.named import Schedule, Transformation
from optjax._observe import Telling, tell
from optjax._parts import Descend, Link, One, Product
from optjax._precision import precise, widen
from optjax._tree import cast_leaves, map_leaves


class PreconditionState(NamedTuple):
    """The states of the two branches."""

    direction: optax.OptState
    rate: optax.OptState


@checked
def precondition(
    direction: Transformation, rate: Transformation
) -> optax.GradientTransformationExtraArgs:
    r"""V_t ⊙ m_t: feed the gradient to two branches and multiply what they return.

    `direction` maps g_t to m_t and `rate` maps g_t to V_t, leaf by leaf and of equal
    shapes. The rate is also handed m_t and g_t, as the extra arguments `direction` and
    `gradient`, for bounds that are measured of them, and the direction's new state,
    `direction_state`, for accumulators such as AdaBelief's that measure g_t − m_t.

    Args:
      direction: any gradient transformation, such as `optax.identity()` or
        `optjax.ema(0.9)`.
      rate: a gradient transformation that returns rates (`optjax.rate_by_*`), or a
        chain that starts with one and goes on with `optax.scale` or `bound_clip`.

    Returns:
      A transformation whose updates point uphill, in the gradient's dtype: follow it
      by `optax.scale_by_learning_rate`, or use `basic_form`.

    Raises:
      ValueError: in `update`, where gradients and state differ in structure or shape.

    Example:
      >>> import jax.numpy as jnp, optax, optjax
      >>> rms = optjax.rate_by_accumulated_square(optjax.ema_of_squares(0.9), eps=0.0)
      >>> tx = optjax.precondition(optax.identity(), rms)
      >>> x = jnp.array([3.0, -4.0])
      >>> tx.update(x, tx.init(x))[0].round(3)
      Array([ 1., -1.], dtype=float32)
    """
    return in_gradient_dtype(_product(direction, rate))


@checked
def basic_form(
    direction: Transformation,
    rate: Transformation,
    learning_rate: Schedule,
    decay: Transformation | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""x[t+1] = x[t] − s_t · V_t ⊙ m_t, an optimizer from its three parts.

    With `decay`, x[t+1] = x[t] − s_t · (V_t ⊙ m_t + λ x[t]): weight decay that the
    rate does not touch and the schedule does, as in AdamW.

    Args:
      direction: g_t to m_t.
      rate: g_t to V_t.
      learning_rate: s_t, a number, a traced scalar or an Optax schedule (which counts
        from 0). Where the rate already contains α, as under a bound, 1.0.
      decay: `optax.add_decayed_weights(λ, mask)`, or None.

    Returns:
      An optimizer for `optax.apply_updates`; only here does the minus sign appear.

    Raises:
      ValueError: for a negative or non-finite concrete learning rate.

    Example: an RMSProp whose rate is clipped to [0.01, 0.1].
      >>> import jax.numpy as jnp, optax, optjax
      >>> tx = optjax.basic_form(
      ...     direction=optax.identity(),
      ...     rate=optax.chain(
      ...         optjax.rate_by_accumulated_square(optjax.ema_of_squares(0.9)),
      ...         optax.scale(0.05),
      ...         optjax.bound_clip(0.01, 0.1),
      ...     ),
      ...     learning_rate=1.0,
      ... )
      >>> g = jnp.array([1.0, 100.0])
      >>> tx.update(g, tx.init(g))[0].round(3)
      Array([-0.05, -1.  ], dtype=float32)
    """
    parts = [_product(direction, rate), decay, descend(learning_rate)]
    return in_gradient_dtype(optax.chain(*(p for p in parts if p is not None)))


def descend(
    learning_rate: optax.ScalarOrSchedule,
) -> optax.GradientTransformationExtraArgs:
    """u ↦ −s_t u, the last step of every optimizer."""
    learning_rate = precise(learning_rate)
    theirs = optax.scale_by_learning_rate(learning_rate)

    def update(
        updates: optax.Updates, state: optax.OptState, params: Any = None
    ) -> tuple[optax.Updates, optax.OptState]:
        del params
        new_state = state
        if callable(learning_rate):
            s = learning_rate(state.count)
            new_state = state._replace(count=optax.safe_increment(state.count))
        else:
            s = learning_rate
        step = -s
        # XLA makes p + (−u) one operation, and p + (−1 · u) two.
        negated = isinstance(step, float) and step == -1.0
        steps = map_leaves(lambda u: -u if negated else step * widen(u), updates)
        tell(Link(Descend(learning_rate, s), updates, steps, state, new_state))
        return steps, new_state

    return optax.with_extra_args_support(
        optax.GradientTransformation(theirs.init, update)
    )


def in_gradient_dtype(
    transformation: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """The same transformation, its updates cast to the dtype of the gradients.

    Rates are float32 or wider, and a traced float32 learning rate or decay would turn
    bfloat16 updates into float32. One cast at the end keeps both the precision and
    the dtype. Gradients in float16 are widened at the start too: their averages and
    sums leave its range, 6e-8 to 65504, where the updates do not.
    """
    inner = optax.with_extra_args_support(transformation)

    def update(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        gradients = jax.tree.map(_out_of_float16, updates)
        result, state = inner.update(gradients, state, params, **extra)
        return cast_leaves(result, updates), state

    return optax.GradientTransformationExtraArgs(inner.init, update)


def _out_of_float16(g: Any) -> Any:
    return widen(g) if getattr(g, "dtype", None) == jnp.float16 else g


def _product(
    direction: optax.GradientTransformation, rate: optax.GradientTransformation
) -> optax.GradientTransformationExtraArgs:
    """`precondition` in float32 or wider, so that nothing overflows before s_t."""
    direction = optax.with_extra_args_support(direction)
    rate = optax.with_extra_args_support(rate)
    is_one = isinstance(rate, Telling) and isinstance(rate.part, One)

    def init(params: optax.Params) -> PreconditionState:
        return PreconditionState(direction.init(params), rate.init(params))

    def update(
        updates: optax.Updates,
        state: PreconditionState,
        params: optax.Params | None = None,
        **extra: Any,
    ) -> tuple[optax.Updates, PreconditionState]:
        m, direction_state = direction.update(updates, state.direction, params, **extra)
        extra |= {"direction_state": direction_state, "direction": m}
        extra["gradient"] = updates
        v, rate_state = rate.update(updates, state.rate, params, **extra)
        if is_one:
            product = map_leaves(widen, m)
        else:
            product = map_leaves(lambda m, v: v * widen(m), m, v)
        new_state = PreconditionState(direction_state, rate_state)
        tell(Link(Product(m, v), updates, product, state, new_state))
        return product, new_state

    return optax.GradientTransformationExtraArgs(init, update)
