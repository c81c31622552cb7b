"""A trial: one training run as pure functions over a pytree of state.

Everything that varies from trial to trial lives in the state, so that an executor
can run many of them at once inside one compiled program, in whatever way suits the
machine, without knowing what is being trained.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from optjax._hyperparameter import Names, checked, function, methods

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

    Metrics are mappings of names to scalars. Those of `step` are averaged over the
    updates since the evaluation before. A trial has diverged when a metric is not
    finite, or when one called `finite` (are all parameters finite?) is false. The race
    reads `train_loss` from `step` and `val_loss` and `val_accuracy` from `evaluate`.
    """

    init: Callable[[jax.Array, Mapping[str, jax.Array]], State]
    step: Callable[[State], tuple[State, Metrics]]
    evaluate: Callable[[State], Metrics]


#: What a sweep trains: `make_trial(factory) -> Trial`, called once an optimizer.
MakeTrial = Callable[[Factory], Trial]


class Bound(NamedTuple):
    """The user's own state beside the hyper-parameters that made its optimizer."""

    state: State
    hyper: Mapping[str, jax.Array]


_Init: TypeAlias = Annotated[
    Callable[[jax.Array, optax.GradientTransformation], State],
    function("a function (key, optimizer) -> state", 2),
]
_Step: TypeAlias = Annotated[
    Callable[[State, optax.GradientTransformation], tuple[State, Metrics]],
    function("a function (state, optimizer) -> (state, metrics)", 2),
]
_Evaluate: TypeAlias = Annotated[
    Callable[[State], Metrics], function("a function (state) -> metrics", 1)
]
_EvaluateModel: TypeAlias = Annotated[
    Callable[[Callable[..., Any]], Metrics],
    function("a function (predict) -> metrics", 1),
]
_Loss: TypeAlias = Annotated[
    Callable[[jax.Array, Any], jax.Array],
    function("a function (outputs, batch) -> scalar", 2),
]
_Batch: TypeAlias = Annotated[
    Callable[[jax.Array, jax.Array], Any],
    function("a function (key, step) -> (inputs, ...)", 2),
]
_Module: TypeAlias = Annotated[
    Any, methods("init", "apply", hint="Such as a flax.linen.Module")
]
_MakeModel: TypeAlias = Annotated[
    Callable[[Any], Any],
    function("a class or function (rngs) -> model", 1, may_be_class=True),
]


