"""`optjax sweep` in a process of its own, which is sent a signal at a chosen moment.

    python signal_worker.py MOMENT SIGNAL ARGUMENTS...

The moments are below. At `compiling` the process only prints its number, and whoever
started it sends the signal; at the others it sends the signal to itself.
"""

import atexit
import contextlib
import ctypes
import gc
import os
import signal
import sys
import time

import jax
import jax.numpy as jnp
from drawn import numbers

from optjax import _signals
from optjax._cli import main as cli
from optjax._cli import sweep as command
from optjax.sweep._engine import groups
from optjax.sweep._engine.session import Session
from optjax.sweep._result import SweepResult
from optjax.sweep._store.store import Store

sent = []
number = signal.SIGINT


def send(times=1):
    sent.append(None)
    for _ in range(times):
        os.kill(os.getpid(), number)


def before(owner, name, do, at=1):
    """Call `do` before the `at`-th call of a function."""
    function, calls = getattr(owner, name), []

    def doing(*args, **kwargs):
        calls.append(None)
        if len(calls) == at:
            do()
        return function(*args, **kwargs)

    setattr(owner, name, doing)


def in_a_collection():
    """Send it where an exception is dropped."""

    def callback(phase, info):
        if not sent:
            send()

    gc.callbacks.append(callback)
    gc.collect()


def in_c():
    """Send it where an exception is printed, and then dropped."""
    ctypes.pythonapi.PyRun_SimpleString(b"send()")


def twice():
    send(times=2)
    wait_for_ever()


def wait_for_ever():
    while True:
        with contextlib.suppress(KeyboardInterrupt):
            time.sleep(1)


def deaf():
    send()
    wait_for_ever()


def when_running(owner, do, at):
    """Before a call of the program, in the thread that it runs in."""
    compile_lanes = owner.compile_lanes

    def compiling(*args, **kwargs):
        program = compile_lanes(*args, **kwargs)
        calls = []

        def advance(*args):
            calls.append(None)
            if len(calls) == at:
                do()
            return program.advance(*args)

        return program._replace(advance=advance)

    owner.compile_lanes = compiling


def compiling():
    """Nothing may have been compiled before, and that must take long."""
    jax.config.update("jax_enable_compilation_cache", False)
    before(jax.stages.Lowered, "compile", lambda: print(os.getpid(), flush=True))


MOMENTS = {
    "never": lambda: None,
    "tracing": lambda: before(groups, "trace", send),
    "collecting": lambda: before(groups, "trace", in_a_collection),
    "printing": lambda: before(groups, "trace", in_c),
    "compiling": compiling,
    "running": lambda: when_running(groups, send, at=3),
    "appending": lambda: before(Store, "append", send, at=3),
    "saving": lambda: before(Store, "save_states", send),
    "saving-twice": lambda: before(Store, "save_states", twice),
    "deaf": lambda: before(command, "load_task", deaf),
    "between": lambda: before(Session, "tell", send),
    "ending": lambda: atexit.register(send),
    "drawing": lambda: before(SweepResult, "plot_curves", send),
}


def init(key, optimizer):
    x = numbers(key, 3)
    return x, optimizer.init(x)


def step(state, optimizer):
    x, opt_state = state
    loss, gradient = jax.value_and_grad(lambda x: jnp.sum(x**2))(x)
    updates, opt_state = optimizer.update(gradient, opt_state, x)
    return (x + updates, opt_state), {"loss": loss}


def slow_to_compile(state, optimizer):
    x, opt_state = state
    y = x[:, None] * x
    for i in range(100):
        y = jnp.sin(y @ y) * i
    return (x + 0.0 * y[0], opt_state), {"loss": jnp.sum(x**2)}


trial = (init, step)
slow = (init, slow_to_compile)

if __name__ == "__main__":
    # Where the tests run in the background SIGINT is ignored, and inherited so.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    number = getattr(signal, sys.argv[2])
    if sys.argv[1] != "deaf":
        # What ends by itself does so late where the machine is busy.
        _signals._SECONDS = 60.0
    MOMENTS[sys.argv[1]]()
    sys.argv[1:] = sys.argv[3:]
    cli.command()
