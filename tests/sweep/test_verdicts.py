"""Planted cases: each verdict where it is due, and nowhere else."""

import functools
import itertools
import math
import pickle
import re
import shlex

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

import optjax
from optjax._cli.options import RaceOptions, SweepOptions
from optjax._cli.words import parse
from optjax.sweep import (
    DIVERGED,
    FAILED,
    FINISHED,
    STOPPED,
    Config,
    Curve,
    Record,
    SweepError,
    SweepResult,
    TrialSpec,
    run,
)
from optjax.sweep._report.again import Range, again
from optjax.sweep._report.apart import LEVEL, Sample, is_told, probability, seeds_needed
from optjax.sweep._report.best_of import mean_of_best
from optjax.sweep._report.page import page_of
from optjax.sweep._report.profile import profile_page
from optjax.sweep._report.study import Study
from optjax.sweep._report.target import to_target
from optjax.sweep._report.winner import winner
from optjax.sweep._schedules import with_schedules

NAN = math.nan
NUMBER = itertools.count()


def trial(optimizer, hyper, seed, values, status=FINISHED, every=10):
    steps = tuple(every * (i + 1) for i in range(len(values)))
    curve = Curve(steps, {"score": tuple(map(float, values))})
    spec = TrialSpec(next(NUMBER), Config(optimizer, hyper, {}), seed)
    return Record(spec, status, steps[-1], curve)


def flat_then(value):
    """A curve that has long arrived."""
    return [value / 2, *[value] * 19]


def over(optimizer, scores, name="learning_rate", **others):
    """Trials by value of one hyper-parameter: a list of the seeds' scores each."""
    return [
        trial(optimizer, {name: x, **others}, seed, [0.1, NAN], DIVERGED)
        if score is None
        else trial(optimizer, {name: x, **others}, seed, flat_then(score))
        for x, seeds in scores.items()
        for seed, score in enumerate(seeds)
    ]


def verdicts(records, mode="max"):
    return SweepResult(tuple(records), "score", mode).verdicts()


def kinds(records, mode="max"):
    return [verdict.kind for verdict in verdicts(records, mode)]


def the(kind, records, mode="max"):
    (found,) = (v for v in verdicts(records, mode) if v.kind == kind)
    return found


# ------------------------------------------------------------------- who won


def peak(height, noise=0.0):
    """Scores over three rates, the best in the middle; three seeds."""
    return {
        rate: [height - drop + noise * s for s in (-1, 0, 1)]
        for rate, drop in ((0.01, 0.2), (0.1, 0.0), (1.0, 0.2))
    }


def test_a_winner_by_more_than_chance():
    records = [*over("adam", peak(0.9, 0.001)), *over("sgd", peak(0.8, 0.001))]
    found = the("winner", records)
    assert found.level == "good"
    assert "adam is best" in found.says
    assert "seeds" not in kinds(records)


def test_equal_medians_are_said_to_tie():
    records = [
        *over("adam", peak(0.9, 0.001)),
        *over("sgd", peak(0.9, 0.001)),
        *over("adagrad", peak(0.7, 0.001)),
    ]
    assert the("tie", records).says == "2 tie for the first place: adam and sgd."
    assert "winner" not in kinds(records)


def test_too_few_seeds_and_how_many_would_do():
    records = [*over("adam", peak(0.9, 0.02)), *over("sgd", peak(0.88, 0.02))]
    found = the("seeds", records)
    assert "3 seeds do not tell it from sgd" in found.says
    needed = int(found.next.removeprefix("seeds="))
    # t needs 2 · ((2.58 + 0.84) · 0.02 / 0.02)² ≈ 23, and more as it is no normal.
    assert 23 <= needed <= 28
    rng = np.random.default_rng(0)
    first, second = rng.normal([[0.9], [0.88]], 0.02, (400, 2, needed)).swapaxes(0, 1)
    p = stats.ttest_ind(first, second, axis=1, equal_var=False).pvalue
    assert 0.75 < np.mean(p < LEVEL) < 0.88


def cut(records, seeds):
    """Those of these seeds stopped after a tenth."""
    return [
        trial(*record.trial.config[:2], record.trial.seed, [0.1] * 2, STOPPED)
        if record.trial.seed in seeds
        else record
        for record in records
    ]


