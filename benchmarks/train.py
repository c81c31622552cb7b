"""Whole training steps, beside the same models in PyTorch: python benchmarks/train.py.

The digits MLP, ResNet-8 on random images, a small transformer and a one-layer LSTM on
random characters, trained by Adam: forward, backward and optimizer. A step's parts are
the differences of three programs: the loss, the loss with gradients, and the step.
Writes train.md beside this file; PyTorch is optional.
"""

import argparse
import importlib.util
import statistics
import time
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
from optjax.tasks.models import CharLSTM, resnet8

RATE = 1e-3
CHARACTERS, CONTEXT = 65, 64
WIDTH, HEADS, LAYERS = 128, 4, 2
HIDDEN = 256


class Task(NamedTuple):
    """A model in both libraries, with its batch of inputs and labels."""

    title: str
    unit: str
    in_flax: Callable
    in_torch: Callable
    inputs: np.ndarray
    labels: np.ndarray


# -------------------------------------------------------------------------- transformer


class Block(nnx.Module):
    """Causal attention and a network of two layers, each beside the identity."""

    def __init__(self, rngs):
        self.norm1 = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.qkv = nnx.Linear(WIDTH, 3 * WIDTH, rngs=rngs)
        self.out = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.norm2 = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.up = nnx.Linear(WIDTH, 4 * WIDTH, rngs=rngs)
        self.down = nnx.Linear(4 * WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x):
        q, k, v = (
            part.reshape(*x.shape[:2], HEADS, WIDTH // HEADS)
            for part in jnp.split(self.qkv(self.norm1(x)), 3, axis=-1)
        )
        mixed = jax.nn.dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.reshape(x.shape))
        return x + self.down(nnx.gelu(self.up(self.norm2(x))))


class Transformer(nnx.Module):
    def __init__(self, rngs):
        self.embedding = nnx.Embed(CHARACTERS, WIDTH, rngs=rngs)
        self.positions = nnx.Embed(CONTEXT, WIDTH, rngs=rngs)
        self.blocks = nnx.List(Block(rngs) for _ in range(LAYERS))
        self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.logits = nnx.Linear(WIDTH, CHARACTERS, rngs=rngs)

    def __call__(self, ids):
        x = self.embedding(ids) + self.positions(jnp.arange(CONTEXT))
        for block in self.blocks:
            x = block(x)
        return self.logits(self.norm(x))


# ------------------------------------------------------------------ models in PyTorch


def torch_mlp():
    from torch import nn

    return nn.Sequential(
        nn.Linear(digits.PIXELS, digits.HIDDEN),
        nn.ReLU(),
        nn.Linear(digits.HIDDEN, digits.CLASSES),
    )


