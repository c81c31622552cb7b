"""The race: statistics on hand-made trials, then one small race from end to end."""

import csv
import io
import math
import re
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import jax
import numpy as np
import pytest
from matplotlib.image import imread
from rich.console import Console

import optjax
from optjax import sweep
from optjax._race import run as race_run
from optjax._race.execute import Curves, execute, lanes
from optjax._race.files import write_curves
from optjax._race.plan import make_directory, make_plan
from optjax._race.plots import plot_learning_curves, plot_sensitivity
from optjax._race.progress import Tally, describe, progress
from optjax._race.results import DIVERGED, FINISHED, Result, results
from optjax._race.run import COMPLETE, INCOMPLETE, race
from optjax._race.standings import cells, rank, standing
from optjax._race.table import ranking_table
from optjax.sweep import Config, SweepResult, TrialSpec
from optjax.sweep._records import Curve, Record
from optjax.sweep._store.files import write_atomically
from optjax.sweep._store.store import Store
from optjax.tasks import TASKS

# ---------------------------------------------------------------- hand-made trials


def finished(accuracy, *, rate=0.1, seed=0, optimizer="adam", reached=10, loss=0.1):
    return Result(
        optimizer, rate, seed, FINISHED, 100, accuracy, accuracy, loss, reached
    )


def diverged(*, rate=0.1, seed=0, optimizer="adam"):
    return Result(optimizer, rate, seed, DIVERGED, 20, None, None, None, None)


def one_seed(accuracies, optimizer="adam"):
    """One trial a learning rate, 1e-3, 1e-2, ...; None for diverged."""
    return [
        diverged(rate=10.0**i, optimizer=optimizer)
        if accuracy is None
        else finished(accuracy, rate=10.0**i, optimizer=optimizer)
        for i, accuracy in enumerate(accuracies, -3)
    ]


def test_median_and_spread_over_seeds():
    trials = [finished(a, seed=i) for i, a in enumerate([0.97, 0.91, 0.95])]
    (cell,) = cells(trials)
    assert (cell.median, cell.low, cell.high) == (0.95, 0.91, 0.97)


def test_diverged_seed_is_worse_than_any_accuracy_and_is_not_zero():
    (cell,) = cells([finished(0.97), finished(0.91, seed=1), diverged(seed=2)])
    assert (cell.median, cell.low, cell.high) == (0.91, -math.inf, 0.97)
    assert cell.diverged == 1
    (cell,) = cells([finished(0.97), diverged(seed=1), diverged(seed=2)])
    assert cell.median == -math.inf
    # With an even number of seeds, half of them diverged is diverged.
    (cell,) = cells([finished(0.97), diverged(seed=1)])
    assert cell.median == -math.inf


def test_a_learning_rate_of_accuracy_zero_beats_a_diverged_one():
    best = standing("adam", one_seed([None, 0.0, None])).best
    assert best.learning_rate == 1e-2
    assert best.median == 0.0


@pytest.mark.parametrize(
    ("reached", "expected"),
    [
        ([10, 30, 20], 20),
        ([10, None, 20], 20),
        ([10, None, None], math.inf),
        ([10, 20], 15),
        ([10, None], math.inf),
    ],
)
def test_steps_to_target_is_a_median_with_never_last(reached, expected):
    (cell,) = cells([finished(0.9, seed=i, reached=r) for i, r in enumerate(reached)])
    assert cell.steps_to_target == expected


def test_band_is_the_neighbourhood_within_one_percent():
    line = standing("adam", one_seed([0.5, 0.96, 0.97, 0.965, 0.5]))
    assert (line.lowest, line.highest) == (1e-2, 1.0)
    assert line.decades == pytest.approx(2.0)
    assert not line.below_grid
    assert not line.above_grid


def test_band_includes_exactly_one_percent_in_float32():
    # 0.01 lower, but for the rounding of float32.
    low, high = float(np.float32(0.96)), float(np.float32(0.97))
    assert standing("adam", one_seed([low, high, 0.95])).lowest == 1e-3


