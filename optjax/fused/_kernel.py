"""What a compiled step is told: x[t+1] = x[t] − s_t · V_t ⊙ m_t in one pass.

An optimizer of the family is a `Form`, what the compiled loop looks like, and
`Coefficients`, the scalars that it is handed at run time; `explain_step` prints which.
"""

import enum
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

__all__ = [
    "DTYPES",
    "Accumulator",
    "Bounded",
    "Coefficients",
    "Direction",
    "Form",
    "Leaves",
    "Storage",
    "interface",
    "no_key",
]

#: What a leaf may be stored in; arithmetic is float32 whatever it is.
DTYPES = (jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16))


class Direction(enum.IntEnum):
    """d of the gradient g."""

    #: d = g, and no m.
    GRADIENT = 0
    #: m ← intake·g + keep·m and d = out·m.
    AVERAGE = 1
    #: The same and d = out·m + ahead·g.
    AHEAD = 2


class Accumulator(enum.IntEnum):
    """What is behind the rate V."""

    #: V = 1, and no ν.
    ONE = 0
    #: ν ← square_intake·g² + square_keep·ν.
    AVERAGE = 1
    #: The same and ν_max ← max(ν_max, before·ν).
    MAX = 2


class Bounded(enum.IntEnum):
    """Between what V is clipped."""

    #: Nothing.
    NO = 0
    #: Two numbers among the coefficients.
    SHARED = 1
    #: Two numbers of each leaf, which returns ‖V ⊙ d‖² and ‖d‖² of V before the clip.
    OWN = 2


class Storage(enum.IntEnum):
    """How a state comes to be narrower than float32, where it is."""

    #: Rounded to the nearest.
    NEAREST = 0
    #: Rounded up with the probability of the distance covered, as `_rounding` has it.
    STOCHASTIC = 1
    #: Codes of eight bits and a scale for each block of them, as `_compression` has it.
    COMPRESSED = 2


class Form(NamedTuple):
    """The static part of an optimizer: which arrays it keeps, which terms it adds.

    Attributes:
      direction: d.
      accumulator: V.
      bounded: whether the rate is clipped; needs an accumulator.
      decay: subtract decay·x from x too.
      l2: add l2·x to the gradient before all else. Where that is bfloat16, so is
        the sum: l2, the product and the sum are each rounded to it.
      storage: how all that the form keeps comes to be narrower, where it is.
      packed: what it keeps of all leaves lies end to end, in one array each.
    """

    direction: Direction
    accumulator: Accumulator
    bounded: Bounded = Bounded.NO
    decay: bool = False
    l2: bool = False
    storage: Storage = Storage.NEAREST
    packed: bool = False

    @property
    def is_elementwise(self) -> bool:
        """Whether an element's step needs nothing of the rest of its leaf.

        Noise goes by its position, codes share a scale, norms are of all, and what is
        packed has no shape that could be split like the leaf.
        """
        is_nearest = self.storage is Storage.NEAREST
        return is_nearest and self.bounded is not Bounded.OWN and not self.packed

    @property
    def kept(self) -> list[str]:
        """The arrays of the state, in the order of the operands."""
        return [
            *["m"] * (self.direction is not Direction.GRADIENT),
            *["nu"] * (self.accumulator is not Accumulator.ONE),
            *["nu_max"] * (self.accumulator is Accumulator.MAX),
        ]

    def widths(self, leaves: int) -> list[int]:
        """How many arrays each operand is, of so many leaves: the gradients' first."""
        scales = self.storage is Storage.COMPRESSED
        kept = [1 if self.packed else leaves] * (len(self.kept) * (1 + scales))
        return [leaves, leaves, *kept, *[leaves] * (self.bounded is Bounded.OWN)]

    def leaves(self, params: Sequence[jax.Array], *kept: "Column") -> "Leaves":
        """The parameters and what the form keeps, each under its name."""
        names = self.kept
        if self.storage is Storage.COMPRESSED:
            names += [f"{name}_scale" for name in names]
        names += ["norms"] * (self.bounded is Bounded.OWN)
        return Leaves(params, **dict(zip(names, kept, strict=True)))

    def __str__(self) -> str:
        direction = ("g", "m", "m ahead")[self.direction]
        rate = ("", "V of ν", "V of max ν")[self.accumulator]
        bounded = ("", "bounded", "bounded by its norms")[self.bounded]
        terms = [rate, direction, bounded]
        terms += ["weight decay" * self.decay, "L2" * self.l2]
        terms += [("", "stochastic rounding", "eight bits")[self.storage]]
        terms += ["packed" * self.packed]
        return ", ".join(filter(None, terms))


