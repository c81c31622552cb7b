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

from optjax.fused._kernel import interface

__all__ = ["TARGET", "fused_step_available", "why_unavailable"]

#: The name under which XLA knows the compiled function.
TARGET = "optjax_step"

_LIBRARY = Path(__file__).with_name("libstep.so")

_SWITCH = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}


def fused_step_available() -> bool:
    """Whether the compiled step for the CPU is there and not turned off.

    It is compiled when optjax is installed where there is a C++ compiler. Set the
    environment variable `OPTJAX_FUSED` to 0, false, no or off to do without it.

    Raises:
      ValueError: for another value of `OPTJAX_FUSED`; 1, true, yes and on are those
        that leave it on.

    Example:
      >>> import os, optjax
      >>> os.environ["OPTJAX_FUSED"] = "0"
      >>> optjax.fused_step_available()
      False
      >>> del os.environ["OPTJAX_FUSED"]
    """
    return not why_unavailable()


def why_unavailable() -> str:
    """Why there is no compiled step, "" where there is one."""
    if not _is_wanted():
        return "OPTJAX_FUSED turns the compiled step off"
    if not _LIBRARY.exists():
        return "optjax was installed without a C++ compiler"
    error = _register()
    if error is None:
        return ""
    _say(str(error))
    return f"the library of the compiled step cannot be used: {error}"


def _is_wanted() -> bool:
    value = os.environ.get("OPTJAX_FUSED", "1")
    try:
        return _SWITCH[value.strip().lower()]
    except KeyError:
        raise ValueError(
            f"OPTJAX_FUSED must be 0, false, no or off, to do without the compiled "
            f"step, or 1, true, yes or on, to use it, got {value!r}."
        ) from None


@functools.cache
def _register() -> Exception | None:
    """Load the library and make it known to XLA, once a process, or say why not."""
    try:
        library = ctypes.cdll.LoadLibrary(str(_LIBRARY))
        built, ours = _version_built(library), _version_installed()
        if built[0] != ours[0] or built > ours:
            # XLA would not refuse the library here, but to start at all.
            raise RuntimeError(f"it is built for FFI {built} and JAX has {ours}")
        if _interface_of(library) != interface():
            raise RuntimeError("it is compiled from another version of optjax")
        jax.ffi.register_ffi_target(
            TARGET, jax.ffi.pycapsule(library.OptjaxStep), platform="cpu"
        )
    except Exception as error:
        return error
    return None


@functools.cache
def _say(reason: str) -> None:
    """Warn, once a process."""
    warnings.warn(
        f"optjax runs without its compiled step, since {_LIBRARY} cannot be used: "
        f"{reason}. Reinstall optjax with this JAX installed to compile it again, "
        "or set OPTJAX_FUSED=0.",
        stacklevel=4,
    )


def _register_early() -> None:
    """Make the step known when optjax is imported; what is wrong is said at its use.

    A program that was compiled and saved in another process calls it without asking.
    """
    value = os.environ.get("OPTJAX_FUSED", "1").strip().lower()
    if _SWITCH.get(value) and _LIBRARY.exists():
        _register()


def _interface_of(library: ctypes.CDLL) -> str | None:
    """What the library says of itself, None for one that says nothing."""
    try:
        text = ctypes.c_char.in_dll(library, "OptjaxStepInterface")
    except ValueError:  # No such symbol.
        return None
    return ctypes.string_at(ctypes.addressof(text)).decode()


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


_register_early()
