"""Trajectories of torch.optim and `adabound` that optjax.pytorch is held against.

    python -m tests.golden.dialect

writes dialect.npz, the parameters (float64) after the steps in `STORED`, where PyTorch
and `adabound` are installed. `CASES` has every optimizer, keyword and scheduler; a case
is written once, in PyTorch's words, and read by both sides.
"""

import importlib
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

FILE = Path(__file__).with_name("dialect.npz")
STEPS = 200
STORED = (1, 2, 30, 51, 100, 200)
SHAPES = {"bias": (7,), "kernel": (2, 3, 2)}
#: Which parameters each group has, where there are groups.
MEMBERS = (("bias",), ("kernel",))


class Case(NamedTuple):
    """One optimizer in PyTorch's words.

    Attributes:
        optimizer: the class.
        keywords: its arguments.
        scheduler: the class and its arguments; for SequentialLR a list of such pairs
            and the milestones.
        groups: the options of the groups of `MEMBERS`.
        every: updates for each step of the scheduler.
    """

    optimizer: str
    keywords: Mapping[str, Any] = {}
    scheduler: tuple[str, Any] | None = None
    groups: Sequence[Mapping[str, Any]] = ()
    every: int = 1


def problem() -> tuple[dict[str, np.ndarray], list[dict[str, np.ndarray]]]:
    """A start, and gradients of many sizes that do not depend on the parameters."""
    rng = np.random.default_rng(18)
    t = np.arange(1, STEPS + 1)
    start, grads = {}, {}
    for key, shape in SHAPES.items():
        size = math.prod(shape)
        scale = 10.0 ** np.linspace(-3, 2, size)
        waves = np.sin(np.outer(t, rng.uniform(0.1, 2.5, size)) + np.arange(size))
        fading = np.exp(-t / 80)[:, None]
        # To a float32, so that both precisions have the same.
        g = np.float32((waves + rng.uniform(-0.4, 0.4, size)) * scale * fading)
        grads[key] = g.astype(np.float64).reshape(STEPS, *shape)
        start[key] = np.float32(rng.normal(size=shape)).astype(np.float64)
    return start, [{key: grads[key][k] for key in SHAPES} for k in range(STEPS)]


ADAM = {"betas": (0.8, 0.98), "eps": 1e-4}
BOTH = {"weight_decay": 0.05, "maximize": True}
TWO = ({"lr": 0.02, "weight_decay": 0.0}, {"weight_decay": 0.1})

CASES = {
    "sgd": Case("SGD", {"lr": 0.01}),
    "sgd_all": Case("SGD", {"lr": 0.01, "momentum": 0.9, **BOTH}),
    "sgd_nesterov": Case("SGD", {"lr": 0.01, "momentum": 0.8, "nesterov": True}),
    "sgd_dampening": Case(
        "SGD", {"lr": 0.01, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.02}
    ),
    "sgd_groups": Case("SGD", {"lr": 0.01, "momentum": 0.9}, groups=TWO),
    "adagrad": Case("Adagrad"),
    "adagrad_all": Case(
        "Adagrad",
        {"lr": 0.05, "lr_decay": 0.02, "initial_accumulator_value": 0.3, "eps": 1e-3}
        | BOTH,
    ),
    "rmsprop": Case("RMSprop"),
    "rmsprop_all": Case("RMSprop", {"alpha": 0.9, "eps": 1e-3, "momentum": 0.9} | BOTH),
    "rmsprop_centered": Case("RMSprop", {"centered": True, "eps": 1e-3}),
    "rmsprop_both": Case("RMSprop", {"centered": True, "momentum": 0.8, "eps": 1e-3}),
    "adadelta": Case("Adadelta"),
    "adadelta_all": Case("Adadelta", {"lr": 0.5, "rho": 0.95, "eps": 1e-4} | BOTH),
    "adam": Case("Adam"),
    "adam_all": Case("Adam", {"lr": 0.02, **ADAM, **BOTH}),
    "adam_amsgrad": Case("Adam", {"lr": 0.01, "amsgrad": True}),
    "adam_decoupled": Case(
        "Adam", {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True}
    ),
    "adam_groups": Case("Adam", {"lr": 0.01, "amsgrad": True}, groups=TWO),
    "adamw": Case("AdamW"),
    "adamw_all": Case("AdamW", {"lr": 0.02, "amsgrad": True, **ADAM, **BOTH}),
    "adamax": Case("Adamax"),
    "adamax_all": Case("Adamax", {"lr": 0.02, **ADAM, **BOTH}),
    "nadam": Case("NAdam"),
    "nadam_all": Case("NAdam", {"momentum_decay": 0.02, **ADAM, **BOTH}),
    "nadam_decoupled": Case(
        "NAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True}
    ),
    "radam": Case("RAdam"),
    "radam_all": Case("RAdam", {"lr": 0.01, **ADAM, **BOTH, "eps": 1e-2}),
    "radam_decoupled": Case(
        "RAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True}
    ),
    "adabound": Case("AdaBound"),
    "adabound_all": Case(
        "AdaBound",
        {"lr": 0.01, "final_lr": 0.05, "gamma": 0.03, "weight_decay": 0.05, **ADAM},
    ),
    "adabound_amsbound": Case("AdaBound", {"gamma": 0.02, "amsbound": True}),
    "adabound_groups": Case("AdaBound", {"gamma": 0.02}, groups=TWO),
}

