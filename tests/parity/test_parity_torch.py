"""The same cases as test_parity_golden.py, against the libraries themselves.

Skipped where PyTorch, or the case's library, is not installed.
"""

import functools

import pytest
from golden import problem
from golden.cases import CASES
from golden.ours import optimizer
from golden.trajectories import INDICES, stored
from reference.scan import assert_same_path, follow, moved

pytest.importorskip("torch")

OURS = [case for case in CASES if case.ours]


def live(case):
    """What the installed library does, at every step."""
    if case.library != "torch":
        pytest.importorskip(case.library)
    # Imports PyTorch, so not at the top.
    from golden import libraries

    params, _ = problem.load(case.problem)
    return moved(libraries.follow(case), params)


@functools.cache
def paths(problem_name, l2):
    """Ours, for all cases that one program can follow together."""
    cases = [case for case in OURS if (case.problem, case.l2) == (problem_name, l2)]
    params, grads = problem.load(problem_name)
    return follow({case.name: optimizer(case) for case in cases}, params, grads, l2=l2)


@pytest.mark.parametrize("case", OURS, ids=lambda case: case.name)
def test_ours_is_the_library(case):
    actual = paths(case.problem, case.l2)[case.name]
    assert_same_path(actual, live(case), case.rtol)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_committed_trajectory_is_still_the_library(case):
    committed = {key: value[INDICES] for key, value in live(case).items()}
    assert_same_path(committed, stored(case), 1e-9)
