"""One sweep by optjax, Optuna, Ray Tune and a loop.

What `sweep.py --only peers` runs, each in a process of its own, in seven minutes or so
on two idle cores. All train the same model by the same jitted functions over the same
learning rates' range, one seed, and none stops a trial; a peer's function below is what
its user writes. Ray Tune keeps its workers, one a core, from trial to trial, as is
recommended for short ones.
"""

import argparse
import functools
import inspect
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import optjax
from optjax import sweep
from optjax.tasks import digits

TRIALS = 64
LOW, HIGH = 1e-4, 1.0


class Task(NamedTuple):
    make_trial: object
    updates: int
    evaluate_every: int
    metric: str
    mode: str


class Convolutions(nnx.Module):
    """Three 3×3 convolutions on images of 32 × 32."""

    def __init__(self, rngs):
        widths = (3, 8, 16, 16)
        pairs = itertools.pairwise(widths)
        self.layers = nnx.List([nnx.Conv(a, b, (3, 3), rngs=rngs) for a, b in pairs])
        self.head = nnx.Linear(16, 10, rngs=rngs)

    def __call__(self, x):
        for layer in self.layers:
            x = nnx.relu(layer(x))
        return self.head(x.mean((1, 2)))


def images(key, step):
    key = jax.random.fold_in(key, step)
    return jax.random.normal(key, (64, 32, 32, 3)), jax.random.randint(
        key, (64,), 0, 10
    )


def loss(logits, batch):
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()


def task_of(name):
    if name == "digits":
        make_trial = functools.partial(digits.trial, data=digits.load())
        return Task(make_trial, 300, 50, "val_accuracy", "max")
    return Task(sweep.from_nnx(Convolutions, loss, images), 10, 5, "loss", "min")


def training(task):
    """The training of one learning rate, its functions compiled once."""
    trial = task.make_trial(optjax.adam)
    init, step = jax.jit(trial.init), jax.jit(trial.step)
    evaluate = jax.jit(trial.evaluate)

    def train(learning_rate, report):
        state = init(jax.random.key(0), {"learning_rate": jnp.float32(learning_rate)})
        for number in range(1, task.updates + 1):
            state, metrics = step(state)
            if number % task.evaluate_every == 0:
                metrics = {**metrics, **evaluate(state)}
                report(number, float(metrics[task.metric]))

    return train


# ------------------------------------------------------------------------------- peers


def by_optjax(task, out):
    sweep.run(
        task.make_trial,
        {"optimizer": "adam", "learning_rate": sweep.log_uniform(LOW, HIGH)},
        draws=TRIALS,
        seeds=1,
        steps=task.updates,
        evaluate_every=task.evaluate_every,
        metric=task.metric,
        mode=task.mode,
        out=out / "sweep",
        checkpoint_seconds=2.0,
    )


def by_loop(task, out):
    train = training(task)
    for i in range(TRIALS):
        learning_rate = LOW * (HIGH / LOW) ** (i / (TRIALS - 1))
        begin(out)
        train(learning_rate, lambda number, value: None)


def by_optuna(task, out, storage=None):
    import optuna

    train = training(task)

    def objective(trial):
        begin(out)
        values = []

        def report(number, value):
            values.append(value)
            trial.report(value, number)

        train(trial.suggest_float("learning_rate", LOW, HIGH, log=True), report)
        return values[-1]

    study = optuna.create_study(
        storage=storage,
        study_name="peers",
        load_if_exists=True,
        direction="maximize" if task.mode == "max" else "minimize",
    )
    done = study.get_trials(states=[optuna.trial.TrialState.COMPLETE])
    study.optimize(objective, n_trials=TRIALS - len(done))


def by_optuna_sqlite(task, out):
    by_optuna(task, out, f"sqlite:///{out}/study.db")


