"""The house: imports run one way, in layers, without a circle.

All imports count: those inside functions and those for type checkers too.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import optjax

ROOT = Path(optjax.__file__).parent


def name_of(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}


def imports_of(module, source, modules):
    """The modules of the package that a module's source imports, wherever it does."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} imports relatively"
            base = node.module or ""
            # A name may be a module of its own, or what a module defines.
            names = {f"{base}.{alias.name}" for alias in node.names}
            own = names & set(modules)
            found |= own
            if len(own) < len(names):
                found.add(base)
    return {name for name in found if name in modules} - {module}


GRAPH = {
    module: imports_of(module, path.read_text(encoding="utf-8"), MODULES)
    for module, path in MODULES.items()
}


def circle_in(graph):
    """Modules that import each other in a ring, or nothing."""
    done, path = set(), []

    def visit(module):
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        path.append(module)
        for other in sorted(graph.get(module, ())):
            if ring := visit(other):
                return ring
        path.pop()
        done.add(module)
        return []

    for module in sorted(graph):
        if ring := visit(module):
            return ring
    return []


def test_there_is_no_circle():
    assert circle_in(GRAPH) == []


def test_a_circle_would_be_seen():
    modules = dict.fromkeys(["p", "p.a", "p.b", "p.c"])
    sources = {
        "p": "",
        "p.a": "def f():\n    from p import b\n",
        "p.b": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import p.c\n",
        "p.c": "from p.a import f\n",
    }
    graph = {name: imports_of(name, text, modules) for name, text in sources.items()}
    assert circle_in(graph) == ["p.a", "p.b", "p.c", "p.a"]
    assert circle_in({**graph, "p.c": set()}) == []


# From the bottom: what stands in a row imports its own row and those above it only.
# The core is every module of the top with an underscore that no other row names.
CORE = "optjax._"
LAYERS = [
    [CORE],
    ["optjax.optimizers"],
    ["optjax.monitoring", "optjax.fused", "optjax.problems"],
    ["optjax._audit"],
    ["optjax"],
    ["optjax.pytorch", "optjax.sweep"],
    ["optjax.tasks"],
    ["optjax.extend", "optjax._cli"],
    ["optjax.__main__"],
]
PARTS = {"_rate", "_accumulator", "_bound", "_direction", "_swats", "_adashift"}


def layer_of(module):
    """The row of the module, or of the package that it is in; None if nobody says."""
    rows = {name: row for row, names in enumerate(LAYERS) for name in names}
    top = ".".join(module.split(".")[:2])
    return rows.get(top, rows[CORE] if top.startswith(CORE) else None)


def test_the_form_knows_none_of_its_parts():
    assert GRAPH["optjax._form"] & {f"optjax.{name}" for name in PARTS} == set()


@pytest.mark.parametrize("module", sorted(GRAPH))
def test_imports_run_one_way(module):
    row = layer_of(module)
    assert row is not None, f"say in LAYERS where {module} stands"
    above = {other: layer_of(other) for other in GRAPH[module]}
    assert {other: at for other, at in above.items() if at is None or at > row} == {}


def test_import_is_light():
    code = """
import sys
import optjax
heavy = {"flax", "matplotlib", "pandas", "ray", "rich", "sklearn", "tyro"}
print(sorted({name.partition(".")[0] for name in sys.modules} & heavy))
print(sorted(n for n in sys.modules if n.startswith(("optjax.sweep", "optjax.tasks"))))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["[]", "[]"], done.stderr


@pytest.mark.parametrize("module", sorted(MODULES))
def test_the_first_line_says_what_lives_there(module):
    document = ast.get_docstring(ast.parse(MODULES[module].read_text(encoding="utf-8")))
    assert document, module
    assert document.splitlines()[0].endswith((".", ":", "?")), module
