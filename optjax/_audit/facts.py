"""What the rules of an audit ask of its measurements, and a verdict."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from optjax._audit.measure import Measured
from optjax._audit.names import Role, role
from optjax._groups import OVERALL

# Gradients and updates so much smaller than those of other leaves are rounding.
_ROUNDING = 1e-6


class Verdict(NamedTuple):
    """Something that is wrong.

    Attributes:
      kind: a word or two to tell it by.
      cause: what is wrong, in words.
      evidence: what it was seen by.
      remedy: what to do.
      where: the groups or the leaves.
    """

    kind: str
    cause: str
    evidence: str
    remedy: str
    where: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.cause}: {self.evidence}. {self.remedy}."


class Facts:
    """The measurements, with what several verdicts ask."""

    def __init__(self, layout: Any, measured: Measured, effects: Any):
        self.layout, self.measured = layout, measured
        self.moves, self.values = measured.moves, measured.values
        self.groups = {
            name: list(members) for name, members in layout.groups if name != OVERALL
        } or {OVERALL: list(range(len(layout.leaves)))}
        self.effects = {name: effects[name] for name in [*self.groups, OVERALL]}
        self.has_gradient = self._is_more_than_rounding(self.moves.gradient)
        self.moves_at_all = self._is_more_than_rounding(self.moves.update)
        # An empty leaf has nothing to move, an integer no derivative.
        self.may_have_gradient = np.array(
            [
                size > 0 and jnp.issubdtype(dtype, jnp.inexact)
                for size, dtype in zip(layout.sizes, layout.dtypes, strict=True)
            ]
        )

    def _is_more_than_rounding(self, norms: np.ndarray) -> np.ndarray:
        """Which leaves' coordinates are not small beside those of the others."""
        sizes = np.array(self.layout.sizes)
        squares = np.max(norms, axis=0).astype(np.float64) ** 2
        whole = np.sqrt(np.sum(squares) / max(np.sum(sizes), 1))
        is_more: np.ndarray = (
            np.sqrt(squares / np.maximum(sizes, 1)) > _ROUNDING * whole
        )
        return is_more

    def named(self, *roles: Role) -> list[tuple[int, str]]:
        """The hyper-parameters of these roles, with their index."""
        names = enumerate(self.layout.hyperparameters)
        return [(i, name) for i, name in names if role(name) in roles]

    def leaf(self, knob: int, field: str) -> np.ndarray:
        """A field of a knob's effects on each leaf, the mean of the steps with one."""
        values = getattr(self.measured.effects, field)[:, knob]
        is_step = self.moves.update > 0
        total = np.sum(np.where(is_step, values, 0.0), axis=0)
        mean: np.ndarray = total / np.maximum(np.sum(is_step, axis=0), 1)
        return mean

    def told(self, group: str, field: str) -> float:
        """What the parts tell of a group, NaN of one that has no such part."""
        members = self.groups[group]
        values = np.mean(getattr(self.measured.told, field), axis=0)[members]
        return float(np.average(values, weights=np.array(self.layout.sizes)[members]))

    def live(self) -> list[str]:
        """The groups that move."""
        return [
            g for g, members in self.groups.items() if self.moves_at_all[members].any()
        ]

    def leaves(self, which: Any) -> tuple[str, ...]:
        return tuple(np.array(self.layout.leaves)[which].tolist())


def count(some: Sequence[str], all_: Sequence[str]) -> str:
    """How many of how many groups, in words; "" of all."""
    is_all = len(some) == len(all_)
    return "" if is_all else f" in {len(some)} of {len(all_)} groups"


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
