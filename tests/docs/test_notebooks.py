"""Every notebook runs from clean and its committed outputs are what its code gives."""

import copy
import importlib.util
import json
import re
from pathlib import Path

import nbformat
import pytest
import ready
from nbclient.exceptions import CellExecutionError, CellTimeoutError

ROOT = Path(__file__).parents[2]


def script(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


execute = script(ROOT / "notebooks" / "execute.py")
urls = script(ROOT / ".ci" / "urls.py")
REPOSITORY = urls.repository()  # on GitHub, for the badge and the install cell

# What libraries read of it when they are imported is read again: they have been. No
# figure is drawn a second time to find out how much of its margins is white.
KERNEL = """
import os
import matplotlib, pandas
from ipykernel.kernelapp import launch_new_instance
from traitlets.config import Config
del os.environ["JPY_PARENT_PID"]  # its parent is another
matplotlib.rcParams["backend"] = os.environ["MPLBACKEND"]
pandas.options.display.max_columns = 20  # as where there is no terminal
plainly = {"print_figure_kwargs": {"bbox_inches": None}}
launch_new_instance(config=Config({"InlineBackend": plainly}))
"""


@pytest.fixture(scope="module", autouse=True)
def _forked_kernels(tmp_path_factory):
    """To import the libraries takes as long as a notebook or two."""
    kernels = tmp_path_factory.mktemp("jupyter") / "kernels" / "python3"
    kernels.mkdir(parents=True)
    words = [*ready.python(), "-c", KERNEL, "-f", "{connection_file}"]
    spec = {"argv": words, "display_name": "Python 3", "language": "python"}
    spec["interrupt_mode"] = "message"
    (kernels / "kernel.json").write_text(json.dumps(spec))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(kernels.parents[1]))
        yield


# What they compute is in question, not how fast.
pytestmark = pytest.mark.usefixtures("cheaply_compiled")
every_notebook = pytest.mark.parametrize(
    "path", execute.NOTEBOOKS, ids=lambda path: path.stem
)


