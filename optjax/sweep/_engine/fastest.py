"""Which strategy is the fastest for a sweep, where finding out is worth it."""

import math
import time

from optjax.sweep._engine.calls import Pace
from optjax.sweep._engine.groups import TrialGroup
from optjax.sweep._engine.memory import Fitted, fit, is_of_memory
from optjax.sweep._engine.plan import Plan
from optjax.sweep._engine.processes import agreed_seconds
from optjax.sweep._strategies import StrategyName, skips_idle

# A sweep's time to a compilation's. Trying another strategy costs a compilation and a
# little; not trying costs at most the sweep's time, and the other may need a tenth.
_WORTH_CHOOSING = 2
_TIMED_CALLS = 4
# Of all that is timed of a strategy, to a compilation.
_MOST_OF_COMPILING = 0.25
# One strategy's time to another's, for the third to have a chance.
_CLOSE = 2.0
# Another's time to the usual one's, from where on it is no noise.
_CLEAR = 0.9
# What one update of all lanes may take where another strategy is tried; it cannot be
# stopped.
_MOST_SECONDS = 5.0


def pick_strategy(group: TrialGroup, plan: Plan, trials: int) -> Fitted:
    """The fastest of `STRATEGIES` for a full set of a group's lanes.

    The device's usual one goes first. Another is compiled and timed only where all
    `trials` would take twice as long as compiling, and the third only where the
    first two are close. One for which there is not enough memory is not timed, nor is
    any of a program with convolutions on a CPU.
    """
    usual: StrategyName
    others: tuple[StrategyName, ...]
    if plan.devices[0].platform == "cpu":
        usual, others = "map", ("vmap", "chunked")
    else:
        # Last the one that may be a hundred times slower there.
        usual, others = "vmap", ("chunked", "map")
    began = time.perf_counter()
    tried: dict[StrategyName, Fitted] = {usual: fit(group, plan, usual)}
    if usual == "map" and "conv_general_dilated" in tried[usual].program.primitives:
        # Of kernels that differ from lane to lane XLA makes convolutions in groups,
        # which take a CPU several times as long, and compile for longer than they run.
        return tried[usual]
    compiling = agreed_seconds(time.perf_counter() - began)
    group = tried[usual].group
    most = compiling * _MOST_OF_COMPILING
    updates = math.ceil(trials / group.lanes) * plan.steps
    seconds: dict[StrategyName, float] = {}
    for strategy in (usual, *others):
        if seconds:
            best, worst = min(seconds.values()), max(seconds.values())
            is_short = best * updates < _WORTH_CHOOSING * compiling
            if is_short or worst > _CLOSE * best or best > _MOST_SECONDS:
                break
            tried[strategy] = Fitted(group, strategy, group.compile(plan, strategy))
        if tried[strategy].program.bytes > plan.limit:
            continue
        try:
            seconds[strategy] = _seconds_an_update(tried[strategy], plan, most=most)
        except Exception as error:
            if tried[strategy].program.calls_host:
                # A trial's own: the sweep meets it again.
                return tried[usual]
            if strategy == usual or not is_of_memory(error):
                raise
    fastest = min(seconds, key=lambda strategy: seconds[strategy])
    is_clear = seconds[fastest] < _CLEAR * seconds[usual]
    return tried[fastest if is_clear else usual]


def _seconds_an_update(fitted: Fitted, plan: Plan, *, most: float) -> float:
    """What one update of all lanes takes, by the first few calls of a sweep."""
    group, strategy, program = fitted
    a_device = group.lanes // len(plan.devices)
    lanes = a_device if skips_idle(strategy) else 1
    pace, least, total = Pace(most / _TIMED_CALLS), math.inf, 0.0
    scheduler, carry = group.schedule(plan, strategy), program.start()
    for _ in range(_TIMED_CALLS):
        call = group.next_call(plan, strategy, scheduler, pace.work)
        told = scheduler.assignment(call.lanes)
        began = time.perf_counter()
        carry, rows = program.advance(carry, told, call.size)
        took = agreed_seconds(time.perf_counter() - began)
        pace.took(call, took)
        least, total = min(least, took / call.work), total + took
        scheduler.observe(call, scheduler.measured(call, rows))
        if total > most or scheduler.is_done:
            break
    return least * lanes
