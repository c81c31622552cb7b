"""V_t: the rates.

A `rate_by_*` transformation maps g_t to a positive per-coordinate step size: it drops
the gradient's sign and is no update by itself. It belongs in the rate branch of
`precondition` or `basic_form`. In a chain of one's own use its twin `scale_by_*`,
which multiplies the gradient by it.

Rates are float32 or wider whatever the gradient is: 1/ε = 1e8 is infinite in float16.
"""

from typing import Annotated, Any, NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from optjax._arguments.checked import checked
from optjax._arguments.named import Decay, FloatDType, NonNegative, Transformation
from optjax._arguments.numbers import between, positive
from optjax._form import precondition
from optjax._observe import tell, telling
from optjax._parts import BiasCorrection, Clip, Link, One, Other, Root
from optjax._precision import (
    Scalar,
    abs_sq,
    away_from_zero,
    bias_correction,
    flat_at_zero,
    is_known,
    is_zero,
    log_decay,
    next_count,
    precise,
    real_full_like,
    widen,
)
from optjax._tree import cast_leaves, map_leaves, root_leaves

HalfPower: TypeAlias = Annotated[Scalar, between(0.0, 0.5, "1/2 is Adam, 0 is SGD")]
_FirstStep: TypeAlias = Annotated[
    Scalar, positive("Adadelta's first steps have size sqrt(eps)")
]
Threshold: TypeAlias = Annotated[
    Scalar, between(4.0, np.inf, "r_t² is negative for ρ_t from 2 to 4")
]


def rate_by_one() -> optax.GradientTransformationExtraArgs:
    """V = 1: a rate, not an update: drops the gradient's sign and everything else.

    Raises:
      ValueError: in `update`, where gradients and parameters differ in structure or
        shape.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx, g = optjax.rate_by_one(), jnp.array([-2.0, 5.0])
      >>> tx.update(g, tx.init(g))[0]
      Array([1., 1.], dtype=float32)
    """

    def update(
        updates: optax.Updates, state: Any, params: Any = None, **extra: Any
    ) -> tuple[optax.Updates, Any]:
        del extra
        # No state shows what shapes the gradients must have.
        known = [] if params is None else [params]
        ones = map_leaves(lambda g, *_: jnp.ones_like(widen(g).real), updates, *known)
        return ones, state

    ones = optax.GradientTransformationExtraArgs(optax.init_empty_state, update)
    return telling(One(), ones)


@checked
def rate_by_accumulated_square(
    accumulator: Transformation,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    power: HalfPower = 0.5,
) -> optax.GradientTransformationExtraArgs:
    r"""V_t = 1 / (√(ν_t + ε̄) + ε): a rate, not an update: drops the gradient's sign.

    With a power p other than ½, V_t = 1 / (√(ν_t + ε̄) + ε)^{2p}.

    Args:
      accumulator: g_t to ν_t: `sum_of_squares`, `mean_of_squares`, `ema_of_squares`,
        the latter followed by `running_max`, or another of `optjax`.
      eps: ε ≥ 0 outside the root. Of the unit of the gradient.
      eps_root: ε̄ ≥ 0 inside the root. Of the unit of the gradient squared.
      power: p in [0, ½]: 0 is SGD, ½ is Adam, between them Padam.

    Returns:
      A transformation of gradients to rates of the same shapes, in float32 or wider.
      The rate is finite even where ν = ε = ε̄ = 0.

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx = optjax.rate_by_accumulated_square(optjax.sum_of_squares(), eps=0.0)
      >>> g = jnp.array([-2.0, 4.0])
      >>> tx.update(g, tx.init(g))[0]
      Array([0.5 , 0.25], dtype=float32)

    Where conventions differ: Optax's Adagrad and RMSProp by default add ε inside the
    root, PyTorch's outside; Adam has it outside in both.
    """
    accumulator = optax.with_extra_args_support(accumulator)
    is_half = is_known(power) and power == 0.5
    # Where (ν + ε̄)^−3/2 is finite for ν = 0, so is every derivative of the rate.
    is_smooth = is_known(eps_root) and eps_root**1.5 >= np.finfo(np.float32).tiny

    def rate(root: Any) -> Any:
        # 1/0 would turn a coordinate that never saw a gradient into 0 · inf = NaN.
        root = away_from_zero(root if is_zero(eps) else root + eps, eps)
        return 1.0 / root if is_half else root ** (-2.0 * power)

    def rates(nu: Any) -> Any:
        if not is_zero(eps_root):
            nu = map_leaves(
                lambda v: (v if is_smooth else flat_at_zero(v, eps_root)) + eps_root, nu
            )
        if is_smooth and is_half and is_zero(eps):
            return map_leaves(lax.rsqrt, nu)
        root = map_leaves(lax.sqrt, nu) if is_smooth else root_leaves(nu)
        return map_leaves(rate, root)

    def update(
        updates: optax.Updates, state: Any, params: Any = None, **extra: Any
    ) -> tuple[optax.Updates, Any]:
        nu, new_state = accumulator.update(updates, state, params, **extra)
        v = rates(nu)
        # Of ν and not of g, which the accumulator itself tells of.
        tell(Link(Root(eps, eps_root, power), nu, v, state, new_state))
        return v, new_state

    return optax.GradientTransformationExtraArgs(accumulator.init, update)


