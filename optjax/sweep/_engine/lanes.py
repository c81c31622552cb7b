"""The compiled program of a group: K lanes, each advancing one trial.

A group is an optimizer with its static hyper-parameters. One program serves all its
trials and calls of every size: a call takes some lanes some updates further, after
first starting those whose trial is new. A lane that becomes free takes the next waiting
trial, so nothing is ever compiled again.
"""

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import subjaxprs
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from optjax.sweep._arrays import packing, placed
from optjax.sweep._convolutions import fast_convolutions
from optjax.sweep._engine.plan import Plan
from optjax.sweep._strategies import Strategy, skips_idle
from optjax.sweep._trial import State, Trial, init_shapes


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
      advance: (carry, assignment, size) -> (carry, metrics), metrics an array of shape
        (K, most evaluations, names), NaN where there was no evaluation. The carry is
        donated.
      state: (carry, lane) -> the state of the trial in that lane, on its device.
      put: (carry, lane, state) -> carry, with a state as it is after an evaluation. The
        carry is donated.
      save: carry -> copies of its arrays, each of shape (K, ...), on the host.
      load: such arrays -> carry.
      lanes: K.
      primitives: the names of those that it is made of.
      bytes: what it takes while it runs, on all devices.
    """

    start: Callable[[], Any]
    advance: Callable[[Any, Assignment, Size], tuple[Any, np.ndarray]]
    state: Callable[[Any, int], State]
    put: Callable[[Any, int, State], Any]
    save: Callable[[Any], list[np.ndarray]]
    load: Callable[[Sequence[np.ndarray]], Any]
    lanes: int
    primitives: frozenset[str] = frozenset()
    bytes: int = 0

    @property
    def calls_host(self) -> bool:
        """Whether functions of Python's run in it, which may raise."""
        return any("callback" in name for name in self.primitives)


def lane_bytes(trial: Trial, hyper: Sequence[str]) -> int:
    """The size of one lane's state."""
    return sum(
        leaf.size * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(jax.eval_shape(trial.init, *init_shapes(hyper)))
    )


class _Lane(NamedTuple):
    """A trial's state, and the sums of its step's metrics since the last evaluation."""

    state: State
    sums: jax.Array


#: The evaluations done, the lane, and a row of metrics for each.
_At: TypeAlias = tuple[jax.Array, _Lane, jax.Array]


