"""Sharded arrays: every shard is updated where it is, by a call of its own.

XLA knows nothing of what the compiled step does and would gather its operands first.
The step works element by element, so the arrays of one leaf are sharded alike, each
leaf in its own way, and only the coefficients, sixteen numbers, and the noise's key are
everywhere.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

__all__ = ["as_typed", "partitioned"]


def partitioned(call: Callable[..., Any]) -> Callable[..., Any]:
    """The same `call(coefficients, key, grads, leaves) -> leaves`, shard by shard.

    `leaves` is a tuple of lists, each in the order of the parameters, the first of
    them. Leading dimensions of the coefficients are those of every leaf.
    """
    # Here, so that importing optjax loads nothing that is not used.
    from jax.experimental.custom_partitioning import custom_partitioning

    wrapped = custom_partitioning(call)

    def partition(mesh: Any, operands: Any, results: Any) -> Any:
        shardings = [leaf.sharding for leaf in operands[3][0]]

        def alike(column: Any) -> Any:
            return None if column is None else shardings

        coefficients, _, _, leaves = operands
        batch = len(coefficients.shape) - 1
        rows = (*shardings[0].spec, *(None,) * batch)[:batch]
        everywhere = NamedSharding(shardings[0].mesh, PartitionSpec(*rows, None))
        updated = type(leaves)(*(alike(column) for column in leaves))
        return mesh, call, updated, (everywhere, everywhere, shardings, updated)

    wrapped.def_partition(
        partition=partition,
        infer_sharding_from_operands=lambda mesh, operands, results: jax.tree.map(
            lambda leaf: leaf.sharding, operands[3]
        ),
        sharding_rule=_rule,
    )
    return wrapped


def as_typed(call: Callable[..., Any], leaves: Any) -> Callable[..., Any]:
    """The same call, whose results have the shardings in the types of `leaves`.

    On a mesh with explicit axes a sharding is part of an array's type, and the
    partitioner chooses only within.
    """
    shardings = jax.tree.map(lambda leaf: jax.typeof(leaf).sharding, leaves)
    if not any(
        kind == AxisType.Explicit
        for sharding in jax.tree.leaves(shardings)
        for kind in sharding.mesh.axis_types
    ):
        return call
    typed: Callable[..., Any] = jax.sharding.auto_axes(call, out_sharding=shardings)
    return typed


def _rule(mesh: Any, operands: Any, results: Any) -> Any:
    """A factor for every dimension of every leaf, shared by the leaf's arrays."""
    from jax.experimental.custom_partitioning import ArrayMapping, SdyShardingRule

    del mesh
    batch = len(operands[0].shape) - 1
    rows = [f"row{k}" for k in range(batch)]
    # Operands are the coefficients, the key, the gradients and the columns that come
    # back.
    count = len(operands) - 2 - len(results)

    def array(index: int, rank: int) -> Any:
        leaf = index % count
        return ArrayMapping(*rows, *(f"leaf{leaf}_{k}" for k in range(batch, rank)))

    return SdyShardingRule(
        (
            ArrayMapping(*rows, "coefficient"),
            ArrayMapping(*rows, "word"),
            *(array(i, len(x.shape)) for i, x in enumerate(operands[2:])),
        ),
        tuple(array(i, len(x.shape)) for i, x in enumerate(results)),
        need_replication_factors=("coefficient", "word"),
    )
