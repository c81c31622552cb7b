"""Tasks: what `optjax race` can train, each a maker of pure `Trial` functions."""

from optjax.sweep.trial import Factory, Metrics, State, Trial
from optjax.tasks.registry import TASKS, Loaded, Settings, Task

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
