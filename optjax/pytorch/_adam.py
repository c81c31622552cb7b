"""torch.optim's Adam and its kin: Adam, AdamW, Adamax, NAdam, RAdam."""

from typing import Any

import optax

from optjax import (
    basic_form,
    correct_bias,
    debias_squares,
    ema,
    ema_of_squares,
    nadam_ema,
    rate_by_accumulated_square,
    rate_by_infinity_norm,
    rectify,
    running_max,
)
from optjax._weight_decay import add_decayed_weights
from optjax.pytorch._groups import Groups
from optjax.pytorch._optimizer import Betas, Now, after_decay, optimizer

__all__ = ["Adam", "AdamW", "Adamax", "NAdam", "RAdam"]


@optimizer
def Adam(
    now: Now,
    /,
    params: Groups = None,
    lr: optax.ScalarOrSchedule = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    amsgrad: bool = False,
    *,
    maximize: bool = False,
    decoupled_weight_decay: bool = False,
    **machinery: Any,
) -> optax.GradientTransformation:
    r"""x ← x − α m̂_t / (√ν̂_t + ε): `torch.optim.Adam`.

    Args:
      params: None, or the groups.
      lr: α, a number or a schedule.
      betas: β₁ and β₂, numbers or schedules.
      eps: ε, outside of the root.
      weight_decay: λ, times x added to the gradient, unlike `optjax.adamw`.
      amsgrad: take the maximum of ν, and debias that.
      maximize: ascend.
      decoupled_weight_decay: subtract α λ x instead, which makes it `AdamW`.
      **machinery: refused.

    Raises:
      ValueError: for an option that is not what its line says, groups that do not fit,
        and machinery that is not left out.

    Example:
      >>> import jax.numpy as jnp, optjax.pytorch
      >>> tx, x = optjax.pytorch.Adam(lr=0.1), jnp.array(1.0)
      >>> print(f"{tx.update(x, tx.init(x), x)[0]:.1f}")
      -0.1
    """
    rate = _rate(betas[1], eps, amsgrad)
    decays = maximize, weight_decay, decoupled_weight_decay
    return _decayed(ema(betas[0]), rate, lr, *decays)


@optimizer
def AdamW(
    now: Now,
    /,
    params: Groups = None,
    lr: optax.ScalarOrSchedule = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: optax.ScalarOrSchedule = 1e-2,
    amsgrad: bool = False,
    *,
    maximize: bool = False,
    **machinery: Any,
) -> optax.GradientTransformation:
    r"""x ← x − α (m̂_t / (√ν̂_t + ε) + λ x): `torch.optim.AdamW`.

    Args:
      params: None, or the groups.
      lr: α, a number or a schedule.
      betas: β₁ and β₂, numbers or schedules.
      eps: ε, outside of the root.
      weight_decay: λ, which α multiplies.
      amsgrad: take the maximum of ν, and debias that.
      maximize: ascend.
      **machinery: refused.

    Raises:
      ValueError: for an option that is not what its line says, groups that do not fit,
        and machinery that is not left out.

    Example:
      >>> import jax.numpy as jnp, optjax.pytorch
      >>> tx, x = optjax.pytorch.AdamW(lr=0.1), jnp.array(1.0)
      >>> print(f"{tx.update(x, tx.init(x), x)[0]:.3f}")
      -0.101
    """
    rate = _rate(betas[1], eps, amsgrad)
    return _decayed(ema(betas[0]), rate, lr, maximize, weight_decay, True)


@optimizer
def Adamax(
    now: Now,
    /,
    params: Groups = None,
    lr: optax.ScalarOrSchedule = 2e-3,
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    *,
    maximize: bool = False,
    **machinery: Any,
) -> optax.GradientTransformation:
    r"""x ← x − α m̂_t / ν_t, ν_t = max(β₂ ν_{t−1}, |g_t| + ε): `torch.optim.Adamax`.

    Args:
      params: None, or the groups.
      lr: α, a number or a schedule.
      betas: β₁ and β₂, numbers or schedules.
      eps: ε.
      weight_decay: λ, times x added to the gradient.
      maximize: ascend.
      **machinery: refused.

    Raises:
      ValueError: for an option that is not what its line says, groups that do not fit,
        and machinery that is not left out.

    Example:
      >>> import jax.numpy as jnp, optjax.pytorch
      >>> tx, x = optjax.pytorch.Adamax(lr=0.1), jnp.array(1.0)
      >>> print(f"{tx.update(x, tx.init(x), x)[0]:.1f}")
      -0.1
    """
    rate = rate_by_infinity_norm(betas[1], eps)
    return _decayed(ema(betas[0]), rate, lr, maximize, weight_decay, False)


