"""What both engines of a sweep work with: its groups, its directory, who is told."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from optjax.sweep._engine.groups import TrialGroup
from optjax.sweep._engine.interrupt import Stop
from optjax.sweep._engine.ledger import Ledger
from optjax.sweep._engine.plan import Plan
from optjax.sweep._engine.processes import together
from optjax.sweep._records import Record, Status
from optjax.sweep._store.checkpoint import Checkpoint
from optjax.sweep._store.fingerprint import Fingerprint
from optjax.sweep._store.identity import identity, in_words
from optjax.sweep._store.keep import Keeper
from optjax.sweep._store.store import Store
from optjax.sweep._strategies import Strategy, StrategyName


@dataclass(frozen=True, kw_only=True)
class Session:
    """One call of `run`.

    Attributes:
      plan: what all groups have in common.
      groups: the trials by program, in the order of their generations.
      generations: how many trials there were at first, and how many came each time.
      unmade: the trials that have failed before there was a program; grows with what
        is proposed.
      more: how many trials are proposed when all have ended, and those of them that
        have a program; none at the end. None where nothing proposes trials.
      search: what does, or None.
      keep: of how many trials the state is kept, as it was said, or None.
      keeper: who keeps them, or None.
      ledger: what has been measured.
      store: the directory.
      stop: the signals.
      report: called with a `Status`.
      on_group: called with an optimizer's name and its records, or None.
      call_seconds: about how long a call of the program is to take.
      checkpoint_seconds: how much work a crash may cost, or None to save nothing.
      fingerprint: that made the groups' digests; None where nothing is compared.
      about: the caller's words.
      other_versions: whether other libraries may have begun it.
    """

    plan: Plan
    groups: list[TrialGroup]
    generations: list[int]
    unmade: Sequence[Record]
    more: Callable[[Sequence[Record]], tuple[int, Sequence[TrialGroup]]] | None
    search: Any
    keep: int | str | None
    keeper: Keeper | None
    ledger: Ledger
    store: Store
    stop: Stop
    report: Callable[[Status], None]
    on_group: Callable[[str, Sequence[Record]], None] | None
    call_seconds: float
    checkpoint_seconds: float | None
    fingerprint: Fingerprint | None
    about: Mapping[str, Any]
    other_versions: bool

    def open_store(
        self,
        *,
        strategy: StrategyName | Strategy,
        devices: str,
        lanes: Sequence[int],
    ) -> Checkpoint:
        """Open the store, the first process before the others, which only read.

        Raises:
          SweepError: where it holds another sweep, or is damaged.
        """
        self.ledger.strategy = in_words(strategy)
        told = self._identity(strategy, devices, lanes)
        checkpoint, metrics = Checkpoint(), self.groups[0].metrics
        is_first = jax.process_index() == 0
        for is_my_turn in (is_first, not is_first):
            with together():
                if is_my_turn:
                    checkpoint = self.store.open(
                        told, metrics, other_versions=self.other_versions
                    )
        return checkpoint

    def add_more(self, strategy: StrategyName | Strategy) -> bool:
        """Write down what is proposed, for which all trials have to have ended.

        Returns:
          Whether there is anything to run.
        """
        before, groups = len(self.generations), len(self.groups)
        # Of a round there may be no program at all.
        while self.more is not None and len(self.groups) == groups:
            count, new = self.more(self.ledger.records())
            if not count:
                break
            self.groups.extend(new)
            self.generations.append(count)
            self.ledger.expect(count)
        if len(self.generations) == before:
            return False
        lanes = [group.lanes for group in self.groups]
        told = self._identity(strategy, self.plan.device_names, lanes)
        with together():
            self.store.grow(told)
        return len(self.groups) > groups

    def _identity(
        self, strategy: StrategyName | Strategy, devices: str, lanes: Sequence[int]
    ) -> dict[str, Any]:
        if self.fingerprint is None:
            return {}
        return identity(
            self.groups,
            self.plan,
            fingerprint=self.fingerprint,
            about=self.about,
            devices=devices,
            strategy=strategy,
            lanes=lanes,
            generations=self.generations,
            unmade=self.unmade,
            search=self.search,
            keep=self.keep,
        )

    def tell(self, group: TrialGroup) -> None:
        """Say that a group has ended."""
        if self.on_group is not None:
            self.on_group(group.name, self.ledger.records(group.specs))
