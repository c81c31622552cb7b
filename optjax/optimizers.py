"""The family, in order of increasing complexity: each optimizer is a row.

    x[t+1] = x[t] − s_t · V_t ⊙ m_t

A factory below names the direction m, the rate V, its bound and the schedule s;
`OPTIMIZERS` at the end of the file is the same table as data. Where Optax has an
optimizer of the same name, arguments, defaults and trajectory are Optax's.

All hyper-parameters are numbers or traced scalars; `learning_rate` (and
`weight_decay`, as in Optax) may also be a schedule, a function of the number of steps
taken so far. Concrete values out of range raise ValueError.
"""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import optax

from optjax._accumulator import (
    centered_ema_of_squares,
    debias_squares,
    ema_of_squared_residuals,
    ema_of_squares,
    mean_of_squares,
    running_max,
    sign_ema_of_squares,
    sum_of_squares,
)
from optjax._adashift import Reduction, Window, scale_by_adashift
from optjax._base_rate import check_base, relative_to_base, times
from optjax._bound import FinalRate, Speed, bound_clip, hyperbolic_bounds
from optjax._direction import ema, nadam_ema, trace
from optjax._form import basic_form, descend, in_gradient_dtype
from optjax._hyperparameter import (
    Decay,
    FloatDType,
    InexactDType,
    Mask,
    NonNegative,
    Positive,
    Schedule,
    WeightDecay,
    checked,
)
from optjax._precision import Scalar
from optjax._rate import (
    HalfPower,
    Threshold,
    correct_bias,
    limit_by_average,
    rate_by_accumulated_square,
    rate_by_adadelta,
    rate_by_infinity_norm,
    rate_by_one,
    rectify,
)
from optjax._swats import scale_by_swats
from optjax._weight_decay import add_decayed_weights

__all__ = [
    "OPTIMIZERS",
    "Row",
    "adabelief",
    "adabound",
    "adaboundw",
    "adadelta",
    "adagrad",
    "adam",
    "adamax",
    "adamod",
    "adamw",
    "adashift",
    "amsbound",
    "amsgrad",
    "nadam",
    "nadamw",
    "nosadam",
    "padam",
    "radam",
    "rmsprop",
    "sgd",
    "swats",
    "yogi",
]

Optimizer: TypeAlias = optax.GradientTransformationExtraArgs


@checked
def sgd(
    learning_rate: Schedule,
    momentum: Decay | None = None,
    nesterov: bool = False,
    accumulator_dtype: InexactDType = None,
) -> Optimizer:
    r"""x ← x − α_t m_t: stochastic gradient descent, plain or with momentum.

    m_t = g_t without momentum, else m_t = g_t + μ m_{t−1}, and with Nesterov's
    look-ahead g_t + μ m_t.

    The momentum is a sum: with μ = 0.9 the steps are ten times those of an average
    with the same learning rate. PyTorch's SGD is the same with dampening = 0.
    `nesterov` without `momentum` has no effect, as in Optax.

    Args:
      learning_rate: α.
      momentum: μ in [0, 1), or None for plain SGD without state.
      nesterov: look one step ahead.
      accumulator_dtype: dtype in which m is stored; the parameters' by default (float32
        for float16).

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx, g = optjax.sgd(0.1, momentum=0.9), jnp.array(1.0)
      >>> tx.update(g, tx.init(g))[0].round(3)
      Array(-0.1, dtype=float32)

    References: Robbins & Monro, 1951; Polyak, 1964; Nesterov, 1983; Sutskever et al.,
    "On the importance of initialization and momentum in deep learning", ICML 2013.
    """
    direction = (
        optax.identity()
        if momentum is None
        else trace(momentum, nesterov, accumulator_dtype)
    )
    return basic_form(direction, rate_by_one(), learning_rate)


@checked
def adagrad(
    learning_rate: Schedule,
    initial_accumulator_value: NonNegative = 0.1,
    eps: NonNegative = 1e-7,
    *,
    eps_in_sqrt: bool = True,
    nu_dtype: FloatDType = None,
) -> Optimizer:
    r"""x ← x − α_t g_t / √(ν_t + ε), ν_t = ν_0 + Σ g².

    The sum never shrinks, so every coordinate's rate dries up like 1/√t.

    Optax starts ν at 0.1 and adds ε under the root; PyTorch starts at 0 and adds ε to
    the root: `initial_accumulator_value=0.0, eps=1e-10, eps_in_sqrt=False`.

    Args:
      learning_rate: α.
      initial_accumulator_value: ν_0 ≥ 0.
      eps: ε ≥ 0.
      eps_in_sqrt: False for √ν_t + ε.
      nu_dtype: dtype in which ν is stored; the parameters' by default, float32 for
        float16. In bfloat16 the sum stops growing after a few hundred steps.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx, g = optjax.adagrad(0.1, initial_accumulator_value=0.0), jnp.array(5.0)
      >>> tx.update(g, tx.init(g))[0].round(3)
      Array(-0.1, dtype=float32)

    Reference: Duchi et al., "Adaptive Subgradient Methods", JMLR 2011.
    """
    return basic_form(
        direction=optax.identity(),
        rate=rate_by_accumulated_square(
            sum_of_squares(initial_accumulator_value, nu_dtype=nu_dtype),
            **_eps(eps, eps_in_sqrt),
        ),
        learning_rate=learning_rate,
    )


