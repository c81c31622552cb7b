"""The compiled step: where its shared library is, and whether it can be used.

`hatch_build.py` compiles `step.cc` into `libstep.so` beside it when the package is
installed. Without a compiler there is no library, and every optimizer runs as before.
"""

import ctypes
import functools
import os
import warnings
from pathlib import Path

import jax

__all__ = ["TARGET", "fused_step_available"]

#: The name under which XLA knows the compiled function.
TARGET = "optjax_step"

_LIBRARY = Path(__file__).with_name("libstep.so")


def fused_step_available() -> bool:
    """Whether the compiled step for the CPU is there and not turned off.

    It is compiled when optjax is installed where there is a C++ compiler. Set the
    environment variable `OPTJAX_FUSED=0` to do without it.

    Example:
      >>> import os
      >>> os.environ["OPTJAX_FUSED"] = "0"
      >>> fused_step_available()
      False
      >>> del os.environ["OPTJAX_FUSED"]
    """
    return os.environ.get("OPTJAX_FUSED", "1") != "0" and _register()


@functools.cache
def _register() -> bool:
    """Load the library and make it known to XLA, once a process."""
    if not _LIBRARY.exists():
        return False
    try:
        handler = ctypes.cdll.LoadLibrary(str(_LIBRARY)).OptjaxStep
        jax.ffi.register_ffi_target(
            TARGET, jax.ffi.pycapsule(handler), platform="cpu", api_version=1
        )
    except Exception as error:
        # Built for another machine, or against another JAX: slower, but no less right.
        warnings.warn(
            f"optjax runs without its compiled step, since {_LIBRARY} cannot be used: "
            f"{error}. Reinstall optjax to compile it again, or set OPTJAX_FUSED=0.",
            stacklevel=3,
        )
        return False
    return True
