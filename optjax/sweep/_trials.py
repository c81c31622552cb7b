"""Which trials a sweep has: all those of a space, or what a search proposes of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from optjax.sweep._errors import SweepError
from optjax.sweep._records import MOST_TRIALS, Config, Mode, TrialSpec
from optjax.sweep._search import Proposals, Search
from optjax.sweep._space.space import Method, Space, configurations, searched
from optjax.sweep._store.directory import as_directory
from optjax.sweep._store.identity import numbered
from optjax.sweep._store.load import load
from optjax.sweep._store.store import MARKER, Store
from optjax.sweep._trial import Factory, MakeTrial


class Trials(NamedTuple):
    """The trials that are known before any has run.

    Attributes:
      generations: by when they came: those that a directory has, and new ones.
      proposals: what gives further ones, None where these are all.
    """

    generations: list[list[TrialSpec]]
    proposals: Proposals | None = None


def choose(
    space: Space,
    search: Search | None,
    *,
    draws: int | None,
    method: Method,
    seeds: int | Sequence[int],
    seed: int,
    metric: str,
    mode: Mode,
    factories: Mapping[str, Factory],
    make_trial: MakeTrial,
    out: str | Path | None,
) -> Trials:
    """The trials of a sweep; the arguments are those of `run`.

    Raises:
      SweepError: for a space that cannot work, and a search without `draws`.
    """
    saved = None
    if out is not None and (as_directory(out) / MARKER).is_file():
        saved = Store(as_directory(out), writes=False).saved_identity()
    if search is None:
        configs = configurations(
            space,
            draws=draws,
            method=method,
            seed=seed,
            factories=factories,
            trial=make_trial,
        )
        return Trials(numbered(_specs(configs, each_seed(seeds)), saved))
    if draws is None:
        raise SweepError(
            "search= needs draws=, the configurations an optimizer, such as draws=64"
        )
    proposals = Proposals(
        searched(space, factories=factories, trial=make_trial),
        search,
        draws=draws,
        seeds=each_seed(seeds),
        seed=seed,
        metric=metric,
        mode=mode,
    )
    return Trials(_proposed(proposals, out, saved), proposals)


def each_seed(seeds: int | Sequence[int]) -> Sequence[int]:
    """The seeds themselves, of which a number says how many, from 0 on."""
    given: Any = seeds
    # A range may be too long for NumPy to look at.
    if not isinstance(seeds, range) and np.ndim(seeds) == 0:
        given = range(seeds)  # type: ignore[arg-type]
    return given if isinstance(given, range) else tuple(map(int, given))


def _specs(configs: Sequence[Config], seeds: Sequence[int]) -> list[TrialSpec]:
    if len(configs) * len(seeds) > MOST_TRIALS:
        raise SweepError(
            f"a sweep may have {MOST_TRIALS:,} trials, got {len(configs):,} "
            f"configurations × {len(seeds):,} seeds = {len(configs) * len(seeds):,}; "
            "take fewer seeds= or configurations"
        )
    return [
        TrialSpec(index, config, seed)
        for index, (config, seed) in enumerate(
            (config, int(seed)) for config in configs for seed in seeds
        )
    ]


def _proposed(
    proposals: Proposals, out: str | Path | None, saved: Mapping[str, Any] | None
) -> list[list[TrialSpec]]:
    """The rounds that are written down in a directory, or the first."""
    rounds = [proposals.next(())]
    if out is None or not saved or len(saved.get("generations", ())) < 2:
        return rounds
    records = load(as_directory(out)).records
    while len(rounds) < len(saved["generations"]):
        # Another search is refused later, by all that differs.
        if not (specs := proposals.next(records)):
            break
        rounds.append(specs)
    return rounds
