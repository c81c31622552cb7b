"""The committed trajectories of PyTorch, adabound and pytorch_optimizer.

Two claims for every case: the NumPy rule says exactly what the library does, and ours
follows the library. tests/golden/regenerate.py remakes the files.
"""

import numpy as np
import pytest
from golden import problem
from golden.cases import CASES
from golden.ours import OURS, arranged, path
from golden.trajectories import INDICES, stored
from reference import run
from reference.scan import assert_same_path, moved


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_numpy_rule_is_the_library(case):
    params, grads = problem.load(case.problem)
    path = run(
        case.rule,
        params,
        grads,
        case.learning_rate,
        l2=case.l2,
        **case.rule_arguments,
    )
    # PyTorch keeps the product of NAdam's momenta in float32 even for float64.
    rtol = 1e-7 if case.reference == "NAdam" else 1e-11
    actual = {key: value[INDICES] for key, value in moved(path, params).items()}
    assert_same_path(actual, stored(case), rtol)


@pytest.mark.parametrize("case", OURS, ids=lambda case: case.name)
def test_ours_is_the_library(case):
    expected = arranged(case, stored(case))
    assert_same_path(path(case), expected, case.rtol, INDICES)


def test_the_problem_is_what_its_description_says():
    params, grads = problem.load("mixed")
    assert {np.ndim(value) for value in params.values()} == {0, 1, 2, 4}
    assert params["column"].shape == (5, 1)
    every = np.stack([np.ravel(tree["vector"]) for tree in grads])
    assert np.all(every[:, -1] == 0)
    assert np.max(np.abs(every)) > 1e3
    assert 0 < np.max(np.abs(every[:, 0])) < 1e-5
    kernel = np.stack([tree["kernel"] for tree in grads])
    assert np.mean(np.sign(kernel[1:]) != np.sign(kernel[:-1])) > 0.3
    assert np.mean(np.stack([tree["column"] for tree in grads]) == 0) > 0.8
    assert len(grads) == problem.STEPS >= 100
