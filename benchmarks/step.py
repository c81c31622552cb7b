"""What a step of an optimizer costs, side by side: python benchmarks/step.py.

Optimizers on trees of parameters, by every peer that is installed: the seconds to
lower and compile a step, the time of a step alone with its buffers donated, and of one
of 20 steps in one `lax.scan` (PyTorch: in a loop). PyTorch and the package `adabound`
are optional.

Measurements are kept in step.json beside the report, where a run replaces those that
it makes again; the report and docs/figures/step.png are made from all of them.
"""

import argparse
import functools
import importlib
import importlib.util
import itertools
import json
import math
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from measuring import (
    calls_for,
    cores,
    load,
    machine,
    ratios,
    say,
    seconds,
    spread,
    turns,
)

import optjax
from optjax.tasks import digits
from optjax.tasks.models import densenet121, resnet34

RATE = 1e-3
STEPS_IN_SCAN = 20
STREAMED = 64 * 2**20
SLOW_COMPILE = 10.0
FINE_TICKS = (0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10)
TICKS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)
FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "step.png"

PARTS = {
    "compile": "Lower and compile the step, seconds",
    "step": "A step alone, milliseconds",
    "scan": f"One of {STEPS_IN_SCAN} steps in one scan, milliseconds",
}
#: The compiled step with its state stored otherwise: how, and the bytes of a number.
STORED = {
    "optjax packed": (optjax.packed, 4.0),
    "optjax bfloat16": (optjax.stochastic_rounding, 2.0),
    "optjax eight bits": (optjax.compressed, 1.0 + 4 / 128),
}
PEERS = (
    "optjax pure",
    "optjax fused",
    *STORED,
    "optax",
    "torch fused",
    "torch foreach",
    "adabound",
)
LABELS = {"adabound": "adabound (PyPI)"}


# -------------------------------------------------------------------------- optimizers


class Rule(NamedTuple):
    """An optimizer in each library.

    A step must at least read the gradients, and read and write the parameters and
    each of the `slots` arrays of state.
    """

    slots: int
    in_optjax: Callable
    in_optax: Callable
    in_torch: tuple[str, dict] | None

    def bytes_moved(self, peer):
        """For each parameter."""
        _, number = STORED.get(peer, (None, 4.0))
        return 3 * 4.0 + 2 * self.slots * number


OPTIMIZERS = {
    "sgd-momentum": Rule(
        1,
        lambda: optjax.sgd(RATE, momentum=0.9),
        lambda: optax.sgd(RATE, momentum=0.9),
        ("SGD", {"momentum": 0.9}),
    ),
    "adam": Rule(2, lambda: optjax.adam(RATE), lambda: optax.adam(RATE), ("Adam", {})),
    "adamw": Rule(
        2,
        lambda: optjax.adamw(RATE, weight_decay=1e-2),
        lambda: optax.adamw(RATE, weight_decay=1e-2),
        ("AdamW", {"weight_decay": 1e-2}),
    ),
    "amsgrad": Rule(
        3,
        lambda: optjax.amsgrad(RATE),
        lambda: optax.amsgrad(RATE),
        ("Adam", {"amsgrad": True}),
    ),
    # Optax has no AdaBound; its Adam moves as many arrays.
    "adabound": Rule(2, lambda: optjax.adabound(RATE), lambda: optax.adam(RATE), None),
}


# ------------------------------------------------------------------------------- trees


def shapes_of(make_model):
    state = nnx.state(nnx.eval_shape(make_model), nnx.Param)
    return [leaf.shape for leaf in jax.tree.leaves(state)]


def gpt2():
    """The shapes of GPT-2's smallest model; the logits share the embedding."""
    width, layers = 768, 12
    block = [
        *[(width,), (width,)],
        *[(width, 3 * width), (3 * width,), (width, width), (width,)],
        *[(width,), (width,)],
        *[(width, 4 * width), (4 * width,), (4 * width, width), (width,)],
    ]
    return [(50257, width), (1024, width), *(layers * block), (width,), (width,)]