def test_seeds_compare_what_went_to_the_same_length():
    first, close = over("adam", peak(0.9, 0.02)), over("sgd", peak(0.88, 0.02))
    far = over("adagrad", peak(0.5, 0.02))
    whole = the("seeds", [*first, *close])
    alone = the("seeds", [*first, *cut(close, {2}), *cut(far, {0, 1})])
    assert "adam is first, but the rule stopped trials of every other" in alone.says
    assert "seeds would" not in alone.evidence
    assert not alone.next
    itself = the("seeds", [*cut(first, {0}), *far])
    assert "adam is first, but the rule stopped trials of it too" in itself.says
    assert not itself.next
    some = the("seeds", [*first, *close, *cut(far, {0})])
    assert some.says == whole.says
    assert whole.next
    assert not some.next
    assert some.evidence.endswith(
        " Not compared is 1 other of which the rule stopped trials."
    )
    won = the("winner", [*first, *cut(close, {0}), *far])
    assert "The next, adagrad, has 0.5;" in won.evidence
    assert "1 other of which the rule stopped trials" in won.evidence


def test_after_a_rule_one_seed_is_followed_by_a_run_without_it():
    one = [*over("adam", {0.1: [0.9]}), *over("sgd", {0.1: [0.8]})]
    assert the("seeds", one).next == "seeds=5"
    found = the("seeds", [*one, *cut(over("adagrad", {0.1: [0.8]}), {0})])
    assert "without a stopping rule" in found.evidence
    assert not found.next


def test_one_seed_says_nothing():
    records = [
        *over("adam", {0.1: [0.9], 0.01: [0.1]}),
        *over("sgd", {0.1: [0.5], 0.01: [0.1]}),
    ]
    assert "One seed" in the("seeds", records).says


def test_a_diverged_seed_does_not_make_a_winner():
    risky = over("adam", {0.1: [0.99, 0.99, None]})
    safe = over("sgd", {0.1: [0.9, 0.901, 0.899]})
    assert "do not tell" in the("seeds", [*risky, *safe]).says


def test_all_diverged():
    found = verdicts(over("sgd", {0.1: [None, None], 1.0: [None, None]}))
    assert [verdict.kind for verdict in found] == ["lost"]


def lost_by(rates, score, **others):
    """Trials of two evaluations that a metric beside the one that ranks has ended."""
    records = over("sgd", {rate: [None, None] for rate in rates})
    values = {"score": (0.1, score), **{name: (1.0, v) for name, v in others.items()}}
    curve = Curve((10, 20), values)
    return [record._replace(steps=20, curve=curve) for record in records]


def test_what_diverged_by_another_metric_is_told_so_and_not_sent_to_smaller_rates():
    noisy = lost_by([0.1, 1.0], 0.2, noise=NAN, finite=1.0)
    lost = the("lost", noisy)
    assert "In 4 of these score was finite and noise was not" in lost.says
    assert "allow_nan=" in lost.evidence
    assert "smaller" not in lost.evidence
    assert not lost.next
    # What says that it is unsound is; what says nothing may be either.
    unsound = the("lost", lost_by([0.1], 0.2, loss=NAN, finite=0.0))
    assert "was not" not in unsound.says
    assert "allow_nan=" not in unsound.evidence
    assert unsound.next
    unknown = the("lost", lost_by([0.1], 0.2, loss=NAN))
    assert "loss was not" in unknown.says
    assert "smaller learning rates" in unknown.evidence
    assert "allow_nan=" in unknown.evidence
    assert unknown.next
    fine = [
        trial("sgd", {"learning_rate": 0.01}, seed, [0.1, 0.2])._replace(
            curve=Curve(
                (10, 20),
                {"score": (0.1, 0.2), "noise": (1.0, 1.0), "finite": (1.0, 1.0)},
            )
        )
        for seed in (0, 1)
    ]
    some = the("diverged", [*fine, *noisy])
    assert "In 4 of these score was finite and noise was not" in some.evidence
    assert not some.next
    # Where the metric itself is not finite, the learning rate it is.
    own = the("lost", lost_by([0.1, 1.0], NAN, noise=NAN))
    assert "smaller learning rates" in own.evidence
    assert own.next


def test_what_failed_is_not_said_to_have_diverged():
    diverged = over("adam", {0.1: [None, None]})
    failed = [
        record._replace(status=FAILED) for record in over("sgd", {0.1: [None, None]})
    ]
    assert the("lost", [*diverged, *failed]).says.startswith(
        "Every configuration diverged or failed "
    )


@pytest.mark.parametrize("draw", ["normal", "lognormal", "accuracy"])
@pytest.mark.parametrize("seeds", [3, 5])
def test_identical_rows_under_two_names_tie(draw, seeds):
    """In 95 % of 200 races or more, the best of three rates each."""
    rng = np.random.default_rng(seeds)

    def scores():
        if draw == "accuracy":
            return rng.binomial(360, 0.97, seeds) / 360
        return getattr(rng, draw)(0.0, 0.1, seeds)

    told = 0
    for _ in range(200):
        records = [
            trial(name, {"learning_rate": rate}, seed, [score])
            for name in ("adam", "twin")
            for rate in (0.01, 0.1, 1.0)
            for seed, score in enumerate(scores())
        ]
        study = Study(SweepResult(tuple(records), "score", "max"))
        told += "winner" in [verdict.kind for verdict in winner(study)]
    assert told <= 10


