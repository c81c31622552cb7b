"""A case's optimizer of the family, and its path."""

import functools

import optax
from reference.flags import BY_LEAF, joined
from reference.scan import Path, follow

import optjax

from .cases import CASES, Case
from .problem import load

#: Those that the family has.
OURS = [case for case in CASES if case.ours]


def optimizer(case: Case) -> optax.GradientTransformationExtraArgs:
    """The factory that the case names, with its mapped arguments."""
    assert case.ours is not None
    factory = getattr(optjax, case.ours)
    if case.outer_schedule:
        # factory(1.0) already descends, so the schedule keeps its sign.
        return optax.chain(
            factory(1.0, **case.mapped),
            optax.scale_by_schedule(case.learning_rate),
        )
    return factory(case.learning_rate, **case.mapped)


def path(case: Case) -> Path:
    """The displacements of the case's coordinates after every step."""
    return _paths(*_together(case))[case.name]


def arranged(case: Case, path: Path) -> Path:
    """Another path of the case, in the arrays of `path`."""
    return path if case.ours in BY_LEAF else joined(path, axis=1)


def _together(case: Case) -> tuple[str, float, bool]:
    return case.problem, case.l2, case.ours in BY_LEAF


@functools.cache
def _paths(problem: str, l2: float, by_leaf: bool) -> dict[str, Path]:
    """Of all cases that one program can follow together."""
    cases = [case for case in OURS if _together(case) == (problem, l2, by_leaf)]
    params, grads = load(problem)
    if not by_leaf:
        params, grads = joined(params), [joined(tree) for tree in grads]
    transformations = {case.name: optimizer(case) for case in cases}
    return follow(transformations, params, grads, l2=l2)
