"""What a sweep is made of and what it measures, as plain data."""

from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = [
    "DIVERGED",
    "FINISHED",
    "MOST_TRIALS",
    "OWN_COLUMNS",
    "PLAIN",
    "STOPPED",
    "Config",
    "Curve",
    "Record",
    "TrialSpec",
]

#: Ran its whole budget; stopped early by successive halving; went non-finite.
FINISHED, STOPPED, DIVERGED = "finished", "stopped", "diverged"


#: The tables' own columns, which no metric may be called; a hyper-parameter of the
#: same name is called hyper_...
OWN_COLUMNS = ("trial", "optimizer", "seed", "status", "steps", "step")

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


class TrialSpec(NamedTuple):
    """One trial: its number in the sweep, its configuration and its seed."""

    number: int
    config: Config
    seed: int


class Curve(NamedTuple):
    """A trial's metrics so far: `values[name][i]` was measured after `steps[i]`."""

    steps: tuple[int, ...]
    values: Mapping[str, tuple[float, ...]]


class Record(NamedTuple):
    """One trial's end.

    Attributes:
        trial: which trial.
        status: FINISHED, STOPPED or DIVERGED.
        steps: updates done when it ended.
        curve: its metrics; of a diverged trial, up to and with the first non-finite.
    """

    trial: TrialSpec
    status: str
    steps: int
    curve: Curve
