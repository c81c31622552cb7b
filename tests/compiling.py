"""`jax.jit` where what XLA makes of a program is not the question, only its values.

Most of a test's time went into compiling: several times more for the code that a
training loop deserves than for code that runs eight steps once. Not for what is about
bits, memory, donation, time or the compiled text: that needs the programs of users.
"""

import functools

import jax

CHEAPLY = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}

jit = functools.partial(jax.jit, compiler_options=CHEAPLY)
