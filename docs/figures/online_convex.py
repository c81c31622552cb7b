"""Draw the convex problem that Adam gets wrong: python docs/figures/online_convex.py.

Writes online_convex.png beside this file.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import optjax
from optjax.problems import online_convex

STEPS, CHUNKS, ALPHA = 2_000_000, 400, 0.5


def schedule(count):
    return ALPHA / jnp.sqrt(count + 1.0)


adaptive = {"b1": 0.9, "b2": 0.99}
runs = {
    "Adam": optjax.adam(schedule, **adaptive),
    "SGD": optjax.sgd(schedule),
    "AMSGrad": optjax.amsgrad(schedule, **adaptive),
    "AdaBound": optjax.adabound(schedule, **adaptive),
    "AMSBound": optjax.amsbound(schedule, **adaptive),
}
# Okabe and Ito's palette, with a dash for each so that colour is not needed.
styles = [
    ("#D55E00", "-"),
    ("#0072B2", "-"),
    ("#009E73", "--"),
    ("#CC79A7", "-"),
    ("#000000", ":"),
]

figure, axes = plt.subplots(figsize=(7, 4), dpi=150, layout="constrained")
middle = (np.arange(CHUNKS) + 0.5) * STEPS / CHUNKS / 1e6
for (name, tx), (colour, dash) in zip(runs.items(), styles, strict=True):
    mean = jax.jit(lambda tx=tx: online_convex(tx, STEPS, CHUNKS))()
    print(f"{name:9s} mean of the last {STEPS // CHUNKS} iterates {mean[-1]:+.3f}")
    axes.plot(middle, mean, dash, color=colour, label=name, linewidth=2)
axes.set(
    xlabel="steps (millions)",
    ylabel=f"x, mean of {STEPS // CHUNKS:,} iterates",
    title="Adam goes to the worst point, +1; the best is −1",
    ylim=(-1.08, 1.08),
    xlim=(0, STEPS / 1e6),
)
axes.legend(frameon=False, loc="center right")
axes.grid(alpha=0.3)
path = Path(__file__).with_suffix(".png")
figure.savefig(path)
print(f"wrote {path.name}")