def torch_resnet8():
    from torch import nn

    class BasicBlock(nn.Module):
        def __init__(self, inputs, outputs, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            self.norm1 = nn.BatchNorm2d(outputs)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
            self.norm2 = nn.BatchNorm2d(outputs)
            self.shortcut = nn.Identity()
            if stride != 1 or inputs != outputs:
                self.shortcut = nn.Sequential(
                    nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                    nn.BatchNorm2d(outputs),
                )

        def forward(self, x):
            y = self.norm1(self.conv1(x)).relu()
            return (self.shortcut(x) + self.norm2(self.conv2(y))).relu()

    class ResNet8(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(3, 16, 3, 1, 1, bias=False),
                nn.BatchNorm2d(16),
                nn.ReLU(),
                BasicBlock(16, 16, 1),
                BasicBlock(16, 32, 2),
                BasicBlock(32, 64, 2),
            )
            self.logits = nn.Linear(64, 10)

        def forward(self, x):
            # A view whose memory stays images by height by width by channels.
            x = self.body(x.permute(0, 3, 1, 2))
            return self.logits(x.mean((2, 3)))

    import torch

    return ResNet8().to(memory_format=torch.channels_last)


def torch_transformer():
    import torch
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1 = nn.LayerNorm(WIDTH)
            self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
            self.out = nn.Linear(WIDTH, WIDTH)
            self.norm2 = nn.LayerNorm(WIDTH)
            self.up = nn.Linear(WIDTH, 4 * WIDTH)
            self.down = nn.Linear(4 * WIDTH, WIDTH)

        def forward(self, x):
            q, k, v = (
                part.unflatten(-1, (HEADS, WIDTH // HEADS)).transpose(1, 2)
                for part in self.qkv(self.norm1(x)).chunk(3, -1)
            )
            mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(mixed.transpose(1, 2).flatten(2))
            up = functional.gelu(self.up(self.norm2(x)), approximate="tanh")
            return x + self.down(up)

    class Transformer(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(CHARACTERS, WIDTH)
            self.positions = nn.Parameter(0.1 * torch.randn(CONTEXT, WIDTH))
            self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
            self.norm = nn.LayerNorm(WIDTH)
            self.logits = nn.Linear(WIDTH, CHARACTERS)

        def forward(self, ids):
            x = self.embedding(ids) + self.positions
            return self.logits(self.norm(self.blocks(x)))

    return Transformer()


def torch_lstm():
    from torch import nn

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(CHARACTERS, HIDDEN)
            self.lstm = nn.LSTM(HIDDEN, HIDDEN, batch_first=True)
            self.logits = nn.Linear(HIDDEN, CHARACTERS)

        def forward(self, ids):
            return self.logits(self.lstm(self.embedding(ids))[0])

    return Model()


# ------------------------------------------------------------------------------- tasks


def tasks():
    """Each task by its name, made when it is asked for."""
    draw = np.random.default_rng(0)

    def images(title, in_flax, in_torch, batch, shape):
        x = draw.standard_normal((batch, *shape), np.float32)
        return Task(title, "images", in_flax, in_torch, x, draw.integers(0, 10, batch))

    def text(title, in_flax, in_torch, batch):
        ids = draw.integers(0, CHARACTERS, (batch, CONTEXT + 1))
        inputs, labels = ids[:, :-1], ids[:, 1:]
        return Task(title, "characters", in_flax, in_torch, inputs, labels)

    return {
        "mlp": lambda: images(
            "Digits MLP, 64-64-10",
            lambda: digits.MLP(nnx.Rngs(0)),
            torch_mlp,
            digits.BATCH_SIZE,
            (digits.PIXELS,),
        ),
        "resnet8": lambda: images(
            "ResNet-8, 32×32×3",
            lambda: resnet8((32, 32, 3), 10, rngs=nnx.Rngs(0)),
            torch_resnet8,
            128,
            (32, 32, 3),
        ),
        "transformer": lambda: text(
            f"Transformer, {LAYERS} blocks of width {WIDTH}, {CONTEXT} characters",
            lambda: Transformer(nnx.Rngs(0)),
            torch_transformer,
            32,
        ),
        "lstm": lambda: text(
            f"LSTM, one layer of {HIDDEN} units, {CONTEXT} characters",
            lambda: CharLSTM(CHARACTERS, hidden=HIDDEN, rngs=nnx.Rngs(0)),
            torch_lstm,
            64,
        ),
    }


# ------------------------------------------------------------------------------- peers


def jax_ways(task):
    """The loss, the gradients and each peer's step, as functions of a number of calls.

    Returns:
        They by (peer, part), and the number of parameters.
    """
    x, y = jnp.asarray(task.inputs), jnp.asarray(task.labels)
    graphdef, params, rest = nnx.split(task.in_flax(), nnx.Param, ...)

    def loss(params, rest):
        # Copies, as Flax forbids changing variables made outside a transformation.
        model = nnx.merge(graphdef, params, rest, copy=True)
        losses = optax.softmax_cross_entropy_with_integer_labels(model(x), y)
        return losses.mean(), nnx.state(model, nnx.Not(nnx.Param))

    def updated(optimizer, grads, state, params):
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    peers = {"optjax pure": (optjax.adam(RATE), updated)}
    if optjax.fused_step_available() and jax.default_backend() == "cpu":
        peers["optjax fused"] = (optjax.adam(RATE), optjax.apply_step)
    peers["optax"] = (optax.adam(RATE), updated)
    # What every backend does; optjax.apply_step has both in its one pass.
    peers["optjax pure, bfloat16"] = (
        optjax.stochastic_rounding(optjax.adam(RATE)),
        updated,
    )
    peers["optjax pure, eight bits"] = (optjax.compressed(optjax.adam(RATE)), updated)

    def only(function):
        program = jax.jit(function)

        def run(calls):
            for _ in range(calls):
                result = program(params, rest)
            jax.block_until_ready(result)

        return run

    def trained(optimizer, apply):
        def step(params, state, rest):
            grads, rest = jax.grad(loss, has_aux=True)(params, rest)
            return *apply(optimizer, grads, state, params), rest

        program = jax.jit(step, donate_argnums=(0, 1, 2))
        carry = jax.tree.map(jnp.copy, (params, optimizer.init(params), rest))

        def run(calls):
            nonlocal carry
            for _ in range(calls):
                carry = program(*carry)
            jax.block_until_ready(carry)

        return run

    # One program serves all: the optimizers have no part in it.
    ways = {
        ("jax", "forward"): only(loss),
        ("jax", "gradient"): only(jax.value_and_grad(loss, has_aux=True)),
    }
    for name, (optimizer, apply) in peers.items():
        ways[name, "step"] = trained(optimizer, apply)
    return ways, sum(leaf.size for leaf in jax.tree.leaves(params))


def torch_ways(task):
    """As `jax_ways`, in PyTorch."""
    import torch
    from torch.nn import functional

    device = "cpu" if jax.default_backend() == "cpu" else "cuda"
    model = task.in_torch().to(device)
    x, y = (torch.from_numpy(a.copy()).to(device) for a in (task.inputs, task.labels))
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, fused=True)

    def loss():
        return functional.cross_entropy(model(x).flatten(0, -2), y.flatten())

    def forward():
        with torch.no_grad():
            loss()

    def gradient():
        optimizer.zero_grad(set_to_none=True)
        loss().backward()

    def step():
        gradient()
        optimizer.step()

    def repeated(function):
        def run(calls):
            for _ in range(calls):
                function()
            if device == "cuda":
                torch.cuda.synchronize()

        return run

    parts = {"forward": forward, "gradient": gradient, "step": step}
    ways = {("torch", part): repeated(f) for part, f in parts.items()}
    return ways, sum(p.numel() for p in model.parameters())


def has_torch():
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return jax.default_backend() == "cpu" or torch.cuda.is_available()


# ------------------------------------------------------------------------- the report


def measure(task, rounds):
    """Lines of the task's section."""
    ways, size = jax_ways(task)
    sizes = {"Flax": size}
    if has_torch():
        more, sizes["PyTorch"] = torch_ways(task)
        ways |= more
    calls, times = {}, {way: [] for way in ways}
    for way, run in ways.items():
        say(f"    first call of {' '.join(way)}: {seconds(run, 1):.2f} s")
        calls[way] = calls_for(seconds(run, 1), 3, at_least_seconds=0.2)
    for number, way in turns(list(ways), rounds):
        took = seconds(ways[way], calls[way]) / calls[way]
        times[way].append(took)
        say(f"    round {number + 1}, {' '.join(way)}: {1e3 * took:.3f} ms")
    return table(task, sizes, times)


def table(task, sizes, times):
    counts = ", ".join(f"{size:,} in {name}" for name, size in sizes.items())
    batch = " × ".join(map(str, task.labels.shape))
    lines = [
        f"Parameters: {counts}. A batch has {batch} {task.unit}.",
        "",
        f"| peer | {task.unit}/s | ms a step | × Optax | × torch | forward, ms "
        "| backward, ms | optimizer, ms | optimizer's share |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for peer, part in times:
        if part != "step":
            continue
        step = times[peer, "step"]
        base: Any = "torch" if peer == "torch" else "jax"
        forward, gradient = (times[base, part] for part in ("forward", "gradient"))
        against = times.get(("torch", "step"))
        cells = [
            peer,
            f"{task.labels.size / statistics.median(step):,.0f}",
            spread([1e3 * t for t in step]),
            spread(ratios(step, times["optax", "step"])),
            "–" if against is None else spread(ratios(step, against)),
            spread([1e3 * t for t in forward]),
            differences(gradient, forward),
            differences(step, gradient),
            f"{100 * (1 - statistics.median(ratios(gradient, step))):.0f} %",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def differences(whole, part):
    return spread([1e3 * (a - b) for a, b in zip(whole, part, strict=True)])


def write_section(path, heading, lines, headings):
    """Put a section in the report, in place of the one it may have by that heading."""
    sections = {}
    if path.exists():
        for text in path.read_text().split("\n## ")[1:]:
            name, _, body = text.partition("\n")
            sections[name] = body.strip()
    sections[heading] = "\n".join(lines)
    known = [name for name in headings if name in sections]
    text = "\n".join(f"\n## {name}\n\n{sections[name]}" for name in known)
    path.write_text(
        "# Whole training steps\n\n"
        "Adam, float32, and with a state in fewer bits. Median (least–most) over "
        "rounds, in which all peers take turns; ratios and differences are of times in "
        "the same round. Backward is the gradients' time less the loss's, optimizer a "
        "step's less the gradients'; where a part is shorter than the noise of the "
        "whole, it may come out below zero. "
        "PyTorch runs its models in its usual eager way, with its fused Adam; the "
        "convolutions' channels come last, and its LSTM has a second bias.\n"
        f"{text}\n"
    )


def main():
    named = tasks()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--only", nargs="+", choices=named, default=list(named), help="tasks")
    add("--rounds", type=int, default=7)
    add("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    arguments = parser.parse_args()
    if has_torch():
        import torch

        torch.set_num_threads(cores())
        torch.manual_seed(0)
    made = {name: make() for name, make in named.items()}
    headings = [task.title for task in made.values()]
    for name in arguments.only:
        task = made[name]
        about = (
            f"{machine(('jax', 'jaxlib', 'flax', 'optax', 'optjax', 'torch'))}; "
            f"{time.strftime('%Y-%m-%d %H:%M')}, load {load()} at the start."
        )
        say(f"== {task.title}; {about}")
        lines = [about, "", *measure(task, arguments.rounds)]
        write_section(arguments.out, task.title, lines, headings)
        say(f"wrote {task.title!r} to {arguments.out.name}")


if __name__ == "__main__":
    main()
