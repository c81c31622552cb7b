"""The race: rankings of hand-made trials, then one small race from end to end."""

import contextlib
import csv
import io
import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import jax
import numpy as np
import pytest
from compiling import compiled_programs
from matplotlib.image import imread
from rich.console import Console

import optjax
from optjax._cli.main import main
from optjax._cli.race import LEARNING_RATES
from optjax.sweep import (
    DIVERGED,
    FINISHED,
    STOPPED,
    Config,
    Curve,
    Record,
    Status,
    SweepResult,
    TrialSpec,
)
from optjax.sweep._store.store import Store
from optjax.sweep._view.leaderboard import Leaderboard
from optjax.sweep._view.live import Display, Tally, live_display

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

# ---------------------------------------------------------------- hand-made trials


def trial(optimizer, rate, seed, status, values, **hyper):
    steps = tuple(10 * (i + 1) for i in range(len(values)))
    config = Config(optimizer, {"learning_rate": rate, **hyper}, {})
    curve = Curve(steps, {"accuracy": tuple(values)})
    return Record(TrialSpec(0, config, seed), status, steps[-1], curve)


def finished(accuracy, *, rate=0.1, seed=0, optimizer="adam", before=()):
    return trial(optimizer, rate, seed, FINISHED, [*before, accuracy])


def diverged(*, rate=0.1, seed=0, optimizer="adam"):
    return trial(optimizer, rate, seed, DIVERGED, [0.99, math.nan])


def one_seed(accuracies, optimizer="adam"):
    """One trial a learning rate, 1e-3, 1e-2, ...; None for diverged."""
    return [
        diverged(rate=10.0**i, optimizer=optimizer)
        if accuracy is None
        else finished(accuracy, rate=10.0**i, optimizer=optimizer)
        for i, accuracy in enumerate(accuracies, -3)
    ]


def result(*records, mode="max"):
    return SweepResult(tuple(records), "accuracy", mode)


def standing(records, target=None, mode="max"):
    (line,) = result(*records, mode=mode).standings(target)
    return line


def rate_of(line):
    return line.best.config.hyper["learning_rate"]


def test_median_and_spread_over_seeds():
    trials = [finished(a, seed=i) for i, a in enumerate([0.97, 0.91, 0.95])]
    best = standing(trials).best
    assert (best.median, best.low, best.high) == (0.95, 0.91, 0.97)


def test_diverged_seed_is_worse_than_any_accuracy_and_is_not_zero():
    line = standing([finished(0.97), finished(0.91, seed=1), diverged(seed=2)])
    assert (line.best.median, line.best.low, line.best.high) == (0.91, -math.inf, 0.97)
    assert line.ends == {FINISHED: 2, DIVERGED: 1}
    line = standing([finished(0.97), diverged(seed=1), diverged(seed=2)])
    assert line.best.median == -math.inf
    # With an even number of seeds, half of them diverged is diverged.
    assert standing([finished(0.97), diverged(seed=1)]).best.median == -math.inf


def test_a_learning_rate_of_accuracy_zero_beats_a_diverged_one():
    line = standing(one_seed([None, 0.0, None]))
    assert rate_of(line) == 1e-2
    assert line.best.median == 0.0


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
    # In float32 0.95 lies below 0.95, and still is 0.95.
    there = float(np.float32(0.95))

    def values(step):
        return [there if 10 * (i + 1) == step else 0.9 for i in range(3)]

    trials = [
        trial("adam", 0.1, seed, FINISHED, values(step))
        for seed, step in enumerate(reached)
    ]
    assert standing(trials, 0.95).steps_to_target == expected
    assert standing(trials).steps_to_target == math.inf


def test_steps_to_a_target_of_a_loss_are_those_to_less():
    falls = trial("adam", 0.1, 0, FINISHED, [0.5, 0.2, 0.1])
    assert standing([falls], 0.2, mode="min").steps_to_target == 20
    assert standing([falls], 0.2).steps_to_target == 10


def test_band_is_the_neighbourhood_within_one_percent():
    band = standing(one_seed([0.5, 0.965, 0.97, 0.962, 0.5])).band
    assert (band.name, band.low, band.high) == ("learning_rate", 1e-2, 1.0)
    assert not band.is_open