class Coefficients(NamedTuple):
    r"""The scalars of one step, numbers or arrays of shape (); all float32.

        V = 1 / max(√(before·ν + ε̄) + ε, √tiny)          accumulator AVERAGE
        V = 1 / max(√(after·ν_max + ε̄) + ε, √tiny)       accumulator MAX
        V ← clip(scale·V, lower, upper)                  if bounded, SHARED
        x ← x − (step · V ⊙ d + decay·x)

    `scale` is read only under a bound; otherwise fold it into `step`. `decay` is not
    multiplied by `step`: for AdamW it is α_t λ.

    Example: Adam with its defaults and a learning rate of 0.1, at step t.
      >>> def adam(t):
      ...     return Coefficients(
      ...         intake=1 - 0.9, keep=0.9, out=1 / (1 - 0.9**t),
      ...         square_intake=1 - 0.999, square_keep=0.999,
      ...         before=1 / (1 - 0.999**t), eps=1e-8, step=0.1,
      ...     )
      >>> adam(1).pack().shape
      (16,)
    """

    # In this order they are packed, and step.cc reads them.
    intake: Any = 1.0
    keep: Any = 0.0
    out: Any = 1.0
    ahead: Any = 0.0
    square_intake: Any = 1.0
    square_keep: Any = 1.0
    before: Any = 1.0
    after: Any = 1.0
    eps_root: Any = 0.0
    eps: Any = 0.0
    scale: Any = 1.0
    lower: Any = 0.0
    upper: Any = np.inf
    step: Any = 1.0
    decay: Any = 0.0
    l2: Any = 0.0

    def pack(self) -> jax.Array:
        """The vector of shape (16,) that `step` takes: one, shared by all leaves."""
        return jnp.stack([jnp.asarray(value, jnp.float32) for value in self])


def no_key() -> jax.Array:
    """Where nothing is rounded stochastically."""
    # Of (0, 0) XLA makes a broadcast and of (0, 1) a count, 10 ms of compilation each.
    return jnp.asarray(np.array([1, 0], np.uint32))


Column = Sequence[jax.Array] | None


class Leaves(NamedTuple):
    """The parameters and the state of an optimizer: lists of leaves, in one order.

    What the form does not keep is None, and what is packed one array. Scales are those
    of codes. Norms are of shape (2,): before a step the bounds of the leaf's rate,
    after it ‖V ⊙ d‖² and ‖d‖².
    """

    params: Sequence[jax.Array]
    m: Column = None
    nu: Column = None
    nu_max: Column = None
    m_scale: Column = None
    nu_scale: Column = None
    nu_max_scale: Column = None
    norms: Column = None


def interface() -> str:
    """What the compiled library must say of itself, word for word.

    `step.cc` makes its own from the same lists that make its constants, so that the
    order of neither coefficients, arrays nor variants can differ unseen. The number
    stands for what is computed of them: count it up here and there.
    """
    names = {
        "coefficients": Coefficients._fields,
        "arrays": ("grads", *Leaves._fields),
        "direction": [d.name.lower() for d in Direction],
        "accumulator": [a.name.lower() for a in Accumulator],
        "bounded": [b.name.lower() for b in Bounded],
        "storage": [s.name.lower() for s in Storage],
    }
    return "step 6; " + "; ".join(" ".join([k, *v]) for k, v in names.items())
