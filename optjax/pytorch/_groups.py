"""PyTorch's parameter groups: which parameters a group takes, by name."""

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import jax

from optjax._arguments.kind import shown
from optjax._places import path_of

#: None for all parameters, or a group each: {"params": a pattern or a predicate, …}.
Groups: TypeAlias = Sequence[Mapping[str, Any]] | None


def name_of(path: Sequence[Any]) -> str:
    """The name of a parameter, such as "encoder/0/kernel"."""
    return jax.tree_util.keystr(path_of(path), simple=True, separator="/")


def labels_of(groups: Sequence[Mapping[str, Any]], tree: Any) -> Any:
    """The number of the first group that takes it, as text, for every leaf of a tree.

    Raises:
      ValueError: naming a parameter that no group takes, or a group that takes none.
    """
    left = set(range(len(groups)))

    def label(path: Any, leaf: Any) -> str:
        name = name_of(path)
        for number, group in enumerate(groups):
            if _takes(group["params"], name, leaf):
                left.discard(number)
                return str(number)
        raise ValueError(
            f"every parameter must be in a group, got {name!r}, which none of "
            f"{[shown(group['params']) for group in groups]} takes. A last group with "
            '"params": "*" takes what is left.'
        )

    labels = jax.tree_util.tree_map_with_path(label, tree)
    if left and jax.tree.leaves(tree):
        names = [name_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
        raise ValueError(
            "every group must take a parameter that none before it takes, got "
            f"{shown(groups[min(left)]['params'])} for the parameters {shown(names)}."
        )
    return labels


def _takes(wanted: Any, name: str, leaf: Any) -> bool:
    if callable(wanted):
        return bool(wanted(name, leaf))
    patterns = [wanted] if isinstance(wanted, str) else wanted
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
