"""Trackers get each trial once: its configuration, its curves and what became of it."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optjax import sweep
from optjax.sweep import trackers


def init(key, optimizer):
    x = jax.random.normal(key, (2,))
    return x, optimizer.init(x)


def step(state, optimizer):
    x, opt_state = state
    loss, g = jax.value_and_grad(lambda x: jnp.sum(x**2))(x)
    updates, opt_state = optimizer.update(g, opt_state, x)
    return (optax.apply_updates(x, updates), opt_state), {"loss": loss}


def run(callbacks, out=None):
    # At 1e30 it diverges.
    space = {"optimizer": ["sgd"], "learning_rate": [0.1, 1e30]}
    return sweep.run(
        (init, step),
        space,
        steps=6,
        evaluate_every=2,
        metric="loss",
        mode="min",
        seeds=1,
        strategy="map",
        out=out,
        progress=False,
        callbacks=callbacks,
    )


@pytest.fixture(scope="module")
def records():
    seen = []
    result = run([seen.append])
    assert sorted(seen, key=lambda r: r.trial.number) == list(result.records)
    return result.records


def test_callbacks_hear_of_every_trial_and_again_when_a_sweep_goes_on(tmp_path):
    first, again = [], []
    result = run([first.append], tmp_path / "out")
    assert [r.trial for r in first] == [r.trial for r in result.records]
    run([again.append], tmp_path / "out")
    assert len(again) == len(first) == 2


def test_tensorboard_has_the_curves(records, tmp_path):
    pytest.importorskip("tensorboardX")
    write = trackers.to_tensorboard(tmp_path / "board")
    for record in [*records, *records]:
        write(record)
    folders = sorted(path.name for path in (tmp_path / "board").iterdir())
    assert folders == ["trial-0", "trial-1"]
    scalars = scalars_in(tmp_path / "board" / "trial-0")
    assert list(scalars["loss"]) == [2, 4, 6]
    np.testing.assert_allclose(
        list(scalars["loss"].values()), records[0].curve.values["loss"]
    )


def test_tensorboard_is_written_on_by_a_longer_run_and_by_no_other_sweep(
    records, tmp_path
):
    pytest.importorskip("tensorboardX")
    write = trackers.to_tensorboard(tmp_path)
    record = records[0]
    curve = sweep.Curve((2, 4), {"loss": record.curve.values["loss"][:2]})
    write(record._replace(steps=4, curve=curve))
    write(record)
    folder = tmp_path / "trial-0"
    loss = scalars_in(folder)["loss"]
    np.testing.assert_allclose(list(loss.values()), record.curve.values["loss"])
    files = len(list(folder.glob("events*")))
    write(record)
    assert len(list(folder.glob("events*"))) == files
    with pytest.raises(sweep.SweepError, match="trial-0 is of another sweep"):
        write(of_another_sweep(records))
    # One that died while it was written.
    for path in (folder / "trial.json", *folder.glob("events*")):
        path.unlink()
    write(record)
    assert list(scalars_in(folder)["loss"]) == [2, 4, 6]


def scalars_in(folder):
    from tensorboardX.proto import event_pb2

    found = {}
    for path in sorted(folder.glob("events*"), key=lambda path: path.stat().st_mtime):
        data, place = path.read_bytes(), 0
        while place < len(data):
            length = int.from_bytes(data[place : place + 8], "little")
            event = event_pb2.Event.FromString(data[place + 12 : place + 12 + length])
            place += 16 + length
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    assert event.step not in found.get(value.tag, {})
                    found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


# What the package warns of is its own affair.
@pytest.mark.filterwarnings("default")
def test_mlflow_has_a_run_a_trial(records, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    curve = sweep.Curve((2, 4), {"loss": records[0].curve.values["loss"][:2]})
    trackers.to_mlflow("mine", uri)(records[0]._replace(steps=4, curve=curve))
    for _ in range(2):
        write = trackers.to_mlflow("mine", uri)
        for record in records:
            write(record)
    client = mlflow.MlflowClient(uri)
    where = client.get_experiment_by_name("mine").experiment_id
    runs = client.search_runs([where])
    runs = {run.data.tags["optjax.trial"]: run for run in runs}
    assert sorted(runs) == ["0", "1"]
    assert runs["0"].data.params == {
        "optimizer": "sgd", "learning_rate": "0.1", "seed": "0",
    }  # fmt: skip
    assert [runs[n].info.status for n in "01"] == ["FINISHED", "FAILED"]
    assert runs["1"].data.tags["optjax.status"] == "diverged"
    history = client.get_metric_history(runs["0"].info.run_id, "loss")
    assert [(m.step, m.value) for m in history] == list(
        zip(records[0].curve.steps, records[0].curve.values["loss"], strict=True)
    )
    write(of_another_sweep(records))
    assert len(client.search_runs([where])) == 3


# What the package warns of is its own affair.
@pytest.mark.filterwarnings("default")
def test_wandb_has_a_run_a_trial(records, tmp_path):
    pytest.importorskip("wandb")
    write = trackers.to_wandb(mode="offline", dir=tmp_path, project="mine", group="g")
    for record in [*records, of_another_sweep(records)]:
        write(record)
    runs = sorted(path.name for path in tmp_path.glob("wandb/offline-run-*"))
    names = [name.partition("-g-")[2].rpartition("-")[0] for name in runs]
    assert sorted(names) == ["trial-0", "trial-0", "trial-1"]


def of_another_sweep(records):
    return records[1]._replace(trial=records[1].trial._replace(number=0))


def test_a_missing_package_is_named(monkeypatch):
    for module, make in (("mlflow", trackers.to_mlflow), ("wandb", trackers.to_wandb)):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(sweep.SweepError, match=f"needs {module}; run: pip install"):
            make()
