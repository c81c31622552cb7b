"""Read and set the hyper-parameters of a running optimizer, without recompiling."""

import functools
import inspect
import numbers
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optjax._arguments.checked import check_positive, checked, without_kind
from optjax._arguments.kind import Kind, is_real_array, shown
from optjax._arguments.named import FloatDType, Names, OptimizerState
from optjax._arguments.objects import Function
from optjax._base_rate import check_base, has_base
from optjax._tree import holds_arrays

__all__ = [
    "hyperparameters",
    "inject_hyperparams",
    "is_injectable",
    "is_injected",
    "set_hyperparameters",
]

_MAY_FOLLOW_A_SCHEDULE = ("learning_rate", "weight_decay")

_Factory: TypeAlias = Annotated[
    Callable[..., optax.GradientTransformation],
    Function(
        "a function that makes an optimizer",
        hint="Hand over optjax.adam and not optjax.adam(1e-3)",
    ),
]


class _Real(Kind):
    def accepts(self, value: Any) -> bool:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return is_number or is_real_array(value)


_Values: TypeAlias = Annotated[Any, _Real("a real number or an array of them")]


@checked
def inject_hyperparams(
    inner_factory: _Factory,
    static_args: Names = (),
    hyperparam_dtype: FloatDType = jnp.float32,
) -> Callable[..., optax.GradientTransformationExtraArgs]:
    """`inner_factory` with its numeric hyper-parameters kept in the optimizer's state.

    `optax.inject_hyperparams`, with two defaults of its own. Hyper-parameters are
    float32 whatever the parameters are: in bfloat16, Optax's default there, b2 = 0.999
    is 1.0, and the first step NaN. And only real numbers and schedules are injected:
    flags, dtypes, masks and counts that shape the state stay what they are, where
    Optax takes a mask for a schedule.

    Args:
      inner_factory: such as `optjax.adabound`.
      static_args: names of further arguments to leave alone.
      hyperparam_dtype: the dtype of the hyper-parameters.

    Returns:
      A function with the arguments of `inner_factory`. Read and set what it keeps by
      `hyperparameters(state)` and `set_hyperparameters(state, ...)`.

    Raises:
      ValueError: for `static_args` that the factory does not have, for parameter groups
        of `optjax.pytorch` with values of their own for what would be injected; as the
        factory does.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx = optjax.inject_hyperparams(optjax.adabound)(learning_rate=1e-3)
      >>> state = tx.init(jnp.ones(3))
      >>> state = optjax.set_hyperparameters(state, final_lr=0.01)
      >>> optjax.hyperparameters(state)["final_lr"]
      0.01
    """
    signature = inspect.signature(inner_factory)
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
        rate = bound.arguments.get("learning_rate")
        if "base_lr" in signature.parameters and callable(rate):
            # What reaches the factory is a number at a time: its peak is seen here.
            check_base(rate, bound.arguments["base_lr"])
        static = set(named)
        given = dict(bound.arguments)
        for name, value in bound.arguments.items():
            parameter = signature.parameters[name]
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            if name in named or not is_injectable(value, parameter):
                static.add(name)
            elif isinstance(value, numbers.Real):
                # An integer's later values would be cut to integers too.
                bound.arguments[name] = float(value)
        _check_groups(given, set(given) - static)
        if not any(callable(given[name]) for name in set(given) - static):
            # It says what is wrong with its arguments.
            inner_factory(*args, **kwargs)

        def try_values(values: Mapping[str, Any]) -> None:
            arguments: Any = {**bound.arguments, **values}
            tried = inspect.BoundArguments(signature, arguments)
            inner_factory(*tried.args, **tried.kwargs)

        factory, arguments = _by_name(inner_factory, bound)
        injected = optax.inject_hyperparams(factory, tuple(static), hyperparam_dtype)
        made = injected(**arguments)

        def init(params: optax.Params) -> Any:
            state: Any = made.init(params)
            named = {
                _Name(name, try_values): v for name, v in state.hyperparams.items()
            }
            return state._replace(hyperparams=named)

        return optax.GradientTransformationExtraArgs(init, made.update)

    return make


def _check_groups(given: Mapping[str, Any], injected: set[str]) -> None:
    """That no group of PyTorch's has a value of its own that setting would not reach.

    Raises:
      ValueError: naming the first.
    """
    groups = given.get("params")
    if not isinstance(groups, (list, tuple)):
        return
    for group in groups:
        own = sorted(injected & set(group)) if isinstance(group, Mapping) else []
        if own:
            raise ValueError(
                "what is injected must be the same in all parameter groups, as the "
                f"state has one number for all, got {own[0]}={shown(group[own[0]])} in "
                f"the group of {shown(group.get('params'))}. Leave it alone by "
                f"static_args={own[0]!r}, or inject an optimizer for each group and "
                "put them together by optax.partition."
            )


