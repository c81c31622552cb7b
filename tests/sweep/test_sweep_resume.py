"""A sweep that is killed, refused or out of disk loses nothing."""

import signal
import subprocess
from pathlib import Path

import pytest
import ready
from sweep_worker import KEYWORDS, SPACE, init, main, step

from optjax import sweep

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

WORKER = str(Path(__file__).parents[1] / "sweep_worker.py")


def work(out, *dying, **options):
    return subprocess.run(
        [*ready.python(), WORKER, str(out), *map(str, dying)],
        capture_output=True,
        text=True,
        **options,
    )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    out = tmp_path_factory.mktemp("sweep") / "uninterrupted"
    main(out)
    return out


def test_the_sweep_has_every_kind_of_end(uninterrupted):
    results = (uninterrupted / "results.csv").read_text()
    for status in (sweep.FINISHED, sweep.STOPPED, sweep.DIVERGED):
        assert status in results
    assert len(results.splitlines()) == 1 + 2 * 6 * 2


# The moments: measured but not written; written but not committed; states half
# relevant; between the states and the progress that names them; in the second group.
@pytest.mark.parametrize(
    "deaths",
    [
        [("append", 1), ("append", 4)],
        [("save_states", 2), ("commit", 3)],
        [("commit", 1), ("append", 9), ("commit", 2)],
        # Calls of one update: a lane between two evaluations goes on, in long calls.
        [("append", 44, 0.0), ("commit", 4)],
        [("save_states", 78, 0.0), ("commit", 200, 0.0)],
    ],
)
def test_killed_and_resumed_equals_uninterrupted(tmp_path, uninterrupted, deaths):
    out = tmp_path / "killed"
    for death in deaths:
        killed = work(out, *death)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert not (out / "results.csv").exists()
    finished = work(out)
    assert finished.returncode == 0, finished.stderr
    for name in ("results.csv", "curves.csv"):
        assert (out / name).read_bytes() == (uninterrupted / name).read_bytes()


def test_a_torn_last_line_is_measured_again(tmp_path, uninterrupted):
    out = tmp_path / "torn"
    assert work(out, "append", 4).returncode == -signal.SIGKILL
    with (out / "curves.csv").open("a") as file:
        file.write("17,adam,0,3")
    main(out)
    assert (out / "curves.csv").read_bytes() == (
        uninterrupted / "curves.csv"
    ).read_bytes()


def test_running_a_finished_sweep_again_only_reads(uninterrupted):
    before = {path.name: path.stat().st_mtime_ns for path in uninterrupted.iterdir()}
    calls = []

    def counted_step(state, optimizer):
        calls.append(None)
        return step(state, optimizer)

    result = sweep.run((init, counted_step), SPACE, out=uninterrupted, **KEYWORDS)
    assert len(result.records) == 24
    # Two abstract evaluations, one an optimizer, and nothing compiled.
    assert len(calls) == 2
    assert (uninterrupted / "curves.csv").stat().st_mtime_ns == before["curves.csv"]


def test_another_sweep_in_the_directory_is_refused(uninterrupted):
    keywords = {**KEYWORDS, "steps": 180}
    words = "another sweep: steps were 90 and are 180; what SuccessiveHalving.* stops "
    with pytest.raises(sweep.SweepError, match=words):
        sweep.run((init, step), SPACE, out=uninterrupted, **keywords)
    with pytest.raises(
        sweep.SweepError,
        match=r"learning rate was 0\.003, .*, 300 and is 0\.1; choose another out=",
    ):
        sweep.run(
            (init, step),
            {**SPACE, "learning_rate": [0.1]},
            out=uninterrupted,
            **KEYWORDS,
        )


def test_a_second_process_is_refused(tmp_path):
    def meddle(status):
        if status.done == 0 and not refusals:
            refusals.append(work(tmp_path))

    refusals = []
    keywords = {**KEYWORDS, "progress": meddle}
    sweep.run((init, step), SPACE, out=tmp_path, **keywords)
    assert refusals[0].returncode != 0
    assert "another process (pid " in refusals[0].stderr.splitlines()[-1]


# A write past the limit fails as on a full disk, for any one file.
FULL = """
import resource, signal, sys
import jax
from sweep_worker import *
from optjax.sweep._store.store import Store

what, out = sys.argv[1:]
# Its files would be cut too, of which JAX warns.
jax.config.update("jax_enable_compilation_cache", False)

def limit(size):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

def limited(function, size, first=0):
    seen = []
    def at_last(*args, **kwargs):
        seen.append(None)
        if len(seen) > first:
            limit(size)
        return function(*args, **kwargs)
    return at_last

if what == "curves.csv":
    limit(3500)
elif what == "progress.json":
    Store.commit = limited(Store.commit, 20, first=5)
elif what == "sweep":
    Store._begin = limited(Store._begin, 20)
elif what == "states":
    Store.save_states = limited(Store.save_states, 100, first=3)
elif what == "results.csv":
    Store.write_results = limited(Store.write_results, 100)
try:
    sweep.run((init, step), SPACE, out=out, checkpoint_seconds=0.0, **KEYWORDS)
except sweep.SweepError as error:
    sys.exit(str(error))
"""


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("curves.csv", "write curves.csv"),
        ("progress.json", "write progress.json"),
        ("sweep", "write {out}/sweep"),
        ("states", "save the lanes' states"),
        ("results.csv", "write results.csv"),
    ],
)
def test_a_full_disk_ends_in_one_message_and_can_be_resumed(
    tmp_path, uninterrupted, what, words
):
    out = tmp_path / "full"
    full = subprocess.run(
        [*ready.python(), "-c", FULL, what, str(out)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert full.returncode == 1, full.stderr
    (line,) = full.stderr.splitlines()
    words = words.format(out=out)
    assert f"cannot {words} in {out}: File too large. Ev" in line
    if what != "sweep":
        lines = (out / "curves.csv").read_text().splitlines()
        assert lines[0] == "trial,optimizer,seed,step,loss"
        assert len(lines) > 10
    main(out)
    for name in ("results.csv", "curves.csv"):
        assert (out / name).read_bytes() == (uninterrupted / name).read_bytes()


def test_a_deleted_lock_stops_the_first_of_two_processes(tmp_path, uninterrupted):
    def let_another_in(status):
        if status.done and not others:
            (tmp_path / "sweep" / "lock").unlink()
            others.append(work(tmp_path))

    others = []
    keywords = {**KEYWORDS, "progress": let_another_in}
    with pytest.raises(sweep.SweepError, match="lock was deleted while this sweep"):
        sweep.run((init, step), SPACE, out=tmp_path, **keywords)
    assert others[0].returncode == 0, others[0].stderr
    for name in ("results.csv", "curves.csv"):
        assert (tmp_path / name).read_bytes() == (uninterrupted / name).read_bytes()


def test_interrupting_keeps_what_ended(tmp_path):
    def interrupt(status):
        if status.optimizer == "adam":
            raise KeyboardInterrupt

    with pytest.raises(sweep.Interrupted) as caught:
        sweep.run(
            (init, step), SPACE, out=tmp_path, **{**KEYWORDS, "progress": interrupt}
        )
    assert {r.trial.config.optimizer for r in caught.value.result.records} == {
        "momentum"
    }
