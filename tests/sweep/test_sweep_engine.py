"""The engine of sweeps: one program an optimizer, how long calls are, and checks."""

import collections
import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiling import compiled_programs

from optjax import sweep
from optjax.sweep._engine import fastest
from optjax.sweep._engine.calls import Left, Pace, next_call
from optjax.sweep._engine.fastest import pick_strategy
from optjax.sweep._engine.groups import TrialGroup, make_groups
from optjax.sweep._engine.lanes import Program
from optjax.sweep._engine.memory import fit
from optjax.sweep._engine.pieces import Piece, read_piece, split, write_piece
from optjax.sweep._engine.plan import Plan
from optjax.sweep._errors import NotWrittenError

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

# ------------------------------------------------------------------- a toy, end to end

STEPS = {"steps": 30, "evaluate_every": 5, "metric": "val", "mode": "min"}
QUIET = {**STEPS, "progress": False}
TARGET = np.linspace(-1.0, 1.0, 12, dtype=np.float32).reshape(4, 3)
SPACE = {
    "optimizer": ["sgd", "adam"],
    # The largest diverges under sgd.
    "learning_rate": [1e-3, 3e-3, 1e-2, 3e-2, 0.1, 1e4],
}


INPUTS = np.random.default_rng(0).normal(size=(7, 8, 4)).astype(np.float32)


def init(key, optimizer):
    w = jax.random.normal(key, (4, 3))
    return {"w": w, "opt_state": optimizer.init(w), "key": key, "updates": 0}


def step(state, optimizer):
    x = jnp.asarray(INPUTS)[state["updates"] % len(INPUTS)]

    def loss(w):
        return jnp.mean((x @ (w - TARGET)) ** 2)

    value, gradient = jax.value_and_grad(loss)(state["w"])
    updates, opt_state = optimizer.update(gradient, state["opt_state"], state["w"])
    w = optax.apply_updates(state["w"], updates)
    state = {**state, "w": w, "opt_state": opt_state, "updates": state["updates"] + 1}
    return state, {"loss": value}


def evaluate(state):
    return {"val": jnp.sum((state["w"] - TARGET) ** 2)}


TOY = (init, step, evaluate)


@pytest.fixture(scope="module")
def by_map():
    return sweep.run(TOY, SPACE, strategy="map", lanes=4, **QUIET)


def test_every_trial_is_there_in_order_and_diverged_ones_are_kept(by_map):
    assert [r.trial.number for r in by_map.records] == list(range(2 * 6 * 3))
    assert {r.trial.seed for r in by_map.records} == {0, 1, 2}
    diverged = [r for r in by_map.records if r.status == sweep.DIVERGED]
    assert [
        (r.trial.config.optimizer, r.trial.config.hyper["learning_rate"])
        for r in diverged
    ] == [("sgd", 1e4)] * 3
    for record in by_map.records:
        if record.status != sweep.DIVERGED:
            assert record.status == sweep.FINISHED
            assert record.curve.steps == (5, 10, 15, 20, 25, 30)
            assert set(record.curve.values) == {"loss", "val"}


@pytest.mark.parametrize("strategy", ["vmap", "chunked"])
def test_strategies_agree(by_map, strategy):
    other = sweep.run(TOY, SPACE, strategy=strategy, lanes=12, **QUIET)
    assert len(other.records) == len(by_map.records)
    for mine, theirs in zip(other.records, by_map.records, strict=True):
        assert mine[:3] == theirs[:3]
        assert mine.curve.steps == theirs.curve.steps
        for name, values in mine.curve.values.items():
            np.testing.assert_allclose(
                values, theirs.curve.values[name], rtol=1e-5, atol=1e-6
            )


def test_run_alone_gives_the_sweeps_curve_bit_for_bit(by_map):
    # One program each, so a few: finished and diverged, of both optimizers.
    for number in (0, 10, 17, 28):
        record = by_map.records[number]
        alone = sweep.run_alone(TOY, record.trial, **STEPS)
        assert repr(alone) == repr(record)


