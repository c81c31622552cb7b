"""f_t: the rate that bounds close on, given, or measured while the optimizer runs.

A target says how f_t is worked out from the rates V_t, the directions m_t and the
gradients g_t of a group of leaves:

    a number             f
    grafted_target       ‖V_t ⊙ m_t‖ / ‖m_t‖
    projected_target     ‖p_t‖² / (p_tᵀ g_t), p_t = V_t ⊙ m_t

`bound_around` clips a rate between bounds that are multiples of it, so that

    bound_around(grafted_target(), *hyperbolic_bounds(1.0, gamma=1e-3))

is AdaBound's band around the SGD rate whose step is as long as the adaptive step.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optjax._arguments.checked import checked
from optjax._arguments.kind import Kind
from optjax._arguments.named import Decay
from optjax._arguments.numbers import Number, positive
from optjax._bound import LowerOf, UpperOf, check_order
from optjax._groups import Groups, group_of_each_leaf
from optjax._observe import tell
from optjax._parts import ClipAround, Link
from optjax._precision import (
    Scalar,
    abs_sq,
    next_count,
    one_minus_power,
    sqrt,
    store,
    widen,
)
from optjax._tree import map_leaves

#: T in steps, or infinity.
LastStep: TypeAlias = Annotated[
    Scalar,
    Number("a number > 0", lambda x: x > 0, "It is the last step that is measured"),
]


class Target(NamedTuple):
    """How f_t is measured: of each group, h(Σ numerator / Σ denominator), averaged.

    Attributes:
      numerator: (V, m, g) of a leaf to a number, which is added up over the group.
      denominator: likewise. Where the quotient is not positive and finite, f_t stays
        what it was.
      of_quotient: h.
      groups: which leaves have one f_t together.
      decay: β in [0, 1), the share of the old average that a step keeps.
      late: whether bounds are around the last step's f_t, or this step's.
    """

    numerator: Callable[[Any, Any, Any], Any]
    denominator: Callable[[Any, Any, Any], Any]
    of_quotient: Callable[[Any], Any]
    groups: Groups
    decay: Scalar
    late: bool = False


class _Grafted(Target):
    """That of `grafted_target`, whose two numbers the compiled step has too."""


class _TargetOrRate(Kind):
    def accepts(self, value: Any) -> bool:
        return isinstance(value, Target) or _RATE.accepts(value)

    def taken(self, value: Any) -> Any:
        return value if isinstance(value, Target) else _RATE.taken(value)


_RATE = positive()
_Target: TypeAlias = Annotated[
    Target | Scalar,
    _TargetOrRate(
        "a rate, positive and finite, or a target that measures one",
        "Such as optjax.grafted_target()",
    ),
]


class BoundAroundState(NamedTuple):
    """Steps taken, and f_t of each leaf, a tree of numbers; 0 is one not known yet."""

    count: Any
    rate: optax.Updates


@checked
def grafted_target(
    groups: Groups = None, decay: Decay = 0.0, late: bool = True
) -> Target:
    r"""f_t = ‖V_t ⊙ m_t‖ / ‖m_t‖, the norms over a group of leaves.

    The rate at which SGD's step along m_t is as long as the adaptive step: Adam's step
    length grafted onto SGD's direction. Bounds at step t are around f_{t−1}, which is
    known before the step and so costs no second pass; there are none at t = 1.

    Args:
      groups: which leaves have one f_t together. None for each its own, 0 for all, a
        number of leading parts of a leaf's path, or a function from the path, such as
        "block/conv/kernel", to the group's name.
      decay: β in [0, 1): f_t is averaged with the decay β, debiased; 0 is f_t itself.
      late: whether bounds are around f_{t−1}, or f_t itself, which no compiled step has
        and costs a second pass over the leaf.

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> target = optjax.grafted_target(late=False)
      >>> tx = optjax.bound_around(target, *optjax.constant_bounds(1.0, 1.0))
      >>> v, m = jnp.array([1.0, 3.0]), jnp.array([4.0, 0.0])
      >>> tx.update(v, tx.init(v), direction=m, gradient=m)[0]
      Array([1., 1.], dtype=float32)

    Reference: the norms are those of Agarwal, Anil, Hazan, Koren & Zhang,
    "Disentangling Adaptive Gradient Methods from Learning Rates", 2020, who multiply
    one optimizer's direction by another's step length, layer by layer. That bounds
    close on their quotient is optjax's own.
    """
    return _Grafted(
        lambda v, m, g: jnp.sum(abs_sq(v * widen(m))),
        lambda v, m, g: jnp.sum(abs_sq(m)),
        sqrt,
        groups,
        decay,
        late,
    )


@checked
def projected_target(groups: Groups = None, decay: Decay = 0.999) -> Target:
    r"""f_t = ‖p_t‖² / (p_tᵀ g_t) with p_t = V_t ⊙ m_t: SWATS's estimate, averaged.

    The rate whose SGD step has Adam's p_t as its projection on it. A group whose p_t
    and g_t disagree, p_tᵀ g_t ≤ 0, keeps what it had. In a run of noisy gradients it
    is far larger than `grafted_target`, since p_tᵀ g_t is small.

    Args:
      groups: which leaves have one f_t together; see `grafted_target`.
      decay: β in [0, 1) of the average, SWATS's β₂.

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> target = optjax.projected_target()
      >>> tx = optjax.bound_around(target, *optjax.constant_bounds(1.0, 1.0))
      >>> v, m = jnp.array([1.0, 3.0]), jnp.array([4.0, 0.0])
      >>> tx.update(v, tx.init(v), direction=m, gradient=m / 2)[0]
      Array([2., 2.], dtype=float32)

    Reference: Keskar & Socher, "Improving Generalization Performance by Switching
    from Adam to SGD", 2017, where one rate is estimated for all parameters.
    """
    return Target(
        lambda v, m, g: jnp.sum(abs_sq(v * widen(m))),
        lambda v, m, g: jnp.sum((v * jnp.conj(widen(m)) * widen(g)).real),
        lambda quotient: quotient,
        groups,
        decay,
    )


@checked
def bound_around(
    target: _Target,
    lower: LowerOf,
    upper: UpperOf,
    freeze_after: LastStep = np.inf,
) -> optax.GradientTransformationExtraArgs:
    r"""V_t ↦ clip(V_t, f_t · lo_t, f_t · hi_t), for the rate branch of `basic_form`.

    `bound_clip` with bounds that are multiples of a rate f_t, which is measured of the
    rates V_t as they come in. From the step after `freeze_after` on, f_t stays and
    V_t = f_t: SGD at a fixed rate, which `sgd_equivalent` gives.

    Args:
      target: f, a rate, or how it is measured: `grafted_target`, `projected_target`.
      lower: lo, a number or a function of t = 1, 2, …, relative to f: such as
        `hyperbolic_bounds(1.0, gamma)`, whose bounds close on 1.
      upper: hi, likewise, or infinity. Where lo_t > hi_t the upper bound wins.
      freeze_after: T > 0 in steps, the last step whose f_t is measured; infinity, the
        default, measures for ever.

    Returns:
      A transformation of rates whose state has f_t of each leaf (`rate`). A leaf
      without a direction, such as one that has had no gradient but 0 or has no
      elements, keeps its f_t, and without any it is not bounded.

    Raises:
      ValueError: for concrete bounds that are negative or in the wrong order; in
        `update`, outside of `precondition` and `basic_form`.

    Example: AdaBelief between bounds that close on its own step length.
      >>> import jax.numpy as jnp, optax, optjax
      >>> tx = optjax.basic_form(
      ...     direction=optjax.ema(0.9),
      ...     rate=optax.chain(
      ...         optjax.rate_by_accumulated_square(
      ...             optjax.ema_of_squared_residuals(0.9, 0.999)
      ...         ),
      ...         optax.scale(1e-3),
      ...         optjax.bound_around(
      ...             optjax.grafted_target(), *optjax.hyperbolic_bounds(1.0, 0.01)
      ...         ),
      ...     ),
      ...     learning_rate=1.0,
      ... )
      >>> x = jnp.array([1.0, -2.0])
      >>> updates, state = tx.update(x, tx.init(x))

    References: Luo et al., "Adaptive Gradient Methods with Dynamic Bound of Learning
    Rate", ICLR 2019, for the bounds; see the targets.
    """
    check_order(lower, upper)

    def init(params: optax.Params) -> BoundAroundState:
        unknown = jax.tree.map(lambda _: jnp.zeros([], jnp.result_type(float)), params)
        return BoundAroundState(jnp.zeros([], jnp.int32), unknown)

    def update(
        updates: optax.Updates,
        state: BoundAroundState,
        params: Any = None,
        *,
        direction: Any = None,
        gradient: Any = None,
        **extra: Any,
    ) -> tuple[optax.Updates, BoundAroundState]:
        del params, extra
        treedef: Any
        rates, treedef = jax.tree.flatten(updates)
        count, t = next_count(state.count)
        if not rates:
            return updates, BoundAroundState(count, state.rate)
        old = jnp.stack(treedef.flatten_up_to(state.rate))
        norms = None
        if isinstance(target, Target):
            if direction is None:
                raise ValueError(_OUTSIDE)
            sums = tuple(
                map_leaves(part, updates, direction, gradient)
                for part in (target.numerator, target.denominator)
            )
            group = group_of_each_leaf(updates, target.groups)
            new = _measured(target, t, old, group, *map(jax.tree.leaves, sums))
            norms = sums if isinstance(target, _Grafted) and target.late else None
        else:
            new = jnp.full_like(old, target)
        is_frozen = t > freeze_after
        f = jnp.where(is_frozen, old, new)
        lo, hi = (
            jnp.where(is_frozen, 1.0, bound(t) if callable(bound) else bound)
            for bound in (lower, upper)
        )
        used = old if isinstance(target, Target) and target.late else f
        is_known = used > 0
        lowest = used * lo
        highest = jnp.where(is_known, jnp.where(is_known, used, 1.0) * hi, jnp.inf)
        clipped = [
            jnp.minimum(jnp.maximum(v, store(lowest[i], v)), store(highest[i], v))
            for i, v in enumerate(rates)
        ]
        lows, highs, limits = map(
            treedef.unflatten, (lowest, highest, jnp.where(is_known, used, jnp.nan))
        )
        part = ClipAround(lows, highs, None, limits, freeze_after, norms)
        result = treedef.unflatten(clipped)
        new_state = BoundAroundState(count, treedef.unflatten(f))
        tell(Link(part, updates, result, state, new_state))
        return result, new_state

    return optax.GradientTransformationExtraArgs(init, update)


def frozen_rate(rates: Sequence[float]) -> optax.GradientTransformationExtraArgs:
    """V = f of each leaf in turn: what `bound_around` does once it has frozen."""

    def update(
        updates: optax.Updates, state: Any, params: Any = None, **extra: Any
    ) -> tuple[optax.Updates, Any]:
        del params, extra
        treedef: Any
        leaves, treedef = jax.tree.flatten(updates)
        pairs = zip(leaves, rates, strict=True)
        v = treedef.unflatten([jnp.full_like(widen(g).real, f) for g, f in pairs])
        f = treedef.unflatten(rates)
        tell(Link(ClipAround(f, f, None, f, 0), v, v, state, state))
        return v, state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


_OUTSIDE = (
    "bound_around must be handed the direction, which precondition and basic_form do, "
    "got none. Put it in the rate branch of one of them."
)


def _measured(
    target: Target,
    t: Any,
    old: jax.Array,
    group: Sequence[int],
    numerators: Sequence[jax.Array],
    denominators: Sequence[jax.Array],
) -> jax.Array:
    """The average of each leaf's f_t, and what it was where there is no f_t."""

    def of_groups(leaves: Sequence[jax.Array]) -> jax.Array:
        of_leaves = jnp.stack(leaves)
        sums = jnp.zeros(max(group) + 1, of_leaves.dtype).at[np.array(group)]
        return sums.add(of_leaves)[np.array(group)]

    above, below = of_groups(numerators), of_groups(denominators)
    can_divide = (above > 0) & (below > 0) & jnp.isfinite(above) & jnp.isfinite(below)
    above, below = (jnp.where(can_divide, x, 1.0) for x in (above, below))
    now = target.of_quotient(above / below).astype(old.dtype)
    weight = (1.0 - target.decay) / one_minus_power(target.decay, t)
    average = jnp.where(old > 0, (1.0 - weight) * old + weight * now, now)
    return jnp.where(can_divide, average, old)
