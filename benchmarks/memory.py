"""What state in fewer bits saves and costs: python benchmarks/memory.py.

Adam, or another row, trains the digits MLP, a small character-level language model and,
with `--images FOLDER`, a convolutional network on CIFAR-10: with its state in float32,
in bfloat16 by plain casts (nearest), in bfloat16 with stochastic rounding and in eight
bits, from the same seeds. Writes memory.md and docs/figures/memory.png, or with `--out
FILE` only the tables of what was trained. Needs the extra `race`.
"""

import argparse
import functools
import itertools
import os
import platform
import pydoc_data.topics
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx
from matplotlib.ticker import MaxNLocator

import optjax
from optjax._rounding import random_bits, round_stochastically
from optjax.sweep import fast_convolutions
from optjax.sweep._trial import Trial
from optjax.tasks import Recipe, digits, images
from optjax.tasks._data.images import load_images

CONTEXT, EMBEDDING, HIDDEN, BATCH = 16, 24, 256, 256
VALIDATION_WINDOWS = 8192
LEARNING_RATE = 1e-3
EVALUATIONS = 20
TASKS = ("digits", "text", "images")


def nearest(optimizer):
    """The same storage, rounded by a plain cast."""

    def cast(state, old, new):
        return jax.tree.map(
            lambda x: x.astype(new) if x.ndim and x.dtype == old else x, state
        )

    def init(params):
        return cast(optimizer.init(params), jnp.float32, jnp.bfloat16)

    def update(updates, state, params=None):
        state = cast(state, jnp.bfloat16, jnp.float32)
        updates, state = optimizer.update(updates, state, params)
        return updates, cast(state, jnp.float32, jnp.bfloat16)

    return optax.GradientTransformation(init, update)


WAYS = {
    "float32": lambda tx: tx,
    "bfloat16, nearest": nearest,
    "bfloat16, stochastic": optjax.stochastic_rounding,
    "eight bits": optjax.compressed,
}


class CharState(NamedTuple):
    params: dict
    opt_state: optax.OptState
    key: jax.Array
    hyper: dict
    updates_done: jax.Array


def characters(factory, text):
    """Predict a character from the 16 before it; the last tenth validates."""
    vocabulary, ids = np.unique(list(text), return_inverse=True)
    ids, size = jnp.asarray(ids, jnp.int32), len(vocabulary)
    split = len(text) * 9 // 10
    window = jnp.arange(CONTEXT + 1)
    validation = np.random.default_rng(0).integers(
        split, len(text) - CONTEXT - 1, VALIDATION_WINDOWS
    )

    def loss(params, starts):
        windows = ids[starts[:, None] + window]
        x = params["embedding"][windows[:, :-1]].reshape(len(starts), -1)
        x = jax.nn.relu(x @ params["hidden"] + params["hidden_bias"])
        logits = x @ params["output"] + params["output_bias"]
        return optax.softmax_cross_entropy_with_integer_labels(
            logits, windows[:, -1]
        ).mean()

    def init(key, hyper):
        keys = jax.random.split(key, 4)
        glorot = jax.nn.initializers.glorot_normal()
        params = {
            "embedding": 0.3 * jax.random.normal(keys[0], (size, EMBEDDING)),
            "hidden": glorot(keys[1], (CONTEXT * EMBEDDING, HIDDEN)),
            "hidden_bias": jnp.zeros(HIDDEN),
            "output": glorot(keys[2], (HIDDEN, size)),
            "output_bias": jnp.zeros(size),
        }
        opt_state = factory(**hyper).init(params)
        return CharState(params, opt_state, keys[3], hyper, jnp.zeros((), jnp.int32))

    def step(state):
        key = jax.random.fold_in(state.key, state.updates_done)
        starts = jax.random.randint(key, (BATCH,), 0, split - CONTEXT - 1)
        value, grads = jax.value_and_grad(loss)(state.params, starts)
        updates, opt_state = factory(**state.hyper).update(
            grads, state.opt_state, state.params
        )
        state = state._replace(
            params=optax.apply_updates(state.params, updates),
            opt_state=opt_state,
            updates_done=state.updates_done + 1,
        )
        return state, {"train_loss": value}

    def evaluate(state):
        return {"val_loss": loss(state.params, validation)}

    return Trial(init, step, evaluate)


class Convolutions(nnx.Module):
    """Three 3×3 convolutions, the last two with strides of 2."""

    def __init__(self, shape, classes, *, dtype, rngs):
        widths = (shape[-1], 16, 32, 64)
        self.layers = nnx.List(
            [
                nnx.Conv(a, b, (3, 3), strides=min(i + 1, 2), dtype=dtype, rngs=rngs)
                for i, (a, b) in enumerate(itertools.pairwise(widths))
            ]
        )
        self.head = nnx.Linear(widths[-1], classes, dtype=dtype, rngs=rngs)

    def __call__(self, x):
        for layer in self.layers:
            x = nnx.relu(layer(x))
        return self.head(x.mean((1, 2)))


