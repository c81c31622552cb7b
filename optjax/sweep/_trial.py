"""A trial: one training run as pure functions over a pytree of state.

Everything that varies from trial to trial lives in the state, so that an executor
can run many of them at once inside one compiled program, in whatever way suits the
machine, without knowing what is being trained.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from optjax._arguments.checked import checked
from optjax._arguments.objects import Function
from optjax.sweep._keywords import keywords, share, with_keywords

#: An optimizer's constructor: `factory(learning_rate=..., ...)`.
Factory = Callable[..., optax.GradientTransformation]
State = Any
Metrics = Mapping[str, jax.Array]
#: The metric that says whether a training is sound; where it is 0, it has diverged.
SOUND = "finite"


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

    Metrics are mappings of names to scalars. Those of `step` are averaged over the
    updates since the evaluation before. A trial has diverged when a metric is not
    finite, or when one called `finite` (are all parameters finite?) is false.
    """

    init: Callable[[jax.Array, Mapping[str, jax.Array]], State]
    step: Callable[[State], tuple[State, Metrics]]
    evaluate: Callable[[State], Metrics]


#: What a sweep trains: `make_trial(factory, **hyper) -> Trial`. Its keywords are
#: hyper-parameters of its own; where the space gives a number, it is called while JAX
#: traces.
MakeTrial = Callable[..., Trial]


class Bound(NamedTuple):
    """A state beside the hyper-parameters that its functions are made of."""

    state: State
    hyper: Mapping[str, jax.Array]


def init_shapes(hyper: Iterable[str]) -> tuple[Any, dict[str, jax.ShapeDtypeStruct]]:
    """What `init` is called with, a key and hyper-parameters, as shapes and dtypes."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    return key, {name: jax.ShapeDtypeStruct((), jnp.float32) for name in hyper}


def own_state(state: State) -> State:
    """The user's own state, without what a sweep keeps beside it."""
    while isinstance(state, Bound):
        state = state.state
    return state


def whole_state(shape: State, own: State, hyper: Mapping[str, jax.Array]) -> State:
    """The user's own state with what a sweep keeps beside it, in a state's shape."""
    if isinstance(shape, Bound):
        beside = {name: hyper[name] for name in shape.hyper}
        return Bound(whole_state(shape.state, own, hyper), beside)
    return own


_Init: TypeAlias = Annotated[
    Callable[..., State],
    Function("a function (key, optimizer) -> state", 2, has_keywords=True),
]
_Step: TypeAlias = Annotated[
    Callable[..., tuple[State, Metrics]],
    Function("a function (state, optimizer) -> (state, metrics)", 2, has_keywords=True),
]
_Evaluate: TypeAlias = Annotated[
    Callable[..., Metrics],
    Function("a function (state) -> metrics", 1, has_keywords=True),
]


@checked
def from_functions(
    init: _Init,
    step: _Step,
    evaluate: _Evaluate | None = None,
) -> MakeTrial:
    """Make a sweep's trial from functions that are handed the optimizer.

    What else they take by keyword is a hyper-parameter, which each gets from the space.

    Args:
      init: `init(key, optimizer) -> state`, any pytree that holds the parameters,
        `optimizer.init(params)`, and a key where batches are drawn.
      step: `step(state, optimizer) -> (state, metrics)`, one update.
      evaluate: `evaluate(state) -> metrics`, or None where those of `step` suffice.

    Raises:
      ValueError: for what is no function, or one with other arguments.

    Example:
      >>> import jax, jax.numpy as jnp, optax, optjax.sweep
      >>> def init(key, optimizer):
      ...     x = jax.random.normal(key, (2,))
      ...     return x, optimizer.init(x)
      >>> def step(state, optimizer):
      ...     x, opt_state = state
      ...     loss, g = jax.value_and_grad(lambda x: jnp.sum(x**2))(x)
      ...     updates, opt_state = optimizer.update(g, opt_state, x)
      ...     return (optax.apply_updates(x, updates), opt_state), {"loss": loss}
      >>> trial = optjax.sweep.from_functions(init, step)
    """

    measure = evaluate or (lambda state: {})
    takers = [keywords(init, 2), keywords(step, 2), keywords(measure, 1)]

    def make_trial(factory: Factory, **given: Any) -> Trial:
        to_init, to_step, to_measure = share(takers, given)

        def bound_init(key: jax.Array, hyper: Mapping[str, jax.Array]) -> Bound:
            return Bound(init(key, factory(**hyper), **to_init), hyper)

        def bound_step(bound: Bound) -> tuple[Bound, Metrics]:
            returned: Any = step(bound.state, factory(**bound.hyper), **to_step)
            if not isinstance(returned, tuple) or len(returned) != 2:
                raise TypeError(
                    f"it must return (state, metrics), got a {type(returned).__name__}"
                )
            state, metrics = returned
            return bound._replace(state=state), metrics

        def bound_evaluate(bound: Bound) -> Metrics:
            return measure(bound.state, **to_measure)

        return Trial(bound_init, bound_step, bound_evaluate)

    return with_keywords(make_trial, takers)
