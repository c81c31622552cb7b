"""What `apply_step` makes of an optimizer, told in words before anything runs."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import optax

from optjax._arguments.checked import checked
from optjax._arguments.named import ArrayTree, Transformation
from optjax._observe import Observation, trace_once
from optjax._tree import leaf_names
from optjax.fused._apply import calls_for, why_nothing

__all__ = ["StepExplanation", "explain_step"]

# Names in a line, of those that share it.
_SHOWN = 4


class StepExplanation(NamedTuple):
    """Which parameters `apply_step` compiles, by their paths joined by "/".

    Attributes:
      compiled: the form of each that the compiled step updates: its rate, if not 1, its
        direction, and the terms around them.
      others: for each of the others, which XLA compiles from `update`, why.
    """

    compiled: Mapping[str, str]
    others: Mapping[str, str]

    def __str__(self) -> str:
        total = len(self.compiled) + len(self.others)
        kinds = {"by the compiled step": self.compiled, "by `update`": self.others}
        lines = []
        for how, leaves in kinds.items():
            lines += [f"{how}: {len(leaves)} of {total} parameters"] * bool(leaves)
            for text in dict.fromkeys(leaves.values()):
                names = [name or "(all)" for name, own in leaves.items() if own == text]
                more = [f"{len(names) - _SHOWN} more"] * (len(names) > _SHOWN)
                lines.append(f"  {text}: {', '.join([*names[:_SHOWN], *more])}")
        return "\n".join(lines)


@checked
def explain_step(
    optimizer: Transformation, params: ArrayTree, **extra: Any
) -> StepExplanation:
    r"""Whether `apply_step` steps by x − s_t · V_t ⊙ m_t in one pass, and why not.

    For gradients of the dtypes of the parameters, and a step inside `jit`. The
    optimizer's `update` is traced once and nothing is computed.

    Args:
      optimizer: any Optax gradient transformation.
      params: the parameters, or their shapes (`jax.ShapeDtypeStruct`).
      **extra: further arguments of the optimizer's `update`.

    Returns:
      For each parameter the compiled form or the reason against; it prints as a table.

    Raises:
      ValueError: as `update` does; for a bad value of `OPTJAX_FUSED`.

    Example:
      >>> import jax.numpy as jnp, optax, optjax
      >>> x = {"w": jnp.ones(3), "b": jnp.ones(1)}
      >>> tx = optax.partition({"a": optjax.adam(0.1), "y": optjax.yogi(0.1)},
      ...                      {"w": "a", "b": "y"})
      >>> explanation = optjax.explain_step(tx, x)
      >>> if optjax.fused_step_available():
      ...     print(explanation)  # doctest: +NORMALIZE_WHITESPACE
      by the compiled step: 1 of 2 parameters
        V of ν, m: w
      by `update`: 1 of 2 parameters
        the compiled step knows no sign_ema_of_squares: b
    """
    names = leaf_names(params)
    reason = why_nothing()
    if reason:
        return StepExplanation({}, dict.fromkeys(names, reason))
    inner = optax.with_extra_args_support(optimizer)
    compiled: dict[int, str] = {}
    others: dict[int, str] = {}

    def step(params: optax.Params, state: optax.OptState) -> None:
        def look(seen: Observation) -> None:
            updates, _ = inner.update(params, state, params, **extra)
            calls, why = calls_for(seen, updates, params)
            for call in calls:
                compiled.update(dict.fromkeys(call.places, str(call.form)))
            others.update(why)

        trace_once(look)

    jax.eval_shape(step, params, jax.eval_shape(inner.init, params))
    by_name = ({names[i]: x[i] for i in sorted(x)} for x in (compiled, others))
    return StepExplanation(*by_name)
