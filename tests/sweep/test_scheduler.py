"""The scheduler of a sweep, with made-up metrics."""

import collections

import numpy as np
import pytest

from optjax import sweep
from optjax.sweep._engine.calls import Call
from optjax.sweep._engine.lanes import Size
from optjax.sweep._engine.scheduler import Scheduler
from optjax.sweep._records import Failure
from optjax.sweep._stopping import Rungs, decisions

EVERY, EVALUATIONS = 5, 18
EVERY_LANE = np.ones(8, bool)


def scheduler(trials, *, lanes=8, devices=2, stopping=None, metrics=("loss",), **more):
    specs = [
        sweep.TrialSpec(n, sweep.Config("sgd", {"learning_rate": 1.0 + n}, {}), n % 3)
        for n in range(trials)
    ]
    rungs = stopping and Rungs(
        stopping, decisions(stopping, EVERY * EVALUATIONS, EVERY)
    )
    keywords = {
        "lanes": lanes,
        "devices": devices,
        "metrics": metrics,
        "metric": "loss",
        "mode": "min",
        "evaluate_every": EVERY,
        "evaluations": EVALUATIONS,
        "evaluations_a_round": 2,
        "rungs": rungs,
    }
    return Scheduler(specs, **{**keywords, **more})


def round_of(schedule):
    """A call of all that the lanes do until they wait for each other."""
    return Call(schedule.left.evaluations > 0, Size(2, EVERY, True), 2 * EVERY)


def observe(schedule, rows):
    call = round_of(schedule)
    return schedule.observe(call, schedule.measured(call, rows))


def in_lanes(schedule):
    """The trials by lane."""
    call = round_of(schedule)
    measured = schedule.measured(call, np.zeros((8, 2, len(schedule._metrics))))
    return dict(
        zip(
            np.flatnonzero(call.lanes).tolist(),
            [each.trial for each in measured],
            strict=True,
        )
    )


def simulate(schedule, seed=0, diverging=0.05):
    """Run to the end on random losses; what was started, and the records by call."""
    random = np.random.default_rng(seed)
    started, ends, in_lane = collections.Counter(), [], {}
    total = len(schedule._trials)
    while not schedule.is_done:
        told = schedule.assignment(schedule.left.evaluations > 0)
        waiting = total - sum(started.values()) - int(told.fresh.sum())
        # Lanes are idle only where nothing waits.
        assert told.busy.all() or waiting == 0
        assert not (told.fresh & ~told.busy).any()
        trials = in_lanes(schedule)
        assert list(trials) == np.flatnonzero(told.busy).tolist()
        for lane, trial in trials.items():
            if told.fresh[lane]:
                started[trial.number] += 1
            else:
                assert in_lane[lane] == trial
            assert told.seed[lane] == trial.seed
            assert told.hyper["learning_rate"][lane] == 1.0 + trial.number
        in_lane = trials
        rows = random.uniform(size=(len(told.busy), 2, 1)).astype(np.float32)
        rows[random.uniform(size=rows.shape) < diverging] = np.nan
        ends.append(observe(schedule, rows))
    return started, ends


@pytest.mark.parametrize("trials", [1, 7, 8, 9, 100])
@pytest.mark.parametrize("stopping", [None, sweep.SuccessiveHalving(10, 3)])
def test_every_trial_starts_once_and_ends_once(trials, stopping):
    started, ends = simulate(scheduler(trials, stopping=stopping))
    ended = [record.trial.number for call in ends for record in call]
    assert started == dict.fromkeys(range(trials), 1)
    assert sorted(ended) == list(range(trials))
    statuses = collections.Counter(r.status for call in ends for r in call)
    if trials == 100:
        assert statuses[sweep.DIVERGED]
        assert statuses[sweep.FINISHED]
        assert bool(statuses[sweep.STOPPED]) == (stopping is not None)
    for record in (record for call in ends for record in call):
        length = record.steps // EVERY
        assert record.curve.steps == tuple(range(EVERY, record.steps + 1, EVERY))
        (values,) = record.curve.values.values()
        assert len(values) == length
        assert np.isfinite(values[:-1]).all()
        if record.status == sweep.FINISHED:
            assert length == EVALUATIONS
        elif record.status == sweep.STOPPED:
            assert length in (2, 6)
        assert np.isfinite(values[-1]) == (record.status != sweep.DIVERGED)


def test_the_same_metrics_give_the_same_schedule():
    def once():
        return simulate(scheduler(60, stopping=sweep.SuccessiveHalving(10, 2)))

    # Not ==, for which a diverged trial's NaN differs from itself.
    assert repr(once()) == repr(once())


