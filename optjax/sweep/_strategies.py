"""Strategies: how one device runs its lanes, each a function of what one lane does."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, get_args

import jax

#: `lane(state, told) -> (state, metrics)`, a call's work of one trial.
Lane: TypeAlias = Callable[[Any, Any], tuple[Any, jax.Array]]


class Strategy(Protocol):
    """From what one lane does to what all lanes of a device do.

    It is called while JAX traces. What it is, its code included, is part of what a
    sweep's directory belongs to. One that runs each lane by itself, so that an idle one
    costs nothing, may say so by an attribute `skips_idle = True`: slow trials then run
    one after the other, each to its end, and the first results come early.
    """

    def __call__(self, lane: Lane, /) -> Lane:
        """Run `lane` over the first axis of every array.

        Args:
          lane: `lane(state, told) -> (state, metrics)`, pytrees of arrays. It skips its
            work, by `jax.lax.cond`, where its lane is idle.

        Returns:
          The same for states, `told` and metrics with an axis of lanes in front.
        """
        ...


@dataclass(frozen=True)
class _Mapped:
    """One after the other, or so many at a time."""

    batch_size: int | None = None

    @property
    def skips_idle(self) -> bool:
        """Whether a lane's `cond` is one, and not both of its sides."""
        return self.batch_size is None

    def __call__(self, lane: Lane, /) -> Lane:
        def lanes(states: Any, told: Any) -> Any:
            return jax.lax.map(
                lambda both: lane(*both), (states, told), batch_size=self.batch_size
            )

        return lanes


StrategyName = Literal["vmap", "map", "chunked"]
#: All lanes at once, one after the other, or eight at a time. Several devices always
#: share the lanes evenly.
STRATEGIES: dict[StrategyName, Strategy] = dict(
    zip(get_args(StrategyName), (jax.vmap, _Mapped(), _Mapped(8)), strict=True)
)


def as_strategy(strategy: StrategyName | Strategy) -> Strategy:
    """The strategy itself, of its name too."""
    return STRATEGIES[strategy] if isinstance(strategy, str) else strategy


def skips_idle(strategy: StrategyName | Strategy) -> bool:
    """Whether an idle lane costs nothing."""
    return bool(getattr(as_strategy(strategy), "skips_idle", False))