def test_the_test_is_games_and_howells():
    rng = np.random.default_rng(1)
    groups = [rng.normal(m, s, n) for m, s, n in ((0, 1, 4), (1, 2, 5), (3, 0.5, 6))]
    samples = [Sample.of(list(group)) for group in groups]
    # For two groups it is Welch's t.
    p = stats.ttest_ind(groups[0], groups[1], equal_var=False).pvalue
    assert probability(samples[0], samples[1], 2) == pytest.approx(p, rel=1e-9)
    if "equal_var" in stats.tukey_hsd.__kwdefaults__ or {}:
        wanted = stats.tukey_hsd(*groups, equal_var=False).pvalue
        for i, j in itertools.combinations(range(3), 2):
            got = probability(samples[i], samples[j], 3)
            assert got == pytest.approx(wanted[i, j], rel=1e-6)
    for i, j in itertools.combinations(range(3), 2):
        p = probability(samples[i], samples[j], 3)
        assert is_told(samples[i], samples[j], 3) == (p < LEVEL)


def test_what_is_equal_needs_no_number_of_seeds():
    same = Sample(3, 0.5, 1e-4)
    assert seeds_needed(same, same, 2) is None
    assert seeds_needed(same, Sample(3, 0.5001, 1e-2), 2) is None


# ------------------------------------------------------------- what was tried


def test_the_best_at_the_edge():
    rising = {0.01: [0.5] * 2, 0.1: [0.7] * 2, 1.0: [0.9] * 2}
    found = the("edge", over("sgd", rising))
    assert "1, lies at the edge" in found.says
    assert found.next == '"learning_rate": [0.01, 0.1, 1, 10, 100]'
    falling = dict(zip(rising, reversed(rising.values()), strict=True))
    assert "[0.0001, 0.001, 0.01, 0.1, 1]" in the("edge", over("sgd", falling)).next
    half_decades = {0.001: [0.5], 0.003: [0.6], 0.01: [0.7]}
    found = the("edge", over("sgd", half_decades))
    assert "[0.001, 0.003, 0.01, 0.03, 0.1]" in found.next
    assert "edge" not in kinds(over("sgd", peak(0.9)))


def test_a_decay_is_widened_towards_one():
    records = over("adam", {0.5: [0.5], 0.9: [0.7], 0.99: [0.9]}, "b1")
    assert the("edge", records).next == '"b1": [0.5, 0.9, 0.99, 0.999, 0.9999]'
    records = over("adam", {0.9: [0.9], 0.99: [0.7], 0.999: [0.5]}, "b2")
    assert the("edge", records).next == '"b2": [0, 0.9, 0.99, 0.999]'


def test_a_range_that_was_drawn_is_widened_as_a_range():
    rng = np.random.default_rng(0)
    rates = 10 ** rng.uniform(-3, -1, 64)
    records = over("sgd", {float(r): [float(np.log10(r))] for r in rates})
    found = the("edge", records)
    assert '"learning_rate": optjax.sweep.log_uniform(0.001, ' in found.next
    middle = over("sgd", {float(r): [-abs(float(np.log10(r)) + 2)] for r in rates})
    assert "edge" not in kinds(middle)


@pytest.mark.parametrize("best_at", [0, -1])
@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("learning_rate", 0.2, 0.9), ("learning_rate", 0.01, 0.9), ("b1", 0.6, 0.96)],
)
@pytest.mark.parametrize("draws", [3, 64])
def test_a_wider_range_has_no_value_that_is_refused(name, low, high, draws, best_at):
    """Few draws are no grid: of a range they have more digits than a hand writes."""
    rng = np.random.default_rng(1)
    tried = sorted(map(float, np.float32(rng.uniform(low, high, draws))))
    scores = np.linspace(0.5, 0.9, draws)[:: 1 if best_at else -1]
    pairs = zip(tried, scores, strict=True)
    records = over("adam", {x: [float(score)] for x, score in pairs}, name)
    asked = re.fullmatch(
        rf'"{name}": optjax.sweep.(?:log_)?uniform\((.*), (.*)\)',
        the("edge", records).next,
    )
    wider = tuple(map(float, asked.groups()))
    assert 0 < wider[0] < wider[1]
    assert (wider[0] < 0.9 * tried[0]) == (best_at == 0)
    assert (wider[1] > 1.01 * tried[-1]) == (best_at == -1)
    if name == "b1":
        assert wider[1] < 1


