"""When a finished sweep goes on to more steps: where every trial's state was kept."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from optjax.sweep._engine.lane import is_sound
from optjax.sweep._errors import RefusedError
from optjax.sweep._store.checkpoint import Checkpoint
from optjax.sweep._store.keep import kept_states


def check_goes_on(
    saved: Mapping[str, Any],
    wanted: Mapping[str, Any],
    point: Checkpoint,
    measured: Iterable[tuple[int, np.ndarray]],
    own: Path,
) -> None:
    """Refuse a longer run that cannot go on from the end of the shorter one.

    Args:
      saved: what the directory says of its sweep.
      wanted: the same sweep, of more steps.
      point: how far it is.
      measured: the evaluations of trials in order, each of shape (evaluations,
        metrics), by the trials' numbers.
      own: the sweep's own directory.

    Raises:
      RefusedError: where the shorter run has not ended, or the final state of a trial
        that goes on was not kept, saying what it costs to begin again.
    """
    steps, longer = saved["steps"], wanted["steps"]
    words = f"{own.parent} holds another sweep: steps were {steps} and are {longer}; "
    instead = "choose another out= (--out), or delete it"
    # Nothing may have been measured since the run before was taken for known.
    if not point.finished and point.known_bytes != point.curves_bytes:
        raise RefusedError(
            f"{words}a longer run goes on from the end of the shorter one, which has "
            f"not come: run it first, with steps={steps}, or {instead}"
        )
    evaluations: dict[int, int] = {}
    last: dict[int, np.ndarray] = {}
    for number, rows in measured:
        evaluations[number] = evaluations.get(number, 0) + len(rows)
        last[number] = rows[-1]
    goes_on = [
        number
        for number, count in evaluations.items()
        if count * saved["evaluate_every"] == steps
        and is_sound(last[number], saved["metrics"], saved["allow_nan"])
    ]
    lost = len({*goes_on} - kept_states(own, steps).keys())
    if lost:
        trials = len(wanted["trials"])
        raise RefusedError(
            f"{words}a longer run goes on from the final states of all trials, and "
            f"those of {lost:,} of {len(goes_on):,} were not kept (keep='all'). "
            f"It begins again, {trials:,} trials of {longer:,} updates: {instead}"
            ". result.train takes one trial further"
        )
