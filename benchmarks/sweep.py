"""How fast sweeps are, side by side in one run: python benchmarks/sweep.py.

The task is the digits MLP, 300 updates a trial, over K learning rates of Adam. Writes
sweep.md beside this file. Needs the extra `race`, and Optuna for its line.
"""

import argparse
import functools
import platform
import resource
import statistics
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import optjax
from optjax import sweep
from optjax.sweep.groups import Settings, make_groups
from optjax.sweep.records import Config, TrialSpec
from optjax.tasks import digits

STEPS, EVERY = 300, 10
METRIC = "val_accuracy"


def specs(count):
    rates = np.logspace(-4, 0, count)
    return [
        TrialSpec(i, Config("adam", {"learning_rate": float(rate)}, {}), 0)
        for i, rate in enumerate(rates)
    ]


def settings(**changes):
    base = Settings(
        STEPS, EVERY, METRIC, "max", None, None, None, tuple(jax.local_devices())
    )
    return base._replace(**changes)


def jitted_scan(trial, learning_rate=None):
    """The best of today's single-threaded ways: one jitted trial, called in a loop."""

    def whole(learning_rate):
        state = trial.init(jax.random.key(0), {"learning_rate": learning_rate})

        def evaluated(state, _):
            state, _ = jax.lax.scan(
                lambda state, _: trial.step(state), state, length=EVERY
            )
            return state, trial.evaluate(state)[METRIC]

        return jax.lax.scan(evaluated, state, length=STEPS // EVERY)[1]

    if learning_rate is None:
        return jax.jit(whole)
    return jax.jit(lambda: whole(learning_rate))


def seconds(f):
    began = time.perf_counter()
    f()
    return time.perf_counter() - began


def warm_group(make_trial, count, strategy):
    """A compiled group, and a function that runs all its trials once."""
    group = make_groups(make_trial, {"adam": optjax.adam}, specs(count), settings())[0]
    program = group.compile(settings(), strategy)

    def run():
        scheduler, carry = group.schedule(settings()), program.start()
        while not scheduler.is_done:
            carry, rows = program.advance(carry, scheduler.assignment())
            scheduler.observe(rows)

    run()
    return run


def throughput(make_trial, count, repeats):
    """Warm seconds for `count` trials, interleaved."""
    scan = jitted_scan(make_trial(optjax.adam))
    rates = [jnp.float32(spec.config.hyper["learning_rate"]) for spec in specs(count)]

    def loop():
        for rate in rates:
            scan(rate).block_until_ready()

    loop()
    ways = {"jitted scan, traced learning rate": loop}
    for strategy in ("map", "vmap", "chunked"):
        ways[f"optjax {strategy}"] = warm_group(make_trial, count, strategy)
    times = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            times[name].append(seconds(way))
    return times


def end_to_end(make_trial, count, recompiled=16):
    """Seconds with compilation: the recompiling loop, scaled, and `sweep.run`."""

    def loop():
        for spec in specs(count)[:: max(1, count // recompiled)][:recompiled]:
            trial = make_trial(optjax.adam)
            jitted_scan(trial, spec.config.hyper["learning_rate"])().block_until_ready()

    space = {
        "optimizer": "adam",
        "learning_rate": [s.config.hyper["learning_rate"] for s in specs(count)],
    }
    chosen = []

    def run():
        result = sweep.run(
            make_trial,
            space,
            steps=STEPS,
            evaluate_every=EVERY,
            metric=METRIC,
            seeds=1,
            progress=False,
        )
        chosen.append(result.about["strategy"])

    once = seconds(loop)
    return once * count / recompiled, seconds(run), chosen[0]


def nothing(count, out):
    """Milliseconds a trial of an engine whose trials do nothing, without compilation.

    From the difference between `count` trials and one, both compiled afresh.
    """

    def init(key, optimizer):
        return jnp.zeros(())

    def step(state, optimizer):
        return state, {"loss": state}

    def run(count, out):
        sweep.run(
            (init, step),
            {"optimizer": "sgd", "learning_rate": list(np.linspace(0.1, 1, count))},
            steps=1,
            evaluate_every=1,
            metric="loss",
            seeds=1,
            strategy="map",
            progress=False,
            out=out,
        )

    run(1, out / "warm")
    many = seconds(lambda: run(count, out / "many"))
    one = seconds(lambda: run(1, out / "one"))
    return 1e3 * (many - one) / (count - 1)


def optuna_nothing(count):
    try:
        import optuna
    except ModuleNotFoundError:
        return None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))

    def objective(trial):
        return trial.suggest_float("learning_rate", 0.1, 1.0)

    return 1e3 * seconds(lambda: study.optimize(objective, n_trials=count)) / count


def scaling(make_trial, counts):
    """(trials, milliseconds a trial, peak MiB so far) with compilation."""
    rows = []
    for count in counts:
        _, took, _ = end_to_end_sweep_only(make_trial, count)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        rows.append((count, 1e3 * took / count, peak))
        print(f"  {count} trials: {rows[-1][1]:.1f} ms each, peak {peak:.0f} MiB")
    return rows


def end_to_end_sweep_only(make_trial, count):
    space = {
        "optimizer": "adam",
        "learning_rate": [s.config.hyper["learning_rate"] for s in specs(count)],
    }
    with tempfile.TemporaryDirectory() as out:
        took = seconds(
            lambda: sweep.run(
                make_trial,
                space,
                steps=STEPS,
                evaluate_every=EVERY,
                metric=METRIC,
                seeds=1,
                out=Path(out) / "sweep",
                progress=False,
            )
        )
    return count, took, None


def machine():
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return (
        f"{model}, {len(jax.local_devices())} × {jax.local_devices()[0].device_kind}; "
        f"Python {platform.python_version()}, jax {jax.__version__}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--trials", type=int, nargs="+", default=[64, 512])
    parser.add_argument("--scaling", type=int, nargs="*", default=[64, 512, 4096])
    arguments = parser.parse_args()
    sweep.use_all_cores()
    make_trial = functools.partial(digits.trial, data=digits.load())
    out = ["# Sweeps", "", machine(), ""]
    for count in arguments.trials:
        print(f"{count} trials, warm")
        # The slow ways take a minute a round at 512.
        repeats = arguments.repeats if count <= 64 else 2
        times = throughput(make_trial, count, repeats)
        base = times["jitted scan, traced learning rate"]
        out += [
            f"## {count} trials × {STEPS} updates, warm, {repeats} rounds",
            "",
            "| way | median s | min–max s | times the jitted scan (paired median) |",
            "|---|---|---|---|",
        ]
        for name, values in times.items():
            ratio = statistics.median(b / v for b, v in zip(base, values, strict=True))
            out.append(
                f"| {name} | {statistics.median(values):.3f} | "
                f"{min(values):.3f}–{max(values):.3f} | {ratio:.2f} |"
            )
        loop, run, chosen = end_to_end(make_trial, count)
        out += [
            "",
            f"With compilation: a loop that recompiles each learning rate {loop:.1f} s "
            f"(16 trials timed, scaled to {count}); `sweep.run`, which chose "
            f"`{chosen}`, {run:.2f} s; {loop / run:.0f} times.",
            "",
        ]
        print("\n".join(out[-3:]))
    with tempfile.TemporaryDirectory() as directory:
        ours = nothing(2000, Path(directory))
    theirs = optuna_nothing(500)
    out += [
        "## Trials that do nothing",
        "",
        f"`sweep.run`, everything written to disk: {ours:.3f} ms a trial. "
        + (
            f"Optuna's in-memory study with a random sampler: {theirs:.3f} ms a trial."
            if theirs is not None
            else "Optuna is not installed."
        ),
        "",
    ]
    print(out[-2])
    if arguments.scaling:
        out += [
            "## From few trials to many",
            "",
            "With compilation and everything on disk.",
            "",
            "| trials | ms a trial | peak memory of the process so far, MiB |",
            "|---|---|---|",
        ]
        for count, milliseconds, peak in scaling(make_trial, arguments.scaling):
            out.append(f"| {count} | {milliseconds:.1f} | {peak:.0f} |")
    path = Path(__file__).with_suffix(".md")
    path.write_text("\n".join(out).rstrip() + "\n")
    print(f"wrote {path.name}")


if __name__ == "__main__":
    main()