def test_the_curve_is_that_of_a_loop_over_steps(by_map):
    record = by_map.records[25]
    assert record.trial.config.optimizer == "adam"
    optimizer = optax.adam(record.trial.config.hyper["learning_rate"])
    state = init(jax.random.key(record.trial.seed), optimizer)
    losses, vals = [], []
    advance = jax.jit(lambda state: step(state, optimizer))
    for _ in range(6):
        history = []
        for _ in range(5):
            state, metrics = advance(state)
            history.append(float(metrics["loss"]))
        losses.append(np.mean(history))
        vals.append(float(evaluate(state)["val"]))
    np.testing.assert_allclose(record.curve.values["loss"], losses, rtol=1e-5)
    np.testing.assert_allclose(record.curve.values["val"], vals, rtol=1e-5)


# ------------------------------------------------------------------------- in pieces


def test_pieces_cut_groups_and_come_back_from_disk_as_they_were(by_map, tmp_path):
    specs = [record.trial for record in by_map.records]
    pieces = split([specs[:18], specs[18:]], 7)
    assert [len(piece.specs) for piece in pieces] == [7, 7, 4, 7, 7, 4]
    assert [piece.number for piece in pieces] == list(range(6))
    assert [spec for piece in pieces for spec in piece.specs] == specs
    assert read_piece(tmp_path, pieces[2]) is None
    write_piece(tmp_path, pieces[2], by_map.records[14:18])
    assert repr(read_piece(tmp_path, pieces[2])) == repr(list(by_map.records[14:18]))


def test_a_piece_that_cannot_be_written_is_named(by_map, tmp_path):
    piece = Piece(3, tuple(record.trial for record in by_map.records))
    (tmp_path / "pieces").write_text("not a directory")
    with pytest.raises(NotWrittenError, match=r"write piece 3 in .*: File exists"):
        write_piece(tmp_path, piece, by_map.records)


def test_a_static_value_that_json_does_not_know_survives(tmp_path):
    config = sweep.Config("adamw", {"learning_rate": 0.1}, {"mask": jnp.isfinite})
    spec = sweep.TrialSpec(5, config, 0)
    curve = sweep.Curve((5,), {"loss": (0.1,)})
    records = [sweep.Record(spec, sweep.FINISHED, 5, curve)]
    piece = Piece(0, (spec,))
    write_piece(tmp_path, piece, records)
    assert read_piece(tmp_path, piece) == records


# --------------------------------------------------------------- what is compiled


@pytest.fixture
def compiled():
    with compiled_programs() as names:
        yield names


@pytest.mark.parametrize("strategy", ["map", "vmap"])
def test_one_trace_and_compilation_an_optimizer_however_many_trials(compiled, strategy):
    calls = []

    def counted(state, optimizer):
        calls.append(None)
        return step(state, optimizer)

    def programs(values, optimizers):
        compiled.clear()
        calls.clear()
        result = sweep.run(
            (init, counted, evaluate),
            {"optimizer": optimizers, "learning_rate": values},
            strategy=strategy,
            lanes=4,
            stopping=sweep.SuccessiveHalving(min_steps=10, eta=2),
            **QUIET,
        )
        statuses = {record.status for record in result.records}
        return sum("device_lanes" in name for name in compiled), len(calls), statuses

    few = programs([0.01], ["sgd"])
    assert few[:2] == (1, 1)
    many = programs(list(np.geomspace(1e-3, 1e4, 24)), ["sgd", "adam"])
    # Seventy-two trials an optimizer in four lanes, stopped, diverged and refilled.
    assert many[2] == {sweep.FINISHED, sweep.STOPPED, sweep.DIVERGED}
    assert many[:2] == (2, 2)


def test_a_weakly_typed_number_of_the_state_is_one_where_lanes_run():
    """As where the trial is checked: times bfloat16 it is bfloat16."""

    def init(key, optimizer):
        x = jnp.ones(2, jnp.bfloat16)
        return x, optimizer.init(x), jnp.asarray(0.5)

    def step(state, optimizer):
        x, opt_state, weak = state
        updates, opt_state = optimizer.update(weak * x, opt_state, x)
        return (x + updates, opt_state, weak), {"val": jnp.sum(x)}

    space = {"optimizer": "sgd", "learning_rate": 1.0}
    result = sweep.run((init, step), space, seeds=1, **{**QUIET, "evaluate_every": 1})
    assert result.records[0].curve.values["val"][:3] == (2.0, 1.0, 0.5)


