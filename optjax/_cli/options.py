"""The arguments of `optjax sweep`, for tyro to read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from optjax.tasks._options import (
    BatchSize,
    Data,
    Dtype,
    Epochs,
    Examples,
    TestExamples,
)

__all__ = ["SweepOptions"]


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
            help="Rows of the table that `optjax list` prints.",
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
    seeds: Annotated[
        int, arg(help="Trials a configuration, each with a seed of its own.")
    ] = 3
    steps: Annotated[
        int | None,
        arg(
            help="Updates in each trial.",
            metavar="INT",
            help_behavior_hint="(default: the task's, or 300)",
        ),
    ] = None
    evaluate_every: Annotated[
        int | None,
        arg(
            help="Updates between two evaluations; divides --steps.",
            metavar="INT",
            help_behavior_hint="(default: the task's, an epoch or 10)",
        ),
    ] = None
    data: Data = None
    epochs: Epochs = None
    examples: Examples = None
    test_examples: TestExamples = None
    batch_size: BatchSize = None
    dtype: Dtype = "float32"
    metric: Annotated[
        str, arg(help="The trial's metric that ranks.", metavar="NAME")
    ] = "val_accuracy"
    mode: Annotated[
        str, arg(help="What is best of the metric: max or min.", metavar="MODE")
    ] = "max"
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
    evaluations_per_call: Annotated[
        int | None,
        arg(
            help="Most evaluations until a trial can be saved and shown; 1 where an "
            "update takes long.",
            metavar="INT",
            help_behavior_hint="(default: about 4,096 updates' worth, 1 for tasks with "
            "images or texts)",
        ),
    ] = None
    engine: Annotated[
        str,
        arg(
            help="local, or ray for a Ray cluster (pip install 'optjax[ray]').",
            metavar="ENGINE",
        ),
    ] = "local"
    other_versions: Annotated[
        bool,
        arg(
            help="Go on in --out though it was begun with other versions of jax, flax, "
            "optax, optjax or Python."
        ),
    ] = False
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
