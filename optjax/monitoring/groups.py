"""Which coordinates are summarised together, and which of them are looked at."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

__all__ = ["OVERALL", "Groups", "Sample", "group_leaves", "leaf_names", "sample"]

#: A number of leading parts of a leaf's name, None for all of them, or a function
#: from the leaf's name to the group's.
Groups: TypeAlias = int | Callable[[str], str] | None

#: The group of all leaves.
OVERALL = "overall"


def leaf_names(tree: Any) -> list[str]:
    """The name of each leaf, its path joined by "/", such as "hidden/kernel".

    Flax NNX hands `init` variables and `update` their values; the names agree.
    """
    names = []
    for path, _ in jax.tree_util.tree_leaves_with_path(tree):
        if path and path[-1] == jax.tree_util.GetAttrKey("value"):
            path = path[:-1]
        names.append(jax.tree_util.keystr(path, simple=True, separator="/"))
    return names


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
        elif groups is None:
            group = name
        else:
            group = "/".join(name.split("/")[: groups + shared])
        # A lone array has no name of its own, and is all there is.
        if group:
            result.setdefault(group, []).append(name)
    if OVERALL in result:
        raise ValueError(
            f"{OVERALL!r} is the group of all leaves, so no other may be called so, "
            f"but {result[OVERALL][0]!r} is to be in one of that name. Let `groups` "
            "name it otherwise."
        )
    return {**result, OVERALL: list(names)}


class Sample(NamedTuple):
    """The coordinates looked at, a row a group.

    Attributes:
        positions: for each leaf, the chosen positions in the flattened leaf.
        place: (groups, n), where in the leaves' chosen coordinates, laid end to end,
            a group's are.
        leaf: (groups, n), the index of each one's leaf.
        sizes: how many of a row belong to the group; the rest of it is padding.
    """

    positions: list[np.ndarray]
    place: np.ndarray
    leaf: np.ndarray
    sizes: np.ndarray


def sample(
    leaf_sizes: dict[str, int], members: dict[str, list[str]], most: int | None
) -> Sample:
    """Choose about `most` coordinates of each group, evenly spaced over its leaves.

    With `most` None, or where a group has no more than that, all of them. The spacing
    is a prime, so that it does not keep step with the widths of layers.
    """
    chosen: dict[str, list[tuple[np.ndarray, int]]] = {name: [] for name in leaf_sizes}
    for row, names in enumerate(members.values()):
        names = [name for name in names if name in leaf_sizes]
        total = sum(leaf_sizes[name] for name in names)
        spacing = 1 if most is None else _prime_from(math.ceil(total / most))
        first = spacing // 2
        for name in names:
            positions = np.arange(first, leaf_sizes[name], spacing)
            first += len(positions) * spacing - leaf_sizes[name]
            chosen[name].append((positions, row))
    parts = [part for of_leaf in chosen.values() for part in of_leaf]
    group = np.concatenate([np.full(at.size, row) for at, row in parts])
    of_leaves = [np.concatenate([at for at, _ in part]) for part in chosen.values()]
    leaf = np.repeat(np.arange(len(of_leaves)), [at.size for at in of_leaves])
    sizes = np.bincount(group, minlength=len(members))
    place = np.zeros((len(members), max(sizes.max(), 1)), np.int32)
    for row, size in enumerate(sizes):
        place[row, :size] = np.flatnonzero(group == row)
    return Sample(of_leaves, place, leaf[place], sizes)


def _prime_from(n: int) -> int:
    """The smallest prime >= n, or 1."""
    while n > 1 and any(n % d == 0 for d in range(2, math.isqrt(n) + 1)):
        n += 1
    return max(n, 1)
