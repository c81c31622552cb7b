"""Learning-rate schedules by name and numbers, any of which may be traced."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import optax

from optjax._arguments.checked import checked
from optjax._arguments.named import NonNegative, Size
from optjax._arguments.numbers import between
from optjax._arguments.objects import OneOf
from optjax.sweep._keywords import Keywords, declared, with_keywords
from optjax.sweep._trial import Factory

ShapeName = Literal["constant", "linear", "cosine"]
_Share: TypeAlias = Annotated[
    jax.Array | float, between(0, 1, "It is a share, such as 0.05")
]
# From 1 at the end of the warm-up, at 0, to 0 at the end.
_SHAPES: Mapping[str, Callable[[jax.Array], jax.Array]] = {
    "constant": jnp.ones_like,
    "linear": lambda x: 1 - x,
    "cosine": lambda x: (1 + jnp.cos(jnp.pi * x)) / 2,
}


@checked
def schedule(
    shape: Annotated[ShapeName, OneOf(get_args(ShapeName))],
    peak: NonNegative,
    steps: Size,
    *,
    warmup: _Share = 0.0,
    floor: _Share = 0.0,
) -> optax.Schedule:
    """A warm-up and a decay, from numbers of which any may be traced.

        α(t) = peak · t / (w·T)                        for t < w·T
        α(t) = peak · (floor + (1 − floor) · d(x)),    x = (t − w·T) / (T − w·T)

    with T = `steps`, w = `warmup`, and d(x) = 1 (constant), 1 − x (linear) or
    (1 + cos πx) / 2 (cosine); from T on it is α(T). It is Optax's
    `warmup_cosine_decay_schedule(0, peak, w·T, T, floor · peak)`, which tests its
    numbers with `if` and takes no traced ones. In a space, `schedule`, `warmup` and
    `floor` beside `learning_rate`, the peak, make one of the sweep's `steps`.

    Args:
      shape: "constant", "linear" or "cosine".
      peak: the learning rate at the end of the warm-up.
      steps: updates until the end of the decay.
      warmup: the share of them in which the rate rises from 0.
      floor: the share of the peak at the end; nothing to a constant one.

    Returns:
      A function of the number of updates done.

    Raises:
      ValueError: for another shape, or a concrete number that is out of its range.

    Example:
      >>> import optjax.sweep
      >>> rate = optjax.sweep.schedule("cosine", 0.1, 100, warmup=0.1, floor=0.01)
      >>> [round(float(rate(t)), 4) for t in (0, 5, 10, 55, 100)]
      [0.0, 0.05, 0.1, 0.0505, 0.001]

    References: Loshchilov & Hutter, "SGDR: stochastic gradient descent with warm
    restarts", ICLR 2017 (the cosine).
    """

    def rate(count: jax.Array) -> jax.Array:
        done = jnp.minimum(jnp.asarray(count, jnp.float32), steps)
        rising = jnp.asarray(warmup * steps, jnp.float32)
        # Where there is no warm-up, or nothing else, its branch is not taken.
        up = done / jnp.where(rising > 0, rising, 1.0)
        left = jnp.where(rising < steps, steps - rising, 1.0)
        x = jnp.clip((done - rising) / left, 0.0, 1.0)
        down = floor + (1 - floor) * _SHAPES[shape](x)
        return peak * jnp.where(done < rising, up, down)

    return rate


def with_schedules(
    factories: Mapping[str, Factory], keys: Iterable[str], steps: int
) -> Mapping[str, Factory]:
    """The factories; where a space has one of a schedule's keys, with schedules.

    Args:
      factories: optimizers by name.
      keys: of the space.
      steps: updates in a trial.
    """
    return _Scheduled(factories, steps) if {*keys} & {*_ADDED.named} else factories


def without_schedules(factories: Mapping[str, Factory]) -> Mapping[str, Factory]:
    """The factories that `with_schedules` was given."""
    return factories.unscheduled if isinstance(factories, _Scheduled) else factories


def is_peak(takes: Keywords) -> bool:
    """Whether a factory's `learning_rate` is the peak of what a space schedules."""
    return "learning_rate" in takes.named and not {*_ADDED.named} & {*takes.named}


def written(
    takes: Keywords, literals: Mapping[str, str], steps: int | None
) -> dict[str, str]:
    """Arguments as code, those of a schedule in the learning rate that they make.

    Args:
      takes: the keywords of the factory.
      literals: what the space has, by name.
      steps: updates in a trial; where they are not known the name stands there.
    """
    arguments = dict(literals)
    told = {name: arguments.pop(name) for name in _ADDED.named if name in arguments}
    if not told or not is_peak(takes):
        return dict(literals)
    peak = arguments.pop("learning_rate", None)
    if peak is None:
        peak = repr(takes.named["learning_rate"].default)
    shape = told.pop("schedule", "None")
    shape = repr("constant") if shape == "None" else shape
    numbers = [shape, peak, "steps" if steps is None else str(steps)]
    numbers += [f"{name}={text}" for name, text in told.items()]
    rate = f"sweep.schedule({', '.join(numbers)})"
    base = {"base_lr": peak} if "base_lr" in takes.named else {}
    return {"learning_rate": rate, **base, **arguments}


class _Scheduled(Mapping[str, Factory]):
    """Factories with the keywords `schedule`, `warmup` and `floor` beside their own.

    Those that take a `learning_rate` have them; it is the peak.
    """

    def __init__(self, factories: Mapping[str, Factory], steps: int) -> None:
        """For trials of so many updates."""
        self.unscheduled, self._steps = factories, steps

    def __getitem__(self, name: str) -> Factory:
        """The factory of that name."""
        factory = self.unscheduled[name]
        try:
            takes = declared(factory)
        except (TypeError, ValueError):  # `configurations` says so.
            return factory
        if not is_peak(takes):
            return factory
        return _with_schedule(factory, takes, self._steps)

    def __contains__(self, name: object) -> bool:
        return name in self.unscheduled

    def __iter__(self) -> Iterator[str]:
        return iter(self.unscheduled)

    def __len__(self) -> int:
        return len(self.unscheduled)


def _added(
    *,
    schedule: str | None = None,
    warmup: float = 0.0,
    floor: float = 0.0,
) -> None:
    """What a space may say beside `learning_rate`."""


_ADDED: Keywords = declared(_added)


def _with_schedule(factory: Factory, takes: Keywords, steps: int) -> Factory:
    def scheduled(**hyper: Any) -> optax.GradientTransformation:
        told = {name: hyper.pop(name) for name in _ADDED.named if name in hyper}
        if not told:
            return factory(**hyper)
        shape: Any = told.pop("schedule", None) or "constant"
        peak = hyper.pop("learning_rate", takes.named["learning_rate"].default)
        if "base_lr" in takes.named:
            # The bounds are relative to the rate at which a schedule starts.
            hyper.setdefault("base_lr", peak)
        rate = schedule(shape, peak, steps, **told)
        return factory(learning_rate=rate, **hyper)

    with_keywords(scheduled, [takes, _ADDED], given=0)
    return scheduled
