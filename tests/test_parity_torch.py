"""The same cases as test_parity_golden.py, against the libraries themselves.

Skipped where PyTorch, or the case's library, is not installed.
"""

import pytest
from golden import problem
from golden.cases import CASES
from golden.trajectories import INDICES, stored
from reference.scan import assert_same_path, displacements, moved

pytest.importorskip("torch")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_live(case):
    if case.library != "torch":
        pytest.importorskip(case.library)
    from golden.libraries import follow
    from golden.ours import optimizer

    params, grads = problem.load(case.problem)
    live = moved(follow(case), params)

    committed = {key: value[INDICES] for key, value in live.items()}
    assert_same_path(committed, stored(case), 1e-9)

    if case.ours is not None:
        actual = displacements(optimizer(case), params, grads, l2=case.l2)
        assert_same_path(actual, live, case.rtol)
