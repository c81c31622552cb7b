"""Stopping rules: when they decide, who goes on, and a rule of a user's own."""

import dataclasses
import importlib
import json
import os
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest
import ready
import sweep_worker

from optjax import sweep
from optjax.sweep import Median, SuccessiveHalving, SweepError
from optjax.sweep._stopping import Rungs, decisions

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

NEVER = -np.inf


def rungs(min_steps=10, eta=3, evaluate_every=5, evaluations=100):
    """The rungs in evaluations, checked."""
    rule = SuccessiveHalving(min_steps, eta)
    return decisions(rule, evaluate_every * evaluations, evaluate_every)


class Rung:
    """Trials that come to one decision, call by call, as the scheduler shows them."""

    def __init__(self, rule, at=1):
        self.at, self.rungs = at, Rungs(rule, (at,))

    def go_on(self, *scores):
        arrived = np.array(scores, np.float32).reshape(len(scores), -1)
        stopped = self.rungs.stop(self.at, dict(enumerate(arrived)))
        return [trial not in stopped for trial in range(len(scores))]


def halving(eta=3):
    return Rung(SuccessiveHalving(10, eta))


# ---------------------------------------------------------------- successive halving


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
    assert rungs(min_steps, eta, evaluate_every, evaluations) == at


def test_the_best_third_of_those_that_arrive_together_goes_on():
    assert halving().go_on(1.0, 6.0, 3.0, 5.0, 2.0, 4.0) == [
        False,
        True,
        False,
        True,
        False,
        False,
    ]


def test_at_least_one_goes_on():
    assert halving().go_on(1.0, 2.0) == [False, True]
    assert halving().go_on(1.0) == [True]


def test_later_arrivals_are_compared_with_all_that_were_there():
    rung = halving()
    assert rung.go_on(1.0, 2.0, 3.0) == [False, False, True]
    # Four were there: one place, held by 3.
    assert rung.go_on(2.5) == [False]
    # Five: still one.
    assert rung.go_on(3.5) == [True]
    # Six: two places, 3.5 and 3.
    assert rung.go_on(2.9) == [False]
    # Nine: three places; 4, 5 and 6 hold them.
    assert rung.go_on(4.0, 5.0, 6.0) == [True, True, True]
    assert rung.go_on(3.6) == [False]


def test_equal_scores_share_their_fate():
    assert halving(eta=2).go_on(1.0, 1.0, 1.0, 1.0) == [True] * 4
    assert halving(eta=2).go_on(2.0, 1.0, 1.0, 0.0) == [True, True, True, False]


