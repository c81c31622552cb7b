"""Pictures of hand-made trials: what is drawn where."""

import io
import math

import numpy as np
import pytest
from test_sweep_result import NAN, RESULT, record

from optjax import sweep
from optjax.sweep import DIVERGED, STOPPED

pytest.importorskip("matplotlib")
from matplotlib import style
from matplotlib.figure import Figure


def result_of(records, metric="accuracy", mode="max"):
    return sweep.SweepResult(tuple(records), metric, mode)


def lines(axes):
    """The lines of the legend by label."""
    found = {line.get_label(): line for line in axes.get_lines()}
    return {name: line for name, line in found.items() if not name.startswith("_")}


def crosses(axes):
    """x and opacity of every ×."""
    return sorted(
        (float(x), line.get_alpha())
        for line in axes.get_lines()
        if line.get_marker() == "x"
        for x in line.get_xdata()
    )


def big_dots(axes):
    return [
        tuple(line.get_xydata()[0])
        for line in axes.get_lines()
        if line.get_markersize() == 7
    ]


def bands(axes):
    """Vertices of every band over the seeds."""
    return [
        collection.get_paths()[0].vertices
        for collection in axes.collections
        if type(collection).__name__ in ("PolyCollection", "FillBetweenPolyCollection")
        and collection.get_paths()
    ]


def title(figure):
    return " ".join(figure.axes[0].get_title().split())


def draw(figure):
    """Lay out and render, where some mistakes first show."""
    page = io.BytesIO()
    figure.savefig(page, format="png", dpi=40)
    assert page.getvalue().startswith(b"\x89PNG")


def sensitivity_grid(scores, optimizer="sgd", first=0, **hyper):
    """Trials by learning rate and seed; None for diverged."""
    return [
        record(
            first, optimizer, {"learning_rate": rate, **hyper}, seed, [NAN], DIVERGED
        )
        if score is None
        else record(first, optimizer, {"learning_rate": rate, **hyper}, seed, [score])
        for rate, seeds in scores.items()
        for seed, score in enumerate(seeds)
    ]


# ------------------------------------------------------------------------ sensitivity


def test_sensitivity_shows_medians_bands_and_the_best():
    scores = {0.01: (0.2, 0.3, 0.4), 0.1: (0.5, 0.9, 0.7), 1.0: (0.6, 0.65, 0.1)}
    figure = result_of(sensitivity_grid(scores)).plot_sensitivity()
    (axes,) = figure.axes
    line = lines(axes)["sgd"]
    np.testing.assert_array_equal(line.get_xdata(), [0.01, 0.1, 1.0])
    np.testing.assert_array_equal(line.get_ydata(), [0.3, 0.7, 0.6])
    assert big_dots(axes) == [(0.1, 0.7)]
    assert crosses(axes) == []
    (band,) = bands(axes)
    for rate, seeds in scores.items():
        at = band[np.isclose(band[:, 0], rate), 1]
        assert (at.min(), at.max()) == (min(seeds), max(seeds))
    assert axes.get_xscale() == "log"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("learning_rate", "accuracy")
    assert "median of 3 seeds" in title(figure)
    assert "diverged" not in title(figure)


@pytest.mark.parametrize("mode", ["max", "min"])
def test_sensitivity_marks_the_diverged(mode):
    scores = {0.01: (0.2, 0.3, 0.4), 0.1: (0.5, None, 0.7), 1.0: (None, 0.6, None)}
    figure = result_of(sensitivity_grid(scores), mode=mode).plot_sensitivity()
    (axes,) = figure.axes
    best, worst_finite = (0.7, 0.5) if mode == "max" else (0.5, 0.7)
    median = lines(axes)["sgd"].get_ydata()
    # The diverged seed is worse than both others, so their worse one is the median.
    np.testing.assert_array_equal(median, [0.3, worst_finite, np.nan])
    # At 0.1 only one of three seeds, so pale; at 1.0 the median too.
    assert crosses(axes) == [(0.1, 0.45), (1.0, 1.0)]
    assert "pale: some of the seeds" in title(figure)
    draw(figure)
    # The band reaches from the best seed to the frame's worse edge.
    (band,) = bands(axes)
    at = band[np.isclose(band[:, 0], 0.1), 1]
    bottom, top = axes.get_ylim()
    edges = (bottom, best) if mode == "max" else (best, top)
    assert (at.min(), at.max()) == pytest.approx(edges)
    # And the frame is that of the finite values.
    assert bottom > 0.1
    assert top < 0.8
    # Where a median has diverged, its x is still in the frame.
    assert axes.get_xlim()[1] > 1.0


