"""Every public name is documented, its example holds, and `import optjax` is light."""

import doctest
import inspect
import re
import subprocess
import sys

import public
import pytest

import optjax

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

PUBLIC = {
    name: getattr(optjax, name)
    for name in optjax.__all__
    if callable(getattr(optjax, name))
}
FUNCTIONS = {name: value for name, value in PUBLIC.items() if inspect.isfunction(value)}
FACTORIES = [name for name in FUNCTIONS if name in optjax.OPTIMIZERS]


def arguments(docstring):
    """The names under `Args:`, each at the start of an indented line."""
    section = re.search(r"^Args:\n((?:  .*\n|\n)+)", docstring + "\n", re.MULTILINE)
    listed = section[1] if section else ""
    return re.findall(r"^  \*{0,2}(\w+): \S", listed, re.MULTILINE)


def functions_of_the_library():
    """(name, what it is, its code): public functions, and public methods of classes."""
    for one in public.names():
        members = {str(one): one.value}
        if inspect.isclass(one.value):
            members = {
                f"{one}.{name}": value
                for name, value in vars(one.value).items()
                if inspect.isfunction(value) and not name.startswith("_")
            }
        for name, value in members.items():
            code = inspect.unwrap(value) if callable(value) else None
            if inspect.isfunction(code) and code.__module__.startswith("optjax"):
                yield name, value, code


def test_what_raises_says_so():
    """An error in its own lines, or of the checks of its arguments around it."""
    silent = [
        name
        for name, value, code in functions_of_the_library()
        if (
            value is not code
            or re.search(r"^\s+raise \w", inspect.getsource(code), re.M)
        )
        and "\nRaises:\n" not in (inspect.getdoc(value) or "")
    ]
    assert silent == []


def test_all_is_sorted_and_complete():
    assert sorted(optjax.__all__) == sorted(set(optjax.__all__))
    defined = {
        name
        for name, value in vars(optjax).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert defined == set(optjax.__all__)


@pytest.mark.parametrize("name", PUBLIC)
def test_example(name):
    """Run as `python -m doctest` would, names imported by the example itself."""
    finder = doctest.DocTestFinder(recurse=False)
    (test,) = finder.find(PUBLIC[name], name, globs={})
    assert test.docstring
    if name in FUNCTIONS:
        assert test.examples, "no example"
        assert "\nExample:" in inspect.cleandoc(test.docstring)
    report = []
    results = doctest.DocTestRunner().run(test, out=report.append)
    assert results.failed == 0, "".join(report)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_argument_is_explained(name):
    """In the order of the signature."""
    signature = inspect.signature(FUNCTIONS[name])
    docstring = inspect.getdoc(FUNCTIONS[name])
    assert arguments(docstring) == list(signature.parameters)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_first_line_says_it_all(name):
    """The equation or the purpose, on one line with a blank one after it."""
    first, *rest = inspect.getdoc(FUNCTIONS[name]).splitlines()
    assert len(first) > 20
    assert first.endswith(".")
    assert not rest or rest[0] == ""


@pytest.mark.parametrize("name", FACTORIES)
def test_every_optimizer_cites_its_source(name):
    docstring = inspect.getdoc(FUNCTIONS[name])
    source = re.search(r"^References?: (.+(?:\n.+)*)", docstring, re.MULTILINE)
    assert source, "no reference"
    assert re.search(r"\b(19|20)\d\d\b", source[1]), "no year"


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if "rate_by" in name])
def test_rates_warn_that_they_are_no_updates(name):
    first = inspect.getdoc(FUNCTIONS[name]).splitlines()[0]
    assert re.search(r"a rate.*drops the (gradient's )?sign", first)


@pytest.mark.parametrize(
    ("name", "row"), optjax.OPTIMIZERS.items(), ids=list(optjax.OPTIMIZERS)
)
def test_every_row_of_the_table_is_filled_in(name, row):
    assert all(isinstance(cell, str) and cell for cell in row[1:])
    assert re.search(r"\b(19|20)\d\d$", row.paper)
    shared = {"momentum": "sgd", "nesterov": "sgd"}
    factory = getattr(optjax, shared.get(name, name))
    assert factory in (row.factory, getattr(row.factory, "func", None))


LIGHT = """
import sys
import jax, jax.numpy, numpy, optax
before = set(sys.modules)
import optjax
print(*sorted(set(sys.modules) - before))
"""


def test_import_brings_nothing_but_itself():
    """No Flax, plotting, command line or engine until something uses it."""
    ran = subprocess.run(
        [sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True
    )
    modules = ran.stdout.split()
    assert "optjax.optimizers" in modules
    assert [m for m in modules if m.partition(".")[0] != "optjax"] == []
    heavy = ("_cli", "sweep", "tasks", "problems", "__main__")
    assert [m for m in modules if m.partition(".")[2].split(".")[0] in heavy] == []