def test_band_includes_exactly_one_percent_in_float32():
    # 1 % lower, but for the rounding of float32.
    low, high = float(np.float32(0.99 * 0.97)), float(np.float32(0.97))
    assert standing(one_seed([low, high, 0.95])).band.low == 1e-3
    losses = [trial("sgd", r, 0, FINISHED, [x]) for r, x in ((0.1, 1.01), (1.0, 1.0))]
    assert standing(losses, mode="min").band.low == 0.1


def test_band_does_not_jump_over_a_gap_or_a_diverged_rate():
    line = standing(one_seed([0.97, 0.9, 0.97, None, 0.97]))
    assert rate_of(line) == 1e-3
    assert (line.band.low, line.band.high) == (1e-3, 1e-3)
    assert line.band.is_open
    band = standing(one_seed([0.9, 0.965, 0.97, None, 0.97])).band
    assert (band.low, band.high) == (1e-2, 1e-1)


def test_there_is_no_band_where_no_or_more_than_one_number_varies_or_all_diverged():
    assert standing(one_seed([0.9])).band is None
    assert standing(one_seed([None, None])).band is None
    two = [
        trial("adam", rate, 0, FINISHED, [rate + b1], b1=b1)
        for rate in (0.1, 0.2)
        for b1 in (0.0, 0.5)
    ]
    assert standing(two).band is None
    assert standing(two[::2]).band.low == 0.2


def test_ties_go_to_the_worst_seed_and_then_to_the_first_trial():
    def pair(rate, low=0.9):
        # Of three seeds: median 0.95 always.
        accuracies = [low, 0.95, 0.99]
        return [finished(a, rate=rate, seed=i) for i, a in enumerate(accuracies)]

    def best(*groups):
        return rate_of(standing(list(chain(*groups))))

    assert best(pair(1.0), pair(2.0, low=0.94)) == 2.0
    assert best(pair(1.0), pair(2.0)) == 1.0


def test_ranking_lists_the_diverged_last_and_full_ties_in_order():
    trials = [
        *one_seed([None, None], "dead"),
        *one_seed([0.1, 0.0], "zero"),
        *one_seed([0.9, 0.95], "second"),
        *one_seed([0.95, 0.9]),
        *one_seed([0.99, None], "first"),
    ]
    lines = result(*trials).standings()
    order = [line.best.config.optimizer for line in lines]
    assert order == ["first", "second", "adam", "zero", "dead"]
    assert (lines[-1].ends, lines[-1].trials) == ({DIVERGED: 2}, 2)


# ---------------------------------------------------------------- display and table


def status(**changes):
    said = {"total": 4, "done": 2, "running": 0, "diverged": 1, "stopped": 0}
    rest = {"optimizer": "sgd", "best": 0.9, "best_config": "sgd(learning_rate=0.1)"}
    return Status(**{**said, **rest, "steps": 600, "most_steps_left": 600, **changes})


def test_tally_says_what_became_of_the_trials_how_fast_and_for_how_long():
    now = iter([0.0, *[10.0] * 10])
    tally = Tally("accuracy", "images", 2, clock=lambda: next(now))
    assert tally.trials_line(status()) == "2 of 4 trials · 1 diverged"
    everything = status(running=1, stopped=2)
    assert tally.trials_line(everything).endswith("1 running · 2 stopped · 1 diverged")
    assert tally.speed_line(status()) == "120 images/s · at most 10 s left"
    assert tally.speed_line(status(steps=0)) == "compiling"
    assert tally.speed_line(status(steps=0, done=4)).startswith("finished before")
    assert tally.best_line(status()) == "best accuracy 0.9: sgd(learning_rate=0.1)"
    assert tally.best_line(status(best=None)) == ""


def test_the_tally_says_which_of_how_many_runs():
    tally = Tally("accuracy", optimizers=["adam", "sgd"])
    assert tally.running_line(status(steps=0)) == "compiling sgd, 2 of 2"
    assert tally.running_line(status()).startswith("sgd, 2 of 2 · ")
    assert Tally("accuracy").running_line(status(steps=0)) == "compiling sgd"


