"""How fast sweeps are, side by side in one run: python benchmarks/sweep.py.

Five parts, each a section of sweep.md beside this file; `--only` measures some of them
and leaves the other sections as they are. Needs the extra `race`, Optuna for the part
`overhead`, and Ray Tune beside it for `peers`.
"""

import argparse
import functools
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from peers import peers

import optjax
from optjax import sweep
from optjax.problems import rosenbrock
from optjax.sweep._engine.calls import Pace
from optjax.sweep._engine.fastest import pick_strategy
from optjax.sweep._engine.groups import make_groups
from optjax.sweep._engine.memory import fit
from optjax.sweep._engine.plan import Plan
from optjax.sweep._records import Config, TrialSpec
from optjax.sweep._strategies import STRATEGIES
from optjax.tasks import digits

RECOMPILED = 16


class Task(NamedTuple):
    """What is swept: Adam's learning rate, `updates` a trial."""

    name: str
    make_trial: Callable
    updates: int
    evaluate_every: int
    metric: str
    mode: str

    def sweep(self, count, strategy="auto", out=None):
        """Run the whole sweep as a user would, with compilation."""
        return sweep.run(
            self.make_trial,
            {"optimizer": "adam", "learning_rate": learning_rates(count)},
            steps=self.updates,
            evaluate_every=self.evaluate_every,
            metric=self.metric,
            mode=self.mode,
            seeds=1,
            strategy=strategy,
            out=out,
            progress=False,
        )

    def group(self, count):
        """The same trials for the engine's parts, and their settings."""
        settings = Plan(
            steps=self.updates,
            evaluate_every=self.evaluate_every,
            metric=self.metric,
            mode=self.mode,
            devices=tuple(jax.local_devices()),
        )
        specs = [
            TrialSpec(number, Config("adam", {"learning_rate": rate}, {}), 0)
            for number, rate in enumerate(learning_rates(count))
        ]
        group = make_groups(self.make_trial, {"adam": optjax.adam}, specs, settings)[0]
        return group, settings


def learning_rates(count):
    return np.logspace(-4, 0, count).tolist()


def digits_task():
    make_trial = functools.partial(digits.trial, data=digits.load())
    return Task("Digits MLP", make_trial, 300, 10, "val_accuracy", "max")


def noisy_rosenbrock():
    """Two numbers and a gradient with noise: no matrix, hundreds of tiny operations."""

    def init(key, optimizer):
        key, start_key = jax.random.split(key)
        x = jax.random.uniform(start_key, (2,), minval=-2.0, maxval=2.0)
        return x, optimizer.init(x), key, jnp.zeros((), jnp.int32)

    def step(state, optimizer):
        x, opt_state, key, done = state
        value, gradient = jax.value_and_grad(rosenbrock)(x)
        noise = jax.random.normal(jax.random.fold_in(key, done), x.shape)
        updates, opt_state = optimizer.update(gradient + noise, opt_state, x)
        x = optax.apply_updates(x, updates)
        return (x, opt_state, key, done + 1), {"loss": value}

    make_trial = sweep.from_functions(init, step)
    return Task("Rosenbrock with noise", make_trial, 5000, 500, "loss", "min")


# ------------------------------------------------------------------------------ timing


def seconds(f):
    began = time.perf_counter()
    f()
    return time.perf_counter() - began


def interleaved(ways, rounds):
    """Seconds of every way in every round."""
    times = {name: [] for name in ways}
    for number in range(rounds):
        for name, way in ways.items():
            times[name].append(seconds(way))
            say(f"  round {number + 1} of {rounds}, {name}: {times[name][-1]:.3f} s")
    return times


def paired(times, other):
    """The median over rounds of one way's time to another's."""
    return statistics.median(a / b for a, b in zip(times, other, strict=True))


def spread(values):
    median = statistics.median(values)
    return f"{median:.3f} ({min(values):.3f}–{max(values):.3f})"


