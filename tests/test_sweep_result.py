"""Tables, statistics and pictures of hand-made trials."""

import csv
import io
import math

import numpy as np
import pytest

from optjax import sweep
from optjax.sweep import DIVERGED, FINISHED, STOPPED, Config, Curve, Record, TrialSpec
from optjax.sweep.result import record_from_json, record_to_json


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
    # Of 0.7 and 0.9 the lower middle one; at 1.0 one of two seeds diverged.
    assert best.config == Config("sgd", {"learning_rate": 0.1}, {})
    assert (best.median, best.low, best.high) == (0.7, 0.7, 0.9)
    by_rate = {
        found.config.hyper["learning_rate"]: found
        for found in RESULT.configurations("sgd")
    }
    assert by_rate[1.0].median == -math.inf
    assert by_rate[1.0].high == 0.99
    assert RESULT.best("adabound").median == 0.4


def test_mode_min_ranks_the_other_way_round():
    result = sweep.SweepResult(RECORDS, "loss", "min")
    best = result.best("sgd")
    assert best.config.hyper["learning_rate"] == 0.1
    assert best.median == pytest.approx(0.3)
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
        "SweepResult(6 trials, best accuracy 0.7: sgd(learning_rate=0.1))"
    )
    page = io.StringIO()
    Console(width=80, file=page).print(RESULT.summary())
    text = page.getvalue()
    assert "learning_rate=0.1" in text
    assert "1 diverged" in text
    assert max(map(len, text.splitlines())) <= 80


def lines(figure):
    return {line.get_label(): line for line in figure.axes[0].get_lines()}


def test_sensitivity_shows_the_medians_and_marks_the_diverged():
    figure = RESULT.plot_sensitivity()
    sgd = lines(figure)["sgd"]
    np.testing.assert_array_equal(sgd.get_xdata(), [0.1, 1.0])
    np.testing.assert_array_equal(sgd.get_ydata(), [0.7, np.nan])
    crosses = [line for line in figure.axes[0].get_lines() if line.get_marker() == "x"]
    assert [list(line.get_xdata()) for line in crosses] == [[1.0], []]
    assert figure.axes[0].get_xscale() == "log"
    with pytest.raises(sweep.SweepError, match="'momentum'; there are learning_rate"):
        RESULT.plot_sensitivity("momentum")


def test_curves_show_the_best_configuration():
    sgd = lines(RESULT.plot_curves())["sgd, learning rate 0.1"]
    np.testing.assert_array_equal(sgd.get_xdata(), [10, 20, 30])
    np.testing.assert_allclose(sgd.get_ydata(), [0.5, 0.75, 0.75])


def grid(values):
    return sweep.SweepResult(
        tuple(
            record(i, "adabound", {"learning_rate": lr, "final_lr": f}, 0, [value])
            if math.isfinite(value)
            else record(
                i, "adabound", {"learning_rate": lr, "final_lr": f}, 0, [NAN], DIVERGED
            )
            for i, ((lr, f), value) in enumerate(values.items())
        ),
        "accuracy",
        "max",
    )


def test_heatmap_puts_each_value_in_its_cell():
    values = {(0.1, 1.0): 0.1, (0.1, 2.0): 0.2, (0.3, 1.0): 0.3, (0.3, 2.0): NAN}
    axes = grid(values).plot_heatmap("learning_rate", "final_lr").axes[0]
    (image,) = axes.get_images()
    drawn = np.ma.filled(image.get_array(), np.nan)
    np.testing.assert_allclose(drawn, [[0.1, 0.3], [0.2, np.nan]])
    (cross,) = [line for line in axes.get_lines() if line.get_marker() == "x"]
    np.testing.assert_array_equal(cross.get_xydata(), [[1, 1]])


def test_heatmap_of_draws_has_a_point_each():
    values = {(0.1, 1.0): 0.1, (0.2, 3.0): 0.2, (0.3, 2.0): 0.3}
    axes = grid(values).plot_heatmap("learning_rate", "final_lr").axes[0]
    (points,) = axes.collections
    drawn = zip(map(tuple, points.get_offsets()), points.get_array(), strict=True)
    assert dict(drawn) == pytest.approx(values)
    with pytest.raises(sweep.SweepError, match="both 'learning_rate' and 'b1'"):
        grid(values).plot_heatmap("learning_rate", "b1")
