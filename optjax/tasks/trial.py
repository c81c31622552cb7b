"""A trial: one training run as pure functions over a pytree of state.

Everything that varies from trial to trial lives in the state, so that an executor
can run many of them at once inside one compiled program, in whatever way suits the
machine, without knowing what is being trained.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import optax

#: An optimizer's constructor: `factory(learning_rate=..., ...)`.
Factory = Callable[..., optax.GradientTransformation]
State = Any
Metrics = Mapping[str, jax.Array]


class Trial(NamedTuple):
    """One training run, from its first parameters to its metrics.

    The functions are pure, and an executor calls them while JAX traces, so a
    hyper-parameter is a traced scalar: build the optimizer from it inside `init` and
    `step`, and keep it in the state. `init` decides everything random from `key`.

    Attributes:
        init: `init(key, hyper) -> state`, with `key` a typed PRNG key and `hyper` a
            mapping of hyper-parameter names to scalars.
        step: `step(state) -> (state, metrics)`, one update. The structure, shapes
            and dtypes of the state do not change.
        evaluate: `evaluate(state) -> metrics`, and leaves the state alone.

    Metrics are mappings of names to scalars. The race reads `train_loss` from `step`
    and `val_loss`, `val_accuracy` and `finite` (are all parameters finite?) from
    `evaluate`.
    """

    init: Callable[[jax.Array, Mapping[str, jax.Array]], State]
    step: Callable[[State], tuple[State, Metrics]]
    evaluate: Callable[[State], Metrics]
