"""The flags that several commands have, for tyro to read."""

from typing import Annotated, Literal

from tyro.conf import arg

Task = Annotated[
    str,
    arg(help="What to train: a task's name, or module:attribute.", metavar="TASK"),
]
Data = Annotated[
    str | None,
    arg(
        help="The task's data: a folder, a file, or hf:NAME.",
        metavar="PATH",
        help_behavior_hint="(image and text tasks need it)",
    ),
]
Epochs = Annotated[
    int | None,
    arg(
        help="Epochs in each trial; the recipe's drop of the learning rate is scaled "
        "with them.",
        metavar="INT",
        help_behavior_hint="(default: the recipe's)",
    ),
]
Examples = Annotated[
    int | None,
    arg(
        help="Train on the first so many examples only.",
        metavar="INT",
        help_behavior_hint="(default: all)",
    ),
]
TestExamples = Annotated[
    int | None,
    arg(
        help="Evaluate on the first so many test examples only.",
        metavar="INT",
        help_behavior_hint="(default: all)",
    ),
]
BatchSize = Annotated[
    int | None,
    arg(
        help="Examples an update.",
        metavar="INT",
        help_behavior_hint="(default: the recipe's)",
    ),
]
Dtype = Annotated[
    str,
    arg(
        help="What the task's model computes in: float32 or bfloat16.",
        metavar="DTYPE",
    ),
]
Steps = Annotated[
    int | None,
    arg(
        help="Updates in each trial.",
        metavar="INT",
        help_behavior_hint="(default: 300, or all epochs)",
    ),
]
EvaluateEvery = Annotated[
    int | None,
    arg(
        help="Updates between two evaluations, a divisor of the steps.",
        metavar="INT",
        help_behavior_hint="(default: 10, or an epoch)",
    ),
]
FirstSeed = Annotated[int, arg(help="The first seed; the others count up from it.")]
Keep = Annotated[
    int | Literal["all"] | None,
    arg(
        help="Keep the final states of so many of the best trials, or of all, from "
        "which the same command with more --steps goes on; with Orbax.",
        metavar="INT|all",
        help_behavior_hint="(default: none)",
    ),
]
Metric = Annotated[
    str | None,
    arg(
        help="The trial's metric that ranks.",
        metavar="NAME",
        help_behavior_hint="(default: the task's, such as val_accuracy)",
    ),
]
Mode = Annotated[
    str | None,
    arg(
        help="What is best of the metric: max or min.",
        metavar="MODE",
        help_behavior_hint="(default: the task's, for the task's own metric)",
    ),
]
Target = Annotated[
    float | None,
    arg(
        help="A value of the metric: the table says how many updates it took.",
        metavar="FLOAT",
        help_behavior_hint="(default: the task's, such as 0.95, or none)",
    ),
]
ReportEvery = Annotated[
    float | None,
    arg(
        help="Seconds between two versions of report.html while it runs.",
        metavar="SECONDS",
        help_behavior_hint="(default: it is written at the end)",
    ),
]
OtherVersions = Annotated[
    bool,
    arg(
        help="Go on in --out though it was begun with other versions of jax, flax, "
        "optax, optjax or Python."
    ),
]
