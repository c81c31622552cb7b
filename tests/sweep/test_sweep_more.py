"""Winners' weights, sweeps that are read back, and more of the same sweep."""

import dataclasses
import doctest
import importlib
import json
import pickle
import shutil

import jax
import numpy as np
import pytest
from sweep_worker import KEYWORDS, SPACE, init, step

from optjax import sweep
from optjax.sweep import SweepError
from optjax.sweep._engine import training
from optjax.sweep._errors import DamagedError
from optjax.sweep._store.keep import read_state

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

RULELESS = {**KEYWORDS, "stopping": None}
SMALL = {"optimizer": "adam", "learning_rate": [0.01, 0.1]}


def same_leaves(got, want):
    got, want = map(jax.tree_util.tree_leaves_with_path, (got, want))
    assert [path for path, _ in got] == [path for path, _ in want]
    for (_, a), (_, b) in zip(got, want, strict=True):
        assert a.dtype == b.dtype
        if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A sweep with every kind of end, with the two best trials' states."""
    out = tmp_path_factory.mktemp("kept") / "sweep"
    return out, sweep.run((init, step), SPACE, out=out, keep=2, **KEYWORDS)


def test_the_winner_trained_again_is_the_sweeps_to_the_last_bit(kept):
    _, result = kept
    ranked = sorted(result.records, key=lambda r: (result.score(r), r.trial.number))
    assert [*result.kept] == sorted(r.trial.number for r in ranked[:2])
    for record in ranked[:2]:
        same_leaves(result.train(record), result.restore(record))
    best = result.best()
    top = min(best.records, key=result.score)
    same_leaves(result.train(best), result.train(top.trial))
    # It is the state that `step` knows, and goes on.
    state = result.train(best)
    assert set(state) == {"x", "opt_state", "key", "empty"}
    # To the best value on the curve, and no further.
    early = result.train(top, steps=5)
    assert not np.array_equal(early["x"], state["x"])
    assert result.train(top, steps=top.steps)["x"].tolist() == state["x"].tolist()


def test_a_longer_training_goes_on_from_the_kept_state(kept, monkeypatch):
    _, result = kept
    record = result.records[next(iter(result.kept))]
    assert record.steps == 90
    whole = dataclasses.replace(result, kept={}).train(record, steps=120)
    updates = []
    train_alone = training.train_alone

    def counted(make_trial, factories, spec, plan, state):
        updates.append(plan.steps)
        return train_alone(make_trial, factories, spec, plan, state)

    monkeypatch.setattr(training, "train_alone", counted)
    same_leaves(result.train(record, steps=120), whole)
    assert updates == [30]


def test_a_state_that_is_not_there_is_refused(kept, tmp_path):
    _, result = kept
    worst = result.configurations()[-1]
    with pytest.raises(SweepError, match=r"trial .* is not here: .* was kept; train"):
        result.restore(worst)
    with pytest.raises(SweepError, match="multiple of evaluate_every=5"):
        result.train(worst, steps=7)
    for steps in (5.0, 0):
        with pytest.raises(SweepError, match="steps must be an integer >= 1"):
            result.train(worst, steps=steps)
    other = sweep.TrialSpec(99, sweep.Config("lion", {}, {}), 0)
    with pytest.raises(SweepError, match="the sweep has no optimizer 'lion'"):
        result.train(other)
    with pytest.raises(SweepError, match="must be a Best, a Record"):
        result.train("best")
    with pytest.raises(SweepError, match="keep= needs a directory"):
        sweep.run((init, step), SPACE, keep="best", **KEYWORDS)
    with pytest.raises(SweepError, match="keep"):
        sweep.run((init, step), SPACE, keep="some", out=tmp_path / "x", **KEYWORDS)


def test_a_kept_state_is_that_of_the_trial_or_refused(kept, tmp_path):
    path = next(iter(kept[1].kept.values()))
    shapes = jax.eval_shape(lambda: {"x": np.zeros((7, 7), np.float32)})
    with pytest.raises(DamagedError, match=r"kept.* is damaged: it has no \['y'\]"):
        read_state(path, {"y": shapes["x"]})
    with pytest.raises(
        DamagedError, match=r"its \['x'\] has the shape .*, not \(7, 7\)"
    ):
        read_state(path, shapes)
    for name, left in [("cut", b""), ("torn", b"{")]:
        copy = shutil.copytree(path, tmp_path / name)
        for file in copy.rglob("*"):
            if file.is_file():
                file.write_bytes(left)
        with pytest.raises(DamagedError, match=f"{name} is damaged: Expecting"):
            read_state(copy, shapes)