def test_band_does_not_jump_over_a_gap_or_a_diverged_rate():
    line = standing("adam", one_seed([0.97, 0.9, 0.97, None, 0.97]))
    assert line.best.learning_rate == 1e-3
    assert (line.lowest, line.highest) == (1e-3, 1e-3)
    assert line.decades == 0
    assert line.below_grid
    assert not line.above_grid
    line = standing("adam", one_seed([0.9, 0.96, 0.97, None, 0.97]))
    assert (line.lowest, line.highest) == (1e-2, 1e-1)


def test_band_that_ends_with_the_grid_is_marked():
    line = standing("adam", one_seed([0.97, 0.97, 0.97]))
    assert line.below_grid
    assert line.above_grid
    assert line.decades == pytest.approx(2.0)


def test_ties_go_to_worst_seed_then_steps_then_loss_then_smaller_rate():
    def pair(rate, low=0.9, **kwargs):
        # Of three seeds: median 0.95 always.
        accuracies = [low, 0.95, 0.99]
        return [
            finished(a, rate=rate, seed=i, **kwargs) for i, a in enumerate(accuracies)
        ]

    def best(*groups):
        return standing("adam", list(chain(*groups))).best.learning_rate

    assert best(pair(1.0), pair(2.0, low=0.94)) == 2.0
    assert best(pair(1.0), pair(2.0, reached=5)) == 2.0
    assert best(pair(1.0, reached=None), pair(2.0, reached=90)) == 2.0
    assert best(pair(1.0), pair(2.0, loss=0.05)) == 2.0
    assert best(pair(2.0), pair(1.0)) == 1.0


def test_ranking_lists_the_diverged_last_and_full_ties_in_order():
    trials = [
        *one_seed([None, None], "dead"),
        *one_seed([0.1, 0.0], "zero"),
        *one_seed([0.9, 0.95], "second"),
        # The same but for the learning rate.
        *[t._replace(learning_rate=t.learning_rate * 2) for t in one_seed([0.9, 0.95])],
        *one_seed([0.99, None], "first"),
    ]
    order = [line.optimizer for line in rank(trials)]
    assert order == ["first", "second", "adam", "zero", "dead"]
    assert rank(trials)[-1].best is None
    assert (rank(trials)[-1].diverged, rank(trials)[-1].trials) == (2, 2)


# ---------------------------------------------------------------- curves to results

PLAN = make_plan(
    optimizers=["adam", "sgd"],
    learning_rates=[0.1, 1.0],
    seeds=1,
    steps=30,
    evaluate_every=10,
)


def hand_made_curves():
    """Two trials: one reaches 0.95 at step 20; the other breaks at step 20."""
    return Curves(
        train_loss=np.array([[2.0, 1.0, 0.5], [2.0, 1.0, 1.0]], np.float32),
        val_loss=np.array([[2.0, 1.0, 0.75], [2.0, np.nan, 1.0]], np.float32),
        val_accuracy=np.array([[0.5, 0.95, 0.9], [0.99, 0.1, 0.1]], np.float32),
        finite=np.ones((2, 3), bool),
    )


def test_results_of_a_finished_and_a_diverged_trial():
    good, bad = results(PLAN, "adam", hand_made_curves())
    assert good[:5] == ("adam", 0.1, 0, FINISHED, 30)
    assert good.best_accuracy == pytest.approx(0.95)
    assert good.final_accuracy == pytest.approx(0.9)
    assert good.final_loss == 0.75
    # 0.95 in float32 lies below 0.95 in float64, and still counts as 95 %.
    assert good.steps_to_target == 20
    assert bad == ("adam", 1.0, 0, DIVERGED, 20, None, None, None, None)


@pytest.mark.parametrize("name", ["train_loss", "val_loss", "finite"])
def test_each_sign_of_divergence_counts_at_any_evaluation(name):
    curves = hand_made_curves()
    broken = getattr(curves, name).copy()
    broken[0, 0] = False if name == "finite" else np.inf
    trial, _ = results(PLAN, "adam", curves._replace(**{name: broken}))
    assert (trial.status, trial.steps) == (DIVERGED, 10)
    assert trial.best_accuracy is None


