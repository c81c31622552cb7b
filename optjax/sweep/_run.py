"""Run a sweep: draw the trials, keep the lanes full, write everything down."""

import math
import operator
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeAlias

import jax
import numpy as np

from optjax._hyperparameter import (
    FLAG,
    Count,
    Kind,
    Size,
    Text,
    function,
    function_or,
    instance,
    number,
    one_of,
    whole,
)
from optjax._signals import Stopped, number_of
from optjax.optimizers import OPTIMIZERS
from optjax.sweep._engine.chunks import Chunk, run_chunk, split
from optjax.sweep._engine.groups import Group, Settings, make_groups, pick_strategy
from optjax.sweep._engine.interrupt import Stop
from optjax.sweep._engine.lanes import STRATEGIES, Program
from optjax.sweep._engine.peers import losses_named
from optjax.sweep._engine.processes import agree, together
from optjax.sweep._engine.scheduler import Scheduler
from optjax.sweep._problem import (
    SweepError,
    Trainable,
    as_make_trial,
    checked,
    describe,
)
from optjax.sweep._records import DIVERGED, MOST_TRIALS, STOPPED, Record, TrialSpec
from optjax.sweep._result import SweepResult
from optjax.sweep._space.space import Draws, Factories, Method, Space, configurations
from optjax.sweep._stopping import SuccessiveHalving
from optjax.sweep._store.directory import as_directory
from optjax.sweep._store.fingerprint import Fingerprint
from optjax.sweep._store.identity import identity
from optjax.sweep._store.store import Progress, Store
from optjax.sweep._trial import Factory, MakeTrial

__all__ = ["Interrupted", "Status", "run", "run_alone"]

# A task on a cluster: long enough to pay for its compilation, short enough to lose.
_CHUNK_TRIALS = 64


class _Seeds(Kind):
    """A count of seeds, or the seeds."""

    def accepts(self, value: Any) -> bool:
        is_list = isinstance(value, (list, tuple, range, np.ndarray, jax.Array))
        if not is_list or getattr(value, "ndim", 1) == 0:
            return _is_seed(value) and operator.index(value) > 0
        seeds = list(value)
        return (
            bool(seeds)
            and all(map(_is_seed, seeds))
            and len(set(map(int, seeds))) == len(seeds)
        )


def _is_seed(value: Any) -> bool:
    return not whole(0).fault(value)


class _DirectoryKind(Kind):
    """What `as_directory` takes."""

    def fault(self, value: Any) -> str:
        try:
            as_directory(value)
        except SweepError as error:
            return str(error).removeprefix("out ")
        return ""


class _AboutKind(Kind):
    def accepts(self, value: Any) -> bool:
        return isinstance(value, Mapping) and all(
            isinstance(text, str) for pair in value.items() for text in pair
        )


_Mode: TypeAlias = Annotated[str, one_of(("max", "min"))]
_SeedsOf: TypeAlias = Annotated[
    int | Sequence[int],
    _Seeds("a number of seeds >= 1, or distinct integers from 0 to 2**31 - 1"),
]
_Out: TypeAlias = Annotated[str | Path, _DirectoryKind("the path of a directory")]
_Stopping: TypeAlias = Annotated[
    SuccessiveHalving, instance(SuccessiveHalving, "a SuccessiveHalving")
]
_Strategy: TypeAlias = Annotated[str, one_of(("auto", *STRATEGIES))]
_Bytes: TypeAlias = Annotated[int, whole(1, 2**63 - 1)]
_Seconds: TypeAlias = Annotated[float, number("a number >= 0", lambda x: x >= 0)]
_Progress: TypeAlias = Annotated[
    bool | Callable[["Status"], None],
    function_or("a function of a Status,", FLAG, "It is called with a Status"),
]
_OnGroup: TypeAlias = Annotated[
    Callable[[str, Sequence[Record]], None], function("a function (name, records)", 2)
]
_Engine: TypeAlias = Annotated[str, one_of(("local", "ray"))]
_Options: TypeAlias = Annotated[
    dict[str, str | bool], instance(Mapping, "a mapping of XLA's options")
]
_About: TypeAlias = Annotated[
    Mapping[str, str], _AboutKind("a mapping of names to texts", "Describe it in words")
]
_Spec: TypeAlias = Annotated[TrialSpec, instance(TrialSpec, "a TrialSpec")]


