"""Which coordinates are summarised together, and which of them are looked at."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

__all__ = [
    "OVERALL",
    "Groups",
    "Sample",
    "as_names",
    "as_numbers",
    "group_leaves",
    "leaf_names",
    "sample",
]

#: A number of leading parts of a leaf's name, None for all of them, or a function
#: from the leaf's name to the group's.
Groups: TypeAlias = int | Callable[[str], str] | None

#: The group of all leaves.
OVERALL = "overall"


def leaf_names(tree: Any) -> list[str]:
    """The name of each leaf, its path joined by "/", such as "hidden/kernel".

    Flax NNX hands `init` variables and `update` their values; the names agree.
    """
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    siblings = Counter(path[:-1] for path in paths)
    value = jax.tree_util.GetAttrKey("value")
    names = []
    for path in paths:
        # A variable has nothing but its value.
        if path and path[-1] == value and siblings[path[:-1]] == 1:
            path = path[:-1]
        names.append(jax.tree_util.keystr(path, simple=True, separator="/"))
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(
            "monitor tells leaves apart by their paths joined by '/', but two are "
            f"called {twice[0]!r}. Name one of them otherwise."
        )
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


def as_numbers(names: Sequence[str]) -> np.ndarray:
    """Names as the bytes of their UTF-8, one array, with a 0 between them.

    As an array they are a part of the state that every tool can save, map and stack,
    and its tree is the same for all parameters.
    """
    wrong = [name for name in names if "\0" in name]
    if wrong:
        raise ValueError(
            f"the name of a group must not contain the character 0, got {wrong[0]!r}."
        )
    return np.frombuffer("\0".join(names).encode(), np.uint8)


def as_names(numbers: Any) -> list[str]:
    """The names that `as_numbers` was given; of a stack of them, the first's."""
    numbers = np.asarray(numbers)
    first = numbers.reshape(-1, numbers.shape[-1])[0]
    return first.astype(np.uint8).tobytes().decode().split("\0")


class Sample(NamedTuple):
    """The coordinates looked at, a row a group.

    Attributes:
      positions: for each leaf, the chosen positions in the flattened leaf, ascending.
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
    """Choose `most` coordinates of each group, evenly spread over its leaves.

    With `most` None, or where a group has no more than that, all of them.
    """
    names, sizes = list(leaf_sizes), np.array([*leaf_sizes.values()], np.int64)
    index = {name: i for i, name in enumerate(names)}
    rows = []
    for group in members.values():
        of_group = np.array([index[name] for name in group if name in index], int)
        ends = np.cumsum(sizes[of_group])
        chosen = _spread(int(ends[-1]) if len(ends) else 0, most)
        which = np.searchsorted(ends, chosen, side="right")
        start = ends[which] - sizes[of_group[which]]
        rows.append((of_group[which], chosen - start))
    leaf, position = (np.concatenate(column) for column in zip(*rows, strict=True))

    # A coordinate that several groups look at is taken once.
    first = np.cumsum(sizes) - sizes
    taken, place = np.unique(first[leaf] + position, return_inverse=True)
    borders = np.searchsorted(taken, first)
    positions = [
        part - at for part, at in zip(np.split(taken, borders[1:]), first, strict=True)
    ]
    counts = np.array([len(position) for _, position in rows])
    is_member = np.arange(max(counts.max(), 1)) < counts[:, None]
    table = np.zeros((2, *is_member.shape), np.int32)
    table[:, is_member] = place, leaf
    return Sample(positions, table[0], table[1], counts)


def _spread(total: int, most: int | None) -> np.ndarray:
    """`most` of `total` places, one at random from each of as many equal parts.

    At equal distances they would keep step with the widths of layers. The random
    numbers are always the same, so that summaries of different steps can be compared.
    """
    if most is None or total <= most:
        return np.arange(total)
    borders = np.arange(most + 1) * total // most
    within = np.random.default_rng(0).random(most) * np.diff(borders)
    return borders[:-1] + within.astype(np.int64)
