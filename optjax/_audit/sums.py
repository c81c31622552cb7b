"""Sums over the coordinates of each leaf: how long a step is, and how it turns."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optjax._precision import abs_sq, widen


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
      response: ‖Δx − Δx(g=0)‖, what the gradients of the step itself do to it.
      slope: what that would be if Δx went on from g = 0 as it begins there.
      gradient: ‖g‖.
      parameter: ‖x‖.
      downhill: the cosine of the response and −g: momentum may go uphill for a while.
      lost: the share of coordinates that x + Δx leaves where they are, of those with an
        update.
      finite: whether Δx is; where g is not, it counts as finite.
      finite_gradient: whether g is.
    """

    update: Any
    response: Any
    slope: Any
    gradient: Any
    parameter: Any
    downhill: Any
    lost: Any
    finite: Any
    finite_gradient: Any


class Sums(NamedTuple):
    """Of one knob, of shape (steps, leaves).

    Attributes:
      along: ⟨Δx, ∂Δx⟩.
      across: ‖∂Δx − E Δx‖.
      moved: as of `Effects`.
      inwards: −⟨x, ∂Δx⟩.
    """

    along: Any
    across: Any
    moved: Any
    inwards: Any


def sums(u: jax.Array, du: jax.Array, x: jax.Array) -> Sums:
    """Those of one leaf in one step, of Δx, ∂Δx and x."""
    u, du, x = widen(u), widen(du), widen(x)
    along = _dot(u, du)
    across = du - along / jnp.sum(abs_sq(u)) * u
    is_moved = (jnp.abs(du) >= 0.5 * jnp.abs(u)) & (du != 0)
    share = jnp.sum(is_moved.astype(along.dtype)) / max(u.size, 1)
    return Sums(along, jnp.sqrt(jnp.sum(abs_sq(across))), share, -_dot(x, du))


def effects(of_knobs: Sums, by_difference: Any, moves: Moves) -> Effects:
    """Sums, with the knobs first, in terms of the step."""
    along, across, moved, inwards = (jnp.swapaxes(x, 0, 1) for x in of_knobs)
    update, parameter = moves.update[:, None], moves.parameter[:, None]
    return Effects(
        along / update**2,
        across / update,
        moved,
        inwards / (update * parameter),
        by_difference,
    )


def moves(u: Any, rest: Any, slope: Any, g: Any, x: Any) -> Moves:
    """Of one leaf in one step, of Δx, Δx and ∂Δx/∂g · g at g = 0, g and x."""
    has_update = u != 0
    is_lost = has_update & (optax.apply_updates(x, u) == x)
    u, rest, g = widen(u), widen(rest), widen(g)
    # Where there is no answer to no gradients, as 0/0, all of it is the response.
    response = u - jnp.where(jnp.isfinite(rest), rest, 0.0)
    length, gradient = _norm(response), _norm(g)
    is_finite = jnp.all(jnp.isfinite(g))
    return Moves(
        update=_norm(u),
        response=length,
        slope=_norm(slope),
        gradient=gradient,
        parameter=_norm(x),
        downhill=-_dot(response, g) / (length * gradient),
        lost=jnp.sum(is_lost) / jnp.maximum(jnp.sum(has_update), 1),
        finite=jnp.all(jnp.isfinite(u)) | ~is_finite,
        finite_gradient=is_finite,
    )


def _norm(x: Any) -> jax.Array:
    return jnp.sqrt(jnp.sum(abs_sq(widen(x))))


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.sum(jnp.real(jnp.conj(a) * b))
