"""The best configurations so far, while a sweep runs."""

import time
from collections.abc import Callable, Sequence

from optjax.sweep._ranking import Best, Ranking
from optjax.sweep._records import Mode, Record
from optjax.sweep._store.files import as_text
from optjax.sweep._view.table import shown

_MOST = 10
# Ranking anew may take this share of the time; with 1e5 trials it takes a second.
_SHARE = 0.05


class Leaderboard:
    """Rows of the best ten, which are ranked anew as often as that is cheap."""

    def __init__(
        self,
        metric: str,
        mode: Mode,
        seeds: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing has ended yet of configurations with so many seeds each."""
        self._metric, self._mode, self._clock = metric, mode, clock
        self._seeds = seeds
        self._records: list[Record] = []
        self._ranked = 0
        self._rows: Sequence[str] = ()
        self._next = clock()

    def add(self, record: Record) -> None:
        """Take in a trial that has ended."""
        self._records.append(record)

    def rows(self) -> Sequence[str]:
        """A heading, and of each: place, median, range, trials left, configuration."""
        began = self._clock()
        if len(self._records) > self._ranked and began >= self._next:
            self._ranked = len(self._records)
            ranking = Ranking(tuple(self._records), self._metric, self._mode)
            best = ranking.configurations()[:_MOST]
            self._rows = [
                _line("", "median", "range over seeds", "left", "configuration"),
                *(self._row(place, each) for place, each in enumerate(best, 1)),
            ]
            ended = self._clock()
            self._next = ended + (ended - began) / _SHARE
        return self._rows

    def _row(self, place: int, best: Best) -> str:
        low, high = sorted((best.low, best.high))
        ended = len(best.records)
        return _line(
            place,
            shown(best.median),
            f"{shown(low)}–{shown(high)}" if ended > 1 else "",
            max(self._seeds - ended, 0) or "",
            _words(best),
        )


def _line(place: object, median: str, ends: str, left: object, what: str) -> str:
    return f"{place:>2} {median:>9} {ends:>17} {left:>4} {what}"


def _words(best: Best) -> str:
    inside = " ".join(
        f"{name.replace('learning_rate', 'lr')}={_short(value)}"
        for name, value in best.config.values.items()
    )
    return f"{best.config.optimizer} {inside}"


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else as_text(value)
