"""A program of NumPy for the tests of what a sweep writes, and when."""

import jax.numpy as jnp
import numpy as np

from optjax.sweep._engine import groups
from optjax.sweep._engine.lanes import Program
from optjax.sweep._trial import own_state


def in_numpy(group, settings, strategy):
    """A program that counts, in place of the one that XLA would compile."""

    def start():
        return [jnp.zeros((group.lanes, 2))]

    def advance(carry, told, size):
        assert (size.evaluations, size.updates, size.evaluates) == (1, 1, True)
        state, busy = np.array(carry[0]), told.busy
        state[told.fresh] = 1.0
        state[busy, 1] *= (1 - told.hyper["learning_rate"] * (1 + told.seed))[busy]
        state[busy, 0] += 1
        loss = np.where(state[:, 1] < -1e20, np.nan, state.sum(axis=1))
        return [jnp.asarray(state)], loss[:, None, None].astype(np.float32)

    def put(carry, lane, state):
        return [carry[0].at[lane].set(own_state(state)["x"])]

    def state(carry, lane):
        return {"x": carry[0][lane]}

    return Program(start, advance, state, put, None, None, group.lanes)


def count_in_numpy(patch):
    """Let sweeps run it, each of the same two functions."""
    trace, known = groups.trace, {}

    def remembered(trial, config, metric):
        if config.optimizer not in known:
            known[config.optimizer] = trace(trial, config, metric)
        return known[config.optimizer]

    patch.setattr(groups.TrialGroup, "compile", in_numpy)
    patch.setattr(groups, "trace", remembered)
