"""A trial of a sweep trained again, or taken from where its state was kept."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp

from optjax.sweep._contract import call_make_trial
from optjax.sweep._engine.pieces import train_alone
from optjax.sweep._engine.plan import Plan
from optjax.sweep._errors import SweepError
from optjax.sweep._records import TrialSpec
from optjax.sweep._store.keep import read_state
from optjax.sweep._trial import Factory, MakeTrial, State, own_state

__all__ = ["Training"]


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

    def train(self, spec: TrialSpec, steps: int) -> State:
        """Run a trial so many updates from its start.

        Raises:
          SweepError: where `steps` ends at no evaluation of the sweep's.
        """
        every, most = self.plan.evaluate_every, self.plan.steps
        if not 0 < steps <= most or steps % every:
            raise SweepError(
                f"steps must be a multiple of evaluate_every={every} up to {most}, got "
                f"{steps}"
            )
        plan = dataclasses.replace(
            self.plan,
            steps=steps,
            devices=(jax.local_devices()[0],),
            stopping=None,
            lanes=1,
        )
        return own_state(train_alone(self.make_trial, self.factories, spec, plan))

    def restore(self, spec: TrialSpec, path: Path) -> State:
        """The state in a folder, as the trial's functions know it."""
        config = spec.config
        factory = self.factories[config.optimizer]
        trial = call_make_trial(self.make_trial, factory, config)
        hyper = {name: jax.ShapeDtypeStruct((), jnp.float32) for name in config.hyper}
        key = jax.eval_shape(lambda: jax.random.key(0))
        return read_state(path, own_state(jax.eval_shape(trial.init, key, hyper)))
