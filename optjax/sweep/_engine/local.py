"""The local engine: one group after the other, call after call, saved as it goes."""

import functools
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Literal

import jax
import numpy as np

from optjax.sweep._engine.apart import Apart, after_error, saved
from optjax.sweep._engine.calls import Left, Pace
from optjax.sweep._engine.fastest import pick_strategy
from optjax.sweep._engine.groups import TrialGroup
from optjax.sweep._engine.lane import Size
from optjax.sweep._engine.lanes import Assignment, Program
from optjax.sweep._engine.memory import Fitted, fit, is_of_memory, next_strategy
from optjax.sweep._engine.processes import agree, agreed_seconds, together
from optjax.sweep._engine.scheduler import Scheduler
from optjax.sweep._engine.session import Session
from optjax.sweep._errors import of_a_call
from optjax.sweep._records import Failure, Record, TrialSpec
from optjax.sweep._stopping import Rungs
from optjax.sweep._store.checkpoint import Checkpoint
from optjax.sweep._store.keep import kept_state, read_trial
from optjax.sweep._strategies import STRATEGIES, Strategy, StrategyName, skips_idle
from optjax.sweep._trial import State


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
    ready: dict[int, Fitted] = {}
    if isinstance(strategy, str) and strategy == "auto":
        saved = (session.store.saved_identity() or {}).get("strategy")
        # Nothing is timed before another sweep is refused.
        if isinstance(saved, str) and saved in STRATEGIES:
            strategy = saved
        else:
            ready[0] = session.stop.wait(
                session.stop.submit(_agree_on_strategy, session)
            )
            strategy = ready[0].strategy
    checkpoint = session.open_store(
        strategy=strategy,
        devices=session.plan.device_names,
        lanes=[group.lanes for group in session.groups],
    )
    _Loop(session, strategy, ready).run(checkpoint)
    # Nothing may have been proposed since.
    return checkpoint.groups == len(session.groups)


def _agree_on_strategy(session: Session) -> Fitted:
    first, names = session.groups[0], list(STRATEGIES)
    fitted = pick_strategy(first, session.plan, session.ledger.total)
    assert isinstance(fitted.strategy, str)
    agreed = names[agree(names.index(fitted.strategy))]
    return fitted if agreed == fitted.strategy else fit(first, session.plan, agreed)


