"""The other processes of `jax.distributed`: to join them, to leave them, to lose one.

JAX ends a process whose peer is gone with a page of C++, through `abort`, or by an
error of the collective that it was in. On the command line both become one line and an
exit status. There the C++ has to be silenced before JAX is imported, by
`optjax._signals.prepare`.
"""

import contextlib
import ctypes
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax

from optjax._signals import LOST, SIGNALS, in_hand
from optjax.sweep._errors import SweepError, one_line

# JAX's own 100 seconds before a silent process counts as dead, and 300 in which all
# must end together, keep the others of a job waiting for nothing.
_HEARTBEAT_SECONDS = 30
_SHUTDOWN_SECONDS = 30

# How long each of the others may take to notice a loss too.
_NOTICE_SECONDS = 3.0
# Of the words of an error, one in every collective that has lost its other end.
_WORDS = ("gloo", "nccl", "connection", "socket", "unavailable", "heartbeat")

# Held, once taken, by the thread that ends this process and says why: the main one or,
# where JAX aborts, one of JAX's. The other waits for that, but not for ever.
_last_word = threading.RLock()


class LostProcessError(SweepError):
    """Another process has died or cannot be reached."""

    def __init__(self, which: str) -> None:
        """Say which."""
        super().__init__(
            f"{which} is gone; what was measured until the last checkpoint is kept, "
            "and the same command in every process goes on"
        )


def join(address: str | None, count: int | None, mine: int | None) -> None:
    """Join the others, for the rest of this process, a command line's.

    Raises:
      RuntimeError, ValueError: where they cannot be joined.
    """
    # JAX's handler of SIGTERM, which only takes notice, would replace ours.
    jax.config.update("jax_enable_preemption_service", False)
    # More than one CPU device a process can hang in collectives.
    jax.config.update("jax_num_cpu_devices", 1)
    jax.distributed.initialize(
        address,
        count,
        mine,
        heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
        shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
    )
    if os.name == "posix":
        ctypes.CDLL(None).signal(signal.SIGABRT, _aborted)


def leave() -> None:
    """Part from the others, all of which must do so too."""
    if jax.process_count() > 1:
        # The others may be some seconds behind.
        in_hand.update(SIGNALS)
        _last_word.acquire(timeout=2 * _NOTICE_SECONDS)
        jax.distributed.shutdown()


@contextlib.contextmanager
def losses_named() -> Iterator[None]:
    """Make one error of those that a lost process causes in the others.

    Raises:
      LostProcessError: where the block raises such a one.
    """
    try:
        yield
    except (RuntimeError, ValueError) as error:
        words = one_line(error).lower()
        is_ours = jax.process_count() == 1 or isinstance(error, SweepError)
        if is_ours or not any(word in words for word in _WORDS):
            raise
        _last_word.acquire(timeout=2 * _NOTICE_SECONDS)
        raise LostProcessError(_missing()) from error


def _missing() -> str:
    """Which processes are gone: those that do not say in time that they are there."""
    others = set(range(jax.process_count())) - {jax.process_index()}
    missing = others
    # With two it can only be the other one.
    if len(others) > 1:
        client = _state().client
        until = time.monotonic() + _NOTICE_SECONDS
        try:
            client.key_value_set(f"optjax/here/{jax.process_index()}", "")
            while missing and time.monotonic() < until:
                time.sleep(0.1)
                here = client.key_value_dir_get("optjax/here")
                missing = others - {int(key.rsplit("/")[-1]) for key, _ in here}
        except RuntimeError:
            # The first process keeps the keys.
            missing = {0}
    if not missing:
        return "the connection to another process"
    *most, last = map(str, sorted(missing))
    return f"processes {', '.join(most)} and {last}" if most else f"process {last}"


def _end_in_one_line(number: int) -> None:
    """End this process, which JAX is aborting, in one line."""
    _last_word.acquire(timeout=2 * _NOTICE_SECONDS)
    line = (
        "JAX has aborted this process, as where another one is silent "
        "(TF_CPP_MIN_LOG_LEVEL=0 shows why); the same command in every process goes on"
    )
    if _state().process_id > 0 and _is_first_gone():
        line = str(LostProcessError("process 0"))
    os.write(2, f"optjax: {line}\n".encode())
    os._exit(LOST)


# Kept, as what C calls must be for as long as it may.
_aborted = ctypes.CFUNCTYPE(None, ctypes.c_int)(_end_in_one_line)


def _is_first_gone() -> bool:
    """Whether the process that all others are connected to listens no more."""
    host, _, port = (_state().coordinator_address or "").rpartition(":")
    # Of one that is killed connections may end before it stops listening.
    until = time.monotonic() + _NOTICE_SECONDS
    while time.monotonic() < until:
        try:
            address = host.strip("[]"), int(port)
            socket.create_connection(address, timeout=_NOTICE_SECONDS).close()
        except (OSError, ValueError):
            return True
        time.sleep(0.1)
    return False


def _state() -> Any:
    # Not public: the keys that processes share, and the address that all have.
    from jax._src import distributed

    return distributed.global_state
