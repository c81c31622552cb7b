"""The problems that the golden trajectories were computed on, stored in problem.npz.

The gradients are a fixed sequence, independent of the parameters, so an error cannot
be corrected by a later gradient. All numbers are exact in float32.

mixed: 120 steps on a scalar, a vector, a matrix, a column (n, 1) and a 4-d array.
    The vector's coordinates have gradients of scale 10⁻⁶ to 10³, and one is always
    0; the column's are 0 six steps out of seven; the matrix's keep their sign for
    long stretches; the others change it often.
swats: 120 steps on one matrix, with gradients of size near 0.1 that are random for
    20 steps, constant for 60 and random again, so that SWATS with b2 = 0.8 and
    ε = 0.01 switches to SGD in the constant stretch.
growing: 120 steps on one vector; the gradients' size grows, so that a running
    maximum of their averaged square is always the latest value.
"""

import functools
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("problem.npz")
STEPS = 120
# The steps (counted from 1) whose parameters are stored.
STORED = (1, 2, 3, 6, 10, 11, 12, 30, 60, 90, 120)

Tree = dict[str, np.ndarray]


def draw() -> Tree:
    """Draw the problems anew, as the arrays of problem.npz."""
    rng = np.random.default_rng(1902)

    def signs(*shape):
        return rng.choice([-1.0, 1.0], size=shape)

    shapes = {
        "scalar": (),
        "vector": (7,),
        "matrix": (3, 4),
        "column": (5, 1),
        "kernel": (2, 2, 3, 2),
    }
    noise = {key: rng.normal(size=(STEPS, *shape)) for key, shape in shapes.items()}
    noise["vector"] *= np.array([1e-6, 1e-4, 1e-2, 1.0, 30.0, 1e3, 0.0])
    noise["column"][np.arange(STEPS) % 7 != 2] = 0.0
    stretch = signs(4, 3, 4).repeat(STEPS // 4, axis=0)
    noise["matrix"] = 0.2 * np.abs(noise["matrix"]) * stretch
    noise["kernel"] = noise["kernel"] ** 3 + 0.1

    # A seed whose averages agree for the first time at step 62, and clearly not before.
    other = np.random.default_rng(5)
    steady = other.choice([-1.0, 1.0], size=(STEPS, 3, 4))
    steady[20:80] = steady[20]
    size = np.full(STEPS, 0.1)
    size[:20] = 0.1 * 2.0 ** other.uniform(-1, 1, 20)
    steady *= size[:, None, None]

    growing = np.linspace(0.5, 4.0, STEPS)[:, None] * signs(STEPS, 6)

    problems = {
        "mixed": noise,
        "swats": {"matrix": steady},
        "growing": {"vector": growing},
    }
    stored = {}
    for name, grads in problems.items():
        for key, value in grads.items():
            start = rng.normal(size=value.shape[1:])
            stored[f"{name}/x/{key}"] = np.asarray(start, np.float32)
            stored[f"{name}/g/{key}"] = np.asarray(value, np.float32)
    return stored


@functools.cache
def load(name: str = "mixed") -> tuple[Tree, list[Tree]]:
    """The starting point and the list of gradients of one problem, in float32."""
    with np.load(FILE) as file:
        arrays = {key: file[key] for key in file.files if key.startswith(f"{name}/")}
    pick = lambda part: {  # noqa: E731
        key.split("/")[2]: value
        for key, value in arrays.items()
        if key.split("/")[1] == part
    }
    params, grads = pick("x"), pick("g")
    return params, [{key: grads[key][t] for key in grads} for t in range(STEPS)]
