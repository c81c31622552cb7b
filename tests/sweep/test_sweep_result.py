"""Tables, statistics and pictures of hand-made trials."""

import csv
import io
import math
import sys

import numpy as np
import pytest

from optjax import sweep
from optjax.sweep import DIVERGED, FINISHED, STOPPED, Config, Curve, Record, TrialSpec
from optjax.sweep._records import record_from_json, record_to_json
from optjax.sweep._store.files import as_text, write_atomically


def record(number, optimizer, hyper, seed, accuracies, status=FINISHED, static=None):
    steps = tuple(10 * (i + 1) for i in range(len(accuracies)))
    values = {"accuracy": tuple(accuracies), "loss": tuple(1 - a for a in accuracies)}
    spec = TrialSpec(number, Config(optimizer, hyper, static or {}), seed)
    return Record(spec, status, steps[-1], Curve(steps, values))


NAN = float("nan")
RECORDS = (
    record(0, "sgd", {"learning_rate": 0.1}, 0, [0.5, 0.6, 0.7]),
    record(1, "sgd", {"learning_rate": 0.1}, 1, [0.5, 0.9, 0.8]),
    record(2, "sgd", {"learning_rate": 1.0}, 0, [0.95, NAN], DIVERGED),
    record(3, "sgd", {"learning_rate": 1.0}, 1, [0.5, 0.6, 0.99]),
    record(4, "adabound", {"learning_rate": 0.1, "final_lr": 0.1}, 0, [0.4], STOPPED),
    record(5, "adabound", {"learning_rate": 0.1, "final_lr": 0.1}, 1, [0.6, 0.7, 0.8]),
)
RESULT = sweep.SweepResult(RECORDS, "accuracy", "max")


def test_the_table_has_what_a_trial_has_and_none_for_the_rest():
    rows = RESULT.table
    assert [row["trial"] for row in rows] == [0, 1, 2, 3, 4, 5]
    assert rows[1]["accuracy_best"] == 0.9
    assert rows[1]["accuracy_best_step"] == 20
    assert rows[1]["accuracy_final"] == 0.8
    assert rows[1]["final_lr"] is None
    diverged = rows[2]
    assert diverged["status"] == DIVERGED
    assert diverged["steps"] == 20
    for name in ("accuracy_best", "accuracy_best_step", "accuracy_final", "loss_final"):
        assert diverged[name] is None
    assert rows[4]["status"] == STOPPED
    assert rows[4]["accuracy_best"] == 0.4


def test_csv_parquet_and_pandas_agree_with_the_table(tmp_path):
    pandas = pytest.importorskip("pandas")
    RESULT.to_csv(tmp_path / "results.csv")
    RESULT.to_parquet(tmp_path / "results.parquet")
    with (tmp_path / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["accuracy_best"] for row in rows] == [
        "0.7", "0.9", "", "0.99", "0.4", "0.8"
    ]  # fmt: skip
    back = pandas.read_parquet(tmp_path / "results.parquet")
    assert back["accuracy_best"].isna().tolist() == [False] * 2 + [True] + [False] * 3
    assert list(back.columns) == list(RESULT.table[0]) == list(rows[0])
    curves = RESULT.curves_to_pandas()
    assert len(curves) == 3 + 3 + 2 + 3 + 1 + 3
    assert list(curves.columns) == [
        "trial", "optimizer", "learning_rate", "final_lr", "seed", "status", "step",
        "accuracy", "loss",
    ]  # fmt: skip
    of_diverged = curves[curves["trial"] == 2]
    np.testing.assert_array_equal(of_diverged["step"], [10, 20])
    np.testing.assert_array_equal(of_diverged["accuracy"], [0.95, NAN])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "results.csv",
        "results.parquet",
    ]


