"""s_t = α_t / α_0: a learning rate that scales a step and its bounds alike.

α_0, the base, stands inside the bound and s_t outside. Since

    s · clip(r, lo, hi) = clip(s r, s lo, s hi)

whatever changes α_t then moves the bounds with it. The base is part of the state, so
that it makes no difference where a change comes from: a schedule, an injected number, a
hand, or an optimizer made anew for the same state.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optjax._arguments.checked import check_positive
from optjax._observe import tell
from optjax._parts import Link, RelativeToBase
from optjax._precision import Scalar, is_zero, precise, store
from optjax._tree import holds_arrays


class BaseRateState(NamedTuple):
    """Steps taken, α_0, and the state of the optimizer that it is the base of.

    A `base_lr` of 0 is one not known yet: the first α_t that is not 0 becomes the base.
    """

    count: Any
    base_lr: Any
    inner_state: optax.OptState


def has_base(node: Any) -> bool:
    """Whether it is such a state, and no copy of it among a compressed one's scales."""
    return isinstance(node, BaseRateState) and holds_arrays(node.base_lr)


def relative_to_base(
    make: Callable[[Scalar, Scalar], optax.GradientTransformation],
    learning_rate: optax.ScalarOrSchedule,
    base_lr: Scalar | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The optimizer `make(α_0, s_t)`, with α_0 from the state.

    Without `base_lr` α_0 is α when the state is made: the number, or the schedule at
    step 0. With it α_0 is its value at every step. While α_0 = 0, which only a traced
    value can be, s_t is 0.

    Args:
      make: from α_0 and s_t to an optimizer whose steps are proportional to s_t, and
        whose state depends on neither.
      learning_rate: α_t, a number, a traced scalar or a schedule.
      base_lr: α_0.
    """
    template = make(1.0, 1.0)

    def init(params: optax.Params) -> BaseRateState:
        count = jnp.zeros([], jnp.int32)
        if base_lr is not None:
            base = base_lr
        elif callable(learning_rate):
            base = learning_rate(count)
        else:
            check_positive(_FROM_ZERO, learning_rate=learning_rate)
            base = learning_rate
        return BaseRateState(count, _own(base), template.init(params))

    def update(
        updates: optax.Updates,
        state: BaseRateState,
        params: optax.Params | None = None,
        **extra: Any,
    ) -> tuple[optax.Updates, BaseRateState]:
        alpha = _number(
            learning_rate(state.count) if callable(learning_rate) else learning_rate
        )
        if base_lr is None:
            base = jnp.where(state.base_lr == 0, alpha, state.base_lr)
        else:
            base = _own(base_lr)
            # The old one is read, or its buffer could not be donated with the others.
            base = jnp.where(state.base_lr == base, state.base_lr, base)
        is_unknown = base == 0
        s = jnp.where(is_unknown, 0.0, alpha / jnp.where(is_unknown, 1.0, base))
        inner = optax.with_extra_args_support(make(base, s))
        result, inner_state = inner.update(updates, state.inner_state, params, **extra)
        new_state = BaseRateState(
            optax.safe_increment(state.count), store(base, state.base_lr), inner_state
        )
        # Without updates: those are in the links of what it is made of.
        part = RelativeToBase(make, learning_rate, base_lr)
        tell(Link(part, (), (), state, new_state))
        return result, new_state

    return optax.GradientTransformationExtraArgs(init, update)


def _number(value: Scalar) -> jax.Array:
    return jnp.asarray(value, jnp.result_type(float))


def _own(value: Scalar) -> jax.Array:
    # A buffer that is also a hyper-parameter in the state could not be donated twice.
    return jnp.array(value, jnp.result_type(float), copy=True)


def times(factor: Scalar, value: optax.ScalarOrSchedule) -> optax.ScalarOrSchedule:
    """A number or schedule, multiplied; a known 0 stays one, which costs nothing."""
    if callable(value):
        return lambda count: factor * precise(value(count))
    if is_zero(value):
        return value
    return factor * precise(value)


def relative_schedule(
    learning_rate: optax.ScalarOrSchedule, base_lr: Scalar | None
) -> optax.ScalarOrSchedule:
    """s_t = α_t / α_0 of a state that the optimizer itself has made."""
    if not callable(learning_rate):
        return 1.0 if base_lr is None else learning_rate / base_lr
    if base_lr is None:
        with jax.ensure_compile_time_eval():
            base_lr = learning_rate(jnp.zeros([], jnp.int32))
    return lambda count: learning_rate(count) / base_lr


def check_base(learning_rate: optax.ScalarOrSchedule, base_lr: Scalar | None) -> None:
    """α_0 > 0, and no rate of a schedule above an α_0 that is its first value.

    Raises:
      ValueError: naming the peak, where it is known.
    """
    if base_lr is not None:
        return
    if callable(learning_rate):
        _check_peak(learning_rate)
    elif not isinstance(learning_rate, jax.Array):
        # An array may be one that was set to 0 later; `init` looks at the first.
        check_positive(_FROM_ZERO, learning_rate=learning_rate)


_FROM_ZERO = (
    "It is the base that later rates are measured by; for one that starts at 0 give "
    "base_lr=, the learning rate that final_lr belongs to"
)

# Where a schedule is looked at: at every step of a short run, and closely enough in a
# long one to find the neighbourhood of its peak.
_HORIZON = 10**7
_COUNTS = np.unique(
    np.concatenate([np.arange(1024), np.geomspace(1024, _HORIZON, 1024)]).astype(
        np.int32
    )
)
# Where it has to be called one step at a time.
_FEW_COUNTS = np.concatenate([[0], 2 ** np.arange(24)]).astype(np.int32)

# A constant in float32 may differ from itself by this much.
_ROUNDING = 1e-5


def _check_peak(schedule: optax.Schedule) -> None:
    counts, values, evaluate = _look_ahead(schedule)
    if isinstance(values[0], jax.core.Tracer) or np.ndim(values[0]) > 0:
        return
    values = np.asarray(values)
    first, at = values[0], _argmax(values)
    rises = values[at] > first * (1 + _ROUNDING)
    if not first >= 0 or not rises:
        check_positive(_FROM_ZERO, **{"learning_rate(0)": first})
        return
    is_found = evaluate is not None and at < len(counts) - 1
    while is_found and counts[at + 1] - counts[at - 1] > 2:
        counts = np.linspace(
            counts[at - 1], counts[at + 1], len(counts), dtype=np.int32
        )
        counts[1:-1] = np.clip(counts[1:-1], counts[0] + 1, counts[-1] - 1)
        values = evaluate(counts)
        at = min(max(_argmax(values), 1), len(counts) - 2)
    peak = f"{values[at]:.6g}"
    raise ValueError(
        "learning_rate(0) must be the highest value of a schedule without base_lr, got "
        f"{first:.6g}, and {peak} at step {counts[at]}. It is the base that later "
        "rates are measured by: give base_lr="
        + (f"{peak}, the peak." if is_found else ", the rate that final_lr belongs to.")
    )


def _argmax(values: np.ndarray) -> int:
    return int(np.argmax(np.nan_to_num(values, nan=-np.inf)))


def _look_ahead(schedule: optax.Schedule) -> tuple[np.ndarray, Any, Any]:
    """Counts, the schedule's values there, and a function that gives more of them.

    A schedule that can be traced is called once; one with effects, which would be those
    of thousands of steps, only for its first value; one in plain Python a few times.
    """
    # Here, since it loads what importing optjax should not.
    from jax.extend.core import jaxpr_as_fun

    try:
        program = jax.make_jaxpr(jax.vmap(schedule))(_COUNTS)
    except Exception:
        return _FEW_COUNTS, _one_by_one(schedule), None
    if program.effects or any(isinstance(c, jax.core.Tracer) for c in program.consts):
        with jax.ensure_compile_time_eval():
            return _COUNTS[:1], [schedule(jnp.asarray(_COUNTS[0]))], None
    compiled = jax.jit(jaxpr_as_fun(program))

    def evaluate(counts: np.ndarray) -> np.ndarray:
        with jax.ensure_compile_time_eval():
            (values,) = compiled(counts)
        return np.asarray(values)

    return _COUNTS, evaluate(_COUNTS), evaluate


def _one_by_one(schedule: optax.Schedule) -> list[Any]:
    values: list[Any] = []
    with jax.ensure_compile_time_eval():
        for count in _FEW_COUNTS:
            try:
                values.append(schedule(jnp.asarray(count)))
            except Exception:
                if not values:
                    raise
                break  # Such as a table that ends.
            if isinstance(values[0], jax.core.Tracer):
                break
    return values
