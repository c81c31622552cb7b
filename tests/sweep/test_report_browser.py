"""The page in a real browser: no error, no request, and what a hand does with it."""

import math

import numpy as np
import pytest
from browser import CHROMIUM, Browser

from optjax.sweep import Config, Curve, Record, SweepResult, TrialSpec

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")


def result_of(configs, seeds, evaluations):
    rng = np.random.default_rng(0)
    steps = tuple(10 * (i + 1) for i in range(evaluations))
    decay = np.exp(-np.arange(1, evaluations + 1) / 5)
    records = []
    for index in range(configs):
        rate, b1 = float(10 ** rng.uniform(-4, 0)), float(rng.uniform(0.5, 0.99))
        for seed in range(seeds):
            top = (math.log10(rate) + 2) ** 2 / 4 + 0.01 * rng.random()
            curve = np.float32(top + decay).tolist()
            config = Config(
                ("adam", "adabelief")[index % 2], {"learning_rate": rate, "b1": b1}, {}
            )
            spec = TrialSpec(len(records), config, seed)
            records.append(
                Record(
                    spec, "finished", steps[-1], Curve(steps, {"loss": tuple(curve)})
                )
            )
    return SweepResult(tuple(records), "loss", "min")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("browser"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    result_of(40, 2, 20).report(path)
    return path


def of_its_own_only(browser, path):
    assert browser.complaints == []
    assert browser.requests in ([path.as_uri()], [path.as_uri(), "data:,"])


DRAW = """
  const figures = [...document.querySelectorAll("figure")];
  for (const figure of figures) {
    figure.scrollIntoView();
    // Drawn when it comes near.
    while (!figure.querySelector("svg")) await new Promise(requestAnimationFrame);
  }
  return figures.length;
"""
COLUMN = """
  const rows = [...document.querySelectorAll("#trial-table tbody tr")];
  const heads = [...document.querySelectorAll("#trial-table thead button")];
  const at = heads.findIndex((b) => b.textContent === NAME);
  return rows.map((tr) => tr.children[at].textContent);
"""
MARKED = """return document.querySelectorAll('svg [stroke="var(--mark)"]').length;"""


def column(browser, name):
    return browser.run(COLUMN.replace("NAME", repr(name)))


def press(browser, selector):
    """Focus what stands there and press Enter, as who has no mouse."""
    browser.run(f"document.querySelector({selector!r}).focus();")
    browser.key("Enter")


def test_pictures_are_drawn_and_nothing_is_asked_for(browser, page):
    browser.open(page)
    assert browser.run(DRAW) == page.read_text().count("<figure")
    of_its_own_only(browser, page)


def test_the_table_sorts_and_filters_by_keyboard(browser, page):
    browser.open(page)
    last = "#trial-table thead th:last-child button"
    press(browser, last)
    values = [float(x) for x in column(browser, "best loss")]
    assert values == sorted(values)
    assert len(values) == 50
    press(browser, last)
    values = [float(x) for x in column(browser, "best loss")]
    assert values == sorted(values, reverse=True)
    head = f"document.querySelector({last!r}).parentElement"
    assert browser.run(f"return {head}.getAttribute('aria-sort')") == "descending"
    browser.run("document.getElementById('filter').focus()")
    browser.call("Input.insertText", text="adabelief")
    assert set(column(browser, "optimizer")) == {"adabelief"}
    count = browser.run("return document.getElementById('count').textContent")
    assert count == "40 of 80 trials"
    of_its_own_only(browser, page)


def test_a_trial_that_is_chosen_shows_everywhere(browser, page):
    browser.open(page)
    browser.run(DRAW)
    assert browser.run(MARKED) == 0
    press(browser, "#trial-table tbody tr")
    chosen = "return document.getElementById('selected').textContent"
    assert browser.run(chosen).startswith("trial 0 · optimizer adam · ")
    browser.run("dispatchEvent(new Event('beforeprint'))")
    # In curves, parallel coordinates and both isolations at least.
    assert browser.run(MARKED) >= 4
    browser.key("Escape")
    assert browser.run("return document.getElementById('selected').hidden")


def test_a_mark_tells_its_trial_under_the_mouse_and_is_chosen_by_it(browser, page):
    browser.open(page)
    browser.run(DRAW)
    x, y = browser.run(
        """
        const all = [...document.querySelectorAll("figure")];
        const one = all.find((f) => f.textContent.includes("Isolation of b1"));
        one.scrollIntoView({ block: "center" });
        await new Promise(requestAnimationFrame);
        const box = one.querySelector("svg circle").getBoundingClientRect();
        return [box.x + box.width / 2, box.y + box.height / 2];
        """
    )
    browser.mouse("mouseMoved", x, y)
    tip = browser.run(
        """
        const tip = () => [...document.querySelectorAll("svg [aria-label=tip]")]
          .map((g) => g.textContent).join("");
        while (!tip()) await new Promise(requestAnimationFrame);
        return tip();
        """
    )
    assert "learning_rate" in tip
    assert "best loss" in tip
    for kind in ("mousePressed", "mouseReleased"):
        browser.mouse(kind, x, y, button="left", clickCount=1)
    chosen = browser.run("return document.getElementById('selected').textContent")
    assert "learning_rate" in chosen
    of_its_own_only(browser, page)


def test_it_fits_a_phone(browser, page):
    browser.open(page, width=390, height=800)
    browser.run(DRAW)
    assert browser.run("return document.documentElement.scrollWidth") <= 390
    of_its_own_only(browser, page)


def test_ten_thousand_trials_open_soon(browser, tmp_path):
    path = tmp_path / "report.html"
    result_of(5000, 2, 3).report(path)
    assert path.stat().st_size < 2.5e6
    seconds = browser.open(path)
    rows = browser.run("return document.querySelectorAll('#trial-table tr').length")
    assert rows == 51
    # Three where nothing else runs.
    assert seconds < 10
    of_its_own_only(browser, path)


def test_what_a_page_does_wrong_would_be_seen(browser, tmp_path):
    path = tmp_path / "bad.html"
    path.write_text("<img src='https://127.0.0.1:9/x.png'><script>oops()</script>")
    browser.open(path)
    assert len(browser.requests) == 2
    assert browser.complaints
