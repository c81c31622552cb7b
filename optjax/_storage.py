"""One run's state in another storage: float32, bfloat16, eight bits or packed."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optjax._arguments.checked import checked
from optjax._arguments.named import ArrayTree, OptimizerState, Transformation
from optjax._compression import CompressedState, decode_leaves, encode_leaves, kinds_of
from optjax._packing import PackedState, pack_like, unpack
from optjax._precision import store
from optjax._rounding import (
    StochasticRoundingState,
    round_leaves,
    step_key,
    widen_leaves,
)
from optjax._tree import pure

# Not a wrapper's own: its noise at the same count has stored the same state before.
_SEED = 2**32 - 1


@checked
def convert_state(
    state: OptimizerState, optimizer: Transformation, params: ArrayTree
) -> optax.OptState:
    r"""The state of the same optimizer as another wrapper of it stores it.

    Between `tx`, `stochastic_rounding(tx)`, `compressed(tx)` and `packed` around any of
    them, in every direction and wherever in a chain they are: what is stored is read
    back as float32, and stored again. To float32 nothing is lost but what had been
    already; to fewer bits the error is one storing's, whose expectation is 0.

    Args:
      state: a state of the optimizer in one storage.
      optimizer: the optimizer in the storage to change to.
      params: the parameters, or their shapes (`jax.ShapeDtypeStruct`).

    Returns:
      A state for `optimizer.update`. The count of the noise goes on in every wrapper of
      what was rounded or compressed before, and begins at 0 in the others. Of an
      `nnx.Optimizer`'s state it has the arrays.

    Raises:
      ValueError: where the state is that of another optimizer.

    Example: eight bits from here on.
      >>> import jax.numpy as jnp, optjax
      >>> x, adam = jnp.ones((64, 128)), optjax.adam(1e-3)
      >>> small = optjax.compressed(adam)
      >>> state = optjax.convert_state(adam.init(x), small, x)
      >>> updates, state = small.update(x, state, x)
    """
    shapes = jax.eval_shape(lambda x: x, pure(params))
    inner = optax.with_extra_args_support(optimizer)
    like = jax.eval_shape(inner.init, shapes)
    return _stored(_read(pure(state), shapes), like, shapes)


def demand_own_storage(state: Any) -> None:
    """That all of it is as its optimizer keeps it.

    Raises:
      ValueError: where some is rounded, compressed or packed.
    """
    if any(map(_is_wrapper, jax.tree.leaves(state, is_leaf=_is_wrapper))):
        raise ValueError(
            "the optimizer and its state must be in their own storage, got ones that "
            "are rounded, compressed or packed. Give the optimizer within, whose state "
            "optjax.convert_state brings from and to another storage."
        )


def _is_wrapper(node: Any) -> bool:
    return isinstance(node, (StochasticRoundingState, CompressedState, PackedState))


def read_state(state: Any, params: Any) -> Any:
    """The state without wrappers, in float32."""
    return _arrays(_read(state, params))


class _Read(NamedTuple):
    """An array in float32, and how far the noise of what was around it has counted."""

    array: Any
    count: Any


def _is_read(node: Any) -> bool:
    return isinstance(node, _Read)


def _arrays(tree: Any) -> Any:
    return jax.tree.map(lambda read: read.array, tree, is_leaf=_is_read)


def _read(state: Any, params: Any, count: Any = 0) -> Any:
    """The state without wrappers, a `_Read` for each of its arrays."""

    def read(node: Any) -> Any:
        if isinstance(node, PackedState):
            return _read(unpack(node, params), params, count)
        if not _is_wrapper(node):
            return _Read(node, count)
        inner = (
            decode_leaves(node)
            if isinstance(node, CompressedState)
            else widen_leaves(node.inner_state, node.dtypes)
        )
        return _read(inner, params, jnp.maximum(count, node.count))

    return jax.tree.map(read, state, is_leaf=_is_wrapper)


def _stored(wide: Any, like: Any, params: Any) -> Any:
    """What was read in the storage of `like`, a state of shapes."""

    def leaf(new: Any, old: Any) -> Any:
        if not _is_read(new):
            raise ValueError(_another(old.shape, jax.tree.structure(_arrays(new))))
        if jnp.shape(new.array) != old.shape:
            raise ValueError(_another(old.shape, jnp.shape(new.array)))
        return store(jnp.asarray(new.array), old)

    def node(old: Any, new: Any) -> Any:
        if not _is_wrapper(old):
            return leaf(new, old)
        if isinstance(old, PackedState):
            inner = jax.eval_shape(lambda state: unpack(state, params), old)
            return pack_like(_stored(new, inner, params), old, params)
        counts = [read.count for read in jax.tree.leaves(new, is_leaf=_is_read)]
        count = functools.reduce(jnp.maximum, counts, jnp.zeros([], jnp.int32))
        key = step_key(_SEED, count)
        new = _arrays(new)
        _check_structure(new, old.inner_state)
        if isinstance(old, CompressedState):
            return CompressedState(count, *encode_leaves(new, kinds_of(old), key))
        dtypes = {name: jnp.zeros([], x.dtype) for name, x in old.dtypes.items()}
        return StochasticRoundingState(count, round_leaves(new, key), dtypes)

    nodes, treedef = jax.tree.flatten(like, is_leaf=_is_wrapper)
    structure: Any = treedef
    try:
        parts = structure.flatten_up_to(wide)
    except ValueError:
        raise ValueError(
            _another(jax.tree.structure(like), jax.tree.structure(_arrays(wide)))
        ) from None
    return structure.unflatten(list(map(node, nodes, parts)))


def _check_structure(new: Any, old: Any) -> None:
    structures: Any = [jax.tree.structure(tree) for tree in (old, new)]
    if structures[0] != structures[1]:
        raise ValueError(_another(*structures))


def _another(expected: Any, received: Any) -> str:
    return (
        "the state must be one of the same optimizer, in whatever storage: it has "
        f"{received} where {expected} is needed. Give the state and the wrapped "
        "optimizer of one run."
    )
