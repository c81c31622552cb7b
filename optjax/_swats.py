"""SWATS: Adam that turns into SGD once, for all coordinates, at a moment it finds.

Direction and rate cannot be separate branches here: the rate decides when the
direction's average starts anew, and the decision needs their product.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optjax._arguments.checked import checked
from optjax._arguments.named import Decay, FloatDType, InexactDType, Positive
from optjax._form import in_gradient_dtype
from optjax._observe import tell
from optjax._parts import Link, Switched
from optjax._precision import (
    abs_sq,
    bias_correction,
    full_like,
    next_count,
    one_minus_power,
    real_full_like,
    sqrt,
    store,
    widen,
)
from optjax._tree import map_leaves


class SwatsState(NamedTuple):
    """The state of `scale_by_swats`.

    `switched_at` is the step of the switch, 0 before it; `sgd_rate` the rate Λ from
    then on; `rate_ema` the running average λ of the projected rate, not debiased.
    """

    count: Any
    ema: optax.Updates
    nu: optax.Updates
    rate_ema: Any
    sgd_rate: Any
    switched_at: Any


@checked
def scale_by_swats(
    learning_rate: Positive = 1e-3,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: Positive = 1e-9,
    *,
    mu_dtype: InexactDType = None,
    nu_dtype: FloatDType = None,
) -> optax.GradientTransformationExtraArgs:
    r"""V_t ⊙ m_t with V_t = α √(1−β₂ᵗ)/(1−β₁ᵗ) / (√ν_t + ε), then V_t = Λ.

    While Adam runs, its step p_t = −V_t ⊙ m_t is projected on the gradient: the SGD
    rate whose step has p_t as its projection is γ_t = ‖p_t‖² / (−p_tᵀ g_t), averaged
    as λ_t = β₂ λ_{t−1} + (1 − β₂) γ_t. At the first t > 1 where the debiased
    Λ = λ_t / (1 − β₂ᵗ) is within ε of γ_t, m starts anew at zero and V = Λ from the
    next step on: SGD with momentum β₁ and learning rate (1 − β₁) Λ per unit of the
    momentum sum. Beyond the paper, Λ must also be positive.

    The products are taken over the whole tree: one decision for all parameters.

    Args:
      learning_rate: α > 0.
      b1: β₁ in [0, 1).
      b2: β₂ in [0, 1).
      eps: ε > 0, both in the denominator and as the tolerance of the switch, as in
        the paper. Of the unit of a learning rate there: a smaller α needs a smaller ε.
      mu_dtype: dtype in which m is stored; the parameters' by default (float32 for
        float16).
      nu_dtype: that of ν; bfloat16 stalls, see `ema_of_squares`.

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx, g = optjax.scale_by_swats(learning_rate=0.1), jnp.array([2.0, -1.0])
      >>> updates, state = tx.update(g, tx.init(g))
      >>> updates.round(3), int(state.switched_at)
      (Array([ 0.1, -0.1], dtype=float32), 0)

    Reference: Keskar & Socher, "Improving Generalization Performance by Switching
    from Adam to SGD", 2017, algorithm 1.
    """

    def init(params: optax.Params) -> SwatsState:
        # Each its own buffer: two that are one cannot both be donated.
        return SwatsState(
            count=jnp.zeros([], jnp.int32),
            ema=full_like(params, 0.0, mu_dtype),
            nu=real_full_like(params, 0.0, nu_dtype),
            rate_ema=jnp.zeros([], jnp.result_type(float)),
            sgd_rate=jnp.zeros([], jnp.result_type(float)),
            switched_at=jnp.zeros([], jnp.int32),
        )

    def update(
        updates: optax.Updates, state: SwatsState, params: Any = None, **extra: Any
    ) -> tuple[optax.Updates, SwatsState]:
        del params, extra
        count, t = next_count(state.count)
        is_sgd = state.switched_at > 0
        m = map_leaves(
            lambda g, m: (1 - b1) * widen(g) + b1 * widen(m), updates, state.ema
        )
        nu = map_leaves(
            lambda g, v: (1 - b2) * abs_sq(g) + b2 * widen(v), updates, state.nu
        )
        alpha = bias_correction(learning_rate, b1, b2, t)
        v = map_leaves(
            lambda v: jnp.where(
                is_sgd, store(state.sgd_rate, v), alpha / (sqrt(v) + eps)
            ),
            nu,
        )
        step = map_leaves(lambda m, v: m * v, m, v)

        step_sq = _dot(step, step)
        along_gradient = _dot(step, updates)
        is_measured = ~is_sgd & (along_gradient != 0)
        projected = step_sq / jnp.where(is_measured, along_gradient, 1.0)
        rate_ema = jnp.where(
            is_measured, b2 * state.rate_ema + (1 - b2) * projected, state.rate_ema
        )
        rate = rate_ema / one_minus_power(b2, t)
        # A negative rate would ascend for the rest of the run.
        is_stable = (t > 1) & (jnp.abs(rate - projected) < eps) & (rate > 0)
        switches = is_measured & is_stable

        new_state = SwatsState(
            count=count,
            ema=map_leaves(
                lambda m, old: store(jnp.where(switches, 0.0, m), old), m, state.ema
            ),
            nu=map_leaves(
                lambda v, old: jnp.where(is_sgd, old, store(v, old)), nu, state.nu
            ),
            rate_ema=store(rate_ema, state.rate_ema),
            sgd_rate=store(jnp.where(switches, rate, state.sgd_rate), state.sgd_rate),
            switched_at=jnp.where(switches, count, state.switched_at),
        )
        tell(Link(Switched(m, v, state.sgd_rate), updates, step, state, new_state))
        return step, new_state

    return in_gradient_dtype(optax.GradientTransformationExtraArgs(init, update))


def _dot(a: optax.Updates, b: optax.Updates) -> jax.Array:
    products = map_leaves(lambda x, y: jnp.sum((jnp.conj(x) * widen(y)).real), a, b)
    total = sum(jax.tree.leaves(products), start=jnp.zeros([]))
    return total.astype(jnp.result_type(float))
