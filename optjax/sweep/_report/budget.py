"""Verdicts on the updates: too few, stopped too early, a band that has not closed."""

import itertools
import math
import statistics
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from optjax._bound import BoundClipState, gamma_for
from optjax._observe import Observation, trace_once
from optjax._page.parts import Verdict
from optjax._parts import Clip
from optjax.sweep._ranking import Best, Ranking
from optjax.sweep._records import FINISHED, STOPPED, Config, Record
from optjax.sweep._report.study import Study
from optjax.sweep._rows import FACTORIES

# The last so much of a run tells whether it still improves.
_LAST = 0.2
# Of all that was gained, less than this in the last part is the end of it.
_LITTLE = 0.02
# Bounds within this factor of each other are closed, as in `gamma_for`.
_CLOSED = 1.1**2


def improving(study: Study) -> list[Verdict]:
    """The best configuration still gains in the last fifth of its updates."""
    gains = _gains(study.ranking, study.best)
    if gains is None:
        return []
    last, whole, noise = gains
    if last <= max(_LITTLE * whole, 2 * noise):
        return []
    steps = max(record.steps for record in study.best.records)
    return [
        Verdict(
            "budget",
            "warning",
            f"{study.best.config.optimizer} still improves when its {steps:,} updates "
            "are over: the budget is short.",
            f"In the last fifth {study.ranking.label} moved by {last:.3g} on average, "
            f"of {whole:.3g} in all; its noise is {noise:.2g}.",
            study.again(twice_the_steps=2 * steps),
        )
    ]


def _gains(ranking: Ranking, best: Best) -> tuple[float, float, float] | None:
    """Gain between the last two fifths, over all, and the error of the former."""
    last, whole, errors = [], [], []
    for record in best.records:
        if record.status != FINISHED:
            continue
        curve = [ranking.sign * v for v in record.curve.values[ranking.metric]]
        count = int(len(curve) * _LAST)
        if count < 2:
            return None
        end, before = curve[-count:], curve[-2 * count : -count]
        last.append(statistics.fmean(end) - statistics.fmean(before))
        whole.append(max(curve) - curve[0])
        # What is left of the trend is noise.
        errors.append(math.sqrt((_wobble(end) + _wobble(before)) / count))
    if not last:
        return None
    noise = math.sqrt(sum(error**2 for error in errors)) / len(errors)
    return statistics.fmean(last), statistics.fmean(whole), noise


def _wobble(values: Sequence[float]) -> float:
    """The variance around the trend, from neighbours' differences."""
    steps = [b - a for a, b in itertools.pairwise(values)]
    drift = statistics.fmean(steps)
    return statistics.fmean([(step - drift) ** 2 for step in steps]) / 2


def stopped_leader(study: Study) -> list[Verdict]:
    """The rule stopped a trial that led at the evaluation before."""
    records = study.ranking.records
    leads: list[tuple[Record, int]] = []
    boards: dict[int, list[float]] = {}
    for record in records:
        for step, value in zip(
            record.curve.steps,
            # One that failed has none.
            record.curve.values.get(study.ranking.metric, ()),
            strict=True,
        ):
            if math.isfinite(value):
                boards.setdefault(step, []).append(study.ranking.sign * value)
    for record in records:
        if record.status != STOPPED or len(record.curve.steps) < 2:
            continue
        step = record.curve.steps[-2]
        value = study.ranking.sign * record.curve.values[study.ranking.metric][-2]
        others = boards[step]
        # One that all reach is no lead.
        if value >= max(others) and others.count(value) == 1 and len(others) > 2:
            leads.append((record, step))
    if not leads:
        return []
    record, step = leads[0]
    many = len(leads) > 1
    return [
        Verdict(
            "stopped",
            "warning",
            f"{len(leads)} trial{'s' * many} led the field one evaluation before the "
            f"rule stopped {'them' if many else 'it'}.",
            f"Trial {record.trial.number} ({record.trial.config.optimizer}, seed "
            f"{record.trial.seed}) was the best of {len(boards[step])} at update "
            f"{step:,} and was stopped at {record.steps:,}: one evaluation is too "
            "noisy to stop by.",
            study.again(spared=2 * record.steps),
        )
    ]


def band_at_the_end(study: Study) -> list[Verdict]:
    """The bounds of a bounded row are still apart at the last update."""
    verdicts = []
    for standing in study.standings:
        best = standing.best
        if math.isinf(best.median):
            continue
        steps = max(record.steps for record in best.records)
        bounds = _bounds(best.config, steps)
        if bounds is None:
            continue
        low, high = bounds
        if not low > 0 or high / low > _CLOSED:
            verdicts.append((standing, steps, low, high))
    if not verdicts:
        return []
    standing, steps, low, high = verdicts[0]
    names = [one.best.config.optimizer for one, *_ in verdicts]
    gamma = float(f"{gamma_for(steps):.3g}")
    return [
        Verdict(
            "band",
            "note",
            f"The band of {', '.join(names)} has not closed by the end: "
            f"{'they end' if len(names) > 1 else 'it ends'} as an adaptive method, not "
            "as SGD.",
            f"{names[0]} after {steps:,} updates: rates between {low:.3g} and "
            f"{high:.3g}. With gamma={gamma:g} the band is closed from half of the "
            f"run on: optjax.gamma_for({steps}).",
            study.again({"gamma": [gamma]}, of=standing.best.config),
        )
    ]


def _bounds(config: Config, step: int) -> tuple[float, float] | None:
    """Between which two rates the optimizer clips at a step; None where it does not."""

    def clips(observation: Observation) -> list[Clip]:
        x = jnp.ones(())
        optimizer.update(x, _at(optimizer.init(x), step), x)
        parts = [link.part for link in observation.links]
        return [part for part in parts if isinstance(part, Clip) and part.ends]

    try:
        optimizer = FACTORIES[config.optimizer](**config.values)
        program = trace_once(clips)
    # What is not in the table, or takes something else, has no bounds to speak of.
    except Exception:
        return None
    for clip in program.value:
        if not (jnp.ndim(clip.lower) or jnp.ndim(clip.upper)):
            low, high = program.compute((clip.lower, clip.upper))
            return float(low), float(high)
    return None


def _at(state: Any, step: int) -> Any:
    """The state with its bounds where they are at that step."""

    def moved(node: Any) -> Any:
        if isinstance(node, BoundClipState):
            return node._replace(count=jnp.full_like(node.count, step - 1))
        return node

    return jax.tree.map(
        moved, state, is_leaf=lambda node: isinstance(node, BoundClipState)
    )