class Status(NamedTuple):
    """How far a sweep is, for a display.

    Attributes:
      total: trials in all.
      done: trials that ended, in whatever way.
      running: trials in a lane.
      diverged: of those done.
      stopped: of those done, by successive halving.
      optimizer: whose group is running.
      best: the best metric of a trial that has ended, or None.
      best_config: its configuration in words.
      steps: updates done by this process since it started.
      most_steps_left: updates still to do if no trial is stopped or diverges.
    """

    total: int
    done: int
    running: int
    diverged: int
    stopped: int
    optimizer: str
    best: float | None
    best_config: str
    steps: int
    most_steps_left: int


class Interrupted(Stopped):
    """Ctrl-C or SIGTERM during a sweep.

    Attributes:
      result: the trials that had ended.
      signal: which of the two, `signal.SIGINT` or `signal.SIGTERM`.
      by_all: whether all processes of `jax.distributed` stop at the same call.
    """

    def __init__(self, result: SweepResult, by: KeyboardInterrupt) -> None:
        """Keep the result."""
        by_all = isinstance(by, Stopped) and by.by_all
        super().__init__(number_of(by), by_all=by_all)
        self.result = result


@checked
def run(
    trial: Trainable,
    space: Space,
    *,
    steps: Size,
    evaluate_every: Size,
    metric: Text,
    mode: _Mode = "max",
    seeds: _SeedsOf = 3,
    out: _Out | None = None,
    draws: Draws | None = None,
    method: Method = "sobol",
    space_seed: Count = 0,
    factories: Factories | None = None,
    stopping: _Stopping | None = None,
    strategy: _Strategy = "auto",
    lanes: Size | None = None,
    memory_limit: _Bytes | None = None,
    checkpoint_seconds: _Seconds = 30.0,
    evaluations_per_call: Size | None = None,
    progress: _Progress = True,
    on_group: _OnGroup | None = None,
    engine: _Engine = "local",
    compiler_options: _Options | None = None,
    about: _About | None = None,
    other_versions: bool = False,
) -> SweepResult:
    """Train every trial of a space, each optimizer's in one compiled program.

    The trials of an optimizer run in lanes, which share all local devices (with
    `jax.distributed`, all devices of all processes). A trial that ends, is stopped or
    diverges leaves its lane to the next one.

    Args:
      trial: `make_trial(factory) -> Trial`, or a tuple of functions (init, step) or
        (init, step, evaluate) for `from_functions`; see also `from_nnx` and
        `from_linen`.
      space: hyper-parameters by name; see `optjax.sweep._space.space`.
      steps: updates in a whole trial.
      evaluate_every: updates between two evaluations; divides `steps`.
      metric: the name of the metric that ranks.
      mode: "max" or "min".
      seeds: how many, counted from 0, or the seeds themselves.
      out: a directory for everything measured. The same call with the same directory
        goes on where it was, however it ended, and has nothing to do where it had
        ended well. Another call is refused: see "The same sweep" in docs/sweeps.md.
        None keeps nothing.
      draws: configurations an optimizer, where the space is not finite.
      method: how they are drawn, "sobol" or "random".
      space_seed: for the drawing.
      factories: optimizers by name; `optjax.OPTIMIZERS` by default.
      stopping: `SuccessiveHalving(...)`, or None to run every trial to its end.
      strategy: "vmap" (a device's lanes at once), "map" (one after the other),
        "chunked" (eight at a time), or "auto": the fastest in a short timing run.
      lanes: most lanes at a time; 256 by default.
      memory_limit: bytes that the lanes may take; a quarter of the machine's memory by
        default, half of an accelerator's.
      checkpoint_seconds: how much work a crash may cost, beside one call of the
        program.
      evaluations_per_call: most evaluations of a lane in a call, after which there is a
        report and may be a checkpoint; by default as many as make 4,096 updates of all
        lanes together. 1 for updates that take long.
      progress: a live display on a terminal, or a function that is handed a `Status`.
      on_group: called with an optimizer's name and its records, in the order of the
        trials, when they have all ended (by the local engine); first for those that had
        ended in `out`.
      engine: "local", or "ray" for a Ray cluster: one task a chunk of at most `lanes`
        trials, each chunk one compiled program on one CPU, and successive halving
        within a chunk. A lost node's chunks run again elsewhere.
      compiler_options: for XLA.
      about: what is trained, in words of yours such as {"recipe": "30 epochs"}. They
        are in the result, and another sweep's are named when it is refused `out`.
      other_versions: go on in `out` though it was begun with other versions of jax,
        jaxlib, flax, optax, optjax or Python. The programs cannot be compared then;
        the data, the trials and the settings are.

    Returns:
      The result, with every trial.

    Raises:
      SweepError: for a trial or a space that cannot work, before any long work; for a
        directory that is in use or holds another sweep; for a full disk; where another
        process of `jax.distributed` has died.
      Interrupted: on Ctrl-C, at once, and on SIGTERM, after the running call and a
        checkpoint. Where this is called in another than the main thread, or the
        program handles a signal itself, that is left to the program.

    Example:
      >>> import jax, jax.numpy as jnp, optax, optjax.sweep
      >>> def init(key, optimizer):
      ...     x = jax.random.normal(key, (2,))
      ...     return x, optimizer.init(x)
      >>> def step(state, optimizer):
      ...     x, opt_state = state
      ...     loss, g = jax.value_and_grad(lambda x: jnp.sum(x**2))(x)
      ...     updates, opt_state = optimizer.update(g, opt_state, x)
      ...     return (optax.apply_updates(x, updates), opt_state), {"loss": loss}
      >>> result = optjax.sweep.run(
      ...     (init, step),
      ...     {"optimizer": ["sgd", "adam"], "learning_rate": [0.01, 0.1]},
      ...     steps=50, evaluate_every=10, metric="loss", mode="min", strategy="map",
      ... )
      >>> len(result.records)
      12
    """
    make_trial, factories = _makers(trial, factories)
    specs = _specs(
        configurations(
            space, draws=draws, method=method, seed=space_seed, factories=factories
        ),
        seeds,
    )
    settings = Settings(
        int(steps),
        int(evaluate_every),
        metric,
        mode,
        stopping,
        _whole(lanes),
        _whole(memory_limit),
        _devices(),
        compiler_options,
        _whole(evaluations_per_call),
    )
    _check(settings)
    words = dict(about or {})
    # What keeps nothing is compared with nothing.
    fingerprint = None if out is None else Fingerprint()
    sweep: _Sweep | None = None
    try:
        with ExitStack() as stack:
            stack.enter_context(losses_named())
            stop = stack.enter_context(Stop())
            with stop.at_once():
                groups = make_groups(
                    make_trial, factories, specs, settings, fingerprint
                )
            if out is None:
                out = stack.enter_context(tempfile.TemporaryDirectory())
                # Nothing to go on from, and each process has its own directory.
                checkpoint_seconds = math.inf
            store = Store(as_directory(out), writes=jax.process_index() == 0)
            with together():
                stack.enter_context(store)
            report = stack.enter_context(_reporting(progress, metric))
            sweep = _Sweep(
                groups,
                settings,
                words,
                fingerprint,
                store,
                report,
                checkpoint_seconds,
                on_group,
                stop,
                other_versions,
            )
            if engine == "ray":
                return sweep.run_in_chunks(strategy, make_trial, factories)
            return sweep.run(strategy)
    except KeyboardInterrupt as stopped:
        ended = SweepResult((), metric, mode) if sweep is None else sweep.result()
        raise Interrupted(ended, stopped) from None


