"""lo_t ≤ V_t ≤ hi_t: clip a rate between bounds that may close over time.

A bound is a number or a function of the step t = 1, 2, … (Optax schedules, by
contrast, count from 0). `Bounds` holds a pair of them, so that

    bound_clip(*hyperbolic_bounds(final_lr=0.1, gamma=1e-3))

is AdaBound's. All the pairs here close on one rate f, in the order of how fast:

    constant_bounds      lo            hi                        never
    hyperbolic_bounds    f·γt/(γt+1)   f·(1 + 1/γt)              as 1/(γt)
    linear_bounds        f·t/T         f·T/t                     at t = T
    exponential_bounds   f·(1−e^−γt)   f/(1−e^−γt)               as e^−γt
"""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optjax._arguments.checked import check, checked
from optjax._arguments.kind import Kind
from optjax._arguments.named import Positive
from optjax._arguments.numbers import (
    FunctionOr,
    Number,
    above,
    between,
    nonnegative,
    positive,
)
from optjax._observe import tell
from optjax._parts import Clip, Link
from optjax._precision import Scalar, away_from_zero, next_count, store
from optjax._tree import map_leaves

Bound: TypeAlias = Scalar | Callable[[Any], Any]


def _or_of_the_step(other: Kind) -> Kind:
    return FunctionOr(
        "a function of the step",
        other,
        "It is called with t = 1, 2, … and nothing else",
    )


_lower = nonnegative("A rate is a step size")
# Infinity is no bound at all.
_upper = Number("a number >= 0", lambda x: x >= 0, "A rate is a step size")
_Lower: TypeAlias = Annotated[Scalar, _lower]
_Upper: TypeAlias = Annotated[Scalar, _upper]
LowerOf: TypeAlias = Annotated[Bound, _or_of_the_step(_lower)]
UpperOf: TypeAlias = Annotated[Bound, _or_of_the_step(_upper)]
FinalRate: TypeAlias = Annotated[
    Scalar,
    positive(
        "It is the rate that both bounds converge to, which multiplies m: with an "
        "average of gradients for m, SGD's learning rate in the end is "
        "final_lr * (1 - b1)"
    ),
]
Speed: TypeAlias = Annotated[
    Scalar, nonnegative("It is the speed at which the bounds close")
]
_Steps: TypeAlias = Annotated[float, positive()]
_RunShare: TypeAlias = Annotated[float, above(0, "It is a share of the run", most=1)]
_Factor: TypeAlias = Annotated[float, above(1, "1.1 is ten percent")]


#: A band within this factor of the rate in its middle is closed.
_CLOSED = 1.1


class Bounds(NamedTuple):
    """A lower and an upper bound, each a number or a function of t = 1, 2, …"""

    lower: Bound
    upper: Bound


class BoundClipState(NamedTuple):
    """Steps taken."""

    count: Any


@checked
def bound_clip(lower: LowerOf, upper: UpperOf) -> optax.GradientTransformationExtraArgs:
    r"""V_t ↦ clip(V_t, lo_t, hi_t), for the rate branch of `basic_form`.

    It clips rates, not updates: put it after a `rate_by_*` and `optax.scale(α)`, so
    that the bounds have the unit of a learning rate.

    Args:
      lower: lo, a number or a function of the step t = 1, 2, …
      upper: hi, likewise, or infinity. Where lo_t > hi_t the upper bound wins.

    Raises:
      ValueError: for concrete bounds that are negative or in the wrong order.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx = optjax.bound_clip(0.01, upper=lambda t: 1.0 / t)
      >>> rate = jnp.array([0.001, 0.5, 2.0])
      >>> tx.update(rate, tx.init(rate))[0]
      Array([0.01, 0.5 , 1.  ], dtype=float32)

    Reference: Luo et al., "Adaptive Gradient Methods with Dynamic Bound of Learning
    Rate", ICLR 2019.
    """
    check_order(lower, upper)

    def update(
        updates: optax.Updates, state: BoundClipState, params: Any = None, **extra: Any
    ) -> tuple[optax.Updates, BoundClipState]:
        del params, extra
        count, t = next_count(state.count)
        lo = jnp.asarray(lower(t) if callable(lower) else lower)
        hi = jnp.asarray(upper(t) if callable(upper) else upper)
        # jnp.clip is the same inside a jit of its own, one more equation a leaf.
        clipped = map_leaves(
            lambda v: jnp.minimum(jnp.maximum(v, store(lo, v)), store(hi, v)), updates
        )
        new_state = BoundClipState(count)
        tell(Link(Clip(lo, hi, (lower, upper)), updates, clipped, state, new_state))
        return clipped, new_state

    def init(params: optax.Params) -> BoundClipState:
        del params
        return BoundClipState(jnp.zeros([], jnp.int32))

    return optax.GradientTransformationExtraArgs(init, update)


@checked
def constant_bounds(lower: _Lower, upper: _Upper) -> Bounds:
    """lo_t = lower, hi_t = upper: a band that never closes.

    Args:
      lower: lo ≥ 0.
      upper: hi ≥ lo.

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

    Example:
      >>> import optjax
      >>> optjax.constant_bounds(0.01, 0.1)
      Bounds(lower=0.01, upper=0.1)
    """
    check_order(lower, upper)
    return Bounds(lower, upper)


