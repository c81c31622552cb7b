"""Read and set the hyper-parameters of a running optimizer, without recompiling."""

import inspect
import numbers
from collections.abc import Callable
from typing import Annotated, Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optjax.hyperparameter import (
    FloatDType,
    Names,
    OptimizerState,
    checked,
    function,
    without_kind,
)

__all__ = ["hyperparameters", "inject_hyperparams", "set_hyperparameters"]

_MAY_FOLLOW_A_SCHEDULE = ("learning_rate", "weight_decay")

_Factory: TypeAlias = Annotated[
    Callable[..., optax.GradientTransformation],
    function(
        "a function that makes an optimizer",
        hint="Hand over optjax.adam and not optjax.adam(1e-3)",
    ),
]


@checked
def inject_hyperparams(
    factory: _Factory,
    static_args: Names = (),
    hyperparam_dtype: FloatDType = jnp.float32,
) -> Callable[..., optax.GradientTransformationExtraArgs]:
    """`factory` with its numeric hyper-parameters kept in the optimizer's state.

    `optax.inject_hyperparams`, with two defaults of its own. Hyper-parameters are
    float32 whatever the parameters are: in bfloat16, Optax's default there, b2 = 0.999
    is 1.0, and the first step NaN. And only real numbers and schedules are injected:
    flags, dtypes, masks and counts that shape the state stay what they are, where
    Optax takes a mask for a schedule.

    Args:
      factory: such as `optjax.adabound`.
      static_args: names of further arguments to leave alone.
      hyperparam_dtype: the dtype of the hyper-parameters.

    Returns:
      A function with the arguments of `factory`. Read and set what it keeps by
      `hyperparameters(state)` and `set_hyperparameters(state, ...)`.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx = optjax.inject_hyperparams(optjax.adabound)(learning_rate=1e-3)
      >>> state = tx.init(jnp.ones(3))
      >>> state = optjax.set_hyperparameters(state, final_lr=0.01)
      >>> optjax.hyperparameters(state)["final_lr"]
      0.01
    """
    signature = inspect.signature(factory)
    named = {static_args} if isinstance(static_args, str) else set(static_args)
    unknown = named - set(signature.parameters)
    if unknown:
        raise ValueError(
            f"static_args must name arguments of the factory, got {sorted(unknown)}; "
            f"it has {', '.join(signature.parameters)}."
        )

    def make(*args: Any, **kwargs: Any) -> optax.GradientTransformationExtraArgs:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        static = set(named)
        for name, value in bound.arguments.items():
            parameter = signature.parameters[name]
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            if name in named or not _is_injectable(value, parameter):
                static.add(name)
            elif isinstance(value, numbers.Real):
                # An integer's later values would be cut to integers too.
                bound.arguments[name] = float(value)
        injected = optax.inject_hyperparams(factory, tuple(static), hyperparam_dtype)
        return injected(*bound.args, **bound.kwargs)

    return make


def _is_injectable(value: Any, parameter: inspect.Parameter) -> bool:
    """Whether a value is a hyper-parameter: a real number or a schedule."""
    if callable(value):
        # A function in the place of a number is a schedule; masks have other defaults.
        return (
            without_kind(parameter.annotation) == optax.ScalarOrSchedule
            or parameter.name in _MAY_FOLLOW_A_SCHEDULE
            or isinstance(parameter.default, float)
        )
    # Integers with integer defaults are counts, or flags.
    is_count = without_kind(parameter.annotation) in (int, "int") or (
        isinstance(value, int) and isinstance(parameter.default, int)
    )
    return not (is_count or isinstance(value, bool)) and isinstance(
        value, numbers.Real | np.ndarray | jax.Array
    )


@checked
def hyperparameters(state: OptimizerState) -> dict[str, Any]:
    """The hyper-parameters in an optimizer's state, by name.

    Args:
      state: any tree with the state of an `inject_hyperparams` optimizer in it.

    Raises:
      ValueError: where there is none, or where two in it, as under `optax.partition`,
        have different values of one name.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx = optjax.inject_hyperparams(optjax.sgd)(learning_rate=0.5)
      >>> optjax.hyperparameters(tx.init(jnp.ones(3)))
      {'learning_rate': 0.5}
    """
    result: dict[str, Any] = {}
    for node in _injected(state):
        for name, value in node.hyperparams.items():
            here = _readable(_array(value))
            if name in result and not np.array_equal(result[name], here):
                raise ValueError(
                    f"optimizers in the state differ in {name}, {result[name]} and "
                    f"{here}; hand over the part of the state that holds one of them."
                )
            result[name] = here
    return result