def test_float32_values_survive_the_csv(tmp_path):
    value = float(np.float32(0.1) + np.float32(2**-27))
    result = sweep.SweepResult(
        (record(0, "sgd", {"learning_rate": value}, 0, [value]),), "accuracy", "max"
    )
    result.to_csv(tmp_path / "results.csv")
    with (tmp_path / "results.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert np.float32(row["learning_rate"]) == np.float32(value)
    assert np.float32(row["accuracy_best"]) == np.float32(value)


def test_a_diverged_seed_counts_as_worst():
    best = RESULT.best()
    # At 1.0 one of the two seeds diverged, though the other is the best of all.
    assert best.config == Config("sgd", {"learning_rate": 0.1}, {})
    assert best.median == pytest.approx(0.8)
    assert (best.low, best.high) == (0.7, 0.9)
    assert [r.trial.seed for r in best.records] == [0, 1]
    by_rate = {
        found.config.hyper["learning_rate"]: found
        for found in RESULT.configurations("sgd")
    }
    assert by_rate[1.0].median == -math.inf
    assert by_rate[1.0].high == 0.99
    # A stopped trial counts with what it had reached.
    assert RESULT.best("adabound").median == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("scores", "median"),
    [
        ([0.1], 0.1),
        ([0.9, 0.1, 0.5], 0.5),
        ([0.1, 0.9, 0.5, 0.2], 0.35),
        ([0.1, 0.5, None], 0.1),
        ([None, 0.2, 0.4, 0.6], 0.3),
        ([0.5, None], -math.inf),
        ([None, 0.3, 0.5, None], -math.inf),
        ([None], -math.inf),
    ],
)
def test_the_median_is_over_all_seeds(scores, median):
    records = [
        record(i, "sgd", {}, i, [NAN], DIVERGED)
        if score is None
        else record(i, "sgd", {}, i, [score])
        for i, score in enumerate(scores)
    ]
    best = sweep.SweepResult(tuple(records), "accuracy", "max").best()
    assert best.median == pytest.approx(median)


def test_equal_medians_are_ordered_by_the_worst_seed():
    scores = {1.0: (0.3, 0.5, 0.9), 2.0: (0.4, 0.5, 0.6)}
    records = [
        record(i, "sgd", {"learning_rate": rate}, i % 3, [score])
        for i, (rate, score) in enumerate(
            (rate, score) for rate, seeds in scores.items() for score in seeds
        )
    ]
    found = sweep.SweepResult(tuple(records), "accuracy", "max").configurations()
    assert [best.config.hyper["learning_rate"] for best in found] == [2.0, 1.0]


def scored(scores, optimizer="sgd", first=0):
    """One trial a configuration, from its hyper-parameters to its accuracy."""
    return [
        record(first + i, optimizer, dict(hyper), 0, [score])
        for i, (hyper, score) in enumerate(scores)
    ]


def over_rates(scores, optimizer="sgd"):
    return scored(
        [([("learning_rate", 10.0**i)], s) for i, s in enumerate(scores)], optimizer
    )


def best_exponent(scores):
    result = sweep.SweepResult(tuple(over_rates(scores)), "accuracy", "max")
    return round(math.log10(result.best().config.hyper["learning_rate"]))


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([0.9, 0.9, 0.9, 0.1], 1),
        ([0.1, 0.9, 0.9, 0.9, 0.9, 0.9], 3),
        # Of an even number the first of the middle two.
        ([0.1, 0.9, 0.9, 0.9, 0.9], 2),
        # The larger of two plateaus, however good its neighbours are.
        ([0.9, 0.1, 0.9, 0.9, 0.9], 3),
        ([0.9, 0.9, 0.1, 0.9, 0.1], 0),
    ],
)
def test_of_equal_medians_the_middle_of_the_plateau_is_best(scores, best):
    assert best_exponent(scores) == best


def test_a_plateau_over_two_hyper_parameters_has_its_middle_in_both():
    places = [(a, b) for a in (1.0, 2.0, 3.0, 4.0) for b in (0.1, 0.2, 0.3)]
    scores = [([("a", a), ("b", b)], 0.9 if a < 4 else 0.5) for a, b in places]
    result = sweep.SweepResult(tuple(scored(scores)), "accuracy", "max")
    assert result.best().config.hyper == {"a": 2.0, "b": 0.2}


def test_table_and_pictures_choose_alike_and_show_ties():
    flat, peaked = [0.5, 0.9, 0.9, 0.9, 0.1], [0.1, 0.2, 0.9, 0.2, 0.1]
    records = (
        *over_rates(peaked, "adam"),
        *over_rates(flat, "sgd"),
        *over_rates([0.4] * 5, "adagrad"),
    )
    result = sweep.SweepResult(records, "accuracy", "max")
    lines = result.standings()
    assert [(s.place, s.is_tied) for s in lines] == [(1, True), (1, True), (3, False)]
    chosen = [s.best.config.hyper["learning_rate"] for s in lines]
    assert chosen == [100.0, 100.0, 100.0]
    labels = result.plot_ranking().axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == [
        "1= sgd, lr 100", "1= adam, lr 100", "3 adagrad, lr 100",
    ]  # fmt: skip
    big = [
        tuple(line.get_xdata())
        for line in result.plot_sensitivity().axes[0].get_lines()
        if line.get_markersize() == 7
    ]
    assert big == [(100.0,)] * 3


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (float(np.float32(1 / 6)), "0.16666667"),
        (float(np.float32(0.1)), "0.1"),
        (0.1, "0.1"),
        (1.0, "1"),
        (-2.5, "-2.5"),
        (1e-5, "1e-05"),
        (16777216.0, "16777216"),
        (math.nan, "nan"),
        (math.inf, "inf"),
        (1e300, "1e+300"),
        (0.0, "0"),
    ],
)
def test_numbers_are_the_shortest_text_that_reads_back(value, text):
    assert as_text(value) == text


