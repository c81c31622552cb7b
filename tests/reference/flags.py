"""Every row of the family with its flags, one at a time and in combinations.

One table for live parity with Optax (the rows that Optax has under the same name) and
for parity with the NumPy rules (all of them).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Flags:
    """One call of one factory, `name(learning_rate, **arguments)`, on one problem."""

    name: str
    learning_rate: float | Callable[[Any], Any] = 1e-2
    arguments: dict[str, Any] = field(default_factory=dict)
    label: str = ""
    problem: str = "mixed"

    def __str__(self) -> str:
        return f"{self.name}-{self.label}" if self.label else self.name

    def optimizer(self, library: Any, mask: dict[str, bool] | None = None) -> Any:
        """The optimizer of this name in a library with Optax's interface.

        With `MASK` as it is for other arrays.
        """
        arguments = {
            key: mask if mask is not None and value is MASK else value
            for key, value in self.arguments.items()
        }
        return getattr(library, self.name)(self.learning_rate, **arguments)


def halved(lr: float) -> Callable[[Any], Any]:
    """Halved every 40 steps."""
    return lambda count: lr * 0.5 ** (count // 40)


def warmup(lr: float) -> Callable[[Any], Any]:
    """Rises linearly from a tenth over 64 steps, then stays."""

    def schedule(count):
        # Multiplied, not divided: JAX divides integers in float32 even with x64.
        share = count * (1 / 64) * (count < 64) + 1.0 * (count >= 64)
        return lr * (0.1 + 0.9 * share)

    return schedule


def rising(decay: float) -> Callable[[Any], Any]:
    """A weight decay that grows with the steps."""
    return lambda count: decay * (1 + count)


def _row(name, *arguments, lr=1e-2):
    rows = []
    for extra in arguments:
        label = "-".join(
            key if value is True or isinstance(value, dict) else f"{key}={value}"
            for key, value in extra.items()
        )
        rows.append(Flags(name, lr, extra, label))
    return rows


MASK = {
    "scalar": True,
    "vector": False,
    "matrix": True,
    "column": False,
    "kernel": True,
}
JOINED_MASK = {"decayed": True, "left": False}
# Of the other rows a coordinate's path is the same in a leaf of any shape.
BY_LEAF = {"adashift", "swats", "graftbound"}


def joined(
    tree: dict[str, Any], axis: int = 0, is_masked: bool = False
) -> dict[str, Any]:
    """The same coordinates in one array, or in two by `MASK`: five compile for longer.

    For rows that are not `BY_LEAF`. Of a path, whose first axis is the steps, with an
    axis of 1.
    """
    arrays: dict[str, Any] = {}
    for key in sorted(tree):
        name = "all" if not is_masked else "decayed" if MASK[key] else "left"
        x = np.reshape(tree[key], (*np.shape(tree[key])[:axis], -1))
        arrays.setdefault(name, []).append(x)
    return {name: np.concatenate(x, axis) for name, x in arrays.items()}


SAME_NAME = [
    *_row(
        "sgd",
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True},
        {"nesterov": True},
        {"momentum": 0.0},
        lr=0.1,
    ),
    Flags("sgd", halved(0.1), {"momentum": 0.9}, "momentum-schedule"),
    Flags("sgd", warmup(0.1), {"momentum": 0.9, "nesterov": True}, "nesterov-warmup"),
    *_row(
        "adagrad",
        {},
        {"initial_accumulator_value": 0.0},
        {"initial_accumulator_value": 1.0, "eps": 1e-3},
        {"eps": 0.0},
        lr=0.1,
    ),
    Flags("adagrad", halved(0.1), {}, "schedule"),
    *_row(
        "rmsprop",
        {},
        {"decay": 0.99},
        {"eps": 1e-3},
        {"initial_scale": 1.0},
        {"eps_in_sqrt": False},
        {"bias_correction": True},
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True},
        {"nesterov": True},
        {"centered": True},
        {"centered": True, "eps_in_sqrt": False},
        {"centered": True, "initial_scale": 1.0},
        {"centered": True, "momentum": 0.9},
        {"eps_in_sqrt": False, "bias_correction": True},
        {
            "decay": 0.95,
            "eps": 1e-4,
            "initial_scale": 0.5,
            "eps_in_sqrt": False,
            "momentum": 0.8,
            "nesterov": True,
            "bias_correction": True,
        },
    ),
    # Debiased, the first variance is g² − g², so the first step is g over the root of
    # ε and of float32's rounding of g². These gradients are small enough for ε.
    Flags(
        "rmsprop",
        1e-2,
        {"centered": True, "bias_correction": True, "eps": 1e-2},
        "centered-bias_correction",
        "growing",
    ),
    Flags(
        "rmsprop",
        1e-2,
        {
            "decay": 0.95,
            "eps": 0.1,
            "initial_scale": 0.5,
            "eps_in_sqrt": False,
            "centered": True,
            "momentum": 0.8,
            "nesterov": True,
            "bias_correction": True,
        },
        "everything",
        "growing",
    ),
    Flags("rmsprop", halved(1e-2), {"momentum": 0.9}, "momentum-schedule"),
    Flags(
        "rmsprop",
        warmup(1e-2),
        {"momentum": 0.9, "nesterov": True, "centered": True},
        "nesterov-centered-warmup",
    ),
    *_row(
        "adadelta",
        {},
        {"rho": 0.95},
        {"eps": 1e-3},
        {"weight_decay": 0.1},
        {"weight_decay": 0.1, "weight_decay_mask": MASK},
        lr=1.0,
    ),
    Flags("adadelta", halved(1.0), {"weight_decay": rising(1e-3)}, "two-schedules"),
    *_row(
        "adam",
        {},
        {"b1": 0.8},
        {"b1": 0.0},
        {"b2": 0.99},
        {"eps": 1e-3},
        {"eps_root": 1e-4},
        {"nesterov": True},
        {"b1": 0.7, "b2": 0.9, "eps": 1e-4, "eps_root": 1e-6, "nesterov": True},
    ),
    Flags("adam", warmup(1e-2), {}, "warmup"),
    *_row(
        "adamw",
        {},
        {"weight_decay": 0.1},
        {"weight_decay": 0.0},
        {"weight_decay": 0.1, "mask": MASK},
        {"weight_decay": 0.1, "nesterov": True},
        {"b1": 0.8, "b2": 0.9, "eps": 1e-4, "eps_root": 1e-6, "weight_decay": 0.1},
    ),
    Flags(
        "adamw",
        halved(1e-2),
        {"weight_decay": rising(1e-2), "mask": MASK},
        "two-schedules-mask",
    ),
    *_row("adamax", {}, {"b1": 0.8, "b2": 0.9}, {"eps": 1e-3}),
    Flags("adamax", halved(1e-2), {}, "schedule"),
    *_row("nadam", {}, {"b1": 0.8}, {"b2": 0.99}, {"eps": 1e-3}, {"eps_root": 1e-4}),
    *_row("nadamw", {}, {"weight_decay": 0.1}, {"weight_decay": 0.1, "mask": MASK}),
    Flags("nadamw", halved(1e-2), {"weight_decay": rising(1e-2)}, "two-schedules"),
    *_row(
        "amsgrad",
        {},
        {"bias_correction_mu": False},
        {"bias_correction_nu": False},
        {"bias_correction_mu": False, "bias_correction_nu": False},
        {"b1": 0.8, "b2": 0.9, "eps": 1e-3},
        {"eps_root": 1e-4},
    ),
    Flags("amsgrad", warmup(1e-2), {}, "warmup"),
    *_row("yogi", {}, {"b1": 0.8}, {"b2": 0.9}, {"eps": 1e-8}),
    Flags("yogi", halved(1e-2), {}, "schedule"),
    *_row(
        "adabelief",
        {},
        {"b1": 0.8, "b2": 0.9},
        {"eps": 1e-3},
        {"eps_root": 1e-6},
        {"nesterov": True},
    ),
    Flags("adabelief", halved(1e-2), {"nesterov": True}, "nesterov-schedule"),
    *_row(
        "radam",
        {},
        {"b1": 0.8, "b2": 0.9},
        {"eps": 1e-3},
        {"eps_root": 1e-4},
        {"threshold": 4.0},
        {"threshold": 20.0},
        {"nesterov": True},
    ),
    Flags("radam", warmup(1e-2), {"nesterov": True}, "nesterov-warmup"),
]

OWN = [
    *_row(
        "adagrad",
        {"eps_in_sqrt": False},
        {"eps_in_sqrt": False, "initial_accumulator_value": 0.0, "eps": 1e-10},
        lr=0.1,
    ),
    *_row("nadam", {"momentum_decay": 4e-3}, {"momentum_decay": 0.1, "b1": 0.99}),
    *_row("nadamw", {"momentum_decay": 4e-3, "weight_decay": 0.1, "mask": MASK}),
    *_row(
        "amsgrad",
        {"max_before_debias": True},
        {"max_before_debias": True, "bias_correction_mu": False},
        {"max_before_debias": True, "bias_correction_nu": False},
        {"max_before_debias": True, "b1": 0.8, "b2": 0.9, "eps_root": 1e-4},
    ),
    *_row(
        "padam",
        {},
        {"p": 0.5},
        {"p": 0.25, "eps": 1e-3},
        {"b1": 0.8, "b2": 0.9},
    ),
    Flags("padam", halved(1e-1), {}, "schedule"),
    *_row("nosadam", {}, {"gamma": 0.0}, {"gamma": 2.0}, {"b1": 0.8, "eps": 1e-3}),
    Flags("nosadam", halved(1e-2), {}, "schedule"),
    *_row(
        "adamod",
        {},
        {"b3": 0.9},
        {"b3": 0.0},
        {"b1": 0.8, "b2": 0.9, "b3": 0.99, "eps": 1e-3},
    ),
    Flags("adamod", halved(1e-2), {"b3": 0.9}, "schedule"),
    *_row(
        "adashift",
        {},
        {"reduction": "mean"},
        {"reduction": "none"},
        {"keep_num": 1},
        {"keep_num": 5, "b1": 0.5, "b2": 0.9, "eps": 1e-3},
    ),
    Flags("adashift", halved(1e-2), {}, "schedule"),
    Flags("swats", 1e-2, {}, "mixed"),
    Flags("swats", 0.11, {"b2": 0.8, "eps": 1e-2}, "switches", "swats_split"),
    Flags("swats", 0.11, {"b1": 0.5, "b2": 0.8, "eps": 1e-2}, "b1", "swats_split"),
    *[
        flags
        for name in ("adabound", "amsbound")
        for flags in (
            *_row(
                name,
                {},
                {"final_lr": 0.02},
                {"gamma": 0.1},
                {"b1": 0.8, "b2": 0.9, "eps": 1e-3},
                {"weight_decay": 0.1, "gamma": 0.1},
                {"weight_decay": 0.1, "gamma": 0.1, "mask": MASK},
                {"base_lr": 5e-3, "gamma": 0.1},
                lr=1e-3,
            ),
            Flags(name, halved(1e-3), {"gamma": 0.1}, "schedule"),
            Flags(
                name,
                lambda count: 1e-3 / 120 * count,
                {"gamma": 0.1, "base_lr": 1e-3},
                "schedule-from-0",
            ),
            Flags(
                name,
                halved(1e-3),
                {"gamma": 0.1, "base_lr": 2e-3, "weight_decay": 0.1},
                "schedule-base_lr",
            ),
        )
    ],
    *_row(
        "adaboundw",
        {},
        {"weight_decay": 0.1, "gamma": 0.1},
        {"weight_decay": 0.1, "gamma": 0.1, "mask": MASK},
        {"weight_decay": 1e-3, "fixed_decay": True},
        {"weight_decay": 1e-3, "fixed_decay": True, "mask": MASK},
        {"amsbound": True},
        {"amsbound": True, "fixed_decay": True, "final_lr": 0.02, "gamma": 0.1},
        {"b1": 0.8, "b2": 0.9, "eps": 1e-3, "base_lr": 5e-3},
        lr=1e-3,
    ),
    Flags("adaboundw", halved(1e-3), {"weight_decay": 0.1}, "schedule"),
    Flags(
        "adaboundw",
        halved(1e-3),
        {"weight_decay": 1e-3, "fixed_decay": True},
        "fixed_decay-schedule",
    ),
    *_row(
        "graftbound",
        {},
        {"groups": 0},
        {"gamma": 0.1, "b3": 0.9},
        {"b1": 0.8, "b2": 0.9, "eps": 1e-3, "gamma": 0.1, "groups": 0},
        {"weight_decay": 0.1, "gamma": 0.1, "mask": MASK},
        {"gamma": 0.1, "freeze_after": 100},
        {"gamma": 10.0, "freeze_after": 50, "groups": 0},
        {"gamma": 0.1, "late": False},
        {"gamma": 0.1, "groups": 0, "freeze_after": 50, "late": False},
        lr=1e-3,
    ),
    Flags("graftbound", warmup(1e-3), {"gamma": 0.1}, "warmup"),
    Flags(
        "graftbound",
        halved(1e-3),
        {"gamma": 0.1, "weight_decay": 0.1, "freeze_after": 60},
        "schedule",
    ),
]

#: The rows with flags that mask.
MASKED = {flags.name for flags in SAME_NAME + OWN if MASK in flags.arguments.values()}
