"""optjax.pytorch against PyTorch and `adabound`: optimizers, keywords, schedulers."""

import functools

import jax
import numpy as np
import pytest
from golden import dialect
from golden.dialect import CASES
from reference import run
from reference.scan import assert_same_path, displacements, follow, moved

import optjax.pytorch

START, GRADS = dialect.problem()
INDICES = np.array(dialect.STORED) - 1


# Schedules in float32 have tests of their own.
SINGLE = [name for name, case in CASES.items() if case.scheduler is None]


@functools.cache
def paths(optimizer, dtype):
    """Ours, for all cases of one class together."""
    names = CASES if dtype == "float64" else SINGLE
    with jax.enable_x64(dtype == "float64"):
        ours = {
            name: dialect.ours(CASES[name])
            for name in names
            if CASES[name].optimizer == optimizer
        }
        return follow(ours, START, GRADS, dtype)


@pytest.mark.parametrize(
    ("name", "dtype", "rtol"),
    [(name, "float64", 1e-11) for name in CASES]
    + [(name, "float32", 1e-5) for name in SINGLE],
)
def test_ours_is_pytorch(name, dtype, rtol):
    actual = paths(CASES[name].optimizer, dtype)[name]
    expected = moved(dialect.committed(name), START)
    start = START if dtype == "float64" else None
    assert_same_path(actual, expected, rtol, INDICES, start)


@pytest.mark.parametrize("name", CASES)
def test_the_committed_trajectory_is_still_pytorch(name):
    pytest.importorskip("torch")
    pytest.importorskip("adabound")
    live = moved(dialect.follow(CASES[name]), START)
    live = {key: value[INDICES] for key, value in live.items()}
    assert_same_path(live, moved(dialect.committed(name), START), 1e-12, start=START)


@pytest.mark.parametrize("amsbound", [False, True])
def test_adaboundw_is_the_authors(amsbound):
    """Whose repository has it and whose package does not: by the NumPy rule."""
    arguments = {"gamma": 0.05, "weight_decay": 0.01, "amsbound": amsbound}
    path = run("adaboundw", START, GRADS, 1e-2, fixed_decay=True, **arguments)
    with jax.enable_x64(True):
        tx = optjax.pytorch.AdaBoundW(lr=1e-2, **arguments)
        actual = displacements(tx, START, GRADS, "float64")
    assert_same_path(actual, moved(path, START), 1e-11, start=START)