def test_every_float32_survives_its_text():
    bits = np.random.default_rng(0).integers(0, 2**32, 2000, np.uint32)
    values = bits.view(np.float32)
    back = np.array([as_text(float(v)) for v in values], np.float32)
    np.testing.assert_array_equal(back, values)


def test_static_values_tell_configurations_apart():
    records = [
        record(i, "sgd", {"learning_rate": 0.1}, 0, [0.1 * i], static={"nesterov": on})
        for i, on in enumerate([False, True, 1])
    ]
    found = sweep.SweepResult(tuple(records), "accuracy", "max").configurations()
    assert [best.config.static["nesterov"] for best in found] == [1, True, False]
    assert [len(best.records) for best in found] == [1, 1, 1]


def test_hyper_parameters_do_not_hide_columns(tmp_path):
    odd = record(0, "noisy", {"seed": 7.0, "steps": 3.0}, 1, [0.5])
    result = sweep.SweepResult((odd,), "accuracy", "max")
    (row,) = result.table
    assert (row["seed"], row["steps"]) == (1, 10)
    assert (row["hyper_seed"], row["hyper_steps"]) == (7.0, 3.0)
    result.to_csv(tmp_path / "results.csv")
    with (tmp_path / "results.csv").open() as file:
        assert list(csv.DictReader(file).fieldnames) == list(row)


def some_mask(x):
    return x


def test_static_values_of_any_kind_are_written(tmp_path):
    pandas = pytest.importorskip("pandas")
    values = [{"mask": some_mask, "mode": "max"}, {"mask": None, "mode": True}, {}]
    result = sweep.SweepResult(
        tuple(record(i, "a", {}, 0, [0.5], static=v) for i, v in enumerate(values)),
        "accuracy",
        "max",
    )
    result.to_csv(tmp_path / "results.csv")
    with (tmp_path / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["mask"] for row in rows] == ["some_mask", "", ""]
    assert [row["mode"] for row in rows] == ["max", "True", ""]
    result.to_parquet(tmp_path / "results.parquet")
    back = pandas.read_parquet(tmp_path / "results.parquet")
    assert back["mask"].fillna("").tolist() == ["some_mask", "", ""]
    assert back["mode"].fillna("").tolist() == ["max", "True", ""]


def test_columns_do_not_depend_on_what_came_of_the_trials(tmp_path):
    pytest.importorskip("pandas")
    lost = record(0, "sgd", {"learning_rate": 0.1}, 0, [NAN], DIVERGED)
    result = sweep.SweepResult((lost,), "accuracy", "max")
    columns = [
        "trial", "optimizer", "learning_rate", "seed", "status", "steps",
        "accuracy_best", "accuracy_best_step", "accuracy_final", "loss_final",
    ]  # fmt: skip
    assert list(result.table[0]) == columns
    frame = result.to_pandas()
    assert list(frame.columns) == columns
    assert set(frame.dtypes[columns[-4:]].astype(str)) == {"float64"}
    assert frame[columns[-4:]].isna().all(axis=None)
    empty = sweep.SweepResult((), "accuracy", "max")
    empty.to_csv(tmp_path / "empty.csv")
    header = "trial,optimizer,seed,status,steps,accuracy_best,accuracy_best_step,"
    assert (tmp_path / "empty.csv").read_text() == f"{header}accuracy_final\n"
    assert len(empty.to_pandas()) == len(empty.curves_to_pandas()) == 0


