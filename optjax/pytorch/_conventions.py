"""The differences of docs/differences.md, each as a change of one call.

A change takes the factory and keywords of one side and gives what follows the other
convention, and says in words what differs and what to pass.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import jax.numpy as jnp
import optax

import optjax
from optjax import optimizers


class Call(NamedTuple):
    """A factory, and what it is called with by name."""

    factory: Callable[..., Any]
    keywords: Mapping[str, Any]

    def make(self) -> optax.GradientTransformation:
        """The transformation."""
        return self.factory(**self.keywords)


class Change(NamedTuple):
    """What differs, in words, what removes it, and the call after it, if it is one."""

    words: str
    remedy: str
    after: Call | None


#: Values that libraries have for one argument, and what it is about.
_VALUES: Mapping[str, tuple[str, tuple[Any, ...]]] = {
    "eps_in_sqrt": (
        "ε is inside the root in one and outside in the other",
        (True, False),
    ),
    "max_before_debias": (
        "the maximum is of the raw ν in one and of the debiased in the other",
        (True, False),
    ),
    "initial_accumulator_value": (
        "the sum of squares does not start at the same value",
        (0.0, 0.1),
    ),
    "momentum_decay": (
        "the momentum rises with time in one and is constant in the other",
        (None, 4e-3),
    ),
    "threshold": ("the rate is used from another ρ on", (4.0, 5.0)),
    "fixed_decay": (
        "the decay is multiplied by the learning rate in one alone",
        (True, False),
    ),
    "decay": ("the average of squares has another decay", (0.9, 0.99)),
    "alpha": ("the average of squares has another decay", (0.9, 0.99)),
    "dampening": ("gradients after the first are dampened in one alone", (0.0,)),
    "nesterov": ("one looks ahead, or is at the point ahead", (True, False)),
    "centered": ("one divides by the standard deviation", (True, False)),
    "bias_correction": ("one debiases its averages", (True, False)),
    "amsgrad": ("one takes the maximum of ν", (True, False)),
    "amsbound": ("one takes the maximum of ν", (True, False)),
    "decoupled_weight_decay": (
        "the decay is added to the gradient in one and to the step in the other",
        (True, False),
    ),
    "lr_decay": ("the learning rate falls by itself in one alone", (0.0,)),
    "maximize": ("one ascends", (True, False)),
    "weight_decay": ("the weight decay is another", (0.0, 1e-4, 1e-2)),
}


def changes(call: Call, other: Call | None) -> Iterator[Change]:
    """What may make a call like another, the likeliest first.

    Where the other call is known, the values of the arguments that both have.
    """
    names = dict(call.keywords)
    if other is not None:
        theirs = _synonyms(other.keywords)
        for name in names:
            value = theirs.get(name, names[name])
            if not _is_same(names[name], value):
                words = f"{name} is {names[name]} in one and {value} in the other"
                yield _with(call, words, **{name: value})
    for name, (words, values) in _VALUES.items():
        for value in values:
            if name in names and not _is_same(names[name], value):
                yield _with(call, words, **{name: value})
    if "bias_correction_nu" in names:
        flags = {"bias_correction_mu": False, "bias_correction_nu": False}
        yield _with(call, "one debiases neither moment", **flags)
    row = getattr(call.factory, "__name__", "")
    for words, remedy, make in _EXPRESSIONS.get(row, ()):
        yield Change(words, remedy, Call(make, names))
    if names.get("mu_dtype") is not None and "b1" in names:
        yield Change(
            "b1 is rounded to the dtype of the stored average in one alone",
            f"b1=jnp.float32({names['b1']})",
            Call(call.factory, {**names, "b1": jnp.float32(names["b1"])}),
        )
    yield Change(
        "one ascends where the other descends",
        "optax.chain(…, optax.scale(-1.0))",
        Call(lambda **kw: optax.chain(call.factory(**kw), optax.scale(-1.0)), names),
    )


def _synonyms(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments by PyTorch's names and by Optax's."""
    found = dict(keywords)
    for name, synonym in (("lr", "learning_rate"), ("alpha", "decay")):
        for one, another in ((name, synonym), (synonym, name)):
            if one in keywords:
                found[another] = keywords[one]
    if "betas" in found:
        found["b1"], found["b2"] = found["betas"]
    elif "b1" in found and "b2" in found:
        found["betas"] = found["b1"], found["b2"]
    return found


def _with(call: Call, words: str, **values: Any) -> Change:
    remedy = ", ".join(f"{name}={value}" for name, value in values.items())
    return Change(words, remedy, Call(call.factory, {**call.keywords, **values}))


def _is_same(a: Any, b: Any) -> bool:
    return a is b or (not callable(a) and not callable(b) and a == b)


#: What no argument of a row gives: in words, an expression, and a factory.
_EXPRESSIONS: dict[str, list[tuple[str, str, Callable[..., Any]]]] = {}

_Make = TypeVar("_Make", bound=Callable[..., Any])


def _instead_of(row: str, words: str, remedy: str) -> Callable[[_Make], _Make]:
    def keep(make: _Make) -> _Make:
        _EXPRESSIONS.setdefault(row, []).append((words, remedy, make))
        return make

    return keep


@_instead_of(
    "sgd",
    "the buffer keeps the learning rates of the past in one alone",
    "optax.chain(optjax.sgd(schedule), optjax.trace(momentum))",
)
def _rate_in_buffer(learning_rate: Any, momentum: Any, nesterov: Any, **_: Any) -> Any:
    inner = optimizers.sgd(learning_rate)
    return (
        inner
        if momentum is None
        else optax.chain(inner, optjax.trace(momentum, nesterov))
    )


