"""m_t: the directions. The plain gradient is `optax.identity()`.

`optax.trace` and `optax.ema` compute in the gradient's dtype and let a traced float32
decay widen a bfloat16 state, so that `scan` fails; these, with the same arguments,
compute in float32 or wider, keep every state's dtype, and return directions in the
gradient's.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
import optax

from optjax._arguments.checked import checked
from optjax._arguments.named import Decay, Finite, InexactDType, NonNegative
from optjax._observe import telling
from optjax._parts import Average, Other, Trace
from optjax._precision import full_like, next_count, one_minus_power, store, widen
from optjax._tree import cast_leaves, map_leaves


class TraceState(NamedTuple):
    """The decaying sum of gradients."""

    trace: optax.Updates


@checked
def trace(
    decay: Decay, nesterov: bool = False, accumulator_dtype: InexactDType = None
) -> optax.GradientTransformationExtraArgs:
    r"""m_t = g_t + μ m_{t−1}; with Nesterov, g_t + μ m_t is returned.

    A sum, not an average: under a constant gradient it grows to g / (1 − μ), so the
    same learning rate takes steps 1 / (1 − μ) times those of `ema`.

    Args:
      decay: the momentum μ in [0, 1).
      nesterov: look one step ahead.
      accumulator_dtype: dtype of the stored sum; the parameters' by default (float32
        for float16).

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx, g = optjax.trace(0.9), jnp.array(1.0)
      >>> m, state = tx.update(g, tx.init(g))
      >>> tx.update(g, state)[0]
      Array(1.9, dtype=float32)

    References: Polyak, "Some methods of speeding up the convergence of iteration
    methods", 1964; Sutskever et al., "On the importance of initialization and
    momentum in deep learning", ICML 2013 (Nesterov's in this form).
    """

    def init(params: optax.Params) -> TraceState:
        return TraceState(full_like(params, 0.0, accumulator_dtype))

    def update(
        updates: optax.Updates, state: TraceState, params: Any = None, **extra: Any
    ) -> tuple[optax.Updates, TraceState]:
        del params, extra
        total = map_leaves(
            lambda g, m: widen(g) + decay * widen(m), updates, state.trace
        )
        if nesterov:
            m = map_leaves(lambda g, m: widen(g) + decay * m, updates, total)
        else:
            m = total
        return cast_leaves(m, updates), TraceState(cast_leaves(total, state.trace))

    summed = optax.GradientTransformationExtraArgs(init, update)
    return telling(Trace(decay, nesterov), summed)


@runtime_checkable
class Averaging(Protocol):
    """The state of a direction that keeps a running average, not debiased."""

    ema: optax.Updates


class EmaState(NamedTuple):
    """The running average, not debiased, and the number of steps that debias it.

    Without debiasing `count` stays 0: a counter is a kernel of its own.
    """

    count: Any
    ema: optax.Updates


@checked
def ema(
    decay: Decay,
    debias: bool = True,
    accumulator_dtype: InexactDType = None,
    *,
    nesterov: bool = False,
    initial_value: Finite = 0.0,
) -> optax.GradientTransformationExtraArgs:
    r"""m_t = β₁ m_{t−1} + (1 − β₁) g_t; debiased, m̂_t = m_t / (1 − β₁ᵗ).

    With Nesterov's look-ahead, β₁ m̂_{t+1} + (1 − β₁) ĝ_t is returned, where
    m̂_{t+1} = m_t / (1 − β₁ᵗ⁺¹) and ĝ_t = g_t / (1 − β₁ᵗ) if debiased, and the plain
    m_t and g_t if not.

    Args:
      decay: β₁ in [0, 1).
      debias: divide out the bias towards the zero that the average starts from.
      accumulator_dtype: dtype of the stored average; the parameters' by default
        (float32 for float16).
      nesterov: look one step ahead.
      initial_value: what the average starts from.

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> g = jnp.array(1.0)
      >>> raw, debiased = optjax.ema(0.9, debias=False), optjax.ema(0.9)
      >>> [tx.update(g, tx.init(g))[0].round(3) for tx in (raw, debiased)]
      [Array(0.1, dtype=float32), Array(1., dtype=float32)]

    References: Kingma & Ba, "Adam", ICLR 2015 (debiasing); Dozat, "Incorporating
    Nesterov Momentum into Adam", 2016.
    """
    b1 = decay

    def init(params: optax.Params) -> EmaState:
        return EmaState(
            jnp.zeros([], jnp.int32),
            full_like(params, initial_value, accumulator_dtype),
        )

    def update(
        updates: optax.Updates, state: EmaState, params: Any = None, **extra: Any
    ) -> tuple[optax.Updates, EmaState]:
        del params, extra
        average = map_leaves(
            lambda g, m: (1 - b1) * widen(g) + b1 * widen(m), updates, state.ema
        )
        count = state.count
        now: Any = 1.0
        ahead: Any = 1.0
        if debias:
            count, t = next_count(count)
            now, ahead = one_minus_power(b1, t), one_minus_power(b1, t + 1)
        if nesterov:
            from_average, from_gradient = b1 / ahead, (1 - b1) / now
            m = map_leaves(
                lambda g, m: from_average * m + from_gradient * widen(g),
                updates,
                average,
            )
        else:
            m = map_leaves(lambda m: m / now, average) if debias else average
        return cast_leaves(m, updates), EmaState(count, cast_leaves(average, state.ema))

    averaged = optax.GradientTransformationExtraArgs(init, update)
    return telling(Average(b1, debias, nesterov), averaged)


class NadamEmaState(NamedTuple):
    """Steps taken, 1 − Π μ_i over them, and the running average."""

    count: Any
    gathered: Any
    ema: optax.Updates


@checked
def nadam_ema(
    b1: Decay, momentum_decay: NonNegative, accumulator_dtype: InexactDType = None
) -> optax.GradientTransformationExtraArgs:
    r"""m̄_t = (1 − μ_t) g_t / (1 − Π_{i≤t} μ_i) + μ_{t+1} m_t / (1 − Π_{i≤t+1} μ_i).

    NAdam's direction with its momentum schedule, μ_t = β₁ (1 − ½ · 0.96^{t ψ}), as
    PyTorch has it; m_t = β₁ m_{t−1} + (1 − β₁) g_t.

    Args:
      b1: β₁ in [0, 1).
      momentum_decay: ψ ≥ 0; 0.004 in the paper.
      accumulator_dtype: dtype of the stored average; the parameters' by default
        (float32 for float16).

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx, g = optjax.nadam_ema(0.9, 0.004), jnp.array(1.0)
      >>> m, state = tx.update(g, tx.init(g))
      >>> print(f"{m:.3f}")
      1.056

    Reference: Dozat, "Incorporating Nesterov Momentum into Adam", 2016.
    """

    def mu(t: Any) -> tuple[Any, Any]:
        """μ_t and 1 − μ_t, the latter without its cancellation near μ_t = 1."""
        missing = 0.5 * 0.96 ** (t * momentum_decay)
        return b1 * (1.0 - missing), (1.0 - b1) + b1 * missing

    def init(params: optax.Params) -> NadamEmaState:
        return NadamEmaState(
            jnp.zeros([], jnp.int32),
            jnp.zeros([], jnp.result_type(float)),
            full_like(params, 0.0, accumulator_dtype),
        )

    def update(
        updates: optax.Updates, state: NadamEmaState, params: Any = None, **extra: Any
    ) -> tuple[optax.Updates, NadamEmaState]:
        del params, extra
        count, t = next_count(state.count)
        now, rest = mu(t)
        ahead, rest_ahead = mu(t + 1)
        gathered = rest + now * state.gathered
        from_gradient = rest / gathered
        from_average = ahead / (rest_ahead + ahead * gathered)
        average = map_leaves(
            lambda g, m: (1 - b1) * widen(g) + b1 * widen(m), updates, state.ema
        )
        m = map_leaves(
            lambda g, m: from_gradient * widen(g) + from_average * m, updates, average
        )
        return cast_leaves(m, updates), NadamEmaState(
            count,
            store(gathered, state.gathered),
            cast_leaves(average, state.ema),
        )

    averaged = optax.GradientTransformationExtraArgs(init, update)
    return telling(Other("nadam_ema"), averaged)
