"""A sweep on a real Ray cluster of two nodes, one of which may be lost."""

import collections
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optjax import sweep
from optjax.sweep._store.sealed import read_sealed, write_sealed

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

ray = pytest.importorskip("ray")
Cluster = pytest.importorskip("ray.cluster_utils").Cluster

KEYWORDS = {
    "steps": 30,
    "evaluate_every": 5,
    "metric": "loss",
    "mode": "min",
    "seeds": 2,
    "strategy": "map",
    "lanes": 4,
}
RATES = [0.003, 0.01, 0.1, 300.0]
SPACE = {"optimizer": ["momentum", "adam"], "learning_rate": RATES}
# Two seeds of each, four trials a piece.
CHUNKS = 4


def toy(when_traced=lambda: None):
    """A trial that is sent by value, as the workers cannot import this file."""

    def init(key, optimizer):
        when_traced()
        x = jax.random.normal(key, (3,))
        return x, optimizer.init(x)

    def step(state, optimizer):
        x, opt_state = state
        curvatures = jnp.array([1.0, 10.0, 100.0])
        loss, gradient = jax.value_and_grad(lambda x: jnp.sum(curvatures * x**2))(x)
        updates, opt_state = optimizer.update(gradient, opt_state, x)
        return (optax.apply_updates(x, updates), opt_state), {"loss": loss}

    return init, step


def on_workers(do):
    """A function that does something in every process but this one."""
    here = os.getpid()
    return lambda: None if os.getpid() == here else do()


def leave_marks(directory, until=None):
    """Leave a file for each attempt at a task; but for the first wait for a file."""

    def mark():
        context = ray.get_runtime_context()
        path = Path(directory) / f"{context.get_task_id()}-{os.getpid()}"
        if not path.exists():
            path.touch()
            if until and not is_first():
                while not until.exists():
                    time.sleep(0.05)

    def is_first():
        try:
            directory.with_suffix(".first").mkdir()
        except FileExistsError:
            return False
        return True

    directory.mkdir()
    return on_workers(mark)


def marks(directory):
    return collections.Counter(path.name.split("-")[0] for path in directory.iterdir())


@pytest.fixture(scope="module")
def cluster():
    logging.getLogger("ray").setLevel(logging.ERROR)
    small = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
    # A node that is gone is noticed within some seconds, not half a minute; one that
    # only answers late is not lost.
    health = {"health_check_period_ms": 250, "health_check_failure_threshold": 8}
    head = {"num_cpus": 1, "_system_config": health, **small}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    # First, so that what is lost later is not the node that the driver is at.
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    yield cluster, cluster.add_node(num_cpus=1, **small)
    ray.shutdown()
    cluster.shutdown()


def curves(out):
    """The lines of curves.csv without their order, that in which pieces end."""
    header, *lines = (out / "curves.csv").read_text().splitlines()
    assert header == "trial,optimizer,seed,step,loss"
    return sorted(lines)


class Local(NamedTuple):
    """What the local engine gives."""

    result: sweep.SweepResult
    results: bytes
    curves: list[str]


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    out = tmp_path_factory.mktemp("local")
    result = sweep.run(toy(), SPACE, out=out, progress=False, **KEYWORDS)
    assert {r.status for r in result.records} == {sweep.FINISHED, sweep.DIVERGED}
    counted = {(r.trial.number, step) for r in result.records for step in r.curve.steps}
    # Without what a call measures of a trial after it has diverged.
    lines = [
        line
        for line in curves(out)
        if (int(line.split(",")[0]), int(line.split(",")[3])) in counted
    ]
    assert len(lines) == len(counted)
    return Local(result, (out / "results.csv").read_bytes(), lines)


def run_on_ray(trial, out, progress=False):
    return sweep.run(trial, SPACE, engine="ray", out=out, progress=progress, **KEYWORDS)


def test_the_table_is_that_of_the_local_engine_bit_for_bit(cluster, local, tmp_path):
    seen = []
    result = run_on_ray(toy(), tmp_path, seen.append)
    assert (tmp_path / "results.csv").read_bytes() == local.results
    # The curves too, NaN for NaN.
    assert repr(result.records) == repr(local.result.records)
    assert curves(tmp_path) == local.curves
    assert [status.done for status in seen] == [4, 8, 12, 16]
    assert (seen[-1].running, seen[-1].most_steps_left) == (0, 0)


def test_a_finished_sweep_stays_as_it_is_and_grows(cluster, local, tmp_path):
    run_on_ray(toy(), tmp_path)
    again = run_on_ray(toy(), tmp_path)
    assert again.finished_before
    assert curves(tmp_path) == local.curves
    assert repr(sweep.SweepResult.load(tmp_path).records) == repr(again.records)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(KEYWORDS, "seeds", 3)
        more = run_on_ray(toy(), tmp_path)
        assert run_on_ray(toy(), tmp_path).finished_before
    assert repr(more.records[:16]) == repr(local.result.records)
    assert len(more.records) == 24
    assert repr(sweep.SweepResult.load(tmp_path).records) == repr(more.records)


