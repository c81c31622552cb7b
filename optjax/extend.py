"""The doors: what a part, an optimizer, a task or a stopping rule of one's own needs.

docs/extending.md has a complete example of each.
"""

from optjax.tasks import Loaded, Recipe, Settings, Task

__all__ = ["Loaded", "Recipe", "Settings", "Task"]
