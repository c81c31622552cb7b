"""Update and apply in one call, in one pass over memory where that is possible."""

import functools
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import optax

from optjax._arguments.checked import checked
from optjax._arguments.named import ArrayTree, OptimizerState, Transformation
from optjax._observe import Observation, trace_once
from optjax.fused._library import why_unavailable
from optjax.fused._plan import Call, plan

__all__ = ["apply_step", "calls_for", "why_nothing"]


@checked
def apply_step(
    optimizer: Transformation,
    grads: ArrayTree,
    state: OptimizerState,
    params: ArrayTree,
    **extra: Any,
) -> tuple[optax.Params, optax.OptState]:
    r"""x[t+1] = x[t] − s_t · V_t ⊙ m_t: `update` and `optax.apply_updates` in one call.

    It returns what they return. On the CPU, where optjax was installed with a C++
    compiler, the parameters and the state of `sgd` (plain, with momentum, Nesterov's),
    `adagrad`, `rmsprop`, `adam`, `adamw`, `nadam`, `amsgrad`, `adabound`, `amsbound`,
    `adaboundw`, `graftbound`, and of any `basic_form` of the same parts, are each read
    and written once by one compiled loop, where XLA reads them once for each output;
    also inside `optax.chain`, `masked`, `partition` and `inject_hyperparams`. Every
    other optimizer, part or dtype is updated as it would be without;
    `optjax.explain_step` tells which is which. A program for another platform, and one
    that `jax.export` makes, holds the same step written in JAX.

    The optimizer's own Python and side effects run as often as with `update`. Call it
    within `jit`: outside of it, and of other transformations of JAX, the call is
    `update` and `apply_updates`, whose Python may need numbers that a trace has not.

    Jit the training step with parameters and state donated, in the same order among
    its arguments and its results, such as `step(params, state, batch) -> (params,
    state)`: in another order XLA exchanges their buffers and copies each.

    Args:
      optimizer: any Optax gradient transformation.
      grads: the gradients, a tree like `params`.
      state: the optimizer's state.
      params: the parameters.
      **extra: further arguments of the optimizer's `update`.

    Returns:
      The new parameters and the new state, equal to those of `update` followed by
      `optax.apply_updates` but for rounding: to 1e-6 of the largest number of a leaf
      in float32, and where any array is bfloat16 to 2⁻⁷ of it, one last place, or 2⁻⁶
      with weight decay in the gradient (L2).

    Raises:
      ValueError: as `update` does.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx, x, g = optjax.adam(0.1), jnp.array([1.0, 2.0]), jnp.array([5.0, -3.0])
      >>> x, state = optjax.apply_step(tx, g, tx.init(x), x)
      >>> [f"{number:.3f}" for number in x]
      ['0.900', '2.100']
    """
    inner = optax.with_extra_args_support(optimizer)
    operands = grads, state, params
    is_traced = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(operands))
    if is_traced and not why_nothing():
        return _fused(inner, *operands, extra)
    updates, state = inner.update(grads, state, params, **extra)
    return optax.apply_updates(params, updates), state


def _fused(
    optimizer: optax.GradientTransformationExtraArgs,
    grads: optax.Updates,
    state: optax.OptState,
    params: optax.Params,
    extra: dict[str, Any],
) -> tuple[optax.Params, optax.OptState]:
    # Here, since it loads what importing optjax should not.
    from optjax.fused._primitive import step

    leaves: list[Any]
    structure: Any
    leaves, structure = jax.tree.flatten(params)

    def look(seen: Observation) -> tuple[Any, Any, list[Call]]:
        updates, new_state = optimizer.update(grads, state, params, **extra)
        try:
            calls, _ = calls_for(seen, updates, params)
        except Exception as error:
            _say(repr(error))
            calls = []
        return updates, new_state, calls

    program = trace_once(look)
    updates, new_state, calls = program.value
    program = program.with_effects()
    if not calls:
        updates, new_state = program.compute((updates, new_state))
        return optax.apply_updates(params, updates), new_state

    inputs = [(call.coefficients, call.key, call.grads, call.old) for call in calls]
    inputs = program.compute(inputs)
    stepped: dict[int, jax.Array] = {}
    new: dict[int, jax.Array] = {}
    for call, (coefficients, key, gradients, columns) in zip(
        calls, inputs, strict=True
    ):
        updated = step(
            call.form,
            coefficients,
            [jnp.asarray(g) for g in gradients],
            call.form.leaves([jnp.asarray(leaves[i]) for i in call.places], *columns),
            key,
        )
        moved, *columns = (column for column in updated if column is not None)
        stepped.update(zip(call.places, moved, strict=True))
        for places, column in zip(call.new, columns, strict=True):
            for place, leaf in zip(places, column, strict=True):
                if isinstance(place, tuple):
                    new.update(zip(map(id, place), leaf, strict=True))
                else:
                    new[id(place)] = leaf

    # What the calls return is known in the rest.
    others = [
        None if i in stepped else update
        for i, update in enumerate(jax.tree.leaves(updates))
    ]
    others, new_state = program.compute((others, new_state), given=new)
    result = [
        stepped[i] if update is None else optax.apply_updates(leaf, update)
        for i, (leaf, update) in enumerate(zip(leaves, others, strict=True))
    ]
    return structure.unflatten(result), new_state


def why_nothing() -> str:
    """Why no step at all is compiled, "" where some are."""
    backend = jax.default_backend()
    elsewhere = f"the compiled step is for the CPU, and JAX computes on {backend}"
    return why_unavailable() or (elsewhere if backend != "cpu" else "")


def calls_for(
    seen: Observation, updates: optax.Updates, params: optax.Params
) -> tuple[list[Call], dict[int, str]]:
    """The calls that do what the update does, and why not, by leaf, for the others."""
    leaves: list[Any]
    structure: Any
    leaves, structure = jax.tree.flatten(params)
    if jax.tree.structure(updates) != structure:
        reason = "the optimizer's updates are another tree than the parameters"
        return [], dict.fromkeys(range(len(leaves)), reason)
    return plan(seen, jax.tree.leaves(updates), leaves)


@functools.cache
def _say(error: str) -> None:
    """Warn, once a process."""
    warnings.warn(
        "apply_step could not tell whether the compiled step covers this optimizer, "
        f"and takes its `update`: {error}. Please report it.",
        stacklevel=2,
    )
