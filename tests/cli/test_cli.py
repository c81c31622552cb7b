"""The command line: help, list, version; every bad argument ends in one line."""

import io
import os
import re
import signal
import subprocess
import sys

import processes
import pytest
import ready

import optjax
from optjax._cli.main import main
from optjax._cli.words import in_shell_words, parser_fault

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

# As on a narrow terminal.
WIDTH = {"COLUMNS": "80"}
# `optjax`, for `python -c`.
COMMAND = "from optjax._cli.main import command; command()"


def run(*command):
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **processes.ENVIRONMENT, **WIDTH},
        check=False,
    )


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", WIDTH["COLUMNS"])


@pytest.fixture
def no_work(monkeypatch):
    """Fail if a race starts."""

    def fail(*_):
        raise AssertionError("work has started")

    monkeypatch.setattr("optjax.sweep._engine.groups.compile_lanes", fail)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("rac", "unknown command 'rac'; did you mean race?"),
        ("zzz", "unknown command 'zzz'; see optjax --help"),
        ("--foo", "unknown command '--foo'"),
        ("race --optimizers adm", "there is no optimizer 'adm'; did you mean adam"),
        ("race --optimizers", "--optimizers needs a name, such as adam"),
        ("race --task digit", "unknown task 'digit'; did you mean digits?"),
        ("race --learning-rates -1", "finite and >= 0, got -1.0"),
        ("race --learning-rates 0.1 nan", "learning_rate=nan of sgd: must be a number"),
        ("race --learning-rates", "needs at least one value, got none"),
        ("race --learning-rates 0.1 fast", "--learning-rates"),
        ("race --seeds 0", "--seeds must be a whole number >= 1, got 0"),
        ("race --seeds 1.5", "--seeds"),
        ("race --seeds", "--seeds"),
        ("race --step 3", "did you mean --steps?"),
        ("race adam", "adam"),
        ("race --steps 15", "--evaluate-every 10 must divide --steps 15"),
        ("race --out=", "--out needs a value that is not empty"),
        ("race --optimizers sgd --out {file}", "cannot write to the directory"),
        ("race --optimizers sgd --out {file}/below", "cannot write to the directory"),
        ("list --all", "--all"),
    ],
)
def test_bad_argument_is_one_line_and_status_2(
    line, message, no_work, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    args = [word.format(file=tmp_path / "file") for word in line.split()]
    assert main(args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"optjax: [^\n]+\n", err)
    assert message in err
    # Not even the directory of the default has been made.
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def a_command(task: str = "", seeds: int | None = None):
    """Some arguments."""


def test_both_of_the_boxes_that_errors_come_in_are_read():
    line = parser_fault(
        a_command,
        ["--seed", "1"],
        """\
╭─ Unrecognized options ────────────────────╮
│ Unrecognized options: --seed,             │
│ 1                                         │
│ ───────────────────────────────────────── │
│ Perhaps you meant:                        │
│     --seeds INT                           │
╰───────────────────────────────────────────╯
""",
    )
    assert line == "unknown argument --seed, 1; did you mean --seeds?"
    line = parser_fault(
        a_command,
        ["--task"],
        """\
 Missing argument
 ------------------------------------
  Missing value for argument '--task'.
  ------------------------------------
  For full helptext, run optjax --help
""",
    )
    assert line == "--task needs a value"
    assert parser_fault(a_command, [], "") == "the arguments cannot be read"


def test_a_terminal_without_unicode_is_no_error(monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    assert main(["list"]) == 0
    terminal.seek(0)
    text = terminal.read()
    assert "adabound" in text
    assert "x[t+1] = x[t] ? s_t ? V_t ? m_t" in text


def test_no_command_prints_the_usage(capsys):
    assert main([]) == 2
    assert "usage: optjax" in capsys.readouterr().out
    assert main(["--help"]) == 0
    assert "usage: optjax" in capsys.readouterr().out


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"optjax {optjax.__version__}\n"


def test_race_help_describes_every_flag_with_its_default(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["race", "--help"])
    assert stop.value.code == 0
    text = " ".join(re.sub("[│╭╮╰╯─]", " ", capsys.readouterr().out).split())
    for flag, default in {
        "--task": "digits",
        "--optimizers": "all, or the recipe's",
        "--learning-rates": "half decades from 1e-4 to 10, or the recipe's for each "
        "optimizer",
        "--seeds": "3, or 1 where trials are long",
        "--first-seed": "0",
        "--steps": "300, or all epochs",
        "--evaluate-every": "10, or an epoch",
        "--epochs": "the recipe's",
        "--dtype": "float32",
        "--out": "a new one, runs/race-TASK-1, then -2; or the newest, where it is of "
        "this race and not finished",
    }.items():
        # The flag, its help, its default, and no other flag in between.
        assert re.search(
            rf" {flag} [A-Z. ]+ [A-Z](?:(?! --).)+\(default: {re.escape(default)}\)",
            text,
        ), flag
    assert "optjax race --optimizers sgd adam adabound" in text


@pytest.mark.parametrize("width", ["80", "120"])
def test_list_shows_every_row(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", width)
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert "x[t+1] = x[t] − s_t · V_t ⊙ m_t" in out
    first_words = [line.split()[0] for line in out.splitlines() if line.split()]
    assert [w for w in first_words if w in optjax.OPTIMIZERS] == list(optjax.OPTIMIZERS)
    # Nothing is cut off: every word of the table is there.
    assert "…" not in out
    for row in optjax.OPTIMIZERS.values():
        for word in f"{row.direction} {row.bound} {row.paper}".split():
            assert word in out
    assert ("schedule" in out) is (width == "120")


def test_help_and_list_load_no_heavy_library():
    code = """
import sys
from optjax._cli.main import main
assert main(["list"]) == 0
try:
    main(["race", "--help"])
except SystemExit:
    pass
heavy = {"flax", "matplotlib", "sklearn", "scipy.stats"} & set(sys.modules)
print("heavy:", sorted(heavy))
"""
    done = run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "heavy: []"


def test_a_missing_extra_is_one_line_and_status_2(tmp_path):
    """Each in a fork of a process that has imported what all of them need."""
    commands = {
        "flax": "race",
        "matplotlib": "race",
        "sklearn": "race",
        "tyro": "race",
        "rich": "list",
    }
    code = f"""
import os, sys
from optjax._cli.main import main
for package, command in {commands!r}.items():
    if not (process := os.fork()):
        sys.modules[package] = None
        out = ["--out", {str(tmp_path)!r}] * (command == "race")
        status = main([command, *out])
        sys.stdout.flush()
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 2, package
"""
    done = run(sys.executable, "-c", code)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert done.stderr.splitlines() == [
        f"optjax: the package {package} is missing; run: pip install 'optjax[race]'"
        for package in commands
    ]
    assert list(tmp_path.iterdir()) == []


def test_bad_argument_in_a_process_of_its_own():
    words = "race --optimizers sgd --learning-rates -1"
    done = run(*ready.python(), "-c", COMMAND, *words.split())
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "optjax: learning_rate=-1.0 of sgd: learning_rate must be a schedule or "
        "finite and >= 0, got -1.0. The update subtracts learning_rate times the "
        "direction, so a positive value descends.\n"
    )


def test_a_race_from_the_command_line(tmp_path):
    words = "race --task signal_worker:trial --metric loss --mode min --optimizers sgd"
    words += " --learning-rates 0.1 --seeds 1 --steps 20 --out"
    out = tmp_path / "new" / "run"
    done = run(sys.executable, "-m", "optjax", *words.split(), str(out))
    assert done.returncode == 0, done.stderr
    assert re.search(r"^1 sgd ", done.stdout, re.MULTILINE)
    assert str(out / "results.csv") in done.stdout
    assert sorted(path.name for path in out.iterdir()) == [
        *("curves.csv", "curves.png", "ranking.png", "report.html", "results.csv"),
        "sweep",
    ]
    assert len(done.stderr.splitlines()) == 1


def test_interrupt_is_one_line_and_status_130(tmp_path):
    words = "race --optimizers sgd adam adabound yogi --learning-rates 1e-4 --seeds 1"
    # Where the tests run in the background SIGINT is ignored, and inherited so.
    program = (
        "import os, signal; print(os.getpid(), flush=True)\n"
        f"signal.signal(signal.SIGINT, signal.default_int_handler)\n{COMMAND}"
    )
    process = subprocess.Popen(
        [*ready.python(), "-c", program, *words.split(), "--out", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **WIDTH},
    )
    try:
        number = int(process.stdout.readline())
        # The first line of progress says that one optimizer is done.
        first = process.stderr.readline()
        os.kill(number, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert first.startswith("sgd ")
    assert process.returncode == 130
    assert out == ""
    assert err.splitlines()[-1].startswith("optjax: interrupted after ")
    assert "Traceback" not in err
    rows = (tmp_path / "results.csv").read_text().splitlines()
    assert rows[0].startswith("trial,optimizer,learning_rate,seed,status")
    assert rows[1].startswith("0,sgd,0.0001,0,")


def test_a_value_in_quotes_follows_its_flag():
    said = in_shell_words("of 2 not kept (keep='all'): another out= (--out)", ["keep"])
    assert said == "of 2 not kept (--keep 'all'): another out= (--out)"
