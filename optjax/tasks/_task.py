"""What a task is: trials with their data, and how they are trained and ranked."""

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np

from optjax.sweep._trial import MakeTrial


class Settings(NamedTuple):
    """What the user says of a task; None is the task's own choice.

    Attributes:
      data: where its data are: a folder, a file, or `hf:NAME`.
      epochs: how long a trial is; the learning rate's drop scales with it.
      examples: train on the first so many examples only.
      test_examples: evaluate on the first so many test examples only.
      batch_size: examples an update.
      dtype: what the model computes in, "float32" or "bfloat16".
    """

    data: str | None = None
    epochs: int | None = None
    examples: int | None = None
    test_examples: int | None = None
    batch_size: int | None = None
    dtype: str = "float32"

    @property
    def given(self) -> dict[str, str | int]:
        """Those that differ from the task's own choice, by name."""
        own = self._field_defaults
        return {name: x for name, x in self._asdict().items() if x != own[name]}

    def source(self, what: str) -> str:
        """`data`; `what` says what it should be.

        Raises:
          ValueError: where it is None.
        """
        if self.data is None:
            raise ValueError(f"this task needs data: give data=, {what}")
        return self.data

    def first(self, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, ...]:
        """The first `examples` of `train`, and the first `test_examples` of `test`.

        Raises:
          ValueError: where they are fewer than 1.
        """
        for name in ("examples", "test_examples"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise ValueError(
                    f"{name}= must be at least 1, got {number}; leave it out for all"
                )
        return train[: self.examples], test[: self.test_examples]

    def compute_dtype(self) -> jnp.dtype:
        """`dtype` for a model.

        Raises:
          ValueError: where it is none of the two.
        """
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype must be float32 or bfloat16, got {self.dtype!r}")
        return jnp.dtype(self.dtype)


class Loaded(NamedTuple):
    """A task with its data, and how it is trained unless told otherwise.

    Attributes:
      make_trial: makes the task's `Trial` for an optimizer's factory.
      about: the model and the data in one line.
      learning_rates: the recipe's own for each optimizer, or None for a grid.
      seeds: how many.
      steps: updates in a trial.
      evaluate_every: updates between evaluations, an epoch where there are epochs.
      unit: what an update is counted in, such as "images".
      units: how many of them an update takes.
      is_long: whether a trial takes much longer than its compilation.
      dtype: what the model computes in.
      metric: the name of the metric that ranks.
      mode: whether the best of it is the "max" or the "min".
      title: what the metric is called over a table or at an axis.
      target: a value of the metric that is worth telling the updates to, or None.
    """

    make_trial: MakeTrial
    about: str
    learning_rates: Mapping[str, tuple[float, ...]] | None = None
    seeds: int = 3
    steps: int = 300
    evaluate_every: int = 10
    unit: str = "steps"
    units: int = 1
    is_long: bool = False
    dtype: str = "float32"
    metric: str = "val_accuracy"
    mode: Literal["max", "min"] = "max"
    title: str = "validation accuracy"
    target: float | None = None

    def words(self, task: str) -> dict[str, str]:
        """For `sweep.run`: what it is to say of a sweep on this task."""
        return {"task": task, "recipe": self.about, "dtype": self.dtype}


class Task(NamedTuple):
    """A task before its data are there.

    Attributes:
      description: what it is, in one line.
      loader: `loader(settings) -> Loaded`, which refuses by a ValueError what it cannot
        do. What takes long belongs into it: importing libraries, reading data.

    Example:
      >>> from optjax.tasks import TASKS
      >>> TASKS["digits"].load().metric
      'val_accuracy'
    """

    description: str
    loader: Callable[[Settings], Loaded]

    def load(self, settings: Settings | None = None) -> Loaded:
        """The task with its data.

        Args:
          settings: the user's; the task's own choice of everything by default.

        Raises:
          ValueError: where a setting cannot be met, or the data cannot be read.
        """
        return self.loader(Settings() if settings is None else settings)
