"""What an audit found: arrays from a compiled step, and their words outside of it."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from optjax._audit.facts import Verdict
from optjax._audit.measure import Measured
from optjax._audit.notes import notes
from optjax._audit.subject import PROBES
from optjax._audit.sums import Effects, Moves
from optjax._audit.verdicts import judge


class AuditError(ValueError):
    """An optimizer of which something is wrong."""


class Layout(NamedTuple):
    """What is known of the leaves and the hyper-parameters before any step.

    Attributes:
      leaves: the leaves' names.
      sizes: how many coordinates each has.
      axes: how many axes each has.
      dtypes: the dtype of each.
      groups: the names of the groups, and the leaves of each by their index.
      hyperparameters: their names.
      kept_in: the dtype of each.
      in_parts: whether gradients are gathered over several batches.
      counts_batches: whether a schedule counts batches where steps are fewer.
    """

    leaves: tuple[str, ...]
    sizes: tuple[int, ...]
    axes: tuple[int, ...]
    dtypes: tuple[str, ...]
    groups: tuple[tuple[str, tuple[int, ...]], ...]
    hyperparameters: tuple[str, ...]
    kept_in: tuple[str, ...]
    in_parts: bool
    counts_batches: bool


class Effect(NamedTuple):
    """What one hyper-parameter h does to the steps Δx of a group.

    Attributes:
      elasticity: ∂ log‖Δx‖ / ∂ log h: 1 where the step is proportional to h, 0 where it
        has no say in its length.
      turn: how far h turns the direction of Δx, in radians a unit of log h.
      moved: the share of coordinates whose own |∂ log|Δx_i| / ∂ log h| is ½ or more.
      decay: the part of the step that h takes towards 0; for a decoupled weight decay
        ‖αλx‖ / ‖Δx‖.
    """

    elasticity: float
    turn: float
    moved: float
    decay: float


@jax.tree_util.register_pytree_node_class
class Audit(Mapping[str, Mapping[str, Effect]]):
    """Which numbers of an optimizer move its step: `Effect`s by group and by name.

    It prints as its verdicts and a table. From a compiled step it comes as arrays, like
    any other result, and is read outside.
    """

    def __init__(self, layout: Layout, measured: Measured):
        self.layout, self.measured = layout, measured

    def tree_flatten(self) -> tuple[tuple[Measured], Layout]:
        """For JAX: the arrays, and all that a compiled step knows before it runs."""
        return (self.measured,), self.layout

    @classmethod
    def tree_unflatten(cls, layout: Layout, children: Any) -> "Audit":
        """For JAX."""
        return cls(layout, *children)

    def __getitem__(self, group: str) -> Mapping[str, Effect]:
        members = dict(self.layout.groups)
        if group not in members:
            raise KeyError(f"no group {group!r}; there are {', '.join(members)}")
        names = self.layout.hyperparameters + PROBES
        with np.errstate(all="ignore"):
            effects = self._effects(list(members[group]))
        return dict(zip(names, effects, strict=True))

    def __iter__(self) -> Iterator[str]:
        return iter(name for name, _ in self.layout.groups)

    def __len__(self) -> int:
        return len(self.layout.groups)

    def at(self, step: int) -> "Audit":
        """Of several steps one."""
        steps = len(self.measured.values)
        if not -steps <= step < steps:
            raise IndexError(f"step must be one of {steps}, got {step}.")

        def one(fields: Any) -> Any:
            return jax.tree.map(lambda x: x[step % steps][None], fields)

        before = self.measured
        effects = Effects(*(*one(before.effects[:-1]), before.effects.by_difference))
        return Audit(
            self.layout,
            Measured(
                effects,
                one(before.moves),
                one(before.values),
                one(before.told),
                before.forecast,
            ),
        )

    @property
    def verdicts(self) -> list[Verdict]:
        """What is wrong, the gravest first; empty where nothing is."""
        return judge(self.layout, jax.tree.map(np.asarray, self.measured), self)

    @property
    def notes(self) -> list[str]:
        """What is to come though nothing is wrong, such as bounds that will decide."""
        return notes(self.layout, jax.tree.map(np.asarray, self.measured))

    def raise_for(self, *, ignore: tuple[str, ...] = ()) -> None:
        """Raise where something is wrong, for a test of one's own.

        Args:
          ignore: kinds of verdicts that are meant to be, such as "frozen".

        Raises:
          AuditError: with the verdicts.
        """
        found = [verdict for verdict in self.verdicts if verdict.kind not in ignore]
        if found:
            raise AuditError("\n".join(map(str, found)))

    def __str__(self) -> str:
        from optjax._audit.table import table

        return "\n".join([*map(str, self.verdicts), *self.notes, *table(self)])

    def __repr__(self) -> str:
        names = ", ".join(self.layout.hyperparameters)
        return f"<Audit of {len(self)} groups, hyper-parameters {names or 'unknown'}>"

    def _effects(self, members: list[int]) -> list[Effect]:
        """Of several leaves and steps as one long vector, each turned by its own."""
        effects: Effects = self.measured.effects
        moves: Moves = self.measured.moves
        # Steps, knobs, leaves.
        elasticity, turn, moved, decay = (
            np.asarray(field, np.float64)[:, :, members] for field in effects[:4]
        )
        update, parameter = (
            np.asarray(field, np.float64)[:, None, members]
            for field in (moves.update, moves.parameter)
        )
        weight = update**2
        is_step = weight > 0
        weight = weight / np.sum(weight) if np.any(is_step) else weight * np.nan
        elasticity, turn = np.where(is_step, elasticity, 0), np.where(is_step, turn, 0)
        in_step = np.sum(weight, axis=2, keepdims=True)
        of_step = np.sum(weight * elasticity, axis=2, keepdims=True)
        of_step = of_step / np.where(in_step == 0, 1.0, in_step)
        turned = weight * (turn**2 + (elasticity - of_step) ** 2)
        lengths = np.sum(update * parameter * np.where(is_step, decay, 0), axis=2)
        whole = np.sqrt(np.sum(update**2, axis=2) * np.sum(parameter**2, axis=2))
        is_known = whole[:, 0] > 0
        size = np.array(self.layout.sizes, np.float64)[members]
        columns = (
            np.sum(weight * elasticity, axis=(0, 2)),
            np.sqrt(np.sum(turned, axis=(0, 2))),
            np.mean(moved @ size, axis=0) / max(np.sum(size), 1),
            np.mean(lengths[is_known] / whole[is_known], axis=0)
            if np.any(is_known)
            else np.zeros(lengths.shape[1]),
        )
        return [Effect(*row) for row in np.transpose(columns).tolist()]
