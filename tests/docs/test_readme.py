"""The Python in the README and on the pages runs as it stands, and prints what is said.

A block is a program of its own; a recipe is one from its first block to its last. Where
indented lines follow a block, they are its output. A block marked `no-run` needs what
the tests do not have, and its page says so.
"""

import contextlib
import io
import os
import re
import subprocess
from pathlib import Path

import pytest
import ready
from test_notebooks import execute

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
RECIPES = sorted((DOCS / "recipes").glob("*.md"))
PAGES = [
    ROOT / "README.md",
    *sorted(DOCS.glob("*.md")),
    *(DOCS / "design").glob("*.md"),
]
# What they compute is in question, not how fast.
pytestmark = pytest.mark.usefixtures("cheaply_compiled")
BLOCK = re.compile(
    r"^```python\n(.*?)^```\n(\n(?:    [^\n]*\n|\n)+)?", re.DOTALL | re.MULTILINE
)


def blocks(page):
    """(code, what it is said to print, or None)"""
    for code, output in BLOCK.findall(page.read_text()):
        yield code, re.sub("^    ", "", output, flags=re.MULTILINE).strip() or None


PROGRAMS = {
    f"{page.relative_to(ROOT)}, block {number}": block
    for page in PAGES
    for number, block in enumerate(blocks(page))
} | {
    str(page.relative_to(ROOT)): ("\n".join(code for code, _ in found), None)
    for page in RECIPES
    if (found := list(blocks(page)))
}


def needs_its_own_process(code):
    """It says how many devices there are, or starts others that would be forked."""
    return "jax_num_cpu_devices" in code or "ray.init" in code


def run(code, name):
    if needs_its_own_process(code):
        ran = subprocess.run(
            [*ready.python(), "-c", code],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(code, name, "exec"), {"__name__": "__main__"})
    return printed.getvalue()


def test_there_are_blocks_to_run():
    assert len(PROGRAMS) >= 29


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_section_says_something(page):
    text = re.sub(
        r"^```.*?^```", "code", page.read_text(), flags=re.DOTALL | re.MULTILINE
    )
    headings = re.finditer(r"^(#+) (.*)\n\s*(?=^(#+) )", text, re.MULTILINE)
    # A title may stand above the first of its sections.
    empty = [
        name for above, name, below in map(re.Match.groups, headings) if above >= below
    ]
    assert not empty


@pytest.mark.parametrize("name", PROGRAMS)
def test_block_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, said = PROGRAMS[name]
    if "import torch" in code:
        pytest.importorskip("torch")
    printed = run(code, name)
    if said is not None:
        assert execute.same_text(said, printed.strip()), printed


@pytest.mark.parametrize("page", RECIPES, ids=lambda page: page.stem)
def test_a_recipe_is_short_and_shows_something(page):
    text = page.read_text()
    assert len(text.splitlines()) <= 60
    assert "no-run" not in text or re.search(r"not\s+run\s+by\s+the\s+tests", text)
    if page.stem != "index":
        assert "print(" in text


def test_the_readme_shows_something():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 120
    assert all("print(" in code for code, _ in blocks(ROOT / "README.md"))
