"""What of optjax is public, by the shortest name, and which page of the site has it."""

import importlib
import importlib.machinery
import inspect
import pkgutil
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import optjax

REFERENCE = Path(__file__).parents[1] / "reference"


class Name(NamedTuple):
    """A public name: `module` has it in its `__all__`, and it is defined in `home`."""

    module: str
    name: str
    value: Any
    home: str

    def __str__(self):
        return f"{self.module}.{self.name}"


@cache
def modules():
    """Every module without an underscore, the nearest to the root first."""
    found = {"optjax": optjax}
    for module in pkgutil.walk_packages(optjax.__path__, "optjax."):
        loader = module.module_finder.find_spec(module.name).loader
        # The compiled step is a library, and no module of Python's.
        if isinstance(loader, importlib.machinery.ExtensionFileLoader):
            continue
        if not any(part.startswith("_") for part in module.name.split(".")):
            found[module.name] = importlib.import_module(module.name)
    return dict(sorted(found.items(), key=lambda item: (item[0].count("."), item[0])))


@cache
def names():
    """Every public name once; one of several modules under the shortest path."""
    found = {}
    for module, loaded in modules().items():
        for name in sorted(getattr(loaded, "__all__", [])):
            value = getattr(loaded, name)
            if inspect.ismodule(value):
                continue
            home = getattr(value, "__module__", None) or ""
            home = home if home.startswith("optjax") else module
            # The name too, since two constants may be one object. What has no module of
            # its own, as a table, is at home where it was exported from.
            one = found.get((name, id(value)), Name(module, name, value, home))
            if one.home == one.module:
                one = one._replace(home=home)
            # Of two as short, the one that defines it.
            if module.count(".") == one.module.count(".") and home.startswith(module):
                one = one._replace(module=module)
            found[name, id(value)] = one
    return tuple(
        sorted(found.values(), key=lambda one: (one.module.count("."), *one[:2]))
    )


def members(path):
    """What a page's `members` directive shows, in the order of the page.

    What public modules inside `path` have, and what is defined inside it and public in
    `optjax` itself. One file's names come in its order, others by name, classes last.
    """

    def is_inside(module):
        return f"{module}.".startswith(f"{path}.")

    found = [
        one
        for one in names()
        if is_inside(one.home if one.module == "optjax" else one.module)
    ]
    if len({one.home for one in found}) == 1:
        return sorted(found, key=_line)
    table = list(optjax.OPTIMIZERS)
    return sorted(
        found,
        key=lambda one: (
            one.module,
            table.index(one.name) if one.name in table else -1,
            inspect.isclass(one.value),
            one.name.lower(),
        ),
    )


def _line(one):
    try:
        return inspect.getsourcelines(inspect.unwrap(one.value))[1]
    except TypeError:
        return 0


def documented():
    """The page of each public name: the one whose directive shows it."""
    found = {}
    for page in sorted(REFERENCE.glob("*.md")):
        for path in re.findall(r"^```\{members\} (.+)$", page.read_text(), re.M):
            for one in members(path):
                found.setdefault(str(one), []).append(page.stem)
    return found
