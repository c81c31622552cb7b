"""The names of groups as an array, and which coordinates of each are looked at."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

__all__ = ["Sample", "as_names", "as_numbers", "sample"]


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


def as_names(numbers: ArrayLike) -> list[str]:
    """The names that `as_numbers` was given; of a stack of them, the first's."""
    stack = np.asarray(numbers, np.uint8)
    first: np.ndarray = stack.reshape(-1, stack.shape[-1])[0]
    return first.tobytes().decode().split("\0")


class Sample(NamedTuple):
    """The coordinates looked at, a row a group.

    Attributes:
      positions: for each leaf, those laid down of the flattened leaf, ascending, the
        last of them as often as makes their number one of few.
      place: (groups, n), where in the leaves' positions, laid end to end, a group's
        coordinates are.
      leaf: (groups, n), the index of each one's leaf.
      sizes: how many of a row belong to the group; the rest of it is padding.
    """

    positions: list[np.ndarray]
    place: np.ndarray
    leaf: np.ndarray
    sizes: np.ndarray


def sample(
    leaf_sizes: Mapping[str, int],
    members: Mapping[str, Sequence[str]],
    most: int | None,
    width: int | None = None,
) -> Sample:
    """Choose `most` coordinates of each group, evenly spread over its leaves.

    With `most` None, or where a group has no more than that, all of them. Rows are as
    wide as the longest, or as is said.
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

    # A coordinate that several groups look at is laid down once.
    first = np.cumsum(sizes) - sizes
    taken, place = np.unique(first[leaf] + position, return_inverse=True)
    borders = np.searchsorted(taken, [*first, first[-1] + sizes[-1]])
    positions = [
        _laid_down(int(size), taken[start:stop] - begin)
        for size, start, stop, begin in zip(
            sizes, borders[:-1], borders[1:], first, strict=True
        )
    ]
    laid = np.cumsum([0, *map(len, positions)])[:-1][leaf] + place - borders[leaf]
    counts = np.array([len(position) for _, position in rows])
    columns = max(counts.max(), 1) if width is None else width
    is_member = np.arange(columns) < counts[:, None]
    table = np.zeros((2, *is_member.shape), np.int32)
    table[:, is_member] = laid, leaf
    return Sample(positions, table[0], table[1], counts)


def _laid_down(size: int, chosen: np.ndarray) -> np.ndarray:
    """The positions chosen of a leaf, the last of them several times.

    As many as a power of two: leaves of one shape then share the kernel that takes
    them.
    """
    length = len(chosen)
    more = (1 << (length - 1).bit_length()) - length if 0 < length < size else 0
    return np.pad(chosen, (0, more), "edge") if more else chosen


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