IMAGE = ((32, 32, 3), 10)
TREES = {
    "digits MLP": lambda: shapes_of(lambda: digits.MLP(nnx.Rngs(0))),
    "one leaf": lambda: [(10_000_000,)],
    "DenseNet-121": lambda: shapes_of(lambda: densenet121(*IMAGE, rngs=nnx.Rngs(0))),
    "ResNet-34": lambda: shapes_of(lambda: resnet34(*IMAGE, rngs=nnx.Rngs(0))),
    "GPT-2": gpt2,
    "small leaves": lambda: list(
        itertools.islice(itertools.cycle([(64, 64), (64,), (64, 32), (32,)]), 3000)
    ),
}


class Arrays:
    """Parameters and gradients of given shapes; each library's gradients made once."""

    def __init__(self, shapes):
        self.shapes = shapes
        self.size = sum(math.prod(shape) for shape in shapes)
        self._noise = np.random.default_rng(0).standard_normal(2**20, np.float32)

    def like(self, scale):
        return [np.resize(scale * self._noise, shape) for shape in self.shapes]

    @functools.cached_property
    def jax_grads(self):
        return [jnp.array(x) for x in self.like(1e-3)]

    @functools.cached_property
    def torch_grads(self):
        return [to_torch(x) for x in self.like(1e-3)]


# ------------------------------------------------------------------------------- peers


class JaxPeer:
    """An Optax transformation and how to make a step of it; needs `compile` first."""

    def __init__(self, optimizer, step, arrays):
        self.optimizer, self.step, self.arrays = optimizer, step, arrays
        self.programs = {}
        self.carry = None

        def one(params, state, grads):
            return step(optimizer, grads, state, params)

        def many(params, state, grads):
            return jax.lax.scan(
                lambda carry, _: (one(*carry, grads), None),
                (params, state),
                length=STEPS_IN_SCAN,
            )[0]

        self.functions = {"step": one, "scan": many}
        like = [jax.ShapeDtypeStruct(s, jnp.float32) for s in arrays.shapes]
        self.like = like, jax.eval_shape(optimizer.init, like), like

    def compile(self, part):
        # In one order among arguments and results, or XLA exchanges the buffers.
        program = jax.jit(self.functions[part], donate_argnums=(0, 1))
        self.programs[part] = program.lower(*self.like).compile()

    def prepare(self):
        params = [jnp.array(x) for x in self.arrays.like(1.0)]
        self.carry = jax.block_until_ready((params, self.optimizer.init(params)))
        jax.block_until_ready(self.arrays.jax_grads)

    def run(self, part, calls):
        program, grads = self.programs[part], self.arrays.jax_grads
        params, state = self.carry
        for _ in range(calls):
            params, state = program(params, state, grads)
        self.carry = jax.block_until_ready((params, state))

    def release(self):
        self.carry = None


def updated(optimizer, grads, state, params):
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state


class TorchPeer:
    """A PyTorch optimizer, `make(params)`."""

    def __init__(self, make, arrays):
        self.make, self.arrays = make, arrays
        self.optimizer = None

    def prepare(self):
        import torch

        params = [torch.nn.Parameter(to_torch(x)) for x in self.arrays.like(1.0)]
        for param, grad in zip(params, self.arrays.torch_grads, strict=True):
            param.grad = grad
        self.optimizer = self.make(params)

    def run(self, part, calls):
        for _ in range(calls * (STEPS_IN_SCAN if part == "scan" else 1)):
            self.optimizer.step()
        if torch_device() != "cpu":
            import torch

            torch.cuda.synchronize()

    def release(self):
        self.optimizer = None


def torch_device():
    return "cpu" if jax.default_backend() == "cpu" else "cuda"


def to_torch(x):
    import torch

    # NumPy asks for huge pages, which PyTorch and JAX do not.
    return torch.from_numpy(x).clone().to(torch_device())