def test_resuming_runs_the_missing_pieces_only(cluster, local, tmp_path):
    out, first, second = (tmp_path / name for name in ("out", "first", "second"))

    def interrupt(status):
        # They are written as pieces come, before the piece is counted.
        assert len({line.split(",")[0] for line in curves(out)}) == status.done
        if status.done >= 8:
            raise KeyboardInterrupt

    with pytest.raises(sweep.Interrupted) as caught:
        run_on_ray(toy(leave_marks(first)), out, interrupt)
    assert len(caught.value.result.records) == 8
    pieces = (out / "sweep" / "pieces").iterdir()
    before = {path: path.stat().st_mtime_ns for path in pieces}
    assert len(before) == 2
    run_on_ray(toy(leave_marks(second)), out)
    assert list(marks(second).values()) == [1, 1]
    assert (out / "results.csv").read_bytes() == local.results
    assert curves(out) == local.curves
    for path, written in before.items():
        assert path.stat().st_mtime_ns == written


def interrupted_at(done, trial, out):
    def interrupt(status):
        if status.done >= done:
            raise KeyboardInterrupt

    with pytest.raises(sweep.Interrupted):
        run_on_ray(trial, out, interrupt)


def test_a_piece_that_is_not_whole_is_run_again(cluster, local, tmp_path):
    out, second = tmp_path / "out", tmp_path / "second"
    interrupted_at(16, toy(), out)
    first, *others = sorted((out / "sweep" / "pieces").iterdir())
    short = read_sealed(first)
    del short["records"][1]
    cut, garbled, foreign = others
    foreign.write_bytes(first.read_bytes())
    cut.write_bytes(cut.read_bytes()[:-40])
    garbled.write_bytes(b"\xff" + garbled.read_bytes()[1:])
    write_sealed(first, short)
    run_on_ray(toy(leave_marks(second)), out)
    assert list(marks(second).values()) == [1] * CHUNKS
    assert (out / "results.csv").read_bytes() == local.results
    assert curves(out) == local.curves


def test_a_driver_with_other_cores_goes_on(cluster, local, tmp_path, monkeypatch):
    out, second = tmp_path / "out", tmp_path / "second"
    interrupted_at(8, toy(), out)
    devices = jax.local_devices()
    several = (*devices, *devices, *devices)
    monkeypatch.setattr(
        sys.modules["optjax.sweep._run"], "all_devices", lambda: several
    )
    run_on_ray(toy(leave_marks(second)), out)
    assert list(marks(second).values()) == [1, 1]
    assert (out / "results.csv").read_bytes() == local.results


def test_a_trial_that_raises_in_a_call_fails_alone(cluster, tmp_path):
    init, step = toy()

    def check(loss, rate):
        if rate == np.float32(0.01) and loss < 40:
            raise ArithmeticError("not this one")
        return np.float32(0)

    def checked(state, optimizer, rate):
        state, metrics = step(state, optimizer)
        like = jax.ShapeDtypeStruct((), jnp.float32)
        zero = jax.pure_callback(
            check, like, metrics["loss"], rate, vmap_method="sequential"
        )
        return state, {"loss": metrics["loss"] + zero}

    space = {"optimizer": "adam", "learning_rate": 0.1, "rate": RATES[:3]}
    keywords = {**KEYWORDS, "seeds": 1, "progress": False}
    local = sweep.run((init, checked), space, **keywords)
    result = sweep.run((init, checked), space, engine="ray", out=tmp_path, **keywords)
    assert [r.status for r in local.records] == [
        *(sweep.FINISHED, sweep.FAILED, sweep.FINISHED)
    ]
    assert [r.curve for r in result.records] == [r.curve for r in local.records]
    assert result.records[1].message.startswith("ArithmeticError: not this one")
    # What has failed is in the piece, and is read back.
    again = sweep.run((init, checked), space, engine="ray", out=tmp_path, **keywords)
    assert again.finished_before
    assert again.records == result.records
    assert sweep.SweepResult.load(tmp_path).records == result.records


def test_a_piece_that_raises_is_named_in_one_line(cluster, tmp_path):
    def fail():
        raise FileNotFoundError("data.npz\nis on another machine")

    with pytest.raises(sweep.SweepError) as caught:
        run_on_ray(toy(on_workers(fail)), tmp_path)
    (line,) = str(caught.value).splitlines()
    assert line.startswith("piece ")
    assert "(trials " in line
    assert "init raised FileNotFoundError: data.npz" in line
    assert not (tmp_path / "results.csv").exists()


def test_every_trial_ends_once_though_a_node_is_lost(cluster, local, tmp_path):
    cluster, node = cluster
    out, attempts, is_lost = (tmp_path / n for n in ("out", "attempts", "is_lost"))
    lost = []

    def lose_a_node(status):
        if lost:
            return
        # Of four pieces one has ended, so that each of two nodes has one that waits.
        deadline = time.monotonic() + 60
        while len(marks(attempts)) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        lost.append(node)
        cluster.remove_node(node, allow_graceful=False)
        is_lost.touch()

    run_on_ray(toy(leave_marks(attempts, until=is_lost)), out, lose_a_node)
    assert len(lost) == 1
    # One task was tried twice, and still every trial is there once.
    assert sorted(marks(attempts).values()) == [1] * (CHUNKS - 1) + [2]
    assert (out / "results.csv").read_bytes() == local.results
    assert curves(out) == local.curves
    numbers = [
        record["trial"]
        for path in (out / "sweep" / "pieces").iterdir()
        for record in json.loads(path.read_text())["records"]
    ]
    assert sorted(numbers) == list(range(16))
