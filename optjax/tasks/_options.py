"""The command line's options for a task's data and length, for tyro to read."""

from typing import Annotated

from tyro.conf import arg

__all__ = ["BatchSize", "Data", "Dtype", "Epochs", "Examples", "TestExamples"]

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