def test_the_range_that_was_asked_for_is_widened_and_not_that_of_its_draws():
    records = over("sgd", {0.0066054007: [0.5], 0.013180477: [0.6], 0.09523: [0.9]})

    def edge(space):
        command = ("optjax", "sweep", "d", "--draws", "3", "--space", space)
        found = SweepResult(tuple(records), "score", "max", command=command).verdicts()
        return [verdict.next for verdict in found if verdict.kind == "edge"]

    line = "optjax sweep d --draws 3 --space learning_rate="
    assert edge("learning_rate=log(1e-3, 0.1)") == [f"{line}'log(0.001, 1)'"]
    # The largest of three draws is not at the end of what they are drawn from.
    assert edge("learning_rate=log(1e-3, 1)") == []


@pytest.mark.parametrize("asked", ["", "uniform(0, 0.99)"])
def test_nothing_lies_below_nought_and_a_decay_stays_below_one(asked):
    def edge(scores, name):
        records = over("adam", {x: [score] for x, score in scores.items()}, name)
        command = ("optjax", "sweep", "d", "--space", f"{name}={asked}")
        result = SweepResult(
            tuple(records), "score", "max", command=command if asked else ()
        )
        return [v.next for v in result.verdicts() if v.kind == "edge"]

    rising, falling = {0.0: 0.1, 0.9: 0.2, 0.99: 0.3}, {0.0: 0.3, 0.9: 0.2, 0.99: 0.1}
    for name in ("b1", "weight_decay"):
        assert edge(falling, name) == []
    (wider,) = edge(rising, "b1")
    assert wider.endswith("'uniform(0, 0.999)'" if asked else "0.99, 0.999, 0.9999]")


def test_draws_go_where_the_next_values_are_a_list():
    """Of which so many draws would be a part, that may lack the wider ones."""
    command = "optjax sweep d --space a=log(0.01,1) b=0.1,1 --draws 2 --out x"
    assert again(command.split(), {"a": [1.0, 2.0]}, of=ADABOUND, grows=True) == (
        "optjax sweep d --out x-2 --space b=0.1,1 a='1, 2'"
    )
    both = "optjax sweep d --space a=log(0.01,1) b=uniform(0.1,1) --draws 2"
    assert "--draws 2" in again(both.split(), {"a": [1.0]}, of=ADABOUND, grows=True)
    listed = "optjax sweep d --space a=0.1,1 --draws 2 --out x"
    assert "--draws 2" in again(listed.split(), {"a": [1.0]}, of=ADABOUND, grows=True)


def test_values_stay_static_and_whole_in_the_next_command():
    command = "optjax sweep d --space a=static(0.0,0.1) --out x"
    assert again(command.split(), {"a": [0.0, 0.1]}, of=ADABOUND).endswith(
        "a='static(0, 0.1)'"
    )

    def widths(scores):
        return [
            record._replace(
                trial=record.trial._replace(
                    config=Config("sgd", {}, {"width": int(width)})
                )
            )
            for width, score in scores.items()
            for record in over("sgd", {0.1: [score]})
        ]

    rising = widths({64: 0.1, 128: 0.2, 256: 0.3})
    assert the("edge", rising).next == '"width": [64, 128, 256, 512, 1024]'
    falling = widths({2: 0.3, 4: 0.2, 8: 0.1})
    assert the("edge", falling).next == '"width": [1, 2, 4, 8]'


def test_those_that_are_not_first_are_named_too():
    edge = {0.01: [0.5] * 2, 0.1: [0.6] * 2, 1.0: [0.7] * 2}
    records = [*over("adam", peak(0.9)), *over("sgd", edge)]
    assert "sgd (learning_rate 1)" in the("edge-of-others", records).evidence
    assert "edge" not in kinds(records)


def test_the_share_that_diverged_and_from_where():
    scores = {0.01: [0.8] * 2, 0.1: [0.9] * 2, 1.0: [None] * 2, 10.0: [None] * 2}
    found = the("diverged", over("sgd", scores))
    assert found.level == "warning"
    assert found.says == "4 of 8 trials diverged (50%)."
    assert "learning_rate 1 or more" in found.evidence
    few = {0.01: [0.8] * 2, 0.1: [0.9] * 2, 1.0: [0.7, None]}
    assert the("diverged", over("sgd", few)).level == "note"
    assert "diverged" not in kinds(over("sgd", peak(0.9)))


def test_what_failed_is_said_with_its_message(tmp_path):
    spec = TrialSpec(99, Config("sgd", {"learning_rate": 0.1}, {}), 3)
    lost = Record(spec, FAILED, 0, Curve((), {}), "out of memory")
    records = [*over("sgd", peak(0.9)), *over("adam", peak(0.8)), lost]
    found = the("failed", records)
    assert found.says == "1 of 19 trials failed by an error."
    assert found.evidence == "out of memory"
    SweepResult(tuple(records), "score", "max").report(tmp_path / "page.html")
    assert "failed" not in kinds(records[:-1])


