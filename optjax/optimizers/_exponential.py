"""Adam and its kin: m and ν are exponential averages."""

from typing import Any

import optax

from optjax._accumulator import debias_squares, ema_of_squares, running_max
from optjax._arguments.checked import checked
from optjax._arguments.named import (
    Decay,
    FloatDType,
    InexactDType,
    Mask,
    NonNegative,
    Schedule,
    WeightDecay,
)
from optjax._direction import ema, nadam_ema
from optjax._form import basic_form
from optjax._precision import Scalar
from optjax._rate import rate_by_accumulated_square, rate_by_infinity_norm
from optjax._weight_decay import add_decayed_weights
from optjax.optimizers._row import EMA, RMS, Optimizer, Row

__all__ = ["adam", "adamax", "adamw", "amsgrad", "nadam", "nadamw"]

ROWS: dict[str, Row] = {}


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

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

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


ROWS["adam"] = Row(adam, EMA, RMS, "–", "α_t", "Kingma & Ba 2015")


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

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

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
        decay=add_decayed_weights(weight_decay, mask),
    )


ROWS["adamw"] = Row(adamw, EMA, f"{RMS}; + λx", "–", "α_t", "Loshchilov & Hutter 2019")


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

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

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


ROWS["adamax"] = Row(
    adamax, EMA, "1/ν, ν = max(|g|+ε, β₂ν)", "–", "α_t", "Kingma & Ba 2015"
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

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

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


ROWS["nadam"] = Row(nadam, "ema(g) ahead", RMS, "–", "α_t", "Dozat 2016")


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

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

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
        decay=add_decayed_weights(weight_decay, mask),
    )


ROWS["nadamw"] = Row(nadamw, "ema(g) ahead", f"{RMS}; + λx", "–", "α_t", "Dozat 2016")


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

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

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


ROWS["amsgrad"] = Row(
    amsgrad, EMA, "1/(√ν+ε), ν = max ema(g²)", "–", "α_t", "Reddi et al. 2018"
)


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
