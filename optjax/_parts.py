"""What the parts of an update are: typed records, handed by primitives to an observer.

A `Part` says what a primitive is, in hyper-parameters and what they are at this step;
a `Link` what it did in one update. Who looks inside an update, the compiled step, the
monitor and `sgd_equivalent`, matches on these types. A part is a pytree, all of its
fields children, so that arrays in it can be computed like any others.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple, dataclass_transform

import jax
import optax

from optjax._precision import Scalar


@dataclass_transform(frozen_default=True, eq_default=False)
class Part:
    """What a primitive is. A subclass is a frozen dataclass and a pytree by itself.

    Example:
      >>> from optjax.extend import Part
      >>> class Damped(Part):
      ...     decay: float
      >>> Damped(decay=0.9)
      Damped(decay=0.9)
    """

    def __init_subclass__(cls) -> None:
        dataclasses.dataclass(frozen=True, eq=False)(cls)
        names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
        jax.tree_util.register_dataclass(cls, names, [])


class Link(NamedTuple):
    """What one primitive did in one update.

    Attributes:
      part: what it is.
      received: the updates that it was given.
      returned: the updates that it returned.
      state: its state before.
      new_state: its state after.
      params: the parameters that it was given, where it uses them.
    """

    part: Part
    received: optax.Updates
    returned: optax.Updates
    state: optax.OptState = ()
    new_state: optax.OptState = ()
    params: optax.Params | None = None


class Other(Part):
    """A part that is nothing but its name, which people are told."""

    name: str


class Average(Part):
    """m_t = β m_{t−1} + (1 − β) g_t, of gradients; `optjax.ema`."""

    decay: Scalar
    debias: bool
    nesterov: bool


class Trace(Part):
    """m_t = g_t + μ m_{t−1}; `optjax.trace`."""

    momentum: Scalar
    nesterov: bool


class SquareSum(Part):
    """ν_t = ν_{t−1} + |g_t|²; `optjax.sum_of_squares`."""


class SquareAverage(Part):
    """ν_t = β ν_{t−1} + (1 − β) |g_t|²; `optjax.ema_of_squares`."""

    decay: Scalar
    debias: bool


class RunningMax(Part):
    """ν̄_t = max(ν̄_{t−1}, ν_t); `optjax.running_max`."""


class SquareDebias(Part):
    """ν_t ↦ ν_t / (1 − βᵗ); `optjax.debias_squares`."""

    decay: Scalar


class Root(Part):
    """V_t = 1 / (√(ν_t + ε̄) + ε)^{2p}; `optjax.rate_by_accumulated_square`."""

    eps: Scalar
    eps_root: Scalar = 0.0
    power: Scalar = 0.5


class One(Part):
    """V_t = 1; `optjax.rate_by_one`. `precondition` takes no product with it."""


class BiasCorrection(Part):
    """V_t ↦ V_t α √(1 − β₂ᵗ) / (1 − β₁ᵗ); `optjax.correct_bias`."""

    b1: Scalar
    b2: Scalar
    learning_rate: Scalar


class Clip(Part):
    """V_t ↦ clip(V_t, lo_t, hi_t); `optjax.bound_clip`, and any bound of one's own.

    Attributes:
      lower: lo_t at this step, one number or a tree of arrays like the rates.
      upper: hi_t, likewise.
      ends: what they tend to, lower and upper, each a number or a function of the step:
        where they meet is the rate of the SGD that the optimizer turns into. None for
        bounds that tend to nothing.
    """

    lower: Scalar | optax.Updates
    upper: Scalar | optax.Updates
    ends: tuple[Any, Any] | None = None


class ClipAround(Clip):
    """V_t ↦ clip(V_t, f_t lo_t, f_t hi_t); `optjax.bound_around`.

    Attributes:
      rate: f_t, a tree of numbers like the rates, NaN where it is not known.
      freeze_after: the last step whose f_t is measured, or infinity.
      norms: ‖V_t ⊙ m_t‖² and ‖m_t‖², two trees of numbers, where they are for the next
        step's f and no other number of this one is made of them; else None.
    """

    rate: Any = None
    freeze_after: Scalar = math.inf
    norms: tuple[Any, Any] | None = None


class Product(Part):
    """V_t ⊙ m_t; `optjax.precondition`. A subclass does so by other means.

    Attributes:
      direction: m_t, a tree.
      rate: V_t, a tree like it.
    """

    direction: optax.Updates
    rate: optax.Updates


class Switched(Product):
    """V_t ⊙ m_t whose rate is Λ from some step on; `optjax.scale_by_swats`.

    Attributes:
      sgd_rate: Λ, 0 before that step.
    """

    sgd_rate: jax.Array


class Shifted(Product):
    """V_t ⊙ m_t of disjoint gradients; `optjax.scale_by_adashift`."""


class Decay(Part):
    """u ↦ u + λ x; `optax.add_decayed_weights`, as the optimizers here have it.

    Attributes:
      weight_decay: λ, a number or a schedule.
      mask: which leaves, as Optax has it.
      now: λ at this step.
    """

    weight_decay: optax.ScalarOrSchedule
    mask: Any
    now: Scalar


class Descend(Part):
    """u ↦ −s_t u, the last part of a `basic_form`.

    Attributes:
      learning_rate: s_t, a number or a schedule.
      now: s_t at this step.
    """

    learning_rate: optax.ScalarOrSchedule
    now: Scalar


class Rounded(Part):
    """State kept narrower than it is computed in; its link has no updates.

    The link's states are the stored ones.

    Attributes:
      key: the two words of this step's noise.
      wide: the state before, as the optimizer within saw it.
      new_wide: the state after, as it returned it.
    """

    key: tuple[Any, Any]
    wide: Any
    new_wide: Any


class Compressed(Rounded):
    """State kept as codes and scales; its link's states are `CompressedState`."""


class Packed(Part):
    """Leaves of a state that are kept end to end in arrays; its link has no updates.

    Attributes:
      rows: for each array, it before and after, and its leaves before and after.
    """

    rows: list[tuple[Any, Any, list[Any], list[Any]]]


class RelativeToBase(Part):
    """s_t = α_t / α_0 around an optimizer; its link has no updates.

    Attributes:
      make: from α_0 and s_t to the optimizer.
      learning_rate: α_t, a number or a schedule.
      base_lr: α_0, or None where the state has it.
    """

    make: Callable[[Scalar, Scalar], optax.GradientTransformation]
    learning_rate: optax.ScalarOrSchedule
    base_lr: Scalar | None