def read(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def said(cell):
    """All text in the outputs of a cell."""
    for output in cell.outputs:
        yield output.get("text", "")
        for kind, data in output.get("data", {}).items():
            if not kind.startswith("image/"):
                yield data


def test_there_are_notebooks():
    assert [path.name for path in execute.NOTEBOOKS if path.name.startswith("1-")]


@every_notebook
def test_outputs_are_what_the_code_gives(path):
    committed = read(path)
    found = list(execute.differences(committed, execute.execute(committed)))
    assert not found, (
        f"If meant: python notebooks/execute.py {path.name}\n" + "\n".join(found)
    )


@every_notebook
def test_outputs_are_committed(path):
    cells = execute.code_cells(read(path))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert [o for o in outputs if o.output_type == "error"] == []
    assert [o for o in outputs if o.get("name") == "stderr"] == []
    for cell in cells:
        for text in said(cell):
            absolute = re.search(r"(?:^|[\s\"'(=])(/[\w.-]+/\S*|[A-Z]:\\\S*)", text)
            assert absolute is None, f"a path of one machine: {absolute[1]}"


@every_notebook
def test_opens_in_colab(path):
    cells = read(path).cells
    assert cells[0].cell_type == "markdown"
    assert (
        "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
        f"(https://colab.research.google.com/github/{REPOSITORY}/blob/main/notebooks/"
        f"{path.name})"
    ) in cells[0].source
    install = execute.code_cells(read(path))[0].source
    assert re.fullmatch(
        r"import importlib\.util\n\n"
        r'if importlib\.util\.find_spec\("optjax"\) is None:.*\n'
        r'    %pip install -q "optjax(\[[a-z,]+\])? '
        rf'@ git\+https://github\.com/{REPOSITORY}"',
        install,
    ), install
    elsewhere = {
        name
        for cell in cells
        for name in re.findall(r"\bgithub(?:\.com)?/([\w.-]+/[\w-]+)", cell.source)
    }
    assert elsewhere == {REPOSITORY}


def test_every_file_has_the_addresses_of_pyproject():
    """`python .ci/urls.py OWNER/REPOSITORY` changes them all."""
    assert urls.places(REPOSITORY.split("/")[1]) == []


def test_addresses_change_together():
    text = (
        "(https://github.com/optjax/optjax/issues) github/optjax/optjax/blob "
        'git+https://github.com/optjax/optjax" https://optjax.github.io/optjax/ optjax'
    )
    changed = urls.rewrite(text, "optjax/optjax", "some-one/other")
    assert "optjax/optjax" not in changed
    assert changed.count("some-one/other") == 3
    assert "https://some-one.github.io/other/ optjax" in changed


# The check itself, on a notebook of one figure.


def notebook_of(*sources):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    return nbformat.v4.new_notebook(cells=cells)


DRAWING = """
import matplotlib.pyplot as plt
import numpy as np
x = np.linspace(1.0, 10.0, 200)
figure, (left, right) = plt.subplots(1, 2, figsize=(4, 2))
left.loglog(x, x**2.0, label="square")
left.fill_between(x, x, 2 * x)
left.legend()
right.bar([1, 2], [3.0, 4.0])
right.scatter([1, 2, 2], [1.0, 2.0, 3.0], c=[0.0, 0.5, 1.0])
right.imshow([[1.0, 2.0], [5.0, 6.0]], extent=(0, 3, 0, 5), aspect="auto")
right.set_title(f"mean {x.mean():.3f}")
print("done: 12,345 steps, loss 0.1234")
"""


CHANGES = [
    ("x**2.0", "x**2.05"),
    ("2 * x", "2.2 * x"),
    ("[3.0, 4.0]", "[3.1, 4.0]"),
    ("[1.0, 2.0, 3.0]", "[1.0, 2.0, 2.9]"),
    ("[0.0, 0.5, 1.0]", "[0.0, 0.6, 1.0]"),
    ("[1.0, 2.0]", "[1.0, 2.1]"),
    ('"square"', '"cube"'),
    ("{x.mean()", "{1.02 * x.mean()"),
    ("0.1234", "0.1259"),
    ("12,345", "12,500"),
    ("print(", "len("),
]
TOLERATED = [
    ("x**2.0", "x**2.001"),
    ("0.1234", "0.1235"),
    ("x.mean()", "x.mean() + 1e-4"),
]


@pytest.fixture(scope="module")
def drawn():
    """The drawing, and after it each change of it, run in one kernel."""
    assert all(DRAWING.count(old) == 1 for old, _ in CHANGES + TOLERATED)
    changed = [DRAWING.replace(*change) for change in CHANGES + TOLERATED]
    return execute.execute(notebook_of(DRAWING, *changed))


def only(notebook, number):
    return nbformat.v4.new_notebook(cells=[notebook.cells[number]])


def test_a_second_run_is_the_same(drawn):
    again = execute.execute(only(drawn, 0))
    assert again.cells[0].execution_count == 1
    assert [output.output_type for output in again.cells[0].outputs] == [
        "stream",
        "display_data",
    ]
    assert list(execute.differences(only(drawn, 0), again)) == []


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change[1])
def test_a_change_is_seen(drawn, change):
    changed = only(drawn, 1 + CHANGES.index(change))
    assert list(execute.differences(only(drawn, 0), changed))


@pytest.mark.parametrize("change", TOLERATED, ids=lambda change: change[1])
def test_last_digits_may_differ(drawn, change):
    changed = only(drawn, 1 + len(CHANGES) + TOLERATED.index(change))
    assert list(execute.differences(only(drawn, 0), changed)) == []


def test_outputs_that_are_missing_are_seen(drawn):
    (found,) = execute.differences(notebook_of(DRAWING), only(drawn, 0))
    assert "committed are []" in found


def test_a_picture_saved_by_an_editor_is_seen(drawn):
    saved = copy.deepcopy(only(drawn, 0))
    saved.cells[0].outputs[1].metadata = {}
    (found,) = execute.differences(saved, only(drawn, 0))
    assert "without its numbers" in found


def test_an_error_in_a_cell_is_raised():
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        execute.execute(notebook_of("1 / 0"))


def test_a_notebook_that_takes_too_long_is_stopped(monkeypatch):
    monkeypatch.setattr(execute, "LIMIT", 1.0)
    with pytest.raises(CellTimeoutError):
        execute.execute(notebook_of("import time; time.sleep(30)"))