def test_static_choices_and_conditional_keys_are_programs_of_their_own(compiled):
    result = sweep.run(
        TOY,
        {
            "optimizer": ["adabound", "adashift", "adam"],
            "learning_rate": [0.01, 0.03],
            # Small enough to bind: a band that does not is Adam to the last bit.
            "final_lr": [1e-4, 2e-4],
            "keep_num": [2, 3],
        },
        strategy="map",
        seeds=1,
        **QUIET,
    )
    assert sum("device_lanes" in name for name in compiled) == 4
    rows = [
        (c.optimizer, c.hyper.get("final_lr"), c.static.get("keep_num"))
        for c in (record.trial.config for record in result.records)
    ]
    assert collections.Counter(rows) == {
        ("adabound", 1e-4, None): 2,
        ("adabound", 2e-4, None): 2,
        ("adashift", None, 2): 2,
        ("adashift", None, 3): 2,
        ("adam", None, None): 2,
    }
    curves = {r.curve.values["val"] for r in result.records}
    assert len(curves) == len(result.records)


# ------------------------------------------------------------------ lanes and status


def lanes_seen(**keywords):
    seen = []
    space = {"optimizer": "sgd", "learning_rate": list(np.geomspace(1e-3, 0.1, 8))}
    keywords = {**STEPS, "strategy": "map", "progress": seen.append, **keywords}
    sweep.run(TOY, space, **keywords)
    return max(status.running for status in seen), seen


def test_settings_of_the_callers_thread_hold_in_every_program():
    def init(key, optimizer):
        return optimizer.init(jnp.zeros(()))

    def step(state, optimizer):
        bits = jnp.finfo(jnp.result_type(float)).bits
        return state, {"bits": jnp.float32(bits)}

    space = {"optimizer": ["sgd", "adam"], "learning_rate": [0.1]}
    how = {"steps": 2, "evaluate_every": 1, "metric": "bits", "mode": "max", "seeds": 1}
    for wide, bits in ((True, 64.0), (False, 32.0)):
        with jax.enable_x64(wide):
            result = sweep.run((init, step), space, **how, progress=False)
        assert [result.score(record) for record in result.records] == [bits, bits]


def test_memory_limit_reduces_the_lanes_or_is_refused():
    plenty = lanes_seen(memory_limit=2**30)[0]
    assert plenty == 24
    # With 24 lanes the program takes 8 kB, of which 5 are not the lanes'.
    fewer = lanes_seen(memory_limit=7_000)[0]
    assert 1 <= fewer < plenty
    assert lanes_seen(memory_limit=7_000, lanes=1)[0] == 1
    with pytest.raises(sweep.SweepError, match=r"limit of 50 bytes holds the states"):
        lanes_seen(memory_limit=50)
    with pytest.raises(
        sweep.SweepError, match=r"limit of 1,000 bytes does not hold .*memory_limit="
    ):
        lanes_seen(memory_limit=1000)


def test_a_call_of_no_seconds_is_an_update_and_one_without_end_a_round():
    short = lanes_seen(call_seconds=0.0, lanes=2)[1]
    steps = [status.steps for status in short]
    # Under map one lane of each device.
    devices = len(jax.local_devices())
    assert {b - a for a, b in itertools.pairwise(steps)} <= set(range(devices + 1))
    long = lanes_seen(call_seconds=float("inf"), lanes=2)[1]
    assert len(long) < 20
    assert long[-1] == short[-1]
    with pytest.raises(sweep.SweepError, match="call_seconds must be a number >= 0"):
        lanes_seen(call_seconds=-1)


