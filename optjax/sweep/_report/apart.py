"""Whether seeds tell two configurations apart, and how many would.

The test is Games and Howell's: Welch's t for every pair of k configurations, judged by
the studentized range, so that all pairs together are wrong with probability `LEVEL` at
most. It asks for no equal variances and no equal numbers of seeds. It looks at means; a
score has no smaller spread than its own resolution allows (an accuracy over 360
examples moves in steps of 1/360), and a diverged seed counts as the worst score of all.
"""

import itertools
import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

#: The probability of telling any two apart that are alike.
LEVEL = 0.01
_POWER = 0.8
_MOST_SEEDS = 1000


class Sample(NamedTuple):
    """The scores of a configuration's seeds: how many, their mean and variance."""

    size: int
    mean: float
    variance: float

    @classmethod
    def of(cls, scores: Sequence[float], step: float = 0.0) -> "Sample":
        """From the scores, which move in steps of `step` or more."""
        variance = statistics.variance(scores) if len(scores) > 1 else math.inf
        # That of the rounding to a step.
        return cls(len(scores), statistics.fmean(scores), max(variance, step**2 / 12))


def resolution(scores: Sequence[float]) -> float:
    """The smallest step between different scores, 0 where there are none."""
    ordered = sorted(set(scores))
    gaps = [b - a for a, b in itertools.pairwise(ordered)]
    # What is left of a difference of rounded numbers is no step.
    floor = 1e-6 * max((abs(score) for score in ordered), default=0.0)
    return min((gap for gap in gaps if gap > floor), default=0.0)


def is_told(first: Sample, second: Sample, groups: int) -> bool:
    """Whether the seeds tell two of so many configurations apart."""
    pair = probability(first, second, 2)
    # One pair alone is surer than one of many, and that than Bonferroni's; the range
    # over many groups takes long to integrate.
    if pair >= LEVEL or pair * math.comb(groups, 2) < LEVEL:
        return pair < LEVEL
    return probability(first, second, groups) < LEVEL


def probability(first: Sample, second: Sample, groups: int) -> float:
    """Of a difference as large by chance, between some two of so many."""
    if min(first.size, second.size) < 2:
        return 1.0
    parts = [sample.variance / sample.size for sample in (first, second)]
    difference = abs(first.mean - second.mean)
    if not sum(parts):
        return float(difference == 0)
    freedom = sum(parts) ** 2 / sum(
        part**2 / (sample.size - 1)
        for part, sample in zip(parts, (first, second), strict=True)
    )
    if groups == 2:
        # Twice Student's.
        from scipy.special import stdtr

        return 2 * float(stdtr(freedom, -difference / math.sqrt(sum(parts))))
    from scipy.stats import studentized_range

    statistic = difference / math.sqrt(sum(parts) / 2)
    return float(studentized_range.sf(statistic, groups, freedom))


def seeds_needed(first: Sample, second: Sample, groups: int) -> int | None:
    """Seeds of each that tell them apart in four of five cases, None for over 1,000.

    Taking the difference and the spreads for the true ones.
    """
    if first.mean == second.mean or math.inf in (first.variance, second.variance):
        return None
    power = statistics.NormalDist().inv_cdf(_POWER)

    def suffices(count: int) -> bool:
        error = math.sqrt((first.variance + second.variance) / count)
        # So much smaller may the difference come out.
        sure = abs(first.mean - second.mean) - power * error
        one = Sample(count, sure, first.variance)
        return sure > 0 and is_told(one, Sample(count, 0.0, second.variance), groups)

    low, high = 1, 2
    while not suffices(high):
        low, high = high, 2 * high
        if low > _MOST_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return high
