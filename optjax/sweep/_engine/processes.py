"""Agreement between the processes of `jax.distributed`; nothing to do in one alone."""

import contextlib
from collections.abc import Iterator

import jax
import numpy as np

from optjax.sweep._engine.interrupt import Stop
from optjax.sweep._errors import SweepError, one_line

# Every process's message must have the same shape.
_MESSAGE_BYTES = 512


def agree(value: int) -> int:
    """The first process's value, below 2^31, in every process."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.array(value, np.int32)))


def agreed_seconds(seconds: float) -> float:
    """The first process's time in all, since all have to run the same programs."""
    if jax.process_count() == 1:
        return seconds
    return agree(min(int(seconds * 1e6), 2**31 - 1)) / 1e6


@contextlib.contextmanager
def together(stop: Stop | None = None) -> Iterator[None]:
    """Run the block in every process, and go on in all of them or in none.

    The others would wait for one that has failed until JAX's heartbeat timeout.

    Args:
      stop: to agree on too: a signal that one process had at the end of the block is
        one for all.

    Raises:
      Exception: where the block raised it in this process.
      SweepError: where it raised in another, with that one's message.
    """
    if jax.process_count() == 1:
        yield
        if stop is not None:
            stop.agreed = stop.signal
        return
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
    signal = 0 if stop is None else stop.signal
    message = "" if failure is None else one_line(failure)
    signals, messages = _gather(signal, message)
    if stop is not None:
        stop.agreed = max(signals)
    if failure is not None:
        raise failure
    for number, message in enumerate(messages):
        if message:
            raise SweepError(f"process {number} has failed: {message}")


def _gather(signal: int, message: str) -> tuple[list[int], list[str]]:
    from jax.experimental import multihost_utils

    mine = np.zeros(1 + _MESSAGE_BYTES, np.uint8)
    encoded = message.encode()[:_MESSAGE_BYTES]
    mine[0] = signal
    mine[1 : 1 + len(encoded)] = np.frombuffer(encoded, np.uint8)
    everyones = np.asarray(multihost_utils.process_allgather(mine))
    return everyones[:, 0].tolist(), [
        # The last character may have been cut in two.
        row[1:].tobytes().rstrip(b"\0").decode(errors="ignore")
        for row in everyones
    ]
