"""What the compiled step covers: of each part, what it is in the kernel's equation.

`COVERED` is the table, part → term, and `assemble` makes of the terms of an update,
from the gradient on, the form and its coefficients. Everything else, and these in
another order than the kernel has, is computed as it is written.
"""

import enum
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import optax

from optjax._accumulator import DebiasState, MaxState, SquareState, SumState
from optjax._direction import EmaState, TraceState
from optjax._parts import (
    Average,
    BiasCorrection,
    Clip,
    ClipAround,
    One,
    Other,
    Part,
    Root,
    RunningMax,
    SquareAverage,
    SquareDebias,
    SquareSum,
    Trace,
)
from optjax._precision import Scalar, bias_correction, one_minus_power, precise
from optjax._rate import CountState
from optjax.fused._kernel import (
    Accumulator,
    Bounded,
    Coefficients,
    Direction,
    Form,
)

__all__ = [
    "Factor",
    "Largest",
    "Memory",
    "NotCoveredError",
    "Squares",
    "Term",
    "assemble",
    "cover",
    "name_of",
    "term_of",
]


class NotCoveredError(Exception):
    """The update of a leaf is not one that the compiled step can do; it says why."""


class Memory(NamedTuple):
    """A direction: m ← intake·g + keep·m, and out·m [+ ahead·g] is returned.

    `old` and `new` are m before and after, trees of the states; the rest are numbers.
    """

    old: optax.Updates
    new: optax.Updates
    intake: Scalar = 1.0
    keep: Scalar = 0.0
    out: Scalar = 1.0
    ahead: Scalar | None = None


class Squares(NamedTuple):
    """The first accumulator: ν ← intake·g² + keep·ν, and out·ν is returned.

    `old` and `new` are ν before and after, trees of the states; the rest are numbers.
    """

    old: optax.Updates
    new: optax.Updates
    intake: Scalar = 1.0
    keep: Scalar = 1.0
    out: Scalar = 1.0


class Largest(NamedTuple):
    """ν_max ← max(ν_max, ν), of what the accumulator returned; before and after."""

    old: optax.Updates
    new: optax.Updates


class Factor(NamedTuple):
    """ν ↦ by·ν or V ↦ by·V, whichever it is given; before any bound."""

    by: Scalar


#: A part of the kernel's equation. The last four are terms as they are: `Root` with
#: the power ½, `Clip` between two numbers, `ClipAround` with norms, and `One`.
Term: TypeAlias = Memory | Squares | Largest | Factor | Root | Clip | ClipAround | One
_P = TypeVar("_P", bound=Part)
Rule: TypeAlias = Callable[[_P, Any, Any], Term]


def _average(part: Average, old: EmaState, new: EmaState) -> Memory:
    b1, t = precise(part.decay), _steps(new)
    now = one_minus_power(b1, t) if part.debias else 1.0
    memory = Memory(old.ema, new.ema, 1 - b1, b1)
    if not part.nesterov:
        return memory._replace(out=1.0 / now)
    later = one_minus_power(b1, t + 1) if part.debias else 1.0
    return memory._replace(out=b1 / later, ahead=(1 - b1) / now)


def _trace(part: Trace, old: TraceState, new: TraceState) -> Memory:
    momentum = precise(part.momentum)
    memory = Memory(old.trace, new.trace, keep=momentum)
    return memory._replace(out=momentum, ahead=1.0) if part.nesterov else memory


def _square_sum(part: SquareSum, old: SumState, new: SumState) -> Squares:
    return Squares(old.nu, new.nu)


def _square_average(part: SquareAverage, old: SquareState, new: SquareState) -> Squares:
    b2 = precise(part.decay)
    out = 1.0 / one_minus_power(b2, _steps(new)) if part.debias else 1.0
    return Squares(old.nu, new.nu, 1 - b2, b2, out)


def _running_max(part: RunningMax, old: MaxState, new: MaxState) -> Largest:
    return Largest(old.nu_max, new.nu_max)


def _square_debias(part: SquareDebias, old: DebiasState, new: DebiasState) -> Factor:
    return Factor(1.0 / one_minus_power(precise(part.decay), _steps(new)))


def _root(part: Root, old: Any, new: Any) -> Root:
    if not (isinstance(part.power, float) and part.power == 0.5):
        raise NotCoveredError("the power of its rate is not the number 0.5")
    return part


def _bias_correction(part: BiasCorrection, old: CountState, new: CountState) -> Factor:
    alpha, b1, b2 = map(precise, (part.learning_rate, part.b1, part.b2))
    return Factor(bias_correction(alpha, b1, b2, _steps(new)))


def _clip_around(part: ClipAround, old: Any, new: Any) -> Term:
    if part.norms is None:
        raise NotCoveredError("its bounds are not around the last step's grafted rate")
    return part


def _itself(part: Any, old: Any, new: Any) -> Term:
    term: Term = part
    return term


def _steps(state: Any) -> jax.Array:
    count: jax.Array = state.count
    return count.astype(jnp.result_type(float))