@checked
def hyperbolic_bounds(final_lr: FinalRate = 0.1, gamma: Speed = 1e-3) -> Bounds:
    r"""lo_t = f (1 − 1/(γt + 1)), hi_t = f (1 + 1/(γt)): AdaBound's.

    Args:
      final_lr: f > 0, the rate that both bounds converge to.
      gamma: γ ≥ 0 per step, the speed; 0 leaves the rate unbounded, which is Adam.
        `gamma_for` turns a number of steps into a γ.

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

    Example:
      >>> import optjax
      >>> lower, upper = optjax.hyperbolic_bounds(final_lr=0.1, gamma=0.01)
      >>> print(f"{lower(100):.3f} {upper(100):.3f}")
      0.050 0.200

    Reference: Luo et al., ICLR 2019, section 4; the authors' code, whose default γ is
    1e-3 and where 1/(γt + 1) and 1/(γt) stand in place of the paper's
    1/((1 − β₂)t + 1) and 1/((1 − β₂)t).
    """

    # γt/(γt+1) is 1 − 1/(γt+1) without its cancellation at small γt.
    def lower(t: Any) -> Any:
        elapsed = _elapsed(gamma, t)
        return final_lr * (elapsed / (elapsed + 1.0))

    # Where γ = 0 the upper bound is f/√tiny: no bound, rather than 1/0.
    def upper(t: Any) -> Any:
        return final_lr * (1.0 + 1.0 / away_from_zero(_elapsed(gamma, t)))

    return Bounds(lower, upper)


@checked
def exponential_bounds(final_lr: FinalRate = 0.1, gamma: Speed = 1e-3) -> Bounds:
    r"""lo_t = f (1 − e^{−γt}), hi_t = f / (1 − e^{−γt}).

    Starts as `hyperbolic_bounds` does and closes far sooner: within 1 % of f at
    γt = 4.6 instead of 100.

    Args:
      final_lr: f > 0.
      gamma: γ ≥ 0 per step.

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

    Example:
      >>> import optjax
      >>> lower, upper = optjax.exponential_bounds(final_lr=0.1, gamma=0.01)
      >>> print(f"{lower(100):.3f} {upper(100):.3f}")
      0.063 0.158
    """

    def share(t: Any) -> Any:
        return -jnp.expm1(-_elapsed(gamma, t))

    return Bounds(
        lower=lambda t: final_lr * share(t),
        upper=lambda t: final_lr / away_from_zero(share(t)),
    )


@checked
def linear_bounds(final_lr: FinalRate, horizon: Positive) -> Bounds:
    r"""lo_t = f · min(t/T, 1), hi_t = f · max(T/t, 1): closed from t = T on.

    The lower bound rises linearly; the upper is its mirror image, lo_t · hi_t = f².

    Args:
      final_lr: f > 0.
      horizon: T > 0 in steps, the step from which the optimizer is SGD.

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

    Example:
      >>> import optjax
      >>> lower, upper = optjax.linear_bounds(final_lr=0.1, horizon=1000)
      >>> print(f"{lower(500):.3f} {upper(500):.3f} {upper(2000):.3f}")
      0.050 0.200 0.100
    """
    return Bounds(
        lower=lambda t: final_lr * jnp.minimum(t / horizon, 1.0),
        upper=lambda t: final_lr * jnp.maximum(horizon / t, 1.0),
    )


@checked
def gamma_for(
    steps: _Steps, fraction: _RunShare = 0.5, factor: _Factor = _CLOSED
) -> float:
    r"""γ = 1 / ((factor − 1) · fraction · steps).

    The γ of `hyperbolic_bounds` (and of `adabound`) at which the whole band lies
    within a factor of final_lr, final_lr/factor ≤ lo_t ≤ hi_t ≤ final_lr·factor, from
    the given share of the run on. The published default 1e-3 is within a factor 1.1
    only after 10,000 steps.

    Args:
      steps: length of the run in optimizer steps.
      fraction: share of the run, in (0, 1], after which the band counts as closed.
      factor: how close, > 1.

    Returns:
      γ per step.

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

    Example:
      >>> import optjax
      >>> print(f"{optjax.gamma_for(steps=10_000, fraction=0.5, factor=1.1):.4f}")
      0.0020
    """
    return 1.0 / ((factor - 1.0) * fraction * steps)


def band_note(lower: float, upper: float, steps: float) -> str:
    """How far from closed a band is at the end of a run, in words; "" where it is not.

    Args:
      lower: lo_t at the last step.
      upper: hi_t.
      steps: of the run.

    Example:
      >>> from optjax._bound import band_note
      >>> band_note(0.039, 0.256, 640)
      'the band is still 0.039 to 0.26 wide at step 640; gamma=0.031 closes it half way'
    """
    if not (steps > 0 and np.isfinite(upper)) or upper <= lower * _CLOSED**2:
        return ""
    return (
        f"the band is still {lower:.2g} to {upper:.2g} wide at step {steps}; "
        f"gamma={gamma_for(float(steps), factor=_CLOSED):.2g} closes it half way"
    )


def check_order(lower: Bound, upper: Bound) -> None:
    """Where both are numbers and known."""
    if not any(callable(b) or isinstance(b, jax.core.Tracer) for b in (lower, upper)):
        least = float(lower)  # type: ignore[arg-type]
        hint = "It must not lie below lower; swap them"
        check(between(least, np.inf, hint), upper=upper)


def _elapsed(gamma: Scalar, t: Any) -> jax.Array:
    """γt, and 1/√tiny instead of infinity: the bounds have long been f to the last bit.

    The product of two Python numbers may be one that float32 does not hold.
    """
    product = gamma * jnp.asarray(t, jnp.result_type(float))
    return jnp.minimum(product, float(jnp.finfo(product.dtype).tiny) ** -0.5)