@checked
def rmsprop(
    learning_rate: Schedule,
    decay: Decay = 0.9,
    eps: NonNegative = 1e-8,
    initial_scale: NonNegative = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: Decay | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
    *,
    mu_dtype: InexactDType = None,
    nu_dtype: FloatDType = None,
) -> Optimizer:
    r"""x ← x − α_t g_t / √(ν_t + ε), ν_t = β ν_{t−1} + (1 − β) g_t².

    Centered, ν_t is the variance ema(g²) − ema(g)². With momentum the step itself,
    learning rate included, is summed: u_t = α_t V_t g_t + μ u_{t−1}; PyTorch sums
    V_t g_t and multiplies by α_t afterwards, which differs where α changes.

    PyTorch's defaults are `decay=0.99, eps_in_sqrt=False`.

    Args:
      learning_rate: α.
      decay: β in [0, 1).
      eps: ε ≥ 0.
      initial_scale: ν_0 ≥ 0.
      eps_in_sqrt: False for √ν_t + ε.
      centered: divide by the standard deviation.
      momentum: μ in [0, 1), or None.
      nesterov: look one step ahead with the momentum.
      bias_correction: divide the averages by 1 − βᵗ.
      mu_dtype: dtype in which ema(g), if centered, and the momentum are stored; the
        parameters' by default.
      nu_dtype: dtype in which ν is stored; the parameters' by default. See `adam`.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx, g = optjax.rmsprop(0.1, bias_correction=True), jnp.array(5.0)
      >>> tx.update(g, tx.init(g))[0].round(3)
      Array(-0.1, dtype=float32)

    References: Tieleman & Hinton, "RMSProp", Coursera lecture 6.5, 2012; Graves,
    "Generating Sequences With Recurrent Neural Networks", 2013 (centered).
    """
    options: dict[str, Any] = {
        "debias": bias_correction,
        "initial_value": initial_scale,
        "nu_dtype": nu_dtype,
    }
    optimizer = basic_form(
        direction=optax.identity(),
        rate=rate_by_accumulated_square(
            centered_ema_of_squares(decay, **options, mu_dtype=mu_dtype)
            if centered
            else ema_of_squares(decay, **options),
            **_eps(eps, eps_in_sqrt),
        ),
        learning_rate=learning_rate,
    )
    return (
        optimizer
        if momentum is None
        else optax.chain(optimizer, trace(momentum, nesterov, mu_dtype))
    )


@checked
def adadelta(
    learning_rate: Schedule = 1.0,
    rho: Decay = 0.9,
    eps: NonNegative = 1e-6,
    weight_decay: WeightDecay = 0.0,
    weight_decay_mask: Mask = None,
    *,
    nu_dtype: FloatDType = None,
) -> Optimizer:
    r"""x ← x − α_t √(X_{t−1} + ε) / √(ν_t + ε) g_t, ν = ema(g²), X = ema(step²).

    Here `learning_rate` is 1.0 by default, as in the paper and in PyTorch. Optax's
    default, None, leaves out the minus sign with the rate and ascends.

    Args:
      learning_rate: α; 1.0 is the paper's method.
      rho: ρ in [0, 1), the decay of both averages.
      eps: ε > 0.
      weight_decay: λ ≥ 0 of an L2 penalty, added to the gradient.
      weight_decay_mask: a tree of booleans, or a function of the parameters that
        returns one: which leaves are decayed.
      nu_dtype: dtype in which ν and X are stored; the parameters' by default (float32
        for float16).

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx, g = optjax.adadelta(), jnp.array(5.0)
      >>> print(f"{tx.update(g, tx.init(g), g)[0]:.6f}")
      -0.003162

    Reference: Zeiler, "ADADELTA: An Adaptive Learning Rate Method", 2012.
    """
    optimizer = basic_form(
        direction=optax.identity(),
        rate=rate_by_adadelta(rho, eps, nu_dtype=nu_dtype),
        learning_rate=learning_rate,
    )
    return _with_l2(optimizer, weight_decay, weight_decay_mask)


@checked
def adam(
    learning_rate: Schedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: InexactDType = None,
    *,
    nesterov: bool = False,
    nu_dtype: FloatDType = None,
) -> Optimizer:
    r"""x ← x − α_t m̂_t / (√(ν̂_t + ε̄) + ε), m̂ and ν̂ the debiased ema of g and g².

    Args:
      learning_rate: α.
      b1: β₁ in [0, 1), decay of m.
      b2: β₂ in [0, 1), decay of ν.
      eps: ε ≥ 0 outside the root, as in the paper and in PyTorch.
      eps_root: ε̄ ≥ 0 inside the root.
      mu_dtype: dtype in which m is stored; the parameters' by default, float32 for
        float16. Under bfloat16 Optax also rounds a Python-float β₁ to it, 0.9 to
        0.8984; here β₁ stays exact.
      nesterov: look one step ahead, which makes it `nadam`.
      nu_dtype: dtype in which ν is stored; the parameters' by default, float32 for
        float16. Plainly rounded to bfloat16, ν stalls at β₂ = 0.999, at a fifth to a
        third of its true value: wrap the optimizer in
        `optjax.stochastic_rounding`.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx, g = optjax.adam(0.1), jnp.array([5.0, -1e-3])
      >>> tx.update(g, tx.init(g))[0].round(3)
      Array([-0.1,  0.1], dtype=float32)

    Reference: Kingma & Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015.
    """
    return basic_form(
        direction=ema(b1, nesterov=nesterov, accumulator_dtype=mu_dtype),
        rate=rate_by_accumulated_square(
            ema_of_squares(b2, nu_dtype=nu_dtype), eps, eps_root
        ),
        learning_rate=learning_rate,
    )


