"""How much of a round a call does: about so many seconds of it.

A round is what all lanes do between two decisions, and depends on the metrics alone. A
call is a part of it, as large as time allows, so that the results do not depend on how
long a call is.
"""

from typing import NamedTuple

import numpy as np

from optjax.sweep._engine.lane import Size


class Left(NamedTuple):
    """What a round has left to do.

    Attributes:
      evaluations: shape (K,), of each lane.
      within: which lanes are between two evaluations, shape (K,).
      updates: how many these have done since the last.
    """

    evaluations: np.ndarray
    within: np.ndarray
    updates: int


class Call(NamedTuple):
    """A call of the program.

    Attributes:
      lanes: which are busy in it, shape (K,).
      size: how far it takes them.
      work: updates that a device does one after the other.
    """

    lanes: np.ndarray
    size: Size
    work: int


class Pace:
    """How much work a call is given: about `seconds` of it, as the last call went.

    The first call does one update.
    """

    def __init__(self, seconds: float) -> None:
        """Know nothing yet."""
        self._seconds = seconds
        self.work = 1

    def took(self, call: Call, seconds: float) -> None:
        """Take in how long a call took."""
        share = self._seconds / max(seconds, 1e-6)
        self.work = max(1, int(min(call.work * share, 2**31 - 1)))


def next_call(
    left: Left,
    work: int,
    *,
    devices: int,
    evaluate_every: int,
    most_evaluations: int,
    skips_idle: bool,
) -> Call:
    """The next part of a round.

    Args:
      left: what there is to do.
      work: updates that a device may do one after the other; one evaluation's rest and
        one update are the least.
      devices: equal blocks of lanes, which run at the same time.
      evaluate_every: updates between two evaluations.
      most_evaluations: of a call.
      skips_idle: whether an idle lane costs nothing. Then as few lanes as are worth a
        call run to the end of the round, and the others after them; otherwise all
        lanes together.
    """
    at_once, lanes = 1, left.within
    if left.updates:
        evaluations, rest = 0, evaluate_every - left.updates
    else:
        rest = evaluate_every
        if skips_idle:
            possible = work // evaluate_every
            lanes = _first(left.evaluations, devices, possible, most_evaluations)
            at_once = int(lanes.reshape(devices, -1).sum(axis=1).max())
        else:
            lanes = left.evaluations > 0
        most = min(int(left.evaluations[lanes].min()), most_evaluations)
        evaluations = min(most, work // (at_once * evaluate_every))
    if evaluations:
        size = Size(evaluations, evaluate_every, evaluates=True)
    else:
        updates = min(max(work, 1), rest)
        size = Size(1, updates, evaluates=updates == rest)
    return Call(lanes, size, at_once * size.evaluations * size.updates)


def _first(
    evaluations: np.ndarray, devices: int, possible: int, most: int
) -> np.ndarray:
    """Each device's first lanes, as many as can end, but at least one.

    Several only where all end together, so that each trial's rows stay together.
    """
    left = evaluations.reshape(devices, -1)
    waiting = left > 0
    place = np.cumsum(waiting, axis=1) - 1
    first = waiting & (place == 0)
    shortest = int(left[first].min())
    together = possible // shortest if shortest <= most else 1
    # None behind one that has more left to do.
    alike = np.logical_and.accumulate(~waiting | (left == shortest), axis=1)
    chosen: np.ndarray = first | (waiting & alike & (place < together))
    return chosen.ravel()
