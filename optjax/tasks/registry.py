"""The table of tasks. A task's own libraries and data load when it is chosen."""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from optjax.sweep.trial import Factory, Trial


class Task(NamedTuple):
    """A task's one-line description, and how to load its trials.

    `load()` reads the data once and returns the function that makes the task's
    `Trial` for an optimizer's factory.
    """

    description: str
    load: Callable[[], Callable[[Factory], Trial]]


def _digits() -> Callable[[Factory], Trial]:
    from optjax.tasks import digits

    return functools.partial(digits.trial, data=digits.load())


#: Every task by name.
TASKS: Mapping[str, Task] = MappingProxyType(
    {
        "digits": Task(
            "1,797 handwritten digits of 8×8 pixels (scikit-learn), MLP 64-64-10",
            _digits,
        )
    }
)