def make_peers(names, rule, optimizer, arrays):
    """Those of the peers that are installed and have the optimizer, by name."""
    peers: dict[str, Any] = {}
    if "optjax pure" in names:
        peers["optjax pure"] = JaxPeer(rule.in_optjax(), updated, arrays)
    is_fused = optjax.fused_step_available() and jax.default_backend() == "cpu"
    compiled = {"optjax fused": lambda optimizer: optimizer}
    compiled |= {name: store for name, (store, _) in STORED.items()}
    for name, store in compiled.items():
        if name in names and is_fused:
            stored = store(rule.in_optjax())
            peers[name] = JaxPeer(stored, optjax.apply_step, arrays)
    if "optax" in names:
        peers["optax"] = JaxPeer(rule.in_optax(), updated, arrays)
    if not has_torch():
        return peers
    for way in ("fused", "foreach"):
        if f"torch {way}" in names and rule.in_torch is not None:
            name, options = rule.in_torch
            make = functools.partial(
                getattr(importlib.import_module("torch").optim, name),
                lr=RATE,
                **{way: True},
                **options,
            )
            peers[f"torch {way}"] = TorchPeer(make, arrays)
    has_adabound = importlib.util.find_spec("adabound") is not None
    if optimizer == "adabound" and "adabound" in names and has_adabound:
        make = functools.partial(importlib.import_module("adabound").AdaBound, lr=RATE)
        peers["adabound"] = TorchPeer(make, arrays)
    return peers


def has_torch():
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch_device() == "cpu" or torch.cuda.is_available()


# ------------------------------------------------------------------------- measurement


class Bandwidth:
    """Bytes a second between memory and all cores, by arrays that no cache holds.

    A copy counts as two arrays, but where a store first fetches what it overwrites,
    as on CPUs, it moves three; y ← y + x moves three and counts as three.
    """

    def __init__(self):
        self.x, self.y = jnp.ones(STREAMED), jnp.ones(STREAMED)
        self.copy = jax.jit(lambda x, out: -x, donate_argnums=1, keep_unused=True)
        self.add = jax.jit(lambda x, y: y + x, donate_argnums=1)

    def stream(self, program, calls):
        for _ in range(calls):
            self.y = program(self.x, self.y)
        self.y.block_until_ready()

    def measure(self):
        """The rates of both, medians."""
        rates = {}
        for name, program, arrays in (("copy", self.copy, 2), ("add", self.add, 3)):
            self.stream(program, 1)
            took = statistics.median(seconds(self.stream, program, 5) for _ in range(5))
            rates[name] = float(f"{5 * arrays * 4 * STREAMED / took:.4g}")
        return rates


def time_compilation(peers, rounds):
    """Seconds of each JAX peer in each round; one round where that takes long."""
    peers = {name: peer for name, peer in peers.items() if isinstance(peer, JaxPeer)}
    times = {name: [] for name in peers}
    for peer in peers.values():
        # What is loaded once a process is no part of it.
        JaxPeer(peer.optimizer, peer.step, Arrays([(1,)])).compile("step")
    for number, name in turns(list(peers), rounds):
        if number and max(values[0] for values in times.values()) > SLOW_COMPILE:
            break
        # What one peer's trace leaves in JAX's caches, the next one would find.
        jax.clear_caches()
        times[name].append(seconds(peers[name].compile, "step"))
        say(f"    compile, round {number + 1}, {name}: {times[name][-1]:.2f} s")
    return times


def time_steps(peers, parts, rounds, keep):
    """Seconds a step of each peer, in each part and round.

    Args:
        peers: with their programs compiled.
        parts: of step and scan.
        rounds: how many.
        keep: keep the arrays of all peers, or make them anew in each turn.
    """
    times = {part: {name: [] for name in peers} for part in parts}
    steps = {"step": 1, "scan": STEPS_IN_SCAN}
    least = {"step": 5, "scan": 1}
    calls, prepared = {}, set()
    for number, name in turns(list(peers), rounds):
        peer = peers[name]
        if name not in prepared:
            peer.prepare()
            prepared.add(name)
        peer.run(parts[0], 1)
        for part in parts:
            if (part, name) not in calls:
                # The first call may also be the first to touch the memory.
                peer.run(part, 1)
                took = seconds(peer.run, part, 1)
                calls[part, name] = calls_for(took, least[part])
            count = calls[part, name]
            took = seconds(peer.run, part, count) / (count * steps[part])
            times[part][name].append(took)
            say(f"    {part}, round {number + 1}, {name}: {1e3 * took:.3f} ms")
        if not keep:
            peer.release()
            prepared.discard(name)
    for peer in peers.values():
        peer.release()
    return times


