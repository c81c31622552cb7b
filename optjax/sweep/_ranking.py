"""From trials to a ranking: statistics over seeds, no training and no printing.

A diverged trial takes part in every statistic, as one that is worse than any value, and
so does one that failed: it is neither left out nor taken for 0. With three seeds of
which one diverged the median is therefore the worse of the other two; with two, the
configuration has diverged.

One tie-break holds everywhere. Of an optimizer's configurations with equal medians the
best is the one in the middle of its plateau, of several plateaus of the largest; then
the one with the better worst seed, then the first. Optimizers with equal medians share
a place, and stand there in the same order.
"""

import functools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from optjax.sweep._code import pasted
from optjax.sweep._errors import SweepError
from optjax.sweep._keywords import Keywords
from optjax.sweep._plateau import Place, Spot, spots
from optjax.sweep._records import Config, Mode, Record, describe

#: How much worse than the best median, relative to it, is still in the band.
TOLERANCE = 0.01
# Of a value in float32, for what is meant to be equal.
_ROUNDING = 1e-6


def mode_of(metric: str, mode: Mode | None = None) -> Mode:
    """What is best of a metric: what is said, or of an accuracy its largest value.

    Raises:
      SweepError: where nothing is said of another.
    """
    if mode is not None:
        return mode
    if metric.rpartition("_")[2] == "accuracy":
        return "max"
    raise SweepError(
        f"metric={metric} needs mode=max or mode=min, which says whether its best is "
        "its largest or its smallest value; only an accuracy has one without, max"
    )


class Best(NamedTuple):
    """A configuration over its seeds; a diverged seed counts as worst of all.

    Attributes:
      config: the configuration.
      median: of each trial's best metric; infinite in the worse direction where half
        of the seeds or more diverged.
      low: the worst seed's.
      high: the best seed's.
      records: the trials, in order of their seeds.
      takes: the keywords of its factory where that is one of `run(factories=...)`.
    """

    config: Config
    median: float
    low: float
    high: float
    records: tuple[Record, ...]
    takes: Keywords | None = None

    @property
    def code(self) -> str:
        """The line that makes the optimizer; "" where it has diverged."""
        if math.isinf(self.median):
            return ""
        return pasted(self.config, self.records, self.takes)

    def __str__(self) -> str:
        """Its configuration, its scores, and the code that makes the optimizer."""
        seeds = ", ".join(str(record.trial.seed) for record in self.records)
        many = len(self.records) > 1
        ends = " to ".join(f"{end:.4g}" for end in sorted((self.low, self.high)))
        lines = [
            describe(self.config),
            f"median {self.median:.4g}, {ends} over the seed{'s' * many} {seeds}",
            self.code,
        ]
        return "\n".join(filter(None, lines))


class Band(NamedTuple):
    """How far a hyper-parameter may be from its best: the values around it that do.

    Attributes:
      name: the hyper-parameter's, the only one that varies.
      low: the smallest of the neighbouring values around the best whose median is at
        most `TOLERANCE` worse.
      high: the largest.
      is_open: whether it reaches an end of what was tried, so that it may be wider.
    """

    name: str
    low: float
    high: float
    is_open: bool


class Standing(NamedTuple):
    """One optimizer's line in the ranking.

    Attributes:
      place: one more than the optimizers that are better.
      is_tied: whether another has the same median, and so the same place.
      best: its best configuration.
      band: around it, or None where more than one hyper-parameter varies or none does.
      steps_to_target: the median over the best configuration's seeds; infinite for
        never.
      trials: all of the optimizer's.
      ends: how many of them ended in which way.
    """

    place: int
    is_tied: bool
    best: Best
    band: Band | None
    steps_to_target: float
    trials: int
    ends: Mapping[str, int]


