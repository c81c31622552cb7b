"""Processes that tests start: one of its own, or two of `jax.distributed`."""

import contextlib
import json
import os
import socket
import subprocess
import sys

import ready

#: JAX's C++ says what it says to the children of a process that has imported JAX. They
#: find the tests' modules.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TF_CPP_MIN_LOG_LEVEL": "1",
    "PYTHONPATH": os.pathsep.join(
        filter(None, [os.path.dirname(__file__), os.environ.get("PYTHONPATH")])
    ),
}


def run_program(text, environment=(), **options):
    """Python with a program of its own, on the CPU, waited for."""
    return subprocess.run(
        [*ready.python(), "-c", text],
        env={**os.environ, "JAX_PLATFORMS": "cpu", **dict(environment)},
        capture_output=True,
        text=True,
        timeout=600,
        **options,
    )


EACH = """
import json
import sys
import traceback

failures = {}
for name, program in json.load(sys.stdin).items():
    try:
        exec(program, dict(globals()))
    except Exception:
        failures[name] = traceback.format_exc()
print(json.dumps(failures))
"""


def failures_of(programs, prelude, **options):
    """What each of the programs raised that did, by name: all in one process.

    Each has the names of the prelude, whose functions are compiled once for all.
    """
    ran = run_program(prelude + EACH, input=json.dumps(programs), **options)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


@contextlib.contextmanager
def pair(arguments, fresh=None, stdout=subprocess.DEVNULL, **options):
    """Python with `arguments(port, rank)` for the ranks 0 and 1; dead at the end.

    That of the rank `fresh` begins anew. The command line finds the other by JAX's
    variables.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        subprocess.Popen(
            [
                *([sys.executable] if rank == fresh else ready.python()),
                *map(str, arguments(port, rank)),
            ],
            env={
                **os.environ,
                **ENVIRONMENT,
                "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
                "JAX_NUM_PROCESSES": "2",
                "JAX_PROCESS_ID": str(rank),
            },
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        for rank in range(2)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            # JAX catches SIGTERM.
            process.kill()
            process.communicate()
