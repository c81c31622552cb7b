"""A sweep that is killed, refused or out of disk loses nothing."""

import resource
import signal
import subprocess
from pathlib import Path

import pytest
import ready
from sweep_worker import KEYWORDS, SPACE, init, main, step

from optjax import sweep
from optjax.sweep._store.store import Store

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


@pytest.mark.parametrize(
    "deaths",
    [
        [
            # Nothing is committed, or even measured.
            *[("commit", 1), ("append", 1)],
            # Measured but not written; written but not committed; states half
            # relevant; between the states and the progress that names them.
            *[("append", 4), ("save_states", 2), ("commit", 3)],
            # In the second group.
            *[("append", 9), ("commit", 2)],
        ],
        # Calls of one update: a lane between two evaluations goes on, in long calls.
        [
            *[("append", 44, 0.0), ("save_states", 78, 0.0), ("commit", 200, 0.0)],
            ("commit", 4),
        ],
    ],
)
def test_killed_and_resumed_equals_uninterrupted(tmp_path, uninterrupted, deaths):
    out = tmp_path / "killed"
    for death in deaths:
        killed = work(out, *death)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert not (out / "results.csv").exists()
    main(out)
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


@pytest.fixture
def fill_disk():
    """A write past so many bytes of a file fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    yield fill
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("size", "method", "calls", "words"),
    [
        (3500, "open", 1, "write curves.csv"),
        (20, "commit", 6, "write progress.json"),
        (20, "_begin", 1, "write {out}/sweep"),
        (100, "save_states", 4, "save the lanes' states"),
        (100, "write_results", 1, "write results.csv"),
    ],
)
def test_a_full_disk_ends_in_one_message_and_can_be_resumed(
    tmp_path, uninterrupted, fill_disk, monkeypatch, size, method, calls, words
):
    """From the so-manieth call of a method of the store on."""
    out = tmp_path / "full"

    def limited(*args, **keywords):
        seen.append(None)
        if len(seen) == calls:
            fill_disk(size)
        return function(*args, **keywords)

    seen, function = [], getattr(Store, method)
    with monkeypatch.context() as patch:
        patch.setattr(Store, method, limited)
        with pytest.raises(sweep.SweepError) as caught:
            main(out)
        fill_disk(resource.RLIM_INFINITY)
    (line,) = str(caught.value).splitlines()
    words = words.format(out=out)
    assert f"cannot {words} in {out}: File too large. Ev" in line
    if method != "_begin":
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
