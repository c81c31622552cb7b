"""A small sweep in a process of its own, which can be told where to die.

    python sweep_worker.py OUT [POINT COUNT [SECONDS]]

POINT is append, save_states or commit: the process kills itself, as `kill -9` would,
at the COUNT-th time that the store is about to do it. SECONDS is how long a call takes.
"""

import os
import signal
import sys

import jax
import jax.numpy as jnp
import optax
from drawn import numbers

from optjax import sweep
from optjax.sweep._store.store import Store

KEYWORDS = {
    "steps": 90,
    "evaluate_every": 5,
    "metric": "loss",
    "mode": "min",
    "seeds": 2,
    "stopping": sweep.SuccessiveHalving(min_steps=30),
    "strategy": "map",
    "lanes": 4,
    "progress": False,
}
SPACE = {
    "optimizer": ["momentum", "adam"],
    # The largest diverge under momentum.
    "learning_rate": [0.003, 0.01, 0.03, 0.1, 0.3, 300.0],
}


def init(key, optimizer):
    x = numbers(key, 3)
    return {"x": x, "opt_state": optimizer.init(x), "key": key, "empty": jnp.zeros(0)}


def step(state, optimizer):
    key, noise_key = jax.random.split(state["key"])
    noise = numbers(noise_key, 3)

    def loss(x):
        return jnp.sum(jnp.array([1.0, 10.0, 100.0]) * x**2) + 0.1 * x @ noise

    value, gradient = jax.value_and_grad(loss)(state["x"])
    updates, opt_state = optimizer.update(gradient, state["opt_state"], state["x"])
    x = optax.apply_updates(state["x"], updates)
    return {**state, "x": x, "opt_state": opt_state, "key": key}, {"loss": value}


def die_at(point, count):
    method, calls = getattr(Store, point), []

    def dying(self, *args, **keywords):
        calls.append(None)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return method(self, *args, **keywords)

    setattr(Store, point, dying)


def main(out, point=None, count="0", call_seconds="inf"):
    if point is not None:
        die_at(point, int(count))
    how = {"checkpoint_seconds": 0.0, "call_seconds": float(call_seconds)}
    sweep.run((init, step), SPACE, out=out, **how, **KEYWORDS)


if __name__ == "__main__":
    main(*sys.argv[1:])
