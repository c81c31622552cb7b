"""What a user's conversion of weights does, found by converting numbered elements.

A conversion from PyTorch's weights to a JAX tree is a rearrangement if every number of
the tree is one of the weights: transposes, reshapes, splits and joins. What it does to
the weights can then be done to every moment, and undone.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from optjax._places import Path, path_of
from optjax.pytorch._groups import name_of

# Whole numbers up to this are exact in every dtype that weights are cast to, bfloat16
# included, so that the number of an element is told digit by digit.
_BASE = 256


def to_numpy(value: Any) -> np.ndarray:
    """An array of PyTorch's, JAX's or NumPy's as one of NumPy's."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":
            exact: np.ndarray = value.float().numpy()
            return exact.astype(jax.numpy.bfloat16)
        return np.array(value.numpy())
    return np.asarray(value)


class Rearrangement:
    """Which element of which weight each element of the tree is.

    Attributes:
      shapes: of the weights, by name.
      owners: for each leaf's path, the names of the weights it is made of.
      tree: the converted weights.

    Raises:
      ValueError: naming a leaf that is computed, or a weight dropped or doubled.
    """

    def __init__(self, convert: Callable[[Any], Any], weights: Mapping[str, Any]):
        self.shapes = {key: tuple(value.shape) for key, value in weights.items()}
        sizes = [int(np.prod(shape)) for shape in self.shapes.values()]
        self._ends = np.cumsum(sizes)
        total = int(self._ends[-1]) if sizes else 0
        element = np.arange(total)

        def converted(flat: np.ndarray) -> dict[Path, np.ndarray]:
            probes = {
                key: _like(weights[key], part.reshape(self.shapes[key]))
                for key, part in zip(self.shapes, self._split(flat), strict=True)
            }
            leaves = jax.tree_util.tree_leaves_with_path(convert(probes))
            return {path_of(p): to_numpy(x).astype(np.float64) for p, x in leaves}

        self.tree = convert(dict(weights))
        index: dict[Path, np.ndarray] = {}
        unit = 1
        while unit == 1 or unit < total:
            for path, digit in converted(element // unit % _BASE).items():
                index[path] = index.get(path, 0) + digit * unit
            unit *= _BASE
        mark = element * 2_654_435_761 % 251 - 125
        for path, value in converted(mark).items():
            at = index[path]
            if not np.all((at >= 0) & (at < total) & (at == np.floor(at))) or not (
                np.array_equal(mark[at.astype(np.int64)], value)
            ):
                raise ValueError(
                    "convert must only rearrange: transpose, reshape, split or join; "
                    f"at {name_of(path)!r} it gives other numbers than the weights'. "
                    "Leave scaling and folding to the model."
                )
        self._index = {path: at.astype(np.int64) for path, at in index.items()}
        self._check_once(total)
        names = np.array(list(self.shapes))
        self.owners = {
            path: names[
                np.unique(np.searchsorted(self._ends, at.ravel(), "right"))
            ].tolist()
            for path, at in self._index.items()
        }

    def to_jax(self, path: Path, moments: Mapping[str, Any]) -> np.ndarray:
        """The leaf at a path, from moments of the weights it is made of."""
        at = self._index[path]
        owners = self.owners[path]
        flat = np.zeros(
            self._ends[-1] if len(self._ends) else 0,
            np.result_type(*(moments[name] for name in owners)),
        )
        for name, part in zip(self.shapes, self._split(flat), strict=True):
            if name in owners:
                part[:] = moments[name].ravel()
        return flat[at]

    def to_torch(self, leaves: Mapping[Path, np.ndarray]) -> dict[str, np.ndarray]:
        """The moments of those weights of which all leaves are given."""
        if not leaves:
            return {}
        flat = np.zeros(self._ends[-1], np.result_type(*leaves.values()))
        for path, leaf in leaves.items():
            flat[self._index[path]] = leaf
        missing = {
            n for p, names in self.owners.items() if p not in leaves for n in names
        }
        parts = zip(self.shapes.items(), self._split(flat), strict=True)
        return {
            name: part.reshape(shape)
            for (name, shape), part in parts
            if name not in missing
        }

    def _split(self, flat: np.ndarray) -> list[np.ndarray]:
        return np.split(flat, self._ends[:-1]) if len(self._ends) else []

    def _check_once(self, total: int) -> None:
        used = np.zeros(total, np.int64)
        for at in self._index.values():
            np.add.at(used, at.ravel(), 1)
        for name, counts in zip(self.shapes, self._split(used), strict=True):
            if np.any(counts != 1):
                how = "leaves out" if np.any(counts == 0) else "doubles"
                raise ValueError(
                    f"convert must use every weight once, but it {how} {name!r} or a "
                    "part of it. Hand over the parameters alone, without buffers, and "
                    "tie weights in the model."
                )


def _like(weight: Any, values: np.ndarray) -> Any:
    if hasattr(weight, "new_tensor"):
        return weight.detach().new_tensor(values)
    return values.astype(weight.dtype)
