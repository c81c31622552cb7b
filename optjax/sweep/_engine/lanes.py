"""The compiled program of a group: K lanes, each advancing one trial.

A group is an optimizer with its static hyper-parameters. One program serves all its
trials: a call takes every busy lane `evaluations` × `evaluate_every` updates further,
after first starting the lanes whose trial is new. A lane that becomes free takes the
next waiting trial, so nothing is ever compiled again.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from optjax.sweep._strategies import Strategy
from optjax.sweep._trial import State, Trial

__all__ = ["Assignment", "Program", "compile_lanes", "lane_bytes"]


class Assignment(NamedTuple):
    """What each lane is told: arrays of length K."""

    busy: np.ndarray
    fresh: np.ndarray
    seed: np.ndarray
    hyper: Mapping[str, np.ndarray]


class Program(NamedTuple):
    """A compiled group.

    Attributes:
      start: () -> carry, lanes that have run nothing yet.
      advance: (carry, assignment) -> (carry, metrics), metrics an array of shape
        (K, evaluations, names). The carry is donated.
      lanes: K.
    """

    start: Callable[[], Any]
    advance: Callable[[Any, Assignment], tuple[Any, np.ndarray]]
    lanes: int


def lane_bytes(trial: Trial, hyper: Sequence[str]) -> int:
    """The size of one lane's state."""
    return sum(
        leaf.size * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(_state_shape(trial, hyper))
    )


def compile_lanes(
    trial: Trial,
    hyper: Sequence[str],
    metrics: Sequence[str],
    *,
    lanes: int,
    strategy: Strategy,
    evaluate_every: int,
    evaluations: int,
    devices: Sequence[jax.Device],
    compiler_options: Mapping[str, str | bool] | None = None,
) -> Program:
    """Compile a group's program.

    Args:
      trial: the functions to run.
      hyper: names of its hyper-parameters.
      metrics: names of its metrics, in the order wanted.
      lanes: K, a multiple of the number of devices.
      strategy: how one device runs its lanes.
      evaluate_every: updates between two evaluations.
      evaluations: evaluations a call.
      devices: what the lanes are shared over, of one or of several processes.
      compiler_options: for XLA.
    """
    shape = _state_shape(trial, hyper)
    pack, unpack = _packing(shape)

    def evaluate_once(state: State, _: None) -> tuple[State, jax.Array]:
        state, history = jax.lax.scan(
            lambda state, _: trial.step(state), state, length=evaluate_every
        )
        measured = {
            **{name: jnp.mean(value) for name, value in history.items()},
            **trial.evaluate(state),
        }
        row = [jnp.asarray(measured[name]).astype(jnp.float32) for name in metrics]
        return state, jnp.stack(row)

    def run(packed: Any, told: Any) -> tuple[Any, jax.Array]:
        def begin() -> State:
            return trial.init(jax.random.key(told["seed"]), told["hyper"])

        state = jax.lax.cond(told["fresh"], begin, lambda: unpack(packed))
        state, rows = jax.lax.scan(evaluate_once, state, length=evaluations)
        return pack(state), rows

    def lane(packed: Any, told: Any) -> tuple[Any, jax.Array]:
        idle = jnp.full((evaluations, len(metrics)), jnp.nan, jnp.float32)
        return jax.lax.cond(
            told["busy"], run, lambda packed, told: (packed, idle), packed, told
        )

    def device_lanes(carry: Any, told: Any) -> tuple[Any, jax.Array]:
        carry, rows = strategy(lane)(carry, told)
        if jax.process_count() > 1:
            # Every process takes the same decisions, so each needs every lane's rows.
            rows = jax.lax.all_gather(rows, "lanes", tiled=True)
        return carry, rows

    mesh = Mesh(np.array(devices), ("lanes",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, P("lanes"))
    rows_spec = P() if jax.process_count() > 1 else P("lanes")
    sharded = jax.shard_map(
        device_lanes,
        mesh=mesh,
        in_specs=P("lanes"),
        out_specs=(P("lanes"), rows_spec),
        check_vma=False,
    )
    # The packed leaves exist for compilation only as shapes: nothing is allocated.
    packed_shape = jax.eval_shape(pack, shape)
    told_shape = {
        "busy": jax.ShapeDtypeStruct((), np.bool_),
        "fresh": jax.ShapeDtypeStruct((), np.bool_),
        "seed": jax.ShapeDtypeStruct((), np.int32),
        "hyper": {name: jax.ShapeDtypeStruct((), np.float32) for name in hyper},
    }
    batched = functools.partial(
        jax.tree.map,
        lambda leaf: jax.ShapeDtypeStruct(
            (lanes, *leaf.shape), leaf.dtype, sharding=sharding
        ),
    )
    compiled = (
        jax.jit(sharded, donate_argnums=0)
        .lower(batched(packed_shape), batched(told_shape))
        .compile(None if compiler_options is None else dict(compiler_options))
    )

    def start() -> Any:
        return jax.tree.map(
            lambda leaf: _put(np.zeros((lanes, *leaf.shape), leaf.dtype), sharding),
            packed_shape,
        )

    def advance(carry: Any, assignment: Assignment) -> tuple[Any, np.ndarray]:
        told = {
            "busy": assignment.busy,
            "fresh": assignment.fresh,
            "seed": assignment.seed,
            "hyper": {name: assignment.hyper[name] for name in hyper},
        }
        told = jax.tree.map(lambda array: _put(array, sharding), told)
        carry, rows = compiled(carry, told)
        return carry, np.asarray(rows)

    return Program(start, advance, lanes)


def _state_shape(trial: Trial, hyper: Sequence[str]) -> Any:
    key = jax.eval_shape(lambda: jax.random.key(0))
    scalars = {name: jax.ShapeDtypeStruct((), np.float32) for name in hyper}
    return jax.eval_shape(trial.init, key, scalars)


def _packing(shape: Any) -> tuple[Callable[[State], Any], Callable[[Any], State]]:
    """The state as a list of plain arrays, and back.

    Keys become their words and zero-size leaves are left out, since neither can be
    put in a file.
    """
    treedef: Any
    leaves, treedef = jax.tree.flatten(shape)

    def pack(state: State) -> list[jax.Array]:
        return [
            jax.random.key_data(leaf) if _is_key(want) else leaf.astype(want.dtype)
            for leaf, want in zip(jax.tree.leaves(state), leaves, strict=True)
            if want.size
        ]

    def unpack(packed: list[jax.Array]) -> State:
        arrays = iter(packed)

        def leaf(want: Any) -> jax.Array:
            if not want.size:
                return jnp.zeros(want.shape, want.dtype)
            array = next(arrays)
            if not _is_key(want):
                return array
            return jax.random.wrap_key_data(array, impl=_key_impl(want))

        return treedef.unflatten([leaf(want) for want in leaves])

    return pack, unpack


def _is_key(leaf: Any) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def _key_impl(leaf: Any) -> Any:
    return leaf.dtype._impl.name


def _put(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    return jax.make_array_from_callback(
        array.shape, sharding, lambda index: array[index]
    )