def test_a_plateau_and_a_rate_that_matters():
    plateau = {1e-3: [0.5], 1e-2: [0.9], 1e-1: [0.899], 1.0: [0.9], 10.0: [0.4]}
    assert "from 0.01 to 1." in the("plateau", over("sgd", plateau)).says
    found = the("matters", over("sgd", {0.01: [0.5], 0.1: [0.9], 1.0: [None]}))
    assert "0.01 is 44% worse, 1 diverges" in found.evidence
    assert found.next == '"learning_rate": [0.032, 0.1, 0.32]'
    assert {"plateau", "matters"}.isdisjoint(
        kinds(over("sgd", {0.01: [0.88], 0.1: [0.9], 1.0: [0.8]}))
    )


# -------------------------------------------------------------------- what next

ADABOUND = Config("adabound", {"learning_rate": 0.01, "final_lr": 0.1}, {})


@pytest.mark.parametrize(
    ("command", "change", "wanted"),
    [
        ("race", {"seeds": 23, "grows": True}, "race --seeds 23"),
        (
            "race --seeds 3 --out a",
            {"seeds": 5, "grows": True},
            "race --seeds 5 --out a",
        ),
        ("race --seeds=3 --steps 9", {"seeds": 5}, "race --seeds 5 --steps 9"),
        ("race --out runs/a", {"twice_the_steps": 8}, "race --out runs/a-2 --steps 8"),
        ("race --out a-9", {"twice_the_steps": 8}, "race --out a-10 --steps 8"),
        ("race --epochs 4", {"twice_the_steps": 99}, "race --epochs 8"),
        ("sweep d --median 9", {"spared": 20}, "sweep d --median 20"),
        ("sweep --stop-early 9 d", {"spared": 20}, "sweep --stop-early 20 d"),
        ("sweep d", {"spared": 20}, "sweep d --stop-early 20"),
        (
            "race --learning_rates 1 2 --seeds 2",
            {"space": {"learning_rate": [0.1, 1.0]}},
            "race --learning-rates 0.1 1 --seeds 2",
        ),
        (
            "sweep d --space b1=0.9 learning_rate=1,2 --draws 4 --out b",
            {"space": {"learning_rate": Range(0.01, 1.0, True)}, "grows": True},
            "sweep d --draws 4 --out b-2 --space b1=0.9 learning_rate='log(0.01, 1)'",
        ),
        (
            "race --task m:t --optimizers sgd rprop --metric loss --learning-rates 1",
            {"space": {"gamma": [0.5]}},
            "sweep m:t --metric loss --optimizers adabound --space "
            "learning_rate=0.01 final_lr=0.1 gamma=0.5",
        ),
        (
            "race --data 'a b'",
            {"space": {"gamma": [0.5, 1.0]}},
            "sweep digits --data 'a b' --optimizers adabound --space "
            "learning_rate=0.01 final_lr=0.1 gamma='0.5, 1'",
        ),
    ],
)
def test_the_next_command_is_the_last_with_other_values(command, change, wanted):
    words = ["optjax", *shlex.split(command)]
    line = again(words, change.pop("space", None), of=ADABOUND, **change)
    assert line == f"optjax {wanted}"
    kind, *flags = shlex.split(line)[1:]
    options = {"race": RaceOptions, "sweep": SweepOptions}[kind]
    assert parse(options, flags, kind, "") is not None


@pytest.mark.parametrize(
    "records",
    [
        over("sgd", {0.01: [0.5] * 2, 0.1: [0.7] * 2, 1.0: [0.9] * 2}),
        over("sgd", {0.01: [0.8] * 2, 0.1: [0.9], 1.0: [None], 10.0: [None]}),
        over("sgd", {0.1: [None], 1.0: [None]}),
        [*over("adam", peak(0.9, 0.02)), *over("sgd", peak(0.88, 0.02))],
        over("b1", {0.0: [0.1], 0.5: [0.2], 1.0: [0.3]}, "momentum"),
    ],
    ids=["edge", "diverged", "lost", "seeds", "momentum"],
)
def test_what_is_next_can_be_pasted(records):
    command = ("optjax", "sweep", "digits", "--space", "learning_rate=0.1, 1")
    asked = SweepResult(tuple(records), "score", "max", command=command).verdicts()
    for verdict in asked:
        if verdict.next:
            _, _, *flags = shlex.split(verdict.next)
            assert parse(SweepOptions, flags, "optjax sweep", "") is not None
    coded = [verdict.next for verdict in verdicts(records)]
    assert [bool(line) for line in coded] == [bool(verdict.next) for verdict in asked]
    for line in filter(None, coded):
        text = f"{{{line}}}" if line.startswith('"') else f"dict({line})"
        assert eval(text, {"optjax": optjax})


# ----------------------------------------------------------------- the budget


def noisy(curve, noise, rng):
    return np.asarray(curve) + noise * rng.normal(size=len(curve))