@checked
def adamw(
    learning_rate: Schedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: InexactDType = None,
    weight_decay: WeightDecay = 1e-4,
    mask: Mask = None,
    *,
    nesterov: bool = False,
    nu_dtype: FloatDType = None,
) -> Optimizer:
    r"""x ← x − α_t (m̂_t / (√(ν̂_t + ε̄) + ε) + λ x): Adam with decoupled weight decay.

    The decay is multiplied by α_t, as in PyTorch, whose default λ is 1e-2; the paper
    multiplies it by the schedule but not by the base learning rate.

    Args:
      learning_rate: α.
      b1: β₁ in [0, 1), decay of m.
      b2: β₂ in [0, 1), decay of ν.
      eps: ε ≥ 0 outside the root.
      eps_root: ε̄ ≥ 0 inside the root.
      mu_dtype: dtype in which m is stored; the parameters' by default (float32 for
        float16).
      weight_decay: λ ≥ 0.
      mask: a tree of booleans, or a function of the parameters that returns one:
        which leaves are decayed.
      nesterov: look one step ahead, which makes it `nadamw`.
      nu_dtype: dtype in which ν is stored; the parameters' by default. See `adam`.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx = optjax.adamw(0.1, weight_decay=0.1)
      >>> x, g = jnp.array(10.0), jnp.array(1.0)
      >>> print(f"{tx.update(g, tx.init(x), x)[0]:.4f}")
      -0.2000

    Reference: Loshchilov & Hutter, "Decoupled Weight Decay Regularization", ICLR 2019.
    """
    return basic_form(
        direction=ema(b1, nesterov=nesterov, accumulator_dtype=mu_dtype),
        rate=rate_by_accumulated_square(
            ema_of_squares(b2, nu_dtype=nu_dtype), eps, eps_root
        ),
        learning_rate=learning_rate,
        decay=_decoupled(weight_decay, mask),
    )


@checked
def adamax(
    learning_rate: Schedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    *,
    mu_dtype: InexactDType = None,
    nu_dtype: FloatDType = None,
) -> Optimizer:
    r"""x ← x − α_t m̂_t / ν_t, ν_t = max(β₂ ν_{t−1}, |g_t| + ε): Adam in the ∞-norm.

    Args:
      learning_rate: α.
      b1: β₁ in [0, 1), decay of m.
      b2: β₂ in [0, 1), decay of ν.
      eps: ε ≥ 0.
      mu_dtype: dtype in which m is stored; the parameters' by default (float32 for
        float16).
      nu_dtype: dtype in which ν is stored; the parameters' by default (float32 for
        float16).

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx, g = optjax.adamax(0.1), jnp.array(5.0)
      >>> tx.update(g, tx.init(g))[0].round(3)
      Array(-0.1, dtype=float32)

    Reference: Kingma & Ba, "Adam", ICLR 2015, section 7.1.
    """
    return basic_form(
        direction=ema(b1, accumulator_dtype=mu_dtype),
        rate=rate_by_infinity_norm(b2, eps, nu_dtype=nu_dtype),
        learning_rate=learning_rate,
    )


@checked
def nadam(
    learning_rate: Schedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: InexactDType = None,
    *,
    nesterov: bool = True,
    momentum_decay: NonNegative | None = None,
    nu_dtype: FloatDType = None,
) -> Optimizer:
    r"""x ← x − α_t m̄_t / (√(ν̂_t + ε̄) + ε), m̄_t = β₁ m̂_{t+1} + (1 − β₁) ĝ_t.

    Adam with Nesterov's look-ahead. By default the momentum is constant, as in Optax;
    `momentum_decay=0.004` is the paper's and PyTorch's schedule of momenta.

    Args:
      learning_rate: α; PyTorch's default is 2e-3.
      b1: β₁ in [0, 1), decay of m.
      b2: β₂ in [0, 1), decay of ν.
      eps: ε ≥ 0 outside the root.
      eps_root: ε̄ ≥ 0 inside the root.
      mu_dtype: dtype in which m is stored; the parameters' by default (float32 for
        float16).
      nesterov: False makes it `adam`.
      momentum_decay: ψ ≥ 0 of μ_t = β₁ (1 − ½ · 0.96^{t ψ}), or None for μ_t = β₁.
      nu_dtype: dtype in which ν is stored; the parameters' by default. See `adam`.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx, g = optjax.nadam(0.1), jnp.array(1.0)
      >>> print(f"{tx.update(g, tx.init(g))[0]:.5f}")
      -0.14737

    Reference: Dozat, "Incorporating Nesterov Momentum into Adam", 2016.
    """
    return basic_form(
        direction=_nadam_direction(b1, mu_dtype, nesterov, momentum_decay),
        rate=rate_by_accumulated_square(
            ema_of_squares(b2, nu_dtype=nu_dtype), eps, eps_root
        ),
        learning_rate=learning_rate,
    )


