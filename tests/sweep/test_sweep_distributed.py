"""A sweep shared by two processes: the table of one, and nothing lost with a peer.

As a script, one of the processes:

    python test_sweep_distributed.py OUT PORT RANK [POINT COUNT]

POINT is one of sweep_worker's, or full: the disk has no room for the COUNT-th call's
evaluations.
"""

import fcntl
import json
import resource
import signal
import sys

import jax
import pytest
import sweep_worker
from processes import pair

from optjax import sweep
from optjax.sweep._store.store import Store

pytestmark = pytest.mark.usefixtures("cheaply_compiled")


def fill_disk_at(count):
    append, calls = Store.append, []

    def appending(self, *args, **keywords):
        calls.append(None)
        if len(calls) == count:
            # A write past the limit fails as on a full disk.
            size = (self.directory / "curves.csv").stat().st_size
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, size + 10))
        append(self, *args, **keywords)

    Store.append = appending


def take_part(out, port, rank, *dying):
    if dying and dying[0] == "full":
        fill_disk_at(int(dying[1]))
        dying = ()
    jax.config.update("jax_num_cpu_devices", 1)
    jax.distributed.initialize(
        f"127.0.0.1:{port}", 2, int(rank), heartbeat_timeout_seconds=4
    )
    sweep_worker.main(out, *dying)


def sharing(out, dying=None):
    """Two processes sharing a sweep."""
    return pair(
        lambda port, rank: (__file__, out, port, rank, *(dying or {}).get(rank, ()))
    )


def run_pair(out):
    with sharing(out) as processes:
        for process in processes:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors


def tables(out):
    """results.csv, and the lines of curves.csv without their order.

    Trials are dealt to the devices in turn, so with two they are in other lanes.
    """
    results, curves = (
        (out / f"{name}.csv").read_text() for name in ("results", "curves")
    )
    return results, sorted(curves.splitlines())


@pytest.fixture(scope="module")
def by_one(tmp_path_factory):
    """The tables of one process with one device."""
    out = tmp_path_factory.mktemp("sweep") / "one"
    sweep_worker.main(out)
    return tables(out)


def test_two_processes_give_the_table_of_one(tmp_path, by_one):
    for status in (sweep.FINISHED, sweep.STOPPED, sweep.DIVERGED):
        assert status in by_one[0]
    run_pair(tmp_path)
    assert tables(tmp_path) == by_one


def failures(out, dying=None):
    """The last lines of two processes that end by an error and not by JAX's timeout."""
    with sharing(out, dying) as processes:
        errors = [process.communicate(timeout=120)[1] for process in processes]
        assert [process.returncode for process in processes] == [1, 1], errors
        return [text.strip().splitlines()[-1] for text in errors]


def test_where_the_directory_is_in_use_both_end(tmp_path):
    own = tmp_path / "sweep"
    own.mkdir()
    with (own / "lock").open("w") as lock:
        lock.write("12345")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        first, second = failures(tmp_path)
    message = f"another process (pid 12345) is running a sweep in {tmp_path}; "
    assert f"RefusedError: {message}" in first
    assert f"SweepError: process 0 has failed: {message}" in second
    assert [path.name for path in own.iterdir()] == ["lock"]


def test_where_the_disk_is_full_or_one_is_killed_they_can_be_started_again(
    tmp_path, by_one
):
    first, second = failures(tmp_path, {0: ("full", 3)})
    assert f"NotWrittenError: cannot write curves.csv in {tmp_path}: File too" in first
    assert "SweepError: process 0 has failed: cannot write curves.csv in" in second
    # The first process writes, the second only computes.
    for rank, dying in ((0, ("save_states", 3)), (1, ("append", 4))):
        with sharing(tmp_path, {rank: dying}) as processes:
            assert processes[rank].wait(timeout=120) == -signal.SIGKILL
            # The other cannot go on and aborts.
            assert processes[1 - rank].wait(timeout=120) != 0
        own = tmp_path / "sweep"
        progress = json.loads((own / "progress.json").read_text())
        assert progress["states"]
        assert all((own / "states" / name).is_file() for name in progress["states"])
        assert not (tmp_path / "results.csv").exists()
    run_pair(tmp_path)
    assert tables(tmp_path) == by_one


if __name__ == "__main__":
    take_part(*sys.argv[1:])
