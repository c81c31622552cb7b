"""Pictures show the reports' numbers; scalars and histograms reach TensorBoard."""

import struct

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiling import jit

import optjax
from optjax.monitoring._plots import plot_quantiles, plot_rates, plot_transition
from optjax.monitoring._report import Report
from optjax.monitoring._scalars import histograms, scalars, write_tensorboard
from optjax.monitoring._summary import EDGES, PROBABILITIES, Summary

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

STEPS, FINAL_LR = 120, 0.1


def reports_of(tx, steps):
    params = {
        "hidden": {"kernel": jnp.ones((8, 4)), "bias": jnp.ones(4)},
        "out": {"kernel": jnp.ones((4, 2))},
    }
    random = np.random.default_rng(0)
    grads = jax.tree.map(
        lambda x: jnp.asarray(10 ** random.uniform(-3, 1, (steps, *x.shape))), params
    )

    def step(state, g):
        _, state = tx.update(g, state, params)
        return state, state

    return optjax.read_report(
        jit(lambda g: jax.lax.scan(step, tx.init(params), g)[1])(grads)
    )


@pytest.fixture(scope="module")
def bounded():
    return reports_of(
        optjax.monitor(optjax.adabound(1e-3, gamma=0.2, final_lr=FINAL_LR), every=5),
        STEPS,
    )


@pytest.fixture(scope="module")
def unbounded():
    """Adam on one group, nothing on the other."""
    parts = {"adam": optjax.adam(1e-3), "frozen": optax.set_to_zero()}
    labels = {"hidden": "adam", "out": "frozen"}
    return reports_of(optjax.monitor(optax.partition(parts, labels), every=3), 9)


def drawn(figure):
    figure.canvas.draw()
    return figure


def mesh_of(figure):
    (mesh,) = figure.axes[0].collections
    return mesh


# ----------------------------------------------------------------------------------
# Pictures


def test_rates_shows_the_histogram_and_the_band(bounded):
    figure = drawn(plot_rates(bounded, "hidden"))
    over_time = optjax.stack_reports(bounded)
    summary = over_time["hidden"]
    shown = mesh_of(figure).get_array()
    assert shown.shape == (len(EDGES) - 1, len(over_time.steps))
    np.testing.assert_array_equal(shown.filled(0.0), summary.histogram.T)
    assert (shown.mask == (summary.histogram.T == 0)).all()
    upper, lower, limit = figure.axes[0].lines
    for line, values in (
        (upper, summary.upper),
        (lower, summary.lower),
        (limit, summary.sgd_rate),
    ):
        np.testing.assert_array_equal(line.get_xdata(), over_time.steps)
        np.testing.assert_allclose(line.get_ydata(), np.log10(values), rtol=1e-5)
    texts = {text.get_text() for text in figure.axes[0].texts}
    assert texts == {"upper", "lower", "SGD"}
    # All that occurs is within the picture.
    low, high = figure.axes[0].get_ylim()
    occurs = EDGES[:-1][summary.histogram.sum(axis=0) > 0]
    assert low < occurs.min() <= occurs.max() < high


def test_each_column_is_around_its_step(bounded):
    figure = drawn(plot_rates(bounded))
    steps = optjax.stack_reports(bounded).steps
    edges = mesh_of(figure).get_coordinates()[0, :, 0]
    assert (np.diff(edges) > 0).all()
    assert (edges[:-1] <= steps).all()
    assert (steps <= edges[1:]).all()
    assert figure.axes[0].get_xscale() == "log"
    np.testing.assert_allclose(edges[1], np.sqrt(steps[0] * steps[1]))


def test_transition_shows_shares_and_the_step(bounded):
    figure = drawn(plot_transition(bounded))
    over_time = optjax.stack_reports(bounded)
    shown = mesh_of(figure).get_array()
    names = ["hidden", "out", "overall"]
    for row, name in enumerate(names):
        np.testing.assert_array_equal(shown[row], over_time[name].near_sgd)
    ticks = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert ticks == names
    marks = [
        (float(line.get_xdata()[0]), float(line.get_ydata()[0]))
        for line in figure.axes[0].lines
    ]
    since = optjax.transition(bounded)
    assert set(since.values()) == {50}
    assert marks == [(50.0, row) for row in range(3)]
    low, high = figure.axes[0].get_ylim()
    assert low > high  # The first group is on top.


