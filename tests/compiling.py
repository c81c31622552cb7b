"""`jax.jit` where what XLA makes of a program is not the question, only its values.

Most of a test's time went into compiling: several times more for the code that a
training loop deserves than for code that runs eight steps once. Not for what is about
bits, memory, donation, time or the compiled text: that needs the programs of users.
"""

import contextlib
import functools

import jax
from jax import jit as compile_as_for_users
from jax._src import compiler
from jax._src.interpreters import mlir

# JAX asks here for every program; there is no public way.
options_for_users = compiler.get_compile_options

CHEAPLY = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}


@functools.cache
def known():
    """Those that this version of XLA has."""

    def is_known(name):
        try:
            compile_as_for_users(abs, compiler_options={name: CHEAPLY[name]})(0)
        except RuntimeError as error:
            if "No such compile option" in str(error):
                return False
            raise
        return True

    return {name: value for name, value in CHEAPLY.items() if is_known(name)}


def jit(function, **options):
    """`jax.jit`, compiled cheaply."""
    return compile_as_for_users(function, compiler_options=known(), **options)


def options(*arguments, env_options_overrides=None, **others):
    """Those of `options_for_users`, made cheap: single operations have them too.

    And what asks for others.
    """
    cheaply = {**(env_options_overrides or {}), **known()}
    return options_for_users(*arguments, env_options_overrides=cheaply, **others)


@contextlib.contextmanager
def in_one_context():
    """Lower every program in one MLIR context.

    JAX makes one for each: a third of the time in which a small program is lowered. One
    that is lowered while another is has its own.
    """
    make, context = mlir.make_ir_context, mlir.make_ir_context()
    mlir.make_ir_context = lambda: make() if mlir.ir.Context.current else context
    try:
        yield
    finally:
        mlir.make_ir_context = make


def flags():
    """The same for a process that is started, as `XLA_FLAGS` has it."""
    return " ".join(f"--{name}={value}".lower() for name, value in known().items())


@contextlib.contextmanager
def compiled_programs():
    """The names of what XLA compiles meanwhile."""

    def listen(event, _seconds, **about):
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(about.get("fun_name", ""))

    names = []
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield names
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
