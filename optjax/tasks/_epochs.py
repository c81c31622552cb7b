"""Epochs: every example once, in an order drawn anew for each, on the device."""

import jax
import jax.numpy as jnp

__all__ = ["batches_an_epoch", "next_batch"]


def batches_an_epoch(examples: int, batch_size: int) -> int:
    """How many whole batches there are; what is left over waits for another order.

    Raises:
        ValueError: where there is not even one.
    """
    if not 1 <= batch_size <= examples:
        raise ValueError(
            f"a batch must have from 1 to {examples} examples, as many as there are "
            f"for training, got batch_size={batch_size}; choose a smaller batch or "
            "more data"
        )
    return examples // batch_size


def next_batch(
    key: jax.Array, order: jax.Array, updates_done: jax.Array, batch_size: int
) -> tuple[jax.Array, jax.Array]:
    """Return (order, examples): the epoch's permutation, and the next batch of it.

    Args:
        key: fixed for a run; the epoch's permutation is drawn from it and the epoch.
        order: what the call before returned, an array of as many indices as there are
            examples; not read at the start of an epoch.
        updates_done: how many batches the run has had.
        batch_size: how many indices to return.
    """
    size = order.size
    epoch, batch = jnp.divmod(updates_done, batches_an_epoch(size, batch_size))
    order = jax.lax.cond(
        batch == 0,
        lambda: jax.random.permutation(jax.random.fold_in(key, epoch), size),
        lambda: order,
    )
    start = batch * batch_size
    return order, jax.lax.dynamic_slice_in_dim(order, start, batch_size)