@checked
def nadamw(
    learning_rate: Schedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: InexactDType = None,
    weight_decay: WeightDecay = 1e-4,
    mask: Mask = None,
    *,
    nesterov: bool = True,
    momentum_decay: NonNegative | None = None,
    nu_dtype: FloatDType = None,
) -> Optimizer:
    r"""x ← x − α_t (m̄_t / (√(ν̂_t + ε̄) + ε) + λ x): NAdam, decoupled weight decay.

    Args:
      learning_rate: α.
      b1: β₁ in [0, 1), decay of m.
      b2: β₂ in [0, 1), decay of ν.
      eps: ε ≥ 0 outside the root.
      eps_root: ε̄ ≥ 0 inside the root.
      mu_dtype: dtype in which m is stored; the parameters' by default (float32 for
        float16).
      weight_decay: λ ≥ 0.
      mask: a tree of booleans, or a function of the parameters that returns one:
        which leaves are decayed.
      nesterov: False makes it `adamw`.
      momentum_decay: ψ ≥ 0 of `nadam`, or None.
      nu_dtype: dtype in which ν is stored; the parameters' by default. See `adam`.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx, g = optjax.nadamw(0.1), jnp.array(1.0)
      >>> print(f"{tx.update(g, tx.init(g), g)[0]:.5f}")
      -0.14738

    References: Dozat, 2016; Loshchilov & Hutter, ICLR 2019.
    """
    return basic_form(
        direction=_nadam_direction(b1, mu_dtype, nesterov, momentum_decay),
        rate=rate_by_accumulated_square(
            ema_of_squares(b2, nu_dtype=nu_dtype), eps, eps_root
        ),
        learning_rate=learning_rate,
        decay=_decoupled(weight_decay, mask),
    )


@checked
def amsgrad(
    learning_rate: Schedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: InexactDType = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    *,
    max_before_debias: bool = False,
    nu_dtype: FloatDType = None,
) -> Optimizer:
    r"""x ← x − α_t m̂_t / (√(ν̄_t + ε̄) + ε), ν̄_t = max(ν̄_{t−1}, ν̂_t).

    The rate can only fall, which repairs Adam's convergence proof.

    Optax takes the maximum of the debiased ν̂ (early, noisy estimates stay for ever);
    PyTorch of the raw ν, and debiases the maximum: `max_before_debias=True`; the paper
    debiases nothing: `bias_correction_mu=False, bias_correction_nu=False`.

    Args:
      learning_rate: α.
      b1: β₁ in [0, 1), decay of m.
      b2: β₂ in [0, 1), decay of ν.
      eps: ε ≥ 0 outside the root.
      eps_root: ε̄ ≥ 0 inside the root.
      mu_dtype: dtype in which m is stored; the parameters' by default (float32 for
        float16).
      bias_correction_mu: debias m.
      bias_correction_nu: debias ν.
      max_before_debias: PyTorch's order.
      nu_dtype: that of ν and ν̄; see `adam`.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx, g = optjax.amsgrad(0.1), jnp.array(5.0)
      >>> print(f"{tx.update(g, tx.init(g))[0]:.4f}")
      -0.1000

    Reference: Reddi et al., "On the Convergence of Adam and Beyond", ICLR 2018.
    """
    debias_before = bias_correction_nu and not max_before_debias
    debias_after = bias_correction_nu and max_before_debias
    accumulator = [
        ema_of_squares(b2, debias=debias_before, nu_dtype=nu_dtype),
        running_max(nu_dtype=nu_dtype),
    ]
    if debias_after:
        accumulator.append(debias_squares(b2))
    return basic_form(
        direction=ema(b1, debias=bias_correction_mu, accumulator_dtype=mu_dtype),
        rate=rate_by_accumulated_square(optax.chain(*accumulator), eps, eps_root),
        learning_rate=learning_rate,
    )


@checked
def yogi(
    learning_rate: Schedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-3,
    *,
    mu_dtype: InexactDType = None,
    nu_dtype: FloatDType = None,
) -> Optimizer:
    r"""x ← x − α_t m̂_t / (√ν̂_t + ε), ν_t = ν_{t−1} − (1 − β₂) sign(ν_{t−1} − g²) g².

    ν falls as slowly as it rises, so that the rate cannot jump after small gradients.
    As in Optax m and ν start at 1e-6 and both are debiased; the paper debiases neither.

    Args:
      learning_rate: α; the paper suggests 1e-2.
      b1: β₁ in [0, 1), decay of m.
      b2: β₂ in [0, 1), decay of ν.
      eps: ε ≥ 0; far larger than Adam's.
      mu_dtype: dtype in which m is stored; the parameters' by default (float32 for
        float16).
      nu_dtype: dtype in which ν is stored; the parameters' by default. See `adam`.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx, g = optjax.yogi(0.1), jnp.array(1.0)
      >>> print(f"{tx.update(g, tx.init(g))[0]:.4f}")
      -0.0999

    Reference: Zaheer et al., "Adaptive Methods for Nonconvex Optimization",
    NeurIPS 2018.
    """
    return basic_form(
        direction=ema(b1, initial_value=1e-6, accumulator_dtype=mu_dtype),
        rate=rate_by_accumulated_square(
            sign_ema_of_squares(b2, initial_value=1e-6, nu_dtype=nu_dtype), eps
        ),
        learning_rate=learning_rate,
    )