def by_ray_tune(task, out):
    from ray import tune

    # What a worker has compiled, for all the trials that it gets.
    compiled = []

    def trainable(config):
        begin(out)
        if not compiled:
            compiled.append(training(task))
        train = compiled[0]
        train(
            config["learning_rate"],
            lambda number, value: tune.report({task.metric: value}),
        )

    place = out / "tune"
    if tune.Tuner.can_restore(str(place)):
        tuner = tune.Tuner.restore(str(place), trainable)
    else:
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": 1}),
            param_space={"learning_rate": tune.loguniform(LOW, HIGH)},
            tune_config=tune.TuneConfig(
                metric=task.metric,
                mode=task.mode,
                num_samples=TRIALS,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(storage_path=str(out), name="tune", verbose=0),
        )
    if tuner.fit().errors:
        sys.exit(1)


# The function that runs a peer, and the others that its user writes.
PEERS = {
    "optjax": (by_optjax,),
    "a loop": (by_loop, training),
    "Optuna, in memory": (by_optuna, training),
    "Optuna, SQLite": (by_optuna_sqlite, by_optuna, training),
    "Ray Tune": (by_ray_tune, training),
}


def begin(out):
    """Write down that a trial begins, for the count of those that run again."""
    with (out / "begun.txt").open("a") as file:
        file.write("\n")


def lines_of(functions):
    """Lines of code, without those that are empty, say something or count."""
    texts = [inspect.getsource(function).splitlines() for function in functions]
    lines = [line.strip() for text in texts for line in text]
    return sum(bool(x) and not x.startswith(('"""', "#", "begin(")) for x in lines)


# --------------------------------------------------------------------------- measuring


def start(peer, task, out):
    return subprocess.Popen(
        [sys.executable, __file__, peer, task, "--out", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=(out / "stderr.txt").open("a"),
        start_new_session=True,
    )


def trials_left(peer, out):
    """How many trials a run has had to do, or still has."""
    if peer != "optjax":
        return len((out / "begun.txt").read_text().splitlines())
    try:
        return TRIALS - len(sweep.SweepResult.load(out / "sweep").records)
    except sweep.SweepError:
        return TRIALS


def whole(peer, task, folder):
    """Seconds of a whole process."""
    out = folder / "whole"
    out.mkdir()
    began = time.perf_counter()
    if start(peer, task, out).wait():
        raise RuntimeError((out / "stderr.txt").read_text())
    return time.perf_counter() - began


def kept(peer, task, folder, seconds):
    """Of how many trials the results are there after kill -9 at so many seconds."""
    out = folder / "killed"
    out.mkdir()
    process = start(peer, task, out)
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if peer != "optjax":
        (out / "begun.txt").unlink(missing_ok=True)
        if start(peer, task, out).wait():
            raise RuntimeError((out / "stderr.txt").read_text())
    return TRIALS - trials_left(peer, out)


def peers(arguments):
    lines = [
        f"{TRIALS} learning rates of Adam, one seed, no trial stopped: the digits MLP "
        "(300 updates of 64) and three 3×3 convolutions (10 updates of 64 images of "
        "32 × 32 × 3). Seconds of a whole process, with imports and compilation. "
        "Optuna, Ray Tune and the loop run jitted functions with a traced learning "
        "rate, compiled once in a process; Ray Tune has two, which stay for all trials "
        "(`reuse_actors`). Lines: what their user writes in peers.py, "
        "the training included. Of how many of the convolutions' trials the results "
        "were there when the same command ran again after kill -9 at 60 % of the time; "
        "optjax saves after 2 s of work here, where its default is 30.",
        "",
        f"| | digits, s | convolutions, s | of {TRIALS} after kill -9 | lines |",
        "|---|---|---|---|---|",
    ]
    for peer, functions in PEERS.items():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            seconds = whole(peer, "convolutions", folder)
            left = kept(peer, "convolutions", folder, 0.6 * seconds)
        with tempfile.TemporaryDirectory() as name:
            digits_seconds = whole(peer, "digits", Path(name))
        row = f"{digits_seconds:.1f} | {seconds:.1f} | {left} | {lines_of(functions)}"
        print(f"{peer} | {row}", flush=True)
        lines.append(f"| {peer} | {row} |")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("task", choices=("digits", "convolutions"))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    sweep.use_all_cores()
    run, *_ = PEERS[options.peer]
    run(task_of(options.task), options.out)


if __name__ == "__main__":
    main()
