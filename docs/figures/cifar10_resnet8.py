"""Draw the reduced CIFAR-10 experiment: python docs/figures/cifar10_resnet8.py.

Reads cifar10_resnet8.csv, the curves.csv that the run in docs/cifar10.md wrote, and
writes cifar10_resnet8.png beside it.
"""

import csv
from collections import defaultdict
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

STEPS_PER_EPOCH = 10_240 // 128

# Okabe and Ito's palette, with a dash for each so that colour is not needed.
STYLES = {
    "momentum": ("SGD with momentum, 0.1", "#0072B2", "-"),
    "adam": ("Adam, 1e-3", "#D55E00", "-"),
    "amsgrad": ("AMSGrad, 1e-3", "#009E73", "--"),
    "adabound": ("AdaBound, 1e-3 to 0.1", "#CC79A7", "-"),
    "amsbound": ("AMSBound, 1e-3 to 0.1", "#000000", ":"),
}
PANELS = {
    "train_loss": ("training loss", 1.0),
    "val_accuracy": ("test accuracy, %", 100.0),
}

here = Path(__file__)
curves = defaultdict(lambda: defaultdict(list))
with here.with_suffix(".csv").open() as file:
    for row in csv.DictReader(file):
        epoch = int(row["step"]) / STEPS_PER_EPOCH
        for metric in PANELS:
            curves[row["optimizer"], metric][epoch].append(float(row[metric]))

figure, axes = plt.subplots(1, 2, figsize=(10, 4), dpi=150, layout="constrained")
for ax, (metric, (label, factor)) in zip(axes, PANELS.items(), strict=True):
    for optimizer, (name, colour, dash) in STYLES.items():
        points = curves[optimizer, metric]
        epochs = sorted(points)
        values = factor * np.array([sorted(points[epoch]) for epoch in epochs])
        ax.plot(epochs, np.median(values, axis=1), dash, color=colour, label=name)
        ax.fill_between(epochs, values[:, 0], values[:, -1], color=colour, alpha=0.12)
    ax.axvline(0.75 * max(epochs), color="grey", linewidth=0.8, linestyle=":")
    ax.set(xlabel="epochs", ylabel=label, xlim=(0, max(epochs)))
    ax.grid(alpha=0.3)
axes[1].legend(framealpha=1, edgecolor="none", loc="lower right")
figure.suptitle(
    "ResNet-8, 10,240 images of CIFAR-10, 2 seeds (bands); dotted: rates × 0.1"
)
figure.savefig(here.with_suffix(".png"))
