"""Which of several equally good points is in the middle of the others."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

#: A point's coordinates: the place of a number among those tried, or a word.
Place = tuple[int | str, ...]


class Spot(NamedTuple):
    """Where a point lies in its plateau; the least of several is to be preferred.

    Attributes:
      others: minus the points of its plateau.
      off_centre: the sum over the coordinates of the distance to their medians.
    """

    others: int
    off_centre: float


def spots(points: Sequence[Place]) -> dict[Place, Spot]:
    """Where each of equally good points lies in its plateau.

    A plateau is what can be walked from one point to the next, each step to a neighbour
    in one coordinate.
    """
    found: dict[Place, Spot] = {}
    left = set(points)
    for start in points:
        if start not in left:
            continue
        left.discard(start)
        plateau = [start]
        for point in plateau:
            near = left.intersection(_neighbours(point))
            left -= near
            plateau += sorted(near, key=repr)
        centre = [
            statistics.median(axis) if isinstance(axis[0], int) else 0
            for axis in zip(*plateau, strict=True)
        ]
        for point in plateau:
            away = (
                abs(place - middle)
                for place, middle in zip(point, centre, strict=True)
                if isinstance(place, int)
            )
            found[point] = Spot(-len(plateau), sum(away))
    return found


def _neighbours(point: Place) -> list[Place]:
    return [
        (*point[:axis], place + step, *point[axis + 1 :])
        for axis, place in enumerate(point)
        if isinstance(place, int)
        for step in (-1, 1)
    ]
