"""A task of the user's own, a regression: the one of docs/extending.md."""

import csv
import re
from pathlib import Path

import pytest

from optjax import sweep
from optjax._cli.main import main
from optjax.tasks import TASKS, Settings, Task

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


@pytest.fixture(scope="module")
def source():
    """The example without what trains it."""
    section = PAGE.read_text(encoding="utf-8").split("\n## A task\n")[1]
    (block, *_) = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    return block.split("\ntask = ")[0]


def test_it_names_its_metric_and_trains_by_it(source):
    names = {}
    exec(compile(source, "sine.py", "exec"), names)
    task = names["TASK"].load(Settings(epochs=3, batch_size=20))
    assert (task.metric, task.mode, task.title) == (
        "val_error",
        "min",
        "validation error",
    )
    assert (task.steps, task.evaluate_every) == (24, 8)
    result = sweep.run(
        task.make_trial,
        {"optimizer": ["adam"], "learning_rate": [1e-6, 1e-2]},
        steps=task.steps,
        evaluate_every=task.evaluate_every,
        metric=task.metric,
        mode=task.mode,
        seeds=2,
        strategy="map",
        progress=False,
    )
    assert result.best().config.hyper["learning_rate"] == pytest.approx(1e-2)
    for record in result.records:
        assert record.curve.values.keys() == {"loss", "val_error", "finite"}
        assert set(record.curve.values["finite"]) == {1.0}


def test_the_command_line_finds_it(source, tmp_path, monkeypatch, capsys):
    (tmp_path / "sine_of_docs.py").write_text(source, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    words = ["sweep", "sine_of_docs:TASK", "--epochs", "2", "--space"]
    words += ["learning_rate=0.01", "--seeds", "1", "--strategy", "map"]
    words += ["--metric", "val_error", "--mode", "min", "--out"]
    assert main([*words, "out"]) == 0
    with (tmp_path / "out" / "results.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["val_error_best"]) < 1
    capsys.readouterr()
    assert main([*words[:3], "0", *words[4:], "other"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "at least 1 epoch, got 0" in line


def test_what_no_loader_heeds_is_refused():
    assert Settings().given == {}
    given = Settings(data="x", dtype="bfloat16").given
    assert given == {"data": "x", "dtype": "bfloat16"}
    with pytest.raises(ValueError, match=r"digits .* takes no batch_size="):
        TASKS["digits"].load(Settings(batch_size=3))
    asked = Task("asked", lambda settings: settings)
    assert asked.load() == Settings()
