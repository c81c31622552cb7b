"""Python whose libraries are imported already, which is most of a short program's time.

    subprocess.run([*ready.python(), "program.py", ...])

does what it does with `sys.executable`. A server has imported them, and started no
device; for whoever comes it forks, and the fork has the caller's streams, directory and
environment and is the program. It ends as the program does, and with the caller.

Not for a program in which the start itself is in question: options of Python,
PYTHONHASHSEED (it is not the caller's), variables that JAX or its C++ read when they
are imported, `python -m`, and signals that its caller sends it, but SIGKILL.
"""

import atexit
import contextlib
import functools
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import types

#: What the programs of the tests import.
LIBRARIES = [
    "jax",
    "flax.nnx",
    "jinja2",
    "matplotlib.pyplot",
    "optax",
    "pandas",
    "pyarrow",
    "rich.progress",
    "scipy.stats",
    "sklearn.datasets",
    "optjax._cli.sweep",
]
LONGEST = 1 << 17  # bytes of the arguments and the environment


@functools.cache
def python():
    """The words to start it with."""
    if sys.platform != "linux":
        return [sys.executable]
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind("")  # any address that is free
        listener.listen()
        address = listener.getsockname()[1:].decode()
        server = subprocess.Popen(
            [sys.executable, __file__, "serve", str(listener.fileno())],
            pass_fds=[listener.fileno()],
            # It ends when nobody has the other end.
            stdin=subprocess.PIPE,
            # Another than the tests', even where theirs is not drawn.
            env={**os.environ, "PYTHONHASHSEED": "4242"},
        )
    atexit.register(server.communicate)
    return [sys.executable, "-IS", __file__, "ask", address]


def ask(address, *arguments):
    """Have the program run, and end as it does."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server.connect("\0" + address)
    program = json.dumps([arguments, os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [program], [0, 1, 2])
    status = int(server.recv(LONGEST))
    if status < 0:
        if -status != signal.SIGKILL:  # which nothing handles
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


def serve(listener):
    """Return in each fork with what its caller has sent."""
    for library in (*LIBRARIES, "compiling"):
        __import__(library)
    assert threading.active_count() == 1
    # What no collection looks at no fork copies.
    gc.collect()
    gc.freeze()
    # As in the tests themselves.
    gc.set_threshold(50_000, 20, 20)
    os.fsync = lambda file: None
    listener = socket.socket(fileno=int(listener))
    # Nobody here waits for the forks.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        if sys.stdin in select.select([sys.stdin, listener], [], [])[0]:
            os._exit(0)
        caller = listener.accept()[0]
        if os.fork() == 0:
            listener.close()
            return receive(caller)
        caller.close()


def receive(caller):
    """The arguments and the directory, in a process that is waited for."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    program, streams, _, _ = socket.recv_fds(caller, LONGEST, 3)
    if process := os.fork():
        for stream in streams:
            os.close(stream)
        threading.Thread(target=end_with, args=(caller, process), daemon=True).start()
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        with contextlib.suppress(BrokenPipeError):
            caller.send(str(status).encode())
        os._exit(0)
    caller.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    # What was opened for the server knows the server's streams.
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    arguments, directory, environment = json.loads(program)
    os.environ.clear()
    os.environ.update(environment)
    # The one of JAX's variables that tests set.
    sys.modules["jax"].config.update("jax_platforms", environment.get("JAX_PLATFORMS"))
    os.chdir(directory)
    return arguments


def end_with(caller, process):
    caller.recv(1)  # nothing, when it is gone
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def run(name, *arguments):
    """As Python does, but without taking everything apart at the end."""
    status = 0
    try:
        with sys.modules["compiling"].in_one_context():
            execute(name, *arguments)
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else bool(stop.code)
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
    except Exception:
        sys.excepthook(*sys.exc_info())
        status = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


def execute(name, *arguments):
    """As Python does, in the place of this module."""
    if name == "-c":
        text, *arguments = arguments
        folder = ""
    else:
        with open(name, encoding="utf-8") as file:
            text = file.read()
        folder = os.path.dirname(os.path.abspath(name))
    own = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:1] = [folder, *filter(None, own)]
    sys.argv = [name, *arguments]
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    main.__file__ = name
    exec(compile(text, name, "exec"), main.__dict__)


if __name__ == "__main__":
    role, *rest = sys.argv[1:]
    if role == "ask":
        ask(*rest)
    run(*serve(*rest))
