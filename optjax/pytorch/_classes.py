"""The optimizers of the dialect by the names of PyTorch's classes."""

from collections.abc import Callable, Mapping

from optjax.pytorch import _adam, _bounded, _squares
from optjax.pytorch._optimizer import Optimizer

CLASSES: Mapping[str, Callable[..., Optimizer]] = {
    name: getattr(module, name)
    for module in (_squares, _adam, _bounded)
    for name in module.__all__
}
