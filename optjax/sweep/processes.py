"""Agreement between the processes of `jax.distributed`; nothing to do in one alone."""

import jax
import numpy as np

__all__ = ["agree", "barrier"]


def agree(value: int) -> int:
    """The first process's value, below 2^31, in every process."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.array(value, np.int32)))


def barrier(name: str) -> None:
    """Wait until every process is here."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(f"optjax-sweep-{name}")