def say(line):
    print(line, flush=True)


def runner(fitted, settings):
    """A function that runs all of a compiled group's trials, warm."""
    group, strategy, program = fitted

    def run():
        scheduler, carry = group.schedule(settings, strategy), program.start()
        pace = Pace(2.0)
        while not scheduler.is_done:
            call = group.next_call(settings, strategy, scheduler, pace.work)
            began = time.perf_counter()
            told = scheduler.assignment(call.lanes)
            carry, rows = program.advance(carry, told, call.size)
            pace.took(call, time.perf_counter() - began)
            scheduler.observe(call, scheduler.measured(call, rows))

    run()
    return run


# -------------------------------------------------------------------------- throughput


def jitted_trial(task, learning_rate=None):
    """A trial as one jitted scan, its learning rate traced or a constant."""
    trial = task.make_trial(optjax.adam)

    def whole(learning_rate):
        state = trial.init(jax.random.key(0), {"learning_rate": learning_rate})

        def evaluated(state, _):
            state, _ = jax.lax.scan(
                lambda state, _: trial.step(state), state, length=task.evaluate_every
            )
            return state, trial.evaluate(state)[task.metric]

        evaluations = task.updates // task.evaluate_every
        return jax.lax.scan(evaluated, state, length=evaluations)[1]

    if learning_rate is None:
        return jax.jit(whole)
    return jax.jit(lambda: whole(learning_rate))


