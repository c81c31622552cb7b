"""One table of cases: another library's optimizer, the NumPy rule, and ours.

Read by regenerate.py, which makes the golden files, and by the parity tests.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from .problem import STEPS


@dataclass(frozen=True)
class Case:
    """The same optimizer in three dialects.

    Attributes:
        name: the case's name in the golden file.
        library: torch (torch.optim), adabound or pytorch_optimizer, as on PyPI.
        reference: the class in that library, called with `lr` and `arguments`.
        rule: the name in `reference.RULES`, called with `rule_arguments`.
        ours: the name in `optjax`, called with `mapped`; None where no argument of
            ours gives the library's behaviour (docs/differences.md says what does).
        schedule: the learning rate as a function of the steps taken so far.
        set_each_step: whether `schedule` is also written into the library's optimizer
            before every step, as a learning-rate scheduler does; otherwise the
            library has this very schedule inside.
        scheduler: the class in torch.optim.lr_scheduler, and its arguments, that sets
            the rates of `schedule` in the library's optimizer.
        outer_schedule: ours takes learning rate 1 and the schedule multiplies its
            result, buffers included.
        l2: what the library calls weight_decay where it adds it to the gradient.
        problem: which problem of problem.py.
        rtol: how closely ours follows in float32, relative to the distance travelled.
    """

    name: str
    library: str
    reference: str
    lr: float
    arguments: dict[str, Any] = field(default_factory=dict)
    rule: str = ""
    rule_arguments: dict[str, Any] = field(default_factory=dict)
    ours: str | None = None
    mapped: dict[str, Any] = field(default_factory=dict)
    schedule: Callable[[Any], Any] | None = None
    set_each_step: bool = True
    scheduler: tuple[str, dict[str, Any]] | None = None
    outer_schedule: bool = False
    l2: float = 0.0
    problem: str = "mixed"
    rtol: float = 1e-5

    @property
    def learning_rate(self) -> Any:
        """What the rule and ours receive: the schedule, or the number."""
        return self.lr if self.schedule is None else self.schedule


def in_steps(lr: float) -> Callable[[Any], Any]:
    """The learning rate is halved every 40 steps."""
    return lambda count: lr * 0.5 ** (count // 40)


def table(rates: Sequence[float]) -> Callable[[Any], Any]:
    """The learning rate is read from a list, in as many digits as it is asked in."""

    def schedule(count):
        if isinstance(count, jax.Array):
            return jnp.asarray(rates, jnp.result_type(float))[count]
        return rates[count]

    return schedule


def padam_debias(lr: float, b1: float, b2: float) -> Callable[[Any], Any]:
    """Adam's two corrections as a schedule: lr √(1 − b2ᵗ)/(1 − b1ᵗ)."""
    return lambda count: lr * (1 - b2 ** (count + 1)) ** 0.5 / (1 - b1 ** (count + 1))


def _same(name, library, reference, lr, rule, arguments=None, mapped=None, **other):
    # A case in which ours and the rule take the same arguments.
    mapped = mapped or {}
    return Case(
        name,
        library,
        reference,
        lr,
        arguments or {},
        rule=rule,
        rule_arguments=mapped,
        ours=rule,
        mapped=mapped,
        **other,
    )


def _adagrad(eps):
    return {"initial_accumulator_value": 0.0, "eps": eps, "eps_in_sqrt": False}


def _rmsprop(**other):
    return {"decay": 0.99, "eps_in_sqrt": False, **other}