def test_curves_file_leaves_the_accuracy_empty_after_divergence(tmp_path):
    write_curves(tmp_path / "curves.csv", PLAN, {"adam": hand_made_curves()})
    rows = read(tmp_path / "curves.csv")
    assert [row["step"] for row in rows] == ["10", "20", "30"] * 2
    assert [row["val_accuracy"] == "" for row in rows] == [False] * 4 + [True] * 2
    assert rows[4]["val_loss"] == "nan"


# ---------------------------------------------------------------- plan


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "digit"}, "unknown task 'digit'; did you mean digits"),
        ({"optimizers": ["adabond"]}, "did you mean adabound"),
        ({"optimizers": ["zzz"]}, "unknown optimizer 'zzz'; known: sgd, momentum"),
        ({"optimizers": []}, "no optimizer"),
        ({"optimizers": ["sgd", "sgd"]}, "sgd 2 times"),
        ({"learning_rates": []}, "no learning rate"),
        ({"learning_rates": [0.1, 0.0]}, "positive and finite in float32, got 0.0"),
        ({"learning_rates": [-0.1]}, "got -0.1"),
        ({"learning_rates": [math.nan]}, "got nan"),
        ({"learning_rates": [math.inf]}, "got inf"),
        ({"learning_rates": [1e-60]}, "got 1e-60"),
        ({"learning_rates": [1e60]}, "got 1e"),
        ({"learning_rates": [0.1, 0.1 + 1e-12]}, "0.1 2 times"),
        ({"seeds": 0}, "number of seeds must be at least 1, got 0"),
        (
            {"optimizers": ["sgd"], "learning_rates": [0.1, 1], "seeds": 10**9},
            "got 2 learning rates of 1 optimizers × 1,000,000,000 seeds = 2,000,000,0",
        ),
        ({"first_seed": -1}, "first seed must be at least 0, got -1"),
        ({"first_seed": 2**31 - 1, "seeds": 2}, "below 2³¹"),
        ({"steps": 0}, "number of steps must be at least 1"),
        ({"evaluate_every": 0}, "between evaluations must be at least 1"),
        ({"steps": 25, "evaluate_every": 10}, "got 25; 30 would do"),
    ],
)
def test_plan_refuses(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        make_plan(**arguments)
    assert "\n" not in str(caught.value)


def test_plan_defaults_hold_every_row_and_sort_the_grid():
    assert make_plan().optimizers == tuple(optjax.OPTIMIZERS)
    plan = make_plan(learning_rates=[1, 0.1], seeds=2, first_seed=5)
    assert lanes(plan, "adam") == [(0.1, 5), (0.1, 6), (1.0, 5), (1.0, 6)]
    assert plan.trials == 4 * len(optjax.OPTIMIZERS)


def test_plan_with_learning_rates_of_each_optimizer():
    plan = make_plan(
        optimizers=["sgd", "adam"],
        learning_rates={"sgd": [0.1], "adam": [1e-2, 1e-3], "yogi": [1.0]},
        seeds=2,
    )
    assert lanes(plan, "sgd") == [(0.1, 0), (0.1, 1)]
    assert plan.trials == 6
    assert plan.grid == (1e-3, 1e-2, 0.1)
    with pytest.raises(ValueError, match="no learning rate given for adam"):
        make_plan(optimizers=["adam"], learning_rates={"sgd": [0.1]})


def test_output_directory(tmp_path):
    make_directory(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match="must be a directory"):
            make_directory(path)


def test_output_directory_that_cannot_be_written(tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    # Not by chmod: a superuser may write anywhere.
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(ValueError, match=r"cannot write .*: Permission denied"):
        make_directory(tmp_path)


def test_atomic_write_keeps_the_old_file_when_writing_fails(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")

    def fail(temporary):
        temporary.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


# ---------------------------------------------------------------- progress and table


def test_tally_counts_and_keeps_the_best():
    now = iter([0.0, *[10.0] * 10])
    plan = make_plan(optimizers=["sgd", "adam"], learning_rates=[1e-3, 1e-2], seeds=1)
    tally = Tally(plan, clock=lambda: next(now))
    assert "time left unknown" in tally.trials_line
    tally.add("sgd", one_seed([0.9, None], "sgd"))
    assert tally.trials_line == (
        "2 of 4 trials, 1 diverged · 60 steps/s · about 10 s left"
    )
    assert tally.best_line == "best so far: sgd 90.00 % at learning rate 0.001"
    tally.add("adam", one_seed([0.8, 0.95]))
    assert tally.best_line == "best so far: adam 95.00 % at learning rate 0.01"
    assert tally.trials_line.startswith("4 of 4 trials, 1 diverged")
    assert tally.trials_line.endswith("took 10 s")


def test_progress_is_plain_lines_off_a_terminal_and_live_on_one():
    plan = make_plan(optimizers=["sgd", "adam"], learning_rates=[1e-3, 1e-2], seeds=1)
    dead = one_seed([None, None], "sgd")
    for terminal in (False, True):
        stream = io.StringIO()
        console = Console(file=stream, force_terminal=terminal, width=100)
        with progress(plan, console) as report:
            report("sgd", dead)
            report("adam", one_seed([0.8, 0.95]))
        text = stream.getvalue()
        assert ("\x1b[" in text) is terminal
        assert "adam 95.00 % at learning rate 0.01" in text
        if not terminal:
            first, second = text.splitlines()
            assert first.startswith("sgd, diverged at every learning rate · 2 of 4")
            assert second.startswith("adam 95.00 %")
        else:
            assert "4 of 4 trials, 2 diverged" in text
            assert "2/2" in text


def test_describe():
    assert describe(standing("adam", one_seed([0.5]))) == (
        "adam 50.00 % at learning rate 0.001"
    )


def printed(table, width=80):
    stream = io.StringIO()
    Console(file=stream, width=width).print(table)
    return stream.getvalue()


def test_table_shows_diverged_and_never(request):
    trials = [
        *one_seed([None, None], "dead"),
        *[t._replace(steps_to_target=None) for t in one_seed([0.5, 0.9], "slow")],
        finished(0.97, optimizer="adaboundw", rate=3e-4),
        finished(0.96, optimizer="adaboundw", rate=3e-4, seed=1),
        diverged(optimizer="adaboundw", rate=3e-4, seed=2),
    ]
    text = printed(ranking_table(PLAN, rank(trials)))
    lines = {
        line.split()[1]: line.split()
        for line in text.splitlines()
        if re.match(r" *\d ", line)
    }
    assert lines["adaboundw"] == [
        *("1", "adaboundw", "96.00", "div.–97.00", "0.0003", "10"),
        *("≥0.0", "0.0003–0.0003", "1/3"),
    ]
    assert lines["slow"] == [
        *("2", "slow", "90.00", "90.00–90.00", "0.01", "–", "≥0.0", "0.01–0.01", "–"),
    ]
    assert lines["dead"] == ["3", "dead", "diverged", *"–––––", "2/2"]
    assert max(map(len, text.splitlines())) <= 80


# ---------------------------------------------------------------- a small race


@dataclass
class Race:
    """What one race left behind."""

    status: int
    out: Path
    text: str
    messages: str


SMALL = make_plan(
    optimizers=["sgd", "adam", "adabound"],
    learning_rates=[0.01, 1e4],
    seeds=2,
    steps=40,
    evaluate_every=10,
)


def run_race(out, plan=SMALL):
    make_directory(out)
    console = Console(file=io.StringIO(), width=80)
    messages = Console(file=io.StringIO(), width=80)
    status = race(plan, TASKS[plan.task].load(), out, console, messages)
    return Race(status, out, console.file.getvalue(), messages.file.getvalue())


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return run_race(tmp_path_factory.mktemp("race") / "new")


def test_race_writes_every_trial(small):
    assert small.status == COMPLETE
    rows = read(small.out / "results.csv")
    assert [
        (r["optimizer"], float(r["learning_rate"]), int(r["seed"])) for r in rows
    ] == [(name, *lane) for name in SMALL.optimizers for lane in lanes(SMALL, name)]
    assert {r["status"] for r in rows} == {FINISHED, DIVERGED}
    for row in rows:
        measured = [row["best_accuracy"], row["final_accuracy"], row["final_loss"]]
        if row["status"] == DIVERGED:
            assert measured == ["", "", ""]
            assert row["steps_to_95"] == ""
            assert int(row["steps"]) in SMALL.evaluation_steps
        else:
            best, final, loss = map(float, measured)
            assert 0 < final <= best <= 1
            assert math.isfinite(loss)
            assert row["steps"] == "40"
    adam = [
        r for r in rows if r["optimizer"] == "adam" and r["learning_rate"] == "0.01"
    ]
    assert all(float(row["best_accuracy"]) > 0.9 for row in adam)
    sgd = [r for r in rows if r["optimizer"] == "sgd" and r["learning_rate"] == "10000"]
    assert [row["status"] for row in sgd] == [DIVERGED, DIVERGED]


def test_race_writes_every_evaluation(small):
    rows = read(small.out / "curves.csv")
    assert len(rows) == 3 * 4 * 4
    best = {}
    for row in rows:
        key = row["optimizer"], row["learning_rate"], row["seed"]
        if row["val_accuracy"]:
            best[key] = max(best.get(key, 0.0), float(row["val_accuracy"]))
    for row in read(small.out / "results.csv"):
        if row["status"] == FINISHED:
            key = row["optimizer"], row["learning_rate"], row["seed"]
            assert float(row["best_accuracy"]) == best[key]


def test_race_prints_the_ranking_and_the_paths(small):
    ranked = re.findall(r"^ *\d+ (\w+)", small.text, re.MULTILINE)
    assert sorted(ranked) == sorted(SMALL.optimizers)
    # sgd at 1e4 diverged with both seeds.
    assert re.search(r"sgd .* 2/4$", small.text, re.MULTILINE)
    names = ["results.csv", "curves.csv", "ranking.png", "learning_curves.png"]
    names += ["learning_rate_sensitivity.png"]
    assert small.text.splitlines()[-5:] == [str(small.out / name) for name in names]
    assert sorted(p.name for p in small.out.iterdir()) == sorted([*names, "trials"])
    assert len(small.messages.splitlines()) == len(SMALL.optimizers)


def test_race_draws_pictures_with_something_on_them(small):
    for name in ("ranking", "learning_curves", "learning_rate_sensitivity"):
        pixels = imread(small.out / f"{name}.png")[..., :3]
        assert min(pixels.shape[:2]) > 200
        coloured = np.ptp(pixels, axis=-1) > 0.3
        assert coloured.sum() > 100


def drawn(plot, *args, monkeypatch):
    """Return the figure that `plot` would save."""
    figures = []
    monkeypatch.setattr(
        "matplotlib.figure.Figure.savefig",
        lambda figure, *_, **__: figures.append(figure),
    )
    plot(Path("unused.png"), *args)
    return figures[0]


TRIALS = [
    finished(0.9, rate=0.1),
    finished(0.95, rate=1.0),
    finished(0.8, rate=0.1, optimizer="sgd"),
    diverged(rate=1.0, optimizer="sgd"),
]


def test_sensitivity_marks_diverged_and_leaves_a_gap(monkeypatch):
    figure = drawn(
        plot_sensitivity, PLAN, rank(TRIALS), TRIALS, monkeypatch=monkeypatch
    )
    adam, sgd = figure.axes
    assert adam.get_title("left") == "adam: 95.0 %"
    assert [text.get_text() for text in adam.texts] == []
    assert [text.get_text() for text in sgd.texts] == ["1"]
    crosses = [line for line in sgd.lines if line.get_marker() == "x"]
    assert [line.get_xdata()[0] for line in crosses] == [1.0]
    (own,) = [line for line in sgd.lines if line.get_marker() == "."]
    np.testing.assert_array_equal(own.get_ydata(), [80.0, np.nan])
    assert adam.get_xscale() == "log"


def test_learning_curves_are_those_of_the_best_rate(monkeypatch):
    curves = {"adam": hand_made_curves(), "sgd": hand_made_curves()}
    standings = rank(TRIALS)
    figure = drawn(
        plot_learning_curves, PLAN, standings, curves, monkeypatch=monkeypatch
    )
    # adam's best is 1.0, whose hand-made curve breaks at step 20; sgd's is 0.1.
    adam, sgd = figure.axes
    assert sgd.get_title("left") == "sgd, lr 0.1"
    ours = {axis: axis.lines[2] for axis in (adam, sgd)}
    np.testing.assert_allclose(ours[sgd].get_ydata(), [50, 95, 90], rtol=1e-6)
    np.testing.assert_allclose(ours[adam].get_ydata(), [99, np.nan, np.nan], rtol=1e-6)


def test_a_race_in_which_all_diverged_says_so_and_is_drawn(tmp_path):
    plan = make_plan(
        optimizers=["sgd"], learning_rates=[1e4], seeds=1, steps=20, evaluate_every=10
    )
    done = run_race(tmp_path, plan)
    assert done.status == INCOMPLETE
    assert re.search(r"1 sgd +diverged", done.text)
    assert "1/1" in done.text
    assert done.messages.splitlines()[-1] == (
        "optjax: all 1 trials diverged; try smaller learning rates"
    )
    assert (tmp_path / "learning_rate_sensitivity.png").stat().st_size > 0


def test_same_seeds_give_the_same_files(small, tmp_path):
    run_race(tmp_path)
    for name in ("results.csv", "curves.csv"):
        assert (tmp_path / name).read_bytes() == (small.out / name).read_bytes()


@pytest.mark.parametrize("commits", [1, 2, 3, 4])
def test_a_race_that_died_goes_on_to_the_same_files(
    small, tmp_path, monkeypatch, commits
):
    """The first commit begins the trials; each further one ends an optimizer."""

    def die(store, *point):
        made.append(point)
        if len(made) > commits:
            raise RuntimeError("killed")
        return commit(store, *point)

    made, commit = [], Store.commit
    with monkeypatch.context() as patch:
        patch.setattr(Store, "commit", die)
        with pytest.raises(RuntimeError, match="killed"):
            run_race(tmp_path)
    again = run_race(tmp_path)
    assert again.status == COMPLETE
    for name in ("results.csv", "curves.csv"):
        assert (tmp_path / name).read_bytes() == (small.out / name).read_bytes()
    # Those that were done before come first, so all are in the plan's order.
    assert [line.split()[0] for line in again.messages.splitlines()] == [
        line.split()[0] for line in small.messages.splitlines()
    ]


def test_a_race_leaves_other_directories_as_they_are(small, tmp_path):
    swept = tmp_path / "swept"

    def sweep_into(out):
        sweep.run(
            TASKS["digits"].load().make_trial,
            {"optimizer": "sgd", "learning_rate": 0.1},
            steps=10,
            evaluate_every=10,
            metric="val_accuracy",
            seeds=1,
            out=out,
            progress=False,
        )

    sweep_into(swept)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "results.csv").write_text("mine")
    for out in (swept, mine):
        before = {path: path.read_bytes() for path in out.rglob("*.*")}
        with pytest.raises(sweep.SweepError, match=r"must be empty, .* \w+\.csv and"):
            run_race(out)
        assert {path: path.read_bytes() for path in out.rglob("*.*")} == before
    # Nor does a sweep go into a race's, nor another race.
    before = {path: path.read_bytes() for path in small.out.rglob("*.*")}
    with pytest.raises(sweep.SweepError, match=r"curves\.csv and no sweep/progr"):
        sweep_into(small.out)
    with pytest.raises(sweep.SweepError, match="trials holds another sweep: "):
        run_race(small.out, SMALL._replace(seeds=(0,)))
    assert {path: path.read_bytes() for path in small.out.rglob("*.*")} == before


def test_each_optimizer_is_compiled_once():
    compiled = []

    def listen(event, _seconds, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    task = TASKS["digits"].load()
    done = {}
    plan = make_plan(
        optimizers=["sgd", "yogi"],
        learning_rates=[0.01, 1e4],
        seeds=3,
        steps=40,
        evaluate_every=10,
    )
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        execute(plan, task, done.__setitem__)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert done["yogi"].val_loss.shape == (6, 4)
    assert len(compiled) == 2


def test_all_lanes_at_once_agree_with_one_after_the_other(monkeypatch):
    task = TASKS["digits"].load()
    plan = SMALL._replace(
        optimizers=("adam",),
        learning_rates={"adam": (0.001, 0.01)},
        seeds=(0,),
        steps=20,
    )
    done = []
    execute(plan, task, lambda _, curves: done.append(curves))
    # As on an accelerator.
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    execute(plan, task, lambda _, curves: done.append(curves))
    mapped, batched = done
    # Sums in another order differ in the last digits, and steps amplify that.
    np.testing.assert_allclose(mapped.val_loss, batched.val_loss, rtol=1e-3)
    np.testing.assert_allclose(mapped.train_loss, batched.train_loss, rtol=1e-3)
    assert not np.array_equal(mapped.val_loss, batched.val_loss)


def without_training(error, after):
    """Return an executor of made-up curves that stops with `error`."""

    def executor(plan, _task, on_done, **_):
        shape = plan.trials // len(plan.optimizers), len(plan.evaluation_steps)
        half = np.full(shape, 0.5, np.float32)
        for i, name in enumerate(plan.optimizers):
            if i == after:
                raise error
            on_done(name, Curves(half, half, half, np.ones(shape, bool)))
        curve = Curve((plan.steps,), {"val_accuracy": (0.5,)})
        return SweepResult(
            tuple(
                Record(TrialSpec(0, Config(name, {}, {}), 0), "finished", 1, curve)
                for name in plan.optimizers
            ),
            "val_accuracy",
            "max",
        )

    return executor


@pytest.mark.parametrize(
    ("after", "kept"),
    [
        (1, "after 1 of 3 optimizers; they are in {out}/results.csv"),
        (0, "after 0 of 3 optimizers; nothing was written"),
    ],
)
def test_interrupt_keeps_what_is_done(tmp_path, monkeypatch, after, kept):
    monkeypatch.setattr(
        race_run, "execute", without_training(KeyboardInterrupt(), after)
    )
    stopped = run_race(tmp_path)
    assert stopped.status == 130
    assert stopped.text == ""
    assert stopped.messages.splitlines()[after:] == [
        f"optjax: interrupted {kept.format(out=tmp_path)}"
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == (
        ["curves.csv", "results.csv"] if after else []
    )
    if after:
        rows = read(tmp_path / "results.csv")
        assert [row["optimizer"] for row in rows] == ["sgd"] * 4
        assert len(read(tmp_path / "curves.csv")) == 16


def test_tables_are_written_although_an_optimizer_fails(tmp_path, monkeypatch):
    error = RuntimeError("out of memory")
    monkeypatch.setattr(race_run, "execute", without_training(error, 2))
    with pytest.raises(RuntimeError, match="out of memory"):
        run_race(tmp_path)
    assert len(read(tmp_path / "results.csv")) == 8


def test_tables_are_written_although_a_picture_fails(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("no fonts")

    monkeypatch.setattr(race_run, "execute", without_training(None, None))
    monkeypatch.setattr(race_run, "plot_learning_curves", fail)
    done = run_race(tmp_path)
    assert done.status == INCOMPLETE
    assert "could not draw" in done.messages
    assert "no fonts" in done.messages
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "curves.csv",
        "learning_rate_sensitivity.png",
        "ranking.png",
        "results.csv",
    ]


def test_a_full_disk_is_said_in_one_line_and_the_ranking_still_printed(
    tmp_path, monkeypatch
):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(race_run, "execute", without_training(None, None))
    monkeypatch.setattr(race_run, "write_curves", fail)
    done = run_race(tmp_path)
    assert done.status == INCOMPLETE
    assert done.messages.splitlines()[3:] == [
        f"optjax: could not write {tmp_path / 'curves.csv'}: No space left on device"
    ]
    assert re.search(r"1 sgd +50\.00", done.text)
    assert (tmp_path / "results.csv").exists()