def test_free_lanes_are_spread_over_the_devices():
    # Lanes 0 to 3 are one device's, 4 to 7 the other's.
    assert np.flatnonzero(scheduler(2).left.evaluations).tolist() == [0, 4]
    assert np.flatnonzero(scheduler(5).left.evaluations).tolist() == [0, 1, 2, 4, 5]
    busy = scheduler(6, lanes=9, devices=3).left.evaluations
    assert np.flatnonzero(busy).tolist() == [0, 1, 3, 4, 6, 7]


def test_a_lane_that_diverges_is_refilled_before_the_next_call():
    schedule = scheduler(10)
    rows = np.ones((8, 2, 1), np.float32)
    rows[3, 0] = np.inf
    rows[5, 1] = np.nan
    records = observe(schedule, rows)
    assert [r.status for r in records] == [sweep.DIVERGED] * 2
    assert [r.steps for r in records] == [5, 10]
    assert np.flatnonzero(schedule.assignment(EVERY_LANE).fresh).tolist() == [3, 5]
    assert {8, 9} <= {trial.number for trial in in_lanes(schedule).values()}


def test_the_metric_called_finite_ends_a_trial_though_its_loss_is_finite():
    schedule = scheduler(2, metrics=("finite", "loss"))
    rows = np.ones((8, 2, 2), np.float32)
    rows[4, 1, 0] = 0.0
    (record,) = observe(schedule, rows)
    assert (record.trial.number, record.status) == (1, sweep.DIVERGED)
    assert record.curve.values == {"finite": (1.0, 0.0), "loss": (1.0, 1.0)}


def test_halving_stops_the_worst_for_the_mode_and_refills():
    schedule = scheduler(20, stopping=sweep.SuccessiveHalving(10, 4))
    rows = np.arange(8, dtype=np.float32)[:, None, None].repeat(2, axis=1)
    stopped = {record.trial.number for record in observe(schedule, rows)}
    # The two smallest losses go on, in lanes 0 and 1, which hold trials 0 and 2.
    assert stopped == {1, 3, 4, 5, 6, 7}
    assert np.flatnonzero(~schedule.assignment(EVERY_LANE).fresh).tolist() == [0, 1]
    assert schedule.running == 8


def test_a_trial_that_diverges_is_the_worst_of_those_compared():
    schedule = scheduler(20, stopping=sweep.SuccessiveHalving(10, 4))
    rows = np.arange(8, dtype=np.float32)[:, None, None].repeat(2, axis=1)
    rows[0, 1] = np.nan
    ended = {record.trial.number: record.status for record in observe(schedule, rows)}
    # Two of eight go on, now those in lanes 1 and 2: trials 2 and 4.
    stopped = dict.fromkeys([1, 3, 5, 6, 7], sweep.STOPPED)
    assert ended == {0: sweep.DIVERGED} | stopped


@pytest.mark.parametrize(("mode", "sign"), [("max", 1.0), ("min", -1.0)])
def test_a_rule_sees_the_metric_or_what_is_against_it(mode, sign):
    seen = {}

    class Once:
        def __contains__(self, at):
            return at == 2

        def stop(self, at, values):
            seen.update(values)
            return []

    schedule = scheduler(3, mode=mode, rungs=Once())
    busy = ~schedule.idle
    rows = np.arange(16, dtype=np.float32).reshape(8, 2, 1)
    observe(schedule, rows)
    assert {lane: values.tolist() for lane, values in seen.items()} == {
        lane: (sign * rows[lane, :, 0]).tolist() for lane in np.flatnonzero(busy)
    }


def steps_measured(schedule):
    """Of each trial in a lane, in the next call."""
    measured = schedule.measured(round_of(schedule), np.ones((8, 2, 1), np.float32))
    assert all(len(each.rows) == len(each.steps) for each in measured)
    return [list(each.steps) for each in measured]


def test_what_is_measured_has_its_steps_but_of_what_has_failed():
    schedule, rows = scheduler(3), np.ones((8, 2, 1), np.float32)
    assert steps_measured(schedule) == [[5, 10]] * 3
    observe(schedule, rows)
    assert steps_measured(schedule) == [[15, 20]] * 3
    assert not schedule.assignment(EVERY_LANE).fresh.any()

    lane = int(np.flatnonzero(~schedule.idle)[1])
    (record,) = schedule.fail({lane: "why"})
    assert (record.status, record.message) == (sweep.FAILED, "why")
    assert record.curve.steps == (5, 10)
    assert schedule.idle[lane]
    assert steps_measured(schedule) == [[15, 20]] * 2


