"""Ctrl-C and SIGTERM on the command line: one line and a status, at any moment.

The handlers raise `Stopped` in the main thread. That is not enough: an exception that
is raised while Python calls back from C is dropped (JAX has such a callback in every
garbage collection), and no handler runs at all while the main thread is inside a long
call. So the process ends where one is dropped, and a second thread hears of every
signal too, and ends it where the main thread does not.
"""

import os
import select
import signal
import sys
import threading
import time
from typing import Any, NoReturn

#: What asks a process to end.
SIGNALS = (signal.SIGINT, signal.SIGTERM)

#: The exit status of a process that has lost another of a distributed sweep.
LOST = 3

# How long the main thread has to end by itself.
_SECONDS = 1.5

#: Signals that the main thread has taken in hand, however long that takes.
in_hand: set[int] = set()


class Stopped(KeyboardInterrupt):
    """A signal has asked the process to end.

    Attributes:
      signal: its number.
      by_all: whether all processes of `jax.distributed` stop at the same step.
    """

    def __init__(self, number: int, *, by_all: bool = False) -> None:
        """Keep the signal."""
        super().__init__(in_words(number))
        self.signal = number
        self.by_all = by_all


def in_words(number: int) -> str:
    """What a signal does to a process."""
    return "terminated" if number == signal.SIGTERM else "interrupted"


def number_of(stopped: KeyboardInterrupt) -> int:
    """The signal behind an exception."""
    return stopped.signal if isinstance(stopped, Stopped) else signal.SIGINT


def status(number: int) -> int:
    """The exit status of a process that a signal has ended, as shells have it."""
    return 128 + number


def stop(number: int, frame: Any) -> NoReturn:
    """Raise `Stopped`: a handler."""
    raise Stopped(number)


def prepare() -> None:
    """If this process is a command line, end it at a signal until it calls `take`."""
    if not _is_command_line():
        return
    _set_handlers(lambda number, frame: _end(number))
    # JAX's C++ says a page where another process is gone, unless it finds this when it
    # is imported. Children of JAX's processes inherit a 1; a 0 is someone's wish.
    wants_all = os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0"
    if "--distributed" in sys.argv and not wants_all:
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "5"


def take() -> None:
    """Take both signals for the rest of the process, in its main thread."""
    _set_handlers(stop)
    say, show = sys.unraisablehook, sys.excepthook

    def end_if_stopped(dropped: Any) -> None:
        if isinstance(dropped.exc_value, Stopped):
            _end(dropped.exc_value.signal)
        say(dropped)

    def end_without_traceback(kind: Any, value: Any, traceback: Any) -> None:
        # Cython prints what it is going to drop.
        if isinstance(value, Stopped):
            _end(value.signal)
        show(kind, value, traceback)

    sys.unraisablehook, sys.excepthook = end_if_stopped, end_without_traceback
    if os.name != "posix":
        return
    heard, says = os.pipe()
    os.set_blocking(says, False)
    signal.set_wakeup_fd(says, warn_on_full_buffer=False)
    # A child has the same pipe, and signals of its own.
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
    threading.Thread(target=_guard, args=(heard,), daemon=True).start()


def _is_command_line() -> bool:
    """Whether the first import is for `optjax` or for `python -m optjax`."""
    if sys.argv[:1] == ["-m"]:
        # So it is until Python has found the module, for which it imports the package.
        words = sys.orig_argv
        return "-m" in words and words[words.index("-m") + 1] == "optjax"
    script = getattr(sys.modules.get("__main__"), "__file__", None) or ""
    return os.path.basename(script) == "optjax"


def _set_handlers(handler: Any) -> None:
    for number in SIGNALS:
        # A process that was started to ignore one, as by nohup, goes on doing so.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _guard(heard: int) -> None:
    """End the process at the second signal, or some time after the first."""
    first = _hear(heard, None)
    until = time.monotonic() + _SECONDS
    while _hear(heard, 0.1) is None:
        if first in in_hand:
            until = time.monotonic() + _SECONDS
        elif time.monotonic() > until:
            break
    assert first is not None
    _end(first)


def _hear(heard: int, seconds: float | None) -> int | None:
    """The next of our signals, or None where there was none for so long."""
    while select.select([heard], [], [], seconds)[0]:
        number = os.read(heard, 1)[0]
        if number in SIGNALS:
            return number
    return None


def _end(number: int) -> NoReturn:
    # What a live display has hidden: the cursor.
    cursor = "\r\x1b[?25h" if os.isatty(2) else ""
    os.write(2, f"{cursor}optjax: {in_words(number)}\n".encode())
    os._exit(status(number))
