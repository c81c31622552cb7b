"""The two classes of AdaBound's authors, one of them as PyPI's `adabound`."""

from typing import Any

import optax

from optjax import optimizers as rows
from optjax.pytorch._groups import Groups
from optjax.pytorch._optimizer import Betas, Now, optimizer

__all__ = ["AdaBound", "AdaBoundW"]


@optimizer
def AdaBound(
    now: Now,
    /,
    params: Groups = None,
    lr: optax.ScalarOrSchedule = 1e-3,
    betas: Betas = (0.9, 0.999),
    final_lr: float = 0.1,
    gamma: float = 1e-3,
    eps: float = 1e-8,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    amsbound: bool = False,
    **machinery: Any,
) -> optax.GradientTransformation:
    r"""x ← x − s_t clip(α √(1−β₂ᵗ)/(1−β₁ᵗ) / (√ν_t + ε), lo_t, hi_t) ⊙ m_t.

    `optjax.adabound` with the names of PyPI's `adabound.AdaBound`. Under a scheduler
    s_t = α_t / lr, lr the rate that the optimizer, and here the scheduler, is given.

    Args:
      params: None, or the groups.
      lr: α, a number or a schedule.
      betas: β₁ and β₂, numbers or schedules.
      final_lr: f, the rate that both bounds converge to.
      gamma: γ, the speed of the bounds.
      eps: ε, added to the raw √ν.
      weight_decay: λ, times x added to the gradient.
      amsbound: take the maximum of ν.
      **machinery: refused.

    Raises:
      ValueError: for an option that is not what its line says, groups that do not fit,
        and machinery that is not left out.

    Example:
      >>> import jax.numpy as jnp, optjax.pytorch
      >>> tx, x = optjax.pytorch.AdaBound(), jnp.array(1.0)
      >>> print(f"{tx.update(x, tx.init(x), x)[0]:.3f}")
      -0.001

    Reference: Luo et al., ICLR 2019.
    """
    row = rows.amsbound if amsbound else rows.adabound
    bounds = _arguments(now, lr, betas, final_lr, gamma, eps)
    return row(**bounds, weight_decay=weight_decay)


@optimizer
def AdaBoundW(
    now: Now,
    /,
    params: Groups = None,
    lr: optax.ScalarOrSchedule = 1e-3,
    betas: Betas = (0.9, 0.999),
    final_lr: float = 0.1,
    gamma: float = 1e-3,
    eps: float = 1e-8,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    amsbound: bool = False,
    **machinery: Any,
) -> optax.GradientTransformation:
    r"""x ← x − s_t clip(…) ⊙ m_t − λ x: `AdaBound`, the weights decayed beside it.

    No learning rate multiplies the decay, unlike `optjax.adaboundw`'s default.

    Args:
      params: None, or the groups.
      lr: α, a number or a schedule.
      betas: β₁ and β₂, numbers or schedules.
      final_lr: f, the rate that both bounds converge to.
      gamma: γ, the speed of the bounds.
      eps: ε, added to the raw √ν.
      weight_decay: λ, times x subtracted at every step.
      amsbound: take the maximum of ν.
      **machinery: refused.

    Raises:
      ValueError: for an option that is not what its line says, groups that do not fit,
        and machinery that is not left out.

    Example:
      >>> import jax.numpy as jnp, optjax.pytorch
      >>> tx, x = optjax.pytorch.AdaBoundW(weight_decay=0.01), jnp.array(1.0)
      >>> print(f"{tx.update(x, tx.init(x), x)[0]:.3f}")
      -0.011

    Reference: Luo et al., ICLR 2019, the authors' repository.
    """
    bounds = _arguments(now, lr, betas, final_lr, gamma, eps)
    decay = {"weight_decay": weight_decay, "fixed_decay": True}
    return rows.adaboundw(**bounds, **decay, amsbound=amsbound)


def _arguments(
    now: Now, lr: Any, betas: tuple[Any, Any], final_lr: Any, gamma: Any, eps: Any
) -> dict[str, Any]:
    names = "learning_rate", "b1", "b2", "final_lr", "gamma", "eps", "base_lr"
    values = lr, *betas, final_lr, gamma, eps, now.base_lr
    return dict(zip(names, values, strict=True))