@checked
def from_functions(
    init: _Init,
    step: _Step,
    evaluate: _Evaluate | None = None,
) -> MakeTrial:
    """Make a sweep's trial from functions that are handed the optimizer.

    Args:
        init: `init(key, optimizer) -> state`, any pytree that holds the parameters,
            `optimizer.init(params)`, and a key where batches are drawn.
        step: `step(state, optimizer) -> (state, metrics)`, one update.
        evaluate: `evaluate(state) -> metrics`, or None where those of `step` suffice.

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

    def make_trial(factory: Factory) -> Trial:
        def bound_init(key: jax.Array, hyper: Mapping[str, jax.Array]) -> Bound:
            return Bound(init(key, factory(**hyper)), hyper)

        def bound_step(bound: Bound) -> tuple[Bound, Metrics]:
            returned: Any = step(bound.state, factory(**bound.hyper))
            if not isinstance(returned, tuple) or len(returned) != 2:
                raise TypeError(
                    f"it must return (state, metrics), got a {type(returned).__name__}"
                )
            state, metrics = returned
            return bound._replace(state=state), metrics

        def bound_evaluate(bound: Bound) -> Metrics:
            return {} if evaluate is None else evaluate(bound.state)

        return Trial(bound_init, bound_step, bound_evaluate)

    return make_trial


@checked
def from_linen(
    module: _Module,
    loss: _Loss,
    batch: _Batch,
    evaluate: _EvaluateModel | None = None,
    *,
    rngs: Names = ("dropout",),
) -> MakeTrial:
    """Make a sweep's trial from a Flax linen module, a loss and a source of batches.

    Args:
        module: a `flax.linen.Module` that maps a batch's inputs to outputs. Its
            collection "params" is trained; the others, such as batch statistics, are
            mutable.
        loss: `loss(outputs, batch) -> scalar`.
        batch: `batch(key, step) -> (inputs, ...)`, pure: draw it from the key, which
            is the same at every step of a trial, and the number of updates done.
        evaluate: `evaluate(predict) -> metrics`, where `predict(inputs, ...)` applies
            the module with the current parameters, further arguments going to its
            `__call__`, such as `train=False`. It has no rngs.
        rngs: names of the module's random streams; each has a new key at every update.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp, optjax.sweep
        >>> x = jnp.linspace(-1.0, 1.0, 32)[:, None]
        >>> def batch(key, step):
        ...     rows = jax.random.randint(jax.random.fold_in(key, step), (8,), 0, 32)
        ...     return x[rows], x[rows] ** 2
        >>> trial = optjax.sweep.from_linen(
        ...     nn.Dense(1), lambda y, batch: jnp.mean((y - batch[1]) ** 2), batch
        ... )
    """

    names = (rngs,) if isinstance(rngs, str) else tuple(rngs)

    def streams(key: jax.Array) -> dict[str, jax.Array]:
        return dict(zip(names, jax.random.split(key, len(names)), strict=True))

    def init_variables(key: jax.Array, noise_key: jax.Array, inputs: Any) -> Any:
        rest = dict(module.init({**streams(noise_key), "params": key}, inputs))
        return rest.pop("params"), rest

    def apply(params: Any, rest: Any, noise_key: jax.Array, inputs: Any) -> Any:
        return module.apply(
            {"params": params, **rest},
            inputs,
            rngs=streams(noise_key),
            mutable=list(rest),
        )

    def predict(params: Any, rest: Any, *args: Any, **kwargs: Any) -> Any:
        variables = {"params": params, **rest}
        return module.apply(variables, *args, **kwargs, mutable=list(rest))[0]

    return _supervised(init_variables, apply, predict, loss, batch, evaluate)


@checked
def from_nnx(
    make_model: _MakeModel,
    loss: _Loss,
    batch: _Batch,
    evaluate: _EvaluateModel | None = None,
) -> MakeTrial:
    """Make a sweep's trial from a Flax NNX model, a loss and a source of batches.

    Args:
        make_model: `make_model(rngs) -> model`. Its `nnx.Param`s are trained; what the
            model changes itself, such as batch statistics and the counts of its rngs,
            is kept.
        loss: `loss(outputs, batch) -> scalar`.
        batch: `batch(key, step) -> (inputs, ...)`, pure: draw it from the key, which
            is the same at every step of a trial, and the number of updates done.
        evaluate: `evaluate(predict) -> metrics`, where `predict(inputs, ...)` calls
            the model with the current parameters, in evaluation mode (`model.eval()`).

    Example:
        >>> import jax, jax.numpy as jnp, optjax.sweep
        >>> from flax import nnx
        >>> x = jnp.linspace(-1.0, 1.0, 32)[:, None]
        >>> def batch(key, step):
        ...     rows = jax.random.randint(jax.random.fold_in(key, step), (8,), 0, 32)
        ...     return x[rows], x[rows] ** 2
        >>> trial = optjax.sweep.from_nnx(
        ...     lambda rngs: nnx.Linear(1, 1, rngs=rngs),
        ...     lambda y, batch: jnp.mean((y - batch[1]) ** 2),
        ...     batch,
        ... )
    """
    from flax import nnx

    def build(key: jax.Array) -> Any:
        return nnx.split(make_model(nnx.Rngs(key)), nnx.Param, ...)

    def init_variables(key: jax.Array, noise_key: jax.Array, inputs: Any) -> Any:
        del noise_key, inputs
        _, params, rest = build(key)
        return params, rest

    def model_of(params: Any, rest: Any) -> Any:
        graphdef = jax.eval_shape(build, jax.random.key(0))[0]
        # Copies, as Flax forbids changing variables made outside a transformation.
        return nnx.merge(graphdef, params, rest, copy=True)

    def apply(params: Any, rest: Any, noise_key: jax.Array, inputs: Any) -> Any:
        del noise_key  # the model's own rngs count in `rest`
        model = model_of(params, rest)
        outputs = model(inputs)
        parts: Any = nnx.split(model, nnx.Param, ...)
        return outputs, parts[2]

    def predict(params: Any, rest: Any, *args: Any, **kwargs: Any) -> Any:
        model = model_of(params, rest)
        model.eval()
        return model(*args, **kwargs)

    return _supervised(init_variables, apply, predict, loss, batch, evaluate)


class _Supervised(NamedTuple):
    """A model in training: parameters, other variables, optimizer state, keys."""

    params: Any
    rest: Any
    opt_state: optax.OptState
    batch_key: jax.Array
    noise_key: jax.Array
    updates_done: jax.Array


def _supervised(
    init_variables: Callable[[jax.Array, jax.Array, Any], tuple[Any, Any]],
    apply: Callable[[Any, Any, jax.Array, Any], tuple[Any, Any]],
    predict: Callable[..., Any],
    loss: Callable[[Any, Any], jax.Array],
    batch: Callable[[jax.Array, jax.Array], Any],
    evaluate: Callable[[Callable[..., Any]], Metrics] | None,
) -> MakeTrial:
    def init(key: jax.Array, optimizer: optax.GradientTransformation) -> _Supervised:
        variables_key, batch_key, noise_key = jax.random.split(key, 3)
        done = jnp.zeros((), jnp.int32)
        inputs = batch(batch_key, done)[0]
        params, rest = init_variables(variables_key, noise_key, inputs)
        opt_state = optimizer.init(params)
        return _Supervised(params, rest, opt_state, batch_key, noise_key, done)

    def step(
        state: _Supervised, optimizer: optax.GradientTransformation
    ) -> tuple[_Supervised, Metrics]:
        drawn = batch(state.batch_key, state.updates_done)
        noise_key = jax.random.fold_in(state.noise_key, state.updates_done)

        def objective(params: Any) -> tuple[jax.Array, Any]:
            outputs, rest = apply(params, state.rest, noise_key, drawn[0])
            return loss(outputs, drawn), rest

        (value, rest), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        state = state._replace(
            params=optax.apply_updates(state.params, updates),
            rest=rest,
            opt_state=opt_state,
            updates_done=state.updates_done + 1,
        )
        return state, {"loss": value}

    def measure(state: _Supervised) -> Metrics:
        if evaluate is None:
            return {}
        return evaluate(functools.partial(predict, state.params, state.rest))

    return from_functions(init, step, measure)
