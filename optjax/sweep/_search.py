"""Searches: who proposes configurations, from what those before have reached.

A search goes in rounds: it is asked for a batch of points, their trials run, and it is
told what came out. Every round is written down before it is run, and a search is a
function of what it was told, so that a sweep that was killed goes on as it would have.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from optjax.sweep._errors import SweepError, blamed
from optjax.sweep._ranking import Ranking
from optjax.sweep._records import Config, Mode, Record, TrialSpec
from optjax.sweep._space.distributions import Distribution
from optjax.sweep._space.searched import Searched
from optjax.sweep._space.space import same


class Searcher(Protocol):
    """One optimizer's search, asked and told in turn."""

    def ask(self, count: int) -> np.ndarray:
        """Propose points.

        Returns:
          Shape (count, dimensions), numbers from 0 to 1, which the dimensions'
          distributions map to values (`at`).
        """
        ...

    def tell(self, values: np.ndarray) -> None:
        """Hear what the points asked for last have reached.

        Args:
          values: shape (count,), the median over the seeds of the best value of the
            metric, higher is better: where the sweep's mode is "min", they are
            negated. −inf for what has diverged.
        """
        ...


class Search(Protocol):
    """What makes a `Searcher` for each optimizer of a space.

    What it is, its fields and its code, is part of what a sweep's directory belongs to.

    Attributes:
      batch: how many configurations it is asked for at a time.
    """

    @property
    def batch(self) -> int:
        """How many at a time: more fill more lanes, fewer know more."""
        ...

    def begin(self, dimensions: Mapping[str, Distribution], seed: int) -> Searcher:
        """Begin a search that is a function of the seed and of what it is told.

        Args:
          dimensions: the distributions that are searched, by key.
          seed: the sweep's `space_seed`.
        """
        ...


class _One:
    """The search of one optimizer."""

    def __init__(self, searched: Searched, searcher: Searcher, draws: int) -> None:
        self.searched, self.searcher, self.left = searched, searcher, draws
        self.asked: list[Config] = []


class Proposals:
    """The trials of a sweep whose configurations a search proposes, round by round."""

    def __init__(
        self,
        searched: Sequence[Searched],
        search: Search,
        *,
        draws: int,
        seeds: Sequence[int],
        seed: int,
        metric: str,
        mode: Mode,
    ) -> None:
        """Begin a search for each optimizer.

        Raises:
          SweepError: where it cannot begin.
        """
        self._search, self._seeds = search, seeds
        self._metric, self._mode = metric, mode
        self._trials: dict[Any, list[int]] = {}
        self._count = 0
        self._ones = []
        for one in searched:
            begun = self._call("begin", search.begin, one.free, seed)
            self._ones.append(_One(one, begun, draws))

    def next(self, records: Sequence[Record]) -> list[TrialSpec]:
        """Tell of the round before, and ask for the next.

        Args:
          records: all trials that have ended, all of the round before among them.

        Returns:
          The trials that have not been run yet; none at the end.
        """
        by_number = {record.trial.number: record for record in records}
        found: list[TrialSpec] = []
        # A round may propose only what was run already.
        while not found and any(one.left for one in self._ones):
            for one in self._ones:
                if one.asked:
                    values = [self._value(config, by_number) for config in one.asked]
                    self._call("tell", one.searcher.tell, np.array(values))
                one.asked = []
                if one.left:
                    found += self._ask(one)
        return found

    def _ask(self, one: _One) -> list[TrialSpec]:
        count = min(self._search.batch, one.left)
        one.left -= count
        keys = list(one.searched.free)
        points = np.asarray(self._call("ask", one.searcher.ask, count))
        if (
            points.shape != (count, len(keys))
            or not ((points >= 0) & (points <= 1)).all()
        ):
            raise SweepError(
                f"the search {type(self._search).__name__} must propose {count} points "
                f"of {len(keys)} numbers from 0 to 1, got {points.tolist()}"
            )
        specs = []
        for point in points.tolist():
            config = one.searched.at(dict(zip(keys, point, strict=True)))
            one.asked.append(config)
            numbers = self._trials.setdefault(same(config), [])
            if numbers:
                continue
            for seed in self._seeds:
                numbers.append(self._count)
                specs.append(TrialSpec(self._count, config, seed))
                self._count += 1
        return specs

    def _value(self, config: Config, records: Mapping[int, Record]) -> float:
        numbers = self._trials[same(config)]
        own = tuple(records[number] for number in numbers if number in records)
        if len(own) < len(numbers):
            return -math.inf
        ranking = Ranking(own, self._metric, self._mode)
        return ranking.sign * ranking.best().median

    def _call(self, name: str, function: Any, *args: Any) -> Any:
        with blamed(f"the search {type(self._search).__name__}", f" in {name}"):
            return function(*args)