def test_quantiles_shows_a_panel_a_group(bounded):
    figure = drawn(plot_quantiles(bounded))
    over_time = optjax.stack_reports(bounded)
    assert [axis.get_title(loc="left") for axis in figure.axes] == list(bounded)
    for axis, name in zip(figure.axes, bounded, strict=True):
        median, limit = axis.lines
        quantiles = over_time[name].quantiles
        np.testing.assert_array_equal(
            median.get_ydata(), quantiles[:, PROBABILITIES.index(0.5)]
        )
        np.testing.assert_allclose(limit.get_ydata(), np.log10(FINAL_LR), rtol=1e-5)
        wide, narrow = (c.get_paths()[0].vertices for c in axis.collections)
        for band, (low, high) in ((wide, (0.05, 0.95)), (narrow, (0.25, 0.75))):
            shown = quantiles[:, [PROBABILITIES.index(low), PROBABILITIES.index(high)]]
            np.testing.assert_allclose(band[:, 1].min(), shown.min(), rtol=1e-6)
            np.testing.assert_allclose(band[:, 1].max(), shown.max(), rtol=1e-6)


def test_quantiles_of_chosen_groups(bounded):
    figure = plot_quantiles(bounded, groups=["out"])
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["out"]
    with pytest.raises(KeyError, match="no group 'third'; there are hidden, out"):
        plot_quantiles(bounded, groups=["third"])
    with pytest.raises(ValueError, match="needs at least one group"):
        plot_quantiles(bounded, groups=[])


def test_every_lowest_panel_has_its_steps(bounded):
    """Also where the row below it is not full."""
    many = Report(dict.fromkeys(("a", "b", "c", "d", "overall"), bounded["out"]))
    figure = drawn(plot_quantiles(many))
    for axis, is_lowest in zip(
        figure.axes, [False, False, True, True, True], strict=True
    ):
        assert axis.xaxis.get_tick_params()["labelbottom"] == is_lowest


@pytest.mark.parametrize("plot", [plot_rates, plot_transition, plot_quantiles])
def test_without_bounds_there_is_no_band(plot, unbounded):
    figure = drawn(plot(unbounded))
    assert not any("SGD" in text.get_text() for text in figure.axes[0].texts)
    expected = {plot_rates: 0, plot_transition: 0, plot_quantiles: 1}[plot]
    assert len(figure.axes[0].lines) == expected


def test_a_group_without_rates_is_masked_and_not_zero(unbounded):
    shown = mesh_of(plot_transition(unbounded)).get_array()
    assert shown.mask.tolist() == [[False] * 4, [True] * 4, [False] * 4]
    drawn(plot_rates(unbounded, "out"))


@pytest.mark.parametrize("plot", [plot_rates, plot_transition, plot_quantiles])
def test_one_report_is_enough(plot, bounded):
    one = bounded.at(-1)
    figure = drawn(plot([one]))
    low, high = figure.axes[0].get_xlim()
    assert low < one.steps < high


@pytest.mark.parametrize("plot", [plot_rates, plot_transition, plot_quantiles])
def test_reports_in_a_list_or_stacked(plot, bounded):
    one_by_one = [bounded.at(index) for index in range(STEPS)]
    from_list, stacked = plot(one_by_one), plot(bounded)
    for ours, theirs in zip(from_list.axes, stacked.axes, strict=True):
        for line, other in zip(ours.lines, theirs.lines, strict=True):
            np.testing.assert_array_equal(line.get_ydata(), other.get_ydata())


@pytest.mark.parametrize("plot", [plot_rates, plot_transition, plot_quantiles])
def test_nothing_to_draw(plot):
    state = optjax.monitor(optjax.sgd(0.1)).init({"w": jnp.ones(2)})
    with pytest.raises(ValueError, match="none of the reports has seen a step"):
        plot([optjax.read_report(state)])
    with pytest.raises(ValueError, match="at least one report, got none"):
        plot([])


@pytest.mark.parametrize("plot", [plot_rates, plot_transition])
def test_into_axes_of_ones_own(plot, bounded):
    plt = pytest.importorskip("matplotlib.pyplot")
    figure, (left, right) = plt.subplots(1, 2)
    assert plot(bounded, ax=right) is figure
    assert right.collections
    assert not left.collections
    plt.close(figure)


