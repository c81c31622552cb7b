"""The training loop: a model, a loss and batches as a trial; models in linen and NNX.

Every task of optjax and every model of a user's own is trained by `supervised`.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from optjax._arguments.checked import checked
from optjax._arguments.kind import Kind
from optjax._arguments.named import Names, Text
from optjax._arguments.objects import Function, Methods
from optjax.sweep._epochs import Batch, Batches, BatchesOrDraw, as_batches
from optjax.sweep._keywords import Keywords, keywords, share, with_keywords
from optjax.sweep._trial import SOUND, Factory, MakeTrial, Metrics, Trial

#: What a model changes itself, such as batch statistics.
Variables: TypeAlias = Any
#: `predict(inputs, ...) -> outputs`, the model with its present parameters.
Predict: TypeAlias = Callable[..., Any]

_HAS_APPLY = Methods("init", "apply", hint="Such as a flax.linen.Module")
_MAKES_MODULE = Function("", 0, may_be_class=True, has_keywords=True)


class _ModuleKind(Kind):
    def accepts(self, value: Any) -> bool:
        is_module = _HAS_APPLY.accepts(value) and not isinstance(value, type)
        return is_module or _MAKES_MODULE.accepts(value)


_Module: TypeAlias = Annotated[
    Any,
    _ModuleKind(
        f"{_HAS_APPLY.words}, or a class or function that makes one",
        "Such as a flax.linen.Module",
    ),
]
_MakeModel: TypeAlias = Annotated[
    Callable[..., Any],
    Function(
        "a class or function (rngs) -> model",
        1,
        may_be_class=True,
        has_keywords=True,
    ),
]
_Loss: TypeAlias = Annotated[
    Callable[..., jax.Array],
    Function("a function (outputs, batch) -> scalar", 2, has_keywords=True),
]
_Evaluate: TypeAlias = Annotated[
    Callable[..., Metrics],
    Function("a function (predict) -> metrics", 1, has_keywords=True),
]


class Training(NamedTuple):
    """All that a trial carries from update to update.

    Attributes:
      params: what is trained.
      rest: what the model changes itself.
      opt_state: the optimizer's.
      hyper: the hyper-parameters that the optimizer is made of.
      batches: what the source of batches carries.
      noise_key: what the model's random streams are drawn from.
      updates_done: how many.
    """

    params: optax.Params
    rest: Variables
    opt_state: optax.OptState
    hyper: Mapping[str, jax.Array]
    batches: Any
    noise_key: jax.Array
    updates_done: jax.Array


class _Model(NamedTuple):
    """A model as pure functions.

    Attributes:
      init: `init(key, noise_key, draw) -> (params, rest)`, where `draw()` makes the
        first batch's inputs.
      apply: `apply(params, rest, noise_key, inputs) -> (outputs, rest)`, in training.
      predict: `predict(params, rest, inputs, ...) -> outputs`, in evaluation.
    """

    init: Callable[
        [jax.Array, jax.Array, Callable[[], Any]], tuple[optax.Params, Variables]
    ]
    apply: Callable[[Any, Variables, jax.Array, Any], tuple[Any, Variables]]
    predict: Callable[..., Any]


def _with_hyper(
    make_model: Callable[..., _Model],
    takes: Keywords,
    loss: Callable[..., jax.Array],
    batches: Batches,
    evaluate: Callable[..., Metrics] | None,
    loss_name: str,
) -> MakeTrial:
    """The trial whose functions get what the space gives for their keywords.

    `takes` are the model's; those of the others are read off them.
    """
    functions = [loss, *batches, evaluate or _nothing]
    takers = [takes, *map(keywords, functions, (2, 1, 2, 1))]

    def make_trial(factory: Factory, **hyper: Any) -> Trial:
        model, *shares = share(takers, hyper)
        to_loss, start, draw, measure = map(_given, functions, shares)
        batches = Batches(start, draw)
        return _supervised(
            factory, make_model(**model), to_loss, batches, measure, loss_name
        )

    return with_keywords(make_trial, takers)


def _nothing(predict: Predict) -> Metrics:
    """What is measured where nobody says."""
    return {}


def _given(function: Callable[..., Any], share: Mapping[str, Any]) -> Any:
    return functools.partial(function, **share) if share else function


def _supervised(
    factory: Factory,
    model: _Model,
    loss: Callable[[Any, Batch], jax.Array],
    batches: Batches,
    evaluate: Callable[[Predict], Metrics],
    loss_name: str,
) -> Trial:
    # Not by `apply_step`: in a scan the digits' MLP takes as long with it (1.00 of the
    # time), and its rounding differs, where a trial's numbers are to be the same to the
    # bit with and without a C++ compiler.
    def init(key: jax.Array, hyper: Mapping[str, jax.Array]) -> Training:
        variables_key, batch_key, noise_key = jax.random.split(key, 3)
        done = jnp.zeros((), jnp.int32)
        carried = batches.init(batch_key)
        params, rest = model.init(
            variables_key, noise_key, lambda: batches.draw(carried, done)[1][0]
        )
        opt_state = factory(**hyper).init(params)
        return Training(params, rest, opt_state, hyper, carried, noise_key, done)

    def step(state: Training) -> tuple[Training, Metrics]:
        carried, batch = batches.draw(state.batches, state.updates_done)
        noise_key = jax.random.fold_in(state.noise_key, state.updates_done)

        def objective(params: optax.Params) -> tuple[jax.Array, Variables]:
            outputs, rest = model.apply(params, state.rest, noise_key, batch[0])
            return loss(outputs, batch), rest

        (value, rest), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
        updates, opt_state = factory(**state.hyper).update(
            grads, state.opt_state, state.params
        )
        state = state._replace(
            params=optax.apply_updates(state.params, updates),
            rest=rest,
            opt_state=opt_state,
            batches=carried,
            updates_done=state.updates_done + 1,
        )
        return state, {loss_name: value}

    def measure(state: Training) -> Metrics:
        finite = jax.tree.map(lambda p: jnp.all(jnp.isfinite(p)), state.params)
        is_finite = jax.tree.reduce(jnp.logical_and, finite, jnp.array(True))
        predict = functools.partial(model.predict, state.params, state.rest)
        return {SOUND: is_finite, **evaluate(predict)}

    return Trial(init, step, measure)


@checked
def from_linen(
    module: _Module,
    loss: _Loss,
    batch: BatchesOrDraw,
    evaluate: _Evaluate | None = None,
    *,
    rngs: Names = ("dropout",),
    loss_name: Text = "loss",
) -> MakeTrial:
    """Make a sweep's trial from a Flax linen module, a loss and a source of batches.

    Beside what `evaluate` measures, an evaluation has the metric `finite`: whether all
    parameters are, without which the trial has diverged.

    What the functions take by keyword beyond the arguments below is a hyper-parameter
    of that name.

    Args:
      module: a `flax.linen.Module` that maps a batch's inputs to outputs, or a class or
        function of hyper-parameters that makes one. Its collection "params" is trained;
        the others, such as batch statistics, are mutable.
      loss: `loss(outputs, batch) -> scalar`.
      batch: `epochs(...)`, other `Batches`, or a function `batch(key, step) -> (inputs,
        ...)`, pure: draw it from the key, which is the same at every step of a trial,
        and the number of updates done.
      evaluate: `evaluate(predict) -> metrics`, where `predict(inputs, ...)` applies
        the module with the current parameters, further arguments going to its
        `__call__`, such as `train=False`. It has no rngs. Where the examples are too
        many for one call, give `jax.lax.map` a `batch_size`.
      rngs: names of the module's random streams; each has a new key at every update.
      loss_name: what the loss is called among the metrics.

    Raises:
      ValueError: for an argument of another kind.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, optjax.sweep
      >>> x = jnp.linspace(-1.0, 1.0, 32)[:, None]
      >>> trial = optjax.sweep.from_linen(
      ...     nn.Dense(1),
      ...     lambda y, batch: jnp.mean((y - batch[1]) ** 2),
      ...     optjax.sweep.epochs((x, x**2), batch_size=8),
      ... )
    """

    names = (rngs,) if isinstance(rngs, str) else tuple(rngs)
    is_made = isinstance(module, type) or not _HAS_APPLY.accepts(module)

    def make_model(**hyper: Any) -> _Model:
        return _linen_model(module(**hyper) if is_made else module, names)

    takes = keywords(module) if is_made else Keywords({})
    batches = as_batches(batch)
    return _with_hyper(make_model, takes, loss, batches, evaluate, loss_name)


def _linen_model(module: Any, names: tuple[str, ...]) -> _Model:
    def streams(key: jax.Array) -> dict[str, jax.Array]:
        return dict(zip(names, jax.random.split(key, len(names)), strict=True))

    def init(
        key: jax.Array, noise_key: jax.Array, draw: Callable[[], Any]
    ) -> tuple[optax.Params, Variables]:
        rest = dict(module.init({**streams(noise_key), "params": key}, draw()))
        return rest.pop("params"), rest

    def apply(
        params: optax.Params, rest: Variables, noise_key: jax.Array, inputs: Any
    ) -> tuple[Any, Variables]:
        outputs, changed = module.apply(
            {"params": params, **rest},
            inputs,
            rngs=streams(noise_key),
            mutable=list(rest),
        )
        return outputs, changed

    def predict(
        params: optax.Params, rest: Variables, *args: Any, **kwargs: Any
    ) -> Any:
        variables = {"params": params, **rest}
        return module.apply(variables, *args, **kwargs, mutable=list(rest))[0]

    return _Model(init, apply, predict)


@checked
def from_nnx(
    make_model: _MakeModel,
    loss: _Loss,
    batch: BatchesOrDraw,
    evaluate: _Evaluate | None = None,
    *,
    loss_name: Text = "loss",
) -> MakeTrial:
    """Make a sweep's trial from a Flax NNX model, a loss and a source of batches.

    Beside what `evaluate` measures, an evaluation has the metric `finite`: whether all
    parameters are, without which the trial has diverged.

    What the functions take by keyword beyond the arguments below is a hyper-parameter
    of that name: with `make_model(rngs, width=64)` and `loss(outputs, batch,
    smoothing=0.0)` a space may have `width` and `smoothing`.

    Args:
      make_model: `make_model(rngs) -> model`. Its `nnx.Param`s are trained; what the
        model changes itself, such as batch statistics and the counts of its rngs, is
        kept.
      loss: `loss(outputs, batch) -> scalar`.
      batch: `epochs(...)`, other `Batches`, or a function `batch(key, step) -> (inputs,
        ...)`, pure: draw it from the key, which is the same at every step of a trial,
        and the number of updates done.
      evaluate: `evaluate(predict) -> metrics`, where `predict(inputs, ...)` calls
        the model with the current parameters, in evaluation mode (`model.eval()`).
        Where the examples are too many for one call, give `jax.lax.map` a `batch_size`.
      loss_name: what the loss is called among the metrics.

    Raises:
      ValueError: for an argument of another kind.

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

    def make(**hyper: Any) -> _Model:
        return _nnx_model(_given(make_model, hyper))

    takes, batches = keywords(make_model, 1), as_batches(batch)
    return _with_hyper(make, takes, loss, batches, evaluate, loss_name)