@checked
def scale_by_accumulated_square(
    accumulator: Transformation,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    power: HalfPower = 0.5,
) -> optax.GradientTransformationExtraArgs:
    """V_t ⊙ g_t with V_t of `rate_by_accumulated_square`, which see.

    Args:
      accumulator: g_t to ν_t.
      eps: ε ≥ 0 outside the root.
      eps_root: ε̄ ≥ 0 inside the root.
      power: p in [0, ½].

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx = optjax.scale_by_accumulated_square(optjax.sum_of_squares(), eps=0.0)
      >>> g = jnp.array([-2.0, 4.0])
      >>> tx.update(g, tx.init(g))[0]
      Array([-1.,  1.], dtype=float32)
    """
    rate = rate_by_accumulated_square(accumulator, eps, eps_root, power)
    return precondition(optax.identity(), rate)


class AdadeltaState(NamedTuple):
    """Running averages of |g|² and of |V g|²."""

    e_g: optax.Updates
    e_x: optax.Updates


@checked
def rate_by_adadelta(
    rho: Decay = 0.9, eps: _FirstStep = 1e-6, *, nu_dtype: FloatDType = None
) -> optax.GradientTransformationExtraArgs:
    r"""V_t = √(X_{t−1} + ε) / √(ν_t + ε): a rate, not an update: drops the sign.

    ν_t = ρ ν_{t−1} + (1 − ρ) |g_t|² and X_t = ρ X_{t−1} + (1 − ρ) |V_t g_t|²: the step
    has the unit of the parameter.

    Args:
      rho: ρ in [0, 1), the decay of both averages.
      eps: ε > 0; it also sets the size √ε of the first steps.
      nu_dtype: dtype in which ν and X are stored; by default the parameters', real
        (float32 for float16).

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx, g = optjax.rate_by_adadelta(0.75, eps=1e-6), jnp.array(-2.0)
      >>> print(f"{tx.update(g, tx.init(g))[0]:.4f}")
      0.0010

    Reference: Zeiler, "ADADELTA", 2012.
    """

    def init(params: optax.Params) -> AdadeltaState:
        return AdadeltaState(
            real_full_like(params, 0.0, nu_dtype), real_full_like(params, 0.0, nu_dtype)
        )

    def average(square: Any, old: Any) -> Any:
        return (1 - rho) * square + rho * widen(old)

    def update(
        updates: optax.Updates, state: AdadeltaState, params: Any = None, **extra: Any
    ) -> tuple[optax.Updates, AdadeltaState]:
        del params, extra
        e_g = map_leaves(lambda g, v: average(abs_sq(g), v), updates, state.e_g)
        rate = map_leaves(
            lambda v, x: jnp.sqrt(widen(x) + eps) / jnp.sqrt(v + eps), e_g, state.e_x
        )
        e_x = map_leaves(
            lambda v, g, x: average(abs_sq(v * widen(g)), x), rate, updates, state.e_x
        )
        return rate, AdadeltaState(
            cast_leaves(e_g, state.e_g), cast_leaves(e_x, state.e_x)
        )

    adadelta = optax.GradientTransformationExtraArgs(init, update)
    return telling(Other("rate_by_adadelta"), adadelta)


@checked
def scale_by_adadelta(
    rho: Decay = 0.9, eps: _FirstStep = 1e-6, *, nu_dtype: FloatDType = None
) -> optax.GradientTransformationExtraArgs:
    """V_t ⊙ g_t with V_t of `rate_by_adadelta`, which see.

    Args:
      rho: ρ in [0, 1).
      eps: ε > 0.
      nu_dtype: dtype in which ν and X are stored.

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx, g = optjax.scale_by_adadelta(0.75, eps=1e-6), jnp.array(-2.0)
      >>> print(f"{tx.update(g, tx.init(g))[0]:.4f}")
      -0.0020
    """
    return precondition(optax.identity(), rate_by_adadelta(rho, eps, nu_dtype=nu_dtype))


class InfinityNormState(NamedTuple):
    """The decaying maximum of |g|."""

    nu: optax.Updates