@checked
def adabelief(
    learning_rate: Schedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-16,
    eps_root: NonNegative = 1e-16,
    *,
    nesterov: bool = False,
    mu_dtype: InexactDType = None,
    nu_dtype: FloatDType = None,
) -> Optimizer:
    r"""x ← x − α_t m̂_t / (√ν̂_t + ε), ν_t = β₂ ν_{t−1} + (1 − β₂)(g_t − m_t)² + ε̄.

    Args:
      learning_rate: α.
      b1: β₁ in [0, 1), decay of m.
      b2: β₂ in [0, 1), decay of ν.
      eps: ε ≥ 0 outside the root.
      eps_root: ε̄ ≥ 0, added to ν at every step.
      nesterov: look one step ahead.
      mu_dtype: dtype in which m is stored; the parameters' by default (float32 for
        float16).
      nu_dtype: dtype in which ν is stored; the parameters' by default. See `adam`.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx, g = optjax.adabelief(0.1), jnp.array(5.0)
      >>> print(f"{tx.update(g, tx.init(g))[0]:.4f}")
      -0.1111

    Reference: Zhuang et al., "AdaBelief Optimizer: Adapting Stepsizes by the Belief in
    Observed Gradients", NeurIPS 2020.
    """
    return basic_form(
        direction=ema(b1, nesterov=nesterov, accumulator_dtype=mu_dtype),
        rate=rate_by_accumulated_square(
            ema_of_squared_residuals(b2, eps_root, nu_dtype=nu_dtype), eps
        ),
        learning_rate=learning_rate,
    )


@checked
def radam(
    learning_rate: Schedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    threshold: Threshold = 5.0,
    *,
    nesterov: bool = False,
    mu_dtype: InexactDType = None,
    nu_dtype: FloatDType = None,
) -> Optimizer:
    r"""x ← x − α_t r_t m̂_t / (√(ν̂_t + ε̄) + ε), and x − α_t m̂_t while ρ_t < threshold.

    Adam whose rate is left out until enough squares have been averaged to trust it,
    then multiplied by r_t < 1, which tends to 1; see `optjax.rectify`.

    The paper's threshold is ρ_t > 4, one step earlier: `threshold=4.0`. PyTorch uses
    ρ_t > 5 and adds ε to the raw √ν, which differs little.

    Args:
      learning_rate: α.
      b1: β₁ in [0, 1), decay of m.
      b2: β₂ in [0, 1), decay of ν.
      eps: ε ≥ 0 outside the root.
      eps_root: ε̄ ≥ 0 inside the root.
      threshold: the ρ from which the rate is used; >= 4.
      nesterov: look one step ahead.
      mu_dtype: dtype in which m is stored; the parameters' by default (float32 for
        float16).
      nu_dtype: dtype in which ν is stored; the parameters' by default. See `adam`.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx, g = optjax.radam(0.1), jnp.array(5.0)
      >>> tx.update(g, tx.init(g))[0].round(3)
      Array(-0.5, dtype=float32)

    Reference: Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond",
    ICLR 2020.
    """
    return basic_form(
        direction=ema(b1, nesterov=nesterov, accumulator_dtype=mu_dtype),
        rate=optax.chain(
            rate_by_accumulated_square(
                ema_of_squares(b2, nu_dtype=nu_dtype), eps, eps_root
            ),
            rectify(b2, threshold),
        ),
        learning_rate=learning_rate,
    )


@checked
def padam(
    learning_rate: Schedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    p: HalfPower = 0.125,
    *,
    mu_dtype: InexactDType = None,
    nu_dtype: FloatDType = None,
) -> Optimizer:
    r"""x ← x − α_t m_t / (√ν̄_t + ε)^{2p}, ν̄_t = max(ν̄_{t−1}, ν_t).

    Partially adaptive: p = ½ is AMSGrad, p → 0 SGD with an averaged momentum. Nothing
    is debiased, as in the paper's algorithm.

    The authors' code debiases as Adam does; PyPI `pytorch_optimizer` also leaves out
    the maximum. Both differ from the paper and from this.

    Args:
      learning_rate: α; the paper uses 0.1, between SGD's and Adam's.
      b1: β₁ in [0, 1), decay of m.
      b2: β₂ in [0, 1), decay of ν.
      eps: ε ≥ 0, added to the root before the power.
      p: p in [0, ½].
      mu_dtype: dtype in which m is stored; the parameters' by default (float32 for
        float16).
      nu_dtype: that of ν and ν̄; see `adam`.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx, g = optjax.padam(0.1, b1=0.0, b2=0.0, p=0.25), jnp.array(16.0)
      >>> print(f"{tx.update(g, tx.init(g))[0]:.4f}")
      -0.4000

    Reference: Chen et al., "Closing the Generalization Gap of Adaptive Gradient
    Methods in Training Deep Neural Networks", 2018 (IJCAI 2020), algorithm 1.
    """
    accumulator = optax.chain(
        ema_of_squares(b2, debias=False, nu_dtype=nu_dtype),
        running_max(nu_dtype=nu_dtype),
    )
    return basic_form(
        direction=ema(b1, debias=False, accumulator_dtype=mu_dtype),
        rate=rate_by_accumulated_square(accumulator, eps, power=p),
        learning_rate=learning_rate,
    )


