"""A distributed sweep that is asked to end, or loses a process: one line in each."""

import json
import os
import shutil
import signal
import subprocess
import time

import pytest
import signal_worker
from processes import pair
from test_signals import (
    GOES_ON,
    HERE,
    KEYWORDS,
    STATUS,
    SWEEP,
    end,
    start_at,
    tables,
)

from optjax import sweep

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

# Of one optimizer, a program less in every process.
SPACE = {"optimizer": ["sgd"], "learning_rate": [0.01, 0.1]}
ALONE = [word for word in SWEEP if word != "adam"]
COMMAND = [*ALONE, "--checkpoint-seconds", "1000", "--distributed", "--out"]


def both(processes):
    """Their statuses and messages."""
    return [end(process) for process in processes]


def pair_at(moments, name, out, **options):
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
        **options,
    )


def test_a_signal_for_one_ends_all_at_the_same_call_and_they_go_on(tmp_path):
    out, calls = tmp_path / "out", 0
    for rank, name, word in [
        (0, "SIGINT", "interrupted"),
        (0, "SIGTERM", "terminated"),
        (1, "SIGTERM", "terminated"),
    ]:
        with pair_at({rank: "running"}, name, out) as processes:
            line = f"optjax: {word} after 0 trials{GOES_ON}\n"
            assert both(processes) == [(STATUS[name], line)] * 2
        progress = json.loads((out / "sweep" / "progress.json").read_text())
        calls += 3 * (name == "SIGTERM")
        assert (progress["calls"], bool(progress["states"])) == (calls, calls > 0)
    # One process goes on where it has two devices too, and else says why not.
    alone = shutil.copytree(out, tmp_path / "alone")
    code, errors = end(start_at("never", name, *ALONE, "--out", alone))
    assert code == (0 if os.cpu_count() == 2 else 2)
    assert ("devices" in errors) == (code == 2)
    with pair_at({}, name, out, stdout=subprocess.PIPE) as processes:
        assert both(processes) == [(0, "")] * 2
        printed = [process.communicate()[0] for process in processes]
    assert [str(out / "results.csv") in text for text in printed] == [True, False]
    whole = tmp_path / "whole"
    sweep.run(signal_worker.trial, SPACE, out=whole, **KEYWORDS)
    for each in [out, *[alone] * (code == 0)]:
        assert tables(each) == tables(whole)


@pytest.mark.parametrize("killed", [0, 1])
def test_where_one_is_killed_the_other_says_so_in_one_line(tmp_path, killed):
    command = ["100000000" if word == "40" else word for word in COMMAND]
    command.append(tmp_path)
    start = {
        killed: ("-c", "from optjax._cli.main import command; command()"),
        # JAX's C++ keeps quiet by what is read when it is imported.
        1 - killed: ("-m", "optjax"),
    }
    with pair(
        lambda port, rank: (*start[rank], *command), 1 - killed, cwd=HERE
    ) as processes:
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