@checked
def run_alone(
    trial: Trainable,
    spec: _Spec,
    *,
    steps: Size,
    evaluate_every: Size,
    metric: Text,
    mode: _Mode = "max",
    factories: Factories | None = None,
) -> Record:
    """Run one trial of a sweep again, alone in a lane.

    Under "map" the curve is that of the sweep to the last bit; "vmap" and "chunked"
    sum in another order, and the curves differ by float32 rounding that training
    amplifies.

    Example:
      >>> import jax.numpy as jnp, optjax.sweep
      >>> def init(key, optimizer):
      ...     return optimizer.init(jnp.zeros(()))
      >>> def step(state, optimizer):
      ...     updates, state = optimizer.update(jnp.ones(()), state)
      ...     return state, {"update": updates}
      >>> config = optjax.sweep.Config("sgd", {"learning_rate": 0.5}, {})
      >>> record = optjax.sweep.run_alone(
      ...     (init, step), optjax.sweep.TrialSpec(0, config, seed=0),
      ...     steps=2, evaluate_every=1, metric="update",
      ... )
      >>> record.curve.values["update"]
      (-0.5, -0.5)
    """
    make_trial, factories = _makers(trial, factories)
    settings = Settings(
        int(steps),
        int(evaluate_every),
        metric,
        mode,
        None,
        1,
        None,
        (jax.local_devices()[0],),
    )
    _check(settings)
    chunk = Chunk(0, (spec,))
    (record,) = run_chunk(make_trial, factories, chunk, settings, "map")
    return record


