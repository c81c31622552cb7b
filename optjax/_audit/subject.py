"""An update to be audited, and what of it can be turned."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from optjax._base_rate import has_base
from optjax.monitoring._hyperparameters import is_injectable, is_injected

#: What can be turned of every optimizer: the size of the gradients, that of every
#: second leaf of them, and that of the parameters.
PROBES = ("gradients", "every second gradient", "parameters")


@dataclass(frozen=True)
class Subject:
    """An update as a function of e, the relative changes of what can be turned.

    Equal subjects have one compiled program.

    Attributes:
      hyperparameters: the names of the first of e; `PROBES` are the rest.
      kept_in: the dtype of each.
    """

    hyperparameters: tuple[str, ...]
    kept_in: tuple[str, ...]

    @property
    def still(self) -> tuple[float, ...]:
        """The e at which nothing is turned: Python numbers, as of no dtype yet."""
        return (0.0,) * (len(self.hyperparameters) + len(PROBES))

    def start(self, e: Any, given: Any, params: Any) -> Any:
        """The state before the first step, of what `of` returned."""
        raise NotImplementedError

    def update(self, updates: Any, state: Any, params: Any, **extra: Any) -> Any:
        """As `optax.GradientTransformation.update`."""
        raise NotImplementedError

    def values(self, step: Any, after: Any) -> list[Any]:
        """Of the hyper-parameters in a step 0, 1, …, and the state after it."""
        raise NotImplementedError


@dataclass(frozen=True)
class OfState(Subject):
    """An optimizer with the hyper-parameters that are injected into its state.

    Of one name there may be several, as under `optax.partition`: they are turned
    together. One that follows a schedule is overwritten by it in the step, and left
    out. α_0 goes along with α, as if the optimizer had been made with it.
    """

    optimizer: optax.GradientTransformation

    @classmethod
    def of(
        cls, optimizer: optax.GradientTransformation, state: Any
    ) -> tuple["OfState", Any]:
        """The subject, and what its `start` is given."""
        found: dict[str, str] = {}
        for node in _nodes(state):
            for name, value in node.hyperparams.items():
                if name not in node.hyperparams_states:
                    found.setdefault(str(name), str(_array(value).dtype))
        return cls((*found,), (*found.values(),), optimizer), state

    def start(self, e: Any, given: Any, params: Any) -> Any:
        """The state, turned."""
        del params
        return _turned(given, dict(zip(self.hyperparameters, e, strict=False)), {})

    def update(self, updates: Any, state: Any, params: Any, **extra: Any) -> Any:
        """The optimizer's."""
        inner = optax.with_extra_args_support(self.optimizer)
        return inner.update(updates, state, params, **extra)

    def values(self, step: Any, after: Any) -> list[Any]:
        """The largest, of those of one name."""
        del step
        found: dict[str, list[Any]] = {name: [] for name in self.hyperparameters}
        for node in _nodes(after):
            for name, value in node.hyperparams.items():
                if name in found:
                    found[name].append(jnp.max(jnp.asarray(_array(value))))
        return [jnp.max(jnp.stack(found[name])) for name in self.hyperparameters]


