"""The compiled step as a JAX primitive, one call for many leaves.

A CPU program calls the compiled function. Every other platform, every program that is
exported, and every derivative takes the same step written in JAX: an exported program
has to run where optjax is not installed, and XLA knows nothing of what is called.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import dispatch
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import AxisType

from optjax.fused._in_jax import plain_root, step_in_jax
from optjax.fused._kernel import Form, Leaves, no_key
from optjax.fused._library import TARGET
from optjax.fused._partition import as_typed, partitioned

__all__ = ["step"]

#: Leaves a call. XLA's compile time grows with the square of a call's operands.
_GROUP = 32


def step(
    form: Form,
    coefficients: jax.Array,
    grads: list[jax.Array],
    leaves: Leaves,
    key: jax.Array | None = None,
) -> Leaves:
    r"""x ← x − (s V ⊙ d + λ x) for every leaf, and the state that goes with it.

    Call it under `jax.jit` with parameters and state donated, in the same order in
    arguments and results: the step then happens in place. Where they are not donated,
    XLA copies them first. It can be batched by `jax.vmap`, coefficients or leaves or
    both, and sharded arrays are updated shard by shard where they are. Inside a
    `shard_map` that leaves some axes to the partitioner, the step is computed as it is
    written in JAX.

    Where a gradient is bfloat16 its direction and its update are rounded to bfloat16,
    as by an Optax transformation.

    Args:
      form: which optimizer.
      coefficients: `Coefficients(...).pack()`.
      grads: the gradients, float32 or bfloat16 each.
      leaves: the parameters and what the form keeps, of the same shapes, float32 or
        bfloat16 each, or codes and scales where the form's storage is compressed; and
        bounds, of which norms come back, where each leaf has its own.
      key: the two words of this step's noise, uint32 of shape (2,), where the state is
        rounded by it.

    Returns:
      The new leaves, each in the dtype it had.
    """
    key = no_key() if key is None else key
    # Of a packed state one call would make all its parameters vary over an axis.
    is_mixed = form.packed and len({_axes(x) for x in (*grads, *leaves.params)}) > 1
    if _is_partly_manual() or is_mixed:
        return step_in_jax(form, coefficients, key, grads, leaves)
    _teach_transformations()
    compiled = as_typed(functools.partial(_in_groups, form), leaves)
    result: Leaves = compiled(coefficients, key, grads, leaves)
    return result


def _is_partly_manual() -> bool:
    """Inside a `shard_map` over some axes of the mesh, the others left to XLA.

    Its partitioner takes no call of a function that it does not know in there.
    """
    kinds = jax.sharding.get_abstract_mesh().axis_types
    return AxisType.Manual in kinds and set(kinds) != {AxisType.Manual}


def _in_groups(
    form: Form,
    coefficients: jax.Array,
    key: jax.Array,
    grads: list[Any],
    leaves: Leaves,
) -> Leaves:
    columns = [grads, *(list(column) for column in leaves if column is not None)]
    begins = [0, *itertools.accumulate(x.size for x in leaves.params)]
    for axes, places in _places(form, columns):
        # What is packed is handed from call to call.
        taken = [
            [*range(width)] if width < len(grads) else places
            for width in form.widths(len(grads))
        ]
        operands = [
            column[i] for column, at in zip(columns, taken, strict=True) for i in at
        ]
        updated = _step.bind(
            *(_varying(x, axes) for x in (coefficients, key, *operands)),
            form=form,
            leaves=len(places),
            start=begins[places[0]] if form.packed else 0,
        )
        new = iter(updated)
        for column, at in zip(columns[1:], taken[1:], strict=True):
            for i in at:
                column[i] = next(new)
    return form.leaves(*columns[1:])


def _places(
    form: Form, columns: list[list[Any]]
) -> Iterator[tuple[frozenset[str], list[int]]]:
    """The leaves of each call, and the mesh axes of a `shard_map` that they vary over.

    What varies over no axis before the step does not after it; but packed leaves go
    by their places.
    """
    if form.packed:
        everything = itertools.chain.from_iterable(columns)
        alike = {frozenset().union(*map(_axes, everything)): [*range(len(columns[0]))]}
    else:
        alike = {}
        for i, row in enumerate(zip(*columns, strict=True)):
            alike.setdefault(frozenset().union(*map(_axes, row)), []).append(i)
    for axes, places in alike.items():
        for start in range(0, len(places), _GROUP):
            yield axes, places[start : start + _GROUP]


def _axes(x: Any) -> frozenset[str]:
    axes: frozenset[str] = jax.typeof(x).mat.varying
    return axes


def _varying(x: Any, axes: frozenset[str]) -> Any:
    missing = axes - _axes(x)
    return jax.lax.pcast(x, tuple(missing), to="varying") if missing else x


_step = Primitive("optjax_step")
_step.multiple_results = True


def _types(
    coefficients: Any, key: Any, *operands: Any, form: Form, leaves: int, start: int
) -> list[Any]:
    del coefficients, key, form, start
    return [x.update(weak_type=False) for x in operands[leaves:]]


@functools.cache
def _jitted(**params: Any) -> Any:
    return jax.jit(functools.partial(_step.bind, **params))


def _as_program(*operands: Any, **params: Any) -> Any:
    return _jitted(**params)(*operands)


_step.def_abstract_eval(_types)
_step.def_impl(_as_program)


def _columns(form: Form, leaves: int, operands: Sequence[Any]) -> tuple[Any, Leaves]:
    """The gradients, and the leaves by what they are."""
    left = iter(operands)
    columns = [[*itertools.islice(left, width)] for width in form.widths(leaves)]
    return columns[0], form.leaves(*columns[1:])


def _in_jax(
    coefficients: Any, key: Any, *operands: Any, form: Form, leaves: int, **how: Any
) -> list[jax.Array]:
    """The same operands and results, each leaf by the equations in JAX."""
    grads, columns = _columns(form, leaves, operands)

    def of_leaves(coefficients: Any, key: Any, grads: Any, columns: Leaves) -> Leaves:
        return step_in_jax(form, coefficients, key, grads, columns, **how)

    run: Callable[..., Leaves] = of_leaves
    # Leading dimensions of the coefficients are those of every leaf.
    for _ in range(np.ndim(coefficients) - 1):
        run = jax.vmap(run)
    return jax.tree.leaves(run(coefficients, key, grads, columns))


def _compiled(
    coefficients: Any, key: Any, *operands: Any, form: Form, leaves: int, start: int
) -> list[jax.Array]:
    grads, columns = _columns(form, leaves, operands)
    call: Callable[..., Leaves] = functools.partial(_ffi_call, form, start)
    is_manual = AxisType.Manual in jax.sharding.get_abstract_mesh().axis_types
    if form.is_elementwise and not is_manual:
        call = partitioned(call)
    return jax.tree.leaves(call(coefficients, key, grads, columns))


def _ffi_call(
    form: Form,
    start: int,
    coefficients: jax.Array,
    key: jax.Array,
    grads: Any,
    leaves: Leaves,
) -> Leaves:
    updated, tree = jax.tree.flatten(leaves)
    before = 2 + len(grads)
    results = jax.ffi.ffi_call(
        TARGET,
        [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in updated],
        input_output_aliases={before + i: i for i in range(len(updated))},
    )(
        coefficients,
        key,
        *grads,
        *updated,
        direction=np.int32(form.direction),
        accumulator=np.int32(form.accumulator),
        bounded=np.int32(form.bounded),
        decay=form.decay,
        l2=form.l2,
        storage=np.int32(form.storage),
        packed=form.packed,
        start=np.int64(start),
    )
    result: Leaves = jax.tree.unflatten(tree, results)
    return result


_lower_in_jax = mlir.lower_fun(_in_jax, multiple_results=True)
_lower_compiled = mlir.lower_fun(_compiled, multiple_results=True)


def _lower_on_cpu(ctx: Any, *operands: Any, **params: Any) -> Any:
    module = ctx.module_context
    in_jax = module.lowering_parameters.for_export
    if not params["form"].is_elementwise:
        # A shard does not know the rest of its leaf.
        in_jax |= getattr(module.axis_context, "num_devices", None) != 1
    lower = _lower_in_jax if in_jax else _lower_compiled
    return lower(ctx, *operands, **params)


# As for what `partitioned` is made of, which JAX finds by this list alone.
dispatch.prim_requires_devices_during_lowering.add(_step)
mlir.register_lowering(_step, _lower_in_jax)
mlir.register_lowering(_step, _lower_on_cpu, platform="cpu")


def _jvp(primals: Any, tangents: Any, **params: Any) -> Any:
    tangents = [ad.instantiate_zeros(tangent) for tangent in tangents]
    in_jax = functools.partial(_in_jax, **params)
    return jax.jvp(in_jax, tuple(primals), tuple(tangents))


def _batch(operands: Any, axes: Any, **params: Any) -> Any:
    size = next(
        x.shape[axis]
        for x, axis in zip(operands, axes, strict=True)
        if axis is not None
    )
    rows = [
        jnp.broadcast_to(x, (size, *x.shape))
        if axis is None
        else jnp.moveaxis(x, axis, 0)
        for x, axis in zip(operands, axes, strict=True)
    ]
    result = _step.bind(*rows, **params)
    return result, [0] * len(result)


ad.primitive_jvps[_step] = _jvp
batching.primitive_batchers[_step] = _batch


@functools.cache
def _teach_transformations() -> None:
    """Rules for the transformations that JAX loads only where they are used."""
    from jax._src import checkify  # There is no public door to its rules.
    from jax.experimental import jet

    def check(*given: Any, **params: Any) -> Any:
        # From JAX 0.12 on a context comes first, which is to be handed on.
        start = [isinstance(value, checkify.Error) for value in given].index(True)
        context, (error, enabled, *operands) = given[:start], given[start:]
        in_jax = functools.partial(_in_jax, **params)
        program = jax.make_jaxpr(in_jax)(*operands)
        return checkify.checkify_jaxpr(*context, program, enabled, error, *operands)

    def expand(primals: Any, series: Any, **params: Any) -> Any:
        in_jax = functools.partial(_in_jax, **params, root=plain_root)
        return jet.jet(in_jax, tuple(primals), tuple(series))

    checkify.error_checks[_step] = check
    rules: dict[Any, Any] = jet.jet_rules
    rules[_step] = expand
