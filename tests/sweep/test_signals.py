"""Ctrl-C and SIGTERM at any moment: one line, a status, and nothing is lost."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import ready
import signal_worker

from optjax import sweep

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

HERE = Path(__file__).parents[1]
SWEEP = ["sweep", "signal_worker:trial", "--metric", "loss", "--mode", "min"]
SWEEP += ["--optimizers", "sgd", "adam", "--space", "learning_rate=0.01, 0.1"]
SWEEP += ["--seeds", "1", "--steps", "40", "--evaluate-every", "10"]
SWEEP += ["--strategy", "map", "--call-seconds", "0", "--lanes", "2"]

# What the sweep of a process writes, by the library in this one.
KEYWORDS = {
    "steps": 40,
    "evaluate_every": 10,
    "call_seconds": 0.0,
    "metric": "loss",
    "mode": "min",
    "seeds": 1,
    "strategy": "map",
    "checkpoint_seconds": 1e6,
    "progress": False,
}
SPACE = {"optimizer": ["sgd", "adam"], "learning_rate": [0.01, 0.1]}
STATUS = {"SIGINT": 130, "SIGTERM": 143}


def start(program, *arguments, **environment):
    return subprocess.Popen(
        [*ready.python(), *program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=HERE,
        env={**os.environ, "JAX_PLATFORMS": "cpu", **environment},
    )


def start_at(moment, name, *words, **environment):
    """The command line in a process that a signal comes to at a moment."""
    return start((HERE / "signal_worker.py", moment, name), *words, **environment)


def end(process):
    """Its status and its messages, without the log of a sweep that goes well."""
    try:
        _, errors = process.communicate(timeout=300)
    finally:
        process.kill()
    lines = errors.splitlines(keepends=True)
    log = re.compile(r"\w+ \S+ \(learning_rate=\S+\)|.* trials · ")
    return process.returncode, "".join(line for line in lines if not log.match(line))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What an uninterrupted sweep gives, and its tables."""
    out = tmp_path_factory.mktemp("sweep") / "whole"
    result = sweep.run(signal_worker.trial, SPACE, out=out, **KEYWORDS)
    return result, tables(out)


def tables(out):
    """Of curves.csv the lines without their order, which is that of the devices."""
    results, curves = ((out / f"{name}.csv").read_text() for name in TABLES)
    return results, sorted(curves.splitlines())


TABLES = "results", "curves"
GOES_ON = "; the same command goes on"


def test_it_ends_in_one_line_at_any_moment_and_goes_on(tmp_path, whole):
    out = tmp_path / "out"
    command = [*SWEEP, "--checkpoint-seconds", "0", "--out", out]
    for moment, name, line in [
        ("tracing", "SIGINT", "interrupted after 0 trials" + GOES_ON),
        # JAX calls back in every collection, where Python drops an exception.
        ("collecting", "SIGINT", "interrupted"),
        # As SciPy's Sobol points do while they are drawn.
        ("printing", "SIGINT", "interrupted"),
        ("running", "SIGINT", "interrupted after 0 trials" + GOES_ON),
        ("appending", "SIGINT", "interrupted after 0 trials" + GOES_ON),
        ("tracing", "SIGTERM", "terminated after 0 trials" + GOES_ON),
        ("saving", "SIGTERM", "terminated after 0 trials" + GOES_ON),
        # At once, though the main thread would wait for ever.
        ("saving-twice", "SIGINT", "interrupted"),
        ("saving-twice", "SIGTERM", "terminated"),
        # Not at once, but nevertheless.
        ("deaf", "SIGINT", "interrupted"),
        (
            *("between", "SIGINT"),
            f"interrupted after 2 trials, which are in {out / 'results.csv'}{GOES_ON}",
        ),
        ("drawing", "SIGINT", "interrupted"),
        ("ending", "SIGINT", "interrupted"),
    ]:
        ended = end(start_at(moment, name, *command))
        assert ended == (STATUS[name], f"optjax: {line}\n"), moment
    assert end(start_at("never", "SIGINT", *command)) == (0, "")
    assert tables(out) == whole[1]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_it_ends_while_xla_compiles(tmp_path, name):
    words = {"signal_worker:trial": "signal_worker:slow", "map": "auto"}
    command = [*(words.get(word, word) for word in SWEEP), "--out", tmp_path / "out"]
    process = start_at("compiling", name, *command, XLA_FLAGS="")
    os.kill(int(process.stdout.readline()), getattr(signal, name))
    words = {"SIGINT": "interrupted", "SIGTERM": "terminated"}[name]
    line = f"optjax: {words} after 0 trials{GOES_ON}\n"
    assert end(process) == (STATUS[name], line)


def test_a_script_catches_it_while_xla_compiles_and_ends_well():
    script = (
        "import signal, jax, signal_worker as w; from optjax import sweep\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "w.MOMENTS['compiling']()\n"
        "try:\n"
        "    sweep.run((w.init, w.slow_to_compile), {'optimizer': ['sgd'],"
        " 'learning_rate': [.1]}, steps=1, evaluate_every=1, metric='loss',"
        " mode='min')\n"
        "except sweep.Interrupted as stopped:\n"
        "    print(len(stopped.result.records), stopped.signal)\n"
    )
    process = start(("-c", script), XLA_FLAGS="")
    os.kill(int(process.stdout.readline()), signal.SIGINT)
    assert process.stdout.readline() == f"0 {signal.SIGINT:d}\n"
    assert end(process) == (0, "")


def test_it_ends_while_jax_is_imported(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Finder:\n"
        "    def find_spec(self, name, *args):\n"
        "        if name == 'jax._src.api':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    path = os.pathsep.join([str(tmp_path), str(HERE.parent)])
    done = subprocess.run(
        [sys.executable, "-m", "optjax", "list"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "optjax: interrupted\n"


@pytest.fixture
def own_handlers(monkeypatch):
    """Python's own, whatever this process was started with."""
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def sending(number, at):
    def progress(status):
        seen.append(status)
        if len(seen) == at:
            os.kill(os.getpid(), number)

    seen = []
    return progress


@pytest.mark.usefixtures("own_handlers")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_library_raises_and_gives_the_signals_back(tmp_path, whole, number):
    keywords = {**KEYWORDS, "progress": sending(number, at=3)}
    with pytest.raises(sweep.Interrupted) as caught:
        sweep.run(signal_worker.trial, SPACE, out=tmp_path, **keywords)
    assert caught.value.signal == number
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    progress = json.loads((tmp_path / "sweep" / "progress.json").read_text())
    # Of three calls, one more than had been reported.
    assert progress["calls"] == (3 if number == signal.SIGTERM else 0)
    assert bool(progress["states"]) == (number == signal.SIGTERM)
    again = sweep.run(signal_worker.trial, SPACE, out=tmp_path, **KEYWORDS)
    assert repr(again.records) == repr(whole[0].records)


@pytest.mark.usefixtures("own_handlers")
def test_a_signal_at_the_very_end_is_not_lost():
    def on_group(name, records):
        if name == "adam":
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(sweep.Interrupted) as caught:
        sweep.run(signal_worker.trial, SPACE, on_group=on_group, **KEYWORDS)
    assert len(caught.value.result.records) == 4


@pytest.mark.usefixtures("own_handlers")
def test_a_handler_of_the_programs_own_stays():
    heard = []
    signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    keywords = {**KEYWORDS, "progress": sending(signal.SIGTERM, at=2)}
    sweep.run(signal_worker.trial, SPACE, **keywords)
    assert heard == [signal.SIGTERM]