def _by_name(
    factory: Callable[..., Any], bound: inspect.BoundArguments
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The factory as a function of its named arguments alone, and these.

    Optax hands on `**kwargs` as an argument of that name.
    """
    named = {
        name: parameter
        for name, parameter in bound.signature.parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }

    @functools.wraps(factory)
    def called(**values: Any) -> Any:
        arguments: Any = {**bound.arguments, **values}
        given = inspect.BoundArguments(bound.signature, arguments)
        return factory(*given.args, **given.kwargs)

    by_keyword = [
        parameter.replace(kind=parameter.KEYWORD_ONLY) for parameter in named.values()
    ]
    signature = bound.signature.replace(parameters=by_keyword)
    called.__signature__ = signature  # type: ignore[attr-defined]
    return called, {name: bound.arguments[name] for name in named}


class _Name(str):
    """A hyper-parameter's name that knows how to try values on its factory.

    It is equal to the plain name, so that the state's tree is Optax's, and a part of
    the tree, so that it comes through `jit`. What is read from a file has plain names.
    """

    try_values: Callable[[Mapping[str, Any]], None]

    def __new__(cls, name: str, try_values: Callable[[Mapping[str, Any]], None]) -> Any:
        self = super().__new__(cls, name)
        self.try_values = try_values
        return self

    def __reduce__(self) -> Any:
        return str, (str(self),)


def is_injectable(value: Any, parameter: inspect.Parameter) -> bool:
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

    `base_lr`, which AdaBound and SWATS keep by themselves, is among them.

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
        for name, value in _numbers(node):
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
def set_hyperparameters(state: OptimizerState, **values: _Values) -> optax.OptState:
    """The state with hyper-parameters changed, of the same structure and dtypes.

    A compiled step goes on with it without being compiled again. Where several
    optimizers in the state have the name, as under `optax.partition`, all are set.

    A new `learning_rate` scales AdaBound's step and its bounds, as in the authors'
    code: a tenth of the rate is a tenth of the step, also once the bounds have closed.
    To set Adam's rate alone, set `base_lr` to the same value.

    Args:
      state: any tree with the state of an `inject_hyperparams` optimizer in it.
      **values: numbers, or arrays that broadcast, such as one a trial under `vmap`.

    Raises:
      ValueError: for a name that no optimizer in the state has, one that follows a
        schedule (it would be overwritten at the next step), a value that is not finite
        or does not fit the shape, or one that the optimizer's factory refuses. A state
        from a file or from `optax.inject_hyperparams` does not know its factory.

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
    known = sorted({name for node in nodes for name, _ in _numbers(node)})
    scheduled = {name for node in nodes for name in node.hyperparams_states}
    for name in values:
        if name not in known:
            raise ValueError(
                f"no hyper-parameter {name!r} in the state; it has {', '.join(known)}."
            )
        if name in scheduled:
            raise ValueError(
                f"{name} follows a schedule and would be overwritten at the next step. "
                f"Make the optimizer with a number for {name} to set it by hand."
            )

    def changed(node: Any) -> Any:
        if not is_injected(node):
            return node
        hyper = {
            name: _like(name, values[name], old) if name in values else old
            for name, old in node.hyperparams.items()
        }
        # Beside the new ones the factory needs numbers for what follows a schedule.
        judged = values.keys() | node.hyperparams_states.keys()
        _try({name: _array(hyper[name]) for name in hyper if name in judged})
        inner_state = node.inner_state
        if "base_lr" in values and "base_lr" not in hyper:
            check_positive(base_lr=values["base_lr"])
            inner_state = jax.tree.map(rebased, inner_state, is_leaf=has_base)
        return node._replace(hyperparams=hyper, inner_state=inner_state)

    def rebased(node: Any) -> Any:
        if not has_base(node):
            return node
        new = _like("base_lr", values["base_lr"], node.base_lr)
        return node._replace(base_lr=new)

    return jax.tree.map(changed, state, is_leaf=is_injected)


def _try(values: Mapping[str, Any]) -> None:
    """Let the factory judge new values, those of each trial together."""
    judge = next((n.try_values for n in values if isinstance(n, _Name)), None)
    if judge is None or any(isinstance(v, jax.core.Tracer) for v in values.values()):
        return
    arrays = dict(zip(values, np.broadcast_arrays(*values.values()), strict=True))
    for trial in np.ndindex(next(iter(arrays.values())).shape):
        judge({name: jnp.asarray(array[trial]) for name, array in arrays.items()})


def _like(name: str, value: Any, old: Any) -> Any:
    like = jnp.asarray(_array(old))
    if np.broadcast_shapes(np.shape(value), like.shape) != like.shape:
        raise ValueError(
            f"{name} must have the shape {like.shape} or broadcast to it, got "
            f"{np.shape(value)}."
        )
    if not isinstance(value, jax.core.Tracer):
        with np.errstate(over="ignore"):
            is_finite = np.isfinite(np.asarray(value).astype(like.dtype))
        if not np.all(is_finite):
            raise ValueError(
                f"{name} must be finite in {like.dtype}, got {shown(value)}."
            )
    new = jnp.broadcast_to(jnp.asarray(value, like.dtype), like.shape)
    # Flax NNX keeps each array of a state in a variable.
    return jax.tree.unflatten(jax.tree.structure(old), [new])


def _numbers(node: Any) -> Iterator[tuple[str, Any]]:
    """The hyper-parameters of a node, and the base that its optimizer has kept."""
    yield from node.hyperparams.items()
    if "base_lr" not in node.hyperparams:
        for inner in jax.tree.leaves(node.inner_state, is_leaf=has_base):
            if has_base(inner):
                yield "base_lr", inner.base_lr


def _array(value: Any) -> Any:
    (leaf,) = jax.tree.leaves(value)
    return leaf


def _injected(state: Any) -> list[Any]:
    found = [
        node
        for node in jax.tree.leaves(state, is_leaf=is_injected)
        if is_injected(node)
    ]
    if not found:
        raise ValueError(
            "no hyper-parameters in the state. Make the optimizer by "
            "optjax.inject_hyperparams(factory)(...)."
        )
    return found


def is_injected(node: Any) -> bool:
    """Whether it is the state of an `inject_hyperparams`, ours or Optax's."""
    is_one = hasattr(node, "hyperparams") and hasattr(node, "hyperparams_states")
    return is_one and holds_arrays(node.count)