# ----------------------------------------------------------------------------------
# Scalars and TensorBoard


def test_scalars_are_the_known_numbers_of_a_report(bounded, unbounded):
    report = bounded.at(-1)
    found = scalars(report)
    assert all(type(value) is float for value in found.values())
    for group, summary in report.items():
        for p, name in zip(
            PROBABILITIES, ("00", "05", "25", "50", "75", "95", "100"), strict=True
        ):
            expected = summary.quantiles[PROBABILITIES.index(p)]
            assert found[f"{group}/log10_rate_p{name}"] == expected
        numbers = [n for n in Summary._fields if n not in ("quantiles", "histogram")]
        for name in [n for n in numbers if n != "step"]:
            known = np.isfinite(getattr(summary, name))
            assert known == (not name.endswith("_elasticity"))  # Those of an audit.
            if known:
                assert found[f"{group}/{name}"] == getattr(summary, name), name
            else:
                assert f"{group}/{name}" not in found
    # What is not known, infinite or not yet so is left out.
    found = scalars(unbounded.at(-1))
    for name in ("upper", "sgd_rate", "sgd_since"):
        assert f"hidden/{name}" not in found
    assert "hidden/log10_rate_p50" in found
    assert [name for name in found if name.startswith("out/")] == ["out/update_ratio"]


def test_histograms_sum_to_one_and_leave_out_groups_without_rates(unbounded):
    found = histograms(unbounded.at(-1))
    assert list(found) == ["hidden/log10_rate", "overall/log10_rate"]
    shares, edges = found["hidden/log10_rate"]
    np.testing.assert_allclose(shares.sum(), 1.0, rtol=1e-6)
    assert len(edges) == len(shares) + 1


@pytest.mark.parametrize("function", [scalars, histograms])
def test_one_step_at_a_time(function, bounded):
    with pytest.raises(ValueError, match=r"shape \(120,\). Choose one: report.at\(-1"):
        function(bounded)


def events_in(folder):
    """The events of the one file: length, its checksum, the event, its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    (path,) = folder.glob("events.out.tfevents.*")
    data, events = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        events.append(Event.FromString(data[12 : 12 + length]))
        data = data[12 + length + 4 :]
    return events


def test_tensorboard_gets_every_scalar_and_histogram(tmp_path, bounded):
    tensorboard = pytest.importorskip("tensorboardX")
    with tensorboard.SummaryWriter(str(tmp_path)) as writer:
        for index in (-60, -1):
            write_tensorboard(writer, bounded.at(index))
    values, counts = {}, {}
    for event in events_in(tmp_path):
        for value in event.summary.value:
            if value.HasField("histo"):
                counts[value.tag, event.step] = value.histo
            else:
                values[value.tag, event.step] = value.simple_value
    expected = {
        (f"optimizer/{name}", int(bounded.at(index).steps)): number
        for index in (-60, -1)
        for name, number in scalars(bounded.at(index)).items()
    }
    assert values.keys() == expected.keys()
    for key, number in expected.items():
        np.testing.assert_allclose(values[key], number, rtol=1e-6)
    assert {tag for tag, _ in counts} == {
        f"optimizer/{group}/log10_rate" for group in bounded
    }
    summary = bounded.at(-1)["hidden"]
    histogram = counts["optimizer/hidden/log10_rate", STEPS]
    buckets = dict(zip(histogram.bucket_limit, histogram.bucket, strict=True))
    for edge, share in zip(EDGES[1:], summary.histogram, strict=True):
        if share > 0:
            np.testing.assert_allclose(buckets[edge], share, rtol=1e-6)
    np.testing.assert_allclose(sum(buckets.values()), 1.0, rtol=1e-6)
    centre = summary.histogram @ (EDGES[1:] + EDGES[:-1]) / 2
    np.testing.assert_allclose(histogram.sum / histogram.num, centre, rtol=1e-5)
    assert histogram.min <= centre <= histogram.max


def test_tensorboard_before_the_first_step(tmp_path):
    tensorboard = pytest.importorskip("tensorboardX")
    state = optjax.monitor(optjax.sgd(0.1)).init({"w": jnp.ones(2)})
    with tensorboard.SummaryWriter(str(tmp_path)) as writer:
        write_tensorboard(writer, optjax.read_report(state))
    assert not [v for event in events_in(tmp_path) for v in event.summary.value]
