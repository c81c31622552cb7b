"""The table that the contract tests run over: every row of OPTIMIZERS, and its flags.

`numbers` has every numeric hyper-parameter of the row but the learning rate, at a value
in the interior of its range at which it matters to the first steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import optax
from loop import walk

from optjax import OPTIMIZERS

_PATHS: dict[Any, Any] = {}


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

    def path(self, **others: float) -> Any:
        """What `walk` makes of all numbers, or of others: once, for many tests."""
        numbers = {**self.hyperparameters(), **others}
        key = str(self), *numbers.items()
        if key not in _PATHS:
            _PATHS[key] = walk(self.factory(**numbers))
        return _PATHS[key]

    def has_effect(self, number: str) -> bool:
        """Whether another value of a hyper-parameter gives another path.

        α_0 cancels in SWATS, s_t · α_0 = α_t, but where it meets the tolerance.
        """
        return (self.row, number) != ("swats", "base_lr")


_ADAM = {"b1": 0.8, "b2": 0.95, "eps": 1e-2}
_ROOT = {**_ADAM, "eps_root": 1e-2}
_BOUNDED = {**_ADAM, "final_lr": 0.1, "gamma": 0.5, "weight_decay": 0.05}
_GRAFTED = {**_ADAM, "gamma": 0.5, "weight_decay": 0.05, "b3": 0.5, "freeze_after": 3.5}
_RMSPROP = {"decay": 0.8, "eps": 1e-2, "initial_scale": 0.3}

# keep_num is no number: it shapes the state. At its default of 10 the few steps of a
# test would all be zero.
ROWS = [
    Case("sgd", 0.1),
    Case("momentum", 0.1, {"momentum": 0.8}),
    Case("nesterov", 0.1, {"momentum": 0.8}),
    Case("adagrad", 0.1, {"initial_accumulator_value": 0.2, "eps": 1e-2}),
    Case("rmsprop", 0.05, _RMSPROP),
    Case("adadelta", 1.0, {"rho": 0.8, "eps": 1e-2, "weight_decay": 0.05}),
    Case("adam", 0.05, _ROOT),
    Case("adamw", 0.05, {**_ROOT, "weight_decay": 0.05}),
    Case("adamax", 0.05, _ADAM),
    Case("nadam", 0.05, _ROOT),
    Case("nadamw", 0.05, {**_ROOT, "weight_decay": 0.05}),
    Case("amsgrad", 0.05, _ROOT),
    Case("yogi", 0.05, _ADAM),
    Case("adabelief", 0.05, _ROOT),
    Case("radam", 0.05, {**_ROOT, "threshold": 5.0}),
    Case("padam", 0.05, {**_ADAM, "p": 0.25}),
    Case("nosadam", 0.05, {"b1": 0.8, "gamma": 0.5, "eps": 1e-2}),
    Case("adamod", 0.05, {**_ADAM, "b3": 0.8}),
    Case("adashift", 0.05, _ADAM, {"keep_num": 2}),
    Case("swats", 0.05, _ADAM),
    Case("adabound", 0.05, _BOUNDED),
    Case("amsbound", 0.05, _BOUNDED),
    Case("adaboundw", 0.05, _BOUNDED),
    Case("graftbound", 0.05, _GRAFTED),
]

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
    Case("adabound", 0.05, {**_BOUNDED, "base_lr": 0.04}, {}, "base_lr"),
    Case("amsbound", 0.05, {**_BOUNDED, "base_lr": 0.04}, {}, "base_lr"),
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
