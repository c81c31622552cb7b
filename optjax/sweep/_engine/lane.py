"""What one lane does in a call: updates and evaluations of one trial."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from optjax.sweep._arrays import packing
from optjax.sweep._engine.plan import Plan
from optjax.sweep._trial import SOUND, State, Trial, init_shapes


class Size(NamedTuple):
    """How far a call takes the lanes that are busy in it.

    Attributes:
      evaluations: how often it does what follows.
      updates: one after the other.
      evaluates: whether they end in an evaluation.
    """

    evaluations: int
    updates: int
    evaluates: bool


class OneLane(NamedTuple):
    """A lane as functions, which run while JAX traces.

    Attributes:
      call: (size, arrays, told) -> (arrays, metrics), metrics an array of shape (most
        evaluations, names), NaN where there was no evaluation.
      arrays: the shapes and dtypes of what it holds.
      pack: a trial's state as it is after an evaluation -> arrays.
      unpack: arrays -> the state.
    """

    call: Callable[[Size, Any, Any], tuple[Any, jax.Array]]
    arrays: Sequence[jax.ShapeDtypeStruct]
    pack: Callable[[State], Any]
    unpack: Callable[[Any], State]


def lane_bytes(trial: Trial, hyper: Sequence[str]) -> int:
    """The size of one lane's state."""
    return sum(
        leaf.size * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(jax.eval_shape(trial.init, *init_shapes(hyper)))
    )


class _Held(NamedTuple):
    """A trial's state, and the sums of its step's metrics since the last evaluation."""

    state: State
    sums: jax.Array


#: The evaluations done, the lane, and a row of metrics for each.
_At: TypeAlias = tuple[jax.Array, _Held, jax.Array]


def one_lane(
    trial: Trial,
    hyper: Sequence[str],
    metrics: Sequence[str],
    plan: Plan,
    *,
    most_evaluations: int,
    skips_idle: bool,
) -> OneLane:
    """What each lane of a group does.

    Args:
      trial: the functions to run.
      hyper: names of its hyper-parameters.
      metrics: names of its metrics, in the order wanted.
      plan: what all programs have in common.
      most_evaluations: of a call.
      skips_idle: whether no lane has to wait for another that has diverged.
    """
    state_shape: Any = jax.eval_shape(trial.init, *init_shapes(hyper))
    averaged = tuple(sorted(jax.eval_shape(trial.step, state_shape)[1]))
    no_sums = np.zeros((2, len(averaged)), np.float32)
    lane_shape: Any = jax.eval_shape(
        lambda state: _Held(state, jnp.array(no_sums)), state_shape
    )
    pack, unpack = packing(lane_shape)
    no_rows = np.full((most_evaluations, len(metrics)), np.nan, np.float32)

    def update(_: Any, lane: _Held) -> _Held:
        state, measured = trial.step(lane.state)
        each = [jnp.asarray(measured[name], jnp.float32) for name in averaged]
        return _Held(state, _add(lane.sums, jnp.stack(each)) if each else lane.sums)

    def measure(lane: _Held) -> jax.Array:
        means = lane.sums[0] / plan.evaluate_every
        measured = {
            **dict(zip(averaged, means, strict=True)),
            **trial.evaluate(lane.state),
        }
        return jnp.stack([jnp.asarray(measured[name], jnp.float32) for name in metrics])

    def run(size: Size, packed: Any, told: Any) -> tuple[Any, jax.Array]:
        def begin() -> _Held:
            state = trial.init(jax.random.key(told["seed"]), told["hyper"])
            return _Held(state, jnp.array(no_sums))

        def goes_on(at: _At) -> jax.Array:
            done, _, rows = at
            more: jax.Array = done < size.evaluations
            if not skips_idle:
                return more
            # Nothing else has to wait for a trial that has diverged.
            last = jax.lax.dynamic_index_in_dim(rows, done - 1, keepdims=False)
            more &= (done == 0) | is_sound(last, metrics, plan.allow_nan)
            return more

        def go_on(at: _At) -> _At:
            done, lane, rows = at
            lane = jax.lax.fori_loop(0, size.updates, update, lane)
            row = jax.lax.cond(
                size.evaluates, measure, lambda _: jnp.array(no_rows[0]), lane
            )
            lane = lane._replace(sums=jnp.where(size.evaluates, 0, lane.sums))
            return (
                done + 1,
                lane,
                jax.lax.dynamic_update_index_in_dim(rows, row, done, 0),
            )

        lane = jax.lax.cond(told["fresh"], begin, lambda: unpack(packed))
        at = jnp.int32(0), lane, jnp.array(no_rows)
        _, lane, rows = jax.lax.while_loop(goes_on, go_on, at)
        return pack(lane), rows

    def lane(size: Size, packed: Any, told: Any) -> tuple[Any, jax.Array]:
        after: tuple[Any, jax.Array] = jax.lax.cond(
            told["busy"],
            lambda packed, told: run(size, packed, told),
            lambda packed, told: (packed, jnp.array(no_rows)),
            packed,
            told,
        )
        return after

    return OneLane(
        lane,
        jax.eval_shape(pack, lane_shape),
        lambda state: pack(_Held(state, jnp.array(no_sums))),
        lambda arrays: unpack(arrays).state,
    )


def is_sound(rows: Any, metrics: Sequence[str], allow_nan: Collection[str]) -> Any:
    """Which evaluations are no divergence, of an array (..., metrics)."""
    finite = abs(rows) < np.inf
    for name in allow_nan:
        finite = finite | (np.arange(len(metrics)) == metrics.index(name))
    sound = finite.all(-1)
    if SOUND in metrics:
        sound &= rows[..., metrics.index(SOUND)] != 0
    return sound


def _add(sums: jax.Array, values: jax.Array) -> jax.Array:
    """Add to sums, with what their rounding has lost in the second row (Kahan).

    A sum of many updates is as exact as one of few, and the same in one call as in
    several.
    """
    total, lost = sums
    values = values - lost
    after = total + values
    lost = (after - total) - values
    return jnp.stack([after, jnp.where(jnp.isfinite(lost), lost, 0)])
