"""The compiled step: where its shared library is, and whether it can be used.

`hatch_build.py` compiles `step.cc` into `libstep.so` beside it when the package is
installed. Without a compiler there is no library, and every optimizer runs as before.
"""

import ctypes
import functools
import os
import re
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
      >>> import os, optjax
      >>> os.environ["OPTJAX_FUSED"] = "0"
      >>> optjax.fused_step_available()
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
        library = ctypes.cdll.LoadLibrary(str(_LIBRARY))
        built, ours = _version_built(library), _version_installed()
        if built[0] != ours[0] or built > ours:
            # XLA would not refuse the library here, but to start at all.
            raise RuntimeError(f"it is built for FFI {built} and JAX has {ours}")
        jax.ffi.register_ffi_target(
            TARGET, jax.ffi.pycapsule(library.OptjaxStep), platform="cpu"
        )
    except Exception as error:
        warnings.warn(
            f"optjax runs without its compiled step, since {_LIBRARY} cannot be used: "
            f"{error}. Reinstall optjax with this JAX installed to compile it again, "
            "or set OPTJAX_FUSED=0.",
            stacklevel=3,
        )
        return False
    return True


def _version_built(library: ctypes.CDLL) -> tuple[int, int]:
    major, minor = (ctypes.c_int32 * 2).in_dll(library, "OptjaxFfiVersion")
    return major, minor


def _version_installed() -> tuple[int, int]:
    """The version of XLA's FFI in this JAX, which only its headers tell."""
    header = Path(jax.ffi.include_dir(), "xla", "ffi", "api", "c_api.h").read_text()
    major, minor = (
        int(re.findall(rf"#define XLA_FFI_API_{part} (\d+)", header)[0])
        for part in ("MAJOR", "MINOR")
    )
    return major, minor