TORCH = (
    _same("sgd", "torch", "SGD", 0.1, "sgd"),
    _same(
        "momentum",
        "torch",
        "SGD",
        0.1,
        "sgd",
        {"momentum": 0.9},
        {"momentum": 0.9},
    ),
    _same(
        "nesterov",
        "torch",
        "SGD",
        0.1,
        "sgd",
        {"momentum": 0.9, "nesterov": True},
        {"momentum": 0.9, "nesterov": True},
    ),
    _same(
        "momentum_decay_schedule",
        "torch",
        "SGD",
        0.1,
        "sgd",
        {"momentum": 0.9, "weight_decay": 1e-2},
        {"momentum": 0.9},
        l2=1e-2,
        schedule=in_steps(0.1),
    ),
    Case(
        "dampening",
        "torch",
        "SGD",
        0.1,
        {"momentum": 0.9, "dampening": 0.5},
        rule="sgd",
        rule_arguments={"momentum": 0.9, "dampening": 0.5},
    ),
    _same("adagrad", "torch", "Adagrad", 0.1, "adagrad", {}, _adagrad(1e-10)),
    _same(
        "adagrad_decay",
        "torch",
        "Adagrad",
        0.1,
        "adagrad",
        {"lr_decay": 0.01, "initial_accumulator_value": 0.3, "weight_decay": 1e-2},
        {**_adagrad(1e-10), "initial_accumulator_value": 0.3},
        l2=1e-2,
        schedule=lambda count: 0.1 / (1 + 0.01 * count),
        set_each_step=False,
    ),
    _same("rmsprop", "torch", "RMSprop", 0.01, "rmsprop", {}, _rmsprop()),
    _same(
        "rmsprop_centered",
        "torch",
        "RMSprop",
        0.01,
        "rmsprop",
        {"centered": True},
        _rmsprop(centered=True),
    ),
    _same(
        "rmsprop_momentum",
        "torch",
        "RMSprop",
        0.01,
        "rmsprop",
        {"momentum": 0.9},
        _rmsprop(momentum=0.9),
    ),
    _same(
        "rmsprop_centered_momentum",
        "torch",
        "RMSprop",
        0.01,
        "rmsprop",
        {"centered": True, "momentum": 0.9, "alpha": 0.9, "weight_decay": 1e-2},
        _rmsprop(centered=True, momentum=0.9, decay=0.9),
        l2=1e-2,
    ),
    Case(
        "rmsprop_momentum_schedule",
        "torch",
        "RMSprop",
        0.01,
        {"momentum": 0.9},
        rule="rmsprop",
        rule_arguments=_rmsprop(momentum=0.9, rate_in_buffer=False),
        ours="rmsprop",
        mapped=_rmsprop(momentum=0.9),
        schedule=in_steps(0.01),
        outer_schedule=True,
    ),
    _same("adadelta", "torch", "Adadelta", 1.0, "adadelta"),
    _same(
        "adadelta_decay",
        "torch",
        "Adadelta",
        0.5,
        "adadelta",
        {"weight_decay": 1e-2, "rho": 0.95},
        {"weight_decay": 1e-2, "rho": 0.95},
    ),
    _same("adam", "torch", "Adam", 1e-2, "adam"),
    _same(
        "adam_decay_schedule",
        "torch",
        "Adam",
        1e-2,
        "adam",
        {"weight_decay": 1e-2, "betas": (0.8, 0.99)},
        {"b1": 0.8, "b2": 0.99},
        l2=1e-2,
        schedule=in_steps(1e-2),
    ),
    _same(
        "adam_amsgrad",
        "torch",
        "Adam",
        1e-2,
        "amsgrad",
        {"amsgrad": True},
        {"max_before_debias": True},
    ),
    _same("adamw", "torch", "AdamW", 1e-2, "adamw", {}, {"weight_decay": 1e-2}),
    _same("adamax", "torch", "Adamax", 2e-3, "adamax"),
    _same("nadam", "torch", "NAdam", 2e-3, "nadam", {}, {"momentum_decay": 4e-3}),
    _same(
        "nadamw",
        "torch",
        "NAdam",
        2e-3,
        "nadamw",
        {
            "weight_decay": 1e-2,
            "decoupled_weight_decay": True,
            "momentum_decay": 1e-2,
        },
        {"weight_decay": 1e-2, "momentum_decay": 1e-2},
    ),
    # PyTorch debiases RAdam's eps, so only an eps that is too small to matter agrees.
    _same(
        "radam",
        "torch",
        "RAdam",
        1e-2,
        "radam",
        {"eps": 1e-30},
        {"eps": 1e-30},
    ),
    Case(
        "radam_eps",
        "torch",
        "RAdam",
        1e-2,
        {"eps": 1e-3},
        rule="radam",
        rule_arguments={"eps": 1e-3, "debias_eps": True},
    ),
)

