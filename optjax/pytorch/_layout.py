"""Where a state keeps what PyTorch keeps, by the names of docs/states.md."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from optjax._hyperparameter import shown
from optjax.pytorch._groups import labels_of, path_of
from optjax.pytorch._optimizer import Optimizer
from optjax.pytorch._rearrangement import Path, Rearrangement
from optjax.pytorch._state_dict import ENTRIES

__all__ = [
    "Convert",
    "Place",
    "Weights",
    "counters",
    "grouped",
    "place_of",
    "weights_of",
]

#: PyTorch's parameters by name, in its optimizer's order, or such a mapping a group.
Weights: TypeAlias = Mapping[str, Any] | Sequence[Mapping[str, Any]]
Convert: TypeAlias = Callable[[Any], Any]

_FIELDS = {field for entries in ENTRIES.values() for field in entries}


class Place(NamedTuple):
    """Where an array of a state is.

    Attributes:
      part: the path of the part of an `optax.partition` that it is in, or ().
      field: of which moment it is, or the name of what is no moment.
      leaf: the path of the parameter that it is a moment of, or None.
    """

    part: Path
    field: str
    leaf: Path | None


def place_of(path: Sequence[Any]) -> Place:
    """What the path of an array from the root of a state says."""
    part: Path = ()
    name = ""
    for i, key in enumerate(path):
        if isinstance(key, jax.tree_util.GetAttrKey):
            name = key.name
            if name == "inner_states":
                part = tuple(path[: i + 2])
            if name in _FIELDS:
                return Place(part, name, path_of(path[i + 1 :]))
    return Place(part, name, None)


def counters(optimizer: optax.GradientTransformation, params: Any) -> set[Path]:
    """The paths of the numbers of a state that a step makes larger."""

    def numbers(state: Any) -> dict[Any, Any]:
        leaves = jax.tree_util.tree_leaves_with_path(state)
        return {p: n for p, n in leaves if not n.shape and n.dtype == jnp.int32}

    @jax.jit
    def grow() -> list[Any]:
        zeros = jax.tree.map(jnp.zeros_like, params)
        state = optimizer.init(zeros)
        _, after = optimizer.update(zeros, state, zeros)
        before = numbers(state)
        return [after - before[path] for path, after in numbers(after).items()]

    paths = numbers(jax.eval_shape(optimizer.init, params))
    return {path for path, grown in zip(paths, grow(), strict=True) if grown > 0}


def weights_of(params: Weights) -> tuple[dict[str, Any], list[list[str]] | None]:
    """The weights in one mapping, and the names of each group where they were given."""
    if isinstance(params, Mapping):
        return dict(params), None
    if isinstance(params, (list, tuple)) and all(
        isinstance(p, Mapping) for p in params
    ):
        whole = {name: value for group in params for name, value in group.items()}
        return whole, [list(group) for group in params]
    raise ValueError(
        "params must be PyTorch's parameters by name, such as "
        f"dict(model.named_parameters()), or a list of such, got {shown(params)}."
    )


def grouped(optimizer: Optimizer, moved: Rearrangement) -> list[list[str]]:
    """The names of each group's weights, in the order of the weights."""
    groups = optimizer.param_groups
    labels = jax.tree_util.tree_leaves_with_path(labels_of(groups, moved.tree))
    group_of: dict[str, str] = {}
    for path, label in labels:
        for name in moved.owners[path_of(path)]:
            if group_of.setdefault(name, label) != label:
                raise ValueError(
                    f"a parameter of PyTorch's must be in one group, got {name!r} in "
                    f"{group_of[name]} and {label}, split by convert."
                )
    return [
        [name for name in moved.shapes if group_of[name] == str(number)]
        for number in range(len(groups))
    ]
