"""PyTorch's optimizers and schedulers, by PyTorch's names, and the way there and back.

    torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    optjax.pytorch.AdamW(lr=1e-3, weight_decay=0.1)

Names, arguments, defaults and trajectories are torch.optim's, and for `AdaBound` those
of PyPI's `adabound`; each is made of the parts of the basic form. PyTorch itself is not
needed.
"""

from optjax.pytorch._adam import Adam, Adamax, AdamW, NAdam, RAdam
from optjax.pytorch._bounded import AdaBound, AdaBoundW
from optjax.pytorch._compare import Comparison, Trajectory, compare
from optjax.pytorch._load import load_optimizer
from optjax.pytorch._optimizer import Optimizer, OptimizerState
from optjax.pytorch._save import save_optimizer
from optjax.pytorch._schedulers import (
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    Schedule,
    SequentialLR,
    StepLR,
    per_epoch,
)
from optjax.pytorch._squares import SGD, Adadelta, Adagrad, RMSprop
from optjax.pytorch._state_dict import flatten_state_dict

__all__ = [
    "SGD",
    "AdaBound",
    "AdaBoundW",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Comparison",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "ExponentialLR",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "NAdam",
    "OneCycleLR",
    "Optimizer",
    "OptimizerState",
    "PolynomialLR",
    "RAdam",
    "RMSprop",
    "Schedule",
    "SequentialLR",
    "StepLR",
    "Trajectory",
    "compare",
    "flatten_state_dict",
    "load_optimizer",
    "per_epoch",
    "save_optimizer",
]