@_instead_of(
    "rmsprop",
    "the buffer keeps the learning rates of the past in one alone",
    "optax.chain(optjax.rmsprop(1.0, …), optax.scale_by_schedule(schedule))",
)
def _rate_outside(learning_rate: Any, **other: Any) -> Any:
    at = learning_rate if callable(learning_rate) else lambda count: learning_rate
    return optax.chain(optimizers.rmsprop(1.0, **other), optax.scale_by_schedule(at))


def _raw(b2: Any, eps: Any, power: float = 0.5) -> Any:
    average = optjax.ema_of_squares(b2, debias=False)
    return optjax.rate_by_accumulated_square(average, eps, power=power)


@_instead_of(
    "adam",
    "ε is added to √ν before it is debiased in one and after in the other",
    "optjax.correct_bias after the rate, both averages with debias=False",
)
def _adam_raw_eps(learning_rate: Any, b1: Any, b2: Any, eps: Any, **_: Any) -> Any:
    rate = optax.chain(_raw(b2, eps), optjax.correct_bias(b1, b2))
    return optjax.basic_form(optjax.ema(b1, debias=False), rate, learning_rate)


@_instead_of(
    "adamw",
    "the decay is added to the gradient in one and to the step in the other",
    "optax.chain(optax.add_decayed_weights(λ), optjax.adam(…))",
)
def _adam_l2(weight_decay: Any, mask: Any, **other: Any) -> Any:
    decay = optax.add_decayed_weights(weight_decay, mask)
    return optax.chain(decay, optimizers.adam(**other))


@_instead_of(
    "radam",
    "ε is added to √ν before it is debiased in one and after in the other",
    "optjax.pytorch.RAdam",
)
def _radam_raw_eps(learning_rate: Any, b1: Any, b2: Any, eps: Any, **_: Any) -> Any:
    rate = optax.chain(_raw(b2, eps), optjax.correct_bias(0.0, b2), optjax.rectify(b2))
    return optjax.basic_form(optjax.ema(b1), rate, learning_rate)


@_instead_of(
    "yogi",
    "the moments start at 10⁻⁶ and are debiased in one alone",
    "sign_ema_of_squares(b2, debias=False, initial_value=0.0)",
)
def _yogi_paper(learning_rate: Any, b1: Any, b2: Any, eps: Any, **_: Any) -> Any:
    nu = optjax.sign_ema_of_squares(b2, debias=False, initial_value=0.0)
    rate = optjax.rate_by_accumulated_square(nu, eps)
    return optjax.basic_form(optjax.ema(b1, debias=False), rate, learning_rate)


@_instead_of(
    "padam",
    "Adam's two corrections are made in one alone",
    "learning_rate=lambda count: lr * (1 - b2**(count + 1))**0.5 / "
    "(1 - b1**(count + 1))",
)
def _padam_authors(learning_rate: Any, b1: Any, b2: Any, **other: Any) -> Any:
    def rate(count: Any) -> Any:
        t = count + 1
        return _at(learning_rate, count) * (1 - b2**t) ** 0.5 / (1 - b1**t)

    return optimizers.padam(rate, b1=b1, b2=b2, **other)


@_instead_of(
    "padam",
    "one debiases and leaves out the maximum",
    "ema_of_squares without running_max, and optjax.correct_bias",
)
def _padam_without_maximum(
    learning_rate: Any, b1: Any, b2: Any, eps: Any, p: Any, **_: Any
) -> Any:
    rate = optax.chain(_raw(b2, eps, power=p), optjax.correct_bias(b1, b2))
    return optjax.basic_form(optjax.ema(b1, debias=False), rate, learning_rate)


@_instead_of(
    "nosadam",
    "m is debiased in one alone",
    "learning_rate=lambda count: lr / (1 - b1**(count + 1))",
)
def _nosadam_debiased(learning_rate: Any, b1: Any, **other: Any) -> Any:
    return optimizers.nosadam(
        lambda count: _at(learning_rate, count) / (1 - b1 ** (count + 1)),
        b1=b1,
        **other,
    )


@_instead_of(
    "adamod",
    "the rate is averaged with the correction of m in one alone",
    "optjax.correct_bias before optjax.limit_by_average",
)
def _adamod_folded(
    learning_rate: Any, b1: Any, b2: Any, b3: Any, eps: Any, **_: Any
) -> Any:
    rate = optax.chain(
        _raw(b2, eps),
        optjax.correct_bias(b1, b2),
        optax.scale_by_learning_rate(learning_rate, flip_sign=False),
        optjax.limit_by_average(b3),
    )
    return optjax.basic_form(optjax.ema(b1, debias=False), rate, 1.0)


@_instead_of(
    "adabound",
    "nothing is debiased and the step divided by √t in one alone",
    "a basic form without correct_bias, times (count + 1)**-0.5",
)
def _adabound_paper(
    learning_rate: Any,
    b1: Any,
    b2: Any,
    eps: Any,
    final_lr: Any,
    gamma: Any,
    **_: Any,
) -> Any:
    bound = optjax.bound_clip(*optjax.hyperbolic_bounds(final_lr, gamma))
    rate = optax.chain(_raw(b2, eps), optax.scale(_at(learning_rate, 0)), bound)
    return optjax.basic_form(
        optjax.ema(b1, debias=False), rate, lambda count: (count + 1) ** -0.5
    )


def _at(learning_rate: Any, count: Any) -> Any:
    return learning_rate(count) if callable(learning_rate) else learning_rate
