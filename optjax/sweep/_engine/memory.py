"""Programs that fit in memory, as XLA says beforehand what they will take."""

import warnings
from typing import NamedTuple

from optjax.sweep._engine.groups import TrialGroup
from optjax.sweep._engine.lanes import Program
from optjax.sweep._engine.plan import Plan
from optjax.sweep._errors import SweepError
from optjax.sweep._strategies import Strategy, StrategyName

# Each takes less memory than the one before.
_LESS: dict[StrategyName, StrategyName] = {"vmap": "chunked", "chunked": "map"}


class Fitted(NamedTuple):
    """A group with as many lanes as there is memory for, and its program."""

    group: TrialGroup
    strategy: StrategyName | Strategy
    program: Program


def fit(group: TrialGroup, plan: Plan, strategy: StrategyName | Strategy) -> Fitted:
    """Compile a group with as many of its lanes as the limit allows.

    Raises:
      SweepError: where not even one lane a device fits.
    """
    devices, lanes = len(plan.devices), group.lanes
    while True:
        fewer = group._replace(lanes=lanes)
        program = fewer.compile(plan, strategy)
        if program.bytes <= plan.limit:
            return Fitted(fewer, strategy, program)
        share = min(int(lanes * plan.limit / program.bytes), lanes - 1)
        if share < devices:
            raise SweepError(
                f"the memory limit of {plan.limit:,} bytes does not hold {lanes} lanes "
                f"of {group.name}, which take {program.bytes:,}; raise memory_limit="
            )
        lanes = share // devices * devices


def is_of_memory(error: Exception) -> bool:
    """Whether there was not enough memory."""
    words = str(error).lower()
    return isinstance(error, MemoryError) or any(
        word in words for word in ("resource_exhausted", "out of memory")
    )


def next_strategy(
    strategy: StrategyName | Strategy, group: TrialGroup
) -> StrategyName | None:
    """What takes less memory than one that ran out of it, with a warning, or None."""
    less = _LESS.get(strategy) if isinstance(strategy, str) else None
    if less is not None:
        warnings.warn(
            f"{strategy} with {group.lanes} lanes of {group.name} ran out of memory; "
            f"{less} is taken",
            stacklevel=2,
        )
    return less