def test_where_all_fail_between_two_evaluations_the_next_begin():
    schedule = scheduler(10)
    busy = schedule.left.evaluations > 0
    schedule.observe(Call(busy, Size(1, 2, False), 2), [])
    schedule.fail(dict.fromkeys(np.flatnonzero(busy).tolist(), "why"))
    assert (schedule.left.updates, schedule.left.within.any()) == (0, False)
    assert schedule.running == 2
    assert steps_measured(schedule) == [[5, 10]] * 2


def test_every_update_may_be_evaluated():
    schedule, ended = scheduler(1, evaluate_every=1), []
    while not schedule.is_done:
        ended += observe(schedule, np.ones((8, 2, 1), np.float32))
    (record,) = ended
    assert record.curve.steps == tuple(range(1, EVALUATIONS + 1))


def test_lanes_go_on_between_two_evaluations():
    schedule = scheduler(3)
    busy = schedule.left.evaluations > 0
    part = Call(busy, Size(1, 2, False), 2)
    assert schedule.measured(part, np.ones((8, 2, 1), np.float32)) == []
    for updates in (2, 4):
        assert schedule.observe(part, []) == []
        assert schedule.left.updates == updates
        assert schedule.left.within.tolist() == busy.tolist()
        assert not schedule.assignment(EVERY_LANE).fresh.any()
    left = schedule.left

    resumed = scheduler(3)
    resumed.resume(np.flatnonzero(left.within), left.updates)
    assert repr(resumed.left) == repr(left)
    assert not resumed.assignment(EVERY_LANE).fresh.any()
    (lane, *_) = np.flatnonzero(busy)
    schedule.fail({int(lane): "broken"})
    assert schedule.left.within.tolist() == (busy & (np.arange(8) != lane)).tolist()
    for each in (schedule, resumed):
        each.observe(Call(busy, Size(1, 1, True), 1), [])
        assert each.left.updates == 0
        assert not each.left.within.any()


def test_what_has_failed_fails_at_the_same_place_again():
    rows = np.ones((8, 2, 1), np.float32)
    schedule = scheduler(10)
    assert observe(schedule, rows) == []
    (record,) = schedule.fail({0: "broken"})
    assert (record.trial.number, record.status) == (0, sweep.FAILED)
    assert (record.steps, record.message) == (2 * EVERY, "broken")
    assert schedule.failures == {0: Failure(2, "broken")}
    # Its lane is free until the round ends.
    assert schedule.running == 7

    known = {0: Failure(2, "broken"), 3: Failure(0, "at once"), 5: Failure(5, "odd")}
    again = scheduler(10, failures=known)
    (first,) = again.ended_before
    assert (first.trial.number, first.steps, first.message) == (3, 0, "at once")
    ended = [*observe(again, rows), *observe(again, rows)]
    # Within a round, as it is read back.
    assert again.take(6, rows[0, :1]) == []
    ended += again.take(5, rows[0, :1])
    assert {r.trial.number: (r.status, r.steps) for r in ended} == {
        0: (sweep.FAILED, 2 * EVERY),
        5: (sweep.FAILED, 5 * EVERY),
    }


def test_a_trial_goes_on_from_what_a_shorter_run_has_measured():
    known = {1: np.ones((4, 1), np.float32), 2: np.ones((EVALUATIONS, 1), np.float32)}
    schedule = scheduler(4, known=known)
    # One that was as long is not run.
    (ended,) = schedule.ended_before
    assert (ended.trial.number, ended.status) == (2, sweep.FINISHED)
    lane = schedule.lanes()[1]
    busy = ~schedule.idle
    assert {k: t.number for k, t in schedule.going_on(busy).items()} == {lane: 1}
    assert schedule.going_on(~EVERY_LANE) == {}
    begin = busy & (np.arange(8) != lane)
    assert schedule.assignment(busy).fresh.tolist() == begin.tolist()
    assert sorted(steps_measured(schedule)) == [[5, 10], [5, 10], [25, 30]]
    assert observe(schedule, np.ones((8, 2, 1), np.float32)) == []
    assert schedule.going_on(busy) == {}
    assert sorted(steps_measured(schedule)) == [[15, 20], [15, 20], [35, 40]]


def test_what_the_last_lanes_have_done_is_gone_with_them():
    schedule = scheduler(3)
    busy = np.flatnonzero(~schedule.idle).tolist()
    schedule.observe(Call(~schedule.idle, Size(1, 2, False), 2), [])
    schedule.fail({busy[0]: "one"})
    assert schedule.left.updates == 2
    failed = schedule.fail({lane: f"in {lane}" for lane in busy[1:]})
    assert [record.message for record in failed] == [f"in {lane}" for lane in busy[1:]]
    assert schedule.left.updates == 0
    assert schedule.is_done
