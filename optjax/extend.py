"""The doors: what a part, an optimizer, a task or a stopping rule of one's own needs.

docs/extending.md has a complete example of each.
"""

__all__: list[str] = []
