"""The SGD that a bounded optimizer turns into."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optjax._arguments.checked import checked
from optjax._arguments.named import ArrayTree, Transformation
from optjax._base_rate import relative_schedule, relative_to_base, times
from optjax._direction import trace
from optjax._form import basic_form, in_gradient_dtype
from optjax._observe import observing
from optjax._parts import (
    Average,
    Clip,
    ClipAround,
    Decay,
    Descend,
    Link,
    One,
    Product,
    RelativeToBase,
    Switched,
    Trace,
)
from optjax._precision import widen
from optjax._rate import rate_by_one
from optjax._storage import read_state
from optjax._target import BoundAroundState, frozen_rate
from optjax._tree import holds_arrays, pure
from optjax._weight_decay import add_decayed_weights
from optjax.monitoring._hand_over import hand_over
from optjax.monitoring._rates import is_same, limit_of, link_behind

__all__ = ["SgdEquivalent", "sgd_equivalent"]


class SgdEquivalent(NamedTuple):
    """SGD, x ← x − α m with m ← g + μ m; looking ahead, x ← x − α (g + μ m).

    Attributes:
      learning_rate: α, a number or a schedule; a tree of them, one a leaf, where each
        leaf has its own.
      momentum: μ, 0 without momentum.
      nesterov: whether it looks ahead, as Nesterov's does.
      optimizer: that SGD, weight decay included.
      hand_over: `hand_over(state, params)`, the SGD's state in which the momentum, the
        schedule and its base go on from the bounded optimizer's state.
    """

    learning_rate: Any
    momentum: Any
    nesterov: bool
    optimizer: optax.GradientTransformationExtraArgs
    hand_over: Callable[[optax.OptState, optax.Params], optax.OptState]


class _Direction(NamedTuple):
    """m_t as a multiple of the sum that momentum SGD keeps, if it keeps one."""

    per_sum: Any
    momentum: Any
    nesterov: bool


class _Parts(NamedTuple):
    """One basic form: f, m and s_t; the decays before V ⊙ m, before s_t, after both."""

    limit: Any
    direction: _Direction
    schedule: optax.ScalarOrSchedule
    l2: list[Decay]
    inside: list[Decay]
    outside: list[Decay]


@checked
def sgd_equivalent(
    optimizer: Transformation, params: ArrayTree = None, state: ArrayTree = None
) -> SgdEquivalent:
    r"""α = s_t · f · (1 − β₁), μ = β₁: the plain SGD that a bounded optimizer tends to.

    f is the rate that both bounds converge to. The factor 1 − β₁ is there because the
    optimizer's direction is an average of gradients and SGD's momentum is a sum: with
    the defaults `final_lr=0.1, b1=0.9` AdaBound ends as SGD with learning rate 0.01
    and momentum 0.9. Weight decay is carried over.

    Where f is measured, as in `graftbound`, it is in the state, and the optimizer is
    SGD from the step `freeze_after` on: then give the `state` of that step or a later
    one. The SGD has no ν; its memory is free when the old state is.

    s_t = α_t / α_0. `learning_rate` takes α_0 from the optimizer; `hand_over` takes
    it from the state, which may have been made with another α.

    Args:
      optimizer: `adabound`, `amsbound`, `adaboundw`, `graftbound` with a
        `freeze_after`, or one's own `basic_form` whose rate ends in a `bound_clip` or a
        `bound_around` and whose direction is the gradient, `ema` or
        `trace`. `sgd` is its own equivalent.
      params: the parameters, or their shapes (`jax.ShapeDtypeStruct`). They are needed
        only where a mask of weight decay asks for them.
      state: the optimizer's state, where its f is measured.

    Raises:
      ValueError: where the rate does not converge or has not been frozen yet, or where
        the optimizer is more than a basic form with weight decay, such as a chain with
        clipping.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> x = jnp.ones(3)
      >>> bounded = optjax.adabound(1e-3)
      >>> sgd = optjax.sgd_equivalent(bounded, x)
      >>> print(f"{sgd.learning_rate:.3f} {sgd.momentum:.1f}")
      0.010 0.9
      >>> state = sgd.hand_over(bounded.init(x), x)
      >>> updates, state = sgd.optimizer.update(x, state, x)

    Reference: Luo et al., "Adaptive Gradient Methods with Dynamic Bound of Learning
    Rate", ICLR 2019.
    """
    if params is None and state is not None:
        # Numbers in the structure of the parameters.
        params = next((node.rate for node in _measured(state)), None)
    links, around = _links(optimizer, params)
    parts = _parts(links, around, state)
    told = (link.part for link in links)
    relative = next((part for part in told if isinstance(part, RelativeToBase)), None)
    if relative is None:
        _check_concrete(parts, parts.schedule)
        sgd, schedule = _sgd(parts, 1.0, parts.schedule), parts.schedule
    else:
        # Where α_0 and s_t are 1, what is told is free of both.
        parts = _parts(*_links(relative.make(1.0, 1.0), params), state)
        base = relative.learning_rate, relative.base_lr
        _check_concrete(parts, *base)
        sgd = relative_to_base(functools.partial(_sgd, parts), *base)
        schedule = relative_schedule(*base)
    _check_known(parts.limit, params)
    direction = parts.direction

    def go_on(state: optax.OptState, params: optax.Params) -> optax.OptState:
        wide = read_state(pure(state), pure(params))
        return hand_over(wide, sgd.init(params), direction.per_sum)

    momentum = 0.0 if direction.momentum is None else direction.momentum
    return SgdEquivalent(
        jax.tree.map(
            lambda limit: times(limit * direction.per_sum, schedule), parts.limit
        ),
        momentum,
        direction.nesterov and momentum != 0,
        sgd,
        go_on,
    )


def _check_concrete(parts: "_Parts", *rates: Any) -> None:
    decays = (*parts.l2, *parts.inside, *parts.outside)
    numbers = [*jax.tree.leaves(parts.limit), *parts.direction[:2], *rates]
    numbers += [decay.weight_decay for decay in decays]
    if any(isinstance(number, jax.core.Tracer) for number in numbers):
        raise ValueError(_TRACED)


def _sgd(
    parts: "_Parts", alpha: Any, schedule: optax.ScalarOrSchedule
) -> optax.GradientTransformationExtraArgs:
    """SGD in place of the parts, for another α_0 and s_t than theirs."""
    direction = parts.direction
    limits = jax.tree.leaves(parts.limit)
    if len({*limits}) == 1:
        rate, limit = rate_by_one(), limits[0] * direction.per_sum
    else:
        rate = frozen_rate([each * direction.per_sum for each in limits])
        limit = 1.0
    form = basic_form(
        optax.identity()
        if direction.momentum is None
        else trace(direction.momentum, direction.nesterov),
        rate,
        times(limit, schedule),
        # It is multiplied by s_t here and by α there.
        _decay(parts.inside[0], alpha / limit) if parts.inside else None,
    )
    if not parts.l2 and not parts.outside:
        return form
    return in_gradient_dtype(
        optax.chain(*map(_decay, parts.l2), form, *map(_decay, parts.outside))
    )


_MORE_THAN_A_FORM = (
    "sgd_equivalent needs an optimizer that is one basic form, with or without weight "
    "decay, and nothing around it. Hand it the bounded optimizer alone, such as "
    "optjax.adabound(...), and put what was around it, such as clipping, around the "
    "SGD too."
)

_TRACED = (
    "sgd_equivalent needs concrete hyper-parameters, got traced ones. With "
    "inject_hyperparams, make the optimizer anew from their values: "
    "optjax.adabound(**optjax.hyperparameters(state))."
)


_WITHOUT_PARAMETERS = (
    "sgd_equivalent must be given the parameters, or their shapes, where the "
    "optimizer asks for their tree, as a mask of weight decay does; got none."
)


def _links(
    optimizer: optax.GradientTransformation, params: optax.Params
) -> tuple[list[Link], tuple[Any, Any]]:
    """The links of one update, and the gradients and updates around them."""
    links: list[Link] = []
    around: list[Any] = []
    inner = optax.with_extra_args_support(optimizer)

    def step(params: optax.Params, grads: optax.Updates) -> None:
        with observing() as seen:
            updates, _ = inner.update(grads, inner.init(params), params)
        links.extend(seen)
        around.extend((grads, updates))

    # Of float32: a cast of narrower updates at the end would look like one more step.
    is_given = bool(jax.tree.leaves(params))
    shapes = params if is_given else jax.ShapeDtypeStruct((), jnp.float32)
    wide = jax.eval_shape(lambda: jax.tree.map(_widen_shape, shapes))
    try:
        jax.eval_shape(step, wide, wide)
    except Exception as error:
        if is_given:
            raise
        raise ValueError(_WITHOUT_PARAMETERS) from error
    return links, (around[0], around[1])


def _parts(links: list[Link], around: tuple[Any, Any], state: Any) -> _Parts:
    """What the update is made of, up to its first product and from there on."""
    before: list[Link] = []
    product: Product | None = None
    schedule: list[optax.ScalarOrSchedule] = []
    decays: tuple[list[Decay], ...] = [], [], []
    known: list[Link] = []
    for link in links:
        match link.part:
            case Product() if product is None:
                product, limit = link.part, _limit(before, link.part, state)
                direction = _direction(before, link.part, link.received)
            case Descend(learning_rate=s) if product is not None:
                schedule.append(s)
            case Decay():
                place = 0 if product is None else 1 if not schedule else 2
                decays[place].append(link.part)
            case _:
                before.append(link)
                continue
        known.append(link)
    if product is None or len(schedule) != 1 or not _is_linked(known, around):
        raise ValueError(_MORE_THAN_A_FORM)
    return _Parts(limit, direction, *schedule, *decays)


def _widen_shape(x: Any) -> jax.Array:
    return widen(jnp.zeros(jnp.shape(x), jnp.result_type(x)))


def _limit(before: Sequence[Link], product: Product, state: Any) -> Any:
    match link_behind(product.rate, before):
        case Link(part=One()):
            return 1.0
        case Link(part=ClipAround(freeze_after=last)):
            return _frozen(last, state)
        case Link(part=Clip(ends=tuple(ends))):
            with jax.ensure_compile_time_eval():
                limit = limit_of(*ends)
        case _:
            raise ValueError(
                "sgd_equivalent needs a rate that converges to a constant: one that "
                "ends in bound_clip, as adabound's does. This one "
                + (
                    "switches to a rate that it finds while it runs: read it from the "
                    "state's sgd_rate."
                    if isinstance(product, Switched)
                    else "goes on adapting."
                )
            )
    if isinstance(limit, jax.core.Tracer):
        return limit
    if np.isnan(limit):
        raise ValueError(
            "sgd_equivalent needs bounds that close on one rate; these stay apart."
        )
    return float(limit)


def _count(state: Any, found: Sequence[Any]) -> str:
    return "none" if state is None else f"one with {len(found)} such in it"


def _frozen(last: Any, state: Any) -> Any:
    """f of each leaf, a tree, where the measuring is over."""
    found = _measured(state)
    if len(found) != 1:
        raise ValueError(
            "sgd_equivalent needs the state of an optimizer whose rate is measured: "
            f"sgd_equivalent(optimizer, state=state), got {_count(state, found)}."
        )
    count, rates = found[0]
    if any(isinstance(x, jax.core.Tracer) for x in (last, *jax.tree.leaves(found))):
        raise ValueError(_TRACED)
    (taken,) = jax.tree.leaves(count)
    if taken + 1 <= last:
        raise ValueError(
            "sgd_equivalent needs a rate that is measured no more: freeze_after is "
            f"{float(last):g}, and the state has taken {int(taken)} steps. Give a "
            "later state, or make the optimizer with an earlier freeze_after."
        )
    return jax.tree.map(float, rates)


def _check_known(limit: Any, params: Any) -> None:
    sizes = (math.prod(np.shape(leaf)) for leaf in jax.tree.leaves(params))
    found = jax.tree_util.tree_leaves_with_path(limit)
    for (path, f), size in zip(found, sizes, strict=False):
        if not isinstance(f, jax.core.Tracer) and f == 0 and size:
            raise ValueError(
                "sgd_equivalent needs a rate of every leaf, and that at "
                f"{jax.tree_util.keystr(path) or 'the root'} has had no gradient but 0."
            )


def _measured(state: Any) -> list[BoundAroundState]:
    def is_measured(node: Any) -> bool:
        return isinstance(node, BoundAroundState) and holds_arrays(node.count)

    nodes = jax.tree.leaves(state, is_leaf=is_measured)
    return [node for node in nodes if is_measured(node)]


def _direction(before: Sequence[Link], product: Product, g: Any) -> _Direction:
    if is_same(product.direction, g):
        return _Direction(1.0, None, False)
    match link_behind(product.direction, before):
        case Link(part=Average(decay=b1, nesterov=nesterov)):
            return _Direction(1.0 - b1, b1, nesterov)
        case Link(part=Trace(momentum=momentum, nesterov=nesterov)):
            return _Direction(1.0, momentum, nesterov)
    raise ValueError(
        "sgd_equivalent needs the gradient, optjax.ema or optjax.trace as direction."
    )


def _is_linked(known: Sequence[Link], around: tuple[Any, Any]) -> bool:
    """Whether each transformation receives what the one before it returned."""
    first, last = around
    received = [*(link.received for link in known), last]
    returned = [first, *(link.returned for link in known)]
    return all(map(is_same, received, returned))


def _decay(decay: Decay, factor: Any = 1.0) -> optax.GradientTransformation:
    return add_decayed_weights(times(factor, decay.weight_decay), decay.mask)
