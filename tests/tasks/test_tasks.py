"""The tasks with data of the user's own, through `optjax race` and `optjax sweep`."""

import csv
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from optjax._cli.main import main
from optjax.sweep._engine.groups import TrialGroup
from optjax.tasks import TASKS, Settings

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

SHORT = ["--epochs", "2", "--batch-size", "20", "--seeds", "2"]
TWO = ["--optimizers", "adam", "adabound"]


def png(pixels):
    page = io.BytesIO()
    Image.fromarray(pixels).save(page, format="PNG")
    return page.getvalue()


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Sixty images for training and twenty for testing: a grey that tells the class."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name, count in (("train", 60), ("test", 20)):
        labels = np.arange(count) % 10
        noise = rng.integers(0, 20, (count, 4, 4, 3))
        pixels = (noise + 23 * labels[:, None, None, None]).astype(np.uint8)
        rows = [{"bytes": png(of), "path": None} for of in pixels]
        table = pa.table({"img": rows, "label": labels})
        pq.write_table(table, folder / f"{name}.parquet")
    return folder


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.usefixtures("unreported")
def test_race_and_sweep_give_the_same_trials(images, tmp_path, capsys):
    task = ["image-mlp", "--data", str(images), *SHORT, *TWO]
    assert main(["race", "--task", *task, "--out", str(tmp_path / "race")]) == 0
    assert "adabound" in capsys.readouterr().out
    by_map = ["--strategy", "map", "--out", str(tmp_path / "sweep")]
    assert main(["sweep", *task, *by_map]) == 0
    capsys.readouterr()
    raced = read(tmp_path / "race" / "results.csv")
    swept = read(tmp_path / "sweep" / "results.csv")
    # Each optimizer at the learning rate of the recipe, with both seeds.
    assert [(r["optimizer"], r["learning_rate"], r["seed"]) for r in raced] == [
        (name, "0.001", seed) for name in TWO[1:] for seed in ("0", "1")
    ]
    assert raced == swept
    # The ranking is drawn by one function from the same numbers.
    ours, theirs = (
        (tmp_path / name / "ranking.png").read_bytes() for name in ("race", "sweep")
    )
    assert ours == theirs


@pytest.mark.usefixtures("undrawn")
def test_the_same_race_goes_on_and_another_is_refused(images, tmp_path, capsys):
    race = ["race", "--task", "image-mlp", "--data", str(images), "--out"]
    race += [str(tmp_path), "--batch-size", "20", "--optimizers", "adam"]
    assert main([*race, "--epochs", "2"]) == 0
    before = (tmp_path / "results.csv").read_bytes()
    assert main([*race, "--epochs", "2"]) == 0
    assert (tmp_path / "results.csv").read_bytes() == before
    capsys.readouterr()
    assert main([*race, "--epochs", "3"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path} holds another sweep: " in line


def darker(images, folder):
    """The same pictures but for one."""
    folder.mkdir()
    for name in ("train.parquet", "test.parquet"):
        table = pq.read_table(images / name).to_pydict()
        table["img"][0]["bytes"] = png(np.zeros((4, 4, 3), np.uint8))
        pq.write_table(pa.table(table), folder / name)
    return folder


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("command", ["race", "sweep"])
def test_a_directory_knows_what_it_trained(
    command, images, tmp_path, monkeypatch, capsys
):
    def words(task="image-mlp", data=images, dtype="float32"):
        task = [task] if command == "sweep" else ["--task", task]
        flags = ["--epochs", "1", "--batch-size", "20", "--optimizers", "adam"]
        given = [*flags, "--data", str(data), "--dtype", dtype]
        return [command, *task, *given, "--seeds", "1", "--out", str(tmp_path / "out")]

    assert main(words()) == 0
    before = capsys.readouterr().out
    curves = (tmp_path / "out" / "curves.csv").read_bytes()
    for other, differing in (
        ({"data": darker(images, tmp_path / "darker")}, "other data; "),
        ({"dtype": "bfloat16"}, "dtype was float32 and is bfloat16; "),
        (
            {"task": "cifar10-resnet8"},
            "task was image-mlp and is cifar10-resnet8; recipe was MLP, ",
        ),
    ):
        assert main(words(**other)) == 2
        captured = capsys.readouterr()
        assert f"holds another sweep: {differing}" in captured.err
        assert captured.out == ""
    monkeypatch.setattr(TrialGroup, "compile", lambda *_: pytest.fail("it compiled"))
    # The same pictures elsewhere are the same data.
    (tmp_path / "moved").symlink_to(images)
    assert main(words(data=tmp_path / "moved")) == 0
    assert capsys.readouterr().out == f"finished before; nothing was run\n{before}"
    assert (tmp_path / "out" / "curves.csv").read_bytes() == curves


@pytest.mark.usefixtures("undrawn")
def test_a_text_task(tmp_path, capsys):
    (tmp_path / "text.txt").write_text("to be or not to be, " * 60, encoding="utf-8")
    words = ["race", "--task", "char-lstm-1", "--data", str(tmp_path / "text.txt")]
    words += ["--epochs", "1", "--batch-size", "16", "--optimizers", "adabound"]
    words += ["--test-examples", "70"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    (row,) = read(tmp_path / "out" / "results.csv")
    assert row["status"] == "finished"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--task cifar10-resnet8", "needs data: give --data"),
        ("--task cifar10-densenet121 --data /nowhere", "/nowhere"),
        ("--task char-lstm-2 --data /nowhere.txt", "/nowhere.txt"),
        ("--task digits --epochs 3", "takes no --epochs"),
        ("--task imagenet", "unknown task 'imagenet'"),
        ("--task image-mlp --data {images} --epochs 0", "at least 1 epoch, got 0"),
        ("--task image-mlp --data {images} --examples 0", "at least 1"),
        (
            "--task image-mlp --data {images} --batch-size 20 --dtype float16",
            "float32 or bfloat16",
        ),
        ("--task image-mlp --data {images}", "smaller batch"),
    ],
)
def test_what_is_wrong_is_one_line(words, message, images, tmp_path, capsys):
    words = words.format(images=images).split()
    assert main(["race", *words, "--out", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not list(tmp_path.iterdir())


def test_the_drop_of_the_learning_rate_scales_with_the_epochs(images):
    settings = Settings(data=str(images), epochs=30, batch_size=20)
    assert (
        "30 epochs, learning rate × 0.1 after 22"
        in TASKS["image-mlp"].load(settings).about
    )
    full = TASKS["image-mlp"].load(Settings(data=str(images), batch_size=20))
    assert "200 epochs, learning rate × 0.1 after 150" in full.about
    assert full.steps == 600
    assert full.evaluate_every == 3
