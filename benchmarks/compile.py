"""What compiling a step costs, side by side with Optax: python benchmarks/compile.py.

For each optimizer the CPU seconds to trace, lower and compile `update` followed by
`apply_updates`, on leaves of one shape and on leaves of which no two are alike, and
what does not depend on the machine's load: equations and operations a leaf.

CPU seconds of the process are used and not the clock's, since compilers of other
processes that share the cores would count; the two libraries take turns and their
ratio is taken in each round. Writes compile.md beside this file, or what --output says,
and keeps what is written there under "What was tried".
"""

import argparse
import itertools
import re
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from jax.extend.core import jaxprs_in_params
from measuring import load, machine, ratios, say, spread, turns

import optjax

RATE = 1e-3
TRIED = "## What was tried"

NAMES = (
    "adagrad",
    "rmsprop",
    "adam",
    "adamw",
    "amsgrad",
    "nadam",
    "radam",
    "yogi",
    "adabelief",
    "adamax",
    "adadelta",
)
PAIRS = {
    "sgd": (optjax.sgd(RATE), optax.sgd(RATE)),
    "momentum": (optjax.sgd(RATE, 0.9), optax.sgd(RATE, 0.9)),
    **{
        name: (getattr(optjax, name)(RATE), getattr(optax, name)(RATE))
        for name in NAMES
    },
    "adabound": (optjax.adabound(RATE), optax.adam(RATE)),
    "amsbound": (optjax.amsbound(RATE), optax.amsgrad(RATE)),
}


def stages(optimizer, shapes):
    """A step traced, lowered and compiled, and the CPU seconds of each."""
    jax.clear_caches()
    params = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    state = jax.eval_shape(optimizer.init, params)

    def step(params, state, grads):
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    times = [time.process_time()]
    traced = jax.jit(step, donate_argnums=(0, 1)).trace(params, state, params)
    times.append(time.process_time())
    lowered = traced.lower()
    times.append(time.process_time())
    compiled = lowered.compile()
    times.append(time.process_time())
    took = [after - before for before, after in itertools.pairwise(times)]
    return (traced, lowered, compiled), [*took, times[-1] - times[0]]


def equations(jaxpr):
    return sum(
        1 + sum(map(equations, jaxprs_in_params(eqn.params))) for eqn in jaxpr.eqns
    )


def instructions(text):
    return len(re.findall(r"^\s+(?:ROOT )?%?[\w.\-]+ = ", text, re.MULTILINE))


def counts(optimizer):
    """Equations, StableHLO and compiled HLO instructions that one more leaf adds."""

    def of(leaves):
        (traced, lowered, compiled), _ = stages(optimizer, [(8, 8)] * leaves)
        return (
            equations(traced.jaxpr.jaxpr),
            lowered.as_text().count(" = "),
            instructions(compiled.as_text()),
        )

    return [(many - few) / 4 for many, few in zip(of(8), of(4), strict=True)]


def counts_table():
    lines = [
        "| optimizer | equations | Optax's | StableHLO | Optax's | HLO | Optax's |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, pair in PAIRS.items():
        ours, theirs = map(counts, pair)
        cells = [f"{n:.0f}" for both in zip(ours, theirs, strict=True) for n in both]
        lines.append(f"| {name} | {' | '.join(cells)} |")
        say(lines[-1])
    return lines


def time_row(name, shapes, rounds):
    for optimizer in PAIRS[name]:
        stages(optimizer, shapes[:2])
    took = {0: [], 1: []}
    for _, which in turns([0, 1], rounds):
        took[which].append(stages(PAIRS[name][which], shapes)[1])
    columns = [
        [list(column) for column in zip(*took[which], strict=True)] for which in (0, 1)
    ]
    stage_ratios = [
        f"{statistics.median(ratios(ours, theirs)):.2f}"
        for ours, theirs in zip(columns[0][:3], columns[1][:3], strict=True)
    ]
    ours, theirs = columns[0][3], columns[1][3]
    cells = [
        f"{statistics.median(ours):.3f}",
        f"{statistics.median(theirs):.3f}",
        *stage_ratios,
        spread(ratios(ours, theirs)),
    ]
    line = f"| {name} | {' | '.join(cells)} |"
    say(line)
    return line


def times_table(title, names, shapes, rounds):
    say(title)
    return [
        "",
        f"## {title}, {rounds} rounds",
        "",
        "| optimizer | optjax s | Optax s | trace | lower | compile | all (min–max) |",
        "|---|---|---|---|---|---|---|",
        *(time_row(name, shapes, rounds) for name in names),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--many", type=int, default=300, help="leaves of one shape")
    parser.add_argument("--most", type=int, default=1000, help="for adam and adabound")
    parser.add_argument("--distinct", type=int, default=30, help="leaves, none alike")
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).with_suffix(".md")
    )
    arguments = parser.parse_args()
    rounds = arguments.rounds
    few = ["adam", "adabound"]
    tables = [
        times_table("One leaf", PAIRS, [(64, 64)], rounds),
        times_table(
            f"{arguments.many} leaves of one shape",
            PAIRS,
            [(64, 64)] * arguments.many,
            rounds,
        ),
        times_table(
            f"{arguments.most} leaves of one shape",
            few,
            [(64, 64)] * arguments.most,
            max(3, rounds // 2),
        ),
        times_table(
            f"{arguments.distinct} leaves, no two of one shape",
            few,
            [(64, 40 + i) for i in range(arguments.distinct)],
            rounds,
        ),
    ]
    lines = [
        "# Compiling a step",
        "",
        machine(["jax", "jaxlib", "optax"]),
        "",
        "`update` and `apply_updates` under one `jit`, buffers donated, float32. Times "
        "are CPU seconds of the process; ratios are optjax to Optax, medians of paired "
        "rounds. AdaBound is set against Optax's Adam, AMSBound against its AMSGrad. "
        f"Load of the machine at the end: {load()}.",
        "",
        "## What one more leaf adds",
        "",
        *counts_table(),
        *(line for table in tables for line in table),
    ]
    if arguments.output.exists():
        _, heading, tried = arguments.output.read_text().partition(TRIED)
        lines += ["", (heading + tried).rstrip()]
    arguments.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
