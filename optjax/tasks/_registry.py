"""The table of tasks. A task's own libraries and data load when it is chosen."""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from optjax.sweep._trial import MakeTrial

__all__ = ["TASKS", "Loaded", "Settings", "Task"]


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


#: The task's own choice of everything.
_RECIPE = Settings()


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
        is_long: whether a trial should be kept on disk as it goes.
        dtype: what the model computes in.
        metric: the name of the metric that ranks.
        mode: whether the best of it is the "max" or the "min".
        title: what the metric is called over a table or at an axis.
        target: a value of the metric that is worth telling the updates to, or None.
    """

    make_trial: MakeTrial
    about: str
    learning_rates: Mapping[str, tuple[float, ...]] | None
    seeds: int
    steps: int
    evaluate_every: int
    unit: str = "steps"
    units: int = 1
    is_long: bool = False
    dtype: str = "float32"
    metric: str = "val_accuracy"
    mode: Literal["max", "min"] = "max"
    title: str = "validation accuracy"
    target: float | None = None

    @property
    def evaluations_per_call(self) -> int | None:
        """For `sweep.run`: one where each must be kept, else its default."""
        return 1 if self.is_long else None

    def words(self, task: str) -> dict[str, str]:
        """For `sweep.run`: what it is to say of a sweep on this task."""
        return {"task": task, "recipe": self.about, "dtype": self.dtype}


class Task(NamedTuple):
    """A task's one-line description, and how to load it."""

    description: str
    load: Callable[..., Loaded]


#: What Luo et al. found for DenseNet-121 and ResNet-34 on CIFAR-10; AdaBound's and
#: AMSBound's final_lr is 0.1, the default.
_PAPER_RATES = {
    "momentum": (0.1,),
    "adam": (1e-3,),
    "amsgrad": (1e-3,),
    "adabound": (1e-3,),
    "amsbound": (1e-3,),
}


def _digits(settings: Settings = _RECIPE) -> Loaded:
    from optjax.tasks import digits

    unknown = [
        name
        for name, value in settings._asdict().items()
        if value is not None and (name, value) != ("dtype", "float32")
    ]
    if unknown:
        raise ValueError(
            f"the task digits has its own data and batches and takes no {unknown[0]}=; "
            "set steps=, or choose another task"
        )
    return Loaded(
        functools.partial(digits.trial, data=digits.load()),
        "1,437 + 360 images of 8×8 pixels, MLP 64-64-10",
        None,
        seeds=3,
        steps=300,
        evaluate_every=10,
        target=0.95,
    )


def _images(model: str, settings: Settings = _RECIPE) -> Loaded:
    from optjax.tasks import image_classification, models
    from optjax.tasks._data.images import describe, load_images

    images = load_images(_source(settings, "a folder with CIFAR-10, or hf:cifar10"))
    images = images._replace(
        train_x=images.train_x[: _most(settings.examples, "examples")],
        train_y=images.train_y[: settings.examples],
        test_x=images.test_x[: _most(settings.test_examples, "test examples")],
        test_y=images.test_y[: settings.test_examples],
    )
    recipe = _scaled(image_classification.Recipe(), settings)
    an_epoch = image_classification.steps_an_epoch(images, recipe)
    return Loaded(
        functools.partial(
            image_classification.trial,
            images=images,
            make_model=getattr(models, model),
            recipe=recipe,
            dtype=_dtype(settings),
        ),
        f"{model}, {describe(images)}, {_about(recipe)}",
        _PAPER_RATES,
        seeds=1,
        steps=recipe.epochs * an_epoch,
        evaluate_every=an_epoch,
        unit="images",
        units=recipe.batch_size,
        is_long=True,
        dtype=settings.dtype,
    )


def _characters(layers: int, settings: Settings = _RECIPE) -> Loaded:
    from optjax.tasks import char_language
    from optjax.tasks._data.text import load_text

    text = load_text(_source(settings, "a UTF-8 text file"))
    text = text._replace(
        train=text.train[: _most(settings.examples, "characters")],
        validation=text.validation[: _most(settings.test_examples, "characters")],
    )
    recipe = _scaled(char_language.Recipe(), settings)
    an_epoch = char_language.steps_an_epoch(text, recipe)
    return Loaded(
        functools.partial(
            char_language.trial,
            text=text,
            recipe=recipe,
            layers=layers,
            dtype=_dtype(settings),
        ),
        f"LSTM of {layers} layer{'s' * (layers > 1)}, {len(text.train):,} + "
        f"{len(text.validation):,} characters, {_about(recipe)}",
        _PAPER_RATES,
        seeds=1,
        steps=recipe.epochs * an_epoch,
        evaluate_every=an_epoch,
        unit="characters",
        units=recipe.batch_size * recipe.sequence_length,
        is_long=True,
        dtype=settings.dtype,
    )


def _source(settings: Settings, what: str) -> str:
    if settings.data is None:
        raise ValueError(f"this task needs data: give data=, {what}")
    return settings.data


def _most(examples: int | None, what: str) -> int | None:
    if examples is not None and examples < 1:
        raise ValueError(f"there must be at least 1 of the {what}, got {examples}")
    return examples


def _scaled(recipe: Any, settings: Settings) -> Any:
    """The recipe with the user's epochs, and the drop at the same share of them."""
    if settings.batch_size is not None:
        recipe = recipe._replace(batch_size=settings.batch_size)
    if settings.epochs is None:
        return recipe
    if settings.epochs < 1:
        raise ValueError(f"there must be at least 1 epoch, got {settings.epochs}")
    decay_after = max(1, recipe.decay_after * settings.epochs // recipe.epochs)
    return recipe._replace(epochs=settings.epochs, decay_after=decay_after)


def _dtype(settings: Settings) -> Any:
    import jax.numpy as jnp

    if settings.dtype not in ("float32", "bfloat16"):
        raise ValueError(f"dtype must be float32 or bfloat16, got {settings.dtype!r}")
    return jnp.dtype(settings.dtype)


def _about(recipe: Any) -> str:
    return (
        f"batches of {recipe.batch_size}, {recipe.epochs} epochs, learning rate × 0.1 "
        f"after {recipe.decay_after}, L2 {recipe.weight_decay:g}"
    )


#: Every task by name.
TASKS: Mapping[str, Task] = MappingProxyType(
    {
        "digits": Task(
            "1,797 handwritten digits of 8×8 pixels (scikit-learn), MLP 64-64-10",
            _digits,
        ),
        "image-mlp": Task(
            "fully connected network on images (--data)",
            functools.partial(_images, "MLP"),
        ),
        "cifar10-resnet8": Task(
            "ResNet-8, 78,042 parameters, for a CPU (--data)",
            functools.partial(_images, "resnet8"),
        ),
        "cifar10-resnet34": Task(
            "ResNet-34, 21,282,122 parameters, the paper's recipe (--data)",
            functools.partial(_images, "resnet34"),
        ),
        "cifar10-densenet121": Task(
            "DenseNet-121, 6,956,298 parameters, the paper's recipe (--data)",
            functools.partial(_images, "densenet121"),
        ),
        **{
            f"char-lstm-{layers}": Task(
                f"characters of a text, LSTM of {layers} layer{'s' * (layers > 1)} "
                "(--data)",
                functools.partial(_characters, layers),
            )
            for layers in (1, 2, 3)
        },
    }
)
