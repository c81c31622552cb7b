"""The local engine: one group after the other, call after call, saved as it goes."""

import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Literal

import numpy as np

from optjax.sweep._engine.fastest import pick_strategy
from optjax.sweep._engine.groups import TrialGroup
from optjax.sweep._engine.lanes import Program
from optjax.sweep._engine.processes import agree, together
from optjax.sweep._engine.scheduler import Scheduler
from optjax.sweep._engine.session import Session
from optjax.sweep._store.store import Checkpoint
from optjax.sweep._strategies import STRATEGIES, Strategy, StrategyName

__all__ = ["run_here"]


def run_here(
    session: Session, strategy: Literal["auto"] | StrategyName | Strategy
) -> bool:
    """Run a session's trials in this process and those that it shares devices with.

    Returns:
      Whether every trial had ended before.

    Raises:
      SweepError: where the directory holds another sweep, or cannot be written.
      Stopped: at a signal.
    """
    ready: dict[int, Program] = {}
    if isinstance(strategy, str) and strategy == "auto":
        saved = (session.store.saved_identity() or {}).get("strategy")
        # Nothing is timed before another sweep is refused.
        if isinstance(saved, str) and saved in STRATEGIES:
            strategy = saved
        else:
            strategy, ready[0] = session.stop.wait(
                session.stop.submit(_agree_on_strategy, session)
            )
    assert strategy != "auto"
    checkpoint = session.open_store(
        strategy=strategy,
        devices=session.plan.device_names,
        lanes=[group.lanes for group in session.groups],
        evaluations_per_call=[g.evaluations_per_call for g in session.groups],
    )
    _Loop(session, strategy, ready).run(checkpoint)
    return checkpoint.groups == len(session.groups)


def _agree_on_strategy(session: Session) -> tuple[StrategyName, Program]:
    first, names = session.groups[0], list(STRATEGIES)
    strategy, program = pick_strategy(first, session.plan, session.ledger.total)
    agreed = names[agree(names.index(strategy))]
    if agreed == strategy:
        return strategy, program
    return agreed, first.compile(session.plan, agreed)


class _Loop:
    """The loop over groups and calls, and what it has to remember."""

    def __init__(
        self,
        session: Session,
        strategy: StrategyName | Strategy,
        ready: dict[int, Program],
    ) -> None:
        self._session = session
        self._plan, self._groups = session.plan, session.groups
        self._ledger, self._store = session.ledger, session.store
        self._stop = session.stop
        self._strategy = strategy
        self._ready = ready
        self._committed_at = time.monotonic()

    def run(self, checkpoint: Checkpoint) -> None:
        """Everything after the checkpoint."""
        replayed = self._replay(checkpoint)
        for group in self._groups[: checkpoint.groups]:
            self._session.tell(group)
        pending: dict[int, Future[Program]] = {}

        def compile_in_background(index: int) -> None:
            if index < len(self._groups) and index not in self._ready | pending:
                pending[index] = self._stop.submit(
                    self._groups[index].compile, self._plan, self._strategy
                )

        for index in range(checkpoint.groups, len(self._groups)):
            compile_in_background(index)
            program = self._ready.pop(index, None) or self._stop.wait(
                pending.pop(index)
            )
            # The next program compiles while this one runs.
            compile_in_background(index + 1)
            with together(self._stop):
                pass
            self._stop.obey()
            self._run_group(index, program, checkpoint, replayed)
            checkpoint, replayed = Checkpoint(groups=index + 1), None
        if not self._ledger.steps:
            self._report("", 0)

    def _run_group(
        self,
        index: int,
        program: Program,
        checkpoint: Checkpoint,
        scheduler: Scheduler | None,
    ) -> None:
        group = self._groups[index]
        saves = self._session.checkpoint_seconds is not None
        carry, calls = program.start(), 0
        if scheduler is None:
            scheduler = group.schedule(self._plan)
        elif checkpoint.states:
            with together():
                carry = self._store.load_states(carry)
            calls = checkpoint.calls
        self._report(group.name, scheduler.running)
        while not scheduler.is_done:
            call = self._stop.submit(program.advance, carry, scheduler.assignment())
            # A checkpoint needs the lanes as they are after a call.
            carry, rows = self._stop.wait(call, patient=saves)
            calls += 1
            trials, steps = scheduler.lane_trials(), self._row_steps(group, scheduler)
            with together(self._stop):
                self._store.append(trials, steps, rows[scheduler.busy])
            self._observe(group, scheduler, rows)
            self._report(group.name, scheduler.running)
            if self._stop.agreed == signal.SIGINT:
                self._stop.obey()
            preempted = saves and self._stop.agreed
            if not scheduler.is_done and (preempted or self._is_time_to_commit()):
                with together():
                    states = self._store.save_states(index, calls, carry)
                self._commit(Checkpoint(groups=index, calls=calls, states=states))
            if not scheduler.is_done:
                self._stop.obey()
        self._commit(Checkpoint(groups=index + 1))
        self._session.tell(group)
        self._stop.obey()

    def _replay(self, checkpoint: Checkpoint) -> Scheduler | None:
        """Feed the committed metrics to fresh schedulers.

        Returns the scheduler of the unfinished group, or None if it has no calls.
        """
        current: list[tuple[TrialGroup, Scheduler]] = []

        def rows_of_calls() -> Iterator[int]:
            for index, group in enumerate(self._groups[: checkpoint.groups + 1]):
                current[:] = [(group, group.schedule(self._plan))]
                calls = 0
                while not current[0][1].is_done:
                    if index == checkpoint.groups and calls == checkpoint.calls:
                        return
                    calls += 1
                    yield current[0][1].running * group.evaluations_per_call

        for rows in self._store.replay(rows_of_calls()):
            group, scheduler = current[0]
            full = np.full(
                (group.lanes, group.evaluations_per_call, len(group.metrics)),
                np.nan,
                np.float32,
            )
            full[scheduler.busy] = rows.reshape(scheduler.running, *full.shape[1:])
            self._observe(group, scheduler, full)
        self._ledger.steps = 0
        return current[0][1] if checkpoint.calls else None

    def _observe(
        self, group: TrialGroup, scheduler: Scheduler, rows: np.ndarray
    ) -> None:
        every = self._plan.evaluate_every * group.evaluations_per_call
        done = scheduler.running * every
        self._ledger.steps += done
        self._ledger.steps_left -= done
        for record in scheduler.observe(rows):
            # What a diverged or stopped trial will not run any more.
            ran = -(-record.steps // every) * every
            self._ledger.steps_left -= self._plan.steps - ran
            self._ledger.end(record)

    def _row_steps(self, group: TrialGroup, scheduler: Scheduler) -> np.ndarray:
        in_call = (np.arange(group.evaluations_per_call) + 1) * (
            self._plan.evaluate_every
        )
        return scheduler.lane_steps()[:, None] + in_call

    def _report(self, optimizer: str, running: int) -> None:
        self._session.report(self._ledger.status(optimizer, running))

    def _is_time_to_commit(self) -> bool:
        most = self._session.checkpoint_seconds
        late = most is not None and time.monotonic() - self._committed_at > most
        # Saving takes all processes, so the first one's clock decides for all.
        return bool(agree(late))

    def _commit(self, checkpoint: Checkpoint) -> None:
        with together():
            self._store.commit(checkpoint)
        self._committed_at = time.monotonic()
