"""Adam with a rate held back: by a power, its past, a limit, or older gradients."""

import optax

from optjax._accumulator import ema_of_squares, mean_of_squares, running_max
from optjax._adashift import Reduction, Window, scale_by_adashift
from optjax._arguments.checked import checked
from optjax._arguments.named import (
    Decay,
    FloatDType,
    InexactDType,
    NonNegative,
    Schedule,
)
from optjax._direction import ema
from optjax._form import basic_form, descend, in_gradient_dtype
from optjax._rate import HalfPower, limit_by_average, rate_by_accumulated_square
from optjax.optimizers._row import EMA, RMS, Optimizer, Row

__all__ = ["adamod", "adashift", "nosadam", "padam"]

ROWS: dict[str, Row] = {}


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

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

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


ROWS["padam"] = Row(
    padam, EMA, "1/(√ν+ε)^2p, ν = max ema(g²)", "–", "α_t", "Chen et al. 2018"
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

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

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


ROWS["nosadam"] = Row(
    nosadam, EMA, "1/(√ν+ε), ν = mean(k^−γ g²)", "–", "α_t", "Huang et al. 2019"
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

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

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


ROWS["adamod"] = Row(adamod, EMA, f"α_t·{RMS}", "≤ ema(V)", "1", "Ding et al. 2019")


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

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

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
    return in_gradient_dtype(optax.chain(shifted, descend(learning_rate)))


ROWS["adashift"] = Row(
    adashift,
    "mean of last n g",
    "1/(√ν+ε), ν = ema(φ(g²)), older g",
    "–",
    "α_t",
    "Zhou et al. 2019",
)