def test_sensitivity_takes_the_best_over_other_hyper_parameters_and_says_so():
    records = [
        *sensitivity_grid({0.1: (0.2,), 1.0: (0.8,)}, "adabound", final_lr=0.01),
        *sensitivity_grid({0.1: (0.6,), 1.0: (0.5,)}, "adabound", final_lr=0.1),
        *sensitivity_grid({0.1: (0.3,), 1.0: (0.4,)}),
    ]
    figure = result_of(records).plot_sensitivity()
    drawn = lines(figure.axes[0])
    np.testing.assert_array_equal(drawn["adabound"].get_ydata(), [0.6, 0.8])
    np.testing.assert_array_equal(drawn["sgd"].get_ydata(), [0.3, 0.4])
    assert drawn["adabound"].get_linestyle() == drawn["sgd"].get_linestyle() == "-"
    assert "final_lr: best over them" in title(figure)
    assert "one seed" in title(figure)
    # Along the other hyper-parameter there is only the optimizer that has it.
    figure = result_of(records).plot_sensitivity("final_lr")
    drawn = lines(figure.axes[0])
    assert list(drawn) == ["adabound"]
    np.testing.assert_array_equal(drawn["adabound"].get_xdata(), [0.01, 0.1])
    np.testing.assert_array_equal(drawn["adabound"].get_ydata(), [0.8, 0.6])
    assert "learning_rate: best over them" in title(figure)


def test_sensitivity_joins_no_points_that_differ_in_more_than_x():
    drawn_anew = [
        record(i, "adabound", {"learning_rate": rate, "final_lr": final}, 0, [score])
        for i, (rate, final, score) in enumerate(
            [(0.1, 0.3, 0.5), (0.2, 0.7, 0.9), (0.4, 0.1, 0.2)]
        )
    ]
    alike = sensitivity_grid({0.1: (0.3,), 1.0: (0.4,)})
    figure = result_of([*drawn_anew, *alike]).plot_sensitivity()
    drawn = lines(figure.axes[0])
    assert drawn["adabound"].get_linestyle() == "None"
    np.testing.assert_array_equal(drawn["adabound"].get_ydata(), [0.5, 0.9, 0.2])
    assert drawn["sgd"].get_linestyle() == "-"
    assert "final_lr: drawn anew for each point" in title(figure)


def test_sensitivity_over_an_integer_that_shapes_the_state():
    records = [
        record(i, "adashift", {}, 0, [score], static={"keep_num": keep})
        for i, (keep, score) in enumerate([(8, 0.4), (2, 0.5)])
    ]
    line = lines(result_of(records).plot_sensitivity("keep_num").axes[0])["adashift"]
    np.testing.assert_array_equal(line.get_xydata(), [[2, 0.5], [8, 0.4]])


def test_a_loss_over_decades_has_a_logarithmic_axis():
    wide, narrow = {0.1: (1e-4,), 1.0: (5.0,)}, {0.1: (0.4,), 1.0: (0.5,)}
    for scores, mode, scale in (
        (wide, "min", "log"),
        (narrow, "min", "linear"),
        (wide, "max", "linear"),
        ({0.1: (-1e-4,), 1.0: (5.0,)}, "min", "linear"),
    ):
        figure = result_of(sensitivity_grid(scores), mode=mode).plot_sensitivity()
        assert figure.axes[0].get_yscale() == scale


def test_one_trial_and_all_diverged_can_be_drawn():
    one = result_of([record(0, "sgd", {"learning_rate": 0.1}, 0, [0.5])])
    axes = one.plot_sensitivity().axes[0]
    assert big_dots(axes) == [(0.1, 0.5)]
    low, high = axes.get_xlim()
    assert low < 0.09
    assert high > 0.11
    assert (
        lines(one.plot_curves().axes[0])["sgd, learning rate 0.1"].get_marker() == "o"
    )
    lost = result_of(sensitivity_grid({0.1: (None, None)}))
    axes = lost.plot_sensitivity().axes[0]
    assert crosses(axes) == [(0.1, 1.0)]
    assert axes.get_xlim()[0] < 0.1 < axes.get_xlim()[1]
    assert list(lines(lost.plot_curves().axes[0])) == ["sgd: diverged"]
    for figure in (one.plot_sensitivity(), lost.plot_sensitivity(), lost.plot_curves()):
        draw(figure)


# ----------------------------------------------------------------------------- curves