@optimizer
def NAdam(
    now: Now,
    /,
    params: Groups = None,
    lr: optax.ScalarOrSchedule = 2e-3,
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    momentum_decay: float = 4e-3,
    decoupled_weight_decay: bool = False,
    *,
    maximize: bool = False,
    **machinery: Any,
) -> optax.GradientTransformation:
    r"""x ← x − α m̄_t / (√ν̂_t + ε), m̄ of `optjax.nadam_ema`: `torch.optim.NAdam`.

    Args:
      params: None, or the groups.
      lr: α, a number or a schedule.
      betas: β₁ and β₂, numbers or schedules.
      eps: ε, outside of the root.
      weight_decay: λ, times x added to the gradient.
      momentum_decay: ψ of the momentum's schedule.
      decoupled_weight_decay: subtract α λ x instead.
      maximize: ascend.
      **machinery: refused.

    Raises:
      ValueError: for an option that is not what its line says, groups that do not fit,
        and machinery that is not left out.

    Example:
      >>> import jax.numpy as jnp, optjax.pytorch
      >>> tx, x = optjax.pytorch.NAdam(lr=0.1), jnp.array(1.0)
      >>> print(f"{tx.update(x, tx.init(x), x)[0]:.4f}")
      -0.1056
    """
    direction = nadam_ema(betas[0], momentum_decay)
    decays = maximize, weight_decay, decoupled_weight_decay
    return _decayed(direction, _rate(betas[1], eps), lr, *decays)


@optimizer
def RAdam(
    now: Now,
    /,
    params: Groups = None,
    lr: optax.ScalarOrSchedule = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    decoupled_weight_decay: bool = False,
    *,
    maximize: bool = False,
    **machinery: Any,
) -> optax.GradientTransformation:
    r"""x ← x − α r_t √(1 − β₂ᵗ) m̂_t / (√ν_t + ε), x − α m̂_t while ρ_t ≤ 5: `RAdam`.

    Args:
      params: None, or the groups.
      lr: α, a number or a schedule.
      betas: β₁ and β₂, numbers or schedules.
      eps: ε, added to the raw √ν.
      weight_decay: λ, times x added to the gradient.
      decoupled_weight_decay: subtract α λ x instead.
      maximize: ascend.
      **machinery: refused.

    Raises:
      ValueError: for an option that is not what its line says, groups that do not fit,
        and machinery that is not left out.

    Example:
      >>> import jax.numpy as jnp, optjax.pytorch
      >>> tx, x = optjax.pytorch.RAdam(lr=0.1), jnp.array(5.0)
      >>> print(f"{tx.update(x, tx.init(x), x)[0]:.1f}")
      -0.5
    """
    b1, b2 = betas
    raw = rate_by_accumulated_square(ema_of_squares(b2, debias=False), eps)
    rate = optax.chain(raw, correct_bias(0.0, b2), rectify(b2))
    decays = maximize, weight_decay, decoupled_weight_decay
    return _decayed(ema(b1), rate, lr, *decays)


def _rate(b2: Any, eps: Any, amsgrad: bool = False) -> optax.GradientTransformation:
    if not amsgrad:
        return rate_by_accumulated_square(ema_of_squares(b2), eps)
    raw = ema_of_squares(b2, debias=False)
    accumulator = optax.chain(raw, running_max(), debias_squares(b2))
    return rate_by_accumulated_square(accumulator, eps)


def _decayed(
    direction: optax.GradientTransformation,
    rate: optax.GradientTransformation,
    lr: Any,
    maximize: bool,
    weight_decay: Any,
    decoupled: bool,
) -> optax.GradientTransformation:
    beside = add_decayed_weights(weight_decay) if decoupled else None
    form = basic_form(direction, rate, lr, beside)
    return after_decay(form, maximize, 0.0 if decoupled else weight_decay)
