"""`optjax sweep` as a user meets it."""

import contextlib
import csv
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from optjax._cli.main import main
from optjax._cli.sweep import parse_bytes, parse_space
from optjax.sweep import SweepError, SweepResult
from optjax.sweep._view.live import Display

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

SMALL = ["--seeds", "1", "--steps", "20", "--evaluate-every", "10"]
GRID = ["--space", "learning_rate=1e-3, 1e-2"]
MINE = ["mymodel:trial", "--metric", "loss", "--mode", "min"]

MODULE = """
import jax, jax.numpy as jnp, optax

def init(key, optimizer):
    x = jax.random.normal(key, (2,))
    return x, optimizer.init(x)

def step(state, optimizer):
    x, opt_state = state
    loss, gradient = jax.value_and_grad(lambda x: jnp.sum(x**2))(x)
    updates, opt_state = optimizer.update(gradient, opt_state, x)
    return (optax.apply_updates(x, updates), opt_state), {"loss": loss}

trial = init, step
"""


@pytest.fixture
def mymodel(tmp_path, monkeypatch):
    """A task of one's own in the current directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mymodel", raising=False)
    (tmp_path / "mymodel.py").write_text(MODULE)


def read(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.usefixtures("mymodel")
def test_the_space_on_the_command_line(tmp_path, capsys):
    out = tmp_path / "out"
    space = ["--space", "learning_rate=log(1e-3, 1e-1)", "final_lr=0.01, 0.1"]
    flags = ["--optimizers", "adam", "adabound", "--draws", "4", *SMALL]
    assert main(["sweep", *MINE, *space, *flags, "--out", str(out)]) == 0
    rows = read(out / "results.csv")
    assert [row["optimizer"] for row in rows] == ["adam"] * 4 + ["adabound"] * 4
    assert all(1e-3 <= float(row["learning_rate"]) <= 1e-1 for row in rows)
    assert [row["final_lr"] for row in rows[:4]] == [""] * 4
    assert {row["final_lr"] for row in rows[4:]} <= {"0.01", "0.1"}
    printed = capsys.readouterr().out
    assert "best loss" in printed
    for name in ("results.csv", "curves.png", "sensitivity.png"):
        assert str(out / name) in printed
        assert (out / name).stat().st_size > 0


@pytest.mark.usefixtures("mymodel", "undrawn")
def test_a_toml_file_a_module_of_ones_own_and_resuming(tmp_path, capsys):
    (tmp_path / "sweep.toml").write_text(
        """
        task = "mymodel:trial"
        optimizers = ["sgd"]
        metric = "loss"
        mode = "min"
        steps = 40
        seeds = 2
        stop-early = 10
        out = "mine"

        [space]
        learning_rate = [0.01, 0.1, 0.4]
        """
    )
    assert main(["sweep", "--config", "sweep.toml", "--seeds", "1"]) == 0
    first = (tmp_path / "mine" / "results.csv").read_bytes()
    rows = read(tmp_path / "mine" / "results.csv")
    # The flag wins over the file; one of three goes on.
    assert [row["status"] for row in rows].count("finished") == 1
    assert {row["seed"] for row in rows} == {"0"}
    capsys.readouterr()
    assert main(["sweep", "--config", "sweep.toml", "--seeds", "1"]) == 0
    assert (tmp_path / "mine" / "results.csv").read_bytes() == first
    # Another seed is more of the same.
    assert main(["sweep", "--config", "sweep.toml", "--seeds", "2"]) == 0
    assert len(read(tmp_path / "mine" / "results.csv")) == 2 * len(rows)
    assert main(["sweep", "--config", "sweep.toml", "--seeds", "1"]) == 2
    assert "mine holds another sweep" in capsys.readouterr().err


@pytest.mark.usefixtures("mymodel", "undrawn")
def test_what_is_next_of_a_file_can_be_run(tmp_path):
    """It goes elsewhere, where its trials are not more of the same."""
    (tmp_path / "sweep.toml").write_text(
        f"""
        task = "{MINE[0]}"
        metric = "loss"
        mode = "min"
        optimizers = ["sgd", "adam"]
        steps = 20
        seeds = 1
        out = "mine"

        [space]
        learning_rate = {{sgd = [1e-4, 1e-3, 1e-2], adam = [1e-3, 1e-2, 1e-1]}}
        """
    )
    assert main(["sweep", "--config", "sweep.toml"]) == 0
    result = SweepResult.load("mine")
    (line,) = (v.next for v in result.verdicts() if v.kind == "edge")
    assert "--out=mine" not in line
    assert "--out mine-2" in line
    assert main(shlex.split(line)[1:]) == 0
    assert len(SweepResult.load("mine-2").records) == 10


def test_a_flag_wins_over_the_file_though_it_says_the_default(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("optjax._cli.experiment.run", lambda *args, **words: ran(words))
    seen = []

    def ran(words):
        seen.append(words)
        raise SweepError("enough")

    path = tmp_path / "sweep.toml"
    path.write_text('seeds = 1\nsteps = 40\nmode = "min"\noptimizers = "sgd"')
    flags = ["--seeds", "3", "--mode", "max", *GRID]
    assert main(["sweep", "--config", str(path), *flags]) == 2
    (words,) = seen
    assert (words["seeds"], words["mode"], words["steps"]) == (range(3), "max", 40)


def test_dimensions_of_the_command_line_win_over_those_of_the_file():
    table = {"learning_rate": [0.1, 0.2], "final_lr": 0.1}
    assert parse_space(["learning_rate = 0.3"], table) == parse_space(
        ["learning_rate=0.3", "final_lr=0.1"], {}
    )


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GB", 2 * 2**30), ("500 MiB", 500 * 2**20), ("1.5k", 1536), ("7", 7)],
)
def test_sizes(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--space", "learning_rate=-1"], "learning_rate=-1 of adam"),
        (["--space", "learning_rate=log(0, 1)"], "learning_rate: "),
        (["--space", "learning_rate"], "a dimension is written name=values"),
        (["--space", "learning_rate=0.1", "momentum=0.9"], "'momentum'"),
        (["--optimizers", "admam", *GRID], "no optimizer 'admam'; did you mean adam"),
        (["foo", *GRID], "unknown task 'foo'; known: digits"),
        (["no_such_module:trial", *GRID], "cannot import no_such_module"),
        (["math:trial", *GRID], "math has no attribute 'trial'"),
        (["math:pi", *GRID], "a tuple of functions (init, step[, evaluate]), got a f"),
        ([":trial", *GRID], "unknown task ':trial'"),
        (["digits", "adam", *GRID], "adam"),
        ([], "learning_rate"),
        (["--seeds", "0", *GRID], "--seeds must be a whole number >= 1, got 0"),
        (
            ["--seeds", "1000000000", *GRID],
            "got 2 configurations × 1,000,000,000 seeds = 2,000,000,000; take fewer",
        ),
        (
            ["--evaluate-every", "7", *GRID],
            "--evaluate-every 7 must divide --steps 300",
        ),
        (["--mode", "up", *GRID], "--mode must be one of max, min, got 'up'"),
        (
            ["--metric", "acc", "--mode", "max", *GRID],
            "the sweep ranks by the metric 'acc'",
        ),
        (["--strategy", "fast", *GRID], "--strategy must be one of auto"),
        (["--engine", "slurm", *GRID], "--engine must be one of local, ray"),
        (["--memory-limit", "3 bananas", *GRID], "--memory-limit must be a size"),
        (["--memory-limit", "1.2.3GB", *GRID], "--memory-limit must be a size"),
        (["--memory-limit", "1k", *GRID], "the memory limit of 1,024 bytes"),
        (["--stop-early", "15", *GRID], "--stop-early must be a positive multiple"),
        (["--stop-early", "10", "--eta", "1", *GRID], "--eta must be an integer >= 2"),
        (["--search", "tpes", *GRID], "--search must be one of tpe, gp, cmaes, got"),
        (
            ["--search", "tpe", "--search-batch", "0", *GRID],
            "--search-batch must be an integer >= 1",
        ),
        (["--target", "nan", *GRID], "--target must be a finite number, got nan"),
        (["--seeds", "many", *GRID], "--seeds"),
        (["--config", "nowhere.toml", *GRID], "cannot read nowhere.toml"),
        (["--space", "learning_rate=log(1e-3, 1)"], "such as --draws 16"),
        (["--no-such-flag"], "--help"),
    ],
)
def test_bad_input_is_one_line_and_status_2(flags, message, tmp_path, capsys):
    assert main(["sweep", *flags, "--out", str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("optjax: ")
    assert message in line
    assert not (tmp_path / "out" / "curves.csv").exists()


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("raises", "adam(learning_rate=0.001): make_trial raised OSError: no data"),
        ("number", "make_trial must return a Trial of the functions init, step"),
        ("alone", "functions (init, step[, evaluate]), got a tuple"),
        ("bare", "must be a function make_trial(factory) -> Trial, got a Trial"),
    ],
)
def test_a_task_that_is_no_trial_is_named(
    attribute, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "no_trials", raising=False)
    (tmp_path / "no_trials.py").write_text(
        """