@checked
def rate_by_infinity_norm(
    b2: Decay = 0.999, eps: NonNegative = 1e-8, *, nu_dtype: FloatDType = None
) -> optax.GradientTransformationExtraArgs:
    r"""V_t = 1 / ν_t, ν_t = max(|g_t| + ε, β₂ ν_{t−1}): a rate: drops the sign.

    Args:
      b2: β₂ in [0, 1).
      eps: ε ≥ 0.
      nu_dtype: dtype in which ν is stored; by default the parameters', real (float32
        for float16).

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx, g = optjax.rate_by_infinity_norm(), jnp.array([-2.0, 4.0])
      >>> tx.update(g, tx.init(g))[0]
      Array([0.5 , 0.25], dtype=float32)

    Reference: Kingma & Ba, "Adam", ICLR 2015, section 7.1 (AdaMax).
    """

    def init(params: optax.Params) -> InfinityNormState:
        return InfinityNormState(real_full_like(params, 0.0, nu_dtype))

    def update(
        updates: optax.Updates,
        state: InfinityNormState,
        params: Any = None,
        **extra: Any,
    ) -> tuple[optax.Updates, InfinityNormState]:
        del params, extra
        nu = map_leaves(
            lambda g, v: jnp.maximum(jnp.abs(widen(g)) + eps, b2 * widen(v)),
            updates,
            state.nu,
        )
        rate = map_leaves(lambda v: 1.0 / away_from_zero(v, at_least=eps), nu)
        return rate, InfinityNormState(cast_leaves(nu, state.nu))

    infinity_norm = optax.GradientTransformationExtraArgs(init, update)
    return telling(Other("rate_by_infinity_norm"), infinity_norm)


@checked
def scale_by_infinity_norm(
    b2: Decay = 0.999, eps: NonNegative = 1e-8, *, nu_dtype: FloatDType = None
) -> optax.GradientTransformationExtraArgs:
    """V_t ⊙ g_t with V_t of `rate_by_infinity_norm`, which see.

    Args:
      b2: β₂ in [0, 1).
      eps: ε ≥ 0.
      nu_dtype: dtype in which ν is stored.

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx, g = optjax.scale_by_infinity_norm(), jnp.array([-2.0, 4.0])
      >>> tx.update(g, tx.init(g))[0]
      Array([-1.,  1.], dtype=float32)
    """
    return precondition(
        optax.identity(), rate_by_infinity_norm(b2, eps, nu_dtype=nu_dtype)
    )


class CountState(NamedTuple):
    """Steps taken."""

    count: Any


@checked
def correct_bias(
    b1: Decay, b2: Decay, learning_rate: NonNegative = 1.0
) -> optax.GradientTransformationExtraArgs:
    r"""V_t ↦ V_t α √(1 − β₂ᵗ) / (1 − β₁ᵗ): Adam's two corrections, as part of the rate.

    For a direction and an accumulator that are not debiased. A bound that follows
    then sees the step size that the raw direction is really multiplied by, which is
    how AdaBound clips it; ε is then added to the raw √ν.

    Args:
      b1: β₁ in [0, 1), the direction's decay.
      b2: β₂ in [0, 1), the accumulator's decay.
      learning_rate: α, for a bound that follows in the unit of a learning rate.

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx, rate = optjax.correct_bias(b1=0.5, b2=0.75), jnp.array(1.0)
      >>> print(f"{tx.update(rate, tx.init(rate))[0]:.4f}")
      1.0000

    Reference: Kingma & Ba, "Adam", ICLR 2015, the end of section 2.
    """

    def update(
        updates: optax.Updates, state: CountState, params: Any = None, **extra: Any
    ) -> tuple[optax.Updates, CountState]:
        del params, extra
        count, t = next_count(state.count)
        scale = bias_correction(learning_rate, b1, b2, t)
        return map_leaves(lambda v: scale * v, updates), CountState(count)

    correction = optax.GradientTransformationExtraArgs(_init_count, update)
    return telling(BiasCorrection(b1, b2, learning_rate), correction)


