"""The compiled program of a group: K lanes, each advancing one trial.

A group is an optimizer with its static hyper-parameters. One program serves all its
trials and calls of every size: a call takes some lanes some updates further, after
first starting those whose trial is new. A lane that becomes free takes the next waiting
trial, so nothing is ever compiled again.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import subjaxprs
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from optjax.sweep._arrays import placed
from optjax.sweep._convolutions import fast_convolutions
from optjax.sweep._engine.lane import Size, one_lane
from optjax.sweep._engine.plan import Plan
from optjax.sweep._strategies import Strategy, skips_idle
from optjax.sweep._trial import State, Trial


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
    one = one_lane(
        trial,
        hyper,
        metrics,
        plan,
        most_evaluations=most_evaluations,
        skips_idle=skips_idle(strategy),
    )

    def device_lanes(carry: Any, told: Any, size: Size) -> tuple[Any, jax.Array]:
        run_all = strategy(functools.partial(one.call, size))
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
        batched(one.arrays), batched(told_shape), size_shape
    )
    options = plan.compiler_options
    compiled = traced.lower().compile(None if options is None else dict(options))

    def start() -> Any:
        return jax.tree.map(
            lambda leaf: placed(np.zeros((lanes, *leaf.shape), leaf.dtype), sharding),
            one.arrays,
        )

    def advance(
        carry: Any, assignment: Assignment, size: Size
    ) -> tuple[Any, np.ndarray]:
        told = jax.tree.map(lambda array: placed(array, sharding), assignment._asdict())
        sizes = jax.tree.map(
            lambda value, like: placed(np.array(value, like.dtype), everywhere),
            size,
            size_shape,
        )
        carry, rows = compiled(carry, told, sizes)
        return carry, np.asarray(rows)

    def state(carry: Any, lane: int) -> State:
        return one.unpack([leaf[lane] for leaf in carry])

    def save(carry: Any) -> list[np.ndarray]:
        return [np.array(leaf) for leaf in carry]

    def load(arrays: Sequence[np.ndarray]) -> Any:
        return [placed(array, sharding) for array in arrays]

    @functools.partial(jax.jit, donate_argnums=0, out_shardings=sharding)
    def put(carry: Any, lane: int, state: State) -> Any:
        pairs = zip(carry, one.pack(state), strict=True)
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
        saved = sum(leaf.size * leaf.dtype.itemsize for leaf in one.arrays)
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
