"""What the benchmarks of steps share: rounds in turn, their spread, the machine."""

import math
import os
import platform
import statistics
import time
from importlib import metadata
from pathlib import Path

import jax

#: Between two ways in a round, for threads of the one before to stop spinning.
PAUSE = 0.02


def cores():
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def load():
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def machine(packages):
    """The processor or accelerator, its cores, and the versions that are installed."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    where = f"{model}, {cores()} cores"
    if jax.default_backend() != "cpu":
        where = f"{jax.devices()[0].device_kind}, with {where}"
    versions = [f"Python {platform.python_version()}"]
    for package in packages:
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return f"{where}; {', '.join(versions)}"


def say(line):
    print(line, flush=True)


def seconds(f, *args):
    began = time.perf_counter()
    f(*args)
    return time.perf_counter() - began


def calls_for(took, least, at_least_seconds=0.05):
    """How many calls of so many seconds are long enough to measure together."""
    return max(least, math.ceil(at_least_seconds / max(took, 1e-7)))


def turns(ways, rounds):
    """Every way once a round, each round from another one on, after a pause."""
    for number in range(rounds):
        start = number % len(ways)
        for way in [*ways[start:], *ways[:start]]:
            time.sleep(PAUSE)
            yield number, way


def ratios(times, other):
    """One way's time to another's in each round."""
    return [a / b for a, b in zip(times, other, strict=True)]


def spread(values, digits=3):
    """The median, the least and the most, to so many significant digits."""

    def text(value):
        whole = math.floor(math.log10(abs(value))) + 1 if value else 1
        return f"{value:,.{max(0, digits - whole)}f}"

    median = statistics.median(values)
    return f"{text(median)} ({text(min(values))}–{text(max(values))})"
