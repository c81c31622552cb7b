"""The best configurations so far, while a sweep runs."""

import time
from collections.abc import Callable, Sequence

from optjax.sweep._ranking import Best, Ranking
from optjax.sweep._records import Mode, Record
from optjax.sweep._store.files import as_text
from optjax.sweep._view.table import shown

__all__ = ["Leaderboard"]

_MOST = 10
# Ranking anew may take this share of the time; with 1e5 trials it takes a second.
_SHARE = 0.05


class Leaderboard:
    """Rows of the best ten, which are ranked anew as often as that is cheap."""

    def __init__(
        self, metric: str, mode: Mode, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Nothing has ended yet."""
        self._metric, self._mode, self._clock = metric, mode, clock
        self._records: list[Record] = []
        self._ranked = 0
        self._rows: Sequence[str] = ()
        self._next = clock()

    def add(self, record: Record) -> None:
        """Take in a trial that has ended."""
        self._records.append(record)

    def rows(self) -> Sequence[str]:
        """Place, value, range over the seeds, their number, and the configuration."""
        began = self._clock()
        if len(self._records) > self._ranked and began >= self._next:
            self._ranked = len(self._records)
            ranking = Ranking(tuple(self._records), self._metric, self._mode)
            best = ranking.configurations()[:_MOST]
            self._rows = [f"{place:2d} {_row(b)}" for place, b in enumerate(best, 1)]
            ended = self._clock()
            self._next = ended + (ended - began) / _SHARE
        return self._rows


def _row(best: Best) -> str:
    values = {**best.config.hyper, **best.config.static}
    inside = " ".join(
        f"{name.replace('learning_rate', 'lr')}={_short(value)}"
        for name, value in values.items()
    )
    low, high = sorted((best.low, best.high))
    count = len(best.records)
    ends = f"{shown(low)}–{shown(high)}" if count > 1 else ""
    seeds = f"{count} seed{'s' if count > 1 else ' '}"
    said = f"{shown(best.median):>9} {ends:>17} {seeds:>8} {best.config.optimizer}"
    return f"{said} {inside}"


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else as_text(value)
