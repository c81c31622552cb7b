"""What a compiled step is told: x[t+1] = x[t] − s_t · V_t ⊙ m_t in one pass.

An optimizer of the family is a `Form`, what the compiled loop looks like, and
`Coefficients`, the scalars that it is handed at run time:

    optimizer             direction   accumulator   bounded
    sgd                   gradient    one
    momentum              average     one
    nesterov              ahead       one
    adagrad, rmsprop      gradient    average
    adam, adamw           average     average
    nadam, nadamw         ahead       average
    amsgrad               average     max
    adabound, adaboundw   average     average       yes
    amsbound              average     max           yes
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["DTYPES", "Coefficients", "Form", "Leaves", "check"]

#: What a leaf may be stored in; arithmetic is float32 whatever it is.
DTYPES = (jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16))


class Form(NamedTuple):
    """The static part of an optimizer: which arrays it keeps, which terms it adds.

    Attributes:
      direction: "gradient", d = g and no m; "average", m ← intake·g + keep·m and
        d = out·m; "ahead", the same and d = out·m + ahead·g.
      accumulator: "one", V = 1 and no ν; "average", ν ← square_intake·g² +
        square_keep·ν; "max", the same and ν_max ← max(ν_max, before·ν).
      bounded: clip the rate to [lower, upper]; needs an accumulator.
      decay: subtract decay·x from x too.
      l2: add l2·x to the gradient before all else. Where that is bfloat16, so is
        the sum: l2, the product and the sum are each rounded to it.
    """

    direction: Literal["gradient", "average", "ahead"]
    accumulator: Literal["one", "average", "max"]
    bounded: bool = False
    decay: bool = False
    l2: bool = False


class Coefficients(NamedTuple):
    r"""The scalars of one step, numbers or arrays of shape (); all float32.

        V = 1 / max(√(before·ν + ε̄) + ε, √tiny)          accumulator "average"
        V = 1 / max(√(after·ν_max + ε̄) + ε, √tiny)       accumulator "max"
        V ← clip(scale·V, lower, upper)                  if bounded
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

    # The order in which step.cc reads them.
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


Column = Sequence[jax.Array] | None


class Leaves(NamedTuple):
    """The parameters and the state of an optimizer: lists of leaves, in one order.

    `m`, `nu` and `nu_max` are None where the form keeps none.
    """

    params: Sequence[jax.Array]
    m: Column
    nu: Column
    nu_max: Column


def check(form: Form, grads: Sequence[jax.Array], leaves: Leaves) -> None:
    """Refuse arrays that do not fit the form, each other, or the two dtypes."""
    if form.bounded and form.accumulator == "one":
        raise ValueError(
            "a bounded form must have an accumulator, got accumulator='one': without "
            "one the rate is the same for all coordinates, so clip the step instead."
        )
    kept = {
        "params": True,
        "m": form.direction != "gradient",
        "nu": form.accumulator != "one",
        "nu_max": form.accumulator == "max",
    }
    for name, column in leaves._asdict().items():
        if (column is not None) != kept[name]:
            expected = "a list" if kept[name] else "None"
            raise ValueError(
                f"{name} must be {expected} for {form}, got "
                f"{'None' if column is None else 'a list'}."
            )
        if column is not None and len(column) != len(grads):
            raise ValueError(
                f"{name} must have a leaf for every gradient, got {len(column)} for "
                f"{len(grads)}."
            )
        for leaf, gradient in zip(column or (), grads, strict=bool(column)):
            if leaf.shape != gradient.shape:
                raise ValueError(
                    f"gradients, parameters and state must have the same shapes, got a "
                    f"gradient of shape {gradient.shape} and a leaf of {name} of shape "
                    f"{leaf.shape}."
                )
    for leaf in [*grads, *jax.tree.leaves(leaves)]:
        if leaf.dtype not in DTYPES:
            raise ValueError(
                f"leaves of the compiled step must be float32 or bfloat16, got "
                f"{leaf.dtype}; use the optimizer's `update` for others."
            )
