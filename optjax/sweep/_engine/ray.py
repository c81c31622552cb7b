"""A sweep on a Ray cluster: one task a piece of trials, each one compiled program."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from optjax.sweep._engine.interrupt import Stop
from optjax.sweep._engine.pieces import Piece, read_piece, run_piece, split, write_piece
from optjax.sweep._engine.session import Session
from optjax.sweep._errors import SweepError, library
from optjax.sweep._records import FAILED, Failure, Measured, Record
from optjax.sweep._store.checkpoint import Checkpoint
from optjax.sweep._strategies import Strategy, StrategyName
from optjax.sweep._trial import Factory, MakeTrial

# A piece of a cluster's work: long enough to pay for its compilation, short enough to
# lose.
_PIECE_TRIALS = 64
# A lost node's tasks start again elsewhere; this many losses of one piece is a fault.
_RETRIES = 5
# How long a signal may wait while no piece ends.
_SECONDS = 0.5


def run_on_ray(
    session: Session,
    strategy: Literal["auto"] | StrategyName | Strategy,
    make_trial: MakeTrial,
    factories: Mapping[str, Factory],
) -> bool:
    """Run the pieces that the directory does not have, and write each as it ends.

    Ray is connected to as the process is set up for it (`ray.init()`, the environment
    variable RAY_ADDRESS), and started on this machine where it is not. A task takes
    one CPU, and JAX there sees one device.

    Args:
      session: whose devices are not sent; each worker has its own.
      strategy: of the lanes inside a task.
      make_trial: sent to the workers by value, with the data that it holds.
      factories: optimizers by name.

    Returns:
      Whether every trial had ended before.

    Raises:
      SweepError: where Ray is not installed, or a piece fails.
      Stopped: at a signal, between pieces.
    """
    if isinstance(strategy, str) and strategy == "auto":
        # The workers' devices are not this process's: nothing is timed here.
        strategy = "map"
    size = session.plan.lanes or _PIECE_TRIALS
    pieces = split([group.specs for group in session.groups], size)
    # Opening cuts curves.csv: what does not count yet is written anew from the pieces.
    checkpoint = session.open_store(
        strategy=strategy,
        devices="ray",
        lanes=[size],
    )
    counted = {replayed.number for replayed in session.store.replay()}
    failures = dict(checkpoint.failures)
    ray = library("ray", "the ray engine needs Ray", "'optjax[ray]'")
    metrics, ledger = session.groups[0].metrics, session.ledger
    left = len(pieces)

    def on_records(piece: Piece, records: Sequence[Record]) -> None:
        nonlocal left
        left -= 1
        for record in records:
            number, steps = record.trial.number, record.curve.steps
            values = np.array([record.curve.values[name] for name in metrics])
            if number not in counted:
                session.store.append([Measured(record.trial, steps, values.T)])
            if record.status == FAILED:
                failures[number] = Failure(len(steps), record.message)
            ledger.count(record.steps)
            ledger.end(record)
        waiting = ledger.total - ledger.done
        name = piece.specs[0].config.optimizer
        session.report(ledger.status(name, min(waiting, left * size)))

    missing = []
    for piece in pieces:
        records = read_piece(session.store.own, piece)
        if records is None:
            missing.append(piece)
        else:
            on_records(piece, records)
    if not missing:
        if not checkpoint.finished:
            session.store.commit(Checkpoint(failures=failures))
        return True
    started_here = not ray.is_initialized()
    if started_here:
        ray.init(log_to_driver=False, include_dashboard=False)
        session.stop.take()
    used = {piece.specs[0].config.optimizer for piece in pieces}
    sent = dataclasses.replace(session.plan, devices=(), lanes=size)
    try:
        _run(
            ray,
            (make_trial, {name: factories[name] for name in used}, sent, strategy),
            missing,
            session.store.own,
            on_records,
            session.stop,
        )
    finally:
        if started_here:
            ray.shutdown()
    session.store.commit(Checkpoint(failures=failures))
    return False


def _run(
    ray: Any,
    common: tuple[Any, ...],
    pieces: Sequence[Piece],
    directory: Path,
    on_records: Callable[[Piece, list[Record]], None],
    stop: Stop,
) -> None:
    task = ray.remote(max_retries=_RETRIES, num_cpus=1)(_task)
    shared = ray.put(common)
    running = {task.remote(shared, piece): piece for piece in pieces}
    try:
        while running:
            stop.check()
            some, _ = ray.wait(list(running), num_returns=1, timeout=_SECONDS)
            if not some:
                continue
            (ready,) = some
            piece = running.pop(ready)
            records = _get(ray, ready, piece)
            write_piece(directory, piece, records)
            on_records(piece, records)
    finally:
        # None is left where all went well; a cluster goes on after an error.
        for other in running:
            ray.cancel(other)


def _get(ray: Any, ready: Any, piece: Piece) -> list[Record]:
    try:
        records: list[Record] = ray.get(ready)
        return records
    except ray.exceptions.RayError as error:
        first_line = str(error).strip().splitlines()[-1]
        raise SweepError(
            f"piece {piece.number} (trials {piece.specs[0].number} to "
            f"{piece.specs[-1].number}) failed on Ray: {first_line}. The pieces "
            "that ended are kept; the same command goes on"
        ) from error


def _task(common: tuple[Any, ...], piece: Piece) -> list[Record]:
    import jax

    make_trial, factories, plan, strategy = common
    plan = dataclasses.replace(plan, devices=(jax.local_devices()[0],))
    return run_piece(make_trial, factories, piece, plan, strategy)
