"""Update and apply in one call, in one pass over memory where that is possible."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from optjax.fused.kernel import DTYPES
from optjax.fused.library import fused_step_available
from optjax.fused.plan import Group, NotCoveredError, plan
from optjax.hyperparameter import (
    ArrayTree,
    OptimizerState,
    Transformation,
    checked,
)
from optjax.observe import Placeholder, observing

__all__ = ["apply_step"]


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
    `adaboundw`, and of any `basic_form` of the same parts, are each read and written
    once by one compiled loop, where XLA reads them once for each output; also inside
    `optax.chain`, `masked`, `partition` and `inject_hyperparams`. Every other
    optimizer, part or dtype is updated as it would be without. A program for another
    platform, and one that `jax.export` makes, holds the same step written in JAX.

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
      `optax.apply_updates` but for float32 rounding, 1e-6 of an update.

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
    if fused_step_available() and jax.default_backend() == "cpu":
        try:
            return _fused(inner, grads, state, params, extra)
        except NotCoveredError:
            pass
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
    from optjax.fused.primitive import step

    leaves: list[Any]
    structure: Any
    leaves, structure = jax.tree.flatten(params)
    try:
        with observing(compute=False) as records:
            updates, new_state = optimizer.update(grads, state, params, **extra)
        steps = _leaves_like(structure, updates)
        groups = plan(records, steps, leaves)
    except Exception as error:
        # Code that computes with a placeholder raises whatever it likes. A mistake of
        # the user's raises again when the update is computed.
        raise NotCoveredError from error
    made: dict[int, jax.Array] = {}
    for group in groups:
        _check_covered(group, leaves)
    _check_state(groups, state, new_state)

    result = [
        None if _is_followed(update) else optax.apply_updates(leaf, update)
        for leaf, update in zip(leaves, steps, strict=True)
    ]
    for group in groups:
        columns: dict[str, Any] = dict(zip(_columns(group), group.old, strict=True))
        updated = step(
            group.form,
            group.coefficients.pack(),
            [jnp.asarray(g) for g in group.grads],
            [jnp.asarray(leaves[i]) for i in group.places],
            *(columns.get(name) for name in ("m", "nu", "nu_max")),
        )
        for place, leaf in zip(group.places, updated.params or (), strict=True):
            result[place] = leaf
        for name, new in zip(columns, group.new, strict=True):
            for placeholder, leaf in zip(new, getattr(updated, name), strict=True):
                made[id(placeholder)] = leaf
    new_state = jax.tree.map(
        lambda leaf: made[id(leaf)] if _is_followed(leaf) else leaf, new_state
    )
    return structure.unflatten(result), new_state


def _columns(group: Group) -> list[str]:
    """Which of the arrays the form keeps."""
    return [
        *["m"] * (group.form.direction != "gradient"),
        *["nu"] * (group.form.accumulator != "one"),
        *["nu_max"] * (group.form.accumulator == "max"),
    ]


def _check_covered(group: Group, leaves: list[Any]) -> None:
    params = [leaves[i] for i in group.places]
    for column in (group.grads, *group.old):
        for x, like in zip(column, params, strict=True):
            is_known = {jnp.result_type(x), jnp.result_type(like)} <= set(DTYPES)
            if not is_known or _is_followed(x) or jnp.shape(x) != jnp.shape(like):
                raise NotCoveredError
    if group.form.l2:
        # g + λ x may be wider than g, which is what the compiled step rounds it to.
        for g, x in zip(group.grads, params, strict=True):
            if jnp.result_type(g, x, group.coefficients.l2) != jnp.result_type(g):
                raise NotCoveredError


def _check_state(groups: list[Group], state: Any, new_state: Any) -> None:
    """Raise unless each array is made here and has the dtype and shape it had.

    Else something around the primitives stores the state in another form, and took a
    placeholder for what needs no rounding.
    """
    made = {id(new) for group in groups for column in group.new for new in column}
    before = _leaves_like(jax.tree.structure(new_state), state)
    for old, new in zip(before, jax.tree.leaves(new_state), strict=True):
        if _is_followed(new) and (
            id(new) not in made
            or jnp.result_type(new) != jnp.result_type(old)
            or jnp.shape(new) != jnp.shape(old)
        ):
            raise NotCoveredError


def _leaves_like(structure: Any, tree: Any) -> list[Any]:
    leaves: list[Any]
    leaves, own = jax.tree.flatten(tree)
    if own != structure:
        raise NotCoveredError
    return leaves


def _is_followed(leaf: Any) -> bool:
    return isinstance(leaf, Placeholder)