@dataclass(frozen=True, repr=False)
class Ranking:
    """Trials, and by which metric they are ranked.

    Attributes:
      records: one a trial that has ended, in order.
      metric: the name of the metric that ranks.
      mode: "max" or "min".
      title: what the metric is called over tables and at axes; its name by default.
      command: the words of the command line that asked for it; none from Python.
      seconds: by optimizer, how long an update of a trial took: that of the calls that
        trained its trials, which share them, by the updates of all. Without compiling;
        none where no time was kept.
    """

    records: tuple[Record, ...]
    metric: str
    mode: Mode
    title: str = field(default="", kw_only=True)
    command: tuple[str, ...] = field(default=(), kw_only=True)
    seconds: Mapping[str, float] = field(
        default_factory=dict, kw_only=True, compare=False
    )

    @property
    def label(self) -> str:
        """The title, or the metric's name."""
        return self.title or self.metric

    @property
    def sign(self) -> float:
        """1, or −1 where less is better."""
        return 1.0 if self.mode == "max" else -1.0

    @property
    def worst(self) -> float:
        """What a diverged trial counts as: infinite, in the worse direction."""
        return -self.sign * math.inf

    def score(self, record: Record) -> float:
        """The best value of the metric on a trial's curve; `worst` if it diverged."""
        if not record.has_score:
            return self.worst
        pick = max if self.mode == "max" else min
        return pick(record.curve.values[self.metric])

    def steps_to(self, target: float, record: Record) -> float:
        """Updates at the first evaluation as good as a target; infinite for never."""
        if record.has_score:
            curve, wanted = record.curve, self.sign * float(np.float32(target))
            for step, value in zip(curve.steps, curve.values[self.metric], strict=True):
                if self.sign * value >= wanted:
                    return step
        return math.inf

    @functools.cached_property
    def hyper_names(self) -> tuple[str, ...]:
        """Every hyper-parameter that some trial has, in order of first appearance."""
        names: dict[str, None] = {}
        for record in self.records:
            names.update(dict.fromkeys(record.trial.config.hyper))
            names.update(dict.fromkeys(record.trial.config.static))
        return tuple(names)

    @property
    def optimizers(self) -> tuple[str, ...]:
        """The optimizers, in order of first appearance."""
        names = (record.trial.config.optimizer for record in self.records)
        return tuple(dict.fromkeys(names))

    def configurations(self, optimizer: str | None = None) -> list[Best]:
        """Each configuration over its seeds, best first.

        Ordered by the median, then how far it is from the middle of its plateau, then
        the worst seed, then the order of the trials.
        """
        found = self._configurations
        if optimizer is None:
            return list(found)
        return [best for best in found if best.config.optimizer == optimizer]

    @functools.cached_property
    def _configurations(self) -> Sequence[Best]:
        members: dict[Any, list[Record]] = {}
        for record in self.records:
            members.setdefault(_key(record.trial.config), []).append(record)
        found = [self._over_seeds(records) for records in members.values()]
        alike: dict[str, list[Best]] = {}
        for best in found:
            alike.setdefault(best.config.optimizer, []).append(best)
        spot = {
            id(best): spot
            for those in alike.values()
            for best, spot in zip(those, _spots(those), strict=True)
        }
        return sorted(
            found,
            key=lambda b: (-self.sign * b.median, spot[id(b)], -self.sign * b.low),
        )

    def _over_seeds(self, records: Sequence[Record]) -> Best:
        scores = [self.score(record) for record in records]
        worst, best = sorted((min(scores), max(scores)), reverse=self.mode == "min")
        # An infinite one of the middle two makes their mean infinite: one diverged seed
        # of two counts.
        middle = statistics.median(scores)
        ordered = sorted(records, key=lambda record: record.trial.seed)
        config = records[0].trial.config
        takes = self._own.get(config.optimizer)
        return Best(config, middle, worst, best, tuple(ordered), takes)

    @property
    def _own(self) -> Mapping[str, Keywords]:
        """The keywords of the caller's own factories, by name, as far as known."""
        return {}

    def best(self, optimizer: str | None = None) -> Best:
        """The configuration with the best median over its seeds.

        Args:
          optimizer: among this optimizer's only.

        Raises:
          ValueError: where there is no trial, or none of that optimizer.
        """
        found = self.configurations(optimizer)
        if not found:
            raise ValueError(
                "no trial has ended"
                if optimizer is None
                else f"no trial of {optimizer!r} has ended; there are those of "
                f"{', '.join(self.optimizers) or 'none'}"
            )
        return found[0]

    def best_of_each(self) -> list[Best]:
        """Each optimizer's best configuration, best first."""
        found: dict[str, Best] = {}
        for best in self.configurations():
            found.setdefault(best.config.optimizer, best)
        return list(found.values())

    def standings(self, target: float | None = None) -> list[Standing]:
        """Every optimizer's line in the ranking, best first.

        Args:
          target: a value of the metric, for `steps_to_target`.
        """
        found = self.best_of_each()
        medians = [best.median for best in found]
        return [
            self._standing(
                best,
                target,
                # Those that are better stand before the first of its equals.
                medians.index(best.median) + 1,
                medians.count(best.median) > 1,
            )
            for best in found
        ]

    def _standing(
        self, best: Best, target: float | None, place: int, is_tied: bool
    ) -> Standing:
        statuses = [
            record.status
            for record in self.records
            if record.trial.config.optimizer == best.config.optimizer
        ]
        steps = math.inf
        if target is not None:
            steps = statistics.median(self.steps_to(target, r) for r in best.records)
        ends = {status: statuses.count(status) for status in statuses}
        band = self._band(best)
        return Standing(place, is_tied, best, band, steps, len(statuses), ends)

    def _band(self, best: Best) -> Band | None:
        found = self.configurations(best.config.optimizer)
        names = varying(found)
        if len(names) != 1 or math.isinf(best.median):
            return None
        (name,) = names
        at = {numeric(other.config, name): self.sign * other.median for other in found}
        if None in at:
            return None
        places = sorted(place for place in at if place is not None)
        middle = places.index(numeric(best.config, name))  # type: ignore[arg-type]
        top = self.sign * best.median
        enough = top - (TOLERANCE + _ROUNDING) * abs(top)
        first = last = middle
        while first > 0 and at[places[first - 1]] >= enough:
            first -= 1
        while last < len(places) - 1 and at[places[last + 1]] >= enough:
            last += 1
        is_open = first == 0 or last == len(places) - 1
        return Band(name, places[first], places[last], is_open)


