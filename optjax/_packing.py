"""The state of many small leaves end to end in a few arrays, for the calls' sake.

JAX takes about a microsecond for each array that a compiled step is given and returns.
A model of thousands of small parameters waits longer for that than for its arithmetic.

Packed are a state's arrays that are like their parameters, of each field those of the
dtype that most have, in the order of the tree. Where one was, the tree has an
`Elsewhere`, from whose path and the parameters' shapes it is found again: `init` hands
on nothing but arrays.
"""

import math
from collections import Counter
from itertools import accumulate
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optjax._arguments.checked import checked
from optjax._arguments.named import Mask, Size, Transformation
from optjax._observe import tell
from optjax._parts import Link, Packed
from optjax._places import Path, end_of, left_out, path_of


class Elsewhere(NamedTuple):
    """In the place of an array that is packed; it holds nothing."""


class PackedState(NamedTuple):
    """The state with `Elsewhere` for what is packed, and by field the packed arrays.

    A field is the path to the arrays of the parameters, such as "0.direction.ema".
    """

    inner_state: optax.OptState
    packed: dict[str, Any]


@checked
def packed(
    optimizer: Transformation, below: Size = 65_536, mask: Mask = None
) -> optax.GradientTransformationExtraArgs:
    r"""(m_1, …, m_n) → one m: the state of small leaves in an array a field.

    A jitted step is handed fewer arrays, each of which costs about a microsecond a
    call, whatever its size: Adam's step of n small leaves takes 2n and returns n,
    besides a few, and not 4n and 3n. The numbers are those of `optimizer`, to the bit,
    but for what XLA rounds otherwise where it fuses another program, as in nadam's last
    place.

    It is for `optjax.apply_step`, which on the CPU reads and writes the packed arrays
    in place: on two idle cores Adam took 0.49 times as long on 3,000 small leaves, and
    0.73 times on DenseNet-121's 362. By `update`, and on other platforms, XLA cuts them
    up and puts them together again, which is no faster and compiles for longer: on a
    CPU 17 seconds for 300 leaves, and not 2.

    Packed are floating-point arrays of their parameter's shape, where two or more share
    a field and a dtype. Put it around what else changes a state's storage, such as
    `stochastic_rounding`. `optjax.convert_state` packs and unpacks the state of a run.

    A packed array lies whole on every device, which is right for parameters that do.
    Those split over a mesh of explicit axes are left out by themselves; on one of
    automatic axes name them in `mask`, or their state is gathered in each step.

    Args:
      optimizer: any gradient transformation.
      below: leaves of fewer numbers are packed.
      mask: a tree of bools like the parameters, or a function from them to it: False
        for those whose state stays as it is.

    Returns:
      A transformation with the state `PackedState`, all arrays, for `jit`, `vmap`,
      `scan`, donation and checkpoints.

    Raises:
      ValueError: at `init` for a mask of another structure than the parameters, and in
        `update` for gradients of another one.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx = optjax.packed(optjax.adam(1e-3))
      >>> state = tx.init({"w": jnp.ones((2, 3)), "b": jnp.ones(3)})
      >>> {field: array.shape for field, array in state.packed.items()}
      {'0.direction.ema': (9,), '0.rate.nu': (9,)}
    """
    inner = optax.with_extra_args_support(optimizer)

    def init(params: optax.Params) -> PackedState:
        state = inner.init(params)
        return _pack(state, _fields(state, params, below, left_out(mask, params)))[0]

    def update(
        updates: optax.Updates,
        state: PackedState,
        params: optax.Params | None = None,
        **extra: Any,
    ) -> tuple[optax.Updates, PackedState]:
        fields = _fields_of(state, updates if params is None else params)
        wide, before = _unpack(state, fields)
        result, new_wide = inner.update(updates, wide, params, **extra)
        new, after = _pack(new_wide, fields)
        rows = [
            (state.packed[field], new.packed[field], before[field], after[field])
            for field in after
        ]
        tell(Link(Packed(rows), (), (), state, new))
        return result, new

    return optax.GradientTransformationExtraArgs(init, update)


def unpack(state: PackedState, params: Any) -> Any:
    """The optimizer's own state, of parameters of these shapes."""
    return _unpack(state, _fields_of(state, params))[0]


def pack_like(wide: Any, like: PackedState, params: Any) -> PackedState:
    """The optimizer's own state with that packed which is packed there."""
    return _pack(wide, _fields_of(like, params))[0]


class _Fields(NamedTuple):
    """An optimizer's own state: its structure, each packed leaf's field and shape."""

    structure: Any
    of_leaf: list[tuple[str, tuple[int, ...]] | None]


