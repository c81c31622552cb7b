"""The page of a monitored training has the reports' numbers, and no warnings."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiling import jit

import optjax
import optjax.sweep
from optjax.monitoring import (
    plot_quantiles,
    plot_rates,
    rate_metrics,
    report_page,
)

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

STEPS = 60


@pytest.fixture(scope="module")
def reports():
    """Over a warm-up from 0, of bounds that close."""
    params = {"hidden": {"kernel": jnp.ones((8, 4))}, "out": {"kernel": jnp.ones(4)}}
    schedule = optax.warmup_cosine_decay_schedule(0.0, 1e-2, 10, STEPS)
    tx = optjax.monitor(
        optjax.adabound(schedule, gamma=2.0, base_lr=1e-2), every=2, audit=True
    )
    random = np.random.default_rng(0)
    grads = jax.tree.map(
        lambda x: jnp.asarray(random.normal(size=(STEPS, *x.shape))), params
    )

    def step(state, g):
        _, state = tx.update(g, state, params)
        return state, state

    run = jit(lambda g: jax.lax.scan(step, tx.init(params), g)[1])
    return optjax.stack_reports(optjax.read_report(run(grads)))


def pictures(page):
    found = re.search(r'id="page-data">(.*?)</script>', page, re.DOTALL)
    return {p["title"]: p for p in json.loads(found[1])["pictures"]}


def test_pictures_have_the_reports_numbers(reports):
    page = report_page(reports)
    assert report_page(reports) == page
    assert "<script src" not in page
    assert "http-equiv" in page
    drawn, overall = pictures(page), reports["overall"]
    rates = {s["name"]: s for s in drawn["Rates between their bounds"]["series"]}
    assert rates["rates"]["x"] == reports.steps.tolist()
    np.testing.assert_allclose(
        np.array(rates["upper bound"]["y"][1:], float), overall.upper[1:], rtol=1e-5
    )
    # The schedule begins with 0, where there is no rate to draw.
    assert rates["rates"]["y"][0] is None
    bare = {s["name"]: s for s in drawn["The same without the schedule"]["series"]}
    np.testing.assert_allclose(
        np.array(bare["SGD"]["y"][1:-1], float),
        overall.sgd_rate[1:-1] / overall.schedule[1:-1],
        rtol=1e-5,
    )
    assert np.ptp(np.array(bare["SGD"]["y"][1:-1], float)) < 1e-6
    elastic = drawn["Elasticity of the learning rate"]["series"]
    assert {s["name"] for s in elastic} == {"hidden", "out", "overall"}
    np.testing.assert_allclose(
        np.array(elastic[-1]["y"][2:-1], float),
        overall.rate_elasticity[2:-1],
        rtol=1e-4,
        atol=1e-6,
    )


def test_verdicts_say_when_it_became_sgd(reports):
    page = report_page(reports)
    since = optjax.transition(reports)["overall"]
    assert f"It is SGD since step {since} of {STEPS}." in page
    early = report_page(reports.at(slice(0, 2)))
    assert "It is not SGD by step 2" in early
    assert "2 summaries of steps" in early
    assert "1 summary of steps" in report_page(reports.at(slice(0, 1)))
    assert "moves nothing in hidden, out, overall" in page


def test_a_warm_up_from_zero_is_drawn_without_a_stripe(reports):
    (axes, _) = plot_rates(reports).axes
    # Warnings are errors here.
    plot_quantiles(reports)
    low, _ = axes.get_ylim()
    assert low > -6


def test_hyper_parameters_over_time(reports):
    given = [{"learning_rate": 0.1 / (i + 1)} for i in range(len(reports.steps))]
    drawn = pictures(report_page(reports, hyperparameters=given))
    (line,) = drawn["Hyper-parameters"]["series"]
    np.testing.assert_allclose(line["y"][:2], [0.1, 0.05])
    with pytest.raises(ValueError, match="one mapping a report"):
        report_page(reports, hyperparameters=given[1:])


def test_no_step_is_named():
    tx = optjax.monitor(optjax.sgd(0.1))
    with pytest.raises(ValueError, match="none of the reports has seen a step"):
        report_page([optjax.read_report(tx.init(jnp.ones(2)))])


def test_a_sweeps_page_has_the_rates_of_its_monitored_trials(tmp_path):
    """Rates of 0 are not drawn, and are no divergence."""

    def init(key, optimizer):
        x = jnp.array([1.0, 2.0, 3.0])
        return x, optjax.monitor(optimizer, every=1).init(x)

    def step(state, optimizer):
        x, opt_state = state
        g = jnp.array([1.0, 10.0, 100.0])
        updates, opt_state = optjax.monitor(optimizer, every=1).update(g, opt_state, x)
        return (x + updates, opt_state), {
            "loss": jnp.sum(x),
            **rate_metrics(opt_state),
        }

    result = optjax.sweep.run(
        (init, step),
        {"optimizer": ["sgd", "adam", "still"], "learning_rate": [0.001, 0.01]},
        factories={
            "sgd": optjax.sgd,
            "adam": optjax.adam,
            "still": lambda learning_rate: optjax.sgd(0.0 * learning_rate),
        },
        steps=4,
        evaluate_every=2,
        metric="loss",
        mode="min",
        seeds=1,
        strategy="map",
        progress=False,
    )
    assert [record.message for record in result.records] == [""] * 6
    result.report(tmp_path / "page.html")
    drawn = pictures((tmp_path / "page.html").read_text(encoding="utf-8"))
    lines = {line["name"]: line for line in drawn["Effective rates"]["series"]}
    assert lines["sgd"]["x"] == [2, 4]
    assert lines["sgd"]["y"] == lines["sgd"]["low"] == pytest.approx([0.01] * 2)
    # Of constant gradients √ν is |g| at every step.
    for end, g in (("low", 100.0), ("y", 10.0), ("high", 1.0)):
        np.testing.assert_allclose(lines["adam"][end], [0.01 / g] * 2, rtol=1e-3)
    assert lines["still"]["y"] == [None, None]
    with pytest.raises(ValueError, match="found 0"):
        rate_metrics(optjax.adam(0.1).init(jnp.ones(2)))
