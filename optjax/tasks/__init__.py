"""Tasks: models with data and a recipe, which `optjax race` and `optjax sweep` train.

A task of one's own is a `Task`; docs/extending.md has a complete example.
"""

from optjax.tasks._recipe import Recipe
from optjax.tasks._registry import TASKS
from optjax.tasks._task import Loaded, Settings, Task

__all__ = ["TASKS", "Loaded", "Recipe", "Settings", "Task"]
