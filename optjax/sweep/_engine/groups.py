"""A sweep's trials by compiled program."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from optjax.sweep._contract import Traced, call_make_trial, trace
from optjax.sweep._engine.calls import Call, next_call
from optjax.sweep._engine.lane import lane_bytes
from optjax.sweep._engine.lanes import Program, compile_lanes
from optjax.sweep._engine.plan import Plan
from optjax.sweep._engine.scheduler import Scheduler
from optjax.sweep._errors import SweepError
from optjax.sweep._records import PLAIN, Config, Failure, TrialSpec
from optjax.sweep._stopping import Rungs
from optjax.sweep._store.fingerprint import Fingerprint
from optjax.sweep._strategies import Strategy, StrategyName, as_strategy, skips_idle
from optjax.sweep._trial import Factory, MakeTrial, Trial

_T = TypeVar("_T")

# Enough work of all lanes that a call's overhead, well below a millisecond, does not
# show, and little enough that a lane which becomes free does not wait for long.
_UPDATES_A_ROUND = 4096
_MOST_LANES = 256
# A call's metrics are an array of this length for each lane.
_MOST_EVALUATIONS = 512


class TrialGroup(NamedTuple):
    """The trials of one optimizer with one set of static hyper-parameters.

    `digests` tells the group's programs and the shapes of its state from others', if
    somebody wants to know.
    """

    name: str
    trial: Trial
    hyper: tuple[str, ...]
    metrics: tuple[str, ...]
    specs: tuple[TrialSpec, ...]
    lanes: int
    digests: Mapping[str, str]

    def compile(self, plan: Plan, strategy: StrategyName | Strategy) -> Program:
        """This group's program."""
        return compile_lanes(
            self.trial,
            self.hyper,
            self.metrics,
            plan,
            lanes=self.lanes,
            strategy=as_strategy(strategy),
            most_evaluations=self.most_evaluations(plan, strategy),
        )

    def evaluations_a_round(self, plan: Plan, strategy: StrategyName | Strategy) -> int:
        """Until all lanes wait for each other, to decide and to be refilled."""
        boundaries = math.gcd(plan.evaluations, *plan.decisions)
        if skips_idle(strategy):
            return boundaries
        wanted = max(1, _UPDATES_A_ROUND // (self.lanes * plan.evaluate_every))
        return max(
            n for n in range(1, min(wanted, boundaries) + 1) if boundaries % n == 0
        )

    def most_evaluations(self, plan: Plan, strategy: StrategyName | Strategy) -> int:
        """That a lane may do in one call."""
        return min(self.evaluations_a_round(plan, strategy), _MOST_EVALUATIONS)

    def next_call(
        self,
        plan: Plan,
        strategy: StrategyName | Strategy,
        scheduler: Scheduler,
        work: int,
    ) -> Call:
        """The next part of a round, of about so many updates one after the other."""
        return next_call(
            scheduler.left,
            work,
            devices=len(plan.devices),
            evaluate_every=plan.evaluate_every,
            most_evaluations=self.most_evaluations(plan, strategy),
            skips_idle=skips_idle(strategy),
        )

    def schedule(
        self,
        plan: Plan,
        strategy: StrategyName | Strategy,
        rungs: Rungs | None = None,
        failures: Mapping[int, Failure] | None = None,
        known: Mapping[int, np.ndarray] | None = None,
    ) -> Scheduler:
        """A scheduler with all of the group's trials before it."""
        return Scheduler(
            self.specs if rungs is None else _shuffled(self.specs, plan),
            lanes=self.lanes,
            devices=len(plan.devices),
            metrics=self.metrics,
            metric=plan.metric,
            mode=plan.mode,
            evaluate_every=plan.evaluate_every,
            evaluations=plan.evaluations,
            evaluations_a_round=self.evaluations_a_round(plan, strategy),
            allow_nan=plan.allow_nan,
            rungs=rungs,
            failures=failures,
            known=known,
        )


def make_groups(
    make_trial: MakeTrial,
    factories: Mapping[str, Factory],
    specs: Sequence[TrialSpec],
    plan: Plan,
    fingerprint: Fingerprint | None = None,
    known: dict[Any, TrialGroup] | None = None,
    on_failure: Callable[[Sequence[TrialSpec], SweepError], None] | None = None,
) -> list[TrialGroup]:
    """Check a trial of each kind by abstract evaluation and group them all.

    Args:
      make_trial: what is trained.
      factories: optimizers by name.
      specs: the trials.
      plan: what the groups have in common.
      fingerprint: makes the groups' digests; None where nothing is compared.
      known: groups of the same programs, which need no check, to which these are added.
      on_failure: told of trials that break the contract, where others do not.

    Raises:
      SweepError: naming the trial that breaks the contract.
    """
    known = {} if known is None else known
    by_program: dict[Any, list[TrialSpec]] = {}
    for spec in specs:
        by_program.setdefault(_program_key(spec.config), []).append(spec)
    groups: list[TrialGroup] = []
    failures: list[tuple[Sequence[TrialSpec], SweepError]] = []
    for members in _in_order(by_program.values(), plan):
        key = _program_key(members[0].config)
        if key not in known:
            try:
                made = _group(make_trial, factories, members[0], plan, fingerprint)
            except SweepError as error:
                if on_failure is None:
                    raise
                failures.append((members, error))
                continue
            known[key] = made
        group, first = known[key], next(iter(known.values()))
        if group.metrics != first.metrics:
            raise SweepError(
                f"every trial must have the same metrics, but {first.name} has "
                f"{', '.join(first.metrics)} and {group.name} "
                f"{', '.join(group.metrics)}"
            )
        lanes = _lanes(len(members), lane_bytes(group.trial, group.hyper), plan)
        groups.append(group._replace(specs=tuple(members), lanes=lanes))
    for of_one, fault in failures:
        if on_failure is None or not known:
            raise fault
        on_failure(of_one, fault)
    metrics = next(iter(known.values())).metrics
    unknown = set(plan.allow_nan) - set(metrics)
    if unknown:
        raise SweepError(
            f"allow_nan must name metrics of the trials, {', '.join(metrics)}"
            f", got {', '.join(sorted(unknown))}"
        )
    return groups


def _group(
    make_trial: MakeTrial,
    factories: Mapping[str, Factory],
    spec: TrialSpec,
    plan: Plan,
    fingerprint: Fingerprint | None,
) -> TrialGroup:
    """The group of one trial."""
    config = spec.config
    trial = call_make_trial(make_trial, factories[config.optimizer], config)
    traced = trace(trial, config, plan.metric)
    return TrialGroup(
        config.optimizer,
        traced.trial,
        tuple(sorted(config.hyper)),
        traced.metrics,
        (spec,),
        1,
        {} if fingerprint is None else _digests(fingerprint, traced),
    )


def _in_order(
    groups: Iterable[list[TrialSpec]], plan: Plan
) -> Iterable[list[TrialSpec]]:
    """As they are to run: by optimizer, shuffled where a rule compares them."""
    if plan.stopping is None:
        return groups
    by_optimizer: dict[str, list[list[TrialSpec]]] = {}
    for members in groups:
        by_optimizer.setdefault(members[0].config.optimizer, []).append(members)
    return [
        members
        for of_one in by_optimizer.values()
        for members in _shuffled(of_one, plan)
    ]


def _shuffled(items: Sequence[_T], plan: Plan) -> list[_T]:
    """In an order that says nothing of how good they are.

    A rule compares a trial with those before it, so of trials in the order of their
    quality it would stop none.
    """
    order = np.random.default_rng(plan.order_seed).permutation(len(items))
    return [items[index] for index in order.tolist()]


def _digests(fingerprint: Fingerprint, traced: Traced) -> dict[str, str]:
    return {
        "init": fingerprint.program(traced.init),
        "step": fingerprint.program(traced.step),
        "evaluate": fingerprint.program(traced.evaluate),
        "state": fingerprint.shapes(traced.state),
    }


def _program_key(config: Config) -> Any:
    static = tuple(
        (name, value if isinstance(value, PLAIN) else id(value))
        for name, value in sorted(config.static.items())
    )
    return config.optimizer, tuple(sorted(config.hyper)), static


def _lanes(trials: int, state_bytes: int, plan: Plan) -> int:
    devices = len(plan.devices)
    fit = plan.limit // max(1, state_bytes)
    if fit < devices:
        raise SweepError(
            f"the memory limit of {plan.limit:,} bytes holds the states of {fit} lanes "
            f"of {state_bytes:,} bytes, and {devices} devices need one each; raise "
            "memory_limit="
        )
    # As many in the last round as in the others, since vmap pays for idle lanes.
    rounds = math.ceil(trials / _MOST_LANES)
    lanes = min(trials, fit, plan.lanes or math.ceil(trials / rounds))
    return max(1, min(math.ceil(lanes / devices), fit // devices)) * devices
