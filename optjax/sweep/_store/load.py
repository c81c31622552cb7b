"""A sweep read back from its directory, without the code that it ran."""

import csv
import io
import itertools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from optjax.sweep._engine.lane import is_sound
from optjax.sweep._errors import DamagedError
from optjax.sweep._records import (
    DIVERGED,
    FAILED,
    FINISHED,
    STOPPED,
    Config,
    Curve,
    Mode,
    Record,
    TrialSpec,
)
from optjax.sweep._store.identity import Asked, in_words
from optjax.sweep._store.store import Store


class Saved(NamedTuple):
    """What a directory has of a sweep.

    Attributes:
      records: one a trial that has ended, in order.
      metric: the one that ranks.
      mode: "max" or "min".
      about: what the caller said of it, and how it was run.
      finished_before: whether all have ended.
      title: what the metric is called, or "".
      command: the words of the command line that asked for it, or none.
      seconds: that an update took, by optimizer.
    """

    records: tuple[Record, ...]
    metric: str
    mode: Mode
    about: dict[str, Any]
    finished_before: bool
    title: str
    command: tuple[str, ...]
    seconds: dict[str, float]


def load(directory: Path) -> Saved:
    """Read a sweep.

    While it is not finished, trials that are in a lane, or that are to go on from the
    end of a shorter run, are left out, and so are those of the newest generation that a
    rule has stopped, as they look the same, unless results.csv says so, which is there
    after an interruption.

    Raises:
      RefusedError: where there is no sweep in the directory.
      DamagedError: where what counts in it is not as it was left.
    """
    store = Store(directory, writes=False)
    identity, point, measured = store.read()
    rows: dict[int, list[np.ndarray]] = {}
    try:
        for replayed in measured:
            rows.setdefault(replayed.number, []).append(replayed.rows)
    except ValueError as error:
        raise DamagedError(directory / "curves.csv", str(error)) from None
    stopped = _stopped(directory / "results.csv")
    trials = sorted(identity["trials"])
    ended = len(trials) if point.finished else sum(identity["generations"][:-1])
    has_rule = identity["stopping"] is not None
    metrics, every = identity["metrics"], identity["evaluate_every"]
    unmade = dict(identity["unmade"])
    in_calls = {number: each.message for number, each in point.failures.items()}
    messages = {**unmade, **in_calls}
    records = []
    for number, optimizer, hyper, static, seed in trials:
        if number not in rows and number not in messages:
            continue
        none = np.empty((0, len(metrics)))
        values = np.concatenate(rows.get(number, [none]))
        steps = len(values) * every
        if number in messages:
            status = FAILED
        elif not is_sound(values[-1], metrics, identity["allow_nan"]):
            status = DIVERGED
        elif steps == identity["steps"]:
            status = FINISHED
        elif has_rule and (number < ended or stopped.get(number) == steps):
            status = STOPPED
        else:
            continue
        curve = Curve(
            tuple(itertools.accumulate(itertools.repeat(every, len(values)))),
            {
                name: tuple(values[:, i].tolist())
                for i, name in enumerate(metrics)
                if number not in unmade
            },
        )
        spec = TrialSpec(number, Config(optimizer, hyper, static), seed)
        records.append(Record(spec, status, steps, curve, messages.get(number, "")))
    about = {
        **identity["about"],
        "strategy": in_words(identity["strategy"]),
        "devices": identity["devices"],
        "steps": identity["steps"],
        "evaluate_every": every,
        "jax": identity["programs"][-1]["versions"]["jax"],
    }
    if not point.finished:
        about["unfinished"] = len(trials) - len(records)
    return Saved(
        tuple(records),
        identity["metric"],
        identity["mode"],
        about,
        point.finished,
        *Asked.of(identity),
        store.read_times().seconds,
    )


def _stopped(table: Path) -> dict[int, int]:
    """The updates of the trials that a table says were stopped."""
    try:
        rows = list(csv.DictReader(io.StringIO(table.read_text(encoding="utf-8"))))
        return {
            int(row["trial"]): int(row["steps"])
            for row in rows
            if row["status"] == STOPPED
        }
    except (OSError, ValueError, KeyError, TypeError):
        return {}