def measure(arrays, optimizer, arguments, parts, peer_names):
    """Seconds by part and peer."""
    rule = OPTIMIZERS[optimizer]
    peers = make_peers(peer_names, rule, optimizer, arrays)
    results = {}
    if "compile" in parts:
        results["compile"] = time_compilation(peers, arguments.rounds)
    timed = [part for part in ("step", "scan") if part in parts]
    if not timed:
        return results
    for name, peer in peers.items():
        for part in timed:
            if isinstance(peer, JaxPeer) and part not in peer.programs:
                say(f"    compiling {part}, {name}")
                peer.compile(part)
    grads = 1 + has_torch()
    needed = 4 * arrays.size * (len(peers) * (1 + rule.slots) + grads)
    keep = needed <= 1e9 * arguments.memory
    return results | time_steps(peers, timed, arguments.rounds, keep)


# ------------------------------------------------------------------------- the records


class Records:
    """All measurements, by what was measured; a file keeps them from run to run."""

    def __init__(self, path):
        self.path = path
        self.rows = json.loads(path.read_text()) if path.exists() else []

    def add(self, key, about, times):
        def is_other(row):
            return any(row[name] != value for name, value in key.items())

        for part, by_peer in times.items():
            self.rows = [r for r in self.rows if is_other(r) or r["part"] != part]
            for peer, values in by_peer.items():
                row = {**key, "part": part, "peer": peer, **about}
                values = [float(f"{value:.4g}") for value in values]
                self.rows.append({**row, "seconds": values})
        rows = ",\n".join(json.dumps(row) for row in self.rows)
        self.path.write_text(f"[\n{rows}\n]\n")

    def of(self, **key):
        """Rows by peer."""
        found = [
            row for row in self.rows if all(row[name] == key[name] for name in key)
        ]
        return {row["peer"]: row for row in found}

    def runs(self):
        return list(dict.fromkeys(row["run"] for row in self.rows))


def title(tree, row):
    leaves = f"{row['leaves']:,} lea{'f' if row['leaves'] == 1 else 'ves'}"
    return f"{tree}: {leaves}, {row['parameters']:,} parameters"


def compared(row, other):
    """The paired ratios to another peer's times, where both are of one run."""
    if other is None or other["run"] != row["run"]:
        return None
    return ratios(row["seconds"], other["seconds"])


def peer_name(row):
    """AdaBound has no like in Optax, whose Adam stands for it."""
    if (row["optimizer"], row["peer"]) == ("adabound", "optax"):
        return "optax (its Adam)"
    return LABELS.get(row["peer"], row["peer"])


def table(records, tree, part):
    """Lines of one tree and part, or none."""
    lines = []
    for optimizer, rule in OPTIMIZERS.items():
        rows = records.of(tree=tree, optimizer=optimizer, part=part)
        for name in PEERS:
            if name not in rows:
                continue
            row = rows[name]
            times = row["seconds"]
            cells = [optimizer, peer_name(row)]
            cells.append(spread([t if part == "compile" else 1e3 * t for t in times]))
            others = ("optax", "optjax fused", "torch fused")
            for other in others[:1] if part == "compile" else others:
                found = compared(row, rows.get(other))
                cells.append("–" if found is None else spread(found))
            if part != "compile":
                moved = rule.bytes_moved(name) * row["parameters"]
                rate = moved / statistics.median(times)
                cells.append(f"{rate / 1e9:.1f}")
                cells += [f"{100 * rate / row[name]:.0f} %" for name in ("copy", "add")]
            cells.append(str(1 + records.runs().index(row["run"])))
            lines.append(f"| {' | '.join(cells)} |")
    if not lines:
        return []
    columns = ["optimizer", "peer", "seconds" if part == "compile" else "ms", "× Optax"]
    if part != "compile":
        columns += [
            "× optjax fused",
            "× torch fused",
            "GB/s",
            "of a copy",
            "of y ← y + x",
        ]
    columns.append("run")
    head = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    return [f"### {PARTS[part]}", "", *head, *lines, ""]


def linear_table(records):
    rows = [row for row in records.rows if row["tree"] == "linear"]
    if not rows:
        return []
    sizes = sorted({row["parameters"] for row in rows})
    lines = [
        "## Cost by parameters",
        "",
        "Adam on one leaf: nanoseconds a parameter. What the caches hold is faster, "
        "and a call of a step alone costs some time whatever its size.",
        "",
        "| parameters | peer | a step alone | in a scan | run |",
        "|---|---|---|---|---|",
    ]
    for size in sizes:
        alone = records.of(tree="linear", parameters=size, part="step")
        scan = records.of(tree="linear", parameters=size, part="scan")
        for name in [name for name in PEERS if name in alone and name in scan]:
            cells = [f"{size:,}", name]
            for row in (alone[name], scan[name]):
                cells.append(spread([1e9 * t / size for t in row["seconds"]]))
            cells.append(str(1 + records.runs().index(alone[name]["run"])))
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *exponents(rows), ""]
    return lines