SCHEDULERS: dict[str, tuple[str, Any]] = {
    "step": ("StepLR", {"step_size": 30, "gamma": 0.5}),
    "multistep": ("MultiStepLR", {"milestones": [40, 90, 90], "gamma": 0.5}),
    "exponential": ("ExponentialLR", {"gamma": 0.98}),
    "linear": ("LinearLR", {"start_factor": 0.1, "end_factor": 0.8, "total_iters": 60}),
    "polynomial": ("PolynomialLR", {"total_iters": 150, "power": 1.5}),
    "cosine": ("CosineAnnealingLR", {"T_max": 80, "eta_min": 1e-4}),
    "restarts": ("CosineAnnealingWarmRestarts", {"T_0": 30, "eta_min": 1e-4}),
    "restarts_longer": ("CosineAnnealingWarmRestarts", {"T_0": 20, "T_mult": 2}),
    "onecycle": ("OneCycleLR", {"max_lr": 0.05, "total_steps": 200}),
    "onecycle_linear": (
        "OneCycleLR",
        {
            "max_lr": 0.05,
            "epochs": 10,
            "steps_per_epoch": 21,
            "anneal_strategy": "linear",
            "three_phase": True,
            "pct_start": 0.25,
            "base_momentum": 0.7,
        },
    ),
    "lambda": ("LambdaLR", {"lr_lambda": lambda epoch: 1.0 / (1.0 + 0.1 * epoch)}),
    "sequential": (
        "SequentialLR",
        (
            [
                ("LinearLR", {"start_factor": 0.01, "total_iters": 20}),
                ("CosineAnnealingLR", {"T_max": 60}),
                ("ExponentialLR", {"gamma": 0.97}),
            ],
            [20, 120],
        ),
    ),
}

for _name, _scheduler in SCHEDULERS.items():
    _keywords = {"lr": 0.02, "momentum": 0.9, "dampening": 0.1, "weight_decay": 0.01}
    CASES[f"sgd_{_name}"] = Case("SGD", _keywords, _scheduler)
    if _name in ("cosine", "onecycle"):
        CASES[f"adam_{_name}"] = Case("Adam", {"weight_decay": 0.01}, _scheduler)
        CASES[f"adamw_{_name}"] = Case("AdamW", {"lr": 0.01}, _scheduler)
        CASES[f"rmsprop_{_name}"] = Case("RMSprop", {"momentum": 0.5}, _scheduler)
        CASES[f"nadam_{_name}"] = Case("NAdam", {}, _scheduler)
        CASES[f"radam_{_name}"] = Case("RAdam", {"lr": 0.01}, _scheduler)
        CASES[f"adamax_{_name}"] = Case("Adamax", {}, _scheduler)
    if _name in ("step", "linear", "sequential", "restarts", "onecycle"):
        CASES[f"adabound_{_name}"] = Case("AdaBound", {"gamma": 0.05}, _scheduler)
CASES["adam_per_epoch"] = Case(
    "Adam", {"lr": 0.01}, ("StepLR", {"step_size": 2, "gamma": 0.3}), every=25
)
CASES["sgd_groups_cosine"] = Case(
    "SGD", {"lr": 0.01, "momentum": 0.9}, SCHEDULERS["cosine"], groups=TWO
)