def compile_lanes(
    trial: Trial,
    hyper: Sequence[str],
    metrics: Sequence[str],
    plan: Plan,
    *,
    lanes: int,
    strategy: Strategy,
    most_evaluations: int,
) -> Program:
    """Compile a group's program.

    Args:
      trial: the functions to run.
      hyper: names of its hyper-parameters.
      metrics: names of its metrics, in the order wanted.
      plan: what all programs have in common.
      lanes: K, a multiple of the number of devices.
      strategy: how one device runs its lanes.
      most_evaluations: of a call.
    """
    devices = plan.devices
    state_shape: Any = jax.eval_shape(trial.init, *init_shapes(hyper))
    averaged = tuple(sorted(jax.eval_shape(trial.step, state_shape)[1]))
    no_sums = np.zeros((2, len(averaged)), np.float32)
    lane_shape: Any = jax.eval_shape(
        lambda state: _Lane(state, jnp.array(no_sums)), state_shape
    )
    pack, unpack = packing(lane_shape)
    no_rows = np.full((most_evaluations, len(metrics)), np.nan, np.float32)

    def update(_: Any, lane: _Lane) -> _Lane:
        state, measured = trial.step(lane.state)
        each = [jnp.asarray(measured[name], jnp.float32) for name in averaged]
        return _Lane(state, _add(lane.sums, jnp.stack(each)) if each else lane.sums)

    def measure(lane: _Lane) -> jax.Array:
        means = lane.sums[0] / plan.evaluate_every
        measured = {
            **dict(zip(averaged, means, strict=True)),
            **trial.evaluate(lane.state),
        }
        return jnp.stack([jnp.asarray(measured[name], jnp.float32) for name in metrics])

    def run(size: Size, packed: Any, told: Any) -> tuple[Any, jax.Array]:
        def begin() -> _Lane:
            state = trial.init(jax.random.key(told["seed"]), told["hyper"])
            return _Lane(state, jnp.array(no_sums))

        def goes_on(at: _At) -> jax.Array:
            done, _, rows = at
            more: jax.Array = done < size.evaluations
            if not skips_idle(strategy):
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
            functools.partial(run, size),
            lambda packed, told: (packed, jnp.array(no_rows)),
            packed,
            told,
        )
        return after

    def device_lanes(carry: Any, told: Any, size: Size) -> tuple[Any, jax.Array]:
        run_all = strategy(functools.partial(lane, size))
        if devices[0].platform == "cpu":
            run_all = fast_convolutions(run_all)
        carry, rows = run_all(carry, told)
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
        in_specs=(P("lanes"), P("lanes"), P()),
        out_specs=(P("lanes"), rows_spec),
        check_vma=False,
    )
    # The packed leaves exist for compilation only as shapes: nothing is allocated.
    packed_shape = jax.eval_shape(pack, lane_shape)
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
    everywhere = NamedSharding(mesh, P())
    size_shape: Any = Size(
        *(
            jax.ShapeDtypeStruct((), dtype, sharding=everywhere)
            for dtype in (np.int32, np.int32, np.bool_)
        )  # type: ignore[arg-type]
    )
    traced = jax.jit(sharded, donate_argnums=0).trace(
        batched(packed_shape), batched(told_shape), size_shape
    )
    options = plan.compiler_options
    compiled = traced.lower().compile(None if options is None else dict(options))

    def start() -> Any:
        return jax.tree.map(
            lambda leaf: placed(np.zeros((lanes, *leaf.shape), leaf.dtype), sharding),
            packed_shape,
        )

    def advance(
        carry: Any, assignment: Assignment, size: Size
    ) -> tuple[Any, np.ndarray]:
        told = {
            "busy": assignment.busy,
            "fresh": assignment.fresh,
            "seed": assignment.seed,
            "hyper": {name: assignment.hyper[name] for name in hyper},
        }
        told = jax.tree.map(lambda array: placed(array, sharding), told)
        sizes = jax.tree.map(
            lambda value, like: placed(np.array(value, like.dtype), everywhere),
            size,
            size_shape,
        )
        carry, rows = compiled(carry, told, sizes)
        return carry, np.asarray(rows)

    def state(carry: Any, lane: int) -> State:
        return unpack([leaf[lane] for leaf in carry]).state

    def save(carry: Any) -> list[np.ndarray]:
        return [np.array(leaf) for leaf in carry]

    def load(arrays: Sequence[np.ndarray]) -> Any:
        return [placed(array, sharding) for array in arrays]

    @functools.partial(jax.jit, donate_argnums=0, out_shardings=sharding)
    def put(carry: Any, lane: int, state: State) -> Any:
        leaves = pack(_Lane(state, jnp.array(no_sums)))
        pairs = zip(carry, leaves, strict=True)
        return [array.at[lane].set(leaf) for array, leaf in pairs]

    program = Program(
        start,
        advance,
        state,
        put,
        save,
        load,
        lanes,
        frozenset(_primitives(traced.jaxpr.jaxpr)),
        _bytes(compiled) * len(devices),
    )
    if program.calls_host and devices[0].platform == "cpu":
        # What `save` gives, while a call runs.
        saved = sum(leaf.size * leaf.dtype.itemsize for leaf in packed_shape)
        program = program._replace(bytes=program.bytes + lanes * saved)
    return program


def _primitives(jaxpr: Any) -> Iterator[str]:
    """The names of a jaxpr's primitives, at any depth."""
    for eqn in jaxpr.eqns:
        yield eqn.primitive.name
    for inside in subjaxprs(jaxpr):
        yield from _primitives(inside)


def _bytes(compiled: Any) -> int:
    """What a program takes on a device, as XLA says; 0 where it does not."""
    said = compiled.memory_analysis()
    if said is None:
        return 0
    return int(
        said.argument_size_in_bytes
        + said.output_size_in_bytes
        + said.temp_size_in_bytes
        - said.alias_size_in_bytes
    )


def is_sound(rows: Any, metrics: Sequence[str], allow_nan: Collection[str]) -> Any:
    """Which evaluations are no divergence, of an array (..., metrics)."""
    finite = abs(rows) < np.inf
    for name in allow_nan:
        finite = finite | (np.arange(len(metrics)) == metrics.index(name))
    sound = finite.all(-1)
    if "finite" in metrics:
        sound &= rows[..., metrics.index("finite")] != 0
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
