"""ν_t: the accumulated squares behind a rate.

Each is a gradient transformation g_t ↦ ν_t ≥ 0, real and in float32 or wider; the
state has the real dtype of the parameters, float32 for float16 ones, or `nu_dtype`.

    sum_of_squares           ν_t = Σ g²                          Adagrad
    mean_of_squares          ν_t = Σ k^−γ g_k² / Σ k^−γ          NosAdam
    ema_of_squares           ν_t = ema(g²)                       RMSProp, Adam
    running_max              ν_t = max(ν_1, …, ν_t)              AMSGrad
    ema_of_squared_residuals ν_t = ema((g − m)²)                 AdaBelief
    centered_ema_of_squares  ν_t = ema(g²) − ema(g)²             centered RMSProp
    sign_ema_of_squares      ν_t moves towards g² by (1 − β₂) g² Yogi
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jax import lax

from optjax._arguments.checked import checked
from optjax._arguments.named import Decay, FloatDType, InexactDType, NonNegative
from optjax._direction import Averaging
from optjax._observe import telling
from optjax._parts import Other, RunningMax, SquareAverage, SquareDebias, SquareSum
from optjax._precision import (
    Scalar,
    abs_sq,
    full_like,
    next_count,
    one_minus_power,
    real_full_like,
    store,
    widen,
)
from optjax._tree import cast_leaves, map_leaves


class SumState(NamedTuple):
    """The sum of squares."""

    nu: optax.Updates


@checked
def sum_of_squares(
    initial_value: NonNegative = 0.0, *, nu_dtype: FloatDType = None
) -> optax.GradientTransformationExtraArgs:
    r"""ν_t = ν_{t−1} + |g_t|², which never decreases, so the rate dries up.

    Args:
      initial_value: ν_0 ≥ 0.
      nu_dtype: dtype in which ν is stored; by default the parameters', real (float32
        for float16). In bfloat16 the sum stops growing after a few hundred steps.

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx, g = optjax.sum_of_squares(), jnp.array(3.0)
      >>> tx.update(g, tx.init(g))[0]
      Array(9., dtype=float32)

    Reference: Duchi et al., "Adaptive Subgradient Methods", JMLR 2011.
    """

    def init(params: optax.Params) -> SumState:
        return SumState(real_full_like(params, initial_value, nu_dtype))

    def update(
        updates: optax.Updates, state: SumState, params: Any = None, **extra: Any
    ) -> tuple[optax.Updates, SumState]:
        del params, extra
        nu = map_leaves(lambda g, v: abs_sq(g) + widen(v), updates, state.nu)
        return nu, SumState(cast_leaves(nu, state.nu))

    squares = optax.GradientTransformationExtraArgs(init, update)
    return telling(SquareSum(), squares)


class MeanState(NamedTuple):
    """Steps taken, B_t = Σ k^−γ over them, and the weighted mean of squares.

    `compensation` is what rounding has added to `total_weight` (Kahan): without it
    B_t is 14 % too small after ten million steps in float32.
    """

    count: Any
    total_weight: Any
    compensation: Any
    nu: optax.Updates


@checked
def mean_of_squares(
    gamma: NonNegative = 0.0, *, nu_dtype: FloatDType = None
) -> optax.GradientTransformationExtraArgs:
    r"""ν_t = Σ_{k≤t} k^−γ |g_k|² / B_t with B_t = Σ_{k≤t} k^−γ.

    A running average whose decay grows, β_{2,t} = B_{t−1} / B_t, so that early squares
    weigh no less (γ = 0: the plain mean) or more (γ > 0) than late ones.

    Args:
      gamma: γ ≥ 0, how much the past is favoured.
      nu_dtype: dtype in which ν is stored; by default the parameters', real (float32
        for float16). In bfloat16 the mean stands still after a few hundred steps.

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx = optjax.mean_of_squares()
      >>> state = tx.init(jnp.array(0.0))
      >>> for g in [1.0, 2.0, 3.0]:
      ...     nu, state = tx.update(jnp.array(g), state)
      >>> print(f"{nu:.4f}")
      4.6667

    Reference: Huang et al., "Nostalgic Adam", IJCAI 2019.
    """

    def init(params: optax.Params) -> MeanState:
        return MeanState(
            jnp.zeros([], jnp.int32),
            jnp.zeros([], jnp.result_type(float)),
            jnp.zeros([], jnp.result_type(float)),
            real_full_like(params, 0.0, nu_dtype),
        )

    def update(
        updates: optax.Updates, state: MeanState, params: Any = None, **extra: Any
    ) -> tuple[optax.Updates, MeanState]:
        del params, extra
        count, t = next_count(state.count)
        weight = t**-gamma
        missing = weight - state.compensation
        total = state.total_weight + missing
        compensation = (total - state.total_weight) - missing
        share = weight / total

        def towards(g: Any, v: Any) -> Any:
            # By what is missing: 1 − share is rounded to 6e-8, which a share of 1e-7
            # would feel. Once infinite ν stays so, and is not ∞ − ∞.
            v = widen(v)
            largest = float(jnp.finfo(v.dtype).max)
            return v + share * (abs_sq(g) - jnp.minimum(v, largest))

        nu = map_leaves(towards, updates, state.nu)
        return nu, MeanState(
            count,
            store(total, state.total_weight),
            store(compensation, state.compensation),
            cast_leaves(nu, state.nu),
        )

    mean = optax.GradientTransformationExtraArgs(init, update)
    return telling(Other("mean_of_squares"), mean)


class SquareState(NamedTuple):
    """The running average of squares, not debiased, and the steps that debias it.

    Without debiasing `count` stays 0: a counter is a kernel of its own.
    """

    count: Any
    nu: optax.Updates


@checked
def ema_of_squares(
    b2: Decay,
    debias: bool = True,
    initial_value: NonNegative = 0.0,
    *,
    nu_dtype: FloatDType = None,
) -> optax.GradientTransformationExtraArgs:
    r"""ν_t = β₂ ν_{t−1} + (1 − β₂) |g_t|²; debiased, ν̂_t = ν_t / (1 − β₂ᵗ).

    Args:
      b2: β₂ in [0, 1).
      debias: divide out the bias towards the value that the average starts from.
      initial_value: ν_0 ≥ 0.
      nu_dtype: dtype in which ν is stored; by default the parameters', real (float32
        for float16). Plainly rounded to bfloat16, ν stalls at β₂ = 0.999, at a fifth to
        a third of its true value: there use `optjax.stochastic_rounding`
        instead.

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx, g = optjax.ema_of_squares(0.9, debias=False), jnp.array(2.0)
      >>> tx.update(g, tx.init(g))[0]
      Array(0.4, dtype=float32)

    References: Tieleman & Hinton, "RMSProp", 2012; Kingma & Ba, "Adam", ICLR 2015.
    """

    def step(g: Any, v: Any) -> Any:
        return (1 - b2) * abs_sq(g) + b2 * widen(v)

    average = _square_average(step, b2, debias, initial_value, nu_dtype)
    return telling(SquareAverage(b2, debias), average)


@checked
def sign_ema_of_squares(
    b2: Decay,
    debias: bool = True,
    initial_value: NonNegative = 1e-6,
    *,
    nu_dtype: FloatDType = None,
) -> optax.GradientTransformationExtraArgs:
    r"""ν_t = ν_{t−1} − (1 − β₂) sign(ν_{t−1} − |g_t|²) |g_t|², Yogi's accumulator.

    Its change is of the order of |g_t|² and not of ν, so one small gradient cannot
    collapse ν and blow up the rate.

    Args:
      b2: β₂ in [0, 1).
      debias: divide by 1 − β₂ᵗ.
      initial_value: ν_0 ≥ 0.
      nu_dtype: dtype in which ν is stored; bfloat16 stalls, see `ema_of_squares`.

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx, g = optjax.sign_ema_of_squares(0.9, debias=False), jnp.array(1.0)
      >>> print(f"{tx.update(g, tx.init(g))[0]:.6f}")
      0.100001

    Reference: Zaheer et al., "Adaptive Methods for Nonconvex Optimization",
    NeurIPS 2018.
    """

    def step(g: Any, v: Any) -> Any:
        square, v = abs_sq(g), widen(v)
        change = store((1 - b2) * square, v)
        # sign(v − square) would be NaN where both have overflowed to infinity.
        risen = lax.select(v < square, v + change, v)
        return lax.select(v > square, v - change, risen)

    average = _square_average(step, b2, debias, initial_value, nu_dtype)
    return telling(Other("sign_ema_of_squares"), average)


@checked
def ema_of_squared_residuals(
    b2: Decay,
    eps_root: NonNegative = 1e-16,
    debias: bool = True,
    *,
    nu_dtype: FloatDType = None,
) -> optax.GradientTransformationExtraArgs:
    r"""ν_t = β₂ ν_{t−1} + (1 − β₂) |g_t − m_t|² + ε̄, AdaBelief's accumulator.

    Small where the gradient is what its average foretold, so that a trusted direction
    takes a large step. m_t is the average, not debiased, that the direction branch of
    `precondition` keeps, so that branch must be an `ema`.

    Args:
      b2: β₂ in [0, 1).
      eps_root: ε̄ ≥ 0, added at every step.
      debias: divide by 1 − β₂ᵗ.
      nu_dtype: dtype in which ν is stored; bfloat16 stalls, see `ema_of_squares`.

    Raises:
      ValueError: in `update`, where the direction branch keeps no average.

    Example:
      >>> import optax, optjax
      >>> tx = optjax.basic_form(
      ...     direction=optjax.ema(0.9),
      ...     rate=optjax.rate_by_accumulated_square(
      ...         optjax.ema_of_squared_residuals(0.999), eps=1e-16
      ...     ),
      ...     learning_rate=1e-3,
      ... )

    Reference: Zhuang et al., "AdaBelief Optimizer", NeurIPS 2020.
    """

    def step(residual: Any, v: Any) -> Any:
        return (1 - b2) * abs_sq(residual) + b2 * widen(v) + eps_root

    average = _square_average(step, b2, debias, 0.0, nu_dtype)

    def update(
        updates: optax.Updates,
        state: SquareState,
        params: Any = None,
        *,
        direction_state: Any = None,
        **extra: Any,
    ) -> tuple[optax.Updates, SquareState]:
        del params, extra
        if not isinstance(direction_state, Averaging):
            raise ValueError(
                "ema_of_squared_residuals measures g - m and needs the direction "
                "branch to be optjax.ema(...), got a direction whose state is "
                f"{type(direction_state).__name__}. Use it inside "
                "precondition(direction=optjax.ema(b1), rate=...) or basic_form."
            )
        residual = map_leaves(
            lambda g, m: widen(g) - widen(m), updates, direction_state.ema
        )
        nu, new_state = average.update(residual, state)
        return nu, new_state

    residuals = optax.GradientTransformationExtraArgs(average.init, update)
    return telling(Other("ema_of_squared_residuals"), residuals)


def _square_average(
    step: Any, b2: Scalar, debias: bool, initial_value: Scalar, nu_dtype: Any
) -> optax.GradientTransformationExtraArgs:
    def init(params: optax.Params) -> SquareState:
        return SquareState(
            jnp.zeros([], jnp.int32), real_full_like(params, initial_value, nu_dtype)
        )

    def update(
        updates: optax.Updates, state: SquareState, params: Any = None, **extra: Any
    ) -> tuple[optax.Updates, SquareState]:
        del params, extra
        nu = map_leaves(step, updates, state.nu)
        stored = cast_leaves(nu, state.nu)
        if not debias:
            return nu, SquareState(state.count, stored)
        count, t = next_count(state.count)
        gathered = one_minus_power(b2, t)
        return map_leaves(lambda v: v / gathered, nu), SquareState(count, stored)

    return optax.GradientTransformationExtraArgs(init, update)


class CenteredState(NamedTuple):
    """The running averages of g and of |g|², not debiased, and the steps that do so.

    Without debiasing `count` stays 0.
    """

    count: Any
    mu: optax.Updates
    nu: optax.Updates


@checked
def centered_ema_of_squares(
    b2: Decay,
    debias: bool = False,
    initial_value: NonNegative = 0.0,
    *,
    mu_dtype: InexactDType = None,
    nu_dtype: FloatDType = None,
) -> optax.GradientTransformationExtraArgs:
    r"""ν_t = ema(|g|²) − |ema(g)|², an estimate of the gradient's variance.

    Args:
      b2: the decay β₂ in [0, 1) of both averages.
      debias: divide each average by 1 − β₂ᵗ first.
      initial_value: where the average of squares starts, ≥ 0.
      mu_dtype: dtype in which ema(g) is stored; the parameters' by default (float32 for
        float16).
      nu_dtype: that of ema(|g|²); bfloat16 stalls, see `ema_of_squares`.

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx, g = optjax.centered_ema_of_squares(0.9), jnp.array(1.0)
      >>> print(f"{tx.update(g, tx.init(g))[0]:.2f}")
      0.09

    Reference: Graves, "Generating Sequences With Recurrent Neural Networks", 2013.
    """

    def init(params: optax.Params) -> CenteredState:
        return CenteredState(
            jnp.zeros([], jnp.int32),
            full_like(params, 0.0, mu_dtype),
            real_full_like(params, initial_value, nu_dtype),
        )

    def update(
        updates: optax.Updates, state: CenteredState, params: Any = None, **extra: Any
    ) -> tuple[optax.Updates, CenteredState]:
        del params, extra
        mu = map_leaves(
            lambda g, m: (1 - b2) * widen(g) + b2 * widen(m), updates, state.mu
        )
        nu = map_leaves(
            lambda g, v: (1 - b2) * abs_sq(g) + b2 * widen(v), updates, state.nu
        )
        count = state.count
        stored = cast_leaves(mu, state.mu), cast_leaves(nu, state.nu)
        if debias:
            count, t = next_count(count)
            gathered = one_minus_power(b2, t)
            mu = map_leaves(lambda m: m / gathered, mu)
            nu = map_leaves(lambda v: v / gathered, nu)

        def variance(m: Any, v: Any) -> Any:
            # Rounding can push a variance of 0 below it, and the root to NaN; so can
            # ∞ − ∞, where the squares have overflowed.
            largest = float(jnp.finfo(v.dtype).max)
            return v - jnp.minimum(jnp.minimum(abs_sq(m), v), largest)

        return map_leaves(variance, mu, nu), CenteredState(count, *stored)

    centered = optax.GradientTransformationExtraArgs(init, update)
    return telling(Other("centered_ema_of_squares"), centered)


class MaxState(NamedTuple):
    """The largest ν so far."""

    nu_max: optax.Updates


@checked
def running_max(
    *, nu_dtype: FloatDType = None
) -> optax.GradientTransformationExtraArgs:
    r"""ν̄_t = max(ν̄_{t−1}, ν_t), to follow an accumulator in a chain.

    Optax's AMSGrad takes the maximum of the debiased average, PyTorch's of the raw
    one (and debiases after, `debias_squares`); which stands where in the chain says
    which is meant.

    Args:
      nu_dtype: dtype in which ν̄ is stored; by default the parameters', real (float32
        for float16).

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

    Example:
      >>> import jax.numpy as jnp, optax, optjax
      >>> tx = optax.chain(optjax.ema_of_squares(0.0), optjax.running_max())
      >>> state = tx.init(jnp.array(0.0))
      >>> for g in [2.0, 1.0]:
      ...     nu, state = tx.update(jnp.array(g), state)
      >>> nu
      Array(4., dtype=float32)

    Reference: Reddi et al., "On the Convergence of Adam and Beyond", ICLR 2018.
    """

    def init(params: optax.Params) -> MaxState:
        return MaxState(real_full_like(params, 0.0, nu_dtype))

    def update(
        updates: optax.Updates, state: MaxState, params: Any = None, **extra: Any
    ) -> tuple[optax.Updates, MaxState]:
        del params, extra
        nu_max = map_leaves(
            lambda v, top: jnp.maximum(v, store(top, v)), updates, state.nu_max
        )
        return nu_max, MaxState(cast_leaves(nu_max, state.nu_max))

    largest = optax.GradientTransformationExtraArgs(init, update)
    return telling(RunningMax(), largest)


class DebiasState(NamedTuple):
    """Steps taken."""

    count: Any


@checked
def debias_squares(b2: Decay) -> optax.GradientTransformationExtraArgs:
    r"""ν̂_t = ν_t / (1 − β₂ᵗ), apart from the average it belongs to.

    Args:
      b2: β₂ in [0, 1), the decay of that average.

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx, nu = optjax.debias_squares(0.75), jnp.array(1.0)
      >>> print(f"{tx.update(nu, tx.init(nu))[0]:.4f}")
      4.0000
    """

    def init(params: optax.Params) -> DebiasState:
        del params
        return DebiasState(jnp.zeros([], jnp.int32))

    def update(
        updates: optax.Updates, state: DebiasState, params: Any = None, **extra: Any
    ) -> tuple[optax.Updates, DebiasState]:
        del params, extra
        count, t = next_count(state.count)
        gathered = one_minus_power(b2, t)
        return map_leaves(lambda v: v / gathered, updates), DebiasState(count)

    debiased = optax.GradientTransformationExtraArgs(init, update)
    return telling(SquareDebias(b2), debiased)
