"""V from accumulated squares, and m = g."""

from typing import Any

import optax

from optjax._accumulator import centered_ema_of_squares, ema_of_squares, sum_of_squares
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
from optjax._direction import trace
from optjax._form import basic_form
from optjax._precision import Scalar
from optjax._rate import rate_by_accumulated_square, rate_by_adadelta
from optjax._weight_decay import with_l2
from optjax.optimizers._row import Optimizer, Row

__all__ = ["adadelta", "adagrad", "rmsprop"]

ROWS: dict[str, Row] = {}


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

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

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


ROWS["adagrad"] = Row(
    adagrad, "g", "1/√(ν+ε), ν = Σg²", "–", "α_t", "Duchi et al. 2011"
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

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

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


ROWS["rmsprop"] = Row(
    rmsprop, "g", "1/√(ν+ε), ν = ema(g²)", "–", "α_t", "Tieleman & Hinton 2012"
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

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

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
    return with_l2(optimizer, weight_decay, weight_decay_mask)


ROWS["adadelta"] = Row(
    adadelta, "g", "√(X+ε)/√(ν+ε), X = ema(step²)", "–", "α_t", "Zeiler 2012"
)


def _eps(eps: Scalar, in_sqrt: bool) -> dict[str, Scalar]:
    return {"eps": 0.0, "eps_root": eps} if in_sqrt else {"eps": eps}