def throughput(arguments):
    task = digits_task()
    lines = [
        f"{task.name}, {task.updates} updates a trial. Seconds: median (least–most).",
        "",
        "| trials | jitted scan, traced learning rate, in a loop, warm | `auto`, warm "
        "| times as fast | a loop that recompiles each trial | `sweep.run` with "
        "compilation | times as fast |",
        "|---|---|---|---|---|---|---|",
    ]
    for count in arguments.trials:
        say(f"{task.name}, {count} trials")
        scan = jitted_trial(task)
        rates = [jnp.float32(rate) for rate in learning_rates(count)]

        def loop(scan=scan, rates=rates):
            for rate in rates:
                scan(rate).block_until_ready()

        loop()
        group, settings = task.group(count)
        fitted = pick_strategy(group, settings, count)
        times = interleaved(
            {"jitted scan": loop, "auto": runner(fitted, settings)},
            arguments.rounds if count <= 64 else slow_rounds(arguments),
        )

        timed = learning_rates(count)[:: max(1, count // RECOMPILED)][:RECOMPILED]

        def recompiling(rates=timed):
            for rate in rates:
                jitted_trial(task, rate)().block_until_ready()

        recompiled = seconds(recompiling) * count / len(timed)
        say(f"  recompiling, scaled from {len(timed)} trials: {recompiled:.1f} s")
        whole = seconds(functools.partial(task.sweep, count))
        say(f"  sweep.run: {whole:.2f} s")
        lines.append(
            f"| {count} | {spread(times['jitted scan'])} | "
            f"{spread(times['auto'])}, chose `{fitted.strategy}` | "
            f"{paired(times['jitted scan'], times['auto']):.2f} | {recompiled:.1f} | "
            f"{whole:.2f} | {recompiled / whole:.0f} |"
        )
    lines += [
        "",
        f"The recompiling loop is timed on {RECOMPILED} trials and scaled.",
    ]
    return lines


# -------------------------------------------------------------------------- strategies


def strategies(arguments):
    lines = [
        "Seconds: median (least–most). Warm: all trials by a program compiled before. "
        "With compilation: a whole `sweep.run`, which under `auto` includes timing the "
        "strategies.",
    ]
    small, large = arguments.strategy_trials
    for task, count in ((digits_task(), small), (noisy_rosenbrock(), large)):
        lines += ["", *strategies_of(task, count, slow_rounds(arguments))]
    return lines


def strategies_of(task, count, rounds):
    say(f"{task.name}, {count} trials, warm")
    group, settings = task.group(count)
    began = time.perf_counter()
    picked = pick_strategy(group, settings, count)
    choice = picked.strategy
    picking = time.perf_counter() - began
    say(f"  auto chose {choice} in {picking:.2f} s")
    warm = interleaved(
        {
            **{
                strategy: runner(fit(group, settings, strategy), settings)
                for strategy in STRATEGIES
            },
            "auto": runner(picked, settings),
        },
        rounds,
    )
    say(f"{task.name}, {count} trials, with compilation")
    names, chosen = (*STRATEGIES, "auto"), []

    def whole(strategy):
        result = task.sweep(count, strategy)
        if strategy == "auto":
            chosen.append(result.about["strategy"])

    fresh = interleaved(
        {name: functools.partial(whole, name) for name in names}, rounds
    )
    best = min(STRATEGIES, key=lambda name: statistics.median(warm[name]))
    cost = statistics.median(
        auto - fresh[strategy][number]
        for number, (auto, strategy) in enumerate(
            zip(fresh["auto"], chosen, strict=True)
        )
    )
    return [
        f"{task.name}, {count} trials × {task.updates} updates, rounds: {rounds}.",
        "",
        "| strategy | warm | with compilation |",
        "|---|---|---|",
        *(
            f"| {name} | {spread(warm[name])} | {spread(fresh[name])} |"
            for name in names
        ),
        "",
        f"`auto` chose `{choice}`, and in the rounds with compilation "
        f"{', '.join(f'`{name}`' for name in sorted(set(chosen)))}. Its program takes "
        f"{paired(warm['auto'], warm[best]):.2f} times the time of the best fixed one, "
        f"`{best}` (median over rounds). Choosing cost {cost:.2f} s: the median over "
        "rounds of `auto` less the same strategy given, both with compilation.",
    ]


# ---------------------------------------------------------------------------- overhead


def nothing(count, out):
    """A sweep whose trials do nothing, everything written to disk."""

    def init(key, optimizer):
        return jnp.zeros(())

    def step(state, optimizer):
        return state, {"loss": state}

    sweep.run(
        (init, step),
        {"optimizer": "sgd", "learning_rate": np.linspace(0.1, 1.0, count).tolist()},
        steps=1,
        evaluate_every=1,
        metric="loss",
        mode="min",
        seeds=1,
        strategy="map",
        progress=False,
        out=out,
    )


def optuna_nothing(count, make_sampler):
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=make_sampler(optuna.samplers))
    study.optimize(
        lambda trial: trial.suggest_float("learning_rate", 0.1, 1.0), n_trials=count
    )


def overhead(arguments):
    count = arguments.nothing
    say(f"{count} trials that do nothing")
    with tempfile.TemporaryDirectory() as directory:

        def ours(count):
            nothing(count, Path(tempfile.mkdtemp(dir=directory)) / "out")

        ours(1)
        times = interleaved(
            {
                "sweep.run": functools.partial(ours, count),
                "sweep.run, one trial": functools.partial(ours, 1),
                "Optuna, TPE": functools.partial(
                    optuna_nothing, count, lambda samplers: samplers.TPESampler(seed=0)
                ),
                "Optuna, random": functools.partial(
                    optuna_nothing,
                    count,
                    lambda samplers: samplers.RandomSampler(seed=0),
                ),
            },
            arguments.rounds,
        )

    def a_trial(values):
        return spread([1e3 * value / count for value in values])

    whole, one = times["sweep.run"], times["sweep.run, one trial"]
    without = [
        (many - once) * count / (count - 1)
        for many, once in zip(whole, one, strict=True)
    ]
    return [
        f"{count} trials an engine, rounds: {arguments.rounds}. Milliseconds a trial: "
        "median (least–most).",
        "",
        "| engine | ms a trial |",
        "|---|---|",
        f"| `sweep.run`, everything on disk, with compilation | {a_trial(whole)} |",
        "| `sweep.run`, everything on disk, less a sweep of one trial "
        f"| {a_trial(without)} |",
        "| Optuna, in-memory study, TPE (its default sampler) "
        f"| {a_trial(times['Optuna, TPE'])} |",
        f"| Optuna, in-memory study, random sampler "
        f"| {a_trial(times['Optuna, random'])} |",
        "",
        "TPE fits its densities to all trials so far, so that its time a trial grows "
        "with their number. Optuna chooses each trial after the one before; a sweep's "
        "trials are drawn beforehand.",
    ]


# ----------------------------------------------------------------------------- scaling


def scaling(arguments):
    task = digits_task()
    lines = [
        f"{task.name}, {task.updates} updates a trial, strategy `auto`, with "
        "compilation and everything on disk. Peak memory is the process's so far.",
        "",
        "| trials | ms a trial | peak memory, MiB |",
        "|---|---|---|",
    ]
    for count in arguments.scaling:
        with tempfile.TemporaryDirectory() as out:
            took = seconds(
                functools.partial(task.sweep, count, out=Path(out) / "sweep")
            )
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        say(f"  {count} trials: {1e3 * took / count:.1f} ms each, peak {peak:.0f} MiB")
        lines.append(f"| {count} | {1e3 * took / count:.1f} | {peak:.0f} |")
    return lines


# -------------------------------------------------------------------------- the report

PARTS = {
    "throughput": ("Beside a loop over trials", throughput),
    "strategies": ("Strategies, and what `auto` chooses", strategies),
    "overhead": ("Trials that do nothing", overhead),
    "scaling": ("From few trials to many", scaling),
    "peers": ("Beside Optuna, Ray Tune and a loop", peers),
}


def slow_rounds(arguments):
    """For what takes minutes a round."""
    return (arguments.rounds + 1) // 2


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


def write_section(path, heading, lines):
    """Put a section in the report, in place of the one it may have by that heading."""
    headings = [heading for heading, _ in PARTS.values()]
    sections = {}
    if path.exists():
        for text in path.read_text().split("\n## ")[1:]:
            name, _, body = text.partition("\n")
            sections[name] = body.strip()
    sections[heading] = "\n".join([f"{machine()}.", "", *lines])
    known = [name for name in headings if name in sections]
    text = "\n".join(f"\n## {name}\n\n{sections[name]}" for name in known)
    path.write_text(f"# Sweeps\n{text}\n")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add(
        "--only",
        nargs="+",
        choices=PARTS,
        default=list(PARTS),
        metavar="PART",
        help=f"parts to measure, of {', '.join(PARTS)}",
    )
    add(
        "--rounds",
        type=int,
        default=5,
        help="interleaved rounds; half of them, rounded up, for what takes long",
    )
    add(
        "--trials",
        type=int,
        nargs="+",
        default=[64, 512],
        help="numbers of trials for throughput",
    )
    add(
        "--strategy-trials",
        type=int,
        nargs=2,
        default=[512, 4096],
        metavar=("DIGITS", "ROSENBROCK"),
        help="numbers of trials for strategies",
    )
    add("--nothing", type=int, default=1000, help="trials for overhead")
    add(
        "--scaling",
        type=int,
        nargs="+",
        default=[64, 512, 4096],
        help="numbers of trials for scaling",
    )
    add(
        "--out",
        type=Path,
        default=Path(__file__).with_suffix(".md"),
        help="the report, whose other sections stay",
    )
    arguments = parser.parse_args()
    sweep.use_all_cores()
    for part in arguments.only:
        heading, measure = PARTS[part]
        say(f"== {part}")
        write_section(arguments.out, heading, measure(arguments))
        say(f"wrote {heading!r} to {arguments.out.name}")


if __name__ == "__main__":
    main()
