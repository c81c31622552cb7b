"""What a monitored run says about `final_lr` and γ."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiling import jit

import optjax
from optjax import read_report, suggest_final_lr

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

RNG = np.random.default_rng(1)
START = {"in": {"w": jnp.ones((3, 2)), "b": jnp.ones(2)}, "out": {"w": jnp.ones(4)}}
STEPS = 12


def gradients(scale):
    """Of the layer "out" so many times as large."""
    tree = jax.tree.map(lambda x: RNG.normal(size=(STEPS, *x.shape)), START)
    tree["out"]["w"] *= scale
    return jax.tree.map(jnp.float32, tree)


def monitored(tx, scale=1.0, **options):
    """The report over time and all states."""
    tx = optjax.monitor(tx, every=1, **options)

    def step(state, g):
        _, state = tx.update(g, state, START)
        return state, state

    states = jit(lambda: jax.lax.scan(step, tx.init(START), gradients(scale))[1])()
    return read_report(states), states


ADAPTIVE = {
    "adam": (optjax.adam(0.1), 0.1, True),
    "adabound": (optjax.adabound(0.1, gamma=10.0), 0.1, False),
    "halved": (optjax.adabound(lambda count: 0.1 * 0.5**count, gamma=10.0), 0.1, False),
}


@pytest.mark.parametrize("name", ADAPTIVE)
def test_the_grafted_rate_is_that_before_the_bounds(name):
    tx, alpha, is_debiased = ADAPTIVE[name]
    report, states = monitored(tx)
    m, nu = (optax.tree.get(states, field) for field in ("ema", "nu"))
    t = np.arange(1, STEPS + 1)
    scale = alpha * np.sqrt(1 - 0.999**t)
    scale = scale if is_debiased else scale / (1 - 0.9**t)
    if name == "halved":
        scale = scale * 0.5 ** (t - 1.0)
    groups = {"in": ["in"], "out": ["out"], "overall": ["in", "out"]}
    for group, layers in groups.items():
        above, below = 0.0, 0.0
        for layer in layers:
            for kind in m[layer]:
                d, v = (np.asarray(x[layer][kind], np.float64) for x in (m, nu))
                d, v = d.reshape(STEPS, -1), v.reshape(STEPS, -1)
                above = above + np.sum(d**2 / v, axis=1)
                below = below + np.sum(d**2, axis=1)
        expected = scale * np.sqrt(above / below)
        np.testing.assert_allclose(report[group].grafted_rate, expected, rtol=1e-4)


def test_the_suggestion_is_the_median_of_the_second_half():
    report, _ = monitored(optjax.adam(0.1))
    found = suggest_final_lr(report)
    late = report["overall"].grafted_rate[5:]
    assert found.steps == (6, STEPS)
    np.testing.assert_allclose(found.final_lr, np.median(late), rtol=1e-6)
    np.testing.assert_allclose([found.low, found.high], [late.min(), late.max()])
    assert set(found.layers) == {"in", "out"}
    assert found.warning == ""
    assert str(found) in str(report)
    last = suggest_final_lr(report.at(-1))
    assert last.steps == (STEPS, STEPS)
    np.testing.assert_allclose(last.final_lr, late[-1], rtol=1e-6)


def test_steps_without_a_number_are_not_said_to_have_one():
    tx = optjax.monitor(optjax.adam(0.1), every=1)

    def step(state, scale):
        grads = jax.tree.map(lambda x: scale * x, START)
        _, state = tx.update(grads, state, START)
        return state, state

    scales = jnp.array([1.0, 1.0, 1.0, 1.0, jnp.nan, jnp.nan])
    states = jit(lambda: jax.lax.scan(step, tx.init(START), scales)[1])()
    assert suggest_final_lr(read_report(states)).steps == (3, 4)


def test_it_belongs_to_the_largest_learning_rate():
    """As AdaBound's does, which a schedule scales."""
    constant, _ = monitored(optjax.adam(0.1))
    halved, _ = monitored(optjax.adam(lambda count: 0.1 * 0.5**count))
    assert halved.at(-1)["overall"].schedule < 1e-3 * 0.1
    ratio = suggest_final_lr(halved).final_lr / suggest_final_lr(constant).final_lr
    assert 0.5 < ratio < 2.0


