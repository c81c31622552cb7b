"""AdaShift: the rate is made of gradients that the direction no longer contains.

Direction and rate share one memory, the last n gradients, so they are one primitive;
as two branches each would keep its own.
"""

from typing import Annotated, Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from optjax._arguments.checked import checked
from optjax._arguments.named import Decay, FloatDType, InexactDType, NonNegative
from optjax._arguments.numbers import Whole
from optjax._arguments.objects import OneOf
from optjax._form import in_gradient_dtype
from optjax._observe import tell
from optjax._parts import Link, Shifted
from optjax._precision import (
    abs_sq,
    away_from_zero,
    full_like,
    next_count,
    one_minus_power,
    real_full_like,
    sqrt,
    store,
    widen,
)
from optjax._tree import cast_leaves, map_leaves

_REDUCTIONS = {"max": jnp.max, "mean": jnp.mean, "none": None}

Window: TypeAlias = Annotated[
    int,
    Whole(
        1,
        hint="It shapes the state; with optax.inject_hyperparams pass "
        "static_args='keep_num'",
    ),
]
Reduction: TypeAlias = Annotated[str, OneOf(_REDUCTIONS)]


class AdashiftState(NamedTuple):
    """The state of `scale_by_adashift`.

    `window` has the last n gradients along a new leading axis, g_k at index k mod n.
    """

    count: Any
    window: optax.Updates
    ema: optax.Updates
    nu: optax.Updates


@checked
def scale_by_adashift(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-10,
    keep_num: Window = 10,
    reduction: Reduction = "max",
    *,
    mu_dtype: InexactDType = None,
    nu_dtype: FloatDType = None,
) -> optax.GradientTransformationExtraArgs:
    r"""V_t ⊙ m_t from disjoint gradients: the last n for m_t, older ones for V_t.

    m_t = Σ_{i<n} β₁ⁱ g_{t−i} / Σ_{i<n} β₁ⁱ
    ν_t = β₂ ν_{t−1} + (1 − β₂) φ(|g_{t−n}|²)
    V_t = 1 / (√(ν_t / (1 − β₂^{t−n})) + ε), and 0 for t ≤ n: no update yet

    V_t is then independent of m_t given the parameters, which repairs Adam's bias
    against rare large gradients. φ reduces over a leaf, so that a whole layer shares
    one rate and the optimizer is SGD with an adaptive rate for each layer.

    Args:
      b1: β₁ in [0, 1). From 1 on rounding, which m is summed up from, would not fade.
      b2: β₂ in [0, 1).
      eps: ε ≥ 0.
      keep_num: n ≥ 1. A Python integer: it shapes the state, n gradients in size.
        `optax.inject_hyperparams` needs static_args="keep_num".
      reduction: φ, "max" or "mean" over a leaf, or "none" for a rate a coordinate.
      mu_dtype: dtype in which m and the last n gradients are stored; the parameters'
        by default.
      nu_dtype: that of ν; bfloat16 stalls, see `ema_of_squares`.

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx, g = optjax.scale_by_adashift(keep_num=1), jnp.array([2.0, -4.0])
      >>> updates, state = tx.update(g, tx.init(g))
      >>> updates
      Array([0., 0.], dtype=float32)
      >>> tx.update(g, state)[0].round(3)
      Array([ 0.5, -1. ], dtype=float32)

    Reference: Zhou et al., "AdaShift: Decorrelation and Convergence of Adaptive
    Learning Rate Methods", ICLR 2019, algorithm 2.
    """
    n = keep_num
    reduce = _REDUCTIONS[reduction]

    def phi(square: jax.Array) -> jax.Array:
        return square if reduce is None or square.size == 0 else reduce(square)

    def init(params: optax.Params) -> AdashiftState:
        nu = real_full_like(params, 0.0, nu_dtype)
        m = full_like(params, 0.0, mu_dtype)
        window = jax.tree.map(lambda p: jnp.zeros((n, *jnp.shape(p)), p.dtype), m)
        return AdashiftState(
            count=jnp.zeros([], jnp.int32),
            window=window,
            ema=m,
            nu=jax.tree.map(lambda v: store(phi(v), v), nu),
        )

    def update(
        updates: optax.Updates, state: AdashiftState, params: Any = None, **extra: Any
    ) -> tuple[optax.Updates, AdashiftState]:
        del params, extra
        count, t = next_count(state.count)
        slot = count % n
        is_ready = count > n
        total_weight = sum(b1**i for i in range(n))

        oldest = jax.tree.map(lambda w: w[slot], state.window)
        m = map_leaves(
            lambda g, old, m: (
                b1 * widen(m) + (widen(g) - b1**n * widen(old)) / total_weight
            ),
            updates,
            oldest,
            state.ema,
        )
        squares = jax.tree.map(lambda old: phi(abs_sq(old)), oldest)
        nu = map_leaves(
            lambda s, v: jnp.where(is_ready, (1 - b2) * s + b2 * widen(v), widen(v)),
            squares,
            state.nu,
        )
        gathered = one_minus_power(b2, jnp.maximum(t - n, 1.0))

        def step(m: jax.Array, v: jax.Array) -> jax.Array:
            root = away_from_zero(sqrt(v / gathered) + eps)
            return jnp.where(is_ready, m / root, 0.0)

        result = jax.tree.map(step, m, nu)
        rate = jax.tree.map(lambda m, v: step(jnp.ones_like(m), v), m, nu)
        window = jax.tree.map(
            lambda w, g: jnp.asarray(w).at[slot].set(store(g, w)),
            state.window,
            updates,
        )
        new_state = AdashiftState(
            count,
            window,
            cast_leaves(m, state.ema),
            cast_leaves(nu, state.nu),
        )
        tell(Link(Shifted(m, rate), updates, result, state, new_state))
        return result, new_state

    return in_gradient_dtype(optax.GradientTransformationExtraArgs(init, update))