def numeric(config: Config, name: str) -> float | None:
    """A hyper-parameter, or None where it is absent or no number."""
    value = config.values.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)


def numeric_names(found: Sequence[Best]) -> list[str]:
    """The hyper-parameters that are a number in some configuration."""
    names = [name for best in found for name in best.config.values]
    return [
        name
        for name in dict.fromkeys(names)
        if any(numeric(best.config, name) is not None for best in found)
    ]


def _spots(found: Sequence[Best]) -> list[Spot]:
    """Where each of an optimizer's configurations lies among those that equal it."""
    names = varying(found)
    index: dict[str, dict[float | None, int]] = {}
    for name in names:
        values = {numeric(best.config, name) for best in found} - {None}
        index[name] = {value: i for i, value in enumerate(sorted(values))}  # type: ignore[type-var]
    at = [tuple(_place(b.config, name, index[name]) for name in names) for b in found]
    equal: dict[float, list[Place]] = {}
    for best, place in zip(found, at, strict=True):
        equal.setdefault(best.median, []).append(place)
    spot = {median: spots(places) for median, places in equal.items()}
    return [spot[b.median][place] for b, place in zip(found, at, strict=True)]


def _place(config: Config, name: str, index: Mapping[float | None, int]) -> int | str:
    value = numeric(config, name)
    if value is None:
        return repr(config.values.get(name))
    return index[value]


def varying(found: Sequence[Best]) -> list[str]:
    """The hyper-parameters that are not the same in all configurations."""
    values: dict[str, set[str]] = {}
    for best in found:
        for name, value in best.config.values.items():
            values.setdefault(name, set()).add(repr(value))
    return [name for name, seen in values.items() if len(seen) > 1]


def _key(config: Config) -> Any:
    return (
        config.optimizer,
        tuple(sorted(config.hyper.items())),
        tuple(sorted((name, repr(value)) for name, value in config.static.items())),
    )
