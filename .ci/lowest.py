"""Prints constraints for pip: the lowest version of everything the package runs with.

They are pyproject.toml's own lower bounds, without those of its tests', linters' and
pages' tools.
"""

import pathlib
import re
import tomllib

text = (pathlib.Path(__file__).parent.parent / "pyproject.toml").read_text()
project = tomllib.loads(text)["project"]
requirements = set(project["dependencies"])
for extra, more in project["optional-dependencies"].items():
    if extra not in ("test", "lint", "docs"):
        requirements.update(more)
for requirement in sorted(requirements):
    if bound := re.fullmatch(r"([\w.-]+)>=([\d.]+)", requirement):
        print("{}=={}".format(*bound.groups()))