# What a training loop does to a learning rate, as a share of the one that the optimizer
# was made with: PyTorch's scheduler, its arguments, and what it sets.
_CHANGES = {
    "warmup": (
        ("LinearLR", {"start_factor": 0.01, "total_iters": 30}),
        [0.01 + 0.99 * min(k, 30) / 30 for k in range(STEPS)],
    ),
    "cosine": (
        ("CosineAnnealingLR", {"T_max": STEPS}),
        [(1 + math.cos(math.pi * k / STEPS)) / 2 for k in range(STEPS)],
    ),
    "drops": (
        ("MultiStepLR", {"milestones": [30, 80], "gamma": 0.1}),
        [0.1 ** sum(k >= milestone for milestone in (30, 80)) for k in range(STEPS)],
    ),
    "by_hand": (
        None,
        [(1.0, 0.2, 3.0, 0.5)[k // 30] for k in range(STEPS)],
    ),
}


def _changing(name, library, ours, lr, arguments, mapped, rule_arguments=None):
    # A case for every change. Above its first value a schedule of ours needs base_lr.
    for change, (scheduler, shares) in _CHANGES.items():
        base = {"base_lr": lr}
        yield Case(
            f"{name}_{change}",
            library,
            "AdaBound",
            lr,
            arguments,
            rule=ours,
            rule_arguments={**mapped, **base, **(rule_arguments or {})},
            ours=ours,
            mapped={**mapped, **base},
            schedule=table([lr * share for share in shares]),
            scheduler=scheduler,
        )


# PyPI's adabound 0.0.5 has AdaBound alone, with AMSBound as a flag.
ADABOUND = (
    _same("adabound", "adabound", "AdaBound", 1e-3, "adabound"),
    _same(
        "adabound_fast",
        "adabound",
        "AdaBound",
        1e-2,
        "adabound",
        {"final_lr": 0.02, "gamma": 0.1, "betas": (0.8, 0.99)},
        {"final_lr": 0.02, "gamma": 0.1, "b1": 0.8, "b2": 0.99},
    ),
    _same(
        "adabound_decay",
        "adabound",
        "AdaBound",
        1e-3,
        "adabound",
        {"weight_decay": 1e-2, "gamma": 0.02},
        {"weight_decay": 1e-2, "gamma": 0.02},
    ),
    _same(
        "adabound_schedule",
        "adabound",
        "AdaBound",
        1e-3,
        "adabound",
        {"gamma": 0.02},
        {"gamma": 0.02},
        schedule=in_steps(1e-3),
    ),
    _same("amsbound", "adabound", "AdaBound", 1e-3, "amsbound", {"amsbound": True}),
    _same(
        "amsbound_decay_schedule",
        "adabound",
        "AdaBound",
        1e-3,
        "amsbound",
        {"amsbound": True, "weight_decay": 1e-2, "gamma": 0.02},
        {"weight_decay": 1e-2, "gamma": 0.02},
        schedule=in_steps(1e-3),
    ),
    *_changing(
        "adabound", "adabound", "adabound", 1e-3, {"gamma": 0.1}, {"gamma": 0.1}
    ),
    *_changing(
        "amsbound",
        "adabound",
        "amsbound",
        1e-3,
        {"amsbound": True, "weight_decay": 1e-2, "gamma": 0.1},
        {"weight_decay": 1e-2, "gamma": 0.1},
    ),
)


def _adaboundw(name, amsbound, fixed_decay):
    # pytorch_optimizer adds 10⁻¹⁵ under the root. gamma = 0.05 clips the rates of the
    # gradients so small that this would show in float32.
    common = {"gamma": 0.05, "weight_decay": 1e-2, "fixed_decay": fixed_decay}
    mapped = {**common, "amsbound": amsbound}
    return Case(
        name,
        "pytorch_optimizer",
        "AdaBound",
        1e-2,
        {**common, "weight_decouple": True, "ams_bound": amsbound},
        rule="adaboundw",
        rule_arguments={**mapped, "root_eps": 1e-15},
        ours="adaboundw",
        mapped=mapped,
    )


def _adashift(name, reduce_func, reduction, rtol=1e-5, **other):
    return _same(
        name,
        "pytorch_optimizer",
        "AdaShift",
        1e-2,
        "adashift",
        {"reduce_func": reduce_func, **other},
        {"reduction": reduction, **other},
        rtol=rtol,
    )


_SWATS = {"b1": 0.9, "b2": 0.8, "eps": 1e-2}
_SWATS_TORCH = {"betas": (0.9, 0.8), "eps": 1e-2}

PYTORCH_OPTIMIZER = (
    _adaboundw("adaboundw", False, False),
    _adaboundw("adaboundw_fixed", False, True),
    _adaboundw("amsboundw_fixed", True, True),
    *_changing(
        "adaboundw",
        "pytorch_optimizer",
        "adaboundw",
        1e-2,
        {"gamma": 0.1, "weight_decay": 1e-2, "weight_decouple": True},
        {"gamma": 0.1, "weight_decay": 1e-2},
        {"root_eps": 1e-15},
    ),
    _same("yogi", "pytorch_optimizer", "Yogi", 1e-2, "yogi"),
    _same("adabelief", "pytorch_optimizer", "AdaBelief", 1e-3, "adabelief"),
    _adashift("adashift", "torch.max", "max"),
    _adashift("adashift_mean", "torch.mean", "mean", keep_num=3),
    # The first v is one squared gradient, so a coordinate's path is mostly its first
    # few steps, where 1 − b2ᵗ is good to 1.5e-5 in float32.
    _adashift("adashift_none", None, "none", rtol=2e-5),
    # On one array the library's decision for any array is the paper's for all.
    Case(
        "swats",
        "pytorch_optimizer",
        "SWATS",
        0.11,
        _SWATS_TORCH,
        rule="swats_any",
        rule_arguments=_SWATS,
        ours="swats",
        mapped=_SWATS,
        problem="swats",
    ),
    Case(
        "swats_tree",
        "pytorch_optimizer",
        "SWATS",
        0.11,
        _SWATS_TORCH,
        rule="swats_any",
        rule_arguments=_SWATS,
    ),
    Case(
        "adamod",
        "pytorch_optimizer",
        "AdaMod",
        1e-2,
        {"betas": (0.9, 0.999, 0.99)},
        rule="adamod",
        rule_arguments={"b3": 0.99, "folded": True},
    ),
    # Neither debiased nor with a running maximum in our reading of the paper; where
    # the maximum is the latest value, the correction is a schedule.
    _same(
        "padam_growing",
        "pytorch_optimizer",
        "PAdam",
        0.1,
        "padam",
        {"partial": 0.125},
        {"p": 0.125},
        problem="growing",
        schedule=padam_debias(0.1, 0.9, 0.999),
        set_each_step=False,
    ),
    Case(
        "padam",
        "pytorch_optimizer",
        "PAdam",
        0.1,
        {"partial": 0.125},
        rule="padam",
        rule_arguments={"p": 0.125, "running_max": False, "debias": True},
    ),
)

CASES = TORCH + ADABOUND + PYTORCH_OPTIMIZER
