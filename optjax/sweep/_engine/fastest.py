"""Which strategy is the fastest for a sweep, where finding out is worth it."""

import dataclasses
import time

import numpy as np

from optjax.sweep._engine.groups import TrialGroup
from optjax.sweep._engine.lanes import Assignment, Program
from optjax.sweep._engine.plan import Plan
from optjax.sweep._engine.processes import agree
from optjax.sweep._strategies import StrategyName

__all__ = ["pick_strategy"]

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


def pick_strategy(
    group: TrialGroup, plan: Plan, trials: int
) -> tuple[StrategyName, Program]:
    """The fastest of `STRATEGIES` for a full set of a group's lanes, and its program.

    The device's usual one goes first. Another is compiled and timed only where all
    `trials` would take twice as long as compiling, and the third only where the
    first two are close. A timed call is short beside a compilation, however long a
    call of the sweep is.
    """
    usual: StrategyName
    others: tuple[StrategyName, ...]
    if plan.devices[0].platform == "cpu":
        usual, others = "map", ("vmap", "chunked")
    else:
        # Last the one that may be a hundred times slower there.
        usual, others = "vmap", ("chunked", "map")
    began = time.perf_counter()
    program = group.compile(plan, usual)
    compiling = _agreed(time.perf_counter() - began)
    every_lane = np.ones(group.lanes, bool)
    a_device = group.lanes // len(plan.devices) if usual == "map" else 1
    calls = _calls(group, plan, trials)
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
    timed, short = group, plan
    programs: dict[StrategyName, Program] = {usual: program}
    if call > longest:
        timed, short = _shortened(group, plan, longest / call)
        programs = {usual: timed.compile(short, usual)}
    seconds: dict[StrategyName, float] = {
        usual: _seconds_a_call(programs[usual], timed, every_lane, most=longest)
    }
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
    return fastest, group.compile(plan, fastest)


def _calls(group: TrialGroup, plan: Plan, trials: int) -> float:
    """How many calls with every lane busy the trials take."""
    a_call = group.lanes * group.evaluations_per_call * plan.evaluate_every
    return trials * plan.steps / a_call


def _shortened(group: TrialGroup, plan: Plan, share: float) -> tuple[TrialGroup, Plan]:
    """The same lanes with that share of a call's updates, to be timed only."""
    evaluations = group.evaluations_per_call * share
    every = max(1, int(plan.evaluate_every * min(1.0, evaluations)))
    return (
        group._replace(evaluations_per_call=max(1, int(evaluations))),
        dataclasses.replace(plan, evaluate_every=every),
    )


def _seconds_a_call(
    program: Program, group: TrialGroup, busy: np.ndarray, *, most: float
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