def _fields(state: Any, params: Any, below: int, kept: set[Path]) -> _Fields:
    """What of a state is to be packed."""
    shapes = _shapes(params)

    def field_of(path: Path, leaf: Any) -> str | None:
        end = end_of(path, shapes)
        if end is None or end in kept or jnp.shape(leaf) != shapes[end]:
            return None
        if jnp.size(leaf) >= below or not jnp.issubdtype(
            jnp.result_type(leaf), jnp.floating
        ):
            return None
        if any(jax.typeof(leaf).sharding.spec):
            return None
        return _name(path, end)

    leaves, structure = jax.tree_util.tree_flatten_with_path(state)
    fields = [
        (field_of(path_of(path), leaf), jnp.result_type(leaf)) for path, leaf in leaves
    ]
    most: dict[str | None, Any] = {}
    for key, count in Counter(fields).most_common():
        if count > 1:
            most.setdefault(key[0], key)
    return _Fields(
        structure,
        [
            (field, jnp.shape(leaf))
            if field is not None and most.get(field) == (field, dtype)
            else None
            for (field, dtype), (_, leaf) in zip(fields, leaves, strict=True)
        ],
    )


def _fields_of(state: PackedState, params: Any) -> _Fields:
    """What of a state is packed."""
    shapes = _shapes(params)
    leaves, structure = jax.tree_util.tree_flatten_with_path(
        state.inner_state, is_leaf=_is_elsewhere
    )

    def field_of(path: Path) -> tuple[str, tuple[int, ...]]:
        end = end_of(path, shapes)
        if end is None:
            raise ValueError(_lacks(path))
        return _name(path, end), shapes[end]

    return _Fields(
        structure,
        [
            field_of(path_of(path)) if _is_elsewhere(leaf) else None
            for path, leaf in leaves
        ],
    )


def _pack(wide: Any, fields: _Fields) -> tuple[PackedState, dict[str, list[Any]]]:
    """The state packed, and by field the leaves that are."""
    leaves = fields.structure.flatten_up_to(wide)
    columns: dict[str, list[Any]] = {}
    for leaf, field in zip(leaves, fields.of_leaf, strict=True):
        if field is not None:
            columns.setdefault(field[0], []).append(leaf)
    kept = [
        leaf if field is None else Elsewhere()
        for leaf, field in zip(leaves, fields.of_leaf, strict=True)
    ]
    packed = {
        field: jnp.concatenate([x.reshape(-1) for x in column])
        for field, column in columns.items()
    }
    return PackedState(fields.structure.unflatten(kept), packed), columns


def _unpack(state: PackedState, fields: _Fields) -> tuple[Any, dict[str, list[Any]]]:
    """The optimizer's own state, and by field the leaves that were packed."""
    wide = fields.structure.flatten_up_to(state.inner_state)
    rows: dict[str, list[tuple[int, tuple[int, ...]]]] = {}
    for i, field in enumerate(fields.of_leaf):
        if field is not None:
            rows.setdefault(field[0], []).append((i, field[1]))
    columns: dict[str, list[Any]] = {}
    for name, row in rows.items():
        array, sizes = state.packed[name], [math.prod(shape) for _, shape in row]
        if sum(sizes) != array.size:
            raise ValueError(_other_sizes(name, array.size, sum(sizes)))
        columns[name] = []
        for (i, shape), size, stop in zip(row, sizes, accumulate(sizes), strict=True):
            wide[i] = array[stop - size : stop].reshape(shape)
            columns[name].append(wide[i])
    return fields.structure.unflatten(wide), columns


def _is_elsewhere(node: Any) -> bool:
    return isinstance(node, Elsewhere)


def _shapes(params: Any) -> dict[Path, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {path_of(path): jnp.shape(leaf) for path, leaf in leaves}


def _name(path: Path, end: Path) -> str:
    """The field: the way to where the paths of the parameters begin."""
    way = path[: len(path) - len(end)]
    return jax.tree_util.keystr(way, simple=True, separator=".")


def _other_sizes(field: str, expected: int, received: int) -> str:
    return (
        f"the gradients must have the shapes of the parameters that `init` was given: "
        f"the packed state has {expected} numbers of {field}, and they make it "
        f"{received}. Pass `update` the gradients of the same parameters."
    )


def _lacks(path: Path) -> str:
    return (
        "the gradients must have the structure of the parameters that `init` was "
        f"given: the state at {jax.tree_util.keystr(path)} is packed, and they have no "
        "leaf there. Pass `update` the gradients of the same parameters."
    )
