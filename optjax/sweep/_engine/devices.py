"""The devices that a sweep shares its lanes over."""

import os

import jax


def all_devices() -> tuple[jax.Device, ...]:
    """Those of this process, or of all processes of `jax.distributed`."""
    return tuple(jax.devices() if jax.process_count() > 1 else jax.local_devices())


def use_all_cores() -> bool:
    """Make JAX see one CPU device a core, for a sweep to share its lanes over.

    Must be called before anything else uses JAX in the process; the command line does
    so itself. The cores are those that the process may run on, as a cluster's
    scheduler says, and another number in JAX_NUM_CPU_DEVICES wins. On an accelerator it
    changes nothing that matters.

    Returns:
      Whether it was early enough.

    Example:
      >>> import optjax.sweep
      >>> was_early_enough = optjax.sweep.use_all_cores()
    """
    if "JAX_NUM_CPU_DEVICES" in os.environ:
        return True
    try:
        jax.config.update("jax_num_cpu_devices", _cores())
    except RuntimeError:
        return False
    return True


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