@checked
def nosadam(
    learning_rate: Schedule,
    b1: Decay = 0.9,
    gamma: NonNegative = 0.1,
    eps: NonNegative = 1e-8,
    *,
    mu_dtype: InexactDType = None,
    nu_dtype: FloatDType = None,
) -> Optimizer:
    r"""x ← x − α_t m_t / (√ν_t + ε), ν_t = Σ k^−γ g_k² / Σ k^−γ.

    Nostalgic Adam: β₂ grows, β_{2,t} = B_{t−1} / B_t with B_t = Σ_{k≤t} k^−γ, so that
    old squares are never forgotten. Nothing needs debiasing in ν; m is not debiased.
    The authors' code debiases m: `nosadam(lambda count: lr / (1 - b1 ** (count + 1)))`.

    Args:
      learning_rate: α; the paper's theory takes α / √t.
      b1: β₁ in [0, 1), decay of m.
      gamma: γ ≥ 0, how much the past is favoured; 0.1 in the paper (NosAdam-HH).
      eps: ε ≥ 0; the paper has none.
      mu_dtype: dtype in which m is stored; the parameters' by default (float32 for
        float16).
      nu_dtype: dtype in which ν is stored; the parameters' by default, float32 for
        float16. In bfloat16 the average stands still after a few hundred steps.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx, g = optjax.nosadam(0.1, b1=0.0), jnp.array(5.0)
      >>> print(f"{tx.update(g, tx.init(g))[0]:.4f}")
      -0.1000

    Reference: Huang et al., "Nostalgic Adam: Weighting More of the Past Gradients When
    Designing the Adaptive Learning Rate", IJCAI 2019, algorithm 2.
    """
    return basic_form(
        direction=ema(b1, debias=False, accumulator_dtype=mu_dtype),
        rate=rate_by_accumulated_square(mean_of_squares(gamma, nu_dtype=nu_dtype), eps),
        learning_rate=learning_rate,
    )


@checked
def adamod(
    learning_rate: Schedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    b3: Decay = 0.999,
    eps: NonNegative = 1e-8,
    *,
    mu_dtype: InexactDType = None,
    nu_dtype: FloatDType = None,
) -> Optimizer:
    r"""x ← x − min(η_t, S_t) ⊙ m̂_t, η_t = α_t / (√ν̂_t + ε), S_t = ema(η) with β₃.

    The rate is bounded by its own past, without a final rate to tune.

    A schedule is inside η, so S follows it with the memory 1 / (1 − β₃). The authors'
    code and PyPI `pytorch_optimizer` average η_t / (1 − β₁ᵗ) instead: the large first
    rates then stay in S for about 1 / (1 − β₃) steps.

    Args:
      learning_rate: α.
      b1: β₁ in [0, 1), decay of m.
      b2: β₂ in [0, 1), decay of ν.
      b3: β₃ in [0, 1), decay of S.
      eps: ε ≥ 0 outside the root.
      mu_dtype: dtype in which m is stored; the parameters' by default (float32 for
        float16).
      nu_dtype: dtype in which ν is stored; the parameters' by default. See `adam`.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx, g = optjax.adamod(0.1), jnp.array(5.0)
      >>> print(f"{tx.update(g, tx.init(g))[0]:.6f}")
      -0.000100

    Reference: Ding et al., "An Adaptive and Momental Bound Method for Stochastic
    Learning", 2019, algorithm 1.
    """
    return basic_form(
        direction=ema(b1, accumulator_dtype=mu_dtype),
        rate=optax.chain(
            rate_by_accumulated_square(ema_of_squares(b2, nu_dtype=nu_dtype), eps),
            optax.scale_by_learning_rate(learning_rate, flip_sign=False),
            limit_by_average(b3),
        ),
        learning_rate=1.0,
    )


@checked
def adashift(
    learning_rate: Schedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-10,
    keep_num: Window = 10,
    reduction: Reduction = "max",
    *,
    mu_dtype: InexactDType = None,
    nu_dtype: FloatDType = None,
) -> Optimizer:
    r"""x ← x − α_t m_t / (√ν̂_t + ε), m of the last n gradients, ν of those before.

    m_t = Σ_{i<n} β₁ⁱ g_{t−i} / Σ_{i<n} β₁ⁱ and ν_t = β₂ ν_{t−1} + (1 − β₂) φ(g_{t−n}²);
    no step is taken while t ≤ n. The state holds n gradients.

    Args:
      learning_rate: α.
      b1: β₁ in [0, 1), weight of the next older gradient in m.
      b2: β₂ in [0, 1), decay of ν.
      eps: ε ≥ 0 outside the root.
      keep_num: n ≥ 1, a Python integer.
      reduction: φ, "max" or "mean" over each leaf, or "none".
      mu_dtype: dtype in which m and the n gradients are stored; the parameters' by
        default.
      nu_dtype: dtype in which ν is stored; the parameters' by default. See `adam`.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx, g = optjax.adashift(0.1, keep_num=1), jnp.array([2.0, -4.0])
      >>> updates, state = tx.update(g, tx.init(g))
      >>> tx.update(g, state)[0].round(3)
      Array([-0.05,  0.1 ], dtype=float32)

    Reference: Zhou et al., "AdaShift: Decorrelation and Convergence of Adaptive
    Learning Rate Methods", ICLR 2019.
    """
    shifted = scale_by_adashift(
        b1, b2, eps, keep_num, reduction, mu_dtype=mu_dtype, nu_dtype=nu_dtype
    )
    return _descend(shifted, learning_rate)


