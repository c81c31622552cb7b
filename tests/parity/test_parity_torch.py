"""The same cases as test_parity_golden.py, against the libraries themselves.

Skipped where PyTorch, or the case's library, is not installed.
"""

import functools

import pytest
from golden import problem
from golden.cases import CASES
from golden.ours import OURS, arranged, path
from golden.trajectories import INDICES, stored
from reference.scan import assert_same_path, moved

pytest.importorskip("torch")

NAMED = {case.name: case for case in CASES}


@functools.cache
def live(name):
    """What the installed library does, at every step."""
    case = NAMED[name]
    if case.library != "torch":
        pytest.importorskip(case.library)
    # Imports PyTorch, so not at the top.
    from golden import libraries

    params, _ = problem.load(case.problem)
    return moved(libraries.follow(case), params)


@pytest.mark.parametrize("case", OURS, ids=lambda case: case.name)
def test_ours_is_the_library(case):
    assert_same_path(path(case), arranged(case, live(case.name)), case.rtol)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_committed_trajectory_is_still_the_library(case):
    committed = {key: value[INDICES] for key, value in live(case.name).items()}
    assert_same_path(committed, stored(case), 1e-9)