def exponents(rows):
    """The slope of log time by log size, over all sizes, where linear is 1."""
    for name in PEERS:
        points = [
            (math.log(row["parameters"]), math.log(statistics.median(row["seconds"])))
            for row in rows
            if row["peer"] == name and row["part"] == "scan"
        ]
        if len(points) > 1:
            slope = np.polyfit(*zip(*points, strict=True), 1)[0]
            yield f"- {name}: time in a scan grows as parameters to the {slope:.2f}."


def report(records):
    lines = [
        "# A step of an optimizer",
        "",
        "Median (least–most) over rounds, in which all peers of an optimizer and tree "
        "take turns; ratios are of times in the same round. GB/s are the least bytes "
        "that a step must move (gradients read; parameters and state read and written) "
        "by its median time, beside those of a copy (two arrays) and of y ← y + x "
        f"(three) of {4 * STREAMED / 2**20:.0f} MiB by all cores, measured just "
        "before; a CPU fetches what a copy overwrites, a third array, and a step that "
        "stays in the caches has more than 100 %. State and parameters are float32, "
        "but for the state of the peers that are named after theirs. "
        "Optax has no AdaBound: its Adam stands for it.",
        "",
        "Runs:",
        "",
    ]
    for number, run in enumerate(records.runs()):
        lines.append(f"{number + 1}. {run}")
    lines.append("")
    for tree in TREES:
        rows = [row for row in records.rows if row["tree"] == tree]
        if rows:
            lines += [f"## {title(tree, rows[0])}", ""]
            for part in PARTS:
                lines += table(records, tree, part)
    return "\n".join([*lines, *linear_table(records)]).rstrip() + "\n"


# -------------------------------------------------------------------------- the figure


