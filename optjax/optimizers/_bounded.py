"""Adam whose rate is clipped between bounds that close on one of SGD."""

from collections.abc import Callable
from typing import Any

import optax

from optjax._accumulator import ema_of_squares, running_max
from optjax._arguments.checked import checked
from optjax._arguments.named import (
    Decay,
    FloatDType,
    InexactDType,
    Mask,
    NonNegative,
    Positive,
    Schedule,
    WeightDecay,
)
from optjax._base_rate import check_base, relative_to_base, times
from optjax._bound import FinalRate, Speed, bound_clip, hyperbolic_bounds
from optjax._direction import ema
from optjax._form import basic_form, in_gradient_dtype
from optjax._precision import Scalar
from optjax._rate import correct_bias, rate_by_accumulated_square
from optjax._weight_decay import add_decayed_weights, with_l2
from optjax.optimizers._row import EMA, RMS, Optimizer, Row

__all__ = ["adabound", "adaboundw", "amsbound"]

_BAND = "clip(lo_t, hi_t)"

ROWS: dict[str, Row] = {}


@checked
def adabound(
    learning_rate: Schedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    final_lr: FinalRate = 0.1,
    gamma: Speed = 1e-3,
    weight_decay: WeightDecay = 0.0,
    mask: Mask = None,
    *,
    base_lr: Positive | None = None,
    mu_dtype: InexactDType = None,
    nu_dtype: FloatDType = None,
) -> Optimizer:
    r"""x ← x − s_t clip(α √(1−β₂ᵗ)/(1−β₁ᵗ) / (√ν_t + ε), lo_t, hi_t) ⊙ m_t.

    Adam at first and SGD in the end: m = ema(g) and ν = ema(g²), neither debiased,
    lo_t = f (1 − 1/(γt + 1)) and hi_t = f (1 + 1/(γt)), which close on f = `final_lr`.

    The limit is SGD with momentum β₁ and learning rate f (1 − β₁), since m is an
    average and not a sum: `final_lr=0.1, b1=0.9` becomes `sgd(0.01, momentum=0.9)`.
    The band is within a factor 1.1 of f from t = 10/γ on; see `optjax.gamma_for`.

    Whatever changes α, a schedule, an injected number or a hand, scales the step and
    both bounds by s_t = α_t / α_0, which is the authors' `final_lr * lr / base_lr`. α_0
    is part of the state (`base_lr`), and by default α when the state is made.

    Args:
      learning_rate: α > 0, Adam's. A schedule that rises above its first value, as a
        warm-up does, needs `base_lr`.
      b1: β₁ in [0, 1), decay of m.
      b2: β₂ in [0, 1), decay of ν.
      eps: ε ≥ 0, added to the raw √ν as in the authors' code.
      final_lr: f > 0, the rate that both bounds converge to.
      gamma: γ ≥ 0 per step, how fast the bounds close.
      weight_decay: λ ≥ 0 of an L2 penalty, added to the gradient before all else.
      mask: a tree of booleans, or a function of the parameters that returns one:
        which leaves are decayed.
      base_lr: α_0, the learning rate that belongs to `final_lr`; by default
        `learning_rate` when the state is made, a schedule's value at step 0. For a
        warm-up it is the peak; give it also under `optax.inject_hyperparams`, where
        the schedule cannot be seen and the first value would be taken.
      mu_dtype: dtype in which m is stored; the parameters' by default (float32 for
        float16).
      nu_dtype: dtype in which ν is stored; the parameters' by default. See `adam`.

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx, g = optjax.adabound(1e-3), jnp.array([5.0, 0.01])
      >>> updates, state = tx.update(g, tx.init(g))
      >>> updates.round(4)
      Array([-0.001, -0.001], dtype=float32)

    Reference: Luo et al., "Adaptive Gradient Methods with Dynamic Bound of Learning
    Rate", ICLR 2019, and the authors' PyTorch code.
    """
    check_base(learning_rate, base_lr)
    accumulator = ema_of_squares(b2, debias=False, nu_dtype=nu_dtype)
    form = _form(accumulator, b1, b2, eps, final_lr, gamma, mu_dtype)

    def make(alpha: Scalar, s: Scalar) -> Optimizer:
        return with_l2(form(alpha, s), weight_decay, mask)

    return relative_to_base(make, learning_rate, base_lr)


ROWS["adabound"] = Row(adabound, EMA, f"α·{RMS}", _BAND, "α_t/α_0", "Luo et al. 2019")