class _Sweep:
    """The loop over groups and calls, and what it has to remember."""

    def __init__(
        self,
        groups: Sequence[Group],
        settings: Settings,
        about: Mapping[str, Any],
        fingerprint: Fingerprint | None,
        store: Store,
        report: Callable[[Status], None],
        checkpoint_seconds: float,
        on_group: Callable[[str, Sequence[Record]], None] | None,
        stop: Stop,
        other_versions: bool,
    ) -> None:
        self._groups = groups
        self._settings = settings
        self._about = about
        self._fingerprint = fingerprint
        self._other_versions = other_versions
        self._store = store
        self._report = report
        self._checkpoint_seconds = checkpoint_seconds
        self._on_group = on_group
        self._stop = stop
        # Without a directory to go on from there is nothing to save for.
        self._saves = math.isfinite(checkpoint_seconds)
        self._records: list[Record] = []
        self._ends: Counter[str] = Counter()
        self._best: tuple[float, str] | None = None
        self._total = sum(len(group.specs) for group in groups)
        self._steps = 0
        self._steps_left = self._total * settings.steps
        self._committed_at = time.monotonic()
        self._strategy = ""
        self._finished_before = False

    def run(self, strategy: str) -> SweepResult:
        saved = self._store.saved_identity()
        ready: dict[int, Program] = {}
        if strategy == "auto":
            # Nothing is timed before another sweep is refused.
            if saved and saved.get("strategy") in STRATEGIES:
                strategy = saved["strategy"]
            else:
                strategy, ready[0] = self._stop.wait(
                    self._stop.submit(self._agree_on_strategy)
                )
        self._strategy = strategy
        progress = self._open(
            devices=self._device_names(),
            lanes=[group.lanes for group in self._groups],
            evaluations_per_call=[g.evaluations_per_call for g in self._groups],
        )
        self._finished_before = progress.groups == len(self._groups)
        self._committed_at = time.monotonic()
        self._run_groups(progress, ready)
        result = self.result()
        with together():
            self._store.write_results(result.to_csv)
        return result

    def run_in_chunks(
        self, strategy: str, make_trial: MakeTrial, factories: Mapping[str, Factory]
    ) -> SweepResult:
        from optjax.sweep._engine.ray import run_on_ray

        # The workers' devices are not this process's: nothing is timed here.
        self._strategy = "map" if strategy == "auto" else strategy
        size = self._settings.lanes or _CHUNK_TRIALS
        chunks = split([group.specs for group in self._groups], size)
        # Opening cuts curves.csv: it is written anew from the chunks that are there.
        self._open(
            devices="ray",
            lanes=[size],
            evaluations_per_call=[self._settings.evaluations_per_call],
        )
        left = len(chunks)

        def on_records(chunk: Chunk, records: Sequence[Record]) -> None:
            nonlocal left
            left -= 1
            for record in records:
                self._append_curve(record)
                self._end(record)
                self._steps += record.steps
                self._steps_left -= self._settings.steps
            waiting = self._total - len(self._records)
            name = chunk.specs[0].config.optimizer
            self._report(self._status(name, min(waiting, left * size)))

        self._finished_before = not run_on_ray(
            make_trial,
            factories,
            chunks,
            self._settings._replace(lanes=size),
            self._strategy,
            self._store.own,
            on_records,
            self._stop,
        )
        result = self.result()
        self._store.write_results(result.to_csv)
        return result

    def _run_groups(self, progress: Progress, ready: dict[int, Program]) -> None:
        replayed = self._replay(progress)
        for group in self._groups[: progress.groups]:
            self._tell(group)
        pending: dict[int, Future[Program]] = {}

        def compile_in_background(index: int) -> None:
            if index < len(self._groups) and index not in ready | pending:
                pending[index] = self._stop.submit(
                    self._groups[index].compile, self._settings, self._strategy
                )

        for index in range(progress.groups, len(self._groups)):
            compile_in_background(index)
            program = ready.pop(index, None) or self._stop.wait(pending.pop(index))
            # The next program compiles while this one runs.
            compile_in_background(index + 1)
            with together(self._stop):
                pass
            self._stop.obey()
            self._run_group(index, program, progress, replayed)
            progress, replayed = Progress(groups=index + 1), None
        if self._finished_before:
            self._report(self._status("", 0))

    def _run_group(
        self,
        index: int,
        program: Program,
        progress: Progress,
        scheduler: Scheduler | None,
    ) -> None:
        group = self._groups[index]
        carry, calls = program.start(), 0
        if scheduler is None:
            scheduler = group.schedule(self._settings)
        elif progress.states:
            with together():
                carry = self._store.load_states(carry)
            calls = progress.calls
        self._report(self._status(group.name, scheduler.running))
        while not scheduler.is_done:
            call = self._stop.submit(program.advance, carry, scheduler.assignment())
            # A checkpoint needs the lanes as they are after a call.
            carry, rows = self._stop.wait(call, patient=self._saves)
            calls += 1
            trials, steps = scheduler.lane_trials(), self._row_steps(group, scheduler)
            with together(self._stop):
                self._store.append(trials, steps, rows[scheduler.busy])
            self._observe(group, scheduler, rows)
            self._report(self._status(group.name, scheduler.running))
            if self._stop.agreed == signal.SIGINT:
                self._stop.obey()
            preempted = self._saves and self._stop.agreed
            if not scheduler.is_done and (preempted or self._is_time_to_commit()):
                with together():
                    states = self._store.save_states(index, calls, carry)
                self._commit(Progress(groups=index, calls=calls, states=states))
            if not scheduler.is_done:
                self._stop.obey()
        self._commit(Progress(groups=index + 1))
        self._tell(group)
        self._stop.obey()

    def _tell(self, group: Group) -> None:
        if self._on_group is not None:
            members = {spec.number for spec in group.specs}
            ended = [r for r in self._records if r.trial.number in members]
            self._on_group(group.name, sorted(ended, key=_number))

    def _replay(self, progress: Progress) -> Scheduler | None:
        """Feed the committed metrics to fresh schedulers.

        Returns the scheduler of the unfinished group, or None if it has no calls.
        """
        current: list[tuple[Group, Scheduler]] = []

        def rows_of_calls() -> Iterator[int]:
            for index, group in enumerate(self._groups[: progress.groups + 1]):
                current[:] = [(group, group.schedule(self._settings))]
                calls = 0
                while not current[0][1].is_done:
                    if index == progress.groups and calls == progress.calls:
                        return
                    calls += 1
                    yield current[0][1].running * group.evaluations_per_call

        for rows in self._store.replay(rows_of_calls()):
            group, scheduler = current[0]
            full = np.full(
                (group.lanes, group.evaluations_per_call, len(group.metrics)),
                np.nan,
                np.float32,
            )
            full[scheduler.busy] = rows.reshape(scheduler.running, *full.shape[1:])
            self._observe(group, scheduler, full)
        self._steps = 0
        return current[0][1] if progress.calls else None

    def _observe(self, group: Group, scheduler: Scheduler, rows: np.ndarray) -> None:
        every = self._settings.evaluate_every * group.evaluations_per_call
        done = scheduler.running * every
        self._steps += done
        self._steps_left -= done
        for record in scheduler.observe(rows):
            # What a diverged or stopped trial will not run any more.
            ran = -(-record.steps // every) * every
            self._steps_left -= self._settings.steps - ran
            self._end(record)

    def _end(self, record: Record) -> None:
        self._records.append(record)
        self._ends[record.status] += 1
        if record.status == DIVERGED:
            return
        values = record.curve.values[self._settings.metric]
        pick = max if self._settings.mode == "max" else min
        value = pick(values)
        if self._best is None or pick(value, self._best[0]) != self._best[0]:
            self._best = value, describe(record.trial.config)

    def _append_curve(self, record: Record) -> None:
        values = [record.curve.values[name] for name in self._groups[0].metrics]
        self._store.append(
            [record.trial], np.array([record.curve.steps]), np.array(values).T[None]
        )

    def _row_steps(self, group: Group, scheduler: Scheduler) -> np.ndarray:
        in_call = (np.arange(group.evaluations_per_call) + 1) * (
            self._settings.evaluate_every
        )
        return scheduler.lane_steps()[:, None] + in_call

    def _status(self, optimizer: str, running: int) -> Status:
        return Status(
            total=self._total,
            done=len(self._records),
            running=running,
            diverged=self._ends[DIVERGED],
            stopped=self._ends[STOPPED],
            optimizer=optimizer,
            best=self._best[0] if self._best else None,
            best_config=self._best[1] if self._best else "",
            steps=self._steps,
            most_steps_left=self._steps_left,
        )

    def _is_time_to_commit(self) -> bool:
        late = time.monotonic() - self._committed_at > self._checkpoint_seconds
        # Saving takes all processes, so the first one's clock decides for all.
        return bool(agree(late))

    def _commit(self, progress: Progress) -> None:
        with together():
            self._store.commit(progress)
        self._committed_at = time.monotonic()

    def _agree_on_strategy(self) -> tuple[str, Program]:
        strategy, program = pick_strategy(self._groups[0], self._settings, self._total)
        agreed = STRATEGIES[agree(STRATEGIES.index(strategy))]
        if agreed == strategy:
            return strategy, program
        return agreed, self._groups[0].compile(self._settings, agreed)

    def result(self) -> SweepResult:
        records = sorted(self._records, key=_number)
        return SweepResult(
            records=tuple(records),
            metric=self._settings.metric,
            mode=self._settings.mode,
            about={
                **self._about,
                "strategy": self._strategy,
                "devices": self._device_names(),
                "steps": self._settings.steps,
                "evaluate_every": self._settings.evaluate_every,
                "jax": jax.__version__,
            },
            finished_before=self._finished_before,
        )

    def _open(self, **run_as: Any) -> Progress:
        """Open the store, the first process before the others, which only read."""
        told: dict[str, Any] = {}
        if self._fingerprint is not None:
            told = identity(
                self._groups,
                self._settings,
                data=self._fingerprint.data,
                about=self._about,
                strategy=self._strategy,
                **run_as,
            )
        progress, metrics = Progress(), self._groups[0].metrics
        is_first = jax.process_index() == 0
        for is_my_turn in (is_first, not is_first):
            with together():
                if is_my_turn:
                    progress = self._store.open(
                        told, metrics, other_versions=self._other_versions
                    )
        return progress

    def _device_names(self) -> str:
        devices = self._settings.devices
        return f"{len(devices)} × {devices[0].device_kind}"


def _makers(
    trial: MakeTrial | tuple[Callable[..., Any], ...],
    factories: Mapping[str, Factory] | None,
) -> tuple[MakeTrial, Mapping[str, Factory]]:
    """Both as the engine wants them, from what `run` may be given."""
    rows = {name: row.factory for name, row in OPTIMIZERS.items()}
    return as_make_trial(trial), factories or rows


def _number(record: Record) -> int:
    return record.trial.number


def _devices() -> tuple[jax.Device, ...]:
    return tuple(jax.devices() if jax.process_count() > 1 else jax.local_devices())


def _specs(configs: Sequence[Any], seeds: int | Sequence[int]) -> list[TrialSpec]:
    given: Any = range(seeds) if np.ndim(seeds) == 0 else seeds  # type: ignore[arg-type]
    if len(configs) * len(given) > MOST_TRIALS:
        raise SweepError(
            f"a sweep may have {MOST_TRIALS:,} trials, got {len(configs):,} "
            f"configurations × {len(given):,} seeds = {len(configs) * len(given):,}; "
            "take fewer seeds= or configurations"
        )
    each = tuple(map(int, given))
    return [
        TrialSpec(index, config, seed)
        for index, (config, seed) in enumerate(
            (config, seed) for config in configs for seed in each
        )
    ]


def _check(settings: Settings) -> None:
    if settings.steps % settings.evaluate_every:
        raise SweepError(
            f"evaluate_every={settings.evaluate_every} must divide "
            f"steps={settings.steps}"
        )


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)


def _reporting(progress: bool | Callable[[Status], None], metric: str) -> Any:
    import contextlib

    if callable(progress):
        return contextlib.nullcontext(progress)
    if not progress:
        return contextlib.nullcontext(lambda status: None)
    from optjax.sweep._view.progress import live_display

    return live_display(metric)