def test_the_leaderboard_has_the_best_ten_and_is_ranked_when_that_is_cheap():
    clock = iter([0.0, 0.0, 1.0, 20.0, 30.0, 30.0])
    board = Leaderboard("accuracy", "max", 3, clock=lambda: next(clock))
    for seed in range(2):
        for i in range(12):
            board.add(finished((80 + i + seed) / 100, rate=10.0**-i, seed=seed))
    head, *rows = board.rows()
    assert len(rows) == 10
    assert head.split()[-2:] == ["left", "configuration"]
    assert rows[0].split() == ["1", "0.915", "0.91–0.92", "1", "adam", "lr=1e-11"]
    assert max(map(len, rows)) <= 78
    board.add(finished(0.99, rate=0.5))
    # Ranking took a second, so it waits for twenty.
    assert board.rows()[1:] == rows
    last = board.rows()[1]
    # Of this one two more seeds are to come, and there is no range yet.
    assert last.split() == ["1", "0.99", "2", "adam", "lr=0.5"]


def test_off_a_terminal_there_is_a_line_an_optimizer_where_asked(capsys):
    with live_display("accuracy", has_lines=True) as display:
        display.on_group("dead", one_seed([None, None], "dead"))
        display.show(status())
        display.on_group("adam", one_seed([0.8, 0.95]))
    first, second = capsys.readouterr().err.splitlines()
    assert first == "dead diverged (learning_rate=0.001)"
    assert second.startswith("adam 0.95 (learning_rate=0.01) · 2 of 4 trials · 1 diver")
    with live_display("accuracy") as display:
        display.show(status())
    assert display.on_group is None
    assert capsys.readouterr().err == ""


