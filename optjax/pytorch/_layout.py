"""Which of PyTorch's parameters are which of the tree, and which are in which group."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax

from optjax._arguments.kind import shown
from optjax._places import path_of
from optjax.pytorch._groups import labels_of
from optjax.pytorch._optimizer import Optimizer
from optjax.pytorch._rearrangement import Rearrangement
from optjax.pytorch._state_dict import KEPT

#: PyTorch's parameters by name, in its optimizer's order, or such a mapping a group.
Weights: TypeAlias = Mapping[str, Any] | Sequence[Mapping[str, Any]]
Convert: TypeAlias = Callable[[Any], Any]

#: The fields of our states that PyTorch has entries for.
MOMENTS = {field for kept in KEPT.values() for field in kept.entries}


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