def test_status_adds_up():
    stopping = sweep.SuccessiveHalving(min_steps=10, eta=2)
    seen = []
    keywords = {**STEPS, "stopping": stopping, "lanes": 4, "strategy": "map"}
    result = sweep.run(TOY, SPACE, progress=seen.append, **keywords)
    assert {status.total for status in seen} == {36}
    assert (seen[0].done, seen[0].steps, seen[0].best) == (0, 0, None)
    assert seen[0].most_steps_left == 36 * 30
    for before, after in itertools.pairwise(seen):
        assert after.done >= before.done
        assert after.steps >= before.steps
        assert after.most_steps_left <= before.most_steps_left
    for status in seen:
        assert status.running <= 4
        assert status.done + status.running <= status.total
        assert status.diverged + status.stopped <= status.done
        assert status.steps + status.most_steps_left <= 36 * 30
    last = seen[-1]
    assert (last.done, last.running, last.most_steps_left) == (36, 0, 0)
    statuses = [record.status for record in result.records]
    assert last.diverged == statuses.count(sweep.DIVERGED) == 3
    assert last.stopped == statuses.count(sweep.STOPPED) > 0
    assert last.steps == sum(record.steps for record in result.records)
    assert last.best == min(
        value
        for record in result.records
        if record.status != sweep.DIVERGED
        for value in record.curve.values["val"]
    )


# ----------------------------------------- the choice of a strategy, by a made-up clock


class Clock:
    """Time passes only where a program is compiled, in a second, or called.

    A call takes `overhead` and the strategy's seconds for each update of a lane. Only
    map skips idle lanes.
    """

    def __init__(
        self,
        monkeypatch,
        seconds,
        overhead=1e-3,
        bytes_=None,
        raises=(),
        primitives=(),
    ):
        self.now, self.compiled = 0.0, []

        def compile_(group, plan, strategy):
            self.now += 1.0
            self.compiled.append(strategy)

            def advance(carry, told, size):
                if strategy in raises:
                    raise RuntimeError(raises[strategy])
                lanes = told.busy.sum() if strategy == "map" else group.lanes
                updates = size.evaluations * size.updates
                self.now += overhead + lanes * updates * seconds[strategy]
                most = group.most_evaluations(plan, strategy)
                return carry, np.ones((group.lanes, most, len(group.metrics)))

            takes = (bytes_ or {}).get(strategy, 0)
            rest = {
                "lanes": group.lanes,
                "bytes": takes,
                "primitives": frozenset(primitives),
            }
            return Program(lambda: None, advance, *4 * [None], **rest)

        monkeypatch.setattr(fastest.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(TrialGroup, "compile", compile_)


def group_of(trials, steps, every, platform="cpu"):
    devices = (types.SimpleNamespace(platform=platform),)
    settings = Plan(
        steps=steps,
        evaluate_every=every,
        metric="val",
        mode="min",
        memory_limit=2**30,
        devices=devices,
    )
    specs = [
        sweep.TrialSpec(n, sweep.Config("sgd", {"learning_rate": 1.0 + n}, {}), 0)
        for n in range(trials)
    ]
    make_trial = sweep.from_functions(*TOY)
    return make_groups(make_trial, {"sgd": optax.sgd}, specs, settings)[0], settings


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ({"map": 1e-5, "vmap": 4e-5, "chunked": 3.9e-5}, "map"),
        ({"map": 1e-5, "vmap": 7e-7, "chunked": 5e-6}, "vmap"),
        ({"map": 1e-5, "vmap": 1.1e-5, "chunked": 8e-6}, "chunked"),
    ],
)
@pytest.mark.parametrize(
    ("every", "platform"), [(10, "cpu"), (3000, "cpu"), (10, "gpu")]
)
def test_a_long_sweep_takes_the_fastest(monkeypatch, seconds, best, every, platform):
    group, settings = group_of(4096, 3000, every, platform)
    clock = Clock(monkeypatch, seconds)
    fitted = pick_strategy(group, settings, 4096)
    assert (fitted.strategy, fitted.program.lanes) == (best, 256)
    whole = 4096 * 3000 * seconds["map" if platform == "cpu" else "vmap"]
    assert clock.now < 5.0 + 0.1 * whole


def test_one_long_call_is_not_run_to_choose_its_strategy(monkeypatch):
    group, settings = group_of(256, 1000, 1000)
    clock = Clock(monkeypatch, {"map": 0.01, "vmap": 0.001, "chunked": 0.005})
    assert pick_strategy(group, settings, 256).strategy == "vmap"
    # The sweep takes 2,560 s under map.
    assert clock.now < 5.0
    assert clock.compiled == ["map", "vmap"]
    group, settings = group_of(256, 1000, 1000, "gpu")
    clock = Clock(monkeypatch, {"map": 0.01, "vmap": 1e-6, "chunked": 0.005})
    assert pick_strategy(group, settings, 256).strategy == "vmap"
    assert clock.compiled == ["vmap"]


