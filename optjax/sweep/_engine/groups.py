"""A sweep's trials by compiled program, and how each program's lanes are run."""

import functools
import math
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from optjax.sweep._engine.lanes import (
    Assignment,
    Program,
    compile_lanes,
    lane_bytes,
)
from optjax.sweep._engine.processes import agree
from optjax.sweep._engine.scheduler import Scheduler
from optjax.sweep._problem import SweepError, Traced, call_make_trial, trace
from optjax.sweep._records import PLAIN, Config, TrialSpec
from optjax.sweep._stopping import Rungs, SuccessiveHalving
from optjax.sweep._store.fingerprint import Fingerprint
from optjax.sweep._trial import Factory, MakeTrial, Trial

__all__ = ["Group", "Settings", "make_groups", "pick_strategy", "use_all_cores"]

# Enough work that a call's overhead, well below a millisecond, does not show.
_UPDATES_PER_CALL = 4096
_MOST_LANES = 256
# Beside its state a lane holds the gradient and what the model keeps for it.
_WORKING_COPIES = 3
# A sweep's time to a compilation's. Trying another strategy costs a compilation and a
# little; not trying costs at most the sweep's time, and the other may need a tenth.
_WORTH_CHOOSING = 2
_TIMED_CALLS = 4
# With fewer, the calls that tell how long a sweep takes are too great a part of it.
_FEWEST_CALLS = 10 * _TIMED_CALLS
# Of a timed call, to a compilation.
_MOST_OF_COMPILING = 0.25
# One strategy's time to another's, for the third to have a chance.
_CLOSE = 2.0


class Settings(NamedTuple):
    """What all groups of a sweep have in common."""

    steps: int
    evaluate_every: int
    metric: str
    mode: str
    stopping: SuccessiveHalving | None
    lanes: int | None
    memory_limit: int | None
    devices: tuple[jax.Device, ...]
    compiler_options: dict[str, str | bool] | None = None
    evaluations_per_call: int | None = None

    @property
    def evaluations(self) -> int:
        """How often a whole trial is evaluated."""
        return self.steps // self.evaluate_every


class Group(NamedTuple):
    """The trials of one optimizer with one set of static hyper-parameters.

    `digests` tells the group's programs and the shapes of its state from others', if
    somebody wants to know.
    """

    name: str
    trial: Trial
    hyper: tuple[str, ...]
    metrics: tuple[str, ...]
    specs: tuple[TrialSpec, ...]
    lanes: int
    evaluations_per_call: int
    digests: Mapping[str, str]

    def compile(self, settings: Settings, strategy: str) -> Program:
        """This group's program."""
        return compile_lanes(
            self.trial,
            self.hyper,
            self.metrics,
            lanes=self.lanes,
            strategy=strategy,
            evaluate_every=settings.evaluate_every,
            evaluations=self.evaluations_per_call,
            devices=settings.devices,
            compiler_options=settings.compiler_options,
        )

    def schedule(self, settings: Settings) -> Scheduler:
        """A scheduler with all of the group's trials before it."""
        return Scheduler(
            self.specs,
            lanes=self.lanes,
            devices=len(settings.devices),
            metrics=self.metrics,
            metric=settings.metric,
            mode=settings.mode,
            evaluate_every=settings.evaluate_every,
            evaluations=settings.evaluations,
            evaluations_per_call=self.evaluations_per_call,
            rungs=_rungs(settings),
        )