@checked
def amsbound(
    learning_rate: Schedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    final_lr: FinalRate = 0.1,
    gamma: Speed = 1e-3,
    weight_decay: WeightDecay = 0.0,
    mask: Mask = None,
    *,
    base_lr: Positive | None = None,
    mu_dtype: InexactDType = None,
    nu_dtype: FloatDType = None,
) -> Optimizer:
    r"""x ← x − s_t clip(α √(1−β₂ᵗ)/(1−β₁ᵗ) / (√ν̄_t + ε), lo_t, hi_t) ⊙ m_t.

    `adabound` over AMSGrad's running maximum of the raw average, ν̄_t = max(ν̄_{t−1},
    ν_t). Arguments, bounds, limit and schedule are those of `adabound`.

    Args:
      learning_rate: α > 0. A schedule that rises needs `base_lr`.
      b1: β₁ in [0, 1), decay of m.
      b2: β₂ in [0, 1), decay of ν.
      eps: ε ≥ 0, added to the raw √ν̄.
      final_lr: f > 0, the rate that both bounds converge to.
      gamma: γ ≥ 0 per step, how fast the bounds close.
      weight_decay: λ ≥ 0 of an L2 penalty, added to the gradient before all else.
      mask: which leaves are decayed.
      base_lr: α_0, by default `learning_rate` when the state is made.
      mu_dtype: dtype in which m is stored; the parameters' by default (float32 for
        float16).
      nu_dtype: that of ν and ν̄; see `adam`.

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx, g = optjax.amsbound(1e-3), jnp.array([5.0, 0.01])
      >>> tx.update(g, tx.init(g))[0].round(4)
      Array([-0.001, -0.001], dtype=float32)

    Reference: Luo et al., ICLR 2019, and the authors' PyTorch code.
    """
    check_base(learning_rate, base_lr)
    accumulator = optax.chain(
        ema_of_squares(b2, debias=False, nu_dtype=nu_dtype),
        running_max(nu_dtype=nu_dtype),
    )
    form = _form(accumulator, b1, b2, eps, final_lr, gamma, mu_dtype)

    def make(alpha: Scalar, s: Scalar) -> Optimizer:
        return with_l2(form(alpha, s), weight_decay, mask)

    return relative_to_base(make, learning_rate, base_lr)


ROWS["amsbound"] = Row(
    amsbound, EMA, "α/(√ν+ε), ν = max ema(g²)", _BAND, "α_t/α_0", "Luo et al. 2019"
)


@checked
def adaboundw(
    learning_rate: Schedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    final_lr: FinalRate = 0.1,
    gamma: Speed = 1e-3,
    weight_decay: WeightDecay = 5e-4,
    mask: Mask = None,
    *,
    fixed_decay: bool = False,
    amsbound: bool = False,
    base_lr: Positive | None = None,
    mu_dtype: InexactDType = None,
    nu_dtype: FloatDType = None,
) -> Optimizer:
    r"""x ← x − s_t clip(…) ⊙ m_t − α_t λ x: `adabound` with decoupled weight decay.

    Two decays are found under this name. The default multiplies λ by α_t, like AdamW
    here, in Optax and in PyTorch, so that λ keeps its meaning when α is tuned or
    scheduled. With `fixed_decay` the decay is λ x, as in the authors' AdaBoundW, where
    a λ that suits the default is 1/α, a thousand times, too strong.

    Args:
      learning_rate: α > 0. A schedule that rises needs `base_lr`.
      b1: β₁ in [0, 1), decay of m.
      b2: β₂ in [0, 1), decay of ν.
      eps: ε ≥ 0, added to the raw √ν.
      final_lr: f > 0, the rate that both bounds converge to.
      gamma: γ ≥ 0 per step, how fast the bounds close.
      weight_decay: λ ≥ 0.
      mask: a tree of booleans, or a function of the parameters that returns one:
        which leaves are decayed.
      fixed_decay: do not multiply the decay by the learning rate.
      amsbound: take the running maximum of ν, as `amsbound` does.
      base_lr: α_0, by default `learning_rate` when the state is made.
      mu_dtype: dtype in which m is stored; the parameters' by default (float32 for
        float16).
      nu_dtype: that of ν and ν̄; see `adam`.

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> x, g = jnp.array(1.0), jnp.array(0.0)
      >>> tx = optjax.adaboundw(0.01, weight_decay=0.1)
      >>> fixed = optjax.adaboundw(0.01, weight_decay=0.1, fixed_decay=True)
      >>> tx.update(g, tx.init(x), x)[0], fixed.update(g, fixed.init(x), x)[0]
      (Array(-0.001, dtype=float32), Array(-0.1, dtype=float32))

    References: Luo et al., ICLR 2019, and the authors' repository; Loshchilov &
    Hutter, ICLR 2019.
    """
    check_base(learning_rate, base_lr)
    accumulator = ema_of_squares(b2, debias=False, nu_dtype=nu_dtype)
    if amsbound:
        accumulator = optax.chain(accumulator, running_max(nu_dtype=nu_dtype))
    form = _form(accumulator, b1, b2, eps, final_lr, gamma, mu_dtype)

    def make(alpha: Scalar, s: Scalar) -> Optimizer:
        if not fixed_decay:
            return form(alpha, s, add_decayed_weights(times(alpha, weight_decay), mask))
        outside = add_decayed_weights(times(-1.0, weight_decay), mask)
        return in_gradient_dtype(optax.chain(form(alpha, s), outside))

    return relative_to_base(make, learning_rate, base_lr)


ROWS["adaboundw"] = Row(
    adaboundw, EMA, f"α·{RMS}; + α_t λx", _BAND, "α_t/α_0", "Luo et al. 2019"
)


def _form(
    accumulator: optax.GradientTransformation,
    b1: Scalar,
    b2: Scalar,
    eps: Scalar,
    final_lr: Scalar,
    gamma: Scalar,
    mu_dtype: Any,
) -> Callable[..., Optimizer]:
    """The basic form that they share, of α_0, s_t and a decay of the weights."""

    def form(alpha: Scalar, s: Scalar, decay: Any = None) -> Optimizer:
        rate = optax.chain(
            rate_by_accumulated_square(accumulator, eps),
            correct_bias(b1, b2, alpha),
            bound_clip(*hyperbolic_bounds(final_lr, gamma)),
        )
        direction = ema(b1, debias=False, accumulator_dtype=mu_dtype)
        return basic_form(direction, rate, s, decay)

    return form
