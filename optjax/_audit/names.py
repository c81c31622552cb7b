"""What the numbers of optimizers are, by the names that libraries give them.

Of an optimizer that is a black box nothing else is known. A number of another name is
expected to move the step, whatever it is.
"""

from enum import Enum


class Role(Enum):
    """What a hyper-parameter is for."""

    STEP = "learning rate"
    AVERAGE = "decay of an average"
    FLOOR = "term that keeps a denominator from 0"
    DECAY = "weight decay"
    #: It acts in some steps only: a bound once it closes, a clip on large gradients.
    AT_TIMES = "of no effect in many a step"
    OTHER = "unknown"


_NAMES = {
    Role.STEP: "learning_rate lr alpha step_size",
    Role.AVERAGE: "b1 b2 b3 beta1 beta2 beta3 beta_1 beta_2 beta decay decay_rate rho "
    "momentum",
    Role.FLOOR: "eps eps_root epsilon",
    Role.DECAY: "weight_decay weight_decay_rate",
    Role.AT_TIMES: "final_lr gamma freeze_after base_lr threshold p momentum_decay "
    "initial_scale "
    "initial_accumulator_value max_norm max_delta clip clipping clipping_threshold "
    "min_norm trust_coefficient",
}
_ROLES = {name: role for role, names in _NAMES.items() for name in names.split()}


def role(name: str) -> Role:
    """The role of a hyper-parameter."""
    return _ROLES.get(name, Role.OTHER)
