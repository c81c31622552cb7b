"""Tasks: what `optjax race` can train, each a maker of pure `Trial` functions."""

from optjax.sweep._trial import Factory, Metrics, State, Trial
from optjax.tasks._registry import TASKS, Loaded, Settings, Task

__all__ = [
    "TASKS",
    "Factory",
    "Loaded",
    "Metrics",
    "Settings",
    "State",
    "Task",
    "Trial",
]
