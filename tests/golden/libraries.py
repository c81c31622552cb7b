"""Runs a case in the library that it comes from. Needs PyTorch and that library."""

import importlib
import warnings
from typing import Any

import numpy as np
import torch

from .cases import Case
from .problem import load


def _optimizer(case: Case, params: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    module = importlib.import_module(
        "torch.optim" if case.library == "torch" else case.library
    )
    arguments = dict(case.arguments)
    if isinstance(arguments.get("reduce_func"), str):
        arguments["reduce_func"] = getattr(torch, arguments["reduce_func"][6:])
    if case.library == "pytorch_optimizer":
        arguments["foreach"] = False
    return getattr(module, case.reference)(params, lr=case.lr, **arguments)


def follow(case: Case) -> list[dict[str, np.ndarray]]:
    """The parameters after every step, computed in float64."""
    start, grads = load(case.problem)
    params = {
        key: torch.nn.Parameter(torch.tensor(value, dtype=torch.float64))
        for key, value in start.items()
    }
    optimizer = _optimizer(case, list(params.values()))
    scheduler: Any = None
    if case.scheduler is not None:
        name, arguments = case.scheduler
        scheduler = getattr(torch.optim.lr_scheduler, name)(optimizer, **arguments)
    path = []
    for count, tree in enumerate(grads):
        if case.schedule is not None and case.set_each_step and scheduler is None:
            for group in optimizer.param_groups:
                group["lr"] = case.schedule(count)
        for key, param in params.items():
            param.grad = torch.tensor(tree[key], dtype=torch.float64)
        with warnings.catch_warnings():
            # adabound 0.0.5 calls add_(number, tensor) and addcmul_(number, ...),
            # which PyTorch 2 deprecates and still computes as meant.
            warnings.filterwarnings("ignore", message="This overload of")
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
        path.append(
            {key: param.detach().numpy().copy() for key, param in params.items()}
        )
    return path
