"""A trial that fails is recorded as failed, and the others go on."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import ready

from optjax import sweep
from optjax.sweep._engine.groups import TrialGroup
from optjax.sweep._errors import in_own_code

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

HOW = {
    "steps": 8,
    "evaluate_every": 2,
    "metric": "loss",
    "mode": "min",
    "seeds": 1,
    "strategy": "map",
    "progress": False,
}
RATES = [0.1, 0.2, 0.3, 0.4, 0.5]
# By the rate the update that the host finds wrong.
WRONG = {0.3: 3}


def check(rate, count):
    """What the host finds wrong."""
    # No lane that has a trial does a ninth update.
    if int(count) == WRONG.get(round(float(rate), 2)) or int(count) > 7:
        raise ArithmeticError("the third is not to be")
    return np.float32(0.0)


def init(key, optimizer):
    return {"x": jnp.ones(2), "opt": optimizer.init(jnp.ones(2)), "count": 0}


def step(state, optimizer):
    updates, opt = optimizer.update(state["x"], state["opt"])
    zero = jax.pure_callback(
        check,
        jax.ShapeDtypeStruct((), jnp.float32),
        -updates[0] / state["x"][0],
        state["count"],
        vmap_method="sequential",
    )
    x = state["x"] + updates + zero
    loss = jnp.sum(x**2)
    state = {"x": x, "opt": opt, "count": state["count"] + 1}
    return state, {"loss": loss, "odd": jnp.where(state["count"] > 3, jnp.nan, 1.0)}


def by_rate(result):
    return {r.trial.config.hyper["learning_rate"]: r for r in result.records}


def run(trial=(init, step), space=None, **how):
    space = {"optimizer": "sgd", "learning_rate": RATES} if space is None else space
    return sweep.run(trial, space, **{**HOW, "allow_nan": ("odd",), **how})


@pytest.fixture(scope="module")
def result():
    return run()


def test_the_trial_that_raises_in_a_call_is_the_only_one_that_fails(result):
    failed = by_rate(result)[0.3]
    assert (failed.status, failed.steps) == (sweep.FAILED, 2)
    assert failed.curve.steps == (2,)
    assert failed.message.startswith("ArithmeticError: the third is not to be (")
    lines = Path(__file__).read_text().splitlines()
    line = next(n for n, text in enumerate(lines, 1) if "ArithmeticError(" in text)
    assert failed.message.endswith(f"test_sweep_failures.py, line {line})")
    others = [r for r in result.records if r is not failed]
    assert [r.status for r in others] == [sweep.FINISHED] * 4
    for record in others:
        rate = record.trial.config.hyper["learning_rate"]
        wanted = [2 * (1 - rate) ** (2 * n) for n in range(1, 9)]
        means = np.mean(np.reshape(wanted, (4, 2)), axis=1)
        np.testing.assert_allclose(record.curve.values["loss"], means, rtol=1e-5)


def test_alone_it_fails_again(result):
    failed = result.records[2]
    how = {name: HOW[name] for name in ("steps", "evaluate_every", "metric", "mode")}
    assert sweep.run_alone((init, step), failed.trial, **how) == failed
    with pytest.raises(sweep.SweepError, match="trial 2 failed again: Arithmetic"):
        result.train(failed, steps=8)


def test_the_table_and_the_status_say_so(result, tmp_path):
    result.to_csv(tmp_path / "results.csv")
    text = (tmp_path / "results.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["status"] for row in rows].count("failed") == 1
    (message,) = {row["message"] for row in rows} - {""}
    assert message == by_rate(result)[0.3].message
    assert not by_rate(result)[0.3].has_score
    assert result.best().config.hyper["learning_rate"] == 0.5
    assert (
        "message" not in sweep.SweepResult(result.records[:2], "loss", "min").table[0]
    )
    seen = []
    run(progress=seen.append)
    assert (seen[-1].failed, seen[-1].done, seen[-1].most_steps_left) == (1, 5, 0)


@pytest.mark.parametrize("call_seconds", [0.0, float("inf")])
@pytest.mark.parametrize("stopping", [None, sweep.SuccessiveHalving(4, 2)])
def test_however_long_calls_are(result, call_seconds, stopping, tmp_path):
    """Lanes whose states are lost are brought back to where they were."""
    how = {"call_seconds": call_seconds, "stopping": stopping, "lanes": 4}
    again = run(out=tmp_path, checkpoint_seconds=0.0, **how)
    if stopping is None:
        assert repr(again.records) == repr(result.records)
    assert repr(by_rate(again)[0.3]) == repr(by_rate(result)[0.3])
    # A finished directory knows it without running.
    assert repr(run(out=tmp_path, **how).records) == repr(again.records)
    rows = (tmp_path / "curves.csv").read_text().splitlines()[1:]
    assert len(rows) == sum(len(r.curve.steps) for r in again.records)


@pytest.mark.parametrize("strategy", ["vmap", "chunked"])
def test_only_those_fail_that_raise_where_lanes_run_together(
    strategy, tmp_path, monkeypatch
):
    """The others, and those that come into the lanes after them, have equal digits."""
    how = {"strategy": strategy, "lanes": 4}
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules[__name__], "WRONG", {})
        wanted = by_rate(run(**how))
    wrong = {0.1: 0, 0.3: 3, 0.4: 7}
    monkeypatch.setattr(sys.modules[__name__], "WRONG", wrong)
    seen = []
    results = [
        run(call_seconds=seconds, progress=seen.append, **how)
        for seconds in (0.0, float("inf"))
    ]
    assert repr(results[0].records) == repr(results[1].records)
    assert seen[-1].most_steps_left == 0
    for rate, record in by_rate(results[0]).items():
        if rate not in wrong:
            assert repr(record) == repr(wanted[rate])
            continue
        steps = wrong[rate] // 2 * 2
        assert (record.status, record.steps) == (sweep.FAILED, steps)
        assert record.message.startswith("ArithmeticError: the third is not to be (")
        curve, whole = record.curve.values, wanted[rate].curve.values
        assert repr(curve["loss"]) == repr(whole["loss"][: steps // 2])
    monkeypatch.setattr(sys.modules[__name__], "WRONG", dict.fromkeys(RATES, 1))
    with pytest.raises(sweep.SweepError, match="every trial failed: ArithmeticError"):
        run(**how)


def test_a_trial_that_raises_while_strategies_are_timed_is_met_again(result):
    again = run(strategy="auto", space={"optimizer": "sgd", "learning_rate": RATES})
    assert repr(again.records) == repr(result.records)


def run_to_the_end(out, strategy):
    rule = sweep.SuccessiveHalving(4, 2)
    how = {"strategy": strategy, "stopping": rule, "lanes": 2, "call_seconds": 0.0}
    return run(out=out, checkpoint_seconds=0.0, **how)


@pytest.mark.parametrize(
    ("strategy", "death"), [("map", ("append", 13)), ("vmap", ("commit", 12))]
)
def test_a_failure_survives_kill_9(tmp_path, strategy, death):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    script = (
        "import sweep_worker, test_sweep_failures as tests\n"
        f"sweep_worker.die_at{death}\n"
        f"tests.run_to_the_end({str(killed)!r}, {strategy!r})"
    )
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent), *sys.path])
    dead = subprocess.run(
        [*ready.python(), "-c", script],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert dead.returncode == -signal.SIGKILL, dead.stderr
    for out in (killed, whole):
        run_to_the_end(out, strategy)
    tables = [(out / "results.csv").read_bytes() for out in (killed, whole)]
    assert tables[0] == tables[1]
    assert b"not to be" in tables[0]


def with_width(learning_rate, width=2):
    return optax.chain(
        optax.stateless(lambda g, _: g + jnp.ones(width) * 0.0),
        optax.sgd(learning_rate),
    )


def test_failures_are_read_back_and_more_of_the_same_goes_on(tmp_path):
    """Those of a program that there is not, and those of one trial in a call."""
    space = {"optimizer": "own", "learning_rate": [0.1, 0.3], "width": [2, 3]}
    how = {"factories": {"own": with_width}, "out": tmp_path}
    first = run(space=space, **how)
    statuses = [record.status for record in first.records]
    assert sorted(statuses) == [*3 * [sweep.FAILED], sweep.FINISHED]
    assert repr(sweep.SweepResult.load(tmp_path).records) == repr(first.records)
    again = run(space=space, **how)
    assert again.finished_before
    assert repr(again.records) == repr(first.records)
    more = run(space=space, **how | {"seeds": 2})
    assert repr(more.records[:4]) == repr(first.records)
    assert [record.trial.seed for record in more.records[4:]] == 4 * [1]
    assert repr(sweep.SweepResult.load(tmp_path).records) == repr(more.records)


def test_a_program_that_breaks_the_contract_fails_alone():
    space = {"optimizer": "own", "learning_rate": [0.1], "width": [2, 3]}
    trial = (init, step)
    result = run(trial, space, factories={"own": with_width})
    assert [r.status for r in result.records] == [sweep.FINISHED, sweep.FAILED]
    message = result.records[1].message
    assert message.startswith("step raised TypeError: add got incompatible shapes")
    assert "test_sweep_failures.py, line " in message
    space["width"] = [3, 4]
    with pytest.raises(sweep.SweepError, match=r"trial own\(.*step raised TypeError"):
        run(trial, space, factories={"own": with_width})


def test_a_program_that_cannot_be_compiled_fails_alone(monkeypatch, tmp_path):
    compile_ = TrialGroup.compile

    def failing(group, plan, strategy):
        if group.name == "momentum":
            raise RuntimeError("INTERNAL: no such thing")
        return compile_(group, plan, strategy)

    monkeypatch.setattr(TrialGroup, "compile", failing)
    space = {"optimizer": ["sgd", "momentum", "adam"], "learning_rate": [0.1]}
    told = []
    on_group = lambda name, records: told.append((name, len(records)))  # noqa: E731
    result = run(space=space, out=tmp_path, on_group=on_group)
    statuses = [record.status for record in result.records]
    assert statuses == [sweep.FINISHED, sweep.FAILED, sweep.FINISHED]
    assert result.records[1].message == "RuntimeError: INTERNAL: no such thing"
    assert told == [("sgd", 1), ("momentum", 1), ("adam", 1)]
    assert repr(run(space=space, out=tmp_path).records) == repr(result.records)
    with pytest.raises(sweep.SweepError, match=r"every trial failed: .*no such thing"):
        run(space={**space, "optimizer": "momentum"})


def test_a_strategy_that_runs_out_of_memory_is_followed_by_the_next(
    monkeypatch, tmp_path, result
):
    compile_ = TrialGroup.compile

    def compiling(group, plan, strategy):
        program = compile_(group, plan, strategy)

        def advance(*args):
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 GB")

        return program if strategy == "map" else program._replace(advance=advance)

    monkeypatch.setattr(TrialGroup, "compile", compiling)
    with pytest.warns(UserWarning, match="ran out of memory; (chunked|map) is taken"):
        again = run(strategy="vmap", out=tmp_path)
    assert repr(again.records) == repr(result.records)
    said = json.loads((tmp_path / "sweep" / "progress.json").read_text())
    assert said["lanes"] == [["map", 5]]


def test_a_metric_may_be_nan_by_name():
    with_nan = by_rate(run())[0.1]
    assert np.isnan(with_nan.curve.values["odd"][1:]).all()
    without = run(allow_nan=())
    ends = {r.status for r in without.records}
    assert ends == {sweep.DIVERGED, sweep.FAILED}
    for names, words in (
        ("loss", "allow_nan must not have the metric that ranks, 'loss'"),
        (("even",), "allow_nan must name metrics of the trials, loss, odd, got even"),
    ):
        with pytest.raises(sweep.SweepError, match=words):
            run(allow_nan=names)


def test_a_library_installed_anywhere_is_not_the_users_own_code():
    names = {}
    raises = "def call():\n    raise KeyError"
    exec(compile(raises, "/lib/site-packages/library.py", "exec"), names)
    own = compile("\n\ncall()", "/own.py", "exec")
    with pytest.raises(KeyError) as caught:
        exec(own, names)
    assert in_own_code(caught.value) == " (/own.py, line 3)"