def test_on_a_terminal_it_is_live(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with live_display("accuracy") as display:
        display.on_record(finished(0.9, rate=0.3))
        display.show(status())
    text = capsys.readouterr().err
    assert "\x1b[" in text
    assert "adam lr=0.3" in text
    assert "2 of 4 trials · 1 diverged" in text
    assert "sgd · " in text


def test_it_fits_a_small_terminal(monkeypatch, capsys):
    """Of 80×24, whatever the configurations are called."""
    for name, value in (("COLUMNS", "80"), ("LINES", "24"), ("TERM", "xterm")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with live_display(
        "accuracy", title="validation accuracy", optimizers=["adam"] * 9, seeds=3
    ) as display:
        for i in range(30):
            hyper = {f"hyper_parameter_{j}": 0.123456789 for j in range(5)}
            curve = [0.5 + i / 100]
            display.on_record(trial("adam", 0.1 / (i + 1), 0, FINISHED, curve, **hyper))
        display.show(status(total=1_000_000, done=999_999, stopped=10, failed=10))
    # Between two pictures the cursor goes up, and the lines are cleared.
    frames = re.split(r"(?:\r|\x1b\[1A|\x1b\[2K)+", capsys.readouterr().err)
    tallest = max(frames, key=lambda frame: frame.count("\n"))
    lines = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", tallest).rstrip("\n").split("\n")
    assert 14 <= len(lines) < 24
    assert max(map(len, lines)) <= 80
    assert lines[-1].split()[:4] == ["10", "0.7", "2", "adam"]


def printed(table, width=80):
    stream = io.StringIO()
    Console(file=stream, width=width).print(table)
    return stream.getvalue()


def lines_of(text):
    lines = (line.split() for line in text.splitlines() if re.match(r" *\d+=? ", line))
    return {words[1]: words for words in lines}


def test_table_shows_diverged_and_never():
    trials = [
        *one_seed([None, None], "dead"),
        *one_seed([0.5, 0.9], "slow"),
        finished(0.97, optimizer="adaboundw", rate=3e-4),
        finished(0.96, optimizer="adaboundw", rate=3e-4, seed=1),
        diverged(optimizer="adaboundw", rate=3e-4, seed=2),
    ]
    text = printed(result(*trials).summary(target=0.95))
    lines = lines_of(text)
    assert lines["adaboundw"] == [
        *("1", "adaboundw", "0.96", "div.–0.97", "0.0003", "10", "–", "1/3"),
    ]
    assert lines["slow"] == [
        *("2", "slow", "0.9", "0.9–0.9", "0.01", "–", "≥0.01–0.01", "–"),
    ]
    assert lines["dead"] == ["3", "dead", "diverged", "–", "0.001", "–", "–", "2/2"]
    assert max(map(len, text.splitlines())) <= 80


def test_table_leaves_out_what_says_nothing():
    text = printed(result(finished(0.9), finished(0.8, optimizer="sgd")).summary())
    head = text.split("─")[0]
    for column in ("steps", "band", "diverged", "stopped"):
        assert column not in head
    stopped = trial("sgd", 0.1, 1, STOPPED, [0.1])
    text = printed(result(finished(0.9, optimizer="sgd"), stopped).summary())
    assert lines_of(text)["sgd"][-1] == "1/2"


def test_the_whole_family_fits_in_80_columns():
    rates = [1e-3, 3e-3, 1e-2]
    trials = [
        trial(
            name, rate, seed, DIVERGED if rate == 1e-2 else FINISHED, [0.9512, 0.9783]
        )
        for name in optjax.OPTIMIZERS
        for rate in rates
        for seed in range(3)
    ]
    text = printed(result(*trials).summary(0.95))
    assert max(map(len, text.splitlines())) <= 80
    # A line each.
    assert len(lines_of(text)) == len(optjax.OPTIMIZERS)
    assert all(words[-1] == "3/9" for words in lines_of(text).values())


# ---------------------------------------------------------------- a small race


@dataclass
class Race:
    """What one race left behind."""

    status: int
    out: Path
    text: str
    messages: str
    compiled: Sequence[str] = ()


OPTIMIZERS, RATES = ["sgd", "adam", "adabound"], [0.01, 1e4]
WORDS = [
    *("race", "--optimizers", *OPTIMIZERS, "--learning-rates", "1e4", "0.01"),
    *("--seeds", "2", "--steps", "40", "--evaluate-every", "10"),
]
PICTURES = ["ranking.png", "curves.png", "sensitivity.png"]
FILES = ["results.csv", "curves.csv", *PICTURES, "report.html"]


# The same race of something that is soon traced and compiled.
TINY = ["--task", "signal_worker:trial", "--metric", "loss", "--mode", "min"]


def run_race(out, capsys, words=()):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "80")
        capsys.readouterr()
        done = main([*WORDS, *words, "--out", str(out)])
    return Race(done, out, *capsys.readouterr())


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    out = tmp_path_factory.mktemp("race") / "new"
    with pytest.MonkeyPatch.context() as patch, compiled_programs() as compiled:
        said, told = io.StringIO(), io.StringIO()
        patch.setenv("COLUMNS", "80")
        patch.setattr("sys.stdout", said)
        patch.setattr("sys.stderr", told)
        done = main([*WORDS, "--out", str(out)])
    return Race(done, out, said.getvalue(), told.getvalue(), compiled)


def test_race_writes_every_trial(small):
    assert small.status == 0
    rows = read(small.out / "results.csv")
    assert [
        (r["optimizer"], float(r["learning_rate"]), int(r["seed"])) for r in rows
    ] == [
        (name, rate, seed) for name in OPTIMIZERS for rate in RATES for seed in (0, 1)
    ]
    assert {r["status"] for r in rows} == {FINISHED, DIVERGED}
    for row in rows:
        measured = [row[f"val_{n}"] for n in ("accuracy_best", "accuracy_final")]
        if row["status"] == DIVERGED:
            assert measured == ["", ""]
            assert int(row["steps"]) in (10, 20, 30, 40)
        else:
            best, final = map(float, measured)
            assert 0 < final <= best <= 1
            assert math.isfinite(float(row["val_loss_final"]))
            assert row["steps"] == "40"
    adam = [
        r for r in rows if r["optimizer"] == "adam" and r["learning_rate"] == "0.01"
    ]
    assert all(float(row["val_accuracy_best"]) > 0.9 for row in adam)
    sgd = [r for r in rows if r["optimizer"] == "sgd" and r["learning_rate"] == "10000"]
    assert [row["status"] for row in sgd] == [DIVERGED, DIVERGED]


def test_race_writes_every_evaluation(small):
    best = {}
    for row in read(small.out / "curves.csv"):
        accuracy = float(row["val_accuracy"])
        best[row["trial"]] = max(best.get(row["trial"], 0.0), accuracy)
    for row in read(small.out / "results.csv"):
        if row["status"] == FINISHED:
            assert float(row["val_accuracy_best"]) == best[row["trial"]]


def test_race_prints_the_ranking_and_the_paths(small):
    ranked = re.findall(r"^ *\d+=? (\w+)", small.text, re.MULTILINE)
    assert sorted(ranked) == sorted(OPTIMIZERS)
    assert "best validation accuracy of each optimizer" in small.text
    # sgd at 1e4 diverged with both seeds.
    assert re.search(r"sgd .* 2/4$", small.text, re.MULTILINE)
    lines = small.text.splitlines()
    first = lines.index(str(small.out / FILES[0]))
    assert lines[first : first + 6] == [str(small.out / name) for name in FILES]
    # Who is far up a long table has scrolled away; the verdicts stand last.
    assert re.match("(good|note|warning): ", lines[first + 7])
    assert lines[-2].startswith("tx = optjax.")
    _, next_command = lines[-1].split("next: ")
    assert shlex.split(next_command)[:4] == ["optjax", *WORDS[:3]]
    assert sorted(p.name for p in small.out.iterdir()) == sorted([*FILES, "sweep"])
    assert [line.split()[0] for line in small.messages.splitlines()] == OPTIMIZERS


def test_a_directory_knows_how_it_was_asked_for(small, tmp_path):
    loaded = SweepResult.load(small.out)
    assert loaded.command == ("optjax", *WORDS, "--out", str(small.out))
    assert loaded.title == "validation accuracy"
    page = tmp_path / "again.html"
    assert main(["report", str(small.out), "--out", str(page)]) == 0
    again = page.read_text(encoding="utf-8")
    assert again == (small.out / "report.html").read_text(encoding="utf-8")
    assert "<h1>race: digits</h1>" in again


def test_a_directory_keeps_how_long_updates_took(small):
    times = Store(small.out, writes=False).read_times()
    # That of a trial that diverged is one more, the first evaluation after it.
    assert {name: updates for name, (_, updates) in times.of.items()} == {
        "sgd": 2 * 40 + 2 * 10,
        "adam": 4 * 40,
        "adabound": 4 * 40,
    }
    seconds = SweepResult.load(small.out).seconds
    assert all(0 < seconds[name] < 1 for name in OPTIMIZERS)
    page = (small.out / "report.html").read_text(encoding="utf-8")
    assert "<h2>Updates and time to " in page


def test_race_draws_pictures_with_something_on_them(small):
    for name in PICTURES:
        pixels = imread(small.out / name)[..., :3]
        assert min(pixels.shape[:2]) > 200
        coloured = np.ptp(pixels, axis=-1) > 0.3
        assert coloured.sum() > 100


def test_a_race_in_which_all_diverged_says_so_and_is_drawn(tmp_path, capsys):
    words = ["race", "--optimizers", "sgd", "--learning-rates", "1e4", "--seeds", "1"]
    assert main([*words, "--steps", "20", "--out", str(tmp_path)]) == 1
    text, messages = capsys.readouterr()
    assert re.search(r"1 sgd +diverged", text)
    assert "1/1" in text
    assert messages.splitlines()[-1] == ("optjax: all 1 trials diverged")
    assert (tmp_path / "ranking.png").stat().st_size > 0


@pytest.mark.usefixtures("undrawn")
def test_a_race_that_dies_again_and_again_comes_to_the_same_files(
    tmp_path, monkeypatch, capsys
):
    """The first commit begins the trials; each further one ends an optimizer."""

    def committing(most):
        def commit_or_die(store, *point):
            made.append(point)
            if len(made) > most:
                raise RuntimeError("killed")
            return commit(store, *point)

        made = []
        return commit_or_die

    commit = Store.commit
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert run_race(whole, capsys, TINY).status == 0
    for most in (1, 1, 2):
        with monkeypatch.context() as patch:
            patch.setattr(Store, "commit", committing(most))
            with pytest.raises(RuntimeError, match="killed"):
                run_race(out, capsys, TINY)
    again = run_race(out, capsys, TINY)
    assert again.status == 0
    assert "finished before" in again.text
    for name in FILES[:2]:
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    assert [line.split()[0] for line in again.messages.splitlines()] == OPTIMIZERS


def test_a_race_leaves_other_directories_as_they_are(small, tmp_path, capsys):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "results.csv").write_text("mine")
    refused = run_race(mine, capsys)
    assert refused.status == 2
    assert "must be empty, or hold this experiment, but" in refused.messages
    assert [path.name for path in mine.iterdir()] == ["results.csv"]
    before = {path: path.read_bytes() for path in small.out.rglob("*.*")}
    other = run_race(small.out, capsys, ["--first-seed", "1"])
    assert other.status == 2
    assert "holds another sweep: seeds were 0, 1 and are 1, 2" in other.messages
    assert {path: path.read_bytes() for path in small.out.rglob("*.*")} == before
    # The same race again has nothing to do.
    again = run_race(small.out, capsys)
    assert again.text == f"finished before; nothing was run\n{small.text}"


