"""What an optimizer keeps in memory, counted before anything is allocated."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optjax._arguments.checked import checked
from optjax._arguments.named import ArrayTree, Transformation
from optjax._places import end_of, path_of


class MemoryUse(NamedTuple):
    """Bytes by part; prints as a table.

    Attributes:
      size: the number of parameters.
      params: the bytes of the parameters, and again of their gradients.
      state: the bytes of each part of the state, by the names of its fields; "numbers"
        are counters, hyper-parameters and all else without dimensions.
    """

    size: int
    params: int
    state: Mapping[str, int]

    @property
    def total(self) -> int:
        """Bytes of the parameters and the state, gradients left out."""
        return self.params + sum(self.state.values())

    def __str__(self) -> str:
        parts = {"parameters": self.params, **self.state, "together": self.total}
        width = max(map(len, parts))
        lines = [f"{'':{width}}  {'bytes':>15}  a parameter"]
        lines += [
            f"{name:{width}}  {count:>15,}  {self._of_each(count):>11}"
            for name, count in parts.items()
        ]
        return "\n".join(lines)

    def _of_each(self, count: int) -> str:
        """Bytes a parameter, where there are any parameters."""
        return f"{count / self.size:.2f}" if self.size else "–"


@checked
def memory(optimizer: Transformation, params: ArrayTree) -> MemoryUse:
    r"""Σ n_a · bytes(dtype_a) over the arrays a of the parameters and of the state.

    Nothing is computed or allocated: `optimizer.init` is traced with shapes.

    Args:
      optimizer: any Optax gradient transformation, wrappers included.
      params: the parameters, or their shapes (`jax.ShapeDtypeStruct`).

    Returns:
      The bytes of each part; it prints as a table. Those of all devices together,
      where arrays are split among some.

    Raises:
      ValueError: as `optimizer.init` does.

    Example:
      >>> import jax, jax.numpy as jnp, optjax
      >>> x = jax.ShapeDtypeStruct((1000, 128), jnp.float32)
      >>> print(optjax.memory(optjax.compressed(optjax.adam(1e-3)), x))
                                      bytes  a parameter
      parameters                    512,000         4.00
      numbers                            12         0.00
      direction.ema                 128,000         1.00
      rate.nu                       128,000         1.00
      scales.direction.ema            4,000         0.03
      scales.rate.nu                  4,000         0.03
      together                      776,012         6.06
    """
    shapes = jax.eval_shape(lambda x: x, params)
    state = jax.eval_shape(optax.with_extra_args_support(optimizer).init, shapes)
    leaves = jax.tree_util.tree_leaves_with_path(shapes)
    paths = {path_of(path) for path, _ in leaves}
    parts: dict[str, int] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        name = _part(path, paths) if leaf.ndim else "numbers"
        parts[name] = parts.get(name, 0) + _bytes(leaf)
    return MemoryUse(
        sum(math.prod(leaf.shape) for _, leaf in leaves),
        sum(_bytes(leaf) for _, leaf in leaves),
        parts,
    )


def _part(path: Any, paths: Any) -> str:
    """The names of the fields on the way to the arrays of the parameters."""
    path = path_of(path)
    end = end_of(path, paths) or ()
    names = [
        key.name
        for key in path[: len(path) - len(end)]
        if isinstance(key, jax.tree_util.GetAttrKey)
    ]
    wrappers = ("inner_state", "inner_states")
    return ".".join(n for n in names if n not in wrappers) or "state"


def _bytes(leaf: jax.ShapeDtypeStruct) -> int:
    return int(math.prod(leaf.shape) * jnp.dtype(leaf.dtype).itemsize)