from optjax.sweep import Trial

def raises(factory):
    raise OSError("no data")

def number(factory):
    return 3

alone = (number,)
bare = Trial(number, number, number)
"""
    )
    assert main(["sweep", f"no_trials:{attribute}", *GRID]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert [path.name for path in tmp_path.iterdir()] == ["no_trials.py"]


def test_a_task_that_cannot_be_imported_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "half_a_module.py").write_text("def trial(")
    assert main(["sweep", "half_a_module:trial", *GRID]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot import half_a_module: SyntaxError: " in line


@pytest.mark.parametrize("package", ["rich", "matplotlib", "tyro"])
def test_a_missing_package_is_one_line_before_any_work(
    package, tmp_path, monkeypatch, capsys
):
    for module in ("optjax._cli.options", package):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["sweep", *GRID, "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == (
        f"optjax: the package {package} is missing; run: pip install 'optjax[sweep]'\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_the_ray_engine_without_ray_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    out = str(tmp_path / "out")
    assert main(["sweep", *GRID, "--engine", "ray", "--out", out]) == 2
    assert capsys.readouterr().err == (
        "optjax: the ray engine needs Ray; run: pip install 'optjax[ray]'\n"
    )


@pytest.mark.usefixtures("mymodel")
def test_a_full_disk_is_one_line_and_status_1(tmp_path, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("optjax.sweep._store.sealed.write_atomically", full)
    assert main(["sweep", *MINE, *GRID, "--out", str(tmp_path / "out")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "No space left on device" in line


@pytest.mark.usefixtures("mymodel")
def test_a_picture_that_fails_is_one_line_and_the_table_stays(
    tmp_path, monkeypatch, capsys
):
    def fail(*_, **__):
        raise RuntimeError("no fonts")

    monkeypatch.setattr("optjax.sweep.SweepResult.plot_curves", fail)
    space = ["--space", "learning_rate=0.01, 0.1", "final_lr=0.01, 0.1"]
    words = [*MINE, "--optimizers", "adabound", *space, *SMALL]
    assert main(["sweep", *words, "--out", "o"]) == 1
    captured = capsys.readouterr()
    assert captured.err.splitlines()[1:] == [
        "optjax: could not write o/curves.png: RuntimeError: no fonts"
    ]
    assert "o/heatmap.png" in captured.out
    assert len(read(tmp_path / "o" / "results.csv")) == 4
    written = {path.name for path in (tmp_path / "o").glob("*.png")}
    assert written == {"ranking.png", "sensitivity.png", "heatmap.png"}


@pytest.mark.usefixtures("mymodel", "undrawn")
def test_a_sweep_in_which_all_diverged_says_so(tmp_path, capsys):
    out = tmp_path / "out"
    flags = ["--space", "learning_rate=1e4", "--optimizers", "sgd", *SMALL]
    assert main(["sweep", *MINE, *flags, "--out", str(out)]) == 1
    captured = capsys.readouterr()
    line, last = captured.err.splitlines()
    assert line.startswith("sgd diverged (learning_rate=10000) · 1 of 1 trials")
    assert last == "optjax: all 1 trials diverged"
    assert str(out / "results.csv") in captured.out
    assert "tx = " not in captured.out
    assert [row["status"] for row in read(out / "results.csv")] == ["diverged"]


@pytest.mark.usefixtures("mymodel", "undrawn")
def test_the_page_is_rewritten_while_it_runs(tmp_path, monkeypatch, capsys):
    written = []

    def report(result, path):
        written.append(len(result.records))
        assert result.about.get("unfinished", 0) == 3 - len(result.records)

    monkeypatch.setattr("optjax.sweep.SweepResult.report", report)
    space = ["--space", "learning_rate=1e-3, 1e-2, 1e-1"]
    flags = [*MINE, *space, *SMALL, "--lanes", "1"]
    words = ["sweep", *flags, "--report-every", "1e-9", "--out", str(tmp_path / "o")]
    monkeypatch.setattr("optjax.sweep._view.live._BETWEEN_LINES", 0.0)
    main(words)
    lines = capsys.readouterr().err.splitlines()
    assert len(written) > 1
    assert written == sorted(written)
    assert written[-1] == 3
    # And the line a minute, here a moment.
    assert any("of 3 trials" in line for line in lines[:-1])
    assert main(["sweep", *flags, "--report-every", "0"]) == 2
    assert "--report-every must be a number > 0" in capsys.readouterr().err


def test_report_writes_the_page_again_from_the_directory(tmp_path, capsys):
    out = tmp_path / "o"
    flags = ["--space", "learning_rate=1e-2, 1e4", "--optimizers", "sgd", "adam"]
    assert main(["sweep", *flags, *SMALL, "--metric", "val_loss", "--mode", "min",
                 "--out", str(out)]) == 0  # fmt: skip
    page = (out / "report.html").read_bytes()
    (out / "report.html").unlink()
    assert main(["report", str(out)]) == 0
    assert (out / "report.html").read_bytes() == page
    assert main(["report", str(out), "--out", str(tmp_path / "x" / "y.html")]) == 2
    assert "cannot write" in capsys.readouterr().err.splitlines()[-1]
    assert main(["report", str(tmp_path)]) == 2
    assert "holds no sweep" in capsys.readouterr().err
    shutil.copytree(out, tmp_path / "p")
    assert main(["report", str(tmp_path)]) == 0
    assert "Performance profile" in (tmp_path / "report.html").read_text()
    # The curves say it all.
    (out / "results.csv").unlink()
    assert main(["report", str(out)]) == 0
    assert (out / "report.html").read_bytes() == page


@pytest.mark.usefixtures("mymodel", "undrawn")
def test_without_out_each_sweep_has_a_directory_of_its_own(
    tmp_path, monkeypatch, capsys
):
    def interrupt(status):
        raise KeyboardInterrupt

    command = ["sweep", *MINE, "--strategy", "map", *SMALL, *GRID]
    runs = tmp_path / "runs"
    assert main(command) == 0
    first = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr(
            "optjax._cli.experiment.live_display",
            lambda *_, **__: contextlib.nullcontext(Display(interrupt)),
        )
        # The first is finished: a new one, which is not.
        assert main(command) == 130
    assert {path.name for path in runs.iterdir()} == {
        "sweep-mymodel-trial-1",
        "sweep-mymodel-trial-2",
    }
    # Another sweep leaves both alone.
    assert main([*command, "--optimizers", "sgd"]) == 0
    third = runs / "sweep-mymodel-trial-3"
    assert {row["optimizer"] for row in read(third / "results.csv")} == {"sgd"}
    capsys.readouterr()
    assert main(command) == 0
    out = capsys.readouterr().out
    assert f"went on in {Path('runs', 'sweep-mymodel-trial-2')}" in out
    tables = [
        (runs / f"sweep-mymodel-trial-{n}" / "results.csv").read_bytes() for n in (1, 2)
    ]
    assert tables[0] == tables[1]
    # One that is damaged is said, and left as it is.
    (third / "sweep" / "progress.json").write_text("{")
    assert main(command) == 0
    assert (
        "sweep-mymodel-trial-3/sweep/progress.json is damaged"
        in capsys.readouterr().err
    )
    assert len(list(runs.iterdir())) == 4
    for path, data in first.items():
        assert path.read_bytes() == data


@pytest.mark.usefixtures("mymodel", "undrawn")
def test_more_steps_go_on_from_the_states_that_are_kept(capsys):
    pytest.importorskip("orbax.checkpoint")
    command = ["sweep", *MINE, "--optimizers", "sgd", "--seeds", "1", *GRID]
    command += ["--evaluate-every", "10"]
    command += ["--strategy", "map", "--out", "mine"]
    longer = [*command, "--keep", "all", "--steps", "40"]
    assert main([*command, "--keep", "all", "--steps", "20"]) == 0
    assert main(longer) == 0
    assert "went on in mine, from 20 updates" in capsys.readouterr().out
    assert {row["steps"] for row in read(Path("mine", "results.csv"))} == {"40"}
    assert main(longer) == 0
    assert "finished before" in capsys.readouterr().out
    assert main([*command, "--keep", "all", "--steps", "20"]) == 2
    assert "steps were 40 and are 20" in capsys.readouterr().err
    assert main([*command, "--keep", "some", "--steps", "40"]) == 2
    assert "--keep" in capsys.readouterr().err


def test_several_processes_need_an_output(capsys):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("optjax._cli.sweep.start_distributed", lambda: None)
        assert main(["sweep", "--distributed", *GRID]) == 2
    assert "--distributed needs --out" in capsys.readouterr().err


def test_an_output_that_is_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["sweep", *GRID, "--out", str(tmp_path / "file")]) == 2
    assert "cannot write to the directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps = ", "is not TOML"),
        ("stepps = 3", "unknown key 'stepps'; did you mean steps?"),
        ("bananas = 3", "unknown key 'bananas'; known: task, space, optimizers"),
        ('config = "other.toml"', "unknown key 'config'"),
        ('steps = "many"', "steps must be a whole number, got 'many'"),
        ("steps = [1, 2]", "steps must be one number or text, got [1, 2]"),
        ("seeds = true", "seeds must be one number or text, got True"),
        ("distributed = 1", "distributed must be true or false, got 1"),
        ("out = {a = 1}", "out must be one number or text"),
    ],
)
def test_a_bad_toml_file_is_named(text, message, tmp_path, capsys):
    path = tmp_path / "sweep.toml"
    path.write_text(text)
    assert main(["sweep", "--config", str(path), *GRID]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith(f"optjax: {path}")
    assert message in line


def test_a_bad_dimension_of_a_toml_file_is_named(tmp_path, capsys):
    path = tmp_path / "sweep.toml"
    path.write_text("[space]\nlearning_rate = {low = 1}")
    assert main(["sweep", "--config", str(path), "--out", str(tmp_path / "out")]) == 2
    assert "learning_rate: cannot read" in capsys.readouterr().err


def test_help_reads_well(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["sweep", "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for words in ("NAME=VALUES", "--stop-early", "Examples:", "the same command"):
        assert words.lower() in text.lower()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES must be a whole number"),
        ({"JAX_PROCESS_ID": "-1"}, "JAX_PROCESS_ID must be a whole number, got '-1'"),
    ],
)
def test_a_bad_variable_of_the_processes_is_named(
    variables, message, monkeypatch, capsys
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main(["sweep", "--distributed", *GRID]) == 2
    assert message in capsys.readouterr().err
