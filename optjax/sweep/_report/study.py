"""A sweep's result as verdicts and pictures ask about it."""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

from optjax._page.parts import spans_decades
from optjax.sweep._ranking import Best, Ranking, Standing, numeric, varying
from optjax.sweep._records import DIVERGED, STOPPED, Config
from optjax.sweep._report.again import Range, Space, again, asked_range
from optjax.sweep._report.apart import Sample, is_told, resolution
from optjax.sweep._report.forest import Importance, importance_of
from optjax.sweep._store.files import as_text
from optjax.sweep._trial import SOUND

# Of one optimizer's configurations, which may be thousands.
_MOST_CONTENDERS = 20
# More different values than a grid has.
_MOST_IN_A_GRID = 24
# What is written down by hand has no more digits.
_DIGITS = 3


class Study:
    """The ranking, who contends in it, and what was tried."""

    def __init__(self, ranking: Ranking):
        """Of the trials that have ended, at least one."""
        self.ranking = ranking
        self.standings: Sequence[Standing] = ranking.standings()
        self.best: Best = self.standings[0].best

    @functools.cached_property
    def contenders(self) -> list[Best]:
        """The best of each optimizer, or of one optimizer its configurations."""
        if len(self.standings) > 1:
            return [standing.best for standing in self.standings]
        return self.ranking.configurations()[:_MOST_CONTENDERS]

    @functools.cached_property
    def groups(self) -> int:
        """Of how many the first contender is the best."""
        if len(self.standings) > 1:
            return len(self.standings)
        return len(self.ranking.configurations())

    @functools.cached_property
    def seeds(self) -> int:
        """How many seeds the best configuration has."""
        return len(self.best.records)

    @functools.cached_property
    def _finite(self) -> list[float]:
        scores = map(self.ranking.score, self.ranking.records)
        return [score for score in scores if math.isfinite(score)]

    @functools.cached_property
    def _step(self) -> float:
        return resolution(self._finite)

    def sample(self, best: Best) -> Sample:
        """Its seeds' scores, a diverged one as the worst of all."""
        worst = (min if self.ranking.mode == "max" else max)(self._finite)
        scores = [self.ranking.score(record) for record in best.records]
        finite = [score if math.isfinite(score) else worst for score in scores]
        return Sample.of(finite, self._step)

    @functools.cached_property
    def stops(self) -> bool:
        """Whether a rule stopped any trial."""
        return any(record.status == STOPPED for record in self.ranking.records)

    @functools.cached_property
    def rivals(self) -> list[Best]:
        """The other contenders of which the rule stopped no trial.

        Their trials have the length of the first's, or diverged.
        """
        return [other for other in self.contenders[1:] if is_whole(other)]

    @functools.cached_property
    def alike(self) -> list[Best]:
        """Those rivals that the seeds do not tell from the first."""
        first = self.sample(self.best)
        return [
            other
            for other in self.rivals
            if not is_told(first, self.sample(other), self.groups)
        ]

    @functools.cached_property
    def importance(self) -> list[Importance]:
        """Of the first optimizer's hyper-parameters."""
        return importance_of(self.ranking, self.best.config.optimizer)

    def tried(self, name: str, optimizer: str) -> list[float]:
        """An optimizer's values of a numeric hyper-parameter, ascending."""
        values = {
            numeric(record.trial.config, name)
            for record in self.ranking.records
            if record.trial.config.optimizer == optimizer
        }
        return sorted(value for value in values if value is not None)

    def drawn(self, name: str, values: Sequence[float]) -> Range | None:
        """From what these were drawn, as far as it is known; None for a grid."""
        asked = asked_range(self.ranking.command, name)
        if asked is not None or is_grid(values):
            return asked
        return Range(values[0], values[-1], spans_decades(values[0], values[-1]))

    def varied(self, optimizer: str) -> list[str]:
        """The hyper-parameters of which an optimizer tried more than one value."""
        return self._varied[optimizer]

    @functools.cached_property
    def _varied(self) -> dict[str, list[str]]:
        return {
            optimizer: varying(self.ranking.configurations(optimizer))
            for optimizer in self.ranking.optimizers
        }

    @functools.cached_property
    def lost_by_others(self) -> str:
        """In words, what alone ended trials that do not say that they are unsound.

        "" for none: no metric was NaN or infinite but the one that ranks.
        """
        lost = [record for record in self.ranking.records if record.status == DIVERGED]
        count, names = 0, dict[str, None]()
        for record in lost:
            last = {name: values[-1] for name, values in record.curve.values.items()}
            if math.isfinite(last[self.ranking.metric]) and last.get(SOUND, 1):
                count += 1
                names |= dict.fromkeys(
                    n for n, v in last.items() if not math.isfinite(v)
                )
        if not count:
            return ""
        return (
            f"In {count} of these {self.ranking.label} was finite and "
            f"{', '.join(names)} was not."
        )

    @property
    def is_known_sound(self) -> bool:
        """Whether trials say of themselves whether they are sound."""
        return SOUND in self.best.records[0].curve.values

    def again(
        self, space: Space | None = None, *, of: Config | None = None, **changes: Any
    ) -> str:
        """What to run next; see `again`."""
        of = self.best.config if of is None else of
        return again(self.ranking.command, space, of=of, **changes)

    def score(self, value: float) -> str:
        """A value of the metric in words."""
        return "diverged" if math.isinf(value) else f"{value:.4g}"


def is_whole(best: Best) -> bool:
    """Whether no rule stopped a trial of it."""
    return all(record.status != STOPPED for record in best.records)


def is_grid(values: Sequence[float]) -> bool:
    """Whether they were listed: few, of few digits or in equal steps; else drawn."""
    if len(values) > _MOST_IN_A_GRID:
        return False
    pairs = list(itertools.pairwise(values))
    return (
        all(math.isclose(v, float(f"{v:.{_DIGITS}g}"), rel_tol=1e-6) for v in values)
        or _are_equal([b - a for a, b in pairs])
        or (values[0] > 0 and _are_equal([math.log(b / a) for a, b in pairs]))
    )


def _are_equal(steps: Sequence[float]) -> bool:
    return all(math.isclose(step, steps[0], rel_tol=1e-3) for step in steps)


def named(config: Config) -> str:
    """A configuration as it is told apart: adam with learning_rate 0.01."""
    named = config.values.items()
    inside = ", ".join(f"{name} {as_text(value)}" for name, value in named)
    return f"{config.optimizer} with {inside}" if inside else config.optimizer
