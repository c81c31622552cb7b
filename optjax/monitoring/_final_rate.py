"""What a run says about the rate on which AdaBound's bounds should close."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from optjax._bound import band_note
from optjax._groups import OVERALL
from optjax.monitoring._summary import Summary

__all__ = ["SuggestedFinalRate", "band_notes", "suggested"]

# Layers whose rates are further apart cannot do with one.
_DISAGREEMENT = 10.0


class SuggestedFinalRate(NamedTuple):
    """A `final_lr` for AdaBound, and how far it can be trusted.

    Attributes:
      final_lr: the median over the steps looked at, of all leaves.
      low: the least of them.
      high: the largest.
      steps: the first step that has one and the last.
      layers: the same median of each group that the monitor was told of.
    """

    final_lr: float
    low: float
    high: float
    steps: tuple[int, int]
    layers: Mapping[str, float]

    @property
    def warning(self) -> str:
        """Where the layers disagree by more than ten, by how much; else ""."""
        rates = list(self.layers.values())
        if not rates or max(rates) <= _DISAGREEMENT * min(rates):
            return ""
        factor = max(rates) / min(rates)
        return (
            f"layers disagree by a factor of {factor:.2g}: no final_lr suits them all; "
            "graftbound has one for each leaf"
        )

    def __str__(self) -> str:
        first, last = self.steps
        steps = f"step {last}" if first == last else f"steps {first} to {last}"
        spread = [] if first == last else [f"{self.low:.2g} to {self.high:.2g}"]
        if len(self.layers) > 1:
            low, high = min(self.layers.values()), max(self.layers.values())
            spread.append(f"layers {low:.2g} to {high:.2g}")
        inside = f" ({', '.join(spread)})" if spread else ""
        line = f"final_lr={self.final_lr:.2g} fits the step length of {steps}{inside}"
        return f"{line}\n{self.warning}" if self.warning else line


def suggested(groups: Mapping[str, Summary]) -> SuggestedFinalRate | None:
    """From the second half of what was summarised, None where no rate adapts.

    Args:
      groups: the summaries, of one step or along an axis of time.
    """
    overall = Summary(*map(np.atleast_1d, groups[OVERALL]))
    is_late = (overall.step > 0) & (2 * overall.step >= overall.step.max())
    # SGD's is its learning rate, at every step and by no measurement.
    is_sgd = np.isinf(overall.upper) & np.isfinite(overall.sgd_rate)
    if not is_late.any() or is_sgd[is_late].all():
        return None
    with np.errstate(all="ignore"):
        found = {
            name: _of_full_schedule(summary)[is_late]
            for name, summary in groups.items()
        }
    is_known = {name: np.isfinite(rates) & (rates > 0) for name, rates in found.items()}
    known = {name: rates[is_known[name]] for name, rates in found.items()}
    medians = {name: float(np.median(r)) for name, r in known.items() if r.size}
    if OVERALL not in medians:
        return None
    rates = known[OVERALL]
    final_lr = medians.pop(OVERALL)
    steps = overall.step[is_late][is_known[OVERALL]]
    low, high = float(rates.min()), float(rates.max())
    return SuggestedFinalRate(
        final_lr, low, high, (int(steps.min()), int(steps.max())), medians
    )


def _of_full_schedule(summary: Summary) -> np.ndarray:
    """f_t where s_t is its largest: to that `final_lr` belongs."""
    schedule = np.atleast_1d(summary.schedule)
    largest = np.nanmax(schedule, initial=0.0)
    rates: np.ndarray = np.atleast_1d(summary.grafted_rate) / schedule * largest
    return rates


def band_notes(groups: Mapping[str, Summary]) -> list[str]:
    """Of the group whose band is widest at a step, if any is not closed.

    Bounds around f are each other's mirror image, lo · hi = f². Those of a group with
    several f are not, and say nothing.
    """
    notes = {
        float(g.upper / g.lower): band_note(float(g.lower), float(g.upper), int(g.step))
        for g in groups.values()
        if np.isfinite(g.upper)
        and g.lower > 0
        and np.isclose(g.lower * g.upper, g.sgd_rate**2, rtol=1e-3)
    }
    return [note for note in [notes[max(notes)]] if note] if notes else []
