"""The table of tasks. A task's own libraries and data load when it is chosen."""

import functools
from collections.abc import Mapping
from types import MappingProxyType

from optjax.tasks._task import Loaded, Settings, Task


def _digits(settings: Settings) -> Loaded:
    from optjax.tasks import digits

    return digits.task(settings)


def _images(model: str, settings: Settings) -> Loaded:
    from optjax.tasks import images, models

    return images.task(getattr(models, model), settings)


def _text(layers: int, settings: Settings) -> Loaded:
    from optjax.tasks import text

    return text.task(layers, settings)


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
                functools.partial(_text, layers),
            )
            for layers in (1, 2, 3)
        },
    }
)