def test_adabound_that_closes_on_it_makes_steps_as_long():
    """The measure of the suggestion: ‖Δx‖ of the two over the second half."""
    adam, _ = monitored(optjax.adam(0.1))
    final_lr = suggest_final_lr(adam).final_lr
    closed, _ = monitored(optjax.adabound(0.1, final_lr=final_lr, gamma=1e6))
    ours, theirs = (r["overall"].update_ratio[-6:] for r in (closed, adam))
    assert 0.5 < np.median(ours) / np.median(theirs) < 2.0


def test_layers_that_disagree_are_told_of():
    report, _ = monitored(optjax.adam(0.1), scale=100.0)
    found = suggest_final_lr(report)
    assert "layers disagree by a factor of" in found.warning
    assert found.layers["in"] > 10 * found.layers["out"]
    assert found.warning in str(report)


def test_without_layers_there_is_nothing_to_disagree():
    found = suggest_final_lr(monitored(optjax.adam(0.1), groups=0)[0])
    assert (found.layers, found.warning) == ({}, "")


def test_a_coordinate_without_direction_does_not_hide_the_rest():
    tx = optjax.monitor(optjax.adam(0.1), every=1)
    zero = jax.tree.map(jnp.zeros_like, START)
    _, state = tx.update(zero, tx.init(START), START)
    assert "final_lr" not in str(read_report(state))
    _, state = tx.update({**zero, "in": START["in"]}, state, START)
    found = suggest_final_lr(read_report(state))
    assert set(found.layers) == {"in"}
    assert np.isfinite(found.final_lr)


@pytest.mark.parametrize(
    ("tx", "message"),
    [
        (optjax.sgd(0.1), "a rate that adapts"),
        (optjax.sgd(0.1, momentum=0.9), "a rate that adapts"),
    ],
)
def test_sgd_suggests_nothing(tx, message):
    report, _ = monitored(tx)
    assert "final_lr" not in str(report)
    with pytest.raises(ValueError, match=message):
        suggest_final_lr(report)


def test_a_report_of_trials_is_refused():
    states = jax.vmap(lambda lr: monitored_state(lr))(jnp.array([0.1, 0.2]))
    with pytest.raises(ValueError, match=r"Choose a trial: report\.at"):
        suggest_final_lr(read_report(states))


def monitored_state(lr):
    tx = optjax.monitor(optjax.adam(lr), every=1)
    steps = [tx.init(START)]
    for _ in range(2):
        steps.append(tx.update(START, steps[-1], START)[1])
    return jax.tree.map(lambda *x: jnp.stack(x), *steps[1:])


@pytest.mark.parametrize(
    ("gamma", "is_open"), [(1e-3, True), (0.5, True), (10.0, False)]
)
def test_a_band_that_is_still_open_names_the_gamma_that_closes_it(gamma, is_open):
    """Of 12 steps; 20/12 is within 1.1 from the sixth on."""
    report, _ = monitored(optjax.adabound(0.1, gamma=gamma))
    note = "gamma=1.7 closes it half way"
    assert (note in str(report)) == is_open


def test_a_band_of_several_rates_says_nothing():
    report, _ = monitored(optjax.graftbound(0.1), scale=100.0, groups=0)
    assert "gamma" not in str(report)
    report, _ = monitored(optjax.graftbound(0.1), groups=None)
    assert "gamma=1.7 closes it half way" in str(report)


def test_bounds_of_a_measured_rate_are_those_of_each_leaf():
    tx = optjax.graftbound(0.1, gamma=0.5)
    report, states = monitored(tx, groups=None)
    rates = optax.tree.get(states, "rate", filtering=lambda _, x: type(x) is dict)
    t = np.arange(2, STEPS + 1)
    for name, now in (("in/w", rates["in"]["w"]), ("out/w", rates["out"]["w"])):
        now = 0.1 * np.asarray(now, np.float64)
        np.testing.assert_allclose(report[name].grafted_rate, now, rtol=1e-5)
        f = now[:-1]
        np.testing.assert_allclose(report[name].sgd_rate[1:], f, rtol=1e-5)
        lower = f * (0.5 * t / (0.5 * t + 1))
        np.testing.assert_allclose(report[name].lower[1:], lower, rtol=1e-5)
        upper = f * (1 + 1 / (0.5 * t))
        np.testing.assert_allclose(report[name].upper[1:], upper, rtol=1e-5)


def test_a_rate_without_a_gradient_is_not_said_not_to_adapt():
    x, tx = {"w": jnp.ones(3)}, optjax.monitor(optjax.adam(0.1), every=1)
    _, state = tx.update({"w": jnp.zeros(3)}, tx.init(x), x)
    with pytest.raises(ValueError, match="under a gradient that is not 0"):
        suggest_final_lr(read_report(state))
