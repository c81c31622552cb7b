"""What every optimizer of the dialect shares: options, groups, state.

A factory names its options and a function from their values at one step to the parts of
the basic form. An option that is a schedule is evaluated where the step is taken, so
that the state is the same tree with and without one.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Concatenate, NamedTuple, ParamSpec, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optjax._arguments.checked import check, kinds_of
from optjax._arguments.kind import Kind, shown
from optjax._arguments.named import (
    Decay,
    Finite,
    NonNegative,
    Positive,
    Schedule,
    WeightDecay,
)
from optjax._arguments.numbers import FunctionOr
from optjax._weight_decay import add_decayed_weights
from optjax.pytorch._groups import Groups, labels_of

_P = ParamSpec("_P")

#: β₁ and β₂, numbers or schedules.
Betas: TypeAlias = tuple[optax.ScalarOrSchedule, optax.ScalarOrSchedule]


def _just(decay: Decay) -> None:
    """One decay, for its kind."""


_decay = kinds_of(_just)["decay"]
assert _decay is not None
_OverTime: TypeAlias = Annotated[
    Any, FunctionOr("a schedule", _decay, "It is called with the steps taken")
]


def _kinds(
    lr: Schedule,
    lr_decay: NonNegative,
    momentum: _OverTime,
    dampening: Finite,
    alpha: Decay,
    rho: Decay,
    eps: NonNegative,
    weight_decay: WeightDecay,
    momentum_decay: NonNegative,
    initial_accumulator_value: NonNegative,
    final_lr: Positive,
    gamma: NonNegative,
    beta1: _OverTime,
    beta2: _OverTime,
    nesterov: bool,
    centered: bool,
    amsgrad: bool,
    amsbound: bool,
    maximize: bool,
    decoupled_weight_decay: bool,
) -> None:
    """What each option is; read by `kinds_of`, never called."""


_KINDS = kinds_of(_kinds)

#: PyTorch's other arguments, and why none is needed.
MACHINERY = {
    "foreach": "XLA compiles the updates of all parameters into one program",
    "fused": "XLA fuses an update by itself; `optjax.apply_step` makes one pass of it",
    "capturable": "a step under jax.jit is one program already",
    "differentiable": "jax.grad goes through every update as it is",
}


class Now(NamedTuple):
    """What an optimizer's parts may depend on beside its options.

    Attributes:
      step: the steps taken.
      base_lr: the base learning rate of a scheduler; None without one.
    """

    step: Any
    base_lr: Any


class OptimizerState(NamedTuple):
    """Steps taken, and the state of the parts."""

    step: jax.Array
    inner_state: optax.OptState


class Optimizer(optax.GradientTransformationExtraArgs):
    """An Optax transformation that knows what PyTorch calls it.

    Attributes:
      name: the class in torch.optim or, for AdaBound, in PyPI's `adabound`.
      param_groups: as in PyTorch, a mapping a group, of "params" and every option.
    """

    name: str
    param_groups: tuple[Mapping[str, Any], ...]


def optimizer(
    make: Callable[Concatenate[Now, _P], optax.GradientTransformation],
) -> Callable[_P, Optimizer]:
    """The optimizer whose parts `make` gives for the options' values at one step.

    The arguments of `make` are those of PyTorch's class: `params`, the groups, or None
    for one of all parameters; the options, whose defaults a group may replace; and
    `machinery`, which is refused. What it returns is one basic form, and a group each.
    """
    signature = inspect.signature(make)
    signature = signature.replace(
        parameters=list(signature.parameters.values())[1:], return_annotation=Optimizer
    )
    name = make.__name__

    @functools.wraps(make)
    def factory(*args: _P.args, **kwargs: _P.kwargs) -> Optimizer:
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        options = given.arguments
        params = options.pop("params")
        _refuse(name, options.pop("machinery"))
        groups = _groups(name, params, options)
        members = [_member(make, group) for group in groups]
        whole = members[0]
        if params is not None:
            whole = optax.partition(
                {str(number): member for number, member in enumerate(members)},
                lambda tree: labels_of(groups, tree),
            )
        made = Optimizer(*whole)
        made.name, made.param_groups = name, groups
        return made

    factory.__signature__ = signature  # type: ignore[attr-defined]
    return factory


def _refuse(name: str, machinery: Mapping[str, Any]) -> None:
    for keyword, value in machinery.items():
        if keyword not in MACHINERY:
            raise TypeError(f"{name}() got an unexpected keyword argument {keyword!r}")
        if value is not None and value is not False:
            raise ValueError(
                f"{keyword} must be left out, got {keyword}={shown(value)}. It is of "
                f"PyTorch's machinery: {MACHINERY[keyword]}."
            )


def _groups(
    name: str, params: Groups, options: Mapping[str, Any]
) -> tuple[Mapping[str, Any], ...]:
    given = [{"params": "*"}] if params is None else params
    is_list = isinstance(given, (list, tuple)) and all(
        isinstance(group, Mapping) and "params" in group for group in given
    )
    if not is_list or not given:
        raise ValueError(
            'params must be None or a list of groups, each with "params": a pattern '
            f"such as '*/bias' or a function of name and array, got {shown(params)}. "
            "The parameters themselves go to init, and a learning rate is lr=."
        )
    groups = []
    for group in given:
        unknown = [key for key in group if key != "params" and key not in options]
        if unknown:
            raise ValueError(
                f"a group's options must be among {', '.join(options)}, got "
                f"{unknown[0]!r} in a group of {name}."
            )
        groups.append({**group, **{k: group.get(k, v) for k, v in options.items()}})
        _check({k: v for k, v in groups[-1].items() if k != "params"})
    return tuple(groups)


def _check(options: Mapping[str, Any]) -> None:
    options = dict(options)
    betas = options.pop("betas", (0.9, 0.999))
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise ValueError(f"betas must be two decays in [0, 1), got {shown(betas)}.")
    options["beta1"], options["beta2"] = betas
    for name, value in options.items():
        kind: Kind | None = _KINDS[name]
        assert kind is not None
        check(kind, **{name: value})


def _member(make: Callable[..., Any], group: Mapping[str, Any]) -> Any:
    options = {key: value for key, value in group.items() if key != "params"}
    base_lr = getattr(options["lr"], "base_lr", None)

    def parts(step: Any) -> optax.GradientTransformationExtraArgs:
        values = {key: at_step(value, step) for key, value in options.items()}
        return optax.with_extra_args_support(make(Now(step, base_lr), **values))

    def init(params: optax.Params) -> OptimizerState:
        step = jnp.zeros([], jnp.int32)
        return OptimizerState(step, parts(step).init(params))

    def update(
        updates: optax.Updates,
        state: OptimizerState,
        params: optax.Params | None = None,
        **extra: Any,
    ) -> tuple[optax.Updates, OptimizerState]:
        inner = parts(state.step)
        result, inner_state = inner.update(updates, state.inner_state, params, **extra)
        result = jax.tree.map(lambda u, g: u.astype(g.dtype), result, updates)
        return result, OptimizerState(optax.safe_increment(state.step), inner_state)

    parts(np.int32(0))  # What is wrong with the options is said here.
    return optax.GradientTransformationExtraArgs(init, update)


def at_step(value: Any, step: Any) -> Any:
    """An option's value at a step; a schedule is called with the steps taken."""
    if isinstance(value, (tuple, list)):
        return tuple(at_step(v, step) for v in value)
    return value(step) if callable(value) else value


def after_decay(
    form: optax.GradientTransformation, maximize: bool, weight_decay: Any
) -> optax.GradientTransformation:
    """The basic form of the gradient, or of its negative, with λ x added to it."""
    sign = optax.scale(-1.0) if maximize else optax.identity()
    return optax.chain(sign, add_decayed_weights(weight_decay), form)