@pytest.mark.parametrize("mode", ["max", "min"])
def test_a_budget_too_short(mode):
    rng, sign = np.random.default_rng(0), 1 if mode == "max" else -1
    t = np.arange(1, 31)

    def seeds(curve):
        return [
            trial("sgd", {}, seed, sign * noisy(curve, 0.003, rng)) for seed in range(3)
        ]

    found = the("budget", seeds(t / 30), mode)
    assert found.next == "steps=600"
    assert "budget" not in kinds(seeds(1 - np.exp(-t / 2)), mode)
    assert "budget" not in kinds(seeds(0 * t), mode)


def test_halving_stopped_a_leader():
    others = [trial("sgd", {"b": i}, 0, [0.1 * i, 0.5, 0.6]) for i in range(3)]
    led = trial("sgd", {"b": 9}, 0, [0.9, 0.2], STOPPED)
    found = the("stopped", [*others, led])
    assert f"Trial {led.trial.number} " in found.evidence
    assert "at update 10 and was stopped at 20" in found.evidence
    behind = trial("sgd", {"b": 9}, 0, [0.05, 0.2], STOPPED)
    assert "stopped" not in kinds([*others, behind])


def test_a_band_that_has_not_closed():
    hyper = {"learning_rate": 0.01, "final_lr": 0.1}
    short = [trial("adabound", {**hyper, "gamma": 1e-3}, 0, flat_then(0.9))]
    found = the("band", short)
    assert "gamma=0.1 " in found.evidence
    assert found.next == '"gamma": [0.1]'
    lower, upper = optjax.hyperbolic_bounds(0.1, 1e-3)
    assert f"between {lower(200):.3g} and {upper(200):.3g}" in found.evidence
    closed = [trial("adabound", {**hyper, "gamma": 0.5}, 0, flat_then(0.9))]
    assert "band" not in kinds(closed)
    assert "band" not in kinds([trial("adam", {"learning_rate": 0.1}, 0, [0.9])])


def test_expected_best_of_k_is_the_mean_over_all_subsets():
    values = [0.9, 0.7, 0.4, 0.4, 0.1]
    for k in range(1, 6):
        subsets = itertools.combinations(values, k)
        assert mean_of_best(values, k) == pytest.approx(np.mean([*map(max, subsets)]))


def test_a_performance_profile_counts_the_tasks_within_a_ratio():
    def task(fast, slow):
        def seeds(name, steps):
            curve = [0.9 if i + 1 >= steps else 0.1 for i in range(8)]
            return [trial(name, {"learning_rate": 0.1}, seed, curve) for seed in (0, 1)]

        records = [*seeds("sgd", fast), *seeds("adam", slow), *seeds("yogi", 9)]
        return SweepResult(tuple(records), "score", "max")

    # adam takes 2 and 4 times sgd's updates, then a half; yogi never gets there.
    page = profile_page({"a": task(2, 4), "b": task(1, 4), "c": task(6, 3)})
    lines = {line["name"]: line for line in page.pictures[0].spec["series"]}

    def share(name, tau):
        line = lines[name]
        return [y for x, y in zip(line["x"], line["y"], strict=True) if x <= tau][-1]

    assert [share("sgd", tau) for tau in (1, 2, 4)] == pytest.approx([2 / 3, 1, 1])
    assert [share("adam", tau) for tau in (1, 2, 4)] == pytest.approx([1 / 3, 2 / 3, 1])
    assert share("yogi", 4) == 0
    assert page.verdicts[0].says.startswith("sgd is within twice the updates")
    assert page.tables[0].rows[2] == ["yogi", *["3, 0.1, not reached"] * 3]
    with pytest.raises(SweepError, match="that all of them have, which are adam"):
        profile_page({"a": task(1, 2), "b": drawn(FUNCTIONS["ridge"], 2)})


def test_time_to_a_target_is_updates_by_how_long_each_takes():
    def task(steps, seconds):
        records = [
            trial(name, {"learning_rate": 0.1}, seed, [0.1] * at + [0.9] * (8 - at))
            for name, at in steps.items()
            for seed in (0, 1)
        ]
        return SweepResult(tuple(records), "score", "max", seconds=seconds)

    # sgd needs 20 and 10 updates, adam 40 and 40; an update of adam's takes a tenth.
    slow_sgd = {"sgd": 1.0, "adam": 0.1}
    a, b = task({"sgd": 1, "adam": 3}, slow_sgd), task({"sgd": 0, "adam": 3}, slow_sgd)
    (table,) = to_target(a)
    assert table.title == "Updates and time to 0.9"
    assert table.rows == [["sgd", "20", "20", "1,000"], ["adam", "40", "4", "100"]]
    page = profile_page({"a": a, "b": b})
    by_updates, by_seconds = page.pictures
    first = {
        picture.title: [
            line["name"]
            for line in picture.spec["series"]
            if max(y for x, y in zip(line["x"], line["y"], strict=True) if x == 1)
        ]
        for picture in (by_updates, by_seconds)
    }
    assert first["Performance profile by updates"] == ["sgd"]
    assert first["Performance profile by seconds"] == ["adam"]
    assert page.tables[0].rows[1] == ["adam", *["1=, 0.9, 40 updates in 4 s"] * 2]
    untimed = profile_page({"a": a, "b": task({"sgd": 0, "adam": 3}, {})})
    assert [picture.title for picture in untimed.pictures] == [by_updates.title]
    assert to_target(task({"sgd": 0}, slow_sgd)) == []


