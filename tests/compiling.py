"""`jax.jit` where what XLA makes of a program is not the question, only its values.

Most of a test's time went into compiling: several times more for the code that a
training loop deserves than for code that runs eight steps once. Not for what is about
bits, memory, donation, time or the compiled text: that needs the programs of users.
"""

import functools

# By its own name: an audit's tests put `jit` below in the place of `jax.jit`.
from jax import jit as compile_as_for_users

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


def jit(*function, compiler_options=None, **options):
    """`jax.jit`, compiled cheaply."""
    cheaply = {**known(), **(compiler_options or {})}
    return compile_as_for_users(*function, compiler_options=cheaply, **options)


def flags():
    """The same for a process that is started, as `XLA_FLAGS` has it."""
    return " ".join(f"--{name}={value}".lower() for name, value in known().items())
