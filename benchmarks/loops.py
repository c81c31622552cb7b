"""What is slower inside a loop on a CPU: python benchmarks/loops.py.

Each operation, with its gradient where a training step has one, is run alone under
`jit` and as the body of a `lax.scan` under `jit`, in turns; × is the time of one pass
through the loop to that of one call, in the same round, so that other work on the
machine weighs on both. Then the same with `optjax.sweep.fast_convolutions` around the
body. Writes loops.md beside this file, or what --output says.
"""

import argparse
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from measuring import load, machine, ratios, say, seconds, spread, turns

from optjax.sweep import fast_convolutions

NHWC = ("NHWC", "HWIO", "NHWC")
NCHW = ("NCHW", "OIHW", "NCHW")


def random(*shape):
    numbers = np.random.default_rng(len(shape)).normal(size=shape)
    return jnp.asarray(numbers, jnp.float32)


def conv(strides=(1, 1), numbers=NHWC, groups=1):
    return lambda x, kernel: lax.conv_general_dilated(
        x,
        kernel,
        strides,
        "SAME",
        dimension_numbers=numbers,
        feature_group_count=groups,
    )


def pooled(reduce, initial):
    """Windows of 2 × 2 by strides of 2."""
    window = (1, 2, 2, 1)
    return lambda x: lax.reduce_window(x, initial, reduce, window, window, "VALID")


def lstm(x, kernel, state):
    hidden, cell = jnp.split(state, 2, axis=1)
    gates = jnp.concatenate([x, hidden], axis=1) @ kernel
    i, f, g, o = jnp.split(gates, 4, axis=1)
    cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(cell)


def attention(q, k, v):
    weights = jax.nn.softmax(jnp.einsum("bhqd,bhkd->bhqk", q, k))
    return jnp.einsum("bhqk,bhkd->bhqd", weights, v)


IMAGES = (32, 16, 16, 16)

#: What is differentiated by all its operands, and these.
WITH_GRADIENT = {
    "3×3 convolution, NHWC": (conv(), IMAGES, (3, 3, 16, 16)),
    "3×3 convolution, stride 2": (conv((2, 2)), IMAGES, (3, 3, 16, 16)),
    "3×3 convolution, NCHW": (conv(numbers=NCHW), IMAGES, (16, 16, 3, 3)),
    "3×3 depthwise convolution": (conv(groups=16), IMAGES, (3, 3, 1, 16)),
    "1-D convolution": (
        conv((1,), ("NWC", "WIO", "NWC")),
        (32, 256, 16),
        (3, 16, 16),
    ),
    "3×3 transposed convolution": (
        lambda x, kernel: lax.conv_transpose(x, kernel, (2, 2), "SAME"),
        (16, 8, 8, 16),
        (3, 3, 16, 16),
    ),
    "max pooling (select_and_scatter)": (pooled(lax.max, -jnp.inf), IMAGES),
    "average pooling (reduce_window)": (pooled(lax.add, 0.0), IMAGES),
    "matrix product": (jnp.matmul, (256, 256), (256, 256)),
    "batched matrix product": (jnp.matmul, (32, 64, 64), (32, 64, 64)),
    "attention": (attention, *[(8, 4, 64, 32)] * 3),
    "LSTM cell": (lstm, (64, 128), (256, 512), (64, 256)),
    "embedding (gather, scatter-add)": (
        lambda table: table[jnp.arange(4096) * 7 % 512],
        (512, 64),
    ),
    "cumulative sum": (lambda x: jnp.cumsum(x, axis=1), (64, 1024)),
    "layer norm": (
        lambda x: (x - x.mean(-1, keepdims=True)) / (1e-5 + x.std(-1, keepdims=True)),
        (512, 256),
    ),
}
#: What is not.
FORWARD = {
    "sort": (lambda x: jnp.sort(x, axis=1), (64, 1024)),
    "top k": (lambda x: lax.top_k(x, 8)[0], (64, 1024)),
    "FFT": (lambda x: jnp.fft.rfft(x, axis=1).real, (64, 1024)),
    "Cholesky": (
        lambda x: jnp.linalg.cholesky(x @ x.T + 256 * jnp.eye(len(x))),
        (128, 128),
    ),
    "random normal": (
        lambda x: x + jax.random.normal(jax.random.key(0), x.shape),
        (256, 256),
    ),
}


def bodies():
    """Functions from operands to operands alike, so that a loop can go round."""

    def moved(args, by):
        # Never so far that numbers become others to compute with.
        return tuple(
            a + 1e-6 * jnp.resize(jnp.nan_to_num(b), a.shape)
            for a, b in zip(args, by, strict=True)
        )

    for name, (function, *shapes) in WITH_GRADIENT.items():

        def loss(*args, function=function):
            return jnp.sum(function(*args) ** 2)

        def body(args, loss=loss):
            gradient = jax.grad(loss, argnums=tuple(range(len(args))))
            return moved(args, gradient(*args))

        yield name, body, tuple(random(*shape) for shape in shapes)
    for name, (function, *shapes) in FORWARD.items():

        def body(args, function=function):
            return moved(args, [function(*args)])

        yield name, body, tuple(random(*shape) for shape in shapes)


def looped(body, length):
    def run(args):
        return lax.scan(lambda args, _: (body(args), None), args, length=length)[0]

    return jax.jit(run)


def measured(body, args, rounds):
    """Milliseconds of one call alone, in a loop, and in a loop in the fast form."""
    alone = jax.jit(body)
    jax.block_until_ready(alone(args))
    took = min(seconds(lambda: jax.block_until_ready(alone(args))) for _ in range(3))
    length = max(3, min(100, int(0.03 / took)))
    ways = {
        "alone": (alone, 1),
        "loop": (looped(body, length), length),
        "fast": (looped(fast_convolutions(body), length), length),
    }

    def once(way):
        function, passes = ways[way]
        began = time.perf_counter()
        for _ in range(length // passes):
            jax.block_until_ready(function(args))
        return (time.perf_counter() - began) / length * 1e3

    for way in ways:
        once(way)
    times = {way: [] for way in ways}
    for _, way in turns(list(ways), rounds):
        times[way].append(once(way))
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="")
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).with_name("loops.md")
    )
    arguments = parser.parse_args()
    head = (
        f"{machine(['jax', 'jaxlib', 'optjax'])}; "
        f"{time.strftime('%Y-%m-%d %H:%M')}, load {load()} at the start."
    )
    lines = [
        "# Inside a loop and alone, on a CPU",
        "",
        "One operation, its gradient with it where there is one, under `jax.jit` and "
        "as the body of a `lax.scan`: × is one pass through the loop to one call, "
        "median (least–most) over rounds in which all take turns. The last column is "
        "the same with `optjax.sweep.fast_convolutions` around the body. Convolutions "
        "alone are slower in a loop by more than the noise.",
        "",
        head,
        "",
        "| operation | alone, ms | in a loop, × | in the fast form in a loop, × |",
        "|---|---|---|---|",
    ]
    for name, body, args in bodies():
        if arguments.only not in name:
            continue
        times = measured(body, args, arguments.rounds)
        alone = times["alone"]
        cells = [
            f"{statistics.median(alone):.3g}",
            spread(ratios(times["loop"], alone)),
            spread(ratios(times["fast"], alone)),
        ]
        say(f"{name}: {' | '.join(cells)}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