def make_groups(
    make_trial: MakeTrial,
    factories: Mapping[str, Factory],
    specs: Sequence[TrialSpec],
    settings: Settings,
    fingerprint: Fingerprint | None = None,
) -> list[Group]:
    """Check a trial of each kind by abstract evaluation and group them all.

    Args:
      make_trial: what is trained.
      factories: optimizers by name.
      specs: the trials.
      settings: what the groups have in common.
      fingerprint: makes the groups' digests; None where nothing is compared.

    Raises:
      SweepError: naming the trial that breaks the contract.
    """
    by_program: dict[Any, list[TrialSpec]] = {}
    for spec in specs:
        by_program.setdefault(_program_key(spec.config), []).append(spec)
    groups: list[Group] = []
    for members in by_program.values():
        config = members[0].config
        factory = functools.partial(factories[config.optimizer], **config.static)
        trial = call_make_trial(make_trial, factory, config)
        traced = trace(trial, config, settings.metric)
        names = traced.metrics
        if groups and names != groups[0].metrics:
            raise SweepError(
                f"every trial must have the same metrics, but {groups[0].name} has "
                f"{', '.join(groups[0].metrics)} and {config.optimizer} "
                f"{', '.join(names)}"
            )
        hyper = tuple(sorted(config.hyper))
        lanes = _lanes(len(members), lane_bytes(trial, hyper), settings)
        groups.append(
            Group(
                config.optimizer,
                trial,
                hyper,
                names,
                tuple(members),
                lanes,
                _evaluations_per_call(lanes, settings),
                {} if fingerprint is None else _digests(fingerprint, traced),
            )
        )
    return groups


def _digests(fingerprint: Fingerprint, traced: Traced) -> dict[str, str]:
    return {
        "init": fingerprint.program(traced.init),
        "step": fingerprint.program(traced.step),
        "evaluate": fingerprint.program(traced.evaluate),
        "state": fingerprint.shapes(traced.state),
    }


def pick_strategy(group: Group, settings: Settings, trials: int) -> tuple[str, Program]:
    """The fastest of `STRATEGIES` for a full set of the group's lanes, and its program.

    The device's usual one goes first. Another is compiled and timed only where all
    `trials` would take twice as long as compiling, and the third only where the
    first two are close. A timed call is short beside a compilation, however long a
    call of the sweep is.
    """
    if settings.devices[0].platform == "cpu":
        usual, *others = "map", "vmap", "chunked"
    else:
        # Last the one that may be a hundred times slower there.
        usual, *others = "vmap", "chunked", "map"
    began = time.perf_counter()
    program = group.compile(settings, usual)
    compiling = _agreed(time.perf_counter() - began)
    every_lane = np.ones(group.lanes, bool)
    a_device = group.lanes // len(settings.devices) if usual == "map" else 1
    calls = _calls(group, settings, trials)
    if calls >= _FEWEST_CALLS:
        call = _seconds_a_call(program, group, every_lane, most=compiling)
    elif calls * a_device >= _FEWEST_CALLS:
        # An idle lane costs nothing under map, so that one a device tells of all.
        one_each = np.arange(group.lanes) % a_device == 0
        one = _seconds_a_call(program, group, one_each, most=compiling)
        none = _seconds_a_call(program, group, ~every_lane, most=compiling)
        call = none + a_device * max(0.0, one - none)
    else:
        return usual, program
    if call * calls < _WORTH_CHOOSING * compiling:
        return usual, program

    longest = compiling * _MOST_OF_COMPILING
    timed, short, programs = group, settings, {usual: program}
    if call > longest:
        timed, short = _shortened(group, settings, longest / call)
        programs = {usual: timed.compile(short, usual)}
    seconds = {usual: _seconds_a_call(programs[usual], timed, every_lane, most=longest)}
    for strategy in others:
        best, worst = min(seconds.values()), max(seconds.values())
        whole = best * _calls(timed, short, trials)
        if whole < _WORTH_CHOOSING * compiling or worst > _CLOSE * best:
            break
        tried = programs[strategy] = timed.compile(short, strategy)
        seconds[strategy] = _seconds_a_call(tried, timed, every_lane, most=longest)
    fastest = min(seconds, key=lambda strategy: seconds[strategy])
    if fastest == usual:
        return usual, program
    if timed is group:
        return fastest, programs[fastest]
    return fastest, group.compile(settings, fastest)


