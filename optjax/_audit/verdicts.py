"""What is wrong with an optimizer, said by what its numbers do to its step."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from optjax._audit.facts import Facts, Verdict
from optjax._audit.measure import Measured
from optjax._audit.rules import numbers, steering, training

_RULES = (
    training.no_gradient,
    training.no_update,
    numbers.schedule,
    training.uphill,
    training.lost,
    steering.inert,
    steering.at_bound,
    steering.clip,
    steering.floor,
    steering.decay,
    numbers.stalled,
    numbers.twice,
)


def judge(layout: Any, measured: Measured, effects: Mapping[str, Any]) -> list[Verdict]:
    """Every rule's verdicts. What is not finite makes all else unknown."""
    with np.errstate(all="ignore"):
        facts = Facts(layout, measured, effects)
        broken = [*numbers.not_finite(facts)]
        rules = (numbers.rounded,) if broken else (numbers.rounded, *_RULES)
        return broken + [verdict for rule in rules for verdict in rule(facts)]
