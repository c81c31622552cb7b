"""∂ Δx / ∂ log h of every hyper-parameter h, leaf by leaf, one at a time.

    elasticity   E = ⟨Δx, ∂Δx⟩ / ‖Δx‖²            = ∂ log‖Δx‖ / ∂ log h
    turn         ‖∂Δx − E Δx‖ / ‖Δx‖              how far the direction turns

by forward-mode derivatives through `update`, which is a black box. Each h has a pass of
its own over the leaves, and of a single step each block of coordinates one of its own,
where the black box lets it, so that no array of the updates' size is held.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optjax._audit.blocks import by_blocks
from optjax._audit.forecast import held_at, meetings
from optjax._audit.links import Told, read_links
from optjax._audit.stalled import stalled
from optjax._audit.subject import Subject
from optjax._audit.sums import Effects, Moves, Sums, effects, moves, sums
from optjax._observe import observing
from optjax._precision import widen
from optjax._tree import leaf_names


class Measured(NamedTuple):
    """`Effects`, `Moves`, the values of the hyper-parameters, and what parts tell.

    `values` are of shape (steps, hyper-parameters). `forecast` has the steps of
    `meetings`, by the rates of the last step.
    """

    effects: Effects
    moves: Moves
    values: Any
    told: Told
    forecast: Any


def measure(
    subject: Subject,
    differences: bool,
    is_single: bool,
    may_cut: bool,
    gradients: Any,
    given: Any,
    params: Any,
    extra: dict[str, Any],
) -> Measured:
    """Audit steps along given gradients, each leaf with a leading axis of steps.

    Of a single step there is no such axis. h is turned before the first step: the
    tangents of the state are carried along. Where a derivative is not finite, as that
    of a root at 0, a difference takes its place if it may, which doubles the program.
    Arrays that are spread over devices may not be cut: each would be gathered.
    """
    still = subject.still

    def along_steps(follow: Callable[..., Any], carry: Any, gradients: Any) -> Any:
        """`scan`, but that nothing of a single step is carried on."""
        if not is_single:
            return jax.lax.scan(follow, carry, gradients)
        return None, jax.tree.map(lambda x: x[None], follow(carry, gradients)[1])

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

    def derivative(knob: jax.Array, gradients: Any, given: Any, params: Any) -> Any:
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
            return (inexact, tangents, parted, after), _of_leaves(
                sums, update, tangent, params
            )

        inexact, tangents, parted = jax.jvp(begin, (still,), (turning,), has_aux=True)
        return along_steps(follow, (inexact, tangents, parted, params), gradients)[1]

    def difference(knob: jax.Array, gradients: Any, given: Any, params: Any) -> Any:
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
            return new, _of_leaves(sums, update, tangent, params)

        states = (subject.start(e, given, params) for e in sides)
        return along_steps(follow, (*states, params), gradients)[1]

    def follow(carry: Any, gradient: Any) -> Any:
        count, _, now = carry
        before, params = now
        with observing() as links:
            update, state = step(still, before, gradient, params)
        names = leaf_names(params)
        told = read_links(links, names, update)
        told = told._replace(stalled=stalled(before, state, gradient, names))
        rest, slope = jax.jvp(
            lambda g: step(still, before, g, params)[0],
            (jax.tree.map(jnp.zeros_like, gradient),),
            (gradient,),
        )
        held = subject.values(count, state)
        values = jnp.array([jnp.asarray(v, jnp.float32) for v in held], jnp.float32)
        moved = _of_leaves(moves, update, rest, slope, gradient, params)
        after = count + 1, now, (state, optax.apply_updates(params, update))
        return after, (moved, values, told)

    def plain(gradients: Any, given: Any, params: Any) -> Any:
        start = subject.start(still, given, params), params
        first = jnp.zeros([], jnp.int32), start, start
        return along_steps(follow, first, gradients)

    # Of several steps the whole state is carried on anyway.
    lean = by_blocks if is_single and may_cut else lambda function: function
    carried, (moved, values, told) = lean(plain)(gradients, given, params)

    def look_after(state: Any, gradient: Any, params: Any) -> Callable[[Any], Any]:
        with observing() as links:
            update, _ = step(still, state, gradient, params)
        return functools.partial(held_at, links, update)

    def held_at_once(looks: Any, gradient: Any, given: Any, params: Any) -> Any:
        return look_after(subject.start(still, given, params), gradient, params)(looks)

    if is_single:
        at_once = lean(held_at_once)
        look = lambda looks: at_once(looks, gradients, given, params)  # noqa: E731
    else:
        _, (state, at), _ = carried
        look = look_after(state, jax.tree.map(lambda g: g[-1], gradients), at)
    forecast = meetings(look, leaf_names(params))

    def turn(knob: jax.Array) -> tuple[Sums, jax.Array]:
        # Without the barrier XLA takes what is the same for every knob out of the loop,
        # and keeps a dozen arrays of the parameters' size.
        operands = jax.lax.optimization_barrier((knob, gradients, given, params))
        result = lean(derivative)(*operands)
        # Where the step itself is not finite no difference is.
        known = jnp.isfinite(result.along) | ~jnp.isfinite(moved.update)
        if differences:
            other = lambda: lean(difference)(*operands)  # noqa: E731
            result = jax.lax.cond(jnp.all(known), lambda: result, other)
        return result, ~jnp.all(known)

    turned, by_difference = jax.lax.map(turn, jnp.arange(len(still)))
    found = effects(turned, by_difference, moved)
    return Measured(found, moved, values, told, forecast)


def _of_leaves(use: Callable[..., Any], *trees: Any) -> Any:
    """`use` of each leaf, stacked."""
    columns = map(jax.tree.leaves, trees)
    results = [use(*leaves) for leaves in zip(*columns, strict=True)]
    return jax.tree.map(lambda *xs: jnp.stack(xs), *results)


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


def _times(x: jax.Array, e: Any) -> jax.Array:
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        return x
    return x * jnp.exp(e)


def _width(params: Any) -> float:
    """Of central differences: the cube root of the coarsest rounding."""
    epsilons: list[float] = [
        float(jnp.finfo(x.dtype).eps) ** (1 / 3)
        for x in jax.tree.leaves(params)
        if jnp.issubdtype(x.dtype, jnp.inexact)
    ]
    return max(epsilons)