def ours(case: Case, members: Any = MEMBERS) -> Any:
    """The case's optimizer of optjax.pytorch, its groups by JAX's names."""
    from optjax import pytorch

    factory = getattr(pytorch, case.optimizer)
    keywords = dict(case.keywords)
    default = factory().param_groups[0]

    def scheduled(options: dict[str, Any]) -> dict[str, Any]:
        if case.scheduler is None:
            return options
        lr = options.get("lr", keywords.get("lr", default["lr"]))
        schedule = our_schedule(lr, case.scheduler)
        if case.every > 1:
            schedule = pytorch.per_epoch(schedule, case.every)
        options = {**options, "lr": schedule}
        if schedule.momentum is not None and "betas" in default:
            betas = keywords.get("betas", default["betas"])
            options["betas"] = (schedule.momentum, betas[1])
        elif schedule.momentum is not None:
            options["momentum"] = schedule.momentum
        return options

    if not case.groups:
        return factory(**scheduled(keywords))
    return factory(
        [
            {"params": list(names), **scheduled(dict(options))}
            for names, options in zip(members, case.groups, strict=True)
        ],
        **keywords,
    )


def our_schedule(lr: float, scheduler: tuple[str, Any]) -> Any:
    from optjax import pytorch

    name, arguments = scheduler
    if name == "SequentialLR":
        parts, milestones = arguments
        parts = [our_schedule(lr, part) for part in parts]
        return pytorch.SequentialLR(lr, parts, milestones)
    return getattr(pytorch, name)(lr, **arguments)


def theirs(
    case: Case, params: Mapping[str, Any], members: Any = MEMBERS
) -> tuple[Any, Any]:
    """PyTorch's optimizer, and its scheduler or None; groups by PyTorch's names."""
    module = "adabound" if case.optimizer == "AdaBound" else "torch.optim"
    factory = getattr(importlib.import_module(module), case.optimizer)
    handed: Any = list(params.values())
    if case.groups:
        handed = [
            {"params": [params[key] for key in names], **options}
            for names, options in zip(members, case.groups, strict=True)
        ]
    optimizer = factory(handed, **case.keywords)
    with warnings.catch_warnings():
        # A scheduler after the first notes that the one before it has stepped.
        warnings.simplefilter("ignore")
        scheduler = case.scheduler and their_scheduler(optimizer, case.scheduler)
    return optimizer, scheduler


def their_scheduler(optimizer: Any, scheduler: tuple[str, Any]) -> Any:
    from torch.optim import lr_scheduler

    name, arguments = scheduler
    if name == "SequentialLR":
        parts, milestones = arguments
        parts = [their_scheduler(optimizer, part) for part in parts]
        return lr_scheduler.SequentialLR(optimizer, parts, milestones)
    return getattr(lr_scheduler, name)(optimizer, **arguments)


def follow(case: Case) -> list[dict[str, np.ndarray]]:
    """PyTorch's parameters after every step, in float64."""
    import torch

    start, grads = problem()
    before = torch.get_default_dtype()
    # NAdam keeps the product of its momenta in the default dtype.
    torch.set_default_dtype(torch.float64)
    try:
        params = {k: torch.nn.Parameter(torch.tensor(v)) for k, v in start.items()}
        optimizer, scheduler = theirs(case, params)
        path = []
        with warnings.catch_warnings():
            # adabound 0.0.5 calls what PyTorch 2 deprecates and computes as meant.
            warnings.filterwarnings("ignore", message="This overload of")
            warnings.filterwarnings("ignore", message="The epoch parameter")
            for count, tree in enumerate(grads, 1):
                for key, param in params.items():
                    param.grad = torch.tensor(tree[key])
                optimizer.step()
                if scheduler is not None and count % case.every == 0:
                    scheduler.step()
                path.append({k: p.detach().numpy().copy() for k, p in params.items()})
    finally:
        torch.set_default_dtype(before)
    return path


def main() -> None:
    stored = {}
    for name, case in CASES.items():
        path = follow(case)
        rows = [
            np.concatenate([path[step - 1][key].ravel() for key in SHAPES])
            for step in STORED
        ]
        stored[name] = np.stack(rows)
    np.savez_compressed(FILE, **stored)
    print(f"{FILE.name}: {len(stored)} cases, {FILE.stat().st_size} bytes")


def committed(name: str) -> list[dict[str, np.ndarray]]:
    """PyTorch's parameters after the steps in `STORED`."""
    with np.load(FILE) as file:
        rows = file[name]
    ends = np.cumsum([math.prod(shape) for shape in SHAPES.values()])
    return [
        {
            key: part.reshape(shape)
            for (key, shape), part in zip(
                SHAPES.items(), np.split(row, ends[:-1]), strict=True
            )
        }
        for row in rows
    ]


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    main()
