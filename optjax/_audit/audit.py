"""`optjax.audit`: which number moves the step."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optjax._arguments.checked import checked
from optjax._arguments.named import Size
from optjax._audit.measure import Measured, measure
from optjax._audit.result import Audit, Layout
from optjax._audit.subject import OfFactory, OfState, Subject
from optjax._groups import Groups, group_leaves
from optjax._tree import leaf_names, pure
from optjax.monitoring._hyperparameters import is_injected


@checked
def audit(
    optimizer: Any,
    first: Any,
    second: Any,
    params: Any,
    /,
    *,
    state: Any = None,
    steps: Size | None = None,
    groups: Groups = 1,
    strict: bool = False,
    **extra: Any,
) -> Audit:
    r"""∂ log‖Δx‖ / ∂ log h: which hyper-parameters h move the step, and what is wrong.

        audit(optimizer, grads, state, params)
        audit(factory, {"learning_rate": 1e-3}, grads, params)

    Every h is turned, in each group of parameters, by a forward-mode derivative through
    `update`, which is a black box: any Optax transformation whose hyper-parameters are
    injected, by `optjax.inject_hyperparams` or Optax's, or any factory with its
    arguments. The sizes of the gradients and of the parameters are turned like
    hyper-parameters. It takes no step.

    It prints as verdicts, with cause, evidence and remedy, and a table of elasticities,
    with ∠ the turn of the direction. In a compiled step it is a tree of arrays of fixed
    shapes; print what comes out.

    Args:
      optimizer: a gradient transformation, or a function that makes one.
      first: its gradients; or the factory's arguments by name. Of those, and of its
        defaults, every number and schedule is turned.
      second: its state; or the gradients.
      params: the parameters.
      state: the state of the factory's optimizer; by default that of a first step,
        which what is turned has made too: α_0 of AdaBound is then the α it is given.
      steps: how many steps to take, in which every leaf of the gradients has a leading
        axis; by default one, without. One step does not show β₂, and several carry a
        tangent of the state along.
      groups: how many leading parts of a leaf's path name its group, None for a group
        a leaf, or a function from the path to the group; as in `optjax.monitor`.
      strict: raise where there is a verdict; not in a compiled step.
      **extra: further arguments of the optimizer's `update`.

    Returns:
      A mapping from groups to hyper-parameters to their `elasticity`, `turn`, share of
      coordinates `moved` and part of the step that is `decay`; with `verdicts` and
      `raise_for()`.

    Raises:
      ValueError: for arguments that the factory does not take, for gradients of other
        shapes, of integers or without the leading axis of `steps`, for no parameters,
        and with `strict` for a verdict.

    Example: AdaBound whose rates are all at a bound.
      >>> import jax.numpy as jnp, optjax
      >>> x, g = {"w": jnp.ones(3)}, {"w": jnp.array([1.0, 2.0, 3.0])}
      >>> hyper = {"learning_rate": 1e-3, "gamma": 1e3}
      >>> found = optjax.audit(optjax.adabound, hyper, g, x)
      >>> found.verdicts[0].cause
      'learning_rate is inert'
      >>> round(found["w"]["final_lr"].elasticity, 3)
      1.0
    """
    is_transformation = isinstance(optimizer, optax.GradientTransformation)
    if not is_transformation and hasattr(optimizer, "gradient_transformation"):
        optimizer, is_transformation = optimizer.gradient_transformation(), True
    if not is_transformation and not callable(optimizer):
        raise ValueError(
            "optimizer must be a gradient transformation or a function that makes one, "
            f"got {optimizer!r}."
        )
    gradients, params = pure(first if is_transformation else second), pure(params)
    _demand_gradients(gradients, params, steps)
    _demand_derivatives(gradients)
    gradients, params = jax.tree.map(jnp.asarray, (gradients, params))
    subject: Subject
    if is_transformation:
        state = pure(second)
        made: Any = jax.tree.structure(jax.eval_shape(optimizer.init, params))
        if jax.tree.structure(state) != made:
            raise ValueError(
                "audit needs the state of this optimizer, as its init and update give "
                f"it, {made}; got {jax.tree.structure(state)}."
            )
        subject, given = OfState.of(optimizer, state)
    else:
        subject, given = OfFactory.of(optimizer, first, pure(state))
    operands = gradients, given, params, extra
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(operands)):
        # Where they will lie is not known yet.
        may_cut = jax.device_count() == 1
        measured = measure(subject, True, steps is None, may_cut, *operands)
    else:
        how = steps is None, not any(map(_is_spread, jax.tree.leaves(operands)))
        measured = _compiled(subject, False, *how)(*operands)
        if np.any(measured.effects.by_difference):
            measured = _compiled(subject, True, *how)(*operands)
    first_state = jax.eval_shape(subject.start, subject.still, given, params)
    found = Audit(_layout(subject, first_state, params, groups), measured)
    if strict:
        found.raise_for()
    return found


def _demand_gradients(gradients: Any, params: Any, steps: int | None) -> None:
    axis = () if steps is None else (steps,)
    wanted = {name: (*axis, *shape) for name, shape in _shapes(params).items()}
    got = _shapes(gradients)
    for name in [*wanted, *got]:
        if wanted.get(name) != got.get(name):
            led = "" if steps is None else f", with a leading axis of steps={steps}"
            raise ValueError(
                f"audit needs gradients of the parameters' shapes{led}: {name} must be "
                f"{wanted.get(name, 'absent')}, got {got.get(name, 'nothing')}."
            )


def _demand_derivatives(gradients: Any) -> None:
    if not jax.tree.leaves(gradients):
        raise ValueError("audit needs at least one parameter, got none.")
    for name, leaf in zip(
        leaf_names(gradients), jax.tree.leaves(gradients), strict=True
    ):
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.inexact) and dtype != jax.dtypes.float0:
            raise ValueError(
                "audit needs gradients of floating-point or complex numbers, or float0 "
                f"for parameters that have none, as jax.grad gives them: that of "
                f"{name or 'the root'} is {dtype}."
            )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    return dict(
        zip(leaf_names(tree), map(np.shape, jax.tree.leaves(tree)), strict=True)
    )


def _is_spread(x: Any) -> bool:
    return isinstance(x, jax.Array) and len(x.sharding.device_set) > 1


def _compiled(
    subject: Subject, differences: bool, is_single: bool, may_cut: bool
) -> Callable[..., Measured]:
    """One for the same optimizer at every step; an unhashable mask makes it new."""
    how = differences, is_single, may_cut
    try:
        return _kept(subject, *how)
    except TypeError:
        return jax.jit(functools.partial(measure, subject, *how))


@functools.lru_cache(maxsize=16)
def _kept(
    subject: Subject, differences: bool, is_single: bool, may_cut: bool
) -> Callable[..., Measured]:
    return jax.jit(functools.partial(measure, subject, differences, is_single, may_cut))


def _layout(subject: Subject, state: Any, params: Any, groups: Any) -> Layout:
    names = leaf_names(params)
    leaves = jax.tree.leaves(params)
    index = {name: i for i, name in enumerate(names)}
    in_parts = [n for n in _nodes(state) if isinstance(n, optax.MultiStepsState)]
    return Layout(
        tuple(names),
        tuple(x.size for x in leaves),
        tuple(x.ndim for x in leaves),
        tuple(str(x.dtype) for x in leaves),
        tuple(
            (group, tuple(index[name] for name in members))
            for group, members in group_leaves(names, groups).items()
        ),
        subject.hyperparameters,
        subject.kept_in,
        bool(in_parts),
        bool(in_parts) and any(map(_is_scheduled, _nodes(state))),
    )


def _nodes(state: Any) -> list[Any]:
    """Those of the state outermost that gather gradients or follow a schedule."""

    def ends(node: Any) -> bool:
        return isinstance(node, optax.MultiStepsState) or _is_scheduled(node)

    return jax.tree.leaves(state, is_leaf=ends)


def _is_scheduled(node: Any) -> bool:
    if is_injected(node):
        return bool(node.hyperparams_states)
    return isinstance(node, optax.ScaleByScheduleState)
