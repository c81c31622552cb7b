"""Adam until some step, and SGD from there."""

import optax

from optjax._arguments.checked import checked
from optjax._arguments.named import (
    Decay,
    FloatDType,
    InexactDType,
    NonNegative,
    Positive,
    Schedule,
)
from optjax._base_rate import check_base, relative_to_base
from optjax._form import descend, in_gradient_dtype
from optjax._precision import Scalar
from optjax._swats import scale_by_swats
from optjax.optimizers._row import EMA, RMS, Optimizer, Row

__all__ = ["swats"]

ROWS: dict[str, Row] = {}


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

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx, g = optjax.swats(0.1), jnp.array([2.0, -1.0])
      >>> tx.update(g, tx.init(g))[0].round(3)
      Array([-0.1,  0.1], dtype=float32)

    Reference: Keskar & Socher, "Improving Generalization Performance by Switching
    from Adam to SGD", 2017.
    """
    check_base(learning_rate, base_lr)

    def make(alpha: Scalar, s: Scalar) -> Optimizer:
        switching = scale_by_swats(
            alpha, b1, b2, eps, mu_dtype=mu_dtype, nu_dtype=nu_dtype
        )
        return in_gradient_dtype(optax.chain(switching, descend(s)))

    return relative_to_base(make, learning_rate, base_lr)


ROWS["swats"] = Row(
    swats, EMA, f"α·{RMS}, then Λ", "–", "α_t/α_0", "Keskar & Socher 2017"
)
