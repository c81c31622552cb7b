"""The compiled step as a JAX function: x[t+1] = x[t] − s_t · V_t ⊙ m_t in one pass.

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

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap

from optjax.fused.library import TARGET, fused_step_available
from optjax.fused.partition import as_typed, partitioned

__all__ = ["DTYPES", "Coefficients", "Form", "Leaves", "step"]

#: What a leaf may be stored in; arithmetic is float32 whatever it is.
DTYPES = (jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16))

#: Leaves a call. XLA's compile time grows with the square of a call's operands.
_GROUP = 32

_DIRECTIONS = ("gradient", "average", "ahead")
_ACCUMULATORS = ("one", "average", "max")


class Form(NamedTuple):
    """The static part of an optimizer: which arrays it keeps, which terms it adds.

    Attributes:
      direction: "gradient", d = g and no m; "average", m ← intake·g + keep·m and
        d = out·m; "ahead", the same and d = out·m + ahead·g.
      accumulator: "one", V = 1 and no ν; "average", ν ← square_intake·g² +
        square_keep·ν; "max", the same and ν_max ← max(ν_max, before·ν).
      bounded: clip the rate to [lower, upper]; needs an accumulator.
      decay: subtract decay·x from x too.
      l2: add l2·x to the gradient before all else.
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

    params: Column
    m: Column
    nu: Column
    nu_max: Column


def step(
    form: Form,
    coefficients: jax.Array,
    grads: Sequence[jax.Array],
    params: Sequence[jax.Array],
    m: Column = None,
    nu: Column = None,
    nu_max: Column = None,
    *,
    fallback: Callable[..., Leaves] | None = None,
) -> Leaves:
    r"""x ← x − (s V ⊙ d + λ x) for every leaf, and the state that goes with it.

    Call it under `jax.jit` with parameters and state donated, in the same order in
    arguments and results: the step then happens in place. Where they are not donated,
    XLA copies them first. It can be batched by `jax.vmap`, coefficients or leaves or
    both, and sharded arrays are updated shard by shard where they are.

    Where a gradient is bfloat16 its direction and its update are rounded to bfloat16,
    as by an Optax transformation.

    Args:
      form: which optimizer.
      coefficients: `Coefficients(...).pack()`.
      grads: the gradients, float32 or bfloat16 each.
      params: the parameters, of the same shapes, float32 or bfloat16 each.
      m: the averages of gradients, likewise, or None if the form keeps none.
      nu: the averages of squares, likewise.
      nu_max: their running maxima, likewise.
      fallback: the same step in JAX, a function of all of these but the form. It runs
        where there is no compiled step and on platforms other than the CPU, and is
        what derivatives are taken of.

    Returns:
      The new `(params, m, nu, nu_max)`, lists of leaves each in the dtype it had.

    Raises:
      ValueError: for arrays that do not fit the form, each other, or the two dtypes.
      RuntimeError: where there is neither a compiled step nor a fallback.
    """
    grads = list(grads)
    leaves = Leaves(
        *(
            None if column is None else list(column)
            for column in (params, m, nu, nu_max)
        )
    )
    _check(form, grads, leaves)
    if not fused_step_available():
        if fallback is None:
            raise RuntimeError(
                "the compiled step must be available or have a fallback, got neither: "
                "reinstall optjax where there is a C++ compiler, unset OPTJAX_FUSED, "
                "or use the optimizer's `update`."
            )
        return Leaves(*fallback(coefficients, grads, *leaves))
    if not grads:
        return leaves
    compiled = as_typed(functools.partial(_in_groups, form), leaves)
    if fallback is None:
        return compiled(coefficients, grads, *leaves)

    def in_jax(*operands: Any) -> Leaves:
        return Leaves(*fallback(*operands))

    @jax.custom_jvp
    def run(*operands: Any) -> Leaves:
        return jax.lax.platform_dependent(*operands, cpu=compiled, default=in_jax)

    run.defjvp(lambda primals, tangents: jax.jvp(in_jax, primals, tangents))
    return run(coefficients, grads, *leaves)


@functools.partial(jax.jit, static_argnums=0, inline=True)
def _in_groups(
    form: Form, coefficients: jax.Array, grads: Any, *columns: Any
) -> Leaves:
    call = _call(form)
    result: list[Any] = [None if column is None else [] for column in columns]
    for start in range(0, len(grads), _GROUP):
        group = slice(start, start + _GROUP)
        parts = (None if column is None else column[group] for column in columns)
        updated = call(coefficients, grads[group], Leaves(*parts))
        for column, part in zip(result, updated, strict=True):
            if column is not None:
                column.extend(part)
    return Leaves(*result)


@functools.cache
def _call(form: Form) -> Callable[..., Leaves]:
    """One call of the compiled function, which vmap turns into one with more rows."""

    compiled = partitioned(functools.partial(_ffi_call, form))

    @custom_vmap
    def call(coefficients: jax.Array, grads: Any, leaves: Leaves) -> Leaves:
        return compiled(coefficients, grads, leaves)

    @call.def_vmap
    def batched(size: int, in_batched: Any, *operands: Any) -> tuple[Leaves, Any]:
        operands = jax.tree.map(
            lambda x, is_batched: (
                x if is_batched else jnp.broadcast_to(x, (size, *x.shape))
            ),
            operands,
            tuple(in_batched),
        )
        result = call(*operands)
        return result, jax.tree.map(lambda _: True, result)

    return call


def _ffi_call(
    form: Form, coefficients: jax.Array, grads: Any, leaves: Leaves
) -> Leaves:
    updated, tree = jax.tree.flatten(leaves)
    before = 1 + len(grads)
    results = jax.ffi.ffi_call(
        TARGET,
        [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in updated],
        input_output_aliases={before + i: i for i in range(len(updated))},
    )(
        coefficients,
        *grads,
        *updated,
        direction=np.int32(_DIRECTIONS.index(form.direction)),
        accumulator=np.int32(_ACCUMULATORS.index(form.accumulator)),
        bounded=form.bounded,
        decay=form.decay,
        l2=form.l2,
    )
    return jax.tree.unflatten(tree, results)


def _check(form: Form, grads: Sequence[jax.Array], leaves: Leaves) -> None:
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
