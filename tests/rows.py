"""The table that the contract tests run over: every row of OPTIMIZERS, and its flags.

`numbers` has every numeric hyper-parameter of the row but the learning rate, at a value
in the interior of its range at which it matters to the first steps.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optax
import pytest
from loop import NOISE, START
from reference import run

from optjax import OPTIMIZERS

#: The rule that a row has where it is not one of its own name, and what the rule takes.
_RULES = {
    "momentum": ("sgd", {}),
    "nesterov": ("sgd", {"nesterov": True}),
    "swats": ("swats", {"positive": True}),
}


@dataclass(frozen=True)
class Case:
    """One row of the table with one choice of flags."""

    row: str
    learning_rate: float
    numbers: Mapping[str, float] = field(default_factory=dict)
    flags: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""

    def __str__(self) -> str:
        return f"{self.row}-{self.label}" if self.label else self.row

    def factory(self, **arguments: Any) -> optax.GradientTransformationExtraArgs:
        """The row's factory with the flags filled in and all the rest given."""
        return OPTIMIZERS[self.row].factory(**{**self.flags, **arguments})

    def default(self) -> optax.GradientTransformationExtraArgs:
        """Every number but the learning rate as the row has it by default."""
        return self.factory(learning_rate=self.learning_rate)

    def interior(self) -> optax.GradientTransformationExtraArgs:
        """Every number given."""
        return self.factory(**self.hyperparameters())

    def hyperparameters(self) -> dict[str, float]:
        """All numeric hyper-parameters."""
        return {"learning_rate": self.learning_rate, **self.numbers}

    def follow(
        self, start: Any, gradients: Any, steps: int | None = None, **numbers: float
    ) -> dict[str, np.ndarray]:
        """The parameters after every step as the row's rule in NumPy has them.

        In float64 and by `reference.run`, which see, at all numbers of the case or at
        others.
        """
        rule, arguments = _RULES.get(self.row, (self.row, {}))
        numbers = {**self.flags, **arguments, **self.hyperparameters(), **numbers}
        if self.row == "swats":
            # α_0 is no part of its rule: it changes the tolerance alone.
            numbers.pop("base_lr", None)
        learning_rate = numbers.pop("learning_rate")
        path = run(rule, start, gradients, learning_rate, steps=steps, **numbers)
        return {key: np.stack([x[key] for x in path]) for key in start}

    def path(
        self, start: Any = START, noise: Any = NOISE, **numbers: float
    ) -> dict[str, np.ndarray]:
        """The same of the problem in `loop`: what `walk` is to be."""
        noise = [{key: np.asarray(n[key]) for key in start} for n in noise]
        path = self.follow(
            start,
            lambda t, x: {key: x[key] + noise[t - 1][key] for key in x},
            len(noise),
            **numbers,
        )
        return {key: path[key].astype(start[key].dtype) for key in start}

    def has_effect(self, number: str) -> bool:
        """Whether another value of a hyper-parameter gives another path.

        α_0 cancels in SWATS, s_t · α_0 = α_t, but where it meets the tolerance.
        """
        return (self.row, number) != ("swats", "base_lr")


#: Values in the interior of their ranges, by the names that all rows share.
_NUMBERS = {
    "b1": 0.8,
    "b2": 0.95,
    "b3": 0.8,
    "decay": 0.8,
    "momentum": 0.8,
    "rho": 0.8,
    "eps": 1e-2,
    "eps_root": 1e-2,
    "final_lr": 0.1,
    "freeze_after": 3.5,
    "gamma": 0.5,
    "initial_accumulator_value": 0.2,
    "initial_scale": 0.3,
    "p": 0.25,
    "threshold": 5.0,
    "weight_decay": 0.05,
}
#: Where it is not 0.05.
_LEARNING_RATES = {
    "sgd": 0.1,
    "momentum": 0.1,
    "nesterov": 0.1,
    "adagrad": 0.1,
    "adadelta": 1.0,
}
# keep_num is no number: it shapes the state. At its default of 10 the few steps of a
# test would all be zero.
_FLAGS = {"adashift": {"keep_num": 2}}


