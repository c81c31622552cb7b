"""A sweep's trials by compiled program."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from optjax.sweep._contract import Traced, call_make_trial, trace
from optjax.sweep._engine.calls import Call, next_call
from optjax.sweep._engine.lanes import Program, compile_lanes, lane_bytes
from optjax.sweep._engine.plan import Plan
from optjax.sweep._engine.processes import agree
from optjax.sweep._engine.scheduler import Scheduler
from optjax.sweep._errors import SweepError
from optjax.sweep._records import PLAIN, Config, TrialSpec
from optjax.sweep._stopping import Rungs
from optjax.sweep._store.fingerprint import Fingerprint
from optjax.sweep._strategies import Strategy, StrategyName, as_strategy, skips_idle
from optjax.sweep._trial import Factory, MakeTrial, Trial

__all__ = ["TrialGroup", "make_groups"]

_T = TypeVar("_T")

# Enough work of all lanes that a call's overhead, well below a millisecond, does not
# show, and little enough that a lane which becomes free does not wait for long.
_UPDATES_A_ROUND = 4096
_MOST_LANES = 256
# A call's metrics are an array of this length for each lane.
_MOST_EVALUATIONS = 512
# Beside its state a lane holds the gradient and what the model keeps for it.
_WORKING_COPIES = 3


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
            lanes=self.lanes,
            strategy=as_strategy(strategy),
            evaluate_every=plan.evaluate_every,
            most_evaluations=self.most_evaluations(plan, strategy),
            devices=plan.devices,
            compiler_options=plan.compiler_options,
        )

    def evaluations_a_round(self, plan: Plan, strategy: StrategyName | Strategy) -> int:
        """Until all lanes wait for each other, to decide and to be refilled."""
        boundaries = math.gcd(plan.evaluations, *plan.decisions)
        if skips_idle(as_strategy(strategy)):
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
            skips_idle=skips_idle(as_strategy(strategy)),
        )

    def schedule(
        self,
        plan: Plan,
        strategy: StrategyName | Strategy,
        rungs: Rungs | None = None,
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
            rungs=rungs,
        )


def make_groups(
    make_trial: MakeTrial,
    factories: Mapping[str, Factory],
    specs: Sequence[TrialSpec],
    plan: Plan,
    fingerprint: Fingerprint | None = None,
    known: dict[Any, TrialGroup] | None = None,
) -> list[TrialGroup]:
    """Check a trial of each kind by abstract evaluation and group them all.

    Args:
      make_trial: what is trained.
      factories: optimizers by name.
      specs: the trials.
      plan: what the groups have in common.
      fingerprint: makes the groups' digests; None where nothing is compared.
      known: groups of the same programs, which need no check, to which these are added.

    Raises:
      SweepError: naming the trial that breaks the contract.
    """
    known = {} if known is None else known
    by_program: dict[Any, list[TrialSpec]] = {}
    for spec in specs:
        by_program.setdefault(_program_key(spec.config), []).append(spec)
    groups: list[TrialGroup] = []
    for members in _in_order(by_program.values(), plan):
        key = _program_key(members[0].config)
        if key not in known:
            known[key] = _group(make_trial, factories, members[0], plan, fingerprint)
        group, first = known[key], next(iter(known.values()))
        if group.metrics != first.metrics:
            raise SweepError(
                f"every trial must have the same metrics, but {first.name} has "
                f"{', '.join(first.metrics)} and {group.name} "
                f"{', '.join(group.metrics)}"
            )
        lanes = _lanes(len(members), lane_bytes(group.trial, group.hyper), plan)
        groups.append(group._replace(specs=tuple(members), lanes=lanes))
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
        trial,
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
    # In MiB, and from one process, so that all have the same number of lanes.
    limit = plan.memory_limit or agree(_default_memory(devices) >> 20) << 20
    fit = limit // max(1, state_bytes * _WORKING_COPIES)
    if fit < devices:
        raise SweepError(
            f"the memory limit of {limit:,} bytes holds {fit} lanes of about "
            f"{state_bytes * _WORKING_COPIES:,} bytes, and {devices} devices need one "
            "each; raise memory_limit="
        )
    # As many in the last round as in the others, since vmap pays for idle lanes.
    rounds = math.ceil(trials / _MOST_LANES)
    lanes = min(trials, fit, plan.lanes or math.ceil(trials / rounds))
    return max(1, min(math.ceil(lanes / devices), fit // devices)) * devices


def _default_memory(devices: int) -> int:
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"]) * devices // 2
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
    return 4 * 1024**3
