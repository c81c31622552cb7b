"""Optimizers by name: the table's rows, those of packages, and `module:attribute`."""

import importlib.metadata
import sys

import jax.numpy as jnp
import pytest

import optjax
from optjax import sweep
from optjax._cli.main import main
from optjax.optimizers import Row
from optjax.sweep._rows import FACTORIES, ROWS

MODULE = """
import optjax
from optjax.optimizers import Row

def half(learning_rate, momentum=0.9):
    return optjax.sgd(learning_rate / 2, momentum=momentum)

row = Row(half, "g + μ·m", "1/2", "–", "α_t", "Nobody 2026")

class Inside:
    half = staticmethod(half)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "rows_of_mine.py").write_text(MODULE)
    (tmp_path / "rows_that_break.py").write_text("x = 1\nx / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for name in ("rows_of_mine", "rows_that_break"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def install(monkeypatch, **values):
    """As packages with these entry points would."""
    points = [
        importlib.metadata.EntryPoint(name, value, "optjax.optimizers")
        for name, value in values.items()
    ]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)


def test_without_packages_the_rows_are_the_table():
    assert {**ROWS} == {**optjax.OPTIMIZERS}
    assert len(FACTORIES) == len(optjax.OPTIMIZERS)
    assert "nothing" not in ROWS
    with pytest.raises(KeyError):
        ROWS["nothing"]


def test_for_the_rows_of_the_table_no_package_is_looked_at(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "entry_points", pytest.fail)
    assert FACTORIES
    space = {"optimizer": list(optjax.OPTIMIZERS), "learning_rate": 0.1}
    assert len(sweep.configurations(space)) == len(optjax.OPTIMIZERS)
    assert "rows_of_mine:half" in ROWS


@pytest.mark.parametrize("attribute", ["half", "row", "Inside.half"])
def test_a_row_by_module_and_attribute(module, attribute):
    row = ROWS[f"rows_of_mine:{attribute}"]
    import rows_of_mine

    assert row.factory is rows_of_mine.half
    if attribute == "row":
        assert row.paper == "Nobody 2026"
    else:
        assert row == Row(row.factory, *"––––", f"rows_of_mine:{attribute}")


def test_a_row_of_a_package_joins_the_list_and_a_sweep(module, monkeypatch, capsys):
    install(monkeypatch, half="rows_of_mine:row", adam="rows_of_mine:row")
    # The table's own names stay its own.
    assert [*ROWS] == [*optjax.OPTIMIZERS, "half"]
    assert ROWS["adam"] is optjax.OPTIMIZERS["adam"]
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["list"]) == 0
    assert "Nobody 2026" in capsys.readouterr().out
    configs = sweep.configurations(
        {
            "optimizer": ["half", "sgd", "rows_of_mine:half"],
            "learning_rate": 0.1,
            "momentum": [0.8, 0.9],
        }
    )
    assert [c.optimizer for c in configs[::2]] == ["half", "sgd", "rows_of_mine:half"]
    result = sweep.run(
        (
            lambda key, optimizer: optimizer.init(jnp.zeros(())),
            lambda state, optimizer: (state, {"loss": jnp.zeros(())}),
        ),
        {"optimizer": "half", "learning_rate": 0.1},
        **{
            "steps": 1,
            "evaluate_every": 1,
            "metric": "loss",
            "mode": "min",
            "seeds": 1,
        },
        strategy="map",
        progress=False,
    )
    assert result.optimizers == ("half",)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("rows_that_break:x", r"ZeroDivisionError: .* \(rows_that_break.py, line 2\)$"),
        ("rows_of_mine:nothing", "rows_of_mine has no attribute 'nothing'"),
        ("no_such_rows:x", "cannot import no_such_rows: ModuleNotFoundError"),
        ("rows_of_mine:__name__", "must be a factory or a Row, got 'rows_of_mine'"),
        ("rows_of_mine:", "write module:attribute, got 'rows_of_mine:'"),
    ],
)
def test_a_row_that_cannot_be_had_is_named(module, monkeypatch, capsys, value, message):
    with pytest.raises(sweep.SweepError, match=message) as caught:
        ROWS[value]
    assert str(caught.value).startswith(f"optimizer {value}")
    # A broken package does not keep the others from a sweep, but the list says so.
    install(monkeypatch, broken=value)
    assert sweep.configurations({"optimizer": "sgd", "learning_rate": 0.1})
    assert main(["list"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("optjax: optimizer broken of ")