def test_diverged_trials_count_as_arrived():
    rung = halving()
    assert rung.go_on(NEVER, NEVER, 1.0, 2.0, 0.0, NEVER) == [
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


# ------------------------------------------------------------------- the median rule


def by_hand(arrived, everyone):
    """The rule as the paper has it, one trial after the other, in float64."""
    averages = [np.mean([float(x) for x in row]) for row in everyone]
    return [max(map(float, row)) >= np.median(averages) for row in arrived]


def test_the_median_rule_compares_bests_with_the_median_of_averages():
    random = np.random.default_rng(0)
    for together in (1, 3, 8):
        everyone = random.normal(size=(24, 6)).astype(np.float32)
        rung = Rung(Median(10, min_trials=1), at=6)
        for first in range(0, len(everyone), together):
            arrived = everyone[first : first + together]
            said = rung.go_on(*arrived)
            assert said == by_hand(arrived, everyone[: first + together])


def test_halving_keeps_those_of_a_sort_of_all():
    """In heaps, as if all that ever came were sorted anew each time."""
    random = np.random.default_rng(1)
    scores = random.integers(0, 50, size=400).astype(np.float32)
    scores[random.uniform(size=400) < 0.1] = NEVER
    rung, first = halving(eta=3), 0
    while first < len(scores):
        together = int(random.integers(1, 6))
        arrived, first = scores[first : first + together], first + together
        everyone = np.sort(scores[:first])
        places = max(1, len(everyone) // 3)
        assert rung.go_on(*arrived) == (arrived >= everyone[-places]).tolist()


def test_a_trial_with_a_good_best_goes_on_though_its_last_value_is_bad():
    rule = Median(warm_up=10, min_trials=1)
    everyone = np.array([[0.5, 0.5], [0.6, 0.6], [0.9, 0.0], [0.4, 0.3]], np.float32)
    assert Rung(rule, at=2).go_on(*everyone) == [True, True, True, False]


def test_all_go_on_while_few_have_come_and_the_diverged_count_as_the_worst():
    rung = Rung(Median(warm_up=5, min_trials=4))
    assert rung.go_on(1.0, 2.0, 0.0) == [True] * 3
    # Of 0, 1, 2 and 0.5 the median is 0.75.
    assert rung.go_on(0.5) == [False]
    lost = Rung(Median(warm_up=5, min_trials=1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert lost.go_on(NEVER, NEVER, 0.1) == [True, True, True]
        assert lost.go_on(0.0, 0.2, 0.3)[1:] == [True, True]


@pytest.mark.parametrize(
    ("rule", "at"),
    [
        (Median(10), (2, 3, 4, 5)),
        (Median(10, every=10), (2, 4)),
        (Median(25), (5,)),
    ],
)
def test_the_median_rule_decides_after_its_warm_up(rule, at):
    assert decisions(rule, 30, 5) == at


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Median(0), "warm_up must be an integer >= 1, got 0"),
        (Median(7), "warm_up must be a positive multiple of evaluate_every=5, got 7"),
        (Median(30), "warm_up must be less than the whole budget of 30 steps, got 30"),
        (Median(10, every=7), "every must be a positive multiple of evaluate_every=5"),
        (Median(10, min_trials=0), "min_trials must be an integer >= 1, got 0"),
    ],
)
def test_a_median_rule_that_cannot_be_is_refused(rule, message):
    with pytest.raises(SweepError, match=message):
        decisions(rule, 30, 5)


# -------------------------------------------------------------- a rule of one's own

RULES = """
import dataclasses

import numpy as np

from optjax import sweep


@dataclasses.dataclass(frozen=True)
class TopShare:
    share: float

    def decides_at(self, steps, evaluate_every):
        return range(2 * evaluate_every, steps, 2 * evaluate_every)

    def rung(self):
        last = []

        def go_on(arrived):
            last.extend(arrived[:, -1])
            return arrived[:, -1] >= np.quantile(last, 1 - self.share)

        return go_on
"""

DIES = """
import sys

import sweep_worker
from top_share import TopShare

sweep_worker.KEYWORDS["stopping"] = TopShare(0.4)
sweep_worker.main("killed", "append", "6")
"""


def test_a_rule_of_ones_own_survives_kill_9_and_takes_part_in_the_identity(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in (("top_share.py", RULES), ("dies.py", DIES)):
        (tmp_path / name).write_text(text)

    def work(out, share=0.4):
        monkeypatch.delitem(sys.modules, "top_share", raising=False)
        rule = importlib.import_module("top_share").TopShare(share)
        monkeypatch.setitem(sweep_worker.KEYWORDS, "stopping", rule)
        sweep_worker.main(out)

    def tables(out):
        names = ("results.csv", "curves.csv")
        return [(tmp_path / out / name).read_bytes() for name in names]

    work("whole")
    whole = tables("whole")
    assert whole[0].count(b"stopped") > 4
    path = os.pathsep.join([os.path.dirname(sweep_worker.__file__), *sys.path])
    killed = subprocess.run(
        [*ready.python(), "dies.py"], env={**os.environ, "PYTHONPATH": path}
    )
    assert killed.returncode == -signal.SIGKILL
    work("killed")
    assert tables("killed") == whole
    said = json.loads((tmp_path / "whole" / "sweep" / "sweep.json").read_text())
    assert said["stopping"] == {"is": "TopShare", "share": 0.4}
    # Other fields, and other code.
    words = r"stopping was TopShare\(share=0.4\) and is TopShare\(share=0.5\)"
    with pytest.raises(SweepError, match=words):
        work("whole", share=0.5)
    changed = RULES.replace("[:, -1] >=", ".max(axis=1) >=")
    (tmp_path / "top_share.py").write_text(changed)
    words = r"the stopping rule TopShare\(share=0.4\) differs"
    with pytest.raises(SweepError, match=words):
        work("whole")
    assert tables("whole") == whole


@dataclasses.dataclass(frozen=True)
class Rule:
    at: tuple = (10,)
    answer: object = (True, True)

    def decides_at(self, steps, evaluate_every):
        return self.at

    def rung(self):
        return self.go_on

    def go_on(self, arrived):
        if isinstance(self.answer, Exception):
            raise self.answer
        return np.array(self.answer)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            Rule(at=(7,)),
            "Rule must decide at multiples of evaluate_every=5 below steps=",
        ),
        (Rule(at=(0,)), "got 0"),
        (Rule(at=(30,)), "got 30"),
        (Rule(answer=True), r"Rule must say of each .*; of 2 its rung returned bool"),
        (Rule(answer=(1.0, 0.0)), r"of 2 its rung returned float64\[2\]"),
        (
            Rule(answer=OSError("no\nfile")),
            r"Rule raised OSError: no \(.*test_stopping.py, line \d+\)$",
        ),
        (3, "stopping must be None or an object with decides_at and rung, got 3"),
    ],
)
def test_a_rule_that_cannot_answer_is_refused_before_any_work(rule, message):
    def trial(factory):
        return sweep.Trial(
            lambda key, hyper: hyper["learning_rate"],
            lambda state: (state, {}),
            lambda state: {"loss": state},
        )

    with pytest.raises(SweepError, match=message):
        sweep.run(
            trial,
            {"optimizer": "sgd", "learning_rate": 0.1},
            steps=30,
            evaluate_every=5,
            metric="loss",
            mode="min",
            stopping=rule,
        )
