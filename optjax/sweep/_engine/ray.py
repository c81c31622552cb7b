"""A sweep on a Ray cluster: one task a chunk of trials, each one compiled program."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from optjax.sweep._engine.chunks import Chunk, read_chunk, run_chunk, write_chunk
from optjax.sweep._engine.groups import Settings
from optjax.sweep._engine.interrupt import Stop
from optjax.sweep._problem import SweepError
from optjax.sweep._records import Record
from optjax.sweep._trial import Factory, MakeTrial

__all__ = ["run_on_ray"]

# A lost node's tasks start again elsewhere; this many losses of one chunk is a fault.
_RETRIES = 5
# How long a signal may wait while no chunk ends.
_SECONDS = 0.5


def run_on_ray(
    make_trial: MakeTrial,
    factories: Mapping[str, Factory],
    chunks: Sequence[Chunk],
    settings: Settings,
    strategy: str,
    directory: Path,
    on_records: Callable[[Chunk, list[Record]], None],
    stop: Stop,
) -> bool:
    """Run the chunks that `directory` does not have yet, and write each as it ends.

    Ray is connected to as the process is set up for it (`ray.init()`, the environment
    variable RAY_ADDRESS), and started on this machine where it is not. A task takes
    one CPU, and JAX there sees one device.

    Args:
      make_trial: sent to the workers by value, with the data that it holds.
      factories: optimizers by name.
      chunks: the whole sweep.
      settings: whose devices are not sent; each worker has its own.
      strategy: of the lanes inside a task.
      directory: where chunks are written.
      on_records: called with each chunk's records, those found first.
      stop: obeyed between chunks, and while none is ready.

    Returns:
      Whether any was left to run.

    Raises:
      SweepError: where Ray is not installed, or a chunk fails.
    """
    try:
        import ray
    except ModuleNotFoundError:
        raise SweepError(
            "the ray engine needs Ray; run: pip install 'optjax[ray]'"
        ) from None
    missing = []
    for chunk in chunks:
        records = read_chunk(directory, chunk)
        if records is None:
            missing.append(chunk)
        else:
            on_records(chunk, records)
    if not missing:
        return False
    started_here = not ray.is_initialized()
    if started_here:
        ray.init(log_to_driver=False, include_dashboard=False)
        stop.take()
    try:
        _run(
            ray,
            (make_trial, dict(factories), settings._replace(devices=()), strategy),
            missing,
            directory,
            on_records,
            stop,
        )
    finally:
        if started_here:
            ray.shutdown()
    return True


def _run(
    ray: Any,
    common: tuple[Any, ...],
    chunks: Sequence[Chunk],
    directory: Path,
    on_records: Callable[[Chunk, list[Record]], None],
    stop: Stop,
) -> None:
    task = ray.remote(max_retries=_RETRIES, num_cpus=1)(_task)
    shared = ray.put(common)
    running = {task.remote(shared, chunk): chunk for chunk in chunks}
    try:
        while running:
            stop.check()
            some, _ = ray.wait(list(running), num_returns=1, timeout=_SECONDS)
            if not some:
                continue
            (ready,) = some
            chunk = running.pop(ready)
            records = _get(ray, ready, chunk)
            write_chunk(directory, chunk, records)
            on_records(chunk, records)
    finally:
        # None is left where all went well; a cluster goes on after an error.
        for other in running:
            ray.cancel(other)


def _get(ray: Any, ready: Any, chunk: Chunk) -> list[Record]:
    try:
        return ray.get(ready)
    except ray.exceptions.RayError as error:
        first_line = str(error).strip().splitlines()[-1]
        raise SweepError(
            f"chunk {chunk.number} (trials {chunk.specs[0].number} to "
            f"{chunk.specs[-1].number}) failed on Ray: {first_line}. The chunks "
            "that ended are kept; the same command goes on"
        ) from error


def _task(common: tuple[Any, ...], chunk: Chunk) -> list[Record]:
    import jax

    make_trial, factories, settings, strategy = common
    settings = settings._replace(devices=(jax.local_devices()[0],))
    return run_chunk(make_trial, factories, chunk, settings, strategy)
