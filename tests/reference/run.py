"""Runs a rule of the family over a tree (a dict) of arrays."""

import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from . import (
    bounded,
    exponential,
    grafted,
    momentum,
    partial,
    squares,
    switching,
    variance,
)

Tree = dict[str, np.ndarray]

_FAMILIES = (
    momentum,
    squares,
    exponential,
    variance,
    partial,
    switching,
    bounded,
    grafted,
)

#: What a family's file defines, by the names that the rows have.
RULES: dict[str, Callable[..., Iterator[Any]]] = {
    name: rule
    for family in _FAMILIES
    for name, rule in inspect.getmembers(family, inspect.isfunction)
    if rule.__module__ == family.__name__ and not name.startswith("_")
}

# These look at the whole tree at once, so they receive it as a list of arrays, and a
# weight decay for each.
WHOLE_TREE = ("swats", "swats_any", "graftbound")


def run(
    name: str,
    params: Mapping[str, np.ndarray],
    grads: Sequence[Mapping[str, np.ndarray]]
    | Callable[[int, Tree], Mapping[str, Any]],
    learning_rate: float | Callable[[int], float],
    *,
    steps: int | None = None,
    l2: float = 0.0,
    mask: Mapping[str, bool] | None = None,
    **hyper: Any,
) -> list[Tree]:
    """Follow the rule `name` and return the parameters after every step.

    Args:
        name: a key of `RULES`.
        params: the starting point; computed in float64 whatever its dtype.
        grads: one tree a step, or a function of t = 1, 2, ... and the parameters, which
            needs `steps`.
        learning_rate: a number, or a schedule that counts steps from 0.
        steps: how many steps to take; by default all of `grads`.
        l2: a multiple of the parameters that is added to the gradient (coupled decay).
        mask: leaves that `l2` and the rule's `weight_decay` apply to; default all.
        **hyper: the rule's own arguments. `weight_decay` may be a schedule.
    """
    start = {key: np.asarray(value, np.float64) for key, value in params.items()}
    if callable(grads):
        compute = grads
    else:
        compute = lambda t, _: grads[t - 1]  # noqa: E731
        steps = len(grads) if steps is None else steps
    schedule = learning_rate if callable(learning_rate) else lambda _: learning_rate

    def alpha(t: int) -> float:
        return float(schedule(t - 1))

    def decayed(key: str) -> bool:
        return mask is None or mask[key]

    def gradient(t: int, x: Tree, key: str) -> np.ndarray:
        g = np.asarray(compute(t, x)[key], np.float64)
        return g + (l2 if decayed(key) else 0.0) * x[key]

    rule = RULES[name]
    if name in WHOLE_TREE:
        if "weight_decay" in hyper:
            decay = hyper["weight_decay"]
            hyper["weight_decay"] = [decay if decayed(key) else 0.0 for key in start]

        def gradients(t: int, xs: list[np.ndarray]) -> list[np.ndarray]:
            tree = dict(zip(start, xs, strict=True))
            return [gradient(t, tree, key) for key in tree]

        path = rule(list(start.values()), gradients, alpha, **hyper)
        return [
            dict(zip(start, xs, strict=True)) for xs in itertools.islice(path, steps)
        ]

    # Side by side, since a gradient may depend on all leaves.
    tree = start

    def follow(key: str) -> Iterator[np.ndarray]:
        own = dict(hyper)
        if "weight_decay" in own and not decayed(key):
            own["weight_decay"] = 0.0
        at = lambda t, x: gradient(t, {**tree, key: x}, key)  # noqa: E731
        return rule(start[key], at, alpha, **own)

    leaves = {key: follow(key) for key in start}
    path = []
    for _ in range(steps or 0):
        tree = {key: next(leaf) for key, leaf in leaves.items()}
        path.append(tree)
    return path
