"""A distributed sweep that is asked to end, or loses a process: one line in each."""

import json
import os
import signal
import sys
import time

import pytest
from processes import pair
from test_signals import GOES_ON, HERE, SWEEP, end, start, tables

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

COMMAND = [*SWEEP, "--checkpoint-seconds", "1000", "--distributed", "--out"]


def both(processes):
    """Their statuses and messages."""
    return [end(process) for process in processes]


def pair_at(moments, name, out):
    """Two processes, each of which is sent a signal at a moment of its own."""
    return pair(
        lambda port, rank: (
            HERE / "signal_worker.py",
            moments.get(rank, "never"),
            name,
            *COMMAND,
            out,
        ),
        cwd=HERE,
    )


@pytest.fixture(scope="module")
def by_one(tmp_path_factory):
    out = tmp_path_factory.mktemp("sweep") / "one"
    code, errors = end(start("never", "SIGINT", *SWEEP, "--out", out))
    assert (code, errors) == (0, "")
    return whole(out)


def whole(out):
    """The tables; trials are in other lanes, so that curves.csv has another order."""
    results, curves = tables(out)
    return results, sorted(curves.splitlines())


@pytest.mark.parametrize(
    ("rank", "name", "status", "word"),
    [
        (0, "SIGINT", 130, "interrupted"),
        (0, "SIGTERM", 143, "terminated"),
        (1, "SIGTERM", 143, "terminated"),
    ],
)
def test_a_signal_for_one_ends_all_at_the_same_call(
    tmp_path, by_one, rank, name, status, word
):
    with pair_at({rank: "running"}, name, tmp_path) as processes:
        line = f"optjax: {word} after 0 trials{GOES_ON}\n"
        assert both(processes) == [(status, line)] * 2
    progress = json.loads((tmp_path / "sweep" / "progress.json").read_text())
    saved = name == "SIGTERM"
    assert (progress["calls"], bool(progress["states"])) == (3 if saved else 0, saved)
    if saved:
        # One process goes on where it has two devices too, and else says why not.
        code, errors = end(start("never", name, *SWEEP, "--out", tmp_path))
        assert code == (0 if os.cpu_count() == 2 else 2)
        assert ("devices" in errors) == (code == 2)
    with pair_at({}, name, tmp_path) as processes:
        assert both(processes) == [(0, "")] * 2
    assert whole(tmp_path) == by_one


@pytest.mark.parametrize("killed", [0, 1])
def test_where_one_is_killed_the_other_says_so_in_one_line(tmp_path, killed):
    command = ["100000000" if word == "40" else word for word in COMMAND]
    command.append(tmp_path)
    words = "-m", "optjax", *command
    python = [sys.executable]
    with pair(lambda port, rank: words, python, cwd=HERE) as processes:
        curves = tmp_path / "curves.csv"
        while not (curves.exists() and len(curves.read_text().splitlines()) > 10):
            assert [process.poll() for process in processes] == [None, None]
            time.sleep(0.05)
        processes[killed].kill()
        status, errors = end(processes[1 - killed])
    assert status == 3, errors
    assert errors == (
        f"optjax: process {killed} is gone; what was measured until the last "
        "checkpoint is kept, and the same command in every process goes on\n"
    )
    assert processes[killed].returncode == -signal.SIGKILL