def test_curves_show_the_best_configuration():
    (axes,) = RESULT.plot_curves().axes
    sgd = lines(axes)["sgd, learning rate 0.1"]
    np.testing.assert_array_equal(sgd.get_xdata(), [10, 20, 30])
    np.testing.assert_allclose(sgd.get_ydata(), [0.5, 0.75, 0.75])
    band = bands(axes)[0]
    at = band[np.isclose(band[:, 0], 20), 1]
    assert (at.min(), at.max()) == (0.6, 0.9)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("updates", "accuracy")


def test_curves_leave_stopped_seeds_grey_and_say_so():
    (axes,) = RESULT.plot_curves().axes
    line = lines(axes)["adabound, learning rate 0.1, 1 of 2 seeds"]
    np.testing.assert_array_equal(line.get_ydata(), [0.6, 0.7, 0.8])
    (grey,) = (c for c in axes.collections if type(c).__name__ == "LineCollection")
    (segment,) = grey.get_segments()
    np.testing.assert_array_equal(segment, [[10, 0.4]])
    assert "thin grey: 1 trial stopped early" in title(axes.figure)


def test_curves_where_all_seeds_were_stopped_end_together():
    records = [
        record(0, "sgd", {}, 0, [0.1, 0.2, 0.3], STOPPED),
        record(1, "sgd", {}, 1, [0.3, 0.6], STOPPED),
    ]
    line = lines(result_of(records).plot_curves().axes[0])["sgd"]
    np.testing.assert_array_equal(line.get_xdata(), [10, 20])
    np.testing.assert_allclose(line.get_ydata(), [0.2, 0.4])


def test_a_diverged_seed_counts_in_the_curve_from_there_on():
    records = [
        record(0, "sgd", {}, 0, [0.1, 0.2, 0.3]),
        record(1, "sgd", {}, 1, [0.3, 0.4, 0.5]),
        record(2, "sgd", {}, 2, [0.9, 0.95], DIVERGED),
    ]
    # The engine keeps the evaluation that went wrong; its accuracy may look fine.
    (axes,) = result_of(records).plot_curves().axes
    np.testing.assert_allclose(lines(axes)["sgd"].get_ydata(), [0.3, 0.2, 0.3])
    assert crosses(axes) == [(20.0, 0.45)]
    (band,) = bands(axes)
    at = band[np.isclose(band[:, 0], 20), 1]
    assert (at.min(), at.max()) == pytest.approx((axes.get_ylim()[0], 0.4))


# ---------------------------------------------------------------------------- heatmap


def grid(values, mode="max", **hyper):
    return result_of(
        [
            record(i, "adabound", {"learning_rate": a, "final_lr": b, **hyper}, 0, [v])
            if math.isfinite(v)
            else record(
                i, "adabound", {"learning_rate": a, "final_lr": b}, 0, [v], DIVERGED
            )
            for i, ((a, b), v) in enumerate(values.items())
        ],
        mode=mode,
    )


def cells(axes):
    (image,) = axes.get_images()
    return np.ma.filled(image.get_array(), np.nan)


def test_heatmap_puts_each_value_in_its_cell():
    values = {(0.1, 1.0): 0.1, (0.1, 2.0): 0.2, (0.3, 1.0): 0.3, (0.3, 2.0): NAN}
    figure = grid(values).plot_heatmap("learning_rate", "final_lr")
    axes, bar = figure.axes
    np.testing.assert_allclose(cells(axes), [[0.1, 0.3], [0.2, np.nan]])
    (cross,) = [line for line in axes.get_lines() if line.get_marker() == "x"]
    np.testing.assert_array_equal(cross.get_xydata(), [[1, 1]])
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0.1", "0.3"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["1", "2"]
    assert sorted(text.get_text() for text in axes.texts) == ["0.1", "0.2", "0.3"]
    assert bar.get_ylabel() == "accuracy (higher is better)"
    draw(figure)


def test_heatmap_takes_the_median_over_seeds_and_the_best_over_the_rest():
    records = [
        record(i, "adabound", {"learning_rate": 0.1, "final_lr": 1.0, "b1": b1}, i, [v])
        for b1, seeds in {0.5: (0.1, 0.2, 0.9), 0.9: (0.3, 0.4, 0.5)}.items()
        for i, v in enumerate(seeds)
    ]
    figure = result_of(records).plot_heatmap("learning_rate", "final_lr")
    np.testing.assert_array_equal(cells(figure.axes[0]), [[0.4]])
    assert title(figure) == "adabound: median of 3 seeds; b1: best over them"