@pytest.mark.parametrize("mode", ["max", "min"])
def test_of_two_seeds_the_target_is_one_that_both_reach(mode):
    sign = 1.0 if mode == "max" else -1.0
    records = [
        trial(name, {"learning_rate": 0.1}, seed, [0.0, sign * height])
        for name, heights in {"sgd": (0.5, 0.9), "adam": (0.1, 0.2)}.items()
        for seed, height in enumerate(heights)
    ]
    lost = over("yogi", {0.1: [None, None]})
    (table,) = to_target(SweepResult(tuple(records), "score", mode))
    assert table.title == f"Updates to {sign * 0.5:.4g}"
    assert table.rows == [["sgd", "20"], ["adam", "not reached"]]
    assert "half of the optimizers reach" in table.caption
    (table,) = to_target(SweepResult((*records, *lost), "score", mode))
    assert table.rows[0] == ["sgd", "20"]
    assert "half of the optimizers that did not diverge reach" in table.caption


def test_best_prints_as_three_lines_with_code_that_runs():
    records = over("adabound", {0.1: [0.5, 0.9]}, final_lr=1.0)
    best = SweepResult(tuple(records), "score", "max").best()
    first, second, third = str(best).splitlines()
    assert first == "adabound(learning_rate=0.1, final_lr=1)"
    assert second == "median 0.7, 0.5 to 0.9 over the seeds 0, 1"
    assert third == "tx = optjax.adabound(0.1, final_lr=1)"
    exec(third, {"optjax": optjax})
    nesterov = Config("nesterov", {"learning_rate": 0.1, "width": 64}, {})
    line = str(best._replace(config=nesterov)).splitlines()[2]
    assert line == (
        "tx = optjax.sgd(momentum=0.9, nesterov=True, learning_rate=0.1)"
        "  # and of the training: width=64"
    )
    exec(line, {"optjax": optjax})


@pytest.mark.parametrize(
    "told",
    [
        {"schedule": "cosine", "warmup": 0.25, "floor": 0.1},
        {"schedule": "linear"},
        {"warmup": 0.5},
        {"schedule": None, "warmup": 0.5},
    ],
)
@pytest.mark.parametrize("name", ["sgd", "adabound", "nesterov"])
def test_the_code_of_the_best_has_the_schedule_that_it_was_trained_with(name, told):
    factories = {name: optjax.OPTIMIZERS[name].factory}
    trained = with_schedules(factories, told, 20)[name](learning_rate=0.1, **told)
    numbers = {"learning_rate": 0.1, **told}
    hyper = {n: v for n, v in numbers.items() if isinstance(v, float)}
    config = Config(name, hyper, {n: v for n, v in numbers.items() if n not in hyper})
    record = trial(name, {}, 0, [0.5, 0.9])
    record = record._replace(trial=record.trial._replace(config=config))
    result = SweepResult((record,), "score", "max")
    names = {"optjax": optjax}
    exec("\n".join(str(result.best()).splitlines()[2:]), names)
    x, states = np.ones(3, np.float32), []
    for tx in (trained, names["tx"]):
        state, steps = tx.init(x), []
        for _ in range(20):
            updates, state = tx.update(x, state, x)
            steps.append(updates)
        states.append(steps)
    np.testing.assert_array_equal(*states)
    # Of how many steps it is, no trial that was stopped knows.
    stopped = (record._replace(status=STOPPED),)
    line = str(SweepResult(stopped, "score", "max").best()).splitlines()[-1]
    assert "0.1, steps" in line


# What has no pickle is no reason that a result has none.
def mine(learning_rate, momentum=0.5, other=lambda: None):
    return optax.sgd(learning_rate, momentum)


def with_own_warmup(learning_rate, warmup):
    return optax.sgd(learning_rate * warmup)


def init(key, optimizer, width):
    return optimizer.init(jnp.ones(width)), jnp.ones(width)


def step(state, optimizer):
    updates, opt_state = optimizer.update(state[1], state[0])
    return (opt_state, updates), {"loss": jnp.sum(updates)}