@checked
def swats(
    learning_rate: Schedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-9,
    *,
    base_lr: Positive | None = None,
    mu_dtype: InexactDType = None,
    nu_dtype: FloatDType = None,
) -> Optimizer:
    r"""x ← x − s_t V_t ⊙ m_t: V of Adam, from some step on one number Λ, which is SGD.

    The switch comes when the SGD rate that fits Adam's steps has settled to within ε;
    see `optjax.scale_by_swats`. Beyond the paper, that rate must be positive, since
    SGD would ascend with another. One decision is taken for all parameters, as in the
    paper; PyPI `pytorch_optimizer` switches all as soon as one tensor has settled.

    Args:
      learning_rate: α. A schedule multiplies by s_t = α_t / α_0 outside, so that it
        neither hides nor causes the switch and goes on scaling Λ.
      b1: β₁ in [0, 1), decay of m.
      b2: β₂ in [0, 1), decay of ν and of the averaged SGD rate.
      eps: ε > 0, in the denominator and the tolerance of the switch. The paper's
        1e-9 is far below single-precision noise of a rate of 1e-3; in float32 1e-5
        is a tolerance that can be met.
      base_lr: α_0, for a schedule that rises: its peak.
      mu_dtype: dtype in which m is stored; the parameters' by default (float32 for
        float16).
      nu_dtype: dtype in which ν is stored; the parameters' by default. See `adam`.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx, g = optjax.swats(0.1), jnp.array([2.0, -1.0])
      >>> tx.update(g, tx.init(g))[0].round(3)
      Array([-0.1,  0.1], dtype=float32)

    Reference: Keskar & Socher, "Improving Generalization Performance by Switching
    from Adam to SGD", 2017.
    """

    def make(alpha: Scalar, s: Scalar) -> Optimizer:
        switching = scale_by_swats(
            alpha, b1, b2, eps, mu_dtype=mu_dtype, nu_dtype=nu_dtype
        )
        return _descend(switching, s)

    return _relative(make, learning_rate, base_lr)


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

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx, g = optjax.adabound(1e-3), jnp.array([5.0, 0.01])
      >>> updates, state = tx.update(g, tx.init(g))
      >>> updates.round(4)
      Array([-0.001, -0.001], dtype=float32)

    Reference: Luo et al., "Adaptive Gradient Methods with Dynamic Bound of Learning
    Rate", ICLR 2019, and the authors' PyTorch code.
    """
    accumulator = ema_of_squares(b2, debias=False, nu_dtype=nu_dtype)

    def make(alpha: Scalar, s: Scalar) -> Optimizer:
        optimizer = basic_form(
            direction=ema(b1, debias=False, accumulator_dtype=mu_dtype),
            rate=_bounded(accumulator, alpha, b1, b2, eps, final_lr, gamma),
            learning_rate=s,
        )
        return _with_l2(optimizer, weight_decay, mask)

    return _relative(make, learning_rate, base_lr)


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

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx, g = optjax.amsbound(1e-3), jnp.array([5.0, 0.01])
      >>> tx.update(g, tx.init(g))[0].round(4)
      Array([-0.001, -0.001], dtype=float32)

    Reference: Luo et al., ICLR 2019, and the authors' PyTorch code.
    """
    accumulator = optax.chain(
        ema_of_squares(b2, debias=False, nu_dtype=nu_dtype),
        running_max(nu_dtype=nu_dtype),
    )

    def make(alpha: Scalar, s: Scalar) -> Optimizer:
        optimizer = basic_form(
            direction=ema(b1, debias=False, accumulator_dtype=mu_dtype),
            rate=_bounded(accumulator, alpha, b1, b2, eps, final_lr, gamma),
            learning_rate=s,
        )
        return _with_l2(optimizer, weight_decay, mask)

    return _relative(make, learning_rate, base_lr)


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
    accumulator = ema_of_squares(b2, debias=False, nu_dtype=nu_dtype)
    if amsbound:
        accumulator = optax.chain(accumulator, running_max(nu_dtype=nu_dtype))

    def make(alpha: Scalar, s: Scalar) -> Optimizer:
        optimizer = basic_form(
            direction=ema(b1, debias=False, accumulator_dtype=mu_dtype),
            rate=_bounded(accumulator, alpha, b1, b2, eps, final_lr, gamma),
            learning_rate=s,
            decay=None
            if fixed_decay
            else add_decayed_weights(times(alpha, weight_decay), mask),
        )
        if not fixed_decay:
            return optimizer
        outside = add_decayed_weights(times(-1.0, weight_decay), mask)
        return in_gradient_dtype(optax.chain(optimizer, outside))

    return _relative(make, learning_rate, base_lr)


def _bounded(
    accumulator: optax.GradientTransformation,
    alpha: Scalar,
    b1: Scalar,
    b2: Scalar,
    eps: Scalar,
    final_lr: Scalar,
    gamma: Scalar,
) -> optax.GradientTransformation:
    return optax.chain(
        rate_by_accumulated_square(accumulator, eps),
        correct_bias(b1, b2, alpha),
        bound_clip(*hyperbolic_bounds(final_lr, gamma)),
    )


def _eps(eps: Scalar, in_sqrt: bool) -> dict[str, Scalar]:
    return {"eps": 0.0, "eps_root": eps} if in_sqrt else {"eps": eps}


def _nadam_direction(
    b1: Scalar, mu_dtype: Any, nesterov: bool, momentum_decay: Scalar | None
) -> optax.GradientTransformation:
    if momentum_decay is None:
        return ema(b1, nesterov=nesterov, accumulator_dtype=mu_dtype)
    if not nesterov:
        raise ValueError(
            "momentum_decay is of the momentum that nesterov looks ahead with, got "
            f"momentum_decay={momentum_decay} and nesterov=False. Leave one out."
        )
    return nadam_ema(b1, momentum_decay, mu_dtype)


