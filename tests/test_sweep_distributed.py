"""A sweep shared by two processes: the table of one, and nothing lost with a peer.

As a script, one of the processes:

    python test_sweep_distributed.py OUT PORT RANK [POINT COUNT]
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys

import jax
import pytest
import sweep_worker

from optjax import sweep

ENVIRONMENT = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}


def take_part(out, port, rank, *dying):
    jax.config.update("jax_num_cpu_devices", 1)
    jax.distributed.initialize(
        f"127.0.0.1:{port}", 2, int(rank), heartbeat_timeout_seconds=10
    )
    sweep_worker.main(out, *dying)


@contextlib.contextmanager
def pair(out, dying=None):
    """Two processes sharing a sweep; both are dead at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                __file__,
                *map(str, (out, port, rank, *(dying or {}).get(rank, ()))),
            ],
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            # JAX catches SIGTERM.
            process.kill()
            process.communicate()


def run_pair(out):
    with pair(out) as processes:
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


def test_killed_and_started_again_they_resume(tmp_path, by_one):
    # The first process writes, the second only computes.
    for rank, dying in ((0, ("save_states", 3)), (1, ("append", 4))):
        with pair(tmp_path, {rank: dying}) as processes:
            assert processes[rank].wait(timeout=120) == -signal.SIGKILL
            # The other cannot go on and aborts.
            assert processes[1 - rank].wait(timeout=120) != 0
        progress = json.loads((tmp_path / "progress.json").read_text())
        assert (tmp_path / progress["states"]).is_dir()
        assert not (tmp_path / "results.csv").exists()
    run_pair(tmp_path)
    assert tables(tmp_path) == by_one


if __name__ == "__main__":
    take_part(*sys.argv[1:])
