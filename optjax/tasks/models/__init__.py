"""The networks of the tasks, in Flax NNX.

Those for images are made by `model(image_shape, classes, dtype=..., rngs=...)`.
"""

from optjax.tasks.models.char_lstm import CharLSTM
from optjax.tasks.models.densenet import DenseNet, densenet121
from optjax.tasks.models.mlp import MLP
from optjax.tasks.models.resnet import ResNet, resnet8, resnet34

__all__ = [
    "MLP",
    "CharLSTM",
    "DenseNet",
    "ResNet",
    "densenet121",
    "resnet8",
    "resnet34",
]
