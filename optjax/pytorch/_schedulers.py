"""torch.optim.lr_scheduler as functions of the number of scheduler steps taken.

Each takes the base learning rate where PyTorch takes the optimizer, and is a schedule:
α at count 0, 1, …, the rate with which update count + 1 is made. PyTorch multiplies the
rate of the step before; these are the closed forms, in as many digits as the count
leaves. Optax's own schedules raise a rounded base to a power, which in float32 loses
three digits in 10⁵ steps, and compute in float32 under x64 too; only joining is theirs.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from optjax._arguments.kind import is_real_array, shown

_OfCount: TypeAlias = Callable[[jax.Array], jax.Array]


class Schedule:
    """α as a function of the count, with the base rate that PyTorch's optimizer has.

    Attributes:
      base_lr: the learning rate that the optimizer is made with, which AdaBound's
        `final_lr` belongs to.
      momentum: for `OneCycleLR`, the momentum (or β₁) as a schedule; else None.
      options: what PyTorch's scheduler keeps in the optimizer's groups.

    Example:
      >>> import optjax.pytorch as torch_like
      >>> schedule = torch_like.StepLR(0.1, step_size=30)
      >>> [round(float(schedule(count)), 6) for count in (0, 29, 30, 60)]
      [0.1, 0.1, 0.01, 0.001]
    """

    def __init__(
        self,
        base_lr: float | jax.Array,
        rate: _OfCount,
        momentum: _OfCount | None = None,
        options: Mapping[str, Any] = MappingProxyType({}),
    ):
        _check_rates(lr=base_lr)
        self.base_lr, self.rate, self.momentum = base_lr, rate, momentum
        self.options = {"initial_lr": base_lr, **options}

    def __call__(self, count: ArrayLike) -> jax.Array:
        return self.rate(jnp.asarray(count))


def StepLR(lr: float, step_size: int, gamma: float = 0.1) -> Schedule:
    """α = lr γ^⌊count / step_size⌋.

    Args:
      lr: the base learning rate.
      step_size: scheduler steps between two decays.
      gamma: γ ≥ 0.

    Raises:
      ValueError: for a step_size that is not a whole number >= 1.

    Example:
      >>> import optjax.pytorch
      >>> print(f"{optjax.pytorch.StepLR(0.1, 30)(30):.3f}")
      0.010
    """
    _check_steps(step_size=step_size)
    return Schedule(lr, lambda count: lr * _power(gamma, count // step_size))


def MultiStepLR(lr: float, milestones: Sequence[int], gamma: float = 0.1) -> Schedule:
    """α = lr γ^n, n the number of milestones reached.

    Args:
      lr: the base learning rate.
      milestones: counts at which the rate decays; one that stands there twice counts
        twice.
      gamma: γ ≥ 0.

    Example:
      >>> import optjax.pytorch
      >>> print(f"{optjax.pytorch.MultiStepLR(0.1, [30, 80])(80):.4f}")
      0.0010
    """
    at = np.asarray(milestones, np.int32).reshape(-1, 1)

    def rate(count: jax.Array) -> jax.Array:
        reached = jnp.sum(at <= count.reshape(1, -1), axis=0).reshape(count.shape)
        return lr * _power(gamma, reached)

    return Schedule(lr, rate)


def ExponentialLR(lr: float, gamma: float) -> Schedule:
    """α = lr γ^count.

    Args:
      lr: the base learning rate.
      gamma: γ ≥ 0.

    Example:
      >>> import optjax.pytorch
      >>> print(f"{optjax.pytorch.ExponentialLR(0.1, 0.9)(2):.4f}")
      0.0810
    """
    return Schedule(lr, lambda count: lr * _power(gamma, count))


def LinearLR(
    lr: float,
    start_factor: float = 1.0 / 3,
    end_factor: float = 1.0,
    total_iters: int = 5,
) -> Schedule:
    """α = lr (f₀ + (f₁ − f₀) min(count / T, 1)): a warm-up.

    Args:
      lr: the base learning rate.
      start_factor: f₀ in (0, 1].
      end_factor: f₁ in [0, 1].
      total_iters: T, after which the factor is f₁.

    Raises:
      ValueError: for total_iters that is not a whole number >= 1.

    Example:
      >>> import optjax.pytorch
      >>> print(f"{optjax.pytorch.LinearLR(0.3)(0):.3f}")
      0.100
    """
    _check_steps(total_iters=total_iters)

    def rate(count: jax.Array) -> jax.Array:
        share = _real(jnp.minimum(count, total_iters)) / total_iters
        return lr * (start_factor + (end_factor - start_factor) * share)

    return Schedule(lr, rate)


def PolynomialLR(lr: float, total_iters: int = 5, power: float = 1.0) -> Schedule:
    """α = lr (1 − min(count / T, 1))^p.

    Args:
      lr: the base learning rate.
      total_iters: T, after which the rate is 0.
      power: p ≥ 0.

    Raises:
      ValueError: for total_iters that is not a whole number >= 1.

    Example:
      >>> import optjax.pytorch
      >>> print(f"{optjax.pytorch.PolynomialLR(0.1, 10, 2.0)(5):.4f}")
      0.0250
    """
    _check_steps(total_iters=total_iters)

    def rate(count: jax.Array) -> jax.Array:
        left = _real(total_iters - jnp.minimum(count, total_iters)) / total_iters
        return lr * left**power

    return Schedule(lr, rate)


def CosineAnnealingLR(lr: float, T_max: int, eta_min: float = 0.0) -> Schedule:
    """α = η + (lr − η)(1 + cos(π count / T)) / 2, which rises again after T.

    Optax's `cosine_decay_schedule` stays at η.

    Args:
      lr: the base learning rate.
      T_max: T, half a period.
      eta_min: η.

    Raises:
      ValueError: for a T_max that is not a whole number >= 1.

    Example:
      >>> import optjax.pytorch
      >>> schedule = optjax.pytorch.CosineAnnealingLR(0.1, T_max=10)
      >>> [round(float(schedule(count)), 3) for count in (0, 5, 10, 15)]
      [0.1, 0.05, 0.0, 0.05]
    """
    _check_steps(T_max=T_max)

    def rate(count: jax.Array) -> jax.Array:
        return _cosine(lr, eta_min, _real(count % (2 * T_max)) / T_max)

    return Schedule(lr, rate)


def CosineAnnealingWarmRestarts(
    lr: float, T_0: int, T_mult: int = 1, eta_min: float = 0.0
) -> Schedule:
    """α = η + (lr − η)(1 + cos(π c / T_i)) / 2, c the steps since the last restart.

    Args:
      lr: the base learning rate.
      T_0: steps to the first restart.
      T_mult: how many times longer each period is than the one before.
      eta_min: η.

    Raises:
      ValueError: for a T_0 or T_mult that is not a whole number >= 1.

    Example:
      >>> import optjax.pytorch
      >>> schedule = optjax.pytorch.CosineAnnealingWarmRestarts(0.1, T_0=10, T_mult=2)
      >>> [round(float(schedule(count)), 3) for count in (0, 5, 10, 20, 30)]
      [0.1, 0.05, 0.1, 0.05, 0.1]

    Reference: Loshchilov & Hutter, "SGDR", ICLR 2017.
    """
    _check_steps(T_0=T_0, T_mult=T_mult)
    starts, lengths = [0], [T_0]
    while T_mult > 1 and starts[-1] + lengths[-1] < 2**31:
        starts.append(starts[-1] + lengths[-1])
        lengths.append(lengths[-1] * T_mult)

    def rate(count: jax.Array) -> jax.Array:
        if T_mult == 1:
            return _cosine(lr, eta_min, _real(count % T_0) / T_0)
        # Whole numbers: a logarithm would be off by one at a restart.
        period = jnp.searchsorted(jnp.asarray(starts, jnp.int32), count, "right") - 1
        since = count - jnp.asarray(starts, jnp.int32)[period]
        length = jnp.asarray(lengths, jnp.result_type(float))[period]
        return _cosine(lr, eta_min, _real(since) / length)

    return Schedule(lr, rate)


def OneCycleLR(
    lr: float,
    max_lr: float,
    total_steps: int | None = None,
    epochs: int | None = None,
    steps_per_epoch: int | None = None,
    pct_start: float = 0.3,
    anneal_strategy: str = "cos",
    cycle_momentum: bool = True,
    base_momentum: float = 0.85,
    max_momentum: float = 0.95,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    three_phase: bool = False,
) -> Schedule:
    """From max_lr / div_factor up to max_lr and down, the momentum the other way.

    The momentum is a schedule too, which the optimizer is handed as well:
    `SGD(lr=cycle, momentum=cycle.momentum)`, `Adam(lr=cycle, betas=(cycle.momentum,
    0.999))`.

    Args:
      lr: the learning rate that PyTorch's optimizer is made with. Only AdaBound, whose
        base it is, knows it.
      max_lr: the highest rate.
      total_steps: length of the cycle, or `epochs` times `steps_per_epoch`.
      epochs: epochs of the cycle.
      steps_per_epoch: updates an epoch.
      pct_start: share of the cycle in which the rate rises.
      anneal_strategy: "cos" or "linear".
      cycle_momentum: False for no `momentum`.
      base_momentum: the lowest momentum.
      max_momentum: the highest.
      div_factor: max_lr over the first rate.
      final_div_factor: the first rate over the last.
      three_phase: go down to the first rate as one went up, and then to the last.

    Raises:
      ValueError: for another anneal_strategy, and a length that is not given or not a
        whole number >= 1.

    Example:
      >>> import optjax.pytorch
      >>> cycle = optjax.pytorch.OneCycleLR(0.1, max_lr=1.0, total_steps=100)
      >>> [round(float(cycle(count)), 3) for count in (0, 29, 99)]
      [0.04, 1.0, 0.0]
      >>> print(f"{cycle.momentum(29):.2f}")
      0.85

    Reference: Smith & Topin, "Super-Convergence", 2019.
    """
    if total_steps is None:
        if epochs is None or steps_per_epoch is None:
            raise ValueError(
                "OneCycleLR must be given total_steps, or epochs and steps_per_epoch, "
                f"got epochs={epochs} and steps_per_epoch={steps_per_epoch}."
            )
        total_steps = epochs * steps_per_epoch
    if anneal_strategy not in ("cos", "linear"):
        raise ValueError(
            f"anneal_strategy must be 'cos' or 'linear', got {anneal_strategy!r}."
        )
    _check_steps(total_steps=total_steps)
    _check_rates(max_lr=max_lr)
    first = max_lr / div_factor
    last = first / final_div_factor
    up, ends = pct_start * total_steps - 1, [total_steps - 1.0]
    rates, momenta = [first, max_lr, last], [max_momentum, base_momentum, max_momentum]
    if three_phase:
        ends = [2 * pct_start * total_steps - 2, *ends]
        rates, momenta = [first, max_lr, first, last], [*momenta, max_momentum]
    # A phase of no length is none; PyTorch divides by it.
    knots = [0.0, *(float(end) for end in (up, *ends))]

    def between(levels: list[float]) -> _OfCount:
        def within(phase: int, t: jax.Array) -> jax.Array:
            begin, end = knots[phase], knots[phase + 1]
            share = (t - begin) / (end - begin or 1.0)
            start, stop = levels[phase], levels[phase + 1]
            if anneal_strategy == "cos":
                return _cosine(start, stop, share)
            return start + (stop - start) * share

        def level(count: jax.Array) -> jax.Array:
            t = _real(jnp.minimum(count, total_steps))
            *before, last = range(len(knots) - 1)
            value = within(last, t)
            for phase in reversed(before):
                value = jnp.where(t <= knots[phase + 1], within(phase, t), value)
            return value

        return lambda count: level(jnp.asarray(count))

    options = {"initial_lr": first, "max_lr": max_lr, "min_lr": last}
    if not cycle_momentum:
        return Schedule(lr, between(rates), None, options)
    options |= {"base_momentum": base_momentum, "max_momentum": max_momentum}
    return Schedule(lr, between(rates), between(momenta), options)


def LambdaLR(lr: float, lr_lambda: Callable[[Any], Any]) -> Schedule:
    """α = lr λ(count).

    Args:
      lr: the base learning rate.
      lr_lambda: λ, in jax.numpy where it branches, since the count is traced.

    Example:
      >>> import optjax.pytorch
      >>> print(f"{optjax.pytorch.LambdaLR(0.1, lambda epoch: 0.95 ** epoch)(2):.5f}")
      0.09025
    """
    return Schedule(lr, lambda count: lr * lr_lambda(count))


def SequentialLR(
    lr: float, schedulers: Sequence[Schedule], milestones: Sequence[int]
) -> Schedule:
    """One schedule after another, each of which counts from its own milestone.

    Args:
      lr: the base learning rate, which all of them have.
      schedulers: the schedules.
      milestones: the counts at which the second, third, … begins.

    Raises:
      ValueError: where milestones are not one fewer than schedulers, or one of these
        has another base rate.

    Example:
      >>> import optjax.pytorch as torch_like
      >>> schedule = torch_like.SequentialLR(
      ...     0.1,
      ...     [torch_like.LinearLR(0.1), torch_like.ExponentialLR(0.1, gamma=0.9)],
      ...     milestones=[5],
      ... )
      >>> [round(float(schedule(count)), 4) for count in (0, 5, 6)]
      [0.0333, 0.1, 0.09]
    """
    if len(milestones) != len(schedulers) - 1:
        raise ValueError(
            "SequentialLR must have one milestone less than schedulers, got "
            f"{len(schedulers)} schedulers and {len(milestones)} milestones."
        )
    for schedule in schedulers:
        base = getattr(schedule, "base_lr", lr)
        if not isinstance(base, jax.core.Tracer) and base != lr:
            raise ValueError(
                f"the schedulers must have the base learning rate lr={lr}, got one "
                f"with {base}. In PyTorch they are all of one optimizer."
            )
    return Schedule(lr, optax.join_schedules(list(schedulers), list(milestones)))


def per_epoch(schedule: Schedule, steps_per_epoch: int) -> Schedule:
    """The schedule of `scheduler.step()` once an epoch, as a function of updates.

    Args:
      schedule: a function of the number of epochs done.
      steps_per_epoch: updates an epoch.

    Raises:
      ValueError: for steps_per_epoch that is not a whole number >= 1.

    Example:
      >>> import optjax.pytorch
      >>> schedule = optjax.pytorch.StepLR(0.1, step_size=30)
      >>> by_update = optjax.pytorch.per_epoch(schedule, steps_per_epoch=500)
      >>> print(f"{by_update(30 * 500 - 1):.2f} {by_update(30 * 500):.2f}")
      0.10 0.01
    """
    _check_steps(steps_per_epoch=steps_per_epoch)
    momentum = schedule.momentum
    return Schedule(
        schedule.base_lr,
        lambda count: schedule(count // steps_per_epoch),
        None if momentum is None else lambda count: momentum(count // steps_per_epoch),
        schedule.options,
    )


def _real(count: Any) -> jax.Array:
    return jnp.asarray(count, jnp.result_type(float))


def _power(gamma: float, exponent: Any) -> jax.Array:
    """γⁿ, right to the digits of n log γ: a rounded γ is not raised to a power."""
    n = _real(exponent)
    if gamma == 0:
        return jnp.where(n == 0, 1.0, jnp.zeros_like(n))
    return jnp.exp(n * math.log(gamma))


def _cosine(start: float, end: float, share: jax.Array) -> jax.Array:
    """From start at share 0 to end at 1: half a period."""
    return end + (start - end) * jnp.square(jnp.cos(0.5 * jnp.pi * share))


def _check_steps(**steps: int) -> None:
    for name, value in steps.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be an integer >= 1, got {value!r}.")


def _check_rates(**rates: Any) -> None:
    for name, value in rates.items():
        if not (isinstance(value, int | float) or is_real_array(value)):
            raise ValueError(
                f"{name} must be a number, got {shown(value)}. A schedule has the base "
                "learning rate where PyTorch has the optimizer; for a list, one value "
                "a group, give each group a schedule of its own."
            )
