"""Which leaves belong together, by their paths."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeAlias

import jax

from optjax._arguments.numbers import FunctionOr, Whole
from optjax._arguments.objects import OrNone
from optjax._tree import leaf_names

#: A number of leading parts of a leaf's name, None for all of them, or a function
#: from the leaf's name to the group's.
Groups: TypeAlias = Annotated[
    int | Callable[[str], str] | None,
    OrNone(
        FunctionOr(
            "a function from a leaf's path to its group",
            Whole(0),
            "It is called with a path such as block/kernel",
        )
    ),
]

#: The group of all leaves.
OVERALL = "overall"


def group_leaves(names: Sequence[str], groups: Groups) -> dict[str, list[str]]:
    """The leaves of each group, and all of them under `OVERALL`.

    A first part that all names share, such as Flax linen's "params", is not counted
    among the leading parts.

    Raises:
      ValueError: for a group that is called "overall".
    """
    first_parts = {name.split("/")[0] for name in names}
    shared = int(len(first_parts) == 1 and all("/" in name for name in names))
    result: dict[str, list[str]] = {}
    for name in names:
        if callable(groups):
            group = groups(name)
            if not isinstance(group, str):
                raise ValueError(
                    "groups must return the name of a leaf's group, a string, got "
                    f"{group!r} for {name!r}."
                )
        elif groups is None:
            group = name
        else:
            group = "/".join(name.split("/")[: groups and groups + shared])
        # Of no name is what belongs to no group but all, such as a lone array.
        if group:
            result.setdefault(group, []).append(name)
    if OVERALL in result:
        raise ValueError(
            f"{OVERALL!r} is the group of all leaves, so no other may be called so, "
            f"but {result[OVERALL][0]!r} is to be in one of that name. Let `groups` "
            "name it otherwise."
        )
    return {**result, OVERALL: list(names)}


def group_of_each_leaf(tree: Any, groups: Groups) -> list[int]:
    """The number of each leaf's group, from 0; leaves of no group have one together."""
    if groups is None or groups == 0:
        return [0 if groups == 0 else i for i, _ in enumerate(jax.tree.leaves(tree))]
    names = leaf_names(tree)
    members = group_leaves(names, groups)
    # The last one, of all leaves, is that of those which are in no other.
    number = {
        name: i
        for i, group in reversed([*enumerate(members.values())])
        for name in group
    }
    return [number[name] for name in names]