def test_each_optimizer_is_compiled_once(small):
    assert sum("device_lanes" in name for name in small.compiled) == len(OPTIMIZERS)


@pytest.mark.parametrize(("backend", "strategy"), [("cpu", "map"), ("gpu", "vmap")])
def test_the_lanes_run_as_suits_the_machine(backend, strategy, tmp_path, monkeypatch):
    said = {}
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(
        "optjax._cli.race.perform", lambda race: said.update(race.keywords) or 0
    )
    assert main(["race"]) == 0
    assert said["strategy"] == strategy
    assert (said["compiler_options"] is None) == (backend == "gpu")


def test_by_default_every_row_races_over_the_grid(monkeypatch):
    races = []
    monkeypatch.setattr(
        "optjax._cli.race.perform", lambda race: races.append(race) or 0
    )
    assert main(["race", "--seeds", "2", "--first-seed", "5"]) == 0
    (race,) = races
    assert race.space["optimizer"] == list(optjax.OPTIMIZERS)
    assert set(race.space["learning_rate"].by_name.values()) == {LEARNING_RATES}
    assert list(race.keywords["seeds"]) == [5, 6]
    assert (race.keywords["metric"], race.title) == (
        "val_accuracy",
        "validation accuracy",
    )
    assert race.target == 0.95
    # Of another metric it would be another's target.
    assert main(["race", "--metric", "train_loss", "--mode", "min"]) == 0
    assert races[-1].target is None