COVERED: dict[type[Part], Rule[Any]] = {
    Average: _average,
    Trace: _trace,
    SquareSum: _square_sum,
    SquareAverage: _square_average,
    RunningMax: _running_max,
    SquareDebias: _square_debias,
    Root: _root,
    One: _itself,
    BiasCorrection: _bias_correction,
    Clip: _itself,
    ClipAround: _clip_around,
}


def cover(part: type[_P]) -> Callable[[Rule[_P]], Rule[_P]]:
    """Let the compiled step do a part of one's own, by the terms that it has.

    Args:
      part: the type of the part, exactly; that of a subclass is another.

    Returns:
      A decorator for the rule, a function from the part, its state before and its state
      after to a `Memory`, `Squares`, `Largest`, `Factor`, `Root`, `Clip` or `One`.

    Example: a rate multiplied by a constant.
      >>> from optjax.extend import Factor, Part, cover
      >>> class Scaled(Part):
      ...     by: float
      >>> @cover(Scaled)
      ... def rule(part, old, new):
      ...     return Factor(part.by)
    """

    def add(rule: Rule[_P]) -> Rule[_P]:
        COVERED[part] = rule
        return rule

    return add


def name_of(part: Part) -> str:
    """What people call it."""
    return part.name if isinstance(part, Other) else type(part).__name__


def term_of(part: Part, old: Any, new: Any) -> Term:
    """What the part is in the kernel's equation.

    Raises:
      NotCoveredError: where it is nothing there.
    """
    rule = COVERED.get(type(part))
    if rule is None:
        raise NotCoveredError(f"the compiled step knows no {name_of(part)}")
    return rule(part, old, new)


class _At(enum.Enum):
    """How far the rate is."""

    GRADIENT, SQUARES, LARGEST, RATE, CLIPPED = range(5)


def assemble(
    direction: Sequence[Term],
    rate: Sequence[Term],
    step: Scalar,
    decay: Scalar | None,
    l2: Scalar | None,
) -> tuple[Form, Coefficients]:
    """The form and the coefficients of the terms, in the order of the computation.

    Raises:
      NotCoveredError: for terms that the kernel does not have there.
    """
    form = Form(Direction.GRADIENT, Accumulator.ONE)
    values: dict[str, Any] = {}
    match direction:
        case []:
            pass
        case [Memory(intake=intake, keep=keep, out=out, ahead=ahead)]:
            values |= {"intake": intake, "keep": keep, "out": out}
            form = form._replace(direction=Direction.AVERAGE)
            if ahead is not None:
                values["ahead"] = ahead
                form = form._replace(direction=Direction.AHEAD)
        case _:
            raise NotCoveredError("its direction is not one average of gradients")

    at = _At.GRADIENT
    scale: Scalar = 1.0
    for term in rate:
        match at, term:
            case _At.GRADIENT, One():
                at = _At.RATE
            case _At.GRADIENT, Squares(intake=intake, keep=keep, out=out):
                at = _At.SQUARES
                form = form._replace(accumulator=Accumulator.AVERAGE)
                values |= {"square_intake": intake, "square_keep": keep, "before": out}
            case _At.SQUARES, Factor(by=by):
                values["before"] *= by
            case _At.SQUARES, Largest():
                at = _At.LARGEST
                form = form._replace(accumulator=Accumulator.MAX)
                values["after"] = 1.0
            case _At.LARGEST, Factor(by=by):
                values["after"] *= by
            case ((_At.SQUARES | _At.LARGEST), Root(eps=eps, eps_root=eps_root)):
                at = _At.RATE
                values |= {"eps": eps, "eps_root": eps_root}
            case _At.RATE, Factor(by=by):
                scale = scale * by
            case _At.RATE, ClipAround() if form.accumulator:
                at = _At.CLIPPED
                form = form._replace(bounded=Bounded.OWN)
            case _At.RATE, Clip(lower=lower, upper=upper) if form.accumulator:
                at = _At.CLIPPED
                form = form._replace(bounded=Bounded.SHARED)
                values |= {"lower": lower, "upper": upper}
            case _:
                raise NotCoveredError(
                    f"the compiled step has no {type(term).__name__} at that place"
                )
    if at not in (_At.RATE, _At.CLIPPED):
        raise NotCoveredError("its rate is not one over the root of an accumulator")
    values |= {"step": step, "scale": scale} if form.bounded else {"step": step * scale}
    if decay is not None:
        form = form._replace(decay=True)
        values["decay"] = decay
    if l2 is not None:
        form = form._replace(l2=True)
        values["l2"] = l2
    # Those with dimensions are broadcast against each leaf.
    if not all(_is_number(value) for value in values.values()):
        raise NotCoveredError("a hyper-parameter or bound is not one number")
    return form, Coefficients(**values)


def _is_number(value: Any) -> bool:
    return jax.tree_util.all_leaves([value]) and jnp.ndim(value) == 0
