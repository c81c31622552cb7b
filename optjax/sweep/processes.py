"""Agreement between the processes of `jax.distributed`; nothing to do in one alone."""

import contextlib
from collections.abc import Iterator

import jax
import numpy as np

from optjax.sweep.problem import SweepError, one_line

__all__ = ["agree", "together"]

# Every process's message must have the same shape.
_MESSAGE_BYTES = 512


def agree(value: int) -> int:
    """The first process's value, below 2^31, in every process."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.array(value, np.int32)))


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Run the block in every process, and go on in all of them or in none.

    The others would wait for one that has failed until JAX's heartbeat timeout.

    Raises:
      Exception: where the block raised it in this process.
      SweepError: where it raised in another, with that one's message.
    """
    if jax.process_count() == 1:
        yield
        return
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
    messages = _gather("" if failure is None else _message(failure))
    if failure is not None:
        raise failure
    for number, message in enumerate(messages):
        if message:
            raise SweepError(f"process {number} has failed: {message}")


def _message(error: Exception) -> str:
    return str(error) if isinstance(error, SweepError) else one_line(error)


def _gather(message: str) -> list[str]:
    from jax.experimental import multihost_utils

    mine = np.zeros(_MESSAGE_BYTES, np.uint8)
    encoded = message.encode()[:_MESSAGE_BYTES]
    mine[: len(encoded)] = np.frombuffer(encoded, np.uint8)
    everyones = np.asarray(multihost_utils.process_allgather(mine))
    return [
        # The last character may have been cut in two.
        row.tobytes().rstrip(b"\0").decode(errors="ignore")
        for row in everyones
    ]