REGRESSION = """
import jax, jax.numpy as jnp, optax
import optjax
from optjax import tasks

def init(key, optimizer):
    x = jax.random.normal(key, (2,))
    return x, optimizer.init(x)

def step(state, optimizer):
    x, opt_state = state
    loss, gradient = jax.value_and_grad(lambda x: jnp.sum(x**2))(x)
    updates, opt_state = optimizer.update(gradient, opt_state, x)
    return (optax.apply_updates(x, updates), opt_state), {"loss": loss}

fit = init, step

def slow(learning_rate):
    return optjax.sgd(learning_rate / 100)
"""


def test_a_regression_races_and_so_does_a_row_of_ones_own(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "regression_of_mine.py").write_text(REGRESSION)
    words = ["race", "--task", "regression_of_mine:fit", "--metric", "loss"]
    words += ["--mode", "min", "--steps", "40", "--learning-rates", "0.1", "0.3"]
    words += ["--optimizers", "regression_of_mine:slow", "sgd", "--target", "1e-3"]
    assert main([*words, "--out", "out"]) == 0
    rows = read(tmp_path / "out" / "results.csv")
    assert {row["optimizer"] for row in rows} == {"regression_of_mine:slow", "sgd"}
    text = capsys.readouterr().out
    assert "best loss of each optimizer (lower is better)" in text
    lines = lines_of(text)
    assert lines["sgd"][0] == "1"
    assert lines["regression_of_mine:slow"][0] == "2"
    assert int(lines["sgd"][5]) < 40


@pytest.mark.usefixtures("undrawn")
def test_a_signal_keeps_the_table_of_what_has_ended(tmp_path, monkeypatch, capsys):
    def stop(optimizer, records):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(
            "optjax._cli.experiment.live_display",
            lambda *_, **__: contextlib.nullcontext(
                Display(lambda status: None, on_group=stop)
            ),
        )
        stopped = run_race(tmp_path, capsys, TINY)
    assert stopped.status == 130
    assert stopped.text == ""
    table = tmp_path / "results.csv"
    assert stopped.messages == (
        f"optjax: interrupted after 4 trials, which are in {table}; the same command "
        "goes on\n"
    )
    assert [row["optimizer"] for row in read(table)] == ["sgd"] * 4
    again = run_race(tmp_path, capsys, TINY)
    assert again.status == 0
    assert f"went on in {tmp_path}" in again.text
    assert len(read(table)) == 12
    # Those that were done before come first, so all are in the plan's order.
    assert [line.split()[0] for line in again.messages.splitlines()] == OPTIMIZERS