@pytest.mark.parametrize(
    ("module", "call"),
    [
        ("pandas", lambda path: RESULT.to_pandas()),
        ("pandas", lambda path: RESULT.curves_to_pandas()),
        ("pyarrow", lambda path: RESULT.to_parquet(path / "results.parquet")),
        ("rich", lambda path: RESULT.summary()),
        ("jinja2", lambda at: RESULT.report(at / "x.html")),
        ("matplotlib", lambda path: RESULT.plot_curves()),
    ],
)
def test_a_missing_package_is_named_in_a_line(module, call, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(sweep.SweepError) as caught:
        call(tmp_path)
    message = str(caught.value)
    assert message.endswith(f"need {module}; run: pip install 'optjax[sweep]'")
    assert "\n" not in message
    assert not list(tmp_path.iterdir())


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "results.csv"

    def fail(temporary):
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert not list(tmp_path.iterdir())
    RESULT.to_csv(path)
    before = path.read_text()
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_text() == before
    assert list(tmp_path.iterdir()) == [path]
    # As readable as any other file.
    (tmp_path / "other").write_text("")
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_what_cannot_be_written_is_named_as_it_was_given(tmp_path):
    path = tmp_path / "nowhere" / "results.csv"
    with pytest.raises(FileNotFoundError) as caught:
        RESULT.to_csv(path)
    assert caught.value.filename == str(path)
    with pytest.raises(IsADirectoryError) as caught:
        RESULT.to_csv(tmp_path)
    assert caught.value.filename == str(tmp_path)


def test_mode_min_ranks_the_other_way_round():
    result = sweep.SweepResult(RECORDS, "loss", "min")
    best = result.best("sgd")
    assert best.config.hyper["learning_rate"] == 0.1
    assert best.median == pytest.approx(0.2)
    assert best.low == pytest.approx(0.3)
    assert best.high == pytest.approx(0.1)
    assert result.configurations("sgd")[1].median == math.inf


def test_no_trial_and_an_unknown_optimizer_are_named():
    with pytest.raises(ValueError, match="no trial has ended"):
        sweep.SweepResult((), "accuracy", "max").best()
    with pytest.raises(ValueError, match=r"no trial of 'lion' has ended; .*sgd, adab"):
        RESULT.best("lion")


def test_records_survive_json():
    import json

    odd = record(7, "adashift", {"learning_rate": 0.1}, 3, [0.1, math.inf], DIVERGED)
    odd = odd._replace(
        trial=odd.trial._replace(
            config=odd.trial.config._replace(static={"keep_num": 3, "reduction": "max"})
        )
    )
    for each in (*RECORDS[:2], odd):
        assert record_from_json(json.loads(json.dumps(record_to_json(each)))) == each
    back = record_from_json(json.loads(json.dumps(record_to_json(RECORDS[2]))))
    assert math.isnan(back.curve.values["accuracy"][1])
    assert back.trial == RECORDS[2].trial


def test_repr_and_summary_say_the_best():
    from rich.console import Console

    assert repr(RESULT) == (
        "SweepResult(6 trials, best accuracy 0.8: sgd(learning_rate=0.1))"
    )
    page = io.StringIO()
    Console(width=80, file=page).print(RESULT.summary())
    text = page.getvalue()
    assert "learning_rate=0.1" in text
    # Of four trials one diverged, and of two one was stopped.
    assert "diverged stopped" in text
    assert text.count("1/4") == text.count("1/2") == 1
    assert max(map(len, text.splitlines())) <= 80
    # Best first.
    assert text.index("sgd") < text.index("adabound")


def test_repr_where_nothing_came_out():
    lost = record(0, "sgd", {"learning_rate": 0.1}, 0, [NAN], DIVERGED)
    assert repr(sweep.SweepResult((), "accuracy", "max")) == (
        "SweepResult(no trial has ended)"
    )
    assert repr(sweep.SweepResult((lost,), "accuracy", "max")) == (
        "SweepResult(1 trial, all diverged)"
    )


def test_notebooks_show_verdicts_ranking_and_a_picture():
    page = RESULT._repr_html_()
    assert all(verdict.says in page for verdict in RESULT.verdicts())
    assert page.count('src="data:image/png;base64,') == 1
    assert page == RESULT._repr_html_()
    assert page.count("<tr>") == 1 + len(RESULT.optimizers)
    assert "<td>0.8</td><td>0.7–0.9</td><td>learning_rate=0.1</td>" in page
    odd = record(0, "a<b", {}, 0, [0.5], static={"note": "<script>"})
    page = sweep.SweepResult((odd,), "accuracy", "max")._repr_html_()
    assert "a&lt;b" in page
    assert "<script>" not in page
    assert "no trial" in sweep.SweepResult((), "accuracy", "max")._repr_html_()
