"""The arguments of `optjax race`, `sweep`, `report` and `audit`, for tyro to read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

__all__ = ["AuditOptions", "RaceOptions", "ReportOptions", "SweepOptions"]

_Data = Annotated[
    str | None,
    arg(
        help="The task's data: a folder, a file, or hf:NAME.",
        metavar="PATH",
        help_behavior_hint="(image and text tasks need it)",
    ),
]
_Epochs = Annotated[
    int | None,
    arg(
        help="Epochs in each trial; the recipe's drop of the learning rate is scaled "
        "with them.",
        metavar="INT",
        help_behavior_hint="(default: the recipe's)",
    ),
]
_Examples = Annotated[
    int | None,
    arg(
        help="Train on the first so many examples only.",
        metavar="INT",
        help_behavior_hint="(default: all)",
    ),
]
_TestExamples = Annotated[
    int | None,
    arg(
        help="Evaluate on the first so many test examples only.",
        metavar="INT",
        help_behavior_hint="(default: all)",
    ),
]
_BatchSize = Annotated[
    int | None,
    arg(
        help="Examples an update.",
        metavar="INT",
        help_behavior_hint="(default: the recipe's)",
    ),
]
_Dtype = Annotated[
    str,
    arg(
        help="What the task's model computes in: float32 or bfloat16.",
        metavar="DTYPE",
    ),
]
_Steps = Annotated[
    int | None,
    arg(
        help="Updates in each trial.",
        metavar="INT",
        help_behavior_hint="(default: 300, or all epochs)",
    ),
]
_EvaluateEvery = Annotated[
    int | None,
    arg(
        help="Updates between two evaluations, a divisor of the steps.",
        metavar="INT",
        help_behavior_hint="(default: 10, or an epoch)",
    ),
]
_FirstSeed = Annotated[int, arg(help="The first seed; the others count up from it.")]
_Metric = Annotated[
    str | None,
    arg(
        help="The trial's metric that ranks.",
        metavar="NAME",
        help_behavior_hint="(default: the task's, such as val_accuracy)",
    ),
]
_Mode = Annotated[
    str | None,
    arg(
        help="What is best of the metric: max or min.",
        metavar="MODE",
        help_behavior_hint="(default: the task's)",
    ),
]
_Target = Annotated[
    float | None,
    arg(
        help="A value of the metric: the table says how many updates it took.",
        metavar="FLOAT",
        help_behavior_hint="(default: the task's, such as 0.95, or none)",
    ),
]
_ReportEvery = Annotated[
    float | None,
    arg(
        help="Seconds between two versions of report.html while it runs.",
        metavar="SECONDS",
        help_behavior_hint="(default: it is written at the end)",
    ),
]
_OtherVersions = Annotated[
    bool,
    arg(
        help="Go on in --out though it was begun with other versions of jax, flax, "
        "optax, optjax or Python."
    ),
]


@dataclass(frozen=True)
class RaceOptions:
    """What the command line says."""

    task: Annotated[
        str,
        arg(help="What to train: a task's name, or module:attribute.", metavar="TASK"),
    ] = "digits"
    data: _Data = None
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
    first_seed: _FirstSeed = 0
    steps: _Steps = None
    evaluate_every: _EvaluateEvery = None
    epochs: _Epochs = None
    examples: _Examples = None
    test_examples: _TestExamples = None
    batch_size: _BatchSize = None
    dtype: _Dtype = "float32"
    metric: _Metric = None
    mode: _Mode = None
    target: _Target = None
    out: Annotated[
        str | None,
        arg(
            help="Directory for the files: not there, empty, or of this race.",
            metavar="DIR",
            help_behavior_hint="(default: a new one, runs/race-TASK-1, then -2; or "
            "the newest, where it is of this race and not finished)",
        ),
    ] = None
    report_every: _ReportEvery = None
    other_versions: _OtherVersions = False


@dataclass(frozen=True)
class SweepOptions:
    """What the command line says, or a TOML file with the same names."""

    task: Annotated[
        Positional[str],
        arg(help="What to train: a task's name, or module:attribute.", metavar="TASK"),
    ] = "digits"
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
    first_seed: _FirstSeed = 0
    steps: _Steps = None
    evaluate_every: _EvaluateEvery = None
    data: _Data = None
    epochs: _Epochs = None
    examples: _Examples = None
    test_examples: _TestExamples = None
    batch_size: _BatchSize = None
    dtype: _Dtype = "float32"
    metric: _Metric = None
    mode: _Mode = None
    target: _Target = None
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
    keep: Annotated[
        int | None,
        arg(
            help="Keep the final states of so many of the best trials, with Orbax.",
            metavar="INT",
            help_behavior_hint="(default: none)",
        ),
    ] = None
    engine: Annotated[
        str,
        arg(
            help="local, or ray for a Ray cluster (pip install 'optjax[ray]').",
            metavar="ENGINE",
        ),
    ] = "local"
    report_every: _ReportEvery = None
    other_versions: _OtherVersions = False
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

    task: Annotated[
        str,
        arg(help="What to train: a task's name, or module:attribute.", metavar="TASK"),
    ] = "digits"
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
    data: _Data = None
    examples: _Examples = None
    batch_size: _BatchSize = None
    dtype: _Dtype = "float32"


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
