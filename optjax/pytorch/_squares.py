"""torch.optim without averaged directions: SGD, Adagrad, RMSprop, Adadelta."""

from typing import Any

import jax.numpy as jnp
import optax

from optjax import (
    basic_form,
    centered_ema_of_squares,
    ema_of_squares,
    precondition,
    rate_by_accumulated_square,
    rate_by_adadelta,
    rate_by_one,
    sum_of_squares,
    trace,
)
from optjax._precision import is_zero
from optjax.pytorch._groups import Groups
from optjax.pytorch._optimizer import Now, after_decay, optimizer

__all__ = ["SGD", "Adadelta", "Adagrad", "RMSprop"]


@optimizer
def SGD(
    now: Now,
    /,
    params: Groups = None,
    lr: optax.ScalarOrSchedule = 1e-3,
    momentum: optax.ScalarOrSchedule = 0.0,
    dampening: float = 0.0,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    nesterov: bool = False,
    *,
    maximize: bool = False,
    **machinery: Any,
) -> optax.GradientTransformation:
    r"""x ← x − α b_t, b_1 = g_1 and b_t = μ b_{t−1} + (1 − d) g_t: `torch.optim.SGD`.

    With Nesterov's look-ahead x ← x − α (g_t + μ b_t).

    Args:
      params: None, or the groups.
      lr: α, a number or a schedule.
      momentum: μ, a number or a schedule; 0 for no buffer.
      dampening: d, which spares the first gradient.
      weight_decay: λ, times x added to the gradient.
      nesterov: look one step ahead.
      maximize: ascend.
      **machinery: refused.

    Raises:
      ValueError: for Nesterov's momentum without momentum or with dampening.

    Example:
      >>> import jax.numpy as jnp, optjax.pytorch
      >>> tx, x = optjax.pytorch.SGD(lr=0.1, momentum=0.9), jnp.array(1.0)
      >>> print(f"{tx.update(x, tx.init(x), x)[0]:.1f}")
      -0.1
    """
    if nesterov and (is_zero(momentum) or not is_zero(dampening)):
        raise ValueError(
            "nesterov must have a momentum and no dampening, got "
            f"momentum={momentum} and dampening={dampening}."
        )
    direction = optax.identity()
    if not is_zero(momentum):
        # The first gradient is the buffer, of which nothing is dampened.
        weight: Any = 1.0
        if not is_zero(dampening):
            weight = jnp.where(now.step == 0, 1.0, 1.0 - dampening)
        direction = optax.chain(optax.scale(weight), trace(momentum, nesterov))
    form = basic_form(direction, rate_by_one(), lr)
    return after_decay(form, maximize, weight_decay)


@optimizer
def Adagrad(
    now: Now,
    /,
    params: Groups = None,
    lr: optax.ScalarOrSchedule = 1e-2,
    lr_decay: float = 0.0,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    initial_accumulator_value: float = 0.0,
    eps: float = 1e-10,
    *,
    maximize: bool = False,
    **machinery: Any,
) -> optax.GradientTransformation:
    r"""x ← x − α / (1 + (t − 1) κ) · g_t / (√ν_t + ε), ν_t = ν_0 + Σ g²: `Adagrad`.

    Args:
      params: None, or the groups.
      lr: α, a number or a schedule.
      lr_decay: κ.
      weight_decay: λ, times x added to the gradient.
      initial_accumulator_value: ν_0.
      eps: ε, outside of the root.
      maximize: ascend.
      **machinery: refused.

    Raises:
      ValueError: for an option that is not what its line says, groups that do not fit,
        and machinery that is not left out.

    Example:
      >>> import jax.numpy as jnp, optjax.pytorch
      >>> tx, x = optjax.pytorch.Adagrad(lr=0.1), jnp.array(1.0)
      >>> print(f"{tx.update(x, tx.init(x), x)[0]:.1f}")
      -0.1
    """
    if not is_zero(lr_decay):
        lr = lr / (1.0 + jnp.asarray(now.step, jnp.result_type(float)) * lr_decay)
    rate = rate_by_accumulated_square(sum_of_squares(initial_accumulator_value), eps)
    return after_decay(basic_form(optax.identity(), rate, lr), maximize, weight_decay)


@optimizer
def RMSprop(
    now: Now,
    /,
    params: Groups = None,
    lr: optax.ScalarOrSchedule = 1e-2,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    momentum: optax.ScalarOrSchedule = 0.0,
    centered: bool = False,
    *,
    maximize: bool = False,
    **machinery: Any,
) -> optax.GradientTransformation:
    r"""x ← x − α b_t, b_t = μ b_{t−1} + g_t / (√ν_t + ε): `torch.optim.RMSprop`.

    Args:
      params: None, or the groups.
      lr: α, a number or a schedule, which multiplies all of the buffer.
      alpha: the decay of ν = ema(g²).
      eps: ε, outside of the root.
      weight_decay: λ, times x added to the gradient.
      momentum: μ, a number or a schedule; 0 for no buffer.
      centered: ν = ema(g²) − ema(g)².
      maximize: ascend.
      **machinery: refused.

    Raises:
      ValueError: for an option that is not what its line says, groups that do not fit,
        and machinery that is not left out.

    Example:
      >>> import jax.numpy as jnp, optjax.pytorch
      >>> tx, x = optjax.pytorch.RMSprop(lr=0.1), jnp.array(1.0)
      >>> print(f"{tx.update(x, tx.init(x), x)[0]:.1f}")
      -1.0
    """
    average = centered_ema_of_squares if centered else ema_of_squares
    rate = rate_by_accumulated_square(average(alpha, debias=False), eps)
    if is_zero(momentum):
        form = basic_form(optax.identity(), rate, lr)
    else:
        scaled = precondition(optax.identity(), rate)
        form = basic_form(optax.chain(scaled, trace(momentum)), rate_by_one(), lr)
    return after_decay(form, maximize, weight_decay)


@optimizer
def Adadelta(
    now: Now,
    /,
    params: Groups = None,
    lr: optax.ScalarOrSchedule = 1.0,
    rho: float = 0.9,
    eps: float = 1e-6,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    *,
    maximize: bool = False,
    **machinery: Any,
) -> optax.GradientTransformation:
    r"""x ← x − α √(X_{t−1} + ε) / √(ν_t + ε) g_t: `torch.optim.Adadelta`.

    Args:
      params: None, or the groups.
      lr: α, a number or a schedule.
      rho: ρ, the decay of ν = ema(g²) and X = ema(step²).
      eps: ε.
      weight_decay: λ, times x added to the gradient.
      maximize: ascend.
      **machinery: refused.

    Raises:
      ValueError: for an option that is not what its line says, groups that do not fit,
        and machinery that is not left out.

    Example:
      >>> import jax.numpy as jnp, optjax.pytorch
      >>> tx, x = optjax.pytorch.Adadelta(), jnp.array(1.0)
      >>> print(f"{tx.update(x, tx.init(x), x)[0]:.6f}")
      -0.003162
    """
    form = basic_form(optax.identity(), rate_by_adadelta(rho, eps), lr)
    return after_decay(form, maximize, weight_decay)