def test_on_a_cpu_convolutions_are_not_tried_all_at_once(monkeypatch):
    seconds = {"map": 1e-4, "vmap": 1e-5, "chunked": 1e-5}
    for platform, tried in (("cpu", ["map"]), ("gpu", ["vmap", "chunked"])):
        group, plan = group_of(4096, 3000, 10, platform)
        clock = Clock(monkeypatch, seconds, primitives=["conv_general_dilated"])
        pick_strategy(group, plan, 4096)
        assert clock.compiled[:2] == tried


def test_a_strategy_that_does_not_fit_is_not_timed(monkeypatch):
    """XLA says what a program will take before it runs."""
    group, plan = group_of(256, 1000, 1000)
    seconds = {"map": 0.01, "vmap": 1e-5, "chunked": 1e-3}
    clock = Clock(monkeypatch, seconds, bytes_={"vmap": 2**40})
    assert pick_strategy(group, plan, 256).strategy == "chunked"
    clock = Clock(monkeypatch, seconds, raises={"vmap": "RESOURCE_EXHAUSTED: Out of"})
    assert pick_strategy(group, plan, 256).strategy == "chunked"
    assert clock.compiled == ["map", "vmap", "chunked"]


def test_fewer_lanes_where_the_others_do_not_fit(monkeypatch):
    group, plan = group_of(256, 1000, 1000)
    compiled = []

    def compile_(group, plan, strategy):
        compiled.append(group.lanes)
        takes = 2**24 + group.lanes * 2**23
        return Program(*6 * [None], lanes=group.lanes, bytes=takes)

    monkeypatch.setattr(TrialGroup, "compile", compile_)
    fitted = fit(group, plan, "vmap")
    assert fitted.group.lanes == fitted.program.lanes == compiled[-1]
    # 1 GiB holds the 16 MiB and 126 times 8 MiB.
    assert 100 <= compiled[-1] <= 126
    assert len(compiled) <= 4


def test_what_might_take_minutes_is_not_tried(monkeypatch):
    """An update of all lanes at once cannot be stopped."""
    group, settings = group_of(256, 1000, 1000)
    clock = Clock(monkeypatch, {"map": 5.0, "vmap": 5.0, "chunked": 5.0})
    assert pick_strategy(group, settings, 256).strategy == "map"
    assert clock.now < 10.0


def test_a_short_sweep_compiles_once(monkeypatch):
    group, settings = group_of(64, 300, 10)
    clock = Clock(monkeypatch, dict.fromkeys(["map", "vmap", "chunked"], 1e-5))
    assert pick_strategy(group, settings, 64).strategy == "map"
    assert clock.compiled == ["map"]
    assert clock.now < 1.3


# ------------------------------------------------- calls, by seconds that are made up


def calls_of(seconds_an_update, *, lanes=8, devices=1, evaluations=40, every=10, **how):
    """The calls of one round, and how long each takes."""
    keywords = {"most_evaluations": 512, "skips_idle": True, **how}
    left = Left(np.full(lanes, evaluations), np.zeros(lanes, bool), 0)
    pace, calls = Pace(2.0), []
    while left.evaluations.any():
        call = next_call(
            left, pace.work, devices=devices, evaluate_every=every, **keywords
        )
        seconds = 1e-3 + call.work * seconds_an_update
        calls.append((call, seconds))
        pace.took(call, seconds)
        assert call.lanes.any()
        assert not (call.lanes & (left.evaluations == 0)).any()
        if left.updates:
            assert (call.lanes == left.within).all()
        after = left.evaluations - call.lanes * call.size.evaluations
        if call.size.evaluates:
            left = Left(after, np.zeros(lanes, bool), 0)
        else:
            left = Left(left.evaluations, call.lanes, left.updates + call.size.updates)
            assert left.updates < every
    return calls