def test_heatmap_is_bright_where_it_is_good():
    values = {(0.1, 1.0): 0.1, (0.3, 1.0): 0.3}
    for mode, best in (("max", 0.3), ("min", 0.1)):
        figure = grid(values, mode).plot_heatmap("learning_rate", "final_lr")
        (image,) = figure.axes[0].get_images()
        light = {v: sum(image.cmap(image.norm(v))[:3]) for v in values.values()}
        assert max(light, key=light.get) == best
    assert figure.axes[1].get_ylabel() == "accuracy (lower is better)"


def test_heatmap_of_draws_has_a_point_each():
    values = {(0.1, 1.0): 0.1, (0.2, 3.0): 0.2, (9.0, 2.0): 0.3, (0.4, 4.0): NAN}
    figure = grid(values).plot_heatmap("learning_rate", "final_lr")
    axes = figure.axes[0]
    (points,) = axes.collections
    drawn = dict(zip(map(tuple, points.get_offsets()), points.get_array(), strict=True))
    (cross,) = [line for line in axes.get_lines() if line.get_marker() == "x"]
    assert cross.get_xydata().tolist() == [[0.4, 4.0]]
    values.pop((0.4, 4.0))
    assert drawn == pytest.approx(values)
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear")
    draw(figure)


def test_heatmap_of_a_conditional_hyper_parameter():
    # final_lr exists in two of the four; sgd has none at all.
    records = [
        record(0, "adabound", {"learning_rate": 0.1}, 0, [0.9]),
        record(1, "adabound", {"learning_rate": 0.2}, 0, [0.8]),
        record(2, "adabound", {"learning_rate": 0.1, "final_lr": 1.0}, 0, [0.5]),
        record(3, "adabound", {"learning_rate": 0.2, "final_lr": 1.0}, 0, [0.6]),
        record(4, "sgd", {"learning_rate": 0.2}, 0, [0.6]),
    ]
    figure = result_of(records).plot_heatmap("learning_rate", "final_lr")
    np.testing.assert_array_equal(cells(figure.axes[0]), [[0.5, 0.6]])


def test_a_large_grid_has_few_labels():
    places = np.logspace(-3, 0, 40)
    values = {(a, b): float(a * b) for a in places for b in places}
    axes = grid(values).plot_heatmap("learning_rate", "final_lr").axes[0]
    assert cells(axes).shape == (40, 40)
    assert len(axes.get_xticks()) == len(axes.get_yticks()) == 14
    assert not axes.texts


# ----------------------------------------------------------- frames, panels, notebooks


def many(count, **options):
    return [
        each
        for number in range(count)
        for each in sensitivity_grid(
            {0.1: (0.01 * number, 0.02 * number), 1.0: (None, None)},
            f"optimizer_{number}",
            **options,
        )
    ]


def test_few_optimizers_share_a_frame_and_look_different():
    (axes,) = result_of(many(8)).plot_sensitivity().axes
    drawn = lines(axes).values()
    assert len(drawn) == 8
    assert len({(line.get_color(), line.get_linestyle()) for line in drawn}) == 8
    entries = [text.get_text() for text in axes.get_legend().get_texts()]
    assert entries == [f"optimizer_{number}" for number in range(8)]
    assert len(crosses(axes)) == 8


def test_many_optimizers_have_a_panel_each_best_first():
    result = result_of(many(11))
    figure = result.plot_sensitivity()
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert len(panels) == 11
    assert panels[0].get_title(loc="left") == "optimizer_10: 0.15"
    assert panels[-1].get_title(loc="left") == "optimizer_0: 0"
    np.testing.assert_allclose(
        lines(panels[0])["optimizer_10"].get_ydata(), [0.15, np.nan]
    )
    assert [crosses(axes) for axes in panels] == [[(1.0, 1.0)]] * 11
    draw(figure)
    assert len({axes.get_ylim() for axes in panels}) == 1
    figure = result.plot_curves()
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert panels[0].get_title(loc="left") == "optimizer_10, lr 0.1"


def test_in_given_axes_the_best_stand_out():
    figure = Figure()
    axes = figure.add_subplot()
    assert result_of(many(23)).plot_sensitivity(ax=axes) is figure
    assert figure.axes == [axes]
    entries = [text.get_text() for text in axes.get_legend().get_texts()]
    assert entries == [
        "the 16 others", *(f"optimizer_{number}" for number in range(16, 23))
    ]  # fmt: skip


