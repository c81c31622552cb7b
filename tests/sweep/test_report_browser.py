"""The page in a real browser: no error, no request, and what a hand does with it."""

import html
import json
import math
import re
import shutil
import subprocess
import time

import numpy as np
import pytest

from optjax.sweep import Config, Curve, Record, SweepResult, TrialSpec

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
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


def browse(page, script, width=1200):
    """What the script, run in the page once it is drawn, leaves in `out`.

    And what the browser said meanwhile.
    """
    probe = page.with_name("probe.html")
    # The browser's own clock runs ahead, so that nothing waits.
    after = f"""<script>
      const out = {{}};
      setTimeout(async () => {{
        const pause = (ms) => new Promise((done) => setTimeout(done, ms));
        try {{ {script} }} catch (error) {{ out.error = String(error.stack); }}
        const pre = document.createElement("pre");
        pre.id = "probe";
        pre.textContent = JSON.stringify(out);
        document.body.append(pre);
      }}, 500);
    </script></body>"""
    text = page.read_text(encoding="utf-8")
    probe.write_text(text.replace("</body>", after), encoding="utf-8")
    ran = subprocess.run(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu"),
            *("--enable-logging=stderr", "--virtual-time-budget=8000", "--dump-dom"),
            *(f"--window-size={width},900", f"--user-data-dir={page.parent / 'own'}"),
            probe.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = re.search(r'<pre id="probe">(.*?)</pre>', ran.stdout, re.DOTALL)
    said = [line for line in ran.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(html.unescape(found[1])), said


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    result_of(40, 2, 20).report(path)
    return path


HAND = """
  const all = document.querySelectorAll("figure");
  for (const figure of all) { figure.scrollIntoView(); await pause(50); }
  out.figures = all.length;
  out.drawn = document.querySelectorAll("figure svg").length;
  out.marks = document.querySelectorAll("figure svg [aria-label=dot] circle").length;
  out.requests = performance.getEntriesByType("resource").map((r) => r.name);
  const column = (i) => [...document.querySelectorAll("#trial-table tbody tr")]
    .map((tr) => tr.children[i].textContent);
  const heads = [...document.querySelectorAll("#trial-table thead button")];
  const names = heads.map((b) => b.textContent);
  const value = names.indexOf("best loss");
  heads[value].click(); out.up = column(value);
  heads[value].click(); out.down = column(value);
  out.sorted = heads[value].parentElement.getAttribute("aria-sort");
  const filter = document.getElementById("filter");
  filter.value = "adabelief"; filter.dispatchEvent(new Event("input"));
  out.filtered = [...new Set(column(names.indexOf("optimizer")))];
  out.count = document.getElementById("count").textContent;
  const mark = 'figure svg [stroke="var(--mark)"]';
  const marked = () => document.querySelectorAll(mark).length;
  out.before = marked();
  const row = document.querySelector("#trial-table tbody tr");
  row.focus();
  row.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true }));
  for (const figure of all) { figure.scrollIntoView(); await pause(50); }
  out.after = marked();
  out.selected = document.getElementById("selected").textContent;
  dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" }));
  out.closed = document.getElementById("selected").hidden;
  const figure = [...all].find((f) => f.textContent.includes("Isolation of b1"));
  figure.scrollIntoView(); await pause(100);
  const dot = figure.querySelector("svg [aria-label=dot] circle");
  const box = dot.getBoundingClientRect();
  const at = { clientX: box.x + 2, clientY: box.y + 2, pointerType: "mouse" };
  figure.querySelector("svg").dispatchEvent(new PointerEvent("pointerenter", at));
  figure.querySelector("svg").dispatchEvent(new PointerEvent("pointermove", at));
  await pause(100);
  out.tip = figure.querySelector("[aria-label=tip]")?.textContent ?? "";
  figure.querySelector("svg").dispatchEvent(new MouseEvent("click", { bubbles: true }));
  out.clicked = document.getElementById("selected").textContent;
"""


def test_a_hand_finds_its_way(page):
    out, said = browse(page, HAND)
    assert "error" not in out, out["error"]
    assert said == []
    assert out["requests"] == []
    assert out["figures"] == out["drawn"] >= 6
    assert out["marks"] > 160
    assert [float(x) for x in out["up"]] == sorted(map(float, out["up"]))
    assert [float(x) for x in out["down"]] == sorted(map(float, out["down"]))[::-1]
    assert out["sorted"] == "descending"
    assert out["filtered"] == ["adabelief"]
    assert out["count"] == "40 of 80 trials"
    assert out["before"] == 0 < out["after"]
    assert "adabelief" in out["selected"]
    assert out["closed"]
    assert "learning_rate" in out["tip"]
    assert "b1" in out["clicked"]


def test_it_fits_a_phone(page):
    script = """
      out.wide = document.documentElement.scrollWidth;
      out.window = innerWidth;
    """
    out, said = browse(page, script, width=500)
    assert said == []
    assert out["wide"] <= out["window"]


def test_ten_thousand_trials_open_soon(tmp_path):
    path = tmp_path / "report.html"
    result_of(5000, 2, 3).report(path)
    assert path.stat().st_size < 2.5e6
    began = time.perf_counter()
    out, said = browse(
        path, "out.rows = document.querySelectorAll('#trial-table tr').length;"
    )
    assert said == []
    assert out["rows"] == 51
    # With the start of the browser, on a machine that does other things too.
    assert time.perf_counter() - began < 20
