"""What seeing the rates costs: python benchmarks/monitor.py.

AdaBound alone and under `optjax.monitor`, in a scan of 100 steps on several trees, and
the seconds to lower and compile that scan. Writes monitor.md beside this file.
"""

import argparse
import gc
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from measuring import calls_for, load, machine, ratios, say, seconds, spread, turns

import optjax
from optjax.tasks import digits
from optjax.tasks.models import resnet34

STEPS = 100


def shapes_of(make_model):
    state = nnx.to_pure_dict(nnx.state(nnx.eval_shape(make_model), nnx.Param))
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float32), state
    )


def layers(count, *shape):
    like = jax.ShapeDtypeStruct(shape, jnp.float32)
    return {f"layer_{i}": {"kernel": like} for i in range(count)}


TREES = {
    "digits MLP": lambda: shapes_of(lambda: digits.MLP(nnx.Rngs(0))),
    "50 layers of 64 × 65": lambda: layers(50, 64, 65),
    "ResNet-34": lambda: shapes_of(lambda: resnet34((32, 32, 3), 10, rngs=nnx.Rngs(0))),
    "one leaf of 4 M": lambda: layers(1, 4_000_000),
}

BARE = "alone"
WAYS = {
    BARE: lambda tx: tx,
    "every=0": lambda tx: optjax.monitor(tx, every=0),
    "every=100": lambda tx: optjax.monitor(tx, every=100),
    "every=1": lambda tx: optjax.monitor(tx, every=1),
}

COLUMNS = (
    *("tree", "leaves", "parameters", "ms alone"),
    *list(WAYS)[1:],
    *("a summary, ms", "compiling"),
)


class Training:
    """A scan of AdaBound's steps on one tree, compiled, and where it has got to."""

    def __init__(self, wrap, like):
        tx = wrap(optjax.adabound(1e-3))

        def steps(params, state, grads):
            def step(carry, _):
                params, state = carry
                updates, state = tx.update(grads, state, params)
                return (optax.apply_updates(params, updates), state), None

            return jax.lax.scan(step, (params, state), length=STEPS)[0]

        jitted = jax.jit(steps, donate_argnums=(0, 1))
        state = jax.eval_shape(tx.init, like)
        # As `timeit` does: of two ways one or the other would be collected in.
        gc.collect()
        gc.disable()
        began = time.perf_counter()
        self.program = jitted.lower(like, state, like).compile()
        self.compiling = time.perf_counter() - began
        gc.enable()
        params = jax.tree.map(lambda x: jnp.ones(x.shape), like)
        self.grads = jax.tree.map(lambda x: jnp.full(x.shape, 1e-3), like)
        self.carry = params, jax.jit(tx.init)(params)

    def run(self, calls):
        for _ in range(calls):
            self.carry = self.program(*self.carry, self.grads)
        jax.block_until_ready(self.carry)


def row(name, like, rounds):
    ways = {way: Training(wrap, like) for way, wrap in WAYS.items()}
    calls = {}
    for way, training in ways.items():
        training.run(1)
        calls[way] = calls_for(seconds(training.run, 1), 1, 0.3)
    took = {way: [] for way in ways}
    for _, way in turns(list(ways), rounds):
        one = seconds(ways[way].run, calls[way]) / calls[way] / STEPS
        took[way].append(one * 1e3)
    summary = [
        every - bare for every, bare in zip(took["every=1"], took[BARE], strict=True)
    ]
    leaves = jax.tree.leaves(like)
    size = sum(leaf.size for leaf in leaves)
    compiling = {way: [] for way in (BARE, "every=100")}
    for _, way in turns(list(compiling), rounds):
        compiling[way].append(Training(WAYS[way], like).compiling)
    line = (
        f"| {name} | {len(leaves)} | {size:,} | {spread(took[BARE])} | "
        + " | ".join(spread(ratios(took[way], took[BARE])) for way in list(WAYS)[1:])
        + f" | {statistics.median(summary):.3g} | "
        + f"{spread(ratios(compiling['every=100'], compiling[BARE]))} |"
    )
    say(line)
    return line


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--trees", nargs="+", choices=list(TREES), default=list(TREES))
    add("--rounds", type=int, default=7)
    add("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    arguments = parser.parse_args()
    before = f"{datetime.now(UTC):%Y-%m-%d}, load {load()} at the start"
    rows = [row(name, TREES[name](), arguments.rounds) for name in arguments.trees]
    text = f"""# The monitor

{machine(("jax", "jaxlib", "optax", "optjax"))}; {before}.

AdaBound alone and under `optjax.monitor`, {STEPS} steps in one scan, float32, state
donated: milliseconds a step, and the monitored step's time to the bare one's in the
same round; medians (least–most) of {arguments.rounds} rounds. A summary: what one adds,
the difference of `every=1` and alone. Compiling: `every=100` to alone, with Python's
garbage left.

| {" | ".join(COLUMNS)} |
|{"---|" * len(COLUMNS)}
"""
    arguments.out.write_text(text + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
