"""What is public: names and signatures as they are kept, each named in the docs.

public.txt beside this file is what the last version had. A change of it is a change for
users: `python tests/docs/test_public.py` writes it anew, and CHANGELOG.md says so.
"""

import importlib
import importlib.machinery
import inspect
import pkgutil
from pathlib import Path

import pytest

import optjax

ROOT = Path(__file__).parents[2]
SNAPSHOT = Path(__file__).with_name("public.txt")


def is_public(module):
    return not any(part.startswith("_") for part in module.split("."))


def modules():
    found = ["optjax"]
    for module in pkgutil.walk_packages(optjax.__path__, "optjax."):
        # The compiled step is a library, and no module of Python's.
        is_python = not isinstance(
            module.module_finder.find_spec(module.name).loader,
            importlib.machinery.ExtensionFileLoader,
        )
        if is_public(module.name) and is_python:
            found.append(module.name)
    return sorted(found)


MODULES = {name: importlib.import_module(name) for name in modules()}


def signature(value):
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return ""
    bare = [p.replace(annotation=p.empty) for p in parameters]
    return str(inspect.Signature(bare))


def public():
    for name, module in MODULES.items():
        for item in sorted(getattr(module, "__all__", [])):
            value = getattr(module, item)
            if inspect.ismodule(value):
                continue
            if inspect.isroutine(value) or inspect.isclass(value):
                yield f"{name}.{item}{signature(value)}"
            else:
                yield f"{name}.{item}"


def test_what_is_public_is_as_it_was():
    assert list(public()) == SNAPSHOT.read_text().splitlines()


@pytest.mark.parametrize("name", MODULES)
def test_a_public_module_says_what_of_it_is(name):
    assert hasattr(MODULES[name], "__all__"), name
    for item in MODULES[name].__all__:
        assert not item.startswith("_"), f"{name}.{item}"
    assert MODULES[name].__doc__


def test_every_public_name_is_in_the_docs():
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    text = "\n".join(page.read_text() for page in pages)
    names = {line.partition("(")[0].rpartition(".")[2] for line in public()}
    assert sorted(name for name in names if name not in text) == []


if __name__ == "__main__":
    SNAPSHOT.write_text("".join(line + "\n" for line in public()))
