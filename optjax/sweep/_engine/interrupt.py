"""Ctrl-C and SIGTERM in a sweep: heard at any moment, obeyed between two steps.

An exception must not leave JAX in the middle of something. Where Ctrl-C raises while
the main thread waits for a compilation, XLA goes on compiling in threads of its own,
and the interpreter that then ends takes from them what they work on: a segmentation
fault. So what takes long in XLA runs in threads of Python, which the interpreter waits
for, and the main thread waits for these in a way that a signal ends.
"""

import contextlib
import ctypes
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import jax

from optjax import _signals as signals
from optjax._signals import SIGNALS, Stopped

T = TypeVar("T")

# One compiles while the other runs.
_THREADS = 2
# JAX's settings that a `with` of the caller's may have changed in its thread alone, and
# that change what a program computes.
_SETTINGS = (
    "debug_infs",
    "debug_nans",
    "default_device",
    "default_matmul_precision",
    "default_prng_impl",
    "enable_x64",
    "numpy_dtype_promotion",
    "numpy_rank_promotion",
    "threefry_partitionable",
)
# At least the size of C's `struct sigaction`.
_ACTION_BYTES = 1024


class Stop:
    """Listens for both signals while it is entered, in the main thread.

    A handler of the caller's own stays, as does a signal that is ignored.

    Attributes:
      signal: the number of the first signal, or 0.
      agreed: the one that all processes know of, or 0; set by `together`.
    """

    def __init__(self) -> None:
        """Hear nothing yet."""
        self.signal = 0
        self.agreed = 0
        self._at_once = False
        self._woken: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="sweep")
        self._before: dict[int, Any] = {}
        self._actions: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
        """Take the signals that nobody else has taken."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                handler = signal.getsignal(number)
                if handler in (
                    signal.default_int_handler,
                    signal.SIG_DFL,
                    signals.stop,
                ):
                    self._before[number] = handler
                    self._actions[number] = _action(number)
            self.take()
        signals.in_hand.add(signal.SIGTERM)
        if jax.process_count() > 1:
            signals.in_hand.add(signal.SIGINT)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Give them back, and leave the threads to end by themselves.

        Raises:
          Stopped: if there was a signal that nobody has obeyed.
        """
        signals.in_hand.clear()
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._hear:
                signal.signal(number, handler)
                _set_action(number, self._actions[number])
        self._threads.shutdown(wait=False, cancel_futures=True)
        if kind is None:
            self.check()

    def take(self) -> None:
        """Take the signals again, where a library has taken them since."""
        for number in self._before:
            signal.signal(number, self._hear)

    def submit(self, do: Callable[..., T], *args: Any) -> "Future[T]":
        """Begin something long in another thread, under the settings of this one."""
        future = self._threads.submit(_under, _settings(), do, *args)
        future.add_done_callback(lambda _: self._woken.put(None))
        return future

    def wait(self, future: "Future[T]", *, patient: bool = False) -> T:
        """The result of something submitted.

        Args:
          future: of `submit`.
          patient: whether SIGTERM waits for it.

        Raises:
          Stopped: at a signal; the other thread goes on with what it does.
        """
        while not future.done():
            if not (patient and self.signal == signal.SIGTERM):
                self.check()
            self._woken.get()
        return future.result()

    def check(self) -> None:
        """Obey a signal, where there are no other processes to agree with.

        Raises:
          Stopped: if there was one.
        """
        if jax.process_count() == 1 and self.signal:
            raise Stopped(self.signal)

    def obey(self) -> None:
        """Obey a signal that all processes know of.

        Raises:
          Stopped: if there was one.
        """
        if self.agreed:
            raise Stopped(self.agreed, by_all=True)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Obey at any moment of the block, which must leave nothing half done."""
        self.check()
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False
        # An exception is lost where Python is called back from C.
        self.check()

    def _hear(self, number: int, frame: Any) -> None:
        self.signal = self.signal or number
        # Unlike most of `threading`, it may be called by a handler.
        self._woken.put(None)
        if self._at_once:
            raise Stopped(self.signal)


def _settings() -> dict[str, Any]:
    return {name: getattr(jax.config, f"jax_{name}") for name in _SETTINGS}


def _under(settings: dict[str, Any], do: Callable[..., T], *args: Any) -> T:
    with contextlib.ExitStack() as stack:
        for name, value in settings.items():
            if getattr(jax.config, f"jax_{name}") != value:
                stack.enter_context(getattr(jax, name)(value))
        return do(*args)


def _action(number: int) -> Any:
    """What the system does at a signal; Python only knows of what it has set itself."""
    if os.name != "posix":
        return None
    action = ctypes.create_string_buffer(_ACTION_BYTES)
    ctypes.CDLL(None).sigaction(number, None, action)
    return action


def _set_action(number: int, action: Any) -> None:
    """As where `jax.distributed` has a handler of its own for SIGTERM."""
    if action is not None:
        ctypes.CDLL(None).sigaction(number, action, None)
