"""Regret of searches at equal numbers of trials.

    python benchmarks/search.py [--seeds 20] [--trials 64]

Five functions and the digits, by the space's own Sobol points, Optuna's TPE and CMA-ES,
and Sobol points with successive halving. The digits are a grid of AdaBound's
hyper-parameters that is trained whole, once, by a sweep; searches choose from it, so
that the least loss is known. A trial of a function has a curve that nears its value at
a speed of its own, for halving to misjudge. Writes search.md beside this file.
"""

import argparse
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from measuring import load, machine

from optjax import sweep
from optjax.sweep._engine.scheduler import Scheduler
from optjax.sweep._space.distributions import Choice, Uniform
from optjax.sweep._space.space import _unit_points
from optjax.sweep._stopping import Rungs, SuccessiveHalving, decisions
from optjax.tasks import TASKS

LANES = 8
EVALUATIONS = 30
RULE = SuccessiveHalving(min_steps=3)


class Problem(NamedTuple):
    """What is searched: `curve(point, trial)` for a point of the unit cube."""

    name: str
    dimensions: dict[str, object]
    curve: Callable[[np.ndarray, int], np.ndarray]
    least: float


def bowl(x):
    return np.sum((x - 0.37) ** 2 * 10.0 ** np.arange(len(x)))


def branin(x):
    a, b = 15 * x[0] - 5, 15 * x[1]
    parabola = b - 5.1 / (4 * np.pi**2) * a**2 + 5 / np.pi * a - 6
    return parabola**2 + 10 * (1 - 1 / (8 * np.pi)) * np.cos(a) + 10


def rosenbrock(x):
    x = 4 * x - 2
    return np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def ackley(x):
    x = 20 * x - 8
    far = np.exp(-0.2 * np.sqrt(np.mean(x**2)))
    return 20 + np.e - 20 * far - np.exp(np.mean(np.cos(2 * np.pi * x)))


def hartmann(x):
    a = np.array(
        [
            [10, 3, 17, 3.5, 1.7, 8],
            [0.05, 10, 17, 0.1, 8, 14],
            [3, 3.5, 1.7, 10, 17, 8],
            [17, 8, 0.05, 10, 0.1, 14],
        ]
    )
    p = 1e-4 * np.array(
        [
            [1312, 1696, 5569, 124, 8283, 5886],
            [2329, 4135, 8307, 3736, 1004, 9991],
            [2348, 1451, 3522, 2883, 3047, 6650],
            [4047, 8828, 8732, 5743, 1091, 381],
        ]
    )
    return -np.exp(-np.sum(a * (x - p) ** 2, axis=1)) @ [1.0, 1.2, 3.0, 3.2]


def nearing(function, scale, point, trial):
    """A curve that comes from above, at a speed of the trial's own."""
    speed = np.random.default_rng(trial).uniform(0.1, 0.5)
    times = np.arange(1, EVALUATIONS + 1)
    above = np.exp(-speed * times) - np.exp(-speed * times[-1])
    return function(point) + scale * above


def functions():
    for function, size, least in (
        (bowl, 4, 0.0),
        (branin, 2, 0.397887),
        (rosenbrock, 4, 0.0),
        (ackley, 5, 0.0),
        (hartmann, 6, -3.32237),
    ):
        some = np.random.default_rng(0).random((512, size))
        scale = float(np.std([function(x) for x in some]))
        yield Problem(
            f"{function.__name__}, {size} numbers",
            {f"x{i}": Uniform(0.0, 1.0) for i in range(size)},
            functools.partial(nearing, function, scale),
            least,
        )


def digits():
    """A grid of AdaBound, all of it trained."""
    grid = {
        "learning_rate": np.geomspace(1e-4, 1.0, 17).tolist(),
        "final_lr": np.geomspace(1e-2, 10.0, 13).tolist(),
        "b1": [0.0, 0.5, 0.9, 0.95],
    }
    began = time.perf_counter()
    result = sweep.run(
        TASKS["digits"].load().make_trial,
        {"optimizer": "adabound", **grid},
        steps=300,
        evaluate_every=10,
        metric="val_loss",
        mode="min",
        seeds=1,
        strategy="map",
        progress=False,
    )
    seconds = time.perf_counter() - began
    shape = [len(values) for values in grid.values()]
    curves = np.full((*shape, EVALUATIONS), np.inf)
    for record in result.records:
        values = record.curve.values["val_loss"]
        at = np.unravel_index(record.trial.number, shape)
        curves[at][: len(values)] = values
    # What has diverged is worse than all that has not.
    curves[~np.isfinite(curves)] = curves[np.isfinite(curves)].max()

    def curve(point, trial):
        at = [int(u * n) for u, n in zip(point, shape, strict=True)]
        return curves[tuple(min(i, n - 1) for i, n in zip(at, shape, strict=True))]

    dimensions = {key: Choice(tuple(values)) for key, values in grid.items()}
    name = f"digits, AdaBound, {len(result.records)} configurations"
    return Problem(name, dimensions, curve, float(curves.min())), seconds


