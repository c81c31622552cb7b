"""What a sweep is made of and what it measures, as plain data."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

#: What is best of a metric.
Mode = Literal["max", "min"]

#: Ran its whole budget; stopped early by a rule; went non-finite; raised an error.
FINISHED, STOPPED, DIVERGED, FAILED = "finished", "stopped", "diverged", "failed"

#: The tables' own columns, which no metric may be called; a hyper-parameter of the
#: same name is called hyper_...
OWN_COLUMNS = ("trial", "optimizer", "seed", "status", "steps", "step", "message")

#: Types whose values can be compared and written down.
PLAIN = (str, bool, int, float, type(None))

#: Each is a kilobyte of memory and a row of the tables.
MOST_TRIALS = 3_000_000


class Config(NamedTuple):
    """One point of a space: an optimizer and its hyper-parameters.

    Attributes:
      optimizer: a name among the sweep's optimizers.
      hyper: numeric hyper-parameters, passed to the factory as traced float32
        scalars, so that any number of them share one compiled program.
      static: the others (strings, booleans, integers that shape the state), passed
        as they are; each distinct combination is a program of its own.
    """

    optimizer: str
    hyper: Mapping[str, float]
    static: Mapping[str, Any]

    @property
    def values(self) -> dict[str, Any]:
        """All hyper-parameters, the numeric ones first."""
        return {**self.hyper, **self.static}


class TrialSpec(NamedTuple):
    """One trial: its number in the sweep, its configuration and its seed."""

    number: int
    config: Config
    seed: int


class Curve(NamedTuple):
    """A trial's metrics so far: `values[name][i]` was measured after `steps[i]`."""

    steps: tuple[int, ...]
    values: Mapping[str, tuple[float, ...]]


class Measured(NamedTuple):
    """Evaluations of one trial, in order, none after a divergence.

    Attributes:
      trial: whose.
      steps: updates done at each.
      rows: shape (evaluations, metrics).
    """

    trial: TrialSpec
    steps: Sequence[int]
    rows: np.ndarray


class Record(NamedTuple):
    """One trial's end.

    Attributes:
      trial: which trial.
      status: FINISHED, STOPPED, DIVERGED or FAILED.
      steps: updates done when it ended.
      curve: its metrics; of a diverged trial, up to and with the first non-finite.
      message: why it failed, with the line of the user's code where there is one.
    """

    trial: TrialSpec
    status: str
    steps: int
    curve: Curve
    message: str = ""

    @property
    def has_score(self) -> bool:
        """Whether its metrics count; otherwise it is worse than any that do."""
        return self.status not in (DIVERGED, FAILED)


class Failure(NamedTuple):
    """That a trial failed after so many evaluations, and why."""

    evaluations: int
    message: str


class Times:
    """How long the calls took that trained the trials of each optimizer.

    Attributes:
      of: by optimizer, the seconds, and the updates that were done in them.
    """

    def __init__(self, of: Mapping[str, Sequence[float]] | None = None) -> None:
        """With those that are known."""
        self.of = {name: (s, int(updates)) for name, (s, updates) in (of or {}).items()}

    def add(self, optimizer: str, seconds: float, updates: int) -> None:
        """A call."""
        before = self.of.get(optimizer, (0.0, 0))
        self.of[optimizer] = before[0] + seconds, before[1] + updates

    @property
    def seconds(self) -> dict[str, float]:
        """Those of an update of one trial, by optimizer."""
        return {name: s / updates for name, (s, updates) in self.of.items() if updates}


class Status(NamedTuple):
    """How far a sweep is, for a display.

    Attributes:
      total: trials in all.
      done: trials that ended, in whatever way.
      running: trials in a lane.
      diverged: of those done.
      stopped: of those done, by the stopping rule.
      optimizer: whose group is running.
      best: the best metric of a trial that has ended, or None.
      best_config: its configuration in words.
      steps: updates done by this process since it started.
      most_steps_left: updates still to do if no trial is stopped or diverges.
      failed: of those done, by an error.
    """

    total: int
    done: int
    running: int
    diverged: int
    stopped: int
    optimizer: str
    best: float | None
    best_config: str
    steps: int
    most_steps_left: int
    failed: int = 0


def describe(config: Config) -> str:
    """A configuration in words: adam(learning_rate=0.01)."""
    inside = ", ".join(
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value!r}"
        for name, value in config.values.items()
    )
    return f"{config.optimizer}({inside})"


def record_to_json(record: Record) -> dict[str, Any]:
    """A record as plain data; `record_from_json` gives an equal one back.

    Through `json` too, to the last bit and with NaN and the infinities, but for static
    values that JSON does not know: a tuple comes back as a list.
    """
    config = record.trial.config
    return {
        "trial": record.trial.number,
        "optimizer": config.optimizer,
        "hyper": dict(config.hyper),
        "static": dict(config.static),
        "seed": record.trial.seed,
        "status": record.status,
        "steps": record.steps,
        "curve_steps": list(record.curve.steps),
        "curve": {name: list(v) for name, v in record.curve.values.items()},
        "message": record.message,
    }


def record_from_json(data: Mapping[str, Any]) -> Record:
    """The record that `record_to_json` was given."""
    config = Config(data["optimizer"], data["hyper"], data["static"])
    return Record(
        TrialSpec(data["trial"], config, data["seed"]),
        data["status"],
        data["steps"],
        Curve(
            tuple(data["curve_steps"]),
            {name: tuple(values) for name, values in data["curve"].items()},
        ),
        data["message"],
    )