@pytest.mark.parametrize("seconds", [1e-5, 1e-3, 0.1, 1.0, 5.0])
@pytest.mark.parametrize("skips_idle", [True, False])
def test_a_call_takes_about_two_seconds_whatever_an_update_costs(seconds, skips_idle):
    calls = calls_of(seconds, skips_idle=skips_idle)
    assert (
        sum(
            int(call.lanes.sum()) * call.size.evaluations
            for call, _ in calls
            if call.size.evaluates
        )
        == 8 * 40
    )
    for call, took in calls:
        assert took < 3.0 or (seconds == 5.0 and call.work == 1)
    total = sum(took for _, took in calls)
    # No more of them than two seconds each ask for, beside the first and the ends.
    assert len(calls) <= 10 + total / min(1.0, max(0.1, 10 * seconds))


def test_slow_trials_go_one_after_the_other_and_fast_ones_together():
    slow = calls_of(0.1)
    order = [np.flatnonzero(call.lanes).tolist() for call, _ in slow]
    assert order == sorted(order)
    assert {len(lanes) for lanes in order} == {1}
    fast = calls_of(1e-6)
    assert max(int(call.lanes.sum()) for call, _ in fast) >= 7
    both = calls_of(0.1, devices=2)
    assert {int(call.lanes.sum()) for call, _ in both} == {2}
    assert {tuple(call.lanes.reshape(2, -1).sum(axis=1)) for call, _ in both} == {
        (1, 1)
    }


def test_the_rows_of_one_device_are_in_one_order_however_long_calls_are():
    """So that curves.csv is the same to the byte."""

    def rows(**how):
        done = collections.Counter()
        for call, _ in calls_of(**how):
            if call.size.evaluates:
                for lane in np.flatnonzero(call.lanes).tolist():
                    for _ in range(call.size.evaluations):
                        done[lane] += 1
                        yield lane, done[lane]

    expected = [(lane, n + 1) for lane in range(8) for n in range(40)]
    for seconds in (1e-7, 1e-5, 1e-3, 0.03, 1.0):
        assert list(rows(seconds_an_update=seconds)) == expected
        assert list(rows(seconds_an_update=seconds, most_evaluations=16)) == expected


def test_the_last_round_of_trials_is_as_full_as_the_others():
    assert group_of(256, 30, 5)[0].lanes == 256
    assert group_of(300, 30, 5)[0].lanes == 150


# ------------------------------------------------------------- errors before any work


def raising(state, optimizer):
    raise RuntimeError("the model has no head\nand no tail")


def other_tree(state, optimizer):
    return {**state, "extra": jnp.zeros(2)}, {}


def other_shape(state, optimizer):
    return {**state, "w": state["w"][:2]}, {}


def other_dtype(state, optimizer):
    return {**state, "w": state["w"].astype(jnp.bfloat16)}, {}


def other_container(state, optimizer):
    return {**state, "opt_state": list(state["opt_state"])}, {}


WHO = r"^trial sgd\(learning_rate=0\.1\): "


