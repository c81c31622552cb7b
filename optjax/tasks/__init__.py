"""Tasks: what `optjax race` can train, each a maker of pure `Trial` functions."""

from optjax.tasks.registry import TASKS, Task
from optjax.tasks.trial import Factory, Metrics, State, Trial

__all__ = ["TASKS", "Factory", "Metrics", "State", "Task", "Trial"]
