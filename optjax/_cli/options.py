"""The arguments of `optjax race`, `sweep`, `report` and `audit`, for tyro to read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from optjax._cli.flags import (
    BatchSize,
    Data,
    Dtype,
    Epochs,
    EvaluateEvery,
    Examples,
    FirstSeed,
    Keep,
    Metric,
    Mode,
    OtherVersions,
    ReportEvery,
    Steps,
    Target,
    Task,
    TestExamples,
)


@dataclass(frozen=True)
class RaceOptions:
    """What the command line says."""

    task: Task = "digits"
    data: Data = None
    optimizers: Annotated[
        tuple[str, ...] | None,
        arg(
            help="Rows of the table that `optjax list` prints, or module:attribute.",
            metavar="NAME ...",
            help_behavior_hint="(default: all, or the recipe's)",
        ),
    ] = None
    learning_rates: Annotated[
        tuple[float, ...] | None,
        arg(
            help="The grid that every optimizer tries.",
            metavar="FLOAT ...",
            help_behavior_hint="(default: half decades from 1e-4 to 10, or the "
            "recipe's for each optimizer)",
        ),
    ] = None
    seeds: Annotated[
        int | None,
        arg(
            help="How many seeds. A seed fixes the initial parameters and the order of "
            "the batches, alike for every optimizer.",
            metavar="INT",
            help_behavior_hint="(default: 3, or 1 where trials are long)",
        ),
    ] = None
    first_seed: FirstSeed = 0
    steps: Steps = None
    evaluate_every: EvaluateEvery = None
    epochs: Epochs = None
    examples: Examples = None
    test_examples: TestExamples = None
    batch_size: BatchSize = None
    dtype: Dtype = "float32"
    metric: Metric = None
    mode: Mode = None
    target: Target = None
    out: Annotated[
        str | None,
        arg(
            help="Directory for the files: not there, empty, or of this race.",
            metavar="DIR",
            help_behavior_hint="(default: a new one, runs/race-TASK-1, then -2; or "
            "the newest, where it is of this race and not finished)",
        ),
    ] = None
    keep: Keep = None
    report_every: ReportEvery = None
    other_versions: OtherVersions = False


@dataclass(frozen=True)
class SweepOptions:
    """What the command line says, or a TOML file with the same names."""

    task: Positional[Task] = "digits"
    space: Annotated[
        tuple[str, ...],
        arg(
            help="The hyper-parameters to search.",
            metavar="NAME=VALUES ...",
            help_behavior_hint="(here or in --config)",
        ),
    ] = ()
    optimizers: Annotated[
        tuple[str, ...],
        arg(
            help="Rows of the table that `optjax list` prints, or module:attribute.",
            metavar="NAME ...",
        ),
    ] = ("adam",)
    draws: Annotated[
        int | None,
        arg(
            help="Configurations an optimizer, where there are ranges.",
            metavar="INT",
            help_behavior_hint="(default: every combination)",
        ),
    ] = None
    method: Annotated[
        str, arg(help="How they are drawn: sobol or random.", metavar="METHOD")
    ] = "sobol"
    space_seed: Annotated[
        int, arg(help="A seed for the drawing, not for the training.")
    ] = 0
    search: Annotated[
        str | None,
        arg(
            help="Propose the draws from what those before have reached: tpe, gp or "
            "cmaes of Optuna's (pip install 'optjax[optuna]').",
            metavar="SAMPLER",
            help_behavior_hint="(default: all at once, by the method)",
        ),
    ] = None
    search_batch: Annotated[
        int, arg(help="Configurations that a search proposes at a time.")
    ] = 8
    seeds: Annotated[
        int, arg(help="Trials a configuration, each with a seed of its own.")
    ] = 3
    first_seed: FirstSeed = 0
    steps: Steps = None
    evaluate_every: EvaluateEvery = None
    data: Data = None
    epochs: Epochs = None
    examples: Examples = None
    test_examples: TestExamples = None
    batch_size: BatchSize = None
    dtype: Dtype = "float32"
    metric: Metric = None
    mode: Mode = None
    target: Target = None
    stop_early: Annotated[
        int | None,
        arg(
            help="Successive halving: the updates that every trial gets before only "
            "the best go on.",
            metavar="STEPS",
            help_behavior_hint="(default: every trial runs to its end)",
        ),
    ] = None
    eta: Annotated[
        int, arg(help="Successive halving: the best 1/eta of the trials go on.")
    ] = 3
    median: Annotated[
        int | None,
        arg(
            help="The median rule: the updates that every trial gets before one whose "
            "best is worse than the median of the averages is stopped.",
            metavar="STEPS",
            help_behavior_hint="(default: every trial runs to its end)",
        ),
    ] = None
    strategy: Annotated[
        str,
        arg(
            help="How a device runs its trials: map (one after the other), vmap (at "
            "once), chunked (eight at a time), or auto, the fastest.",
            metavar="STRATEGY",
        ),
    ] = "auto"
    lanes: Annotated[
        int | None,
        arg(
            help="Most trials at a time.",
            metavar="INT",
            help_behavior_hint="(default: 256; with ray, 64 a task)",
        ),
    ] = None
    memory_limit: Annotated[
        str | None,
        arg(
            help="Most memory for the trials that run at a time, such as 2GB.",
            metavar="SIZE",
            help_behavior_hint="(default: a quarter of the machine's, half of an "
            "accelerator's)",
        ),
    ] = None
    checkpoint_seconds: Annotated[
        float, arg(help="Most seconds of work that a crash may cost.")
    ] = 30.0
    call_seconds: Annotated[
        float,
        arg(help="About how long until there is something new to show and to save."),
    ] = 2.0
    keep: Keep = None
    engine: Annotated[
        str,
        arg(
            help="local, or ray for a Ray cluster (pip install 'optjax[ray]').",
            metavar="ENGINE",
        ),
    ] = "local"
    report_every: ReportEvery = None
    other_versions: OtherVersions = False
    distributed: Annotated[
        bool,
        arg(
            help="Share the sweep with the other processes that run this command, as "
            "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID say, or "
            "the cluster that JAX detects."
        ),
    ] = False
    config: Annotated[
        Path | None,
        arg(
            help="A TOML file with these settings; what the command line gives wins.",
            metavar="FILE",
            help_behavior_hint="",
        ),
    ] = None
    out: Annotated[
        str | None,
        arg(
            help="Directory for everything measured: not there, empty, or of this "
            "sweep.",
            metavar="DIR",
            help_behavior_hint="(default: a new one, runs/sweep-TASK-1, then -2; or "
            "the newest, where it is of this sweep and not finished)",
        ),
    ] = None


@dataclass(frozen=True)
class AuditOptions:
    """What the command line says."""

    task: Task = "digits"
    optimizer: Annotated[
        str,
        arg(
            help="A row that `optjax list` prints, or module:attribute.", metavar="NAME"
        ),
    ] = "adam"
    hyper: Annotated[
        tuple[str, ...],
        arg(
            help="Its hyper-parameters; the rest are at their defaults.",
            metavar="NAME=NUMBER ...",
            help_behavior_hint="(default: the learning rate of the task's recipe)",
        ),
    ] = ()
    steps: Annotated[int, arg(help="Updates to look at.")] = 20
    seed: Annotated[int, arg(help="Of the parameters and the batches.")] = 0
    data: Data = None
    examples: Examples = None
    batch_size: BatchSize = None
    dtype: Dtype = "float32"


@dataclass(frozen=True)
class ReportOptions:
    """What the command line says."""

    directory: Annotated[
        Positional[str],
        arg(help="A sweep's or a race's directory, its --out.", metavar="DIR"),
    ]
    out: Annotated[
        str | None,
        arg(
            help="The page.",
            metavar="FILE",
            help_behavior_hint="(default: report.html in DIR)",
        ),
    ] = None