def _decoupled(weight_decay: Schedule, mask: Any) -> optax.GradientTransformation:
    return add_decayed_weights(weight_decay, mask)


def _with_l2(optimizer: Optimizer, weight_decay: Schedule, mask: Any) -> Optimizer:
    return in_gradient_dtype(optax.chain(_decoupled(weight_decay, mask), optimizer))


def _descend(
    transformation: optax.GradientTransformation, learning_rate: Schedule
) -> Optimizer:
    return in_gradient_dtype(optax.chain(transformation, descend(learning_rate)))


def _relative(
    make: Callable[[Scalar, Scalar], Optimizer],
    learning_rate: Schedule,
    base_lr: Scalar | None,
) -> Optimizer:
    check_base(learning_rate, base_lr)
    return relative_to_base(make, learning_rate, base_lr)


class Row(NamedTuple):
    """One line of the family's table: the parts of the basic form, and the source."""

    factory: Callable[..., Optimizer]
    direction: str
    rate: str
    bound: str
    schedule: str
    paper: str


_EMA = "ema(g)"
_RMS = "1/(√ν+ε), ν = ema(g²)"
_BAND = "clip(lo_t, hi_t)"

#: The family as data, in order of increasing complexity. Every factory takes the
#: learning rate first and has defaults for the rest.
OPTIMIZERS: Mapping[str, Row] = MappingProxyType(
    {
        "sgd": Row(sgd, "g", "1", "–", "α_t", "Robbins & Monro 1951"),
        "momentum": Row(
            functools.partial(sgd, momentum=0.9),
            "g + μ·m",
            "1",
            "–",
            "α_t",
            "Polyak 1964",
        ),
        "nesterov": Row(
            functools.partial(sgd, momentum=0.9, nesterov=True),
            "g + μ·(g + μ·m)",
            "1",
            "–",
            "α_t",
            "Nesterov 1983",
        ),
        "adagrad": Row(
            adagrad, "g", "1/√(ν+ε), ν = Σg²", "–", "α_t", "Duchi et al. 2011"
        ),
        "rmsprop": Row(
            rmsprop, "g", "1/√(ν+ε), ν = ema(g²)", "–", "α_t", "Tieleman & Hinton 2012"
        ),
        "adadelta": Row(
            adadelta, "g", "√(X+ε)/√(ν+ε), X = ema(step²)", "–", "α_t", "Zeiler 2012"
        ),
        "adam": Row(adam, _EMA, _RMS, "–", "α_t", "Kingma & Ba 2015"),
        "adamw": Row(
            adamw, _EMA, f"{_RMS}; + λx", "–", "α_t", "Loshchilov & Hutter 2019"
        ),
        "adamax": Row(
            adamax, _EMA, "1/ν, ν = max(|g|+ε, β₂ν)", "–", "α_t", "Kingma & Ba 2015"
        ),
        "nadam": Row(nadam, "ema(g) ahead", _RMS, "–", "α_t", "Dozat 2016"),
        "nadamw": Row(
            nadamw, "ema(g) ahead", f"{_RMS}; + λx", "–", "α_t", "Dozat 2016"
        ),
        "amsgrad": Row(
            amsgrad, _EMA, "1/(√ν+ε), ν = max ema(g²)", "–", "α_t", "Reddi et al. 2018"
        ),
        "yogi": Row(
            yogi, _EMA, "1/(√ν+ε), ν ∓ (1−β₂)g²", "–", "α_t", "Zaheer et al. 2018"
        ),
        "adabelief": Row(
            adabelief,
            _EMA,
            "1/(√ν+ε), ν = ema((g−m)²)",
            "–",
            "α_t",
            "Zhuang et al. 2020",
        ),
        "radam": Row(radam, _EMA, f"r_t·{_RMS}", "–", "α_t", "Liu et al. 2020"),
        "padam": Row(
            padam, _EMA, "1/(√ν+ε)^2p, ν = max ema(g²)", "–", "α_t", "Chen et al. 2018"
        ),
        "nosadam": Row(
            nosadam,
            _EMA,
            "1/(√ν+ε), ν = mean(k^−γ g²)",
            "–",
            "α_t",
            "Huang et al. 2019",
        ),
        "adamod": Row(adamod, _EMA, f"α_t·{_RMS}", "≤ ema(V)", "1", "Ding et al. 2019"),
        "adashift": Row(
            adashift,
            "mean of last n g",
            "1/(√ν+ε), ν = ema(φ(g²)), older g",
            "–",
            "α_t",
            "Zhou et al. 2019",
        ),
        "swats": Row(
            swats, _EMA, f"α·{_RMS}, then Λ", "–", "α_t/α_0", "Keskar & Socher 2017"
        ),
        "adabound": Row(
            adabound, _EMA, f"α·{_RMS}", _BAND, "α_t/α_0", "Luo et al. 2019"
        ),
        "amsbound": Row(
            amsbound,
            _EMA,
            "α/(√ν+ε), ν = max ema(g²)",
            _BAND,
            "α_t/α_0",
            "Luo et al. 2019",
        ),
        "adaboundw": Row(
            adaboundw, _EMA, f"α·{_RMS}; + α_t λx", _BAND, "α_t/α_0", "Luo et al. 2019"
        ),
    }
)