def test_every_picture_takes_axes():
    values = {(0.1, 1.0): 0.1, (0.1, 2.0): 0.2, (0.3, 1.0): 0.3, (0.3, 2.0): NAN}
    figure = Figure()
    for axes, plot in zip(
        figure.subplots(1, 3),
        (
            RESULT.plot_sensitivity,
            RESULT.plot_curves,
            lambda ax: grid(values).plot_heatmap("learning_rate", "final_lr", ax=ax),
        ),
        strict=True,
    ):
        assert plot(ax=axes) is figure
        assert axes.has_data()


def test_notebooks_show_a_picture_without_pyplot():
    figure = RESULT.plot_curves()
    assert isinstance(figure, Figure)
    png, size = figure._repr_png_()
    assert png.startswith(b"\x89PNG")
    assert size["width"] == 850
    # Opaque, so that dark letters do not stand on a dark page.
    assert figure.get_facecolor()[3] == 1.0


def test_pictures_follow_a_dark_style():
    with style.context("dark_background"):
        figure = RESULT.plot_sensitivity()
        assert sum(figure.get_facecolor()[:3]) == 0
        assert figure.axes[0].title.get_color() == "white"


def test_what_cannot_be_drawn_is_named():
    with pytest.raises(sweep.SweepError, match="'momentum'; there are learning_rate"):
        RESULT.plot_sensitivity("momentum")
    static = {"nesterov": True}
    one = record(0, "sgd", {"learning_rate": 0.1}, 0, [1.0], static=static)
    with pytest.raises(sweep.SweepError, match=r"'nesterov'; there are learning_rate$"):
        result_of([one]).plot_sensitivity("nesterov")
    with pytest.raises(sweep.SweepError, match=r"'nesterov'; it has learning_rate$"):
        result_of([one]).plot_heatmap("learning_rate", "nesterov", "sgd")
    with pytest.raises(sweep.SweepError, match="both 'learning_rate' and 'b1': there"):
        RESULT.plot_heatmap("learning_rate", "b1")
    with pytest.raises(sweep.SweepError, match=r"sgd has no trial with both .* it has"):
        RESULT.plot_heatmap("learning_rate", "final_lr", "sgd")
    with pytest.raises(ValueError, match="no trial of 'lion' has ended"):
        RESULT.plot_heatmap("learning_rate", "final_lr", "lion")
    with pytest.raises(sweep.SweepError, match="two hyper-parameters, got 'final_lr'"):
        RESULT.plot_heatmap("final_lr", "final_lr", "sgd")
    empty = result_of([])
    for plot in (
        empty.plot_sensitivity,
        empty.plot_curves,
        lambda: empty.plot_heatmap("learning_rate", "final_lr"),
    ):
        with pytest.raises(sweep.SweepError, match="no trial has ended"):
            plot()


@pytest.mark.parametrize("mode", ["max", "min"])
def test_panels_leave_out_the_worst_points_and_no_best(mode):
    rates = [0.001, 0.01, 0.1, 1.0]
    sign = 1 if mode == "max" else -1
    values = {rate: 1 + sign * (i - 3) * 0.2 for i, rate in enumerate(rates)}
    records = [
        record(0, f"row{n}", {"learning_rate": rate}, 0, [value - sign * 0.001 * n])
        for n in range(12)
        for rate, value in values.items()
    ]
    figure = result_of(records, mode=mode).plot_sensitivity()
    low, high = figure.axes[0].get_ylim()
    worst, best = sorted(values.values(), reverse=mode == "min")[:: len(values) - 1]
    assert not low < worst < high
    assert all(low < best - sign * 0.001 * n < high for n in range(12))


def test_a_target_is_a_dotted_line_in_every_panel_and_said():
    for count in (2, 12):
        records = [
            record(0, f"row{n}", {"learning_rate": 0.1}, 0, [0.5, 0.9])
            for n in range(count)
        ]
        figure = result_of(records).plot_curves(target=0.8)
        words = figure.get_suptitle() or title(figure)
        assert "dotted: 0.8" in words
        for axes in figure.axes[:count]:
            dotted = [line for line in axes.get_lines() if line.get_linestyle() == ":"]
            assert [list(line.get_ydata()) for line in dotted] == [[0.8, 0.8]]


def test_a_title_stands_for_the_metric():
    records = (record(0, "sgd", {"learning_rate": 0.1}, 0, [0.5]),)
    named = sweep.SweepResult(records, "accuracy", "max", title="test accuracy")
    assert named.plot_ranking().axes[0].get_xlabel() == "test accuracy"
    assert named.plot_curves().axes[0].get_ylabel() == "test accuracy"
    assert "best test accuracy of each" in named._repr_html_()
    assert repr(named).startswith("SweepResult(1 trial, best accuracy 0.5")