def convolutions(source):
    """The trial of a factory on the images of a folder, 2,000 of which validate."""
    data = load_images(source)
    data = data._replace(test_x=data.test_x[:2000], test_y=data.test_y[:2000])
    return functools.partial(
        images.trial,
        data=data,
        make_model=Convolutions,
        recipe=Recipe(batch_size=64, epochs=100, decay_after=100, weight_decay=0.0),
        augment=False,
    )


def nbytes(tree):
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def train(name, make_trial, factory, steps, every, seeds):
    """Bytes a parameter and losses for each way, on equal batches.

    Losses have axes (seed, evaluation, training or validation).
    """
    sizes, losses = {}, {}
    for way, wrap in WAYS.items():
        trial = make_trial(
            lambda learning_rate, wrap=wrap: wrap(factory(learning_rate))
        )
        init, evaluate = jax.jit(trial.init), jax.jit(trial.evaluate)

        @functools.partial(jax.jit, donate_argnums=0)
        @fast_convolutions
        def advance(state, trial=trial):
            state, metrics = jax.lax.scan(
                lambda state, _: trial.step(state), state, length=every
            )
            return state, metrics["train_loss"].mean()

        rows = []
        for seed in range(seeds):
            began = time.perf_counter()
            state = init(
                jax.random.key(seed), {"learning_rate": jnp.float32(LEARNING_RATE)}
            )
            count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
            sizes[way] = nbytes(state.opt_state) / count
            row = []
            for _ in range(steps // every):
                state, train_loss = advance(state)
                row.append([float(train_loss), float(evaluate(state)["val_loss"])])
            rows.append(row)
            print(
                f"{name}, {way}, seed {seed}: training {row[-1][0]:.4f}, validation "
                f"{row[-1][1]:.4f}, {time.perf_counter() - began:.1f} s",
                flush=True,
            )
        losses[way] = np.asarray(rows)
    return count, sizes, losses


def apart(losses, way):
    """The farthest that a mean curve gets from float32's, in standard deviations.

    Of one seed's loss, pooled over both ways, at each evaluation; one number for the
    training loss and one for the validation loss.
    """
    ours, base = losses[way], losses["float32"]
    spread = np.sqrt((ours.var(axis=0, ddof=1) + base.var(axis=0, ddof=1)) / 2)
    distance = np.abs(ours.mean(axis=0) - base.mean(axis=0)) / spread
    return distance.max(axis=0)


def training_table(name, steps, seeds, count, sizes, losses):
    out = [
        f"## {name}: {count:,} parameters, {steps:,} steps, {seeds} seeds",
        "",
        "Final losses, mean ± standard deviation over seeds; how far the mean curve "
        "gets from float32's, in such standard deviations.",
        "",
        "| state | bytes a parameter | training loss | validation loss | "
        "training curve off by | validation curve off by |",
        "|---|---|---|---|---|---|",
    ]
    conclusions = []
    for way, values in losses.items():
        final = values[:, -1]
        mean, spread = final.mean(axis=0), final.std(axis=0, ddof=1)
        off = ["–", "–"]
        if way != "float32":
            farthest = apart(losses, way)
            off = [f"{value:.2f}" for value in farthest]
            agree = "agree" if farthest.max() <= 1 else "do not agree"
            conclusions.append(
                f"- {way}: the curves {agree} with float32's within seed noise."
            )
        out.append(
            f"| {way} | {sizes[way]:.2f} | {mean[0]:.4f} ± {spread[0]:.4f} | "
            f"{mean[1]:.4f} ± {spread[1]:.4f} | {off[0]} | {off[1]} |"
        )
    return [*out, "", *conclusions, ""]


def seconds(f, *args):
    began = time.perf_counter()
    result = jax.block_until_ready(f(*args))
    return time.perf_counter() - began, result


def update_and_apply(tx, grads, state, params):
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state


def time_steps(size, repeats, one, steps=10):
    """Milliseconds of a step for each way, interleaved; one large leaf."""
    g = jax.random.normal(jax.random.key(0), (size,))
    runs, carries, times = {}, {}, {way: [] for way in WAYS}
    for way, wrap in WAYS.items():
        tx = wrap(optjax.adam(LEARNING_RATE))

        def run(carry, g, tx=tx):
            def step(carry, _):
                params, state = carry
                return one(tx, g, state, params), None

            return jax.lax.scan(step, carry, length=steps)[0]

        params = jnp.zeros(size)
        runs[way] = jax.jit(run, donate_argnums=0)
        carries[way] = runs[way]((params, jax.jit(tx.init)(params)), g)
    for _ in range(repeats):
        for way, run in runs.items():
            took, carries[way] = seconds(run, carries[way], g)
            times[way].append(1e3 * took / steps)
    return times


def time_noise(size, repeats):
    """Milliseconds to round one array with noise from each source, interleaved."""
    x = jax.random.normal(jax.random.key(0), (size,))

    def threefry(x, key):
        return jax.random.bits(jax.random.wrap_key_data(key), (size,), jnp.uint32)

    def xla(x, key):
        return jax.lax.rng_bit_generator(jnp.tile(key, 2), (size,), jnp.uint32)[1]

    sources = {
        "plain cast, no noise": None,
        "a hash of number and position": random_bits,
        "`jax.random.bits` (threefry)": threefry,
        "`lax.rng_bit_generator`": xla,
    }
    runs, times = {}, {name: [] for name in sources}
    for name, bits in sources.items():

        def run(x, out, key, bits=bits):
            del out  # Its memory is the result's, so that no page is new.
            if bits is None:
                return x.astype(jnp.bfloat16)
            return round_stochastically(x, bits(x, key))

        runs[name] = jax.jit(run, donate_argnums=1, keep_unused=True)
    out = {name: jnp.zeros(size, jnp.bfloat16) for name in sources}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            key = jnp.array([repeat, 1], jnp.uint32)
            took, out[name] = seconds(run, x, out[name], key)
            if repeat:
                times[name].append(1e3 * took)
    return times


def time_table(times, what):
    base = next(iter(times.values()))
    out = [
        f"| {what} | median ms | min–max ms | times the first (paired median) |",
        "|---|---|---|---|",
    ]
    for name, values in times.items():
        ratio = statistics.median(v / b for v, b in zip(values, base, strict=True))
        out.append(
            f"| {name} | {statistics.median(values):.2f} | "
            f"{min(values):.2f}–{max(values):.2f} | {ratio:.2f} |"
        )
    return [*out, ""]


def timing(leaf, repeats):
    out = [
        f"## Time: Adam's update and apply, one leaf of {leaf:,}",
        "",
        *time_table(time_steps(leaf, repeats, update_and_apply), "state"),
        f"## Time: the same by `apply_step`, one leaf of {leaf:,}",
        "",
        *time_table(time_steps(leaf, repeats, optjax.apply_step), "state"),
        f"## Time: rounding {leaf:,} numbers",
        "",
        *time_table(time_noise(leaf, repeats), "noise from"),
    ]
    if hasattr(os, "getloadavg"):
        out += [
            f"Load of the machine while these were timed: {os.getloadavg()[0]:.1f} on "
            f"{os.cpu_count()} cores.",
            "",
        ]
    return out


def stalling(steps=5000, b2=0.999):
    """ν of Adam under equal gradients, each way."""
    g = jnp.ones(4096)
    curves = {}
    for way, wrap in WAYS.items():
        tx = wrap(optjax.ema_of_squares(b2, debias=False))

        def step(state, _, tx=tx):
            nu, state = tx.update(g, state)
            return state, nu.mean()

        state = jax.jit(tx.init)(g)
        curves[way] = jax.jit(
            lambda s, step=step: jax.lax.scan(step, s, length=steps)[1]
        )(state)
    return curves


def draw(path, stall, panels):
    # Okabe and Ito's palette; the widest line lies below, so that equal curves show.
    styles = {
        "float32": {"color": "#999999", "linewidth": 5},
        "bfloat16, nearest": {"color": "#D55E00", "linewidth": 1.8, "linestyle": "--"},
        "bfloat16, stochastic": {"color": "#0072B2", "linewidth": 1.8},
        "eight bits": {"color": "#009E73", "linewidth": 1.4, "linestyle": "-."},
    }
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.9), dpi=150, layout="constrained")
    for way, curve in stall.items():
        axes[0].plot(np.arange(1, len(curve) + 1), curve, label=way, **styles[way])
    axes[0].set(title="Adam's ν where every g² = 1, β₂ = 0.999", ylabel="ν")
    axes[0].set(ylim=(0, 1.05), xlim=(0, len(curve)))
    for axis, (title, every, losses) in zip(axes[1:], panels, strict=True):
        base = losses["float32"][..., 0]
        steps = every * np.arange(1, base.shape[1] + 1)
        spread = 100 * base.std(axis=0, ddof=1) / base.mean(axis=0)
        axis.fill_between(
            steps,
            -spread,
            spread,
            color="#DDDDDD",
            linewidth=0,
            label="one standard deviation over seeds" if axis is axes[1] else None,
        )
        for way, values in losses.items():
            excess = 100 * (values[..., 0].mean(axis=0) / base.mean(axis=0) - 1)
            axis.plot(steps, excess, **styles[way])
        axis.set(title=title, ylabel="training loss, % above float32's")
        axis.set_xlim(0, steps[-1])
    for axis in axes:
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    figure.legend(loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(path)
    print(f"wrote {path.name}")


def machine():
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if jax.default_backend() != "cpu":
        model = jax.devices()[0].device_kind
    elif cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return f"{model}; Python {platform.python_version()}, jax {jax.__version__}"


def roofline():
    """The loops of the compiled step in one thread, by instruction set."""
    source = Path(__file__).with_name("roofline.cc")
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder, "roofline")
        flags = ["-O3", "-std=c++17", "-fno-math-errno", "-fno-trapping-math"]
        headers = ["-isystem", jax.ffi.include_dir()]
        subprocess.run(["c++", *flags, *headers, source, "-o", built], check=True)
        table = subprocess.run([built], check=True, capture_output=True, text=True)
    return [
        "## What bounds the step: nanoseconds an element in one thread",
        "",
        "Arrays that stay in the first-level cache, and first float32 from memory, "
        "where a parameter moves 28 bytes; with bfloat16 state it moves 20, with eight "
        "bits 16. A state in fewer bits can be faster only where its own column is "
        "below the first, times the share of its bytes.",
        "",
        *table.stdout.splitlines(),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--text", type=Path, help="a text file; Python's documentation by default"
    )
    parser.add_argument("--text-name", help="what to call it in memory.md")
    parser.add_argument(
        "--rows", nargs="+", default=["adam"], help="rows of OPTIMIZERS to train with"
    )
    parser.add_argument(
        "--images", metavar="FOLDER", help="CIFAR-10; no images unless given"
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--digits-steps", type=int, default=2000)
    parser.add_argument("--text-steps", type=int, default=3000)
    parser.add_argument("--image-steps", type=int, default=600)
    parser.add_argument(
        "--only", nargs="+", choices=TASKS, default=list(TASKS), help="tasks"
    )
    parser.add_argument(
        "--out", type=Path, help="where to write what was trained, and time nothing"
    )
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--leaf", type=int, default=10_000_000)
    arguments = parser.parse_args()
    if arguments.seeds < 3:
        parser.error(
            "--seeds must be at least 3, or there is no spread to compare with"
        )
    if arguments.text is None:
        text = "\n".join(pydoc_data.topics.topics.values())
        text_name = f"Python's documentation, {len(text) / 1e6:.1f} MB"
    else:
        text = arguments.text.read_text(encoding="utf-8")
        text_name = f"{arguments.text.stem}, {len(text) / 1e6:.1f} MB"
    text_name = arguments.text_name or text_name

    out = ["# Optimizer state in bfloat16 and in eight bits", "", machine(), ""]
    panels = []
    data = digits.load()
    tasks = {
        "digits": (
            "Digits, MLP",
            functools.partial(digits.trial, data=data),
            arguments.digits_steps,
        ),
        "text": (
            f"Characters of {text_name}",
            functools.partial(characters, text=text),
            arguments.text_steps,
        ),
    }
    if arguments.images is not None:
        trial = convolutions(arguments.images)
        tasks["images"] = ("CIFAR-10, three convolutions", trial, arguments.image_steps)
    tasks = [tasks[name] for name in arguments.only if name in tasks]
    for row, (name, make_trial, steps) in itertools.product(arguments.rows, tasks):
        factory = optjax.OPTIMIZERS[row].factory
        every = steps // EVALUATIONS
        steps = every * EVALUATIONS
        result = train(name, make_trial, factory, steps, every, arguments.seeds)
        table = training_table(f"{name}, {row}", steps, arguments.seeds, *result)
        print("\n" + "\n".join(table), flush=True)
        out += table
        # The figure is of the first row.
        if len(panels) < len(tasks):
            panels.append((name, every, result[-1]))
    if arguments.out is not None:
        arguments.out.write_text("\n".join(out).rstrip() + "\n")
        return
    print("timing", flush=True)
    out += [*timing(arguments.leaf, arguments.repeats), *roofline()]
    path = Path(__file__).with_suffix(".md")
    path.write_text("\n".join(out).rstrip() + "\n")
    print(path.read_text())
    figures = Path(__file__).parent.parent / "docs" / "figures"
    draw(figures / "memory.png", stalling(), panels)


if __name__ == "__main__":
    main()