@pytest.mark.parametrize(
    ("factory", "line"),
    [
        (mine, "tx = mine(sweep.schedule('constant', 0.01, 4, warmup=0.5))"),
        (with_own_warmup, "tx = with_own_warmup(0.01, warmup=0.5)"),
    ],
)
def test_the_code_of_an_optimizer_of_ones_own(factory, line, tmp_path):
    name = factory.__name__
    result = run(
        (init, step),
        {"optimizer": name, "learning_rate": 0.01, "warmup": 0.5, "width": 2},
        factories={name: factory},
        steps=4,
        evaluate_every=2,
        metric="loss",
        mode="min",
        seeds=1,
        strategy="map",
        progress=False,
        out=tmp_path,
    )
    best = result.best()
    assert best.code.splitlines()[-1] == f"{line}  # and of the training: width=2"
    assert pickle.loads(pickle.dumps(result)).best().code == best.code
    opt_state, x = init(None, names_of(best.code, factory)["tx"], 2)
    for _ in range(4):
        (opt_state, x), _ = step((opt_state, x), names_of(best.code, factory)["tx"])
    np.testing.assert_array_equal(x, result.train(best)[1])
    # Without the code a learning rate is taken for the peak, and all is the factory's.
    read = SweepResult.load(tmp_path).best().code.splitlines()[-1]
    rate = "sweep.schedule('constant', 0.01, 4, warmup=0.5)"
    assert read == f"tx = {name}({rate}, width=2)"


def names_of(code, factory):
    names = {factory.__name__: factory}
    exec(code, names)
    return names


def test_what_has_diverged_has_no_code():
    records = over("sgd", {0.1: [None], 1.0: [None]})
    result = SweepResult(tuple(records), "score", "max")
    assert "tx" not in str(result.best())
    study = Study(result)
    assert page_of(study, result.verdicts(), {}).code == ""


# ----------------------------------------------------------------- importance

FUNCTIONS = {
    # Decided by a, then b; c is not in it.
    "additive": lambda a, b, c: -(a**2) - 0.25 * b**2,
    # A narrow ridge over one, a slope over another.
    "ridge": lambda a, b, c: -np.log1p(20 * np.abs(c - 0.3)) + 0.4 * a,
    # Two act together only, and the third hardly.
    "product": lambda a, b, c: np.sign(b) * np.abs(b) ** 0.5 * (1.2 + c) + 0.05 * a,
}


def drawn(function, count=96):
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (count, 3))
    records = [
        trial("adam", dict(zip("abc", map(float, p), strict=True)), 0, [function(*p)])
        for p in points
    ]
    return SweepResult(tuple(records), "score", "max")


@functools.cache
def verdicts_and_importances(name):
    """Of one forest."""
    result = drawn(FUNCTIONS[name])
    return result.verdicts(), result._study.importance


def test_what_decides_is_told_from_what_does_not():
    said, importances = verdicts_and_importances("additive")
    found = {one.name: one for one in importances}
    assert found["a"].low > found["b"].high > found["b"].low > 0
    assert found["c"].low <= 0.01
    assert abs(found["c"].mean) < 0.02
    assert "a decides most of what comes of adam; c hardly matters." in [
        verdict.says for verdict in said
    ]


def test_where_nothing_decides_nothing_is_said():
    noise = np.random.default_rng(1)
    result = drawn(lambda a, b, c: noise.normal())
    assert "importance" not in [verdict.kind for verdict in result.verdicts()]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_importance_agrees_in_order_with_optunas(name):
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize")
    uniform = optuna.distributions.FloatDistribution(-1, 1)
    for record in drawn(FUNCTIONS[name]).records:
        study.add_trial(
            optuna.trial.create_trial(
                params=dict(record.trial.config.hyper),
                distributions=dict.fromkeys("abc", uniform),
                value=record.curve.values["score"][0],
            )
        )
    evaluators = (
        optuna.importance.FanovaImportanceEvaluator(seed=0),
        optuna.importance.MeanDecreaseImpurityImportanceEvaluator(seed=0),
    )
    ours = [one.name for one in verdicts_and_importances(name)[1]]
    for evaluator in evaluators:
        theirs = optuna.importance.get_param_importances(study, evaluator=evaluator)
        assert list(theirs) == ours


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize(
    "records",
    [
        over("sgd", {0.1: [None], 1.0: [None]}),
        [trial("sgd", {}, 0, [0.5])],
        [*over("sgd", {0.1: [0.5]}), *over("adam", {1: [None], 2: [0.5]}, "k")],
    ],
    ids=["all diverged", "one trial", "different hyper-parameters"],
)
def test_whatever_came_out_makes_a_page(records, mode, tmp_path):
    result = SweepResult(tuple(records), "score", mode)
    result.report(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert all(verdict.says in page for verdict in result.verdicts())
    result.report(tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == page