@checked
def rectify(
    b2: Decay, threshold: Threshold = 5.0
) -> optax.GradientTransformationExtraArgs:
    r"""V_t ↦ r_t V_t where ρ_t ≥ threshold, and V_t ↦ 1 before: RAdam's warm-up.

    ρ_∞ = 2 / (1 − β₂) − 1 and ρ_t = ρ_∞ − 2 t β₂ᵗ / (1 − β₂ᵗ) measure how many squares
    the average holds; r_t² = (ρ_t − 4)(ρ_t − 2) ρ_∞ / ((ρ_∞ − 4)(ρ_∞ − 2) ρ_t). While
    too few are held the rate is left out and the step is SGD's with momentum.

    Args:
      b2: β₂ in [0, 1), the accumulator's decay.
      threshold: the ρ from which the rate is used; >= 4.

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx, rate = optjax.rectify(0.999), jnp.array(100.0)
      >>> tx.update(rate, tx.init(rate))[0]
      Array(1., dtype=float32)

    Reference: Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond",
    ICLR 2020. The paper uses ρ_t > 4, PyTorch ρ_t > 5, Optax ρ_t ≥ 5.
    """
    b2 = precise(b2)

    def update(
        updates: optax.Updates, state: CountState, params: Any = None, **extra: Any
    ) -> tuple[optax.Updates, CountState]:
        del params, extra
        count, t = next_count(state.count)
        rho, rho_inf = _squares_held(b2, t)
        trusted = rho >= threshold
        # Before the threshold r² may be negative; its root must not reach a gradient.
        rho, rho_inf = (jnp.where(trusted, x, 5.0) for x in (rho, rho_inf))
        shares = (rho - 4.0) / (rho_inf - 4.0) * ((rho - 2.0) / (rho_inf - 2.0))
        r = jnp.sqrt(shares * (rho_inf / rho))

        def rectified(v: Any) -> Any:
            v = r * v
            return lax.select(trusted, v, jnp.ones_like(v))

        return map_leaves(rectified, updates), CountState(count)

    rectified_rate = optax.GradientTransformationExtraArgs(_init_count, update)
    return telling(Other("rectify"), rectified_rate)


def _squares_held(b2: Scalar, t: Any) -> tuple[Any, Any]:
    """ρ_t and ρ_∞, in single precision right to 1e-6.

    ρ_∞ = coth(λ/2) and ρ_t = t + coth(λ/2) − t coth(λt/2), where λ = −log β₂. While
    λt < ½ these are differences of numbers near 2/λ, so their poles are left out:
    ρ_t = t − (2/λ) (h(λt/2) − h(λ/2)) with h(y) = y coth y − 1 = y²/3 − y⁴/45 + …
    """
    # Below, ρ_∞ < 1.3 and the rate is never used, whatever the logarithm.
    b2 = max(b2, 0.1) if is_known(b2) else jnp.maximum(b2, 0.1)
    rho_inf = (1.0 + b2) / (1.0 - b2)
    speed = -log_decay(b2, t)

    def h(y: Any) -> Any:
        return sum(c * y ** (2 * k) for k, c in enumerate(_H, 1))

    slow = jnp.minimum(speed, 0.5)
    early = t - 2.0 / slow * (h(0.5 * jnp.minimum(slow * t, 0.5)) - h(0.5 * slow))
    late = rho_inf - 2.0 * t / jnp.expm1(jnp.maximum(speed * t, 0.5))
    return jnp.where(speed * t < 0.5, early, late), rho_inf


# Of y², y⁴, … in y coth y − 1; for y < ¼ what is left out is below 1e-15.
_H = (1 / 3, -1 / 45, 2 / 945, -1 / 4725, 2 / 93555, -1382 / 638512875)


def _init_count(params: optax.Params) -> CountState:
    del params
    return CountState(jnp.zeros([], jnp.int32))


class AverageState(NamedTuple):
    """The running average of the rate."""

    ema: optax.Updates


@checked
def limit_by_average(b3: Decay) -> optax.GradientTransformationExtraArgs:
    r"""V_t ↦ min(V_t, S_t), S_t = β₃ S_{t−1} + (1 − β₃) V_t: AdaMod's upper bound.

    S starts at zero and is not debiased, so the first steps are small: a warm-up.

    Args:
      b3: β₃ in [0, 1); 1 / (1 − β₃) is the memory in steps.

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx, rate = optjax.limit_by_average(0.75), jnp.array(1.0)
      >>> tx.update(rate, tx.init(rate))[0]
      Array(0.25, dtype=float32)

    Reference: Ding et al., "An Adaptive and Momental Bound Method for Stochastic
    Learning", 2019.
    """

    def init(params: optax.Params) -> AverageState:
        return AverageState(real_full_like(params, 0.0))

    def update(
        updates: optax.Updates, state: AverageState, params: Any = None, **extra: Any
    ) -> tuple[optax.Updates, AverageState]:
        del params, extra
        average = map_leaves(
            lambda v, s: (1 - b3) * v + b3 * widen(s), updates, state.ema
        )
        limited = map_leaves(jnp.minimum, updates, average)
        new_state = AverageState(cast_leaves(average, state.ema))
        tell(Link(Clip(0.0, average), updates, limited, state, new_state))
        return limited, new_state

    return optax.GradientTransformationExtraArgs(init, update)