def _numbers(row: str) -> dict[str, float]:
    """All that are numbers by default; a name that is new needs a line above."""
    _, *others = inspect.signature(OPTIMIZERS[row].factory).parameters.values()
    return {
        parameter.name: _NUMBERS[parameter.name]
        for parameter in others
        if isinstance(parameter.default, float)
    }


ROWS = [
    Case(row, _LEARNING_RATES.get(row, 0.05), _numbers(row), _FLAGS.get(row, {}))
    for row in OPTIMIZERS
]

_ADAM = {name: _NUMBERS[name] for name in ("b1", "b2", "eps")}
_ROOT = _numbers("adam")
_BOUNDED = _numbers("adabound")
_GRAFTED = _numbers("graftbound")
_RMSPROP = _numbers("rmsprop")

VARIANTS = [
    Case(
        "adagrad",
        0.1,
        {"initial_accumulator_value": 0.0, "eps": 1e-2},
        {"eps_in_sqrt": False},
        "pytorch",
    ),
    Case("rmsprop", 0.05, _RMSPROP, {"centered": True}, "centered"),
    Case(
        "rmsprop",
        0.05,
        {**_RMSPROP, "momentum": 0.8},
        {"nesterov": True, "bias_correction": True, "eps_in_sqrt": False},
        "momentum",
    ),
    Case("adam", 0.05, _ROOT, {"nesterov": True}, "nesterov"),
    Case(
        "adamw", 0.05, {**_ROOT, "weight_decay": 0.05}, {"nesterov": True}, "nesterov"
    ),
    Case("nadam", 0.05, {**_ROOT, "momentum_decay": 5.0}, {}, "schedule"),
    Case("nadamw", 0.05, {"momentum_decay": 5.0, "weight_decay": 0.05}, {}, "schedule"),
    Case("amsgrad", 0.05, _ROOT, {"max_before_debias": True}, "pytorch"),
    Case(
        "amsgrad",
        0.05,
        _ROOT,
        {"bias_correction_mu": False, "bias_correction_nu": False},
        "paper",
    ),
    Case("adabelief", 0.05, _ROOT, {"nesterov": True}, "nesterov"),
    Case("radam", 0.05, {**_ROOT, "threshold": 5.0}, {"nesterov": True}, "nesterov"),
    Case("adashift", 0.05, _ADAM, {"keep_num": 2, "reduction": "mean"}, "mean"),
    Case("adashift", 0.05, _ADAM, {"keep_num": 3, "reduction": "none"}, "none"),
    # A tolerance so wide that it switches to SGD at the second step.
    Case("swats", 0.05, {**_ADAM, "eps": 1.0, "base_lr": 0.04}, {}, "switches"),
    *[
        Case(row, 0.05, {**_numbers(row), "base_lr": 0.04}, {}, "base_lr")
        for row in OPTIMIZERS
        if "base_lr" in inspect.signature(OPTIMIZERS[row].factory).parameters
        and row not in ("swats", "adaboundw")
    ],
    Case("adaboundw", 0.05, _BOUNDED, {"fixed_decay": True}, "fixed_decay"),
    Case(
        "adaboundw",
        0.05,
        {**_BOUNDED, "base_lr": 0.04},
        {"amsbound": True},
        "amsbound",
    ),
    Case("graftbound", 0.05, _GRAFTED, {"groups": 0}, "all"),
    Case("graftbound", 0.05, _GRAFTED, {"late": False}, "now"),
]

CASES = ROWS + VARIANTS

#: One for each choice of flags: where numbers are the defaults the others are these.
FLAGGED = [
    case
    for case in CASES
    if case in ROWS or dict(case.flags) != _FLAGS.get(case.row, {})
]

each_row = pytest.mark.parametrize("case", ROWS, ids=str)
each_case = pytest.mark.parametrize("case", CASES, ids=str)