def test_a_sweep_is_read_back_as_it_was(kept):
    out, result = kept
    loaded = sweep.SweepResult.load(out)
    assert loaded == dataclasses.replace(result, finished_before=True)
    assert loaded.records == result.records
    assert loaded.about == result.about
    assert loaded.kept.keys() == result.kept.keys()
    assert loaded.table == result.table
    with pytest.raises(SweepError, match="no code to train"):
        loaded.train(loaded.best())
    # Orbax alone gives the leaves by their paths.
    orbax = pytest.importorskip("orbax.checkpoint")
    (number, path), *_ = loaded.kept.items()
    record = result.records[number]
    with orbax.PyTreeCheckpointer() as checkpointer:
        leaves = checkpointer.restore(path.absolute())
    state = result.train(record)
    np.testing.assert_array_equal(leaves["['x']"], state["x"])
    assert pickle.loads(pickle.dumps(result)) == result


def test_tables_are_joined_by_trial(kept):
    pandas = pytest.importorskip("pandas")
    out, result = kept
    curves = pandas.read_csv(out / "curves.csv")
    trials = pandas.read_csv(out / "results.csv")
    best = curves.groupby("trial").loss.min()
    joined = trials.join(best, on="trial").dropna()
    assert len(joined) == sum(r.status != sweep.DIVERGED for r in result.records)
    np.testing.assert_allclose(joined.loss, joined.loss_best, rtol=1e-7)
    assert (out / "sweep" / "sweep.json").exists()


def test_what_was_never_a_sweep_is_not_read(tmp_path):
    with pytest.raises(SweepError, match="holds no sweep"):
        sweep.SweepResult.load(tmp_path)


def without_number(record):
    (config, seed), curve = record.trial[1:], record.curve
    return (config.optimizer, *config.hyper.items(), seed, curve.values["loss"])


def curves_of(out):
    return (out / "curves.csv").read_text().splitlines()


@pytest.mark.parametrize(
    ("more", "new"),
    [
        ({"seeds": 3}, 2),
        ({"space": {**SMALL, "learning_rate": [0.03, 0.1, 0.01]}}, 2),
        ({"space": {**SMALL, "optimizer": ["sgd", "adam"]}}, 4),
    ],
)
def test_only_what_is_new_is_run(tmp_path, more, new):
    steps = []

    def run(out, *, space=SMALL, **options):
        def watch(status):
            steps.append(status.steps)

        keywords = {**RULELESS, "progress": watch, **options}
        return sweep.run((init, step), space, out=out, **keywords)

    first = run(tmp_path)
    before = curves_of(tmp_path)
    steps.clear()
    second = run(tmp_path, **more)
    assert curves_of(tmp_path)[: len(before)] == before
    assert second.records[: len(first.records)] == first.records
    assert len(second.records) == len(first.records) + new
    assert 0 < max(steps) <= new * 90
    assert not second.finished_before
    # As in a directory of its own, but for the numbers.
    alone = run(tmp_path / "alone", **more)
    assert sorted(map(without_number, second.records)) == sorted(
        map(without_number, alone.records)
    )
    again = run(tmp_path, **more)
    assert again.finished_before
    assert again == sweep.SweepResult.load(tmp_path)
    # What was there is still compared.
    with pytest.raises(SweepError, match="another sweep"):
        run(tmp_path)


def test_more_of_a_changed_sweep_is_refused(tmp_path):
    sweep.run((init, step), SMALL, out=tmp_path, **RULELESS)

    def other(state, optimizer):
        state, metrics = step(state, optimizer)
        return state, {"loss": 2 * metrics["loss"]}

    keywords = {**RULELESS, "seeds": 3}
    with pytest.raises(SweepError, match="the training step differs"):
        sweep.run((init, other), SMALL, out=tmp_path, **keywords)
    words = r"90 and are 180; a longer .* 4 of 4 were not kept .* 4 trials of 180 .*: c"
    with pytest.raises(SweepError, match=words):
        sweep.run((init, step), SMALL, out=tmp_path, **{**RULELESS, "steps": 180})
    saved = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert saved["generations"] == [4]


@pytest.mark.parametrize("name", ["_optuna", "_result", "_schedules"])
def test_docstring_examples(name):
    module = importlib.import_module(f"optjax.sweep.{name}")
    result = doctest.testmod(module)
    assert result.attempted > 1
    assert result.failed == 0
