"""Successive halving: where the rungs are, and who goes on at each."""

import numpy as np
import pytest

from optjax.sweep import SuccessiveHalving, SweepError
from optjax.sweep._stopping import Rungs

NEVER = -np.inf


def rungs(min_steps=10, eta=3, evaluate_every=5, evaluations=100):
    return Rungs(SuccessiveHalving(min_steps, eta), evaluate_every, evaluations)


def go_on(at_rungs, *scores, rung=2):
    return at_rungs.go_on(rung, np.array(scores)).tolist()


@pytest.mark.parametrize(
    ("min_steps", "eta", "evaluate_every", "evaluations", "at"),
    [
        (10, 3, 5, 100, (2, 6, 18, 54)),
        (30, 2, 5, 18, (6, 12)),
        (1, 4, 1, 64, (1, 4, 16)),
        # A rung at the whole budget would stop nobody.
        (10, 3, 5, 18, (2, 6)),
        (10, 3, 5, 19, (2, 6, 18)),
        (10, 3, 5, 3, (2,)),
    ],
)
def test_rungs_are_powers_below_the_budget(
    min_steps, eta, evaluate_every, evaluations, at
):
    assert rungs(min_steps, eta, evaluate_every, evaluations).at == at


def test_without_halving_there_are_no_rungs():
    assert Rungs(None, 5, 100).at == ()


def test_the_best_third_of_those_that_arrive_together_goes_on():
    assert go_on(rungs(), 1.0, 6.0, 3.0, 5.0, 2.0, 4.0) == [
        False,
        True,
        False,
        True,
        False,
        False,
    ]


def test_at_least_one_goes_on():
    assert go_on(rungs(), 1.0, 2.0) == [False, True]
    assert go_on(rungs(), 1.0) == [True]


def test_later_arrivals_are_compared_with_all_that_were_there():
    at_rungs = rungs()
    assert go_on(at_rungs, 1.0, 2.0, 3.0) == [False, False, True]
    # Four were there: one place, held by 3.
    assert go_on(at_rungs, 2.5) == [False]
    # Five: still one.
    assert go_on(at_rungs, 3.5) == [True]
    # Six: two places, 3.5 and 3.
    assert go_on(at_rungs, 2.9) == [False]
    # Nine: three places; 4, 5 and 6 hold them.
    assert go_on(at_rungs, 4.0, 5.0, 6.0) == [True, True, True]
    assert go_on(at_rungs, 3.6) == [False]


def test_each_rung_has_its_own_trials():
    at_rungs = rungs()
    go_on(at_rungs, 7.0, 8.0, 9.0)
    assert go_on(at_rungs, 1.0, rung=6) == [True]


def test_equal_scores_share_their_fate():
    assert go_on(rungs(eta=2), 1.0, 1.0, 1.0, 1.0) == [True] * 4
    assert go_on(rungs(eta=2), 2.0, 1.0, 1.0, 0.0) == [True, True, True, False]


def test_diverged_trials_never_go_on_but_count_as_arrived():
    assert go_on(rungs(), NEVER) == [False]
    assert go_on(rungs(), NEVER, NEVER, NEVER) == [False] * 3
    at_rungs = rungs()
    assert go_on(at_rungs, NEVER, NEVER, 1.0, 2.0, 0.0, NEVER) == [
        False,
        False,
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("eta", [1, 0, -2, 2.5, 3.0])
def test_eta_must_reduce(eta):
    with pytest.raises(SweepError, match=rf"eta must be .*>= 2, got {eta}$"):
        rungs(eta=eta)


@pytest.mark.parametrize("min_steps", [0, -5])
def test_min_steps_must_be_positive(min_steps):
    with pytest.raises(SweepError, match=rf"integer >= 1, got {min_steps}$"):
        rungs(min_steps=min_steps)


@pytest.mark.parametrize("min_steps", [7, 12])
def test_min_steps_must_be_at_an_evaluation(min_steps):
    with pytest.raises(
        SweepError, match=rf"multiple of evaluate_every=5, got {min_steps}$"
    ):
        rungs(min_steps=min_steps)


@pytest.mark.parametrize("min_steps", [500, 505])
def test_min_steps_must_be_below_the_budget(min_steps):
    with pytest.raises(SweepError, match=rf"less than .* 500 steps, got {min_steps}$"):
        rungs(min_steps=min_steps)
