"""∂ Δx / ∂ log h of every hyper-parameter h, leaf by leaf, one at a time.

    elasticity   E = ⟨Δx, ∂Δx⟩ / ‖Δx‖²            = ∂ log‖Δx‖ / ∂ log h
    turn         ‖∂Δx − E Δx‖ / ‖Δx‖              how far the direction turns

by forward-mode derivatives through `update`, which is a black box. Each h has a pass of
its own over the leaves, so that no more than one tangent of the updates is alive.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optjax._audit.subject import Subject
from optjax._precision import abs_sq, widen

__all__ = ["Effects", "Measured", "Moves", "measure"]


class Effects(NamedTuple):
    """What turning each knob does, of shape (steps, knobs, leaves).

    Attributes:
      elasticity: ∂ log‖Δx‖ / ∂ log h.
      turn: how far the direction of Δx turns.
      moved: the share of coordinates whose own |∂ log|Δx_i| / ∂ log h| is ½ or more.
      decay: −⟨x, ∂Δx⟩ / (‖x‖ ‖Δx‖), how much of the step it takes towards 0.
      by_difference: of shape (knobs,): whether there was no finite derivative and
        these are central differences.
    """

    elasticity: Any
    turn: Any
    moved: Any
    decay: Any
    by_difference: Any


class Moves(NamedTuple):
    """The steps themselves, of shape (steps, leaves).

    Attributes:
      update: ‖Δx‖.
      gradient: ‖g‖.
      parameter: ‖x‖.
      downhill: −⟨Δx, g⟩ / (‖Δx‖ ‖g‖).
      lost: the share of coordinates that x + Δx leaves where they are, of those with an
        update.
      finite: whether Δx is; where g is not, it counts as finite.
      finite_gradient: whether g is.
    """

    update: Any
    gradient: Any
    parameter: Any
    downhill: Any
    lost: Any
    finite: Any
    finite_gradient: Any


class Measured(NamedTuple):
    """`Effects`, `Moves`, and the values of the hyper-parameters, (steps, knobs).

    `clip` is the factor by which the step is shorter than the gradients are long, as
    a clip makes it, (steps,): not finite where the smallest gradients say nothing.
    """

    effects: Effects
    moves: Moves
    values: Any
    clip: Any


def measure(
    subject: Subject,
    differences: bool,
    gradients: Any,
    given: Any,
    params: Any,
    extra: dict[str, Any],
) -> Measured:
    """Audit steps along given gradients, each leaf with a leading axis of steps.

    h is turned before the first step: the tangents of the state are carried along.
    Where a derivative is not finite, as that of a root at 0, a difference takes its
    place if it may, which doubles the program.
    """
    still = subject.still

    def step(e: Any, state: Any, gradient: Any, params: Any) -> Any:
        all_, second, parameters = e[-3], e[-2], e[-1]
        leaves, structure = jax.tree.flatten(gradient)
        turned = [
            _times(g, all_ + (second if i % 2 else 0.0)) for i, g in enumerate(leaves)
        ]
        at = jax.tree.map(lambda x: _times(x, parameters), params)
        return subject.update(jax.tree.unflatten(structure, turned), state, at, **extra)

    def along(knob: jax.Array, length: float) -> tuple[jax.Array, ...]:
        """One of e, of no dtype either."""
        return tuple(jnp.where(knob == i, length, 0.0) for i in range(len(still)))

    def derivative(knob: jax.Array) -> Any:
        turning = along(knob, 1.0)

        def begin(e: Any) -> Any:
            parted = _Parted.of(subject.start(e, given, params))
            return parted.inexact, parted

        def follow(carry: Any, gradient: Any) -> Any:
            inexact, tangents, parted, params = carry

            def one(e: Any, inexact: Any) -> Any:
                before = parted.with_inexact(inexact)
                update, new = step(e, before, gradient, params)
                new = _Parted.of(new)
                return (update, new.inexact), new

            (update, inexact), (tangent, tangents), parted = jax.jvp(
                one, (still, inexact), (turning, tangents), has_aux=True
            )
            after = optax.apply_updates(params, update)
            return (inexact, tangents, parted, after), _effect(update, tangent, params)

        inexact, tangents, parted = jax.jvp(begin, (still,), (turning,), has_aux=True)
        return _along(follow, (inexact, tangents, parted, params), gradients)

    def difference(knob: jax.Array) -> Any:
        h = _width(params)
        sides = [along(knob, side) for side in (0.0, h, -h)]

        def follow(carry: Any, gradient: Any) -> Any:
            *states, params = carry
            three = [
                step(e, state, gradient, params)
                for e, state in zip(sides, states, strict=True)
            ]
            (update, _), (above, _), (below, _) = three
            tangent = jax.tree.map(
                lambda a, b: (widen(a) - widen(b)) / (2 * h), above, below
            )
            after = optax.apply_updates(params, update)
            new = *(state for _, state in three), after
            return new, _effect(update, tangent, params)

        states = (subject.start(e, given, params) for e in sides)
        return _along(follow, (*states, params), gradients)

    def effect(knob: jax.Array) -> Any:
        result = derivative(knob)
        # Where the step itself is not finite no difference is.
        known = jnp.all(jnp.isfinite(result.tangents) | ~jnp.isfinite(result.update))
        if differences:
            other = lambda: difference(knob)  # noqa: E731
            result = jax.lax.cond(known, lambda: result, other)
        return result, jnp.logical_not(known)

    sums, by_difference = jax.lax.map(effect, jnp.arange(len(still)))
    effects = Effects(
        elasticity=jnp.swapaxes(sums.elasticity, 0, 1),
        turn=jnp.swapaxes(sums.turn, 0, 1),
        moved=jnp.swapaxes(sums.moved, 0, 1),
        decay=jnp.swapaxes(sums.decay, 0, 1),
        by_difference=by_difference,
    )

    def follow(carry: Any, gradient: Any) -> Any:
        count, before, params = carry
        update, state = step(still, before, gradient, params)
        after = optax.apply_updates(params, update)
        values = jnp.array(
            [jnp.asarray(v, jnp.float32) for v in subject.values(count, state)],
            jnp.float32,
        )
        scale = _clip(lambda g: step(still, before, g, params)[0], gradient, update)
        seen = _moves(update, gradient, params, after), values, scale
        return (count + 1, state, after), seen

    first = jnp.zeros([], jnp.int32), subject.start(still, given, params), params
    moves, values, clip = _along(follow, first, gradients)
    return Measured(effects, moves, values, clip)


class _Parted:
    """A tree whose inexact leaves, which have tangents, are apart from the rest."""

    def __init__(self, inexact: list[Any], rest: list[Any], structure: Any):
        self.inexact, self._rest, self._structure = inexact, rest, structure

    @classmethod
    def of(cls, tree: Any) -> "_Parted":
        leaves, structure = jax.tree.flatten(tree)
        leaves = [jnp.asarray(leaf) for leaf in leaves]
        is_inexact = [jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves]
        inexact = [x for x, yes in zip(leaves, is_inexact, strict=True) if yes]
        rest = [x for x, yes in zip(leaves, is_inexact, strict=True) if not yes]
        return cls(inexact, rest, (structure, tuple(is_inexact)))

    def with_inexact(self, inexact: list[Any]) -> Any:
        structure, is_inexact = self._structure
        one, other = iter(inexact), iter(self._rest)
        return structure.unflatten([next(one if yes else other) for yes in is_inexact])


jax.tree_util.register_pytree_node(
    _Parted,
    lambda parted: ((parted._rest,), parted._structure),
    lambda structure, rest: _Parted([], rest[0], structure),
)


class _Sums(NamedTuple):
    elasticity: Any
    turn: Any
    moved: Any
    decay: Any
    tangents: Any
    update: Any


def _effect(update: Any, tangent: Any, params: Any) -> _Sums:
    """A number of each a leaf; `tangents` and `update` are squares, to look at."""

    def of_leaf(u: jax.Array, du: jax.Array, x: jax.Array) -> _Sums:
        u, du, x = widen(u), widen(du), widen(x)
        square, x_square = jnp.sum(abs_sq(u)), jnp.sum(abs_sq(x))
        elasticity = _dot(u, du) / square
        rest = jnp.sum(abs_sq(du - elasticity * u))
        is_moved = (jnp.abs(du) >= 0.5 * jnp.abs(u)) & (du != 0)
        return _Sums(
            elasticity,
            jnp.sqrt(rest / square),
            jnp.mean(is_moved.astype(square.dtype)) if u.size else jnp.zeros(()),
            -_dot(x, du) / jnp.sqrt(square * x_square),
            jnp.sum(abs_sq(du)),
            square,
        )

    return _a_leaf(of_leaf, update, tangent, params)


def _moves(update: Any, gradient: Any, params: Any, after: Any) -> Moves:
    def of_leaf(u: Any, g: Any, x: Any, new: Any) -> Moves:
        has_update = u != 0
        is_lost = has_update & (new == x)
        u, g = widen(u), widen(g)
        length, slope = jnp.sqrt(jnp.sum(abs_sq(u))), jnp.sqrt(jnp.sum(abs_sq(g)))
        is_finite = jnp.all(jnp.isfinite(g))
        return Moves(
            length,
            slope,
            jnp.sqrt(jnp.sum(abs_sq(x))),
            -_dot(u, g) / (length * slope),
            jnp.sum(is_lost) / jnp.maximum(jnp.sum(has_update), 1),
            jnp.all(jnp.isfinite(u)) | ~is_finite,
            is_finite,
        )

    return _a_leaf(of_leaf, update, gradient, params, after)


def _clip(step: Callable[[Any], Any], gradient: Any, update: Any) -> jax.Array:
    """‖Δx(g) − Δx(0)‖ over what it would be if Δx went on from 0 as it begins there."""
    none = jax.tree.map(jnp.zeros_like, gradient)
    rest, slope = jax.jvp(step, (none,), (gradient,))
    whole = jax.tree.map(lambda a, b: widen(a) - widen(b), update, rest)
    return jnp.sqrt(_square(whole) / _square(slope))


def _square(tree: Any) -> jax.Array:
    squares = [jnp.sum(abs_sq(leaf)) for leaf in jax.tree.leaves(tree)]
    return jnp.sum(jnp.stack(squares))


def _times(x: jax.Array, e: Any) -> jax.Array:
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        return x
    return x * jnp.exp(e)


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.sum(jnp.real(jnp.conj(a) * b))


def _a_leaf(f: Callable[..., Any], *trees: Any) -> Any:
    """`f` of every leaf, its fields stacked along the leaves."""
    columns = map(jax.tree.leaves, trees)
    rows = [f(*leaves) for leaves in zip(*columns, strict=True)]
    return jax.tree.map(lambda *xs: jnp.stack(xs), *rows)


def _along(follow: Callable[..., Any], carry: Any, gradients: Any) -> Any:
    """`scan`, but that nothing of a single step is carried on."""
    (steps,) = {g.shape[0] for g in jax.tree.leaves(gradients)}
    if steps > 1:
        return jax.lax.scan(follow, carry, gradients)[1]
    _, result = follow(carry, jax.tree.map(lambda g: g[0], gradients))
    return jax.tree.map(lambda x: x[None], result)


def _width(params: Any) -> float:
    """Of central differences: the cube root of the coarsest rounding."""
    return max(
        float(jnp.finfo(x.dtype).eps) ** (1 / 3)
        for x in jax.tree.leaves(params)
        if jnp.issubdtype(x.dtype, jnp.inexact)
    )
