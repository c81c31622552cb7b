"""A trial of a sweep trained again, or taken from where its state was kept."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax

from optjax.sweep._contract import call_make_trial
from optjax.sweep._engine.pieces import train_alone
from optjax.sweep._engine.plan import Plan
from optjax.sweep._errors import SweepError
from optjax.sweep._records import TrialSpec
from optjax.sweep._store.keep import read_trial
from optjax.sweep._trial import Factory, MakeTrial, State, own_state


class Kept(NamedTuple):
    """Where a trial's state is kept, and after how many updates."""

    path: Path
    steps: int


@dataclass(frozen=True)
class Training:
    """What a sweep trained: what a result needs to train one of its trials again.

    Attributes:
      make_trial: the trial.
      factories: the optimizers by name.
      plan: what all trials had in common.
    """

    make_trial: MakeTrial
    factories: Mapping[str, Factory]
    plan: Plan

    def train(self, spec: TrialSpec, steps: int, kept: Kept | None = None) -> State:
        """Run a trial so many updates, from its start or from an earlier kept state.

        Raises:
          SweepError: where `steps` ends at no evaluation of the sweep's.
        """
        self._check(spec)
        every = self.plan.evaluate_every
        if steps % every:
            raise SweepError(
                f"steps must be a multiple of evaluate_every={every}, got {steps}"
            )
        state, done = None, 0
        if kept is not None:
            state, done = self._whole(spec, kept.path), kept.steps
        plan = dataclasses.replace(
            self.plan,
            steps=steps - done,
            devices=(jax.local_devices()[0],),
            stopping=None,
            lanes=1,
        )
        trained = train_alone(self.make_trial, self.factories, spec, plan, state)
        return own_state(trained)

    def restore(self, spec: TrialSpec, path: Path) -> State:
        """The state in a folder, as the trial's functions know it."""
        return own_state(self._whole(spec, path))

    def _check(self, spec: TrialSpec) -> None:
        name = spec.config.optimizer
        if name not in self.factories:
            raise SweepError(f"the sweep has no optimizer {name!r} among its factories")

    def _whole(self, spec: TrialSpec, path: Path) -> State:
        self._check(spec)
        config = spec.config
        factory = self.factories[config.optimizer]
        trial = call_make_trial(self.make_trial, factory, config)
        return read_trial(path, trial, config)
