"""Run a sweep: draw the trials, keep the lanes full, write everything down."""

import contextlib
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax

from optjax._arguments.named import Count, Names, Size, Text
from optjax._signals import Stopped, number_of
from optjax.sweep._arguments import (
    About,
    Bytes,
    Callbacks,
    CompilerOptions,
    Engine,
    Keep,
    OnGroup,
    Out,
    Progress,
    RankedBy,
    Rule,
    RunAs,
    Searches,
    Seconds,
    Seeds,
    Spec,
    Trainable,
)
from optjax.sweep._contract import as_make_trial
from optjax.sweep._engine.devices import all_devices
from optjax.sweep._engine.groups import TrialGroup, make_groups
from optjax.sweep._engine.interrupt import Stop
from optjax.sweep._engine.ledger import Ledger
from optjax.sweep._engine.local import run_here
from optjax.sweep._engine.peers import losses_named
from optjax.sweep._engine.pieces import Piece, run_piece
from optjax.sweep._engine.plan import Plan
from optjax.sweep._engine.processes import together
from optjax.sweep._engine.ray import run_on_ray
from optjax.sweep._engine.session import Session
from optjax.sweep._engine.training import Training
from optjax.sweep._errors import SweepError, checked
from optjax.sweep._ranking import Ranking, mode_of
from optjax.sweep._records import FAILED, Mode, Record, Status, TrialSpec
from optjax.sweep._result import SweepResult
from optjax.sweep._rows import FACTORIES
from optjax.sweep._schedules import with_schedules
from optjax.sweep._search import Search
from optjax.sweep._space.space import Draws, Factories, Method, Space, keys_of
from optjax.sweep._store.directory import as_directory
from optjax.sweep._store.fingerprint import Fingerprint
from optjax.sweep._store.identity import Asked
from optjax.sweep._store.keep import Keeper, kept_states
from optjax.sweep._store.store import OWN, Store
from optjax.sweep._trials import choose, each_seed
from optjax.sweep._view.live import Display, live_display


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
    mode: RankedBy | None = None,
    allow_nan: Names = (),
    seeds: Seeds = 3,
    out: Out | None = None,
    draws: Draws | None = None,
    method: Method = "sobol",
    space_seed: Count = 0,
    factories: Factories | None = None,
    search: Searches | None = None,
    stopping: Rule | None = None,
    strategy: RunAs = "auto",
    lanes: Size | None = None,
    memory_limit: Bytes | None = None,
    checkpoint_seconds: Seconds = 30.0,
    call_seconds: Seconds = 2.0,
    keep: Keep | None = None,
    progress: Progress = True,
    on_group: OnGroup | None = None,
    callbacks: Callbacks = (),
    engine: Engine = "local",
    compiler_options: CompilerOptions | None = None,
    about: About | None = None,
    title: Text = "",
    command: Names = (),
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
      space: hyper-parameters by name, of the optimizer and of the trial's functions; or
        a list of spaces and configurations. See `configurations`.
      steps: updates in a whole trial.
      evaluate_every: updates between two evaluations; divides `steps`.
      metric: the name of the metric that ranks.
      mode: "max" or "min"; of an accuracy "max" by default, of any other it is needed.
      allow_nan: names of other metrics that may be NaN or infinite; in any other it is
        a divergence.
      seeds: how many, counted from 0, or the seeds themselves.
      out: a directory for everything measured. The same call with the same directory
        goes on where it was, however it ended, and has nothing to do where it had
        ended well. One with more trials runs those that are new, and one with more
        steps goes on from the final states, where `keep` has all. Another is refused:
        see "The same sweep" in docs/sweeps.md. None keeps nothing.
      draws: configurations an optimizer, where the space is not finite.
      method: how they are drawn, "sobol" or "random".
      space_seed: for the drawing, and for the order in which a stopping rule gets to
        see the trials.
      factories: optimizers by name; by default `optjax.OPTIMIZERS`, and those that
        installed packages add by an entry point of the group `optjax.optimizers`.
      search: proposes the `draws`, in rounds, from what those before have reached:
        `Optuna("tpe")`, or one of yours (see `Search`). None takes them all at once, by
        `method`.
      stopping: `SuccessiveHalving(...)`, `Median(...)` or a rule of yours (see
        `StoppingRule`), or None to run every trial to its end.
      strategy: "vmap" (a device's lanes at once), "map" (one after the other),
        "chunked" (eight at a time), "auto": the fastest in a short timing run; or a
        function of yours (see `Strategy`).
      lanes: most lanes at a time; 256 by default.
      memory_limit: bytes that the lanes may take; a quarter of the machine's memory by
        default, half of an accelerator's.
      checkpoint_seconds: how much work a crash may cost.
      call_seconds: about how long a call of the compiled program takes, after which
        there is a report and may be a checkpoint; one update is the least. It does not
        change the results, and may be another when a sweep goes on.
      keep: "best", a number or "all": of how many trials, by the best value on their
        curves, the final state is kept on disk in `out` (needs Orbax).
      progress: a live display on a terminal, or a function that is handed a `Status`.
      on_group: called with an optimizer's name and its records, in the order of the
        trials, when they have all ended (by the local engine); first for those that had
        ended in `out`.
      callbacks: each is handed every trial's `Record` as it ends, first those that had
        ended in `out`; `optjax.sweep.trackers` has some for TensorBoard, Weights &
        Biases and MLflow. With several processes the first calls them.
      engine: "local", or "ray" for a Ray cluster: one task a piece of at most `lanes`
        trials, each piece one compiled program on one CPU, and stopping within a piece.
        A lost node's pieces run again elsewhere.
      compiler_options: for XLA.
      about: what is trained, in words of yours such as {"recipe": "30 epochs"}. They
        are in the result, and another sweep's are named when it is refused `out`.
      title: what the metric is called over tables and at axes; its name by default.
      command: the words of the `optjax` command that asks for it, of which the verdicts
        make the next to run. Neither is a part of what the sweep is.
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
    make_trial, mode = as_make_trial(trial), mode_of(metric, mode)
    factories = with_schedules(factories or FACTORIES, keys_of(space), steps)
    _check_here(engine, out, search=search, keep=keep)
    # What keeps nothing is compared with nothing.
    fingerprint = None if out is None else Fingerprint()
    if fingerprint is not None and search is not None:
        fingerprint.value(search)
    generations, proposals = choose(
        space,
        search,
        draws=draws,
        method=method,
        seeds=seeds,
        seed=space_seed,
        metric=metric,
        mode=mode,
        factories=factories,
        make_trial=make_trial,
        out=out,
    )
    _check_divides(evaluate_every, steps)
    plan = Plan(
        steps=steps,
        evaluate_every=evaluate_every,
        metric=metric,
        mode=mode,
        devices=all_devices(),
        stopping=stopping,
        allow_nan=_allowed(allow_nan, metric),
        lanes=lanes,
        memory_limit=memory_limit,
        compiler_options=compiler_options,
        order_seed=space_seed,
    )
    told = [*callbacks] if jax.process_index() == 0 else []
    ledger = Ledger(plan, sum(map(len, generations)), told)
    words = dict(about or {})
    asked = Asked(title, (command,) if isinstance(command, str) else tuple(command))

    def result(*, finished_before: bool = False) -> SweepResult:
        return SweepResult(
            records=tuple(ledger.records()),
            metric=metric,
            mode=mode,
            about={
                **words,
                "strategy": ledger.strategy,
                "devices": plan.device_names,
                "steps": plan.steps,
                "evaluate_every": plan.evaluate_every,
                "jax": jax.__version__,
            },
            finished_before=finished_before,
            training=Training(make_trial, factories, plan),
            kept={} if out is None else kept_states(Path(out) / OWN, plan.steps),
            title=title,
            command=asked.command,
            seconds=ledger.times.seconds,
        )

    known: dict[Any, TrialGroup] = {}
    unmade: list[Record] = []

    def grouped(specs: Sequence[TrialSpec]) -> list[TrialGroup]:
        return make_groups(
            make_trial,
            factories,
            specs,
            plan,
            fingerprint,
            known,
            on_failure=lambda trials, error: unmade.extend(ledger.fail(trials, error)),
        )

    def more(records: Sequence[Record]) -> tuple[int, list[TrialGroup]]:
        assert proposals is not None
        specs = proposals.next(records)
        return len(specs), grouped(specs) if specs else []

    try:
        with ExitStack() as stack:
            stack.enter_context(losses_named())
            stop = stack.enter_context(Stop())
            with stop.at_once():
                groups = [group for specs in generations for group in grouped(specs)]
            if out is None:
                # Each process has its own.
                directory = stack.enter_context(tempfile.TemporaryDirectory())
            store = Store(
                as_directory(directory if out is None else out),
                writes=jax.process_index() == 0,
                asked=asked,
            )
            with together():
                stack.enter_context(store)
            display = stack.enter_context(
                _reporting(progress, metric, mode, title, len(each_seed(seeds)))
            )
            told.append(display.on_record)
            session = Session(
                plan=plan,
                groups=groups,
                generations=[*map(len, generations)],
                unmade=unmade,
                more=None if proposals is None else more,
                search=search,
                keep=keep,
                keeper=_keeper(keep, store, plan),
                ledger=ledger,
                store=store,
                stop=stop,
                report=display.show,
                on_group=on_group,
                call_seconds=call_seconds,
                # Without a directory to go on from there is nothing to save for.
                checkpoint_seconds=None if out is None else _finite(checkpoint_seconds),
                fingerprint=fingerprint,
                about=words,
                other_versions=other_versions,
            )
            if engine == "ray":
                is_old = run_on_ray(session, strategy, make_trial, factories)
            else:
                is_old = run_here(session, strategy)
            done = result(finished_before=is_old)
            if all(record.status == FAILED for record in done.records):
                raise SweepError(f"every trial failed: {done.records[0].message}")
            with together():
                store.write_results(done.to_csv)
            if session.keeper is not None:
                session.keeper.prune_shorter()
            return done
    except KeyboardInterrupt as stopped:
        raise Interrupted(result(), stopped) from None


@checked
def run_alone(
    trial: Trainable,
    spec: Spec,
    *,
    steps: Size,
    evaluate_every: Size,
    metric: Text,
    mode: RankedBy | None = None,
    factories: Factories | None = None,
) -> Record:
    """Run one trial of a sweep again, alone in a lane.

    Under "map" the curve is that of the sweep to the last bit; "vmap" and "chunked"
    sum in another order, and the curves differ by float32 rounding that training
    amplifies.

    Raises:
      SweepError: for a trial that breaks the contract.

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
      ...     steps=2, evaluate_every=1, metric="update", mode="min",
      ... )
      >>> record.curve.values["update"]
      (-0.5, -0.5)
    """
    _check_divides(evaluate_every, steps)
    plan = Plan(
        steps=steps,
        evaluate_every=evaluate_every,
        metric=metric,
        mode=mode_of(metric, mode),
        devices=(jax.local_devices()[0],),
        lanes=1,
    )
    factories = with_schedules(factories or FACTORIES, keys_of(spec.config), steps)
    piece = Piece(0, (spec,))
    (record,) = run_piece(as_make_trial(trial), factories, piece, plan, "map")
    return record


def _check_here(
    engine: str, out: Any, *, search: Search | None, keep: int | str | None
) -> None:
    if search is not None and engine != "local":
        raise SweepError("search= is for the local engine; leave out engine=")
    if keep is None:
        return
    if out is None:
        raise SweepError("keep= needs a directory to keep them in; give out=")
    if engine != "local" or jax.process_count() > 1:
        raise SweepError(
            "keep= is for the local engine in one process; train the best again with "
            "result.train(result.best())"
        )


def _keeper(keep: int | str | None, store: Store, plan: Plan) -> Keeper | None:
    if keep is None:
        return None
    most = {"best": 1, "all": None}[keep] if isinstance(keep, str) else keep
    ranking = Ranking((), plan.metric, plan.mode)
    return Keeper(store.own, plan.steps, most, ranking)


def _check_divides(evaluate_every: int, steps: int) -> None:
    if steps % evaluate_every:
        raise SweepError(f"evaluate_every={evaluate_every} must divide steps={steps}")


def _allowed(names: Iterable[str], metric: str) -> tuple[str, ...]:
    allowed = (names,) if isinstance(names, str) else tuple(names)
    if metric in allowed:
        raise SweepError(f"allow_nan must not have the metric that ranks, {metric!r}")
    return allowed


def _finite(seconds: float) -> float | None:
    return seconds if math.isfinite(seconds) else None


@contextlib.contextmanager
def _reporting(
    progress: bool | Callable[[Status], None],
    metric: str,
    mode: Mode,
    title: str,
    seeds: int,
) -> Iterator[Display]:
    if callable(progress):
        yield Display(progress)
    elif not progress:
        yield Display(lambda status: None)
    else:
        with live_display(metric, mode, title=title, seeds=seeds) as display:
            yield display