def _readable(value: Any) -> Any:
    if isinstance(value, jax.core.Tracer):
        raise ValueError(
            "hyperparameters reads numbers, and in a compiled function there are none "
            "yet. Read them from the state outside of it."
        )
    number = np.asarray(value)
    # The shortest decimals that are the same float32: 0.9, not 0.89999998.
    return float(str(number)) if number.ndim == 0 else number


@checked
def set_hyperparameters(state: OptimizerState, **values: Any) -> Any:
    """The state with hyper-parameters changed, of the same structure and dtypes.

    A compiled step goes on with it without being compiled again. Where several
    optimizers in the state have the name, as under `optax.partition`, all are set.

    Args:
      state: any tree with the state of an `inject_hyperparams` optimizer in it.
      **values: numbers, or arrays that broadcast, such as one a trial under `vmap`.

    Raises:
      ValueError: for a name that no optimizer in the state has, one that follows a
        schedule (it would be overwritten at the next step), or a value that is not
        finite or does not fit the shape.

    Example: divide the learning rate by ten.
      >>> import jax.numpy as jnp, optjax
      >>> tx = optjax.inject_hyperparams(optjax.sgd)(learning_rate=0.5)
      >>> state = tx.init(jnp.ones(3))
      >>> lr = optjax.hyperparameters(state)["learning_rate"]
      >>> state = optjax.set_hyperparameters(state, learning_rate=lr / 10)
      >>> tx.update(jnp.ones(3), state)[0]
      Array([-0.05, -0.05, -0.05], dtype=float32)
    """
    nodes = _injected(state)
    known = sorted({name for node in nodes for name in node.hyperparams})
    scheduled = {name for node in nodes for name in node.hyperparams_states}
    for name, value in values.items():
        if name not in known:
            raise ValueError(
                f"no hyper-parameter {name!r} in the state; it has {', '.join(known)}."
            )
        if name in scheduled:
            raise ValueError(
                f"{name} follows a schedule and would be overwritten at the next step. "
                f"Make the optimizer with a number for {name} to set it by hand."
            )
        if not isinstance(value, jax.core.Tracer) and not np.all(
            np.isfinite(np.asarray(value, np.float64))
        ):
            raise ValueError(f"{name} must be finite, got {value}.")

    def changed(node: Any) -> Any:
        if not _is_injected(node):
            return node
        hyper = dict(node.hyperparams)
        for name in set(values) & set(hyper):
            hyper[name] = _like(name, values[name], hyper[name])
        return node._replace(hyperparams=hyper)

    return jax.tree.map(changed, state, is_leaf=_is_injected)


def _like(name: str, value: Any, old: Any) -> Any:
    like = jnp.asarray(_array(old))
    if np.broadcast_shapes(np.shape(value), like.shape) != like.shape:
        raise ValueError(
            f"{name} must have the shape {like.shape} or broadcast to it, got "
            f"{np.shape(value)}."
        )
    new = jnp.broadcast_to(jnp.asarray(value, like.dtype), like.shape)
    # Flax NNX keeps each array of a state in a variable.
    return jax.tree.unflatten(jax.tree.structure(old), [new])


def _array(value: Any) -> Any:
    (leaf,) = jax.tree.leaves(value)
    return leaf


def _injected(state: Any) -> list[Any]:
    found = [
        node
        for node in jax.tree.leaves(state, is_leaf=_is_injected)
        if _is_injected(node)
    ]
    if not found:
        raise ValueError(
            "no hyper-parameters in the state. Make the optimizer by "
            "optjax.inject_hyperparams(factory)(...)."
        )
    return found


def _is_injected(node: Any) -> bool:
    return hasattr(node, "hyperparams") and hasattr(node, "hyperparams_states")
