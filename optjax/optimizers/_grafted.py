"""AdaBound whose bounds close on a rate that it measures itself."""

import numpy as np
import optax

from optjax._accumulator import ema_of_squares
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
from optjax._bound import Speed, hyperbolic_bounds
from optjax._direction import ema
from optjax._form import basic_form
from optjax._groups import Groups
from optjax._rate import correct_bias, rate_by_accumulated_square
from optjax._target import LastStep, bound_around, grafted_target
from optjax._weight_decay import with_l2
from optjax.optimizers._row import EMA, RMS, Optimizer, Row

__all__ = ["graftbound"]

ROWS: dict[str, Row] = {}


@checked
def graftbound(
    learning_rate: Schedule,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    gamma: Speed = 1e-3,
    weight_decay: WeightDecay = 0.0,
    mask: Mask = None,
    *,
    groups: Groups = None,
    b3: Decay = 0.0,
    late: bool = True,
    freeze_after: LastStep = np.inf,
    mu_dtype: InexactDType = None,
    nu_dtype: FloatDType = None,
) -> Optimizer:
    r"""x ← x − α_t clip(V_t, f γt/(γt + 1), f (1 + 1/(γt))) ⊙ m_t with f = f_{t−1}.

    V_t = √(1−β₂ᵗ)/(1−β₁ᵗ) / (√ν_t + ε) and f_t = ‖V_t ⊙ m_t‖ / ‖m_t‖ of each leaf:
    `adabound` without a `final_lr` to guess. Its bounds close on the rate at which the
    step of SGD with momentum is as long as Adam's, so that it has Adam's learning rate
    and ends with one rate a leaf, α_t f_{t−1}, which goes on following Adam's step
    length. As f_t is a multiple of V_t, α_t needs no base: it multiplies all of them.
    It is optjax's own, from no paper.

    The last step's norms are known before the step, which so needs one pass over
    memory (`apply_step`), and are measured to be as good as this step's; the first
    step is not bounded. `late=False` is f = f_t.

    From the step after `freeze_after` on it is SGD with momentum β₁ and the learning
    rate α_t f (1 − β₁) of each leaf; see `optjax.sgd_equivalent`.

    Args:
      learning_rate: α, Adam's.
      b1: β₁ in [0, 1), decay of m.
      b2: β₂ in [0, 1), decay of ν.
      eps: ε ≥ 0, added to the raw √ν, as in `adabound`.
      gamma: γ ≥ 0 per step, how fast the bounds close; see `optjax.gamma_for`.
      weight_decay: λ ≥ 0 of an L2 penalty, added to the gradient before all else.
      mask: a tree of booleans, or a function of the parameters that returns one:
        which leaves are decayed.
      groups: which leaves have one f_t together: None for each its own, 0 for all,
        more in `optjax.grafted_target`.
      b3: β₃ in [0, 1), decay of an average of f_t; 0 is f_t itself.
      late: whether bounds are around the last step's f, or this step's.
      freeze_after: the last step whose f_t is measured; infinity measures for ever.
      mu_dtype: dtype in which m is stored; the parameters' by default (float32 for
        float16).
      nu_dtype: dtype in which ν is stored; the parameters' by default. See `adam`.

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx, g = optjax.graftbound(1e-3, gamma=1e9), jnp.array([3.0, 4.0])
      >>> updates, state = tx.update(g, tx.init(g))
      >>> (tx.update(g, state)[0] / g).round(5)
      Array([-0.00054, -0.00054], dtype=float32)

    References: Luo et al., "Adaptive Gradient Methods with Dynamic Bound of Learning
    Rate", ICLR 2019, for the bounds; Agarwal et al., "Disentangling Adaptive Gradient
    Methods from Learning Rates", 2020, for a step of one optimizer's length in
    another's direction.
    """
    accumulator = ema_of_squares(b2, debias=False, nu_dtype=nu_dtype)
    rate = optax.chain(
        rate_by_accumulated_square(accumulator, eps),
        correct_bias(b1, b2),
        bound_around(
            grafted_target(groups, b3, late),
            *hyperbolic_bounds(1.0, gamma),
            freeze_after=freeze_after,
        ),
    )
    optimizer = basic_form(
        direction=ema(b1, debias=False, accumulator_dtype=mu_dtype),
        rate=rate,
        learning_rate=learning_rate,
    )
    return with_l2(optimizer, weight_decay, mask)


ROWS["graftbound"] = Row(
    graftbound,
    EMA,
    RMS,
    "clip(f lo_t, f hi_t), f = ‖V⊙m‖/‖m‖",
    "α_t",
    "optjax; after Luo et al. 2019, Agarwal et al. 2020",
)
