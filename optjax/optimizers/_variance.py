"""Adam with an eye on the variance of ν, or of g."""

import optax

from optjax._accumulator import (
    ema_of_squared_residuals,
    ema_of_squares,
    sign_ema_of_squares,
)
from optjax._arguments.checked import checked
from optjax._arguments.named import (
    Decay,
    FloatDType,
    InexactDType,
    NonNegative,
    Schedule,
)
from optjax._direction import ema
from optjax._form import basic_form
from optjax._rate import Threshold, rate_by_accumulated_square, rectify
from optjax.optimizers._row import EMA, RMS, Optimizer, Row

__all__ = ["adabelief", "radam", "yogi"]

ROWS: dict[str, Row] = {}


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

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

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


ROWS["yogi"] = Row(
    yogi, EMA, "1/(√ν+ε), ν ∓ (1−β₂)g²", "–", "α_t", "Zaheer et al. 2018"
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

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

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


ROWS["adabelief"] = Row(
    adabelief, EMA, "1/(√ν+ε), ν = ema((g−m)²)", "–", "α_t", "Zhuang et al. 2020"
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

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

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


ROWS["radam"] = Row(radam, EMA, f"r_t·{RMS}", "–", "α_t", "Liu et al. 2020")