@dataclass(frozen=True)
class OfFactory(Subject):
    """What a factory makes of its arguments, whose numbers and schedules are turned.

    The state is that of the turned optimizer, unless there is one already.
    """

    factory: Callable[..., optax.GradientTransformation]
    others: tuple[tuple[str, Any], ...]

    @classmethod
    def of(
        cls,
        factory: Callable[..., optax.GradientTransformation],
        given: Mapping[str, Any],
        state: Any = None,
    ) -> tuple["OfFactory", Any]:
        """The subject, and what its `start` is given."""
        bound = _bound(factory, given)
        names, turned, others = [], {}, {}
        for name, value, may_turn in _arguments(bound):
            if may_turn:
                names.append(name)
            if may_turn and not callable(value):
                turned[name] = value
            else:
                others[name] = value
        kept_in = [str(jnp.result_type(turned.get(n, 0.0))) for n in names]
        subject = cls((*names,), (*kept_in,), factory, (*others.items(),))
        return subject, (turned, state)

    def start(self, e: Any, given: Any, params: Any) -> Any:
        """With the numbers and e beside the state."""
        turned, state = given
        if state is None:
            state = self._made(e, turned).init(params)
        return e, turned, state

    def update(self, updates: Any, state: Any, params: Any, **extra: Any) -> Any:
        """That of the optimizer made with the numbers turned by e."""
        e, turned, inner = state
        made = self._made(e, turned)
        result, inner = made.update(updates, inner, params, **extra)
        return result, (e, turned, inner)

    def values(self, step: Any, after: Any) -> list[Any]:
        """Those of schedules as in a run that begins here."""
        _, turned, _ = after
        schedules = dict(self.others)
        return [
            turned[name] if name in turned else schedules[name](step)
            for name in self.hyperparameters
        ]

    def _made(self, e: Any, turned: Any) -> optax.GradientTransformationExtraArgs:
        arguments = dict(self.others) | turned
        for name, change in zip(self.hyperparameters, e, strict=False):
            arguments[name] = _scaled(arguments[name], change)
        return optax.with_extra_args_support(self.factory(**arguments))


def _bound(factory: Callable[..., Any], given: Any) -> inspect.BoundArguments:
    name = getattr(factory, "__name__", repr(factory))
    if not isinstance(given, Mapping):
        raise ValueError(
            f"audit needs the arguments of {name} by name, such as "
            f'{{"learning_rate": 1e-3}}, got {given!r}.'
        )
    try:
        bound = inspect.signature(factory).bind(**given)
    except TypeError as error:
        raise ValueError(
            f"audit needs arguments that {name} takes, got {dict(given)}: {error}."
        ) from None
    bound.apply_defaults()
    return bound


def _arguments(bound: inspect.BoundArguments) -> Iterator[tuple[str, Any, bool]]:
    """Each by name and value, and whether it can be turned."""
    for name, value in bound.arguments.items():
        parameter = bound.signature.parameters[name]
        if parameter.kind is parameter.VAR_KEYWORD:
            for key, one in value.items():
                yield key, one, isinstance(one, float | jax.Array)
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            yield name, value, is_injectable(value, parameter)


def _scaled(value: Any, e: Any) -> Any:
    # e is of no dtype: a Python number turned is in that of what it meets, as ever.
    if callable(value):
        return lambda count: value(count) * jnp.exp(e)
    return value * jnp.exp(e)


def _turned(node: Any, e: Mapping[str, Any], around: Mapping[str, Any]) -> Any:
    """The state with its injected numbers, and the α_0 below them, turned."""

    def turn(node: Any) -> Any:
        if is_injected(node):
            hyper = {
                name: _times(value, e[name])
                if name in e and name not in node.hyperparams_states
                else value
                for name, value in node.hyperparams.items()
            }
            inner = _turned(node.inner_state, e, node.hyperparams)
            return node._replace(hyperparams=hyper, inner_state=inner)
        if has_base(node):
            node = node._replace(inner_state=_turned(node.inner_state, e, around))
            follows = "learning_rate" in around and "base_lr" not in around
            if follows and "learning_rate" in e:
                base = _times(node.base_lr, e["learning_rate"])
                return node._replace(base_lr=base)
        return node

    return jax.tree.map(turn, node, is_leaf=lambda n: is_injected(n) or has_base(n))


def _times(value: Any, e: Any) -> Any:
    return _array(value) * jnp.exp(e)


def _nodes(state: Any) -> list[Any]:
    """The injected states of a state, those within others too."""
    found = [n for n in jax.tree.leaves(state, is_leaf=is_injected) if is_injected(n)]
    return [m for node in found for m in (node, *_nodes(node.inner_state))]


def _array(value: Any) -> Any:
    (leaf,) = jax.tree.leaves(value)
    return leaf
