"""A sweep that is killed, refused or out of disk loses nothing."""

import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sweep_worker import KEYWORDS, SPACE, init, main, step

from optjax import sweep

WORKER = str(Path(__file__).parent / "sweep_worker.py")


def work(out, *dying, **options):
    return subprocess.run(
        [sys.executable, WORKER, str(out), *map(str, dying)],
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
    ],
)
def test_killed_and_resumed_equals_uninterrupted(tmp_path, uninterrupted, deaths):
    out = tmp_path / "killed"
    for point, count in deaths:
        killed = work(out, point, count)
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
    with pytest.raises(
        sweep.SweepError, match="another sweep: steps were 90 and are 180; cho"
    ):
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


def test_a_full_disk_ends_in_one_message_and_can_be_resumed(tmp_path, uninterrupted):
    def limit_file_size():
        # A write past the limit fails as on a full disk, for any one file.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))

    out = tmp_path / "full"
    # Without states, which are larger than the limit.
    script = (
        "from sweep_worker import *; sweep.run((init, step), SPACE, "
        f"out={str(out)!r}, **KEYWORDS)"
    )
    full = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parent,
        preexec_fn=limit_file_size,
        capture_output=True,
        text=True,
    )
    assert full.returncode == 1
    last = full.stderr.strip().splitlines()[-1]
    assert "NotWrittenError: cannot write curves.csv in" in last
    assert "readable" in last
    lines = (out / "curves.csv").read_text().splitlines()
    assert lines[0] == "trial,optimizer,seed,step,loss"
    assert len(lines) > 10
    main(out)
    assert (out / "results.csv").read_bytes() == (
        uninterrupted / "results.csv"
    ).read_bytes()


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