@pytest.mark.parametrize(
    ("trial", "message"),
    [
        (
            (init, raising, evaluate),
            WHO + r"step raised RuntimeError: the model has no head \(.*, line \d+\)$",
        ),
        (
            (lambda key: key, step),
            r"^trial must be .*: init must be a function \(key, optimizer\) -> state",
        ),
        ((init, step, lambda state: state["none"]), WHO + "evaluate raised KeyError: "),
        (
            (init, other_tree, evaluate),
            WHO + r".* at \['extra'\] init has no leaf and step",
        ),
        (
            (init, other_shape, evaluate),
            WHO + r".* at \['w'\] init has float32\[4, 3\] and step float32\[2, 3\]$",
        ),
        ((init, other_dtype, evaluate), WHO + r".*\['w'\].*step bfloat16\[4, 3\]$"),
        (
            (init, other_container, evaluate),
            WHO + r".*containers differ: PyTreeDef\(\{'key'",
        ),
        (
            (lambda key, optimizer: key, lambda s, o: (0, {}), evaluate),
            WHO + r".* at the root init has key<fry>\[\] and step ",
        ),
        ((init, lambda s, o: s, evaluate), WHO + r".*\(state, metrics\), got a dict$"),
        ((init, lambda s, o: (s, 1.0), evaluate), WHO + ".*mapping.*got "),
        ((init, step), WHO + "the sweep ranks by the metric 'val', but.* has loss"),
        (
            (init, step, lambda s: {"val": s["w"]}),
            WHO + r"the metric 'val' of evaluate .*got float32\[4, 3\]$",
        ),
        (
            (init, step, lambda s: {"val": jnp.complex64(1)}),
            WHO + r"the metric 'val' .*real scalar, got complex64\[\]$",
        ),
        (
            (init, step, lambda s: {"val": {"inner": 1.0}}),
            WHO + r"the metric 'val' .*real scalar, got dict$",
        ),
        (
            (init, step, lambda s: {"val": None}),
            WHO + r"the metric 'val' .*real scalar, got NoneType$",
        ),
        (
            (init, step, lambda s: {"val": 1.0, "loss": 1.0}),
            WHO + "step and evaluate .*differently, both have loss$",
        ),
    ],
)
def test_a_trial_that_cannot_work(trial, message, tmp_path):
    out = tmp_path / "never"
    with pytest.raises(sweep.SweepError, match=message) as caught:
        sweep.run(trial, {"optimizer": "sgd", "learning_rate": 0.1}, out=out, **QUIET)
    assert len(str(caught.value).splitlines()) == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("trial", "message"),
    [
        # Without the check its functions would be handed an optimizer.
        (
            sweep.Trial(init, step, evaluate),
            r"make_trial\(factory\) -> Trial, got a Trial; pass .*lambda factory: ",
        ),
        ((init,), r"\(init, step\[, evaluate\]\), got a tuple$"),
        ((init, step, evaluate, init), "got a tuple$"),
        ((init, None), "got a tuple$"),
        (None, "got a NoneType$"),
    ],
)
def test_what_makes_no_trial(trial, message, tmp_path):
    spec = sweep.TrialSpec(0, sweep.Config("sgd", {"learning_rate": 0.1}, {}), 0)
    out = tmp_path / "never"
    for run in (
        lambda: sweep.run_alone(trial, spec, **STEPS),
        lambda: sweep.run(trial, SPACE, out=out, **QUIET),
        lambda: sweep.run(trial, SPACE, engine="ray", out=out, **QUIET),
    ):
        with pytest.raises(sweep.SweepError, match=message) as caught:
            run()
        assert str(caught.value).startswith("trial must be a function")
        assert len(str(caught.value).splitlines()) == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"seeds": 0}, "a number of seeds >= 1, .* got 0$"),
        ({"seeds": []}, "a number of seeds >= 1"),
        ({"seeds": [1, 1]}, "distinct"),
        ({"seeds": [-1]}, "from 0"),
        ({"seeds": [2**31]}, "from 0"),
        (
            {"strategy": "pmap"},
            "strategy must be one of auto, .*got 'pmap'",
        ),
        ({"mode": "best"}, "mode must be None or one of max, min, got 'best'"),
        ({"evaluate_every": 0}, "evaluate_every must be an integer >= 1, got 0"),
        ({"evaluate_every": 7}, "evaluate_every=7 must divide steps=30"),
        ({"evaluate_every": 60}, "evaluate_every=60 must divide steps=30"),
        ({"steps": 0}, "steps must be an integer >= 1, got 0"),
        ({"lanes": 0}, "lanes must be None or an integer >= 1, got 0"),
        (
            {"memory_limit": 0},
            "memory_limit must be .* got 0",
        ),
        ({"engine": "slurm"}, "engine must be one of local, ray, got 'slurm'"),
        ({"metric": "accuracy"}, "metric 'accuracy', but the trial has loss, val"),
        ({"stopping": sweep.SuccessiveHalving(7)}, "multiple of evaluate_every=5"),
        ({"stopping": sweep.SuccessiveHalving(30)}, "less than .* 30 steps"),
        ({"seeds": [0.2, 0.7]}, "distinct integers .* got"),
        ({"checkpoint_seconds": "30"}, "checkpoint_seconds must be .*got '30'"),
        ({"checkpoint_seconds": -1}, "checkpoint_seconds must be .*got -1"),
        ({"checkpoint_seconds": float("nan")}, "checkpoint_seconds must be .*got nan"),
        ({"space": {"optimizer": "sgd", "learning_rate": 1, "mu": 0}}, "'mu'"),
        ({"space": {"optimizer": "sgd", "learning_rate": -1.0}}, "learning_rate"),
        ({"space": {"optimizer": "sdg", "learning_rate": 0.1}}, "sdg"),
        ({"space": {"optimizer": [], "learning_rate": 0.1}}, "optimizer"),
        ({"space": {"optimizer": "sgd", "learning_rate": []}}, "learning_rate"),
    ],
)
def test_a_sweep_that_cannot_work(keywords, message, tmp_path):
    out = tmp_path / "never"
    keywords = {"space": {"optimizer": "sgd", "learning_rate": 0.1}} | QUIET | keywords
    with pytest.raises(sweep.SweepError, match=message) as caught:
        sweep.run(TOY, out=out, **keywords)
    assert len(str(caught.value).splitlines()) == 1
    assert not out.exists()


