"""How long each optimizer takes to a target: updates, and seconds of the machine."""

import math
import statistics
from typing import NamedTuple

from optjax._page.parts import Table
from optjax.sweep._ranking import Ranking, Standing


class Reach(NamedTuple):
    """An optimizer on its way to the target, at its best configuration.

    Attributes:
      standing: its line in the ranking, whose `steps_to_target` these are.
      seconds: how long those updates take; infinite for never, NaN where no time was
        kept.
    """

    standing: Standing
    seconds: float


def _target(ranking: Ranking) -> float | None:
    """What half of those with a median reach at their best; None where none has one."""
    better, worse = statistics.median_high, statistics.median_low
    if ranking.mode == "min":
        better, worse = worse, better
    # Of an even number of seeds the worse of the middle two: more than half reach it.
    bests = [
        worse([ranking.score(record) for record in best.records])
        for best in ranking.best_of_each()
        if math.isfinite(best.median)
    ]
    # Of an even number the better of the middle two, which somebody reaches.
    return better(bests) if bests else None


def reaches(ranking: Ranking) -> dict[str, Reach]:
    """By optimizer, to what half of them reach."""
    found = {}
    for standing in ranking.standings(_target(ranking)):
        name, steps = standing.best.config.optimizer, standing.steps_to_target
        found[name] = Reach(standing, steps * ranking.seconds.get(name, math.nan))
    return found


def to_target(ranking: Ranking) -> list[Table]:
    """A row an optimizer, the fastest first, where there are several."""
    target, found = _target(ranking), reaches(ranking)
    evaluations = max(len(record.curve.steps) for record in ranking.records)
    if target is None or len(found) < 2 or evaluations < 2:
        return []
    is_timed = bool(ranking.seconds)
    has_lost = any(math.isinf(at.standing.best.median) for at in found.values())
    ordered = sorted(found.items(), key=lambda item: item[1].standing.steps_to_target)
    columns = ["optimizer", "updates", *["seconds", "ms an update"] * is_timed]
    rows = [
        [name, _whole(reach.standing.steps_to_target), *_times(ranking, name, reach)]
        for name, reach in ordered
    ]
    timed = (
        " Seconds are a trial's share of the machine: those of the calls that trained "
        "an optimizer's trials, by the updates that they did, without compiling."
    )
    return [
        Table(
            f"Updates{' and time' * is_timed} to {target:.4g}",
            f"To {ranking.label} {target:.4g}, which half of the optimizers "
            f"{'that did not diverge ' * has_lost}reach: each at its best, "
            f"the median over the seeds.{timed * is_timed}",
            columns,
            rows,
            frozenset(columns[1:]),
        )
    ]


def _times(ranking: Ranking, name: str, reach: Reach) -> list[str]:
    if not ranking.seconds:
        return []
    an_update = ranking.seconds.get(name, math.nan)
    return [in_words(reach.seconds), in_words(1e3 * an_update)]


def in_words(time: float) -> str:
    """Three digits, or all before the point."""
    if not math.isfinite(time):
        return "–"
    return f"{time:.3g}" if time < 999.5 else f"{time:,.0f}"


def _whole(steps: float) -> str:
    return f"{steps:,.0f}" if math.isfinite(steps) else "not reached"
