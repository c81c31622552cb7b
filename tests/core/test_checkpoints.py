"""States that earlier versions saved go on, row by row, and their form is a page."""

import functools

import chex
import jax
import numpy as np
import pytest
from golden import checkpoints

import optjax

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

VERSIONS = [path.stem for path in sorted(checkpoints.FOLDER.glob("*.json"))]
restore = functools.cache(checkpoints.restore)


def of_this_version():
    """Every row's state and updates, from whichever folder has it."""
    names = checkpoints.folders(optjax.__version__)
    return {row: saved for name in names for row, saved in restore(name).items()}


def test_this_version_has_a_checkpoint_of_every_row():
    assert set(of_this_version()) == set(optjax.OPTIMIZERS)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("row", optjax.OPTIMIZERS)
def test_restored_and_continued(row, version):
    if row not in restore(version):
        pytest.skip("the row is younger")
    state, expected = restore(version)[row]
    chex.assert_trees_all_equal_shapes_and_dtypes(state, checkpoints.start(row)[0])
    steps = range(checkpoints.STEPS, checkpoints.STEPS + 1)
    _, updates = checkpoints.after(row, state, steps)
    for key, rtol in (("kernel", 2e-6), ("bias", 2**-7)):
        assert updates[key].dtype == expected[key].dtype
        got, want = (np.asarray(x[key], np.float32) for x in (updates, expected))
        # Of the largest: a step and a decay may all but cancel in one coordinate.
        np.testing.assert_allclose(got, want, 0, rtol * np.max(np.abs(want)))
        assert np.any(got != 0)


@pytest.mark.parametrize("row", optjax.OPTIMIZERS)
def test_what_is_restored_is_what_the_steps_give(row):
    """So that a checkpoint is no proof of itself."""
    state, _ = of_this_version()[row]
    fresh, _ = checkpoints.after(
        row, checkpoints.start(row)[0], range(checkpoints.STEPS)
    )
    for got, want in zip(*map(jax.tree.leaves, (state, fresh)), strict=True):
        got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
        np.testing.assert_allclose(got, want, 2**-7, 1e-12)


def test_the_page_of_states_is_that_of_the_states():
    assert checkpoints.PAGE.read_text() == checkpoints.page(), (
        "run python -m tests.golden.checkpoints; but a field that is renamed, moved or "
        "gone breaks every checkpoint of users"
    )
