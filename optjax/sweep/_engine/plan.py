"""What all programs of a sweep have in common."""

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass

import jax

from optjax.sweep._engine.processes import agree
from optjax.sweep._records import Mode
from optjax.sweep._stopping import Rungs, StoppingRule, decisions


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long trials are, what ranks them, and what they may take.

    Attributes:
      steps: updates in a whole trial.
      evaluate_every: updates between two evaluations; divides `steps`.
      metric: the one that ranks.
      mode: what is best of it.
      stopping: which trials end early, or None.
      allow_nan: metrics that may be NaN or infinite.
      lanes: most lanes at a time, or None for as many as are sensible.
      memory_limit: bytes that the lanes may take, or None for the usual share.
      devices: that the lanes are shared over.
      compiler_options: for XLA.
      order_seed: of the order in which trials start where a rule compares them.
    """

    steps: int
    evaluate_every: int
    metric: str
    mode: Mode
    devices: tuple[jax.Device, ...]
    stopping: StoppingRule | None = None
    allow_nan: tuple[str, ...] = ()
    lanes: int | None = None
    memory_limit: int | None = None
    compiler_options: Mapping[str, str | bool] | None = None
    order_seed: int = 0

    def __post_init__(self) -> None:
        # A rule that cannot decide within these steps is refused before anything runs.
        _ = self.decisions

    @property
    def evaluations(self) -> int:
        """How often a whole trial is evaluated."""
        return self.steps // self.evaluate_every

    @property
    def device_names(self) -> str:
        """How many devices, and of what kind."""
        return f"{len(self.devices)} × {self.devices[0].device_kind}"

    @functools.cached_property
    def limit(self) -> int:
        """Bytes that a program may take on all devices, the same in all processes."""
        # In MiB, since processes agree on small numbers.
        default = _default_memory(len(self.devices)) >> 20
        return self.memory_limit or agree(default) << 20

    def rungs(self) -> Rungs | None:
        """What the rule will have seen of trials that it compares; nothing yet."""
        return None if self.stopping is None else Rungs(self.stopping, self.decisions)

    @functools.cached_property
    def decisions(self) -> tuple[int, ...]:
        """The evaluations at which trials may be stopped, ascending."""
        if self.stopping is None:
            return ()
        return decisions(self.stopping, self.steps, self.evaluate_every)


def _default_memory(devices: int) -> int:
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"]) * devices // 2
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
    return 4 * 1024**3