def whole_sweep(trials, search=None, stopping=None):
    """Seconds of a sweep of the digits, with compilation."""
    began = time.perf_counter()
    sweep.run(
        TASKS["digits"].load().make_trial,
        {
            "optimizer": "adabound",
            "learning_rate": sweep.log_uniform(1e-4, 1.0),
            "final_lr": sweep.log_uniform(1e-2, 10.0),
        },
        draws=trials,
        search=search,
        stopping=stopping,
        steps=300,
        evaluate_every=10,
        metric="val_loss",
        mode="min",
        seeds=1,
        strategy="map",
        progress=False,
    )
    return time.perf_counter() - began


def whole(trials, rounds=3):
    """The least seconds of a sweep by each search."""
    ways = {
        "Sobol": {},
        "TPE, 8 at a time": {"search": sweep.Optuna("tpe")},
        "CMA-ES, 8 at a time": {"search": sweep.Optuna("cmaes")},
        "Sobol with halving": {"stopping": SuccessiveHalving(min_steps=30)},
    }
    took = [
        {k: whole_sweep(trials, **w) for k, w in ways.items()} for _ in range(rounds)
    ]
    return {name: min(each[name] for each in took) for name in ways}


def sobol(problem, trials, seed):
    points = _unit_points(trials, len(problem.dimensions), "sobol", seed)
    curves = [problem.curve(point, 1000 * seed + i) for i, point in enumerate(points)]
    return np.array([curve.min() for curve in curves]), 1.0, 0.0


def halving(problem, trials, seed):
    """The sweep's own scheduler, with what the trials would have measured."""
    points = _unit_points(trials, len(problem.dimensions), "sobol", seed)
    curves = [problem.curve(point, 1000 * seed + i) for i, point in enumerate(points)]
    config = sweep.Config("sgd", {}, {})
    rungs = Rungs(RULE, decisions(RULE, EVALUATIONS, 1))
    scheduler = Scheduler(
        [sweep.TrialSpec(i, config, 0) for i in range(trials)],
        lanes=LANES,
        devices=1,
        metrics=("loss",),
        metric="loss",
        mode="min",
        evaluate_every=1,
        evaluations=EVALUATIONS,
        evaluations_a_round=3,
        rungs=rungs,
    )
    done, reached = [0] * trials, np.full(trials, np.inf)
    while not scheduler.is_done:
        for number in list(scheduler.lanes()):
            rows = curves[number][done[number] : done[number] + 3]
            done[number] += len(rows)
            reached[number] = min(reached[number], rows.min())
            scheduler.take(number, rows[:, None])
    return reached, sum(done) / (trials * EVALUATIONS), 0.0


def proposed(sampler, batch, problem, trials, seed):
    began = time.perf_counter()
    searcher = sweep.Optuna(sampler, batch).begin(problem.dimensions, seed)
    reached = []
    for start in range(0, trials, batch):
        points = searcher.ask(batch)
        values = [
            problem.curve(point, 1000 * seed + start + i).min()
            for i, point in enumerate(points)
        ]
        searcher.tell(-np.array(values))
        reached += values
    return np.array(reached), 1.0, time.perf_counter() - began


METHODS = {
    "Sobol": sobol,
    "TPE, one at a time": functools.partial(proposed, "tpe", 1),
    "TPE, 8 at a time": functools.partial(proposed, "tpe", 8),
    "CMA-ES, 8 at a time": functools.partial(proposed, "cmaes", 8),
    "Sobol with halving": halving,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", type=int, default=64)
    options = parser.parse_args()
    before = load()
    table, seconds = digits()
    counts = (options.trials // 2, options.trials)
    lines = [
        "# Searches",
        "",
        f"{machine(('jax', 'optuna', 'cmaes', 'optjax'))}; load {before}.",
        "",
        f"Regret, the best value less the least there is, after so many trials: median "
        f"over {options.seeds} seeds (quartiles). `python benchmarks/search.py` says "
        "what is searched.",
    ]
    asking: dict[str, list[float]] = {name: [] for name in METHODS}
    for problem in [*functions(), table]:
        lines += ["", f"## {problem.name}", ""]
        lines += [f"| search | {counts[0]} trials | {counts[1]} trials | updates |"]
        lines += ["|---|---|---|---|"]
        for name, method in METHODS.items():
            runs = [method(problem, options.trials, s) for s in range(options.seeds)]
            asking[name] += [run[2] for run in runs]
            cells = []
            for count in counts:
                regret = [run[0][:count].min() - problem.least for run in runs]
                low, middle, high = np.quantile(regret, (0.25, 0.5, 0.75))
                cells.append(f"{middle:.3g} ({low:.3g}–{high:.3g})")
            share = np.mean([run[1] for run in runs])
            lines += [f"| {name} | {cells[0]} | {cells[1]} | {share:.0%} |"]
    lines += ["", "## Time", ""]
    lines += [
        f"All trials of the digits' grid: {seconds:.1f} s with compilation. Asking and "
        f"telling, seconds for {options.trials} trials, median over all problems and "
        "seeds:",
        "",
        "| search | seconds |",
        "|---|---|",
        *(f"| {name} | {np.median(each):.3f} |" for name, each in asking.items()),
        "",
        f"A sweep of {options.trials} trials of the digits, 300 updates each, with "
        "compilation, the least of three rounds in turn:",
        "",
        "| search | seconds |",
        "|---|---|",
        *(f"| {name} | {took:.1f} |" for name, took in whole(options.trials).items()),
    ]
    text = "\n".join(lines) + "\n"
    Path(__file__).with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