def test_integers_of_numpy_and_jax_are_integers(tmp_path):
    space = {"optimizer": "sgd", "learning_rate": 0.1}
    numbers = {"steps": np.int64(10), "evaluate_every": jnp.array(5)}
    for seeds in (np.arange(2), jnp.arange(2), [np.int32(0), 1], np.int64(2)):
        words = QUIET | numbers | {"seeds": seeds, "out": tmp_path / "out"}
        result = sweep.run(TOY, space, **words)
        assert [record.trial.seed for record in result.records] == [0, 1]


@pytest.mark.parametrize(
    "name", ["trial", "optimizer", "seed", "step", "", " ", "a,b", 'a"b', "a\nb"]
)
def test_a_metric_that_the_tables_cannot_have_is_named(name, tmp_path):
    """Before anything is compiled: it would be a column's title."""

    def step_with_it(state, optimizer):
        state, metrics = step(state, optimizer)
        return state, {**metrics, name: metrics["loss"]}

    with pytest.raises(sweep.SweepError, match="the name of a metric must") as caught:
        sweep.run(
            (init, step_with_it),
            {"optimizer": "sgd", "learning_rate": 0.1},
            out=tmp_path / "never",
            **QUIET | {"metric": "loss"},
        )
    assert repr(name) in str(caught.value)
    assert not (tmp_path / "never").exists()


def test_optimizers_must_share_their_metrics():
    def with_own_metric(factory):
        trial = sweep.from_functions(init, step, evaluate)(factory)
        name = "extra" if factory.func is optax.adam else "more"
        return trial._replace(evaluate=lambda s: {**evaluate(s.state), name: 0.0})

    factories = {"sgd": optax.sgd, "adam": optax.adam}
    space = {"optimizer": ["sgd", "adam"], "learning_rate": 0.1}
    with pytest.raises(
        sweep.SweepError, match="sgd has loss, more, val and adam loss, extra, val"
    ):
        sweep.run(with_own_metric, space, factories=factories, **QUIET)


def test_devices_are_the_cores_that_the_process_may_use(monkeypatch):
    import os

    from optjax.sweep._engine import devices

    asked = []
    monkeypatch.setattr(jax.config, "update", lambda *given: asked.append(given))
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES", raising=False)
    assert sweep.use_all_cores()
    assert asked == [("jax_num_cpu_devices", devices._cores())]
    if hasattr(os, "sched_getaffinity"):
        assert devices._cores() == len(os.sched_getaffinity(0))
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "3")
    assert sweep.use_all_cores()
    assert len(asked) == 1


def test_what_is_best_has_to_be_said_but_of_an_accuracy():
    how = {"steps": 1, "evaluate_every": 1, "seeds": 1, "strategy": "map"}
    space = {"optimizer": "sgd", "learning_rate": [0.1]}

    def step(state, optimizer):
        return state, {"val_accuracy": state, "val_loss": state}

    trial = (lambda key, optimizer: jnp.zeros(()), step)
    assert sweep.run(trial, space, metric="val_accuracy", **how).mode == "max"
    with pytest.raises(
        sweep.SweepError, match="metric=val_loss needs mode=max or mode="
    ):
        sweep.run(trial, space, metric="val_loss", **how)