def _nnx_model(make_model: Callable[[Any], Any]) -> _Model:
    from flax import nnx

    def build(key: jax.Array) -> Any:
        return nnx.split(make_model(nnx.Rngs(key)), nnx.Param, ...)

    # Once a trial: a deep model takes long to build.
    @functools.cache
    def structure() -> Any:
        found: list[Any] = []
        # Not returned: JAX compares what is, and it may have traced numbers.
        jax.eval_shape(lambda key: found.append(build(key)[0]), jax.random.key(0))
        return found[0]

    def model_of(params: optax.Params, rest: Variables) -> Any:
        # Copies, as Flax forbids changing variables made outside a transformation.
        return nnx.merge(structure(), params, rest, copy=True)

    def init(
        key: jax.Array, noise_key: jax.Array, draw: Callable[[], Any]
    ) -> tuple[optax.Params, Variables]:
        del noise_key, draw
        _, params, rest = build(key)
        return params, rest

    def apply(
        params: optax.Params, rest: Variables, noise_key: jax.Array, inputs: Any
    ) -> tuple[Any, Variables]:
        del noise_key  # the model's own rngs count in `rest`
        model = model_of(params, rest)
        outputs = model(inputs)
        parts: Any = nnx.split(model, nnx.Param, ...)
        return outputs, parts[2]

    def predict(
        params: optax.Params, rest: Variables, *args: Any, **kwargs: Any
    ) -> Any:
        model = model_of(params, rest)
        model.eval()
        return model(*args, **kwargs)

    return _Model(init, apply, predict)