def draw(records, path):
    """Ratios to Optax: a panel for each part, a line for each tree and peer."""
    import matplotlib.pyplot as plt

    # Okabe and Ito's palette.
    colours = {
        "optjax fused": "#D55E00",
        "optjax pure": "#0072B2",
        "torch fused": "#009E73",
        "torch foreach": "#56B4E9",
        "adabound": "#999999",
    }
    markers = dict(zip(OPTIMIZERS, "so^Dv", strict=True))
    points = []
    for row in records.rows:
        if row["tree"] not in TREES or row["peer"] not in colours:
            continue
        key = {name: row[name] for name in ("tree", "optimizer", "part")}
        found = compared(row, records.of(**key).get("optax"))
        if found is not None:
            points.append((row, found))
    if not points:
        return
    trees = [t for t in TREES if any(row["tree"] == t for row, _ in points)]
    parts = [p for p in PARTS if any(row["part"] == p for row, _ in points)]
    peers = [p for p in colours if any(row["peer"] == p for row, _ in points)]
    place, middle, ends = {}, {}, []
    y = 0.0
    for tree in trees:
        lanes = [
            p
            for p in peers
            if any((r["tree"], r["peer"]) == (tree, p) for r, _ in points)
        ]
        for peer in lanes:
            place[tree, peer] = y
            y += 1
        middle[tree] = y - (len(lanes) + 1) / 2
        ends.append(y - 0.1)
        y += 0.8

    figure, axes = plt.subplots(
        1,
        len(parts),
        figsize=(3 + 3.6 * len(parts), 1.8 + 0.27 * y),
        dpi=150,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axis, part in zip(axes[0], parts, strict=True):
        shown = [(row, found) for row, found in points if row["part"] == part]
        for row, found in shown:
            height = place[row["tree"], row["peer"]]
            colour = colours[row["peer"]]
            axis.plot(
                [min(found), max(found)], [height] * 2, color=colour, lw=1, alpha=0.5
            )
            axis.plot(
                statistics.median(found),
                height,
                markers[row["optimizer"]],
                color=colour,
                markersize=6,
                markeredgecolor="white",
                markeredgewidth=0.6,
            )
        axis.axvline(1, color="black", lw=1)
        for end in ends[:-1]:
            axis.axhline(end, color="#DDDDDD", lw=0.8)
        values = [value for _, found in shown for value in found]
        low, high = min([*values, 0.9]), max([*values, 1.1])
        axis.set_xscale("log")
        axis.set_xlim(low / 1.1, high * 1.1)
        ticks = FINE_TICKS if high / low < 20 else TICKS
        ticks = [t for t in ticks if low / 1.1 <= t <= high * 1.1]
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.xaxis.minorticks_off()
        axis.grid(axis="x", alpha=0.3)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
        axis.set_title(PARTS[part].rpartition(",")[0], fontsize=10)
        axis.set_xlabel("time ÷ Optax's")
    axes[0][0].set_yticks([middle[tree] for tree in trees], trees)
    axes[0][0].set_ylim(y - 0.8, -0.8)
    used = [o for o in OPTIMIZERS if any(row["optimizer"] == o for row, _ in points)]
    handles = [
        plt.Line2D([], [], color=colours[peer], lw=5, label=LABELS.get(peer, peer))
        for peer in peers
    ]
    handles += [
        plt.Line2D([], [], color="#444444", marker=markers[o], lw=0, label=o)
        for o in used
    ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=5, frameon=False, fontsize=9
    )
    figure.savefig(path)
    plt.close(figure)
    say(f"wrote {path.name}")


# -------------------------------------------------------------------------------- main


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--optimizers", nargs="+", choices=OPTIMIZERS, default=list(OPTIMIZERS))
    add("--trees", nargs="+", choices=TREES, default=list(TREES))
    usual = [name for name in PEERS if name not in STORED]
    add("--peers", nargs="+", choices=PEERS, default=usual)
    add(
        "--only",
        nargs="+",
        choices=[*PARTS, "linear"],
        default=[*PARTS, "linear"],
        help="parts to measure; linear is Adam on one leaf of 1e4 to 1e8 parameters",
    )
    add("--rounds", type=int, default=5)
    add(
        "--memory",
        type=float,
        default=8.0,
        help="GB within which the arrays of all peers are kept between rounds",
    )
    add(
        "--linear-sizes",
        type=lambda text: int(float(text)),
        nargs="+",
        default=[10**power for power in range(4, 9)],
    )
    add("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    add("--figure", type=Path, default=FIGURE)
    arguments = parser.parse_args()
    if has_torch():
        import torch

        torch.set_num_threads(cores())
        warnings.filterwarnings("ignore", "This overload of add_ is deprecated")

    packages = ("jax", "jaxlib", "optax", "optjax", "torch", "adabound")
    run = (
        f"{machine(packages)}; {time.strftime('%Y-%m-%d %H:%M')}, load {load()} at the "
        "start"
    )
    say(run)
    records = Records(arguments.out.with_suffix(".json"))
    bandwidth = Bandwidth()

    def measured(key, arrays, parts, peers):
        began = time.perf_counter()
        about = {
            "leaves": len(arrays.shapes),
            "parameters": arrays.size,
            "run": run,
            **bandwidth.measure(),
        }
        rates = [f"{name} {about[name] / 1e9:.1f}" for name in ("copy", "add")]
        say(f"  GB/s: {', '.join(rates)}")
        times = measure(arrays, key["optimizer"], arguments, parts, peers)
        records.add(key, about, times)
        say(f"  took {time.perf_counter() - began:.0f} s")

    parts = [part for part in PARTS if part in arguments.only]
    for tree in arguments.trees if parts else ():
        arrays = Arrays(TREES[tree]())
        for optimizer in arguments.optimizers:
            say(f"== {tree}, {optimizer}")
            key = {"tree": tree, "optimizer": optimizer}
            measured(key, arrays, parts, arguments.peers)
    if "linear" in arguments.only:
        for size in arguments.linear_sizes:
            say(f"== {size:,} parameters, adam")
            key = {"tree": "linear", "optimizer": "adam", "parameters": size}
            peers = ("optjax pure", "optjax fused")
            measured(key, Arrays([(size,)]), ("step", "scan"), peers)
        print("\n".join(linear_table(records)))
    arguments.out.write_text(report(records))
    say(f"wrote {arguments.out.name}")
    draw(records, arguments.figure)


if __name__ == "__main__":
    main()