def _calls(group: Group, settings: Settings, trials: int) -> float:
    """How many calls with every lane busy the trials take."""
    a_call = group.lanes * group.evaluations_per_call * settings.evaluate_every
    return trials * settings.steps / a_call


def _shortened(
    group: Group, settings: Settings, share: float
) -> tuple[Group, Settings]:
    """The same lanes with that share of a call's updates, to be timed only."""
    evaluations = group.evaluations_per_call * share
    every = max(1, int(settings.evaluate_every * min(1.0, evaluations)))
    return (
        group._replace(evaluations_per_call=max(1, int(evaluations))),
        settings._replace(evaluate_every=every),
    )


def _seconds_a_call(
    program: Program, group: Group, busy: np.ndarray, *, most: float
) -> float:
    """The least of a few calls, fewer where they take longer than `most` in all."""
    specs = [group.specs[i % len(group.specs)] for i in range(program.lanes)]
    told = Assignment(
        busy=busy,
        fresh=busy,
        seed=np.array([spec.seed for spec in specs], np.int32),
        hyper={
            name: np.array([spec.config.hyper[name] for spec in specs], np.float32)
            for name in group.hyper
        },
    )
    carry, seconds = program.start(), list[float]()
    # The first call also warms up.
    while not seconds or (len(seconds) < _TIMED_CALLS and sum(seconds) < most):
        began = time.perf_counter()
        carry, _ = program.advance(carry, told)
        seconds.append(_agreed(time.perf_counter() - began))
        told = told._replace(fresh=np.zeros_like(busy))
    return min(seconds)


def _agreed(seconds: float) -> float:
    """The first process's time in all, since all have to run the same programs."""
    return agree(min(int(seconds * 1e6), 2**31 - 1)) / 1e6


def use_all_cores() -> bool:
    """Make JAX see one CPU device a core, for a sweep to share its lanes over.

    Must be called before anything else uses JAX in the process; the command line does
    so itself. On an accelerator it changes nothing that matters.

    Returns:
      Whether it was early enough.

    Example:
      >>> import optjax.sweep
      >>> was_early_enough = optjax.sweep.use_all_cores()
    """
    try:
        jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    except RuntimeError:
        return False
    return True


def _program_key(config: Config) -> Any:
    static = tuple(
        (name, value if isinstance(value, PLAIN) else id(value))
        for name, value in sorted(config.static.items())
    )
    return config.optimizer, tuple(sorted(config.hyper)), static


def _rungs(settings: Settings) -> Rungs:
    return Rungs(settings.stopping, settings.evaluate_every, settings.evaluations)


def _lanes(trials: int, state_bytes: int, settings: Settings) -> int:
    devices = len(settings.devices)
    # In MiB, and from one process, so that all have the same number of lanes.
    limit = settings.memory_limit or agree(_default_memory(devices) >> 20) << 20
    fit = limit // max(1, state_bytes * _WORKING_COPIES)
    if fit < devices:
        raise SweepError(
            f"the memory limit of {limit:,} bytes holds {fit} lanes of about "
            f"{state_bytes * _WORKING_COPIES:,} bytes, and {devices} devices need one "
            "each; raise memory_limit="
        )
    # As many in the last round as in the others, since vmap pays for idle lanes.
    rounds = math.ceil(trials / _MOST_LANES)
    lanes = min(trials, fit, settings.lanes or math.ceil(trials / rounds))
    return max(1, min(math.ceil(lanes / devices), fit // devices)) * devices


def _default_memory(devices: int) -> int:
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"]) * devices // 2
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
    return 4 * 1024**3


def _evaluations_per_call(lanes: int, settings: Settings) -> int:
    boundaries = math.gcd(settings.evaluations, *_rungs(settings).at)
    wanted = settings.evaluations_per_call or max(
        1, math.ceil(_UPDATES_PER_CALL / (lanes * settings.evaluate_every))
    )
    return max(n for n in range(1, min(wanted, boundaries) + 1) if boundaries % n == 0)