class _Loop:
    """The loop over groups and calls, and what it has to remember."""

    def __init__(
        self,
        session: Session,
        strategy: StrategyName | Strategy,
        ready: dict[int, Fitted],
    ) -> None:
        self._session = session
        self._plan, self._groups = session.plan, session.groups
        self._ledger, self._store = session.ledger, session.store
        self._stop, self._keeper = session.stop, session.keeper
        self._strategy = strategy
        self._ready = ready
        # What the checkpoint has of the groups that have begun.
        self._lanes: list[tuple[str, int]] = []
        self._failures: dict[int, Failure] = {}
        # What a shorter run has measured.
        self._known: dict[int, np.ndarray] = {}
        # By optimizer: a rule compares what it compares across programs.
        self._rungs: dict[str, Rungs | None] = {}
        self._fitted: dict[tuple[int, int], Fitted] = {}
        self._committed_at = time.monotonic()

    def run(self, checkpoint: Checkpoint) -> None:
        """Everything after the checkpoint."""
        self._lanes = [(name, lanes) for name, lanes in checkpoint.lanes]
        self._failures = dict(checkpoint.failures)
        replayed = self._replay(checkpoint)
        self._ledger.times = self._store.read_times()
        for group in self._groups[: checkpoint.groups]:
            self._session.tell(group)
        pending: dict[int, Future[Fitted]] = {}

        def compile_in_background(index: int) -> None:
            if index < len(self._groups) and index not in self._ready | pending:
                pending[index] = self._stop.submit(self._fit, index)

        index = checkpoint.groups
        # What is proposed is added while this goes on.
        while index < len(self._groups) or self._session.add_more(self._strategy):
            compile_in_background(index)
            try:
                fitted = self._ready.pop(index, None) or self._stop.wait(
                    pending.pop(index)
                )
            except Exception as error:
                if jax.process_count() > 1:
                    raise
                self._give_up(index, of_a_call(error))
                index += 1
                checkpoint, replayed = Checkpoint(groups=index), None
                continue
            # The next program compiles while this one runs.
            compile_in_background(index + 1)
            with together(self._stop):
                pass
            self._stop.obey()
            self._run_group(index, fitted, checkpoint, replayed)
            index += 1
            checkpoint, replayed = Checkpoint(groups=index), None
        if not self._ledger.steps:
            self._report("", 0)

    def _fit(self, index: int) -> Fitted:
        """A group's program, and of one that has begun the one that it began with.

        Where trials are proposed there is one for all equal groups.
        """
        group, strategy = self._as_begun(index)
        if index < len(self._lanes):
            return Fitted(group, strategy, group.compile(self._plan, strategy))
        if self._session.more is None:
            return fit(group, self._plan, strategy)
        key = id(group.trial), group.lanes
        if key not in self._fitted:
            self._fitted[key] = fit(group, self._plan, strategy)
        fitted = self._fitted[key]
        return fitted._replace(group=group._replace(lanes=fitted.group.lanes))

    def _as_begun(self, index: int) -> tuple[TrialGroup, StrategyName | Strategy]:
        group = self._groups[index]
        if index >= len(self._lanes):
            return group, self._strategy
        name, lanes = self._lanes[index]
        strategy = name if name in STRATEGIES else self._strategy
        return group._replace(lanes=lanes), strategy

    def _give_up(self, index: int, message: str) -> None:
        """End a group of which there is no program."""
        group = self._groups[index]
        self._lanes[index:] = [(_name(self._strategy), group.lanes)]
        for spec in group.specs:
            self._failures[spec.number] = Failure(0, message)
        self._schedule(index)
        self._commit(Checkpoint(groups=index + 1))
        self._session.tell(group)

    def _run_group(
        self,
        index: int,
        fitted: Fitted,
        checkpoint: Checkpoint,
        scheduler: Scheduler | None,
    ) -> None:
        group, strategy, program = fitted
        self._lanes[index:] = [(_name(strategy), group.lanes)]
        saves = self._session.checkpoint_seconds is not None
        carry, calls = program.start(), 0
        if scheduler is None:
            scheduler = self._schedule(index)
        elif checkpoint.states:
            with together():
                carry = self._store.load_states(carry)
            calls = checkpoint.calls
            scheduler.resume(checkpoint.within, checkpoint.updates)
        in_turns = not skips_idle(strategy)
        pace, careful = Pace(self._session.call_seconds), False
        self._report(group.name, scheduler.running)
        while not scheduler.is_done:
            most = self._plan.evaluate_every if careful else pace.work
            call = group.next_call(
                self._plan, strategy, scheduler, min(pace.work, most)
            )
            told, within = scheduler.assignment(call.lanes), scheduler.left.updates
            for lane, spec in scheduler.going_on(call.lanes).items():
                carry = program.put(carry, lane, self._kept(group, spec))
            before = saved(program, carry)
            began = time.monotonic()
            try:
                # A checkpoint needs the lanes as they are after a call.
                done = Apart(
                    *self._advance(program, carry, told, call.size, patient=saves)
                )
            except Exception as error:
                if jax.process_count() > 1:
                    raise
                less = None
                if calls == 0 and is_of_memory(error):
                    less = next_strategy(strategy, group)
                if less is not None:
                    again = self._stop.submit(fit, group, self._plan, less)
                    # Nothing was measured yet.
                    return self._run_group(
                        index, self._stop.wait(again), Checkpoint(), None
                    )
                advance = functools.partial(self._advance, program)
                done = after_error(
                    error, program, before, call, told, scheduler, advance
                )
            calls += 1
            carry, careful = done.carry, done.is_to_be_repeated
            if done.rows is None:
                self._end(scheduler.fail(done.raised))
                self._failures.update(scheduler.failures)
                continue
            took = agreed_seconds(time.monotonic() - began)
            pace.took(call, took)
            measured = scheduler.measured(call, done.rows)
            with together(self._stop):
                self._store.append(measured, in_turns=in_turns)
            # Nothing counts after a divergence.
            times = sum(len(of_trial.rows) for of_trial in measured)
            if not call.size.evaluates:
                times = int(call.lanes.sum())
            updates = times * call.size.updates
            self._ledger.count(updates - len(done.raised) * within)
            self._ledger.times.add(group.name, took, updates)
            # A lane holds what its trial ended with until the next call.
            ends = {
                number: functools.partial(program.state, carry, lane)
                for number, lane in scheduler.lanes().items()
            }
            ended = scheduler.observe(call, measured) + scheduler.fail(done.raised)
            self._failures.update(scheduler.failures)
            self._end(ended, ends)
            self._report(group.name, scheduler.running)
            if self._stop.agreed == signal.SIGINT:
                self._stop.obey()
            preempted = saves and self._stop.agreed
            if not scheduler.is_done and (preempted or self._is_time_to_commit(took)):
                self._save(index, calls, carry, scheduler.left)
            if not scheduler.is_done:
                self._stop.obey()
        self._commit(Checkpoint(groups=index + 1))
        self._session.tell(group)
        self._stop.obey()

    def _save(self, index: int, calls: int, carry: Any, left: Left) -> None:
        """A checkpoint within a group."""
        with together():
            states = self._store.save_states(index, calls, carry)
        within = left.within.nonzero()[0].tolist()
        self._commit(Checkpoint(index, calls, within, left.updates, states=states))

    def _kept(self, group: TrialGroup, spec: TrialSpec) -> State:
        """What a trial goes on from."""
        steps = len(self._known[spec.number]) * self._plan.evaluate_every
        path = kept_state(self._store.own, steps, spec.number)
        return read_trial(path, group.trial, spec.config)

    def _advance(
        self,
        program: Program,
        carry: Any,
        told: Assignment,
        size: Size,
        *,
        patient: bool = False,
    ) -> tuple[Any, np.ndarray]:
        advancing = self._stop.submit(program.advance, carry, told, size)
        return self._stop.wait(advancing, patient=patient)

    def _schedule(self, index: int) -> Scheduler:
        group, strategy = self._as_begun(index)
        rungs = self._rungs.setdefault(group.name, self._plan.rungs())
        own = {spec.number for spec in group.specs} if self._failures else set()
        failures = {n: each for n, each in self._failures.items() if n in own}
        scheduler = group.schedule(self._plan, strategy, rungs, failures, self._known)
        self._end(scheduler.ended_before)
        return scheduler

    def _replay(self, checkpoint: Checkpoint) -> Scheduler | None:
        """Feed the committed metrics to fresh schedulers.

        Returns the scheduler of the unfinished group, or None if it has no calls.
        """
        self._known = self._store.known()
        evaluations = sum(map(len, self._known.values()))
        self._ledger.count(evaluations * self._plan.evaluate_every)
        rows, scheduler = self._store.replay(), None
        unfinished = checkpoint.groups + bool(checkpoint.calls)
        for index in range(unfinished):
            scheduler = self._schedule(index)
            while not scheduler.is_done and (trial := next(rows, None)) is not None:
                self._ledger.count(len(trial.rows) * self._plan.evaluate_every)
                self._end(scheduler.take(trial.number, trial.rows))
        self._ledger.count(len(checkpoint.within) * checkpoint.updates)
        self._ledger.steps = 0
        return scheduler if checkpoint.calls else None

    def _end(
        self,
        records: Sequence[Record],
        states: Mapping[int, Callable[[], State]] | None = None,
    ) -> None:
        """Trials have ended; `states` of those in lanes, where they were now."""
        for record in records:
            self._ledger.end(record)
        if self._keeper is not None:
            self._keeper.consider(records, states)

    def _report(self, optimizer: str, running: int) -> None:
        self._session.report(self._ledger.status(optimizer, running))

    def _is_time_to_commit(self, a_call: float) -> bool:
        most = self._session.checkpoint_seconds
        # Before the next call would make it too late.
        at_risk = time.monotonic() - self._committed_at + a_call
        late = most is not None and at_risk > most
        # Saving takes all processes, so the first one's clock decides for all.
        return bool(agree(late))

    def _commit(self, checkpoint: Checkpoint) -> None:
        now = checkpoint._replace(
            lanes=list(self._lanes), failures=dict(self._failures)
        )
        with together():
            self._store.commit(now)
            self._store.write_times(self._ledger.times)
        if self._keeper is not None:
            self._keeper.prune()
        self._committed_at = time.monotonic()


def _name(strategy: StrategyName | Strategy) -> str:
    return strategy if isinstance(strategy, str) else ""
