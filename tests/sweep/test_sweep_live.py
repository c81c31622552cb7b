"""What a sweep says of itself where there is no terminal: log lines, a cell's bar."""

import sys
import types

import pytest

from optjax.sweep import Status
from optjax.sweep._view import live
from optjax.sweep._view.cell import Bar, shell
from optjax.sweep._view.live import Tally, live_display


def status(done, **changes):
    said = {
        "total": 8,
        "done": done,
        "running": min(2, 8 - done),
        "diverged": 0,
        "stopped": 0,
        "optimizer": "adam",
        "best": 0.25 if done else None,
        "best_config": "adam(learning_rate=<0.1>)",
        "steps": 100 * done,
        "most_steps_left": 800 - 100 * done,
    }
    return Status(**said | changes)


def test_a_log_has_a_line_a_minute(capsys):
    now = [0.0]
    tally = Tally("loss", clock=lambda: now[0])
    log = live._lines(tally, "loss", "min", False, clock=lambda: now[0])
    for done, at in enumerate([2.0, 58.0, 62.0, 80.0, 120.0, 123.0, 124.0]):
        now[0] = at
        log.show(status(done, failed=done // 2))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "2 of 8 trials · 2 running · 1 failed · adam · 3 steps/s · at most 3 min left"
        " · best loss 0.25: adam(learning_rate=<0.1>)",
        "5 of 8 trials · 2 running · 2 failed · adam · 4 steps/s · at most 74 s left"
        " · best loss 0.25: adam(learning_rate=<0.1>)",
    ]
    assert log.on_group is None


@pytest.fixture
def cell(monkeypatch):
    """IPython as in a notebook: what its cell shows, each time anew."""
    shown = []
    handle = types.SimpleNamespace(update=lambda html: shown.append(html))

    def display(html, *, display_id):
        assert display_id
        assert not shown
        shown.append(html)
        return handle

    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: types.SimpleNamespace(kernel=object())
    ipython.display = types.ModuleType("IPython.display")
    ipython.display.HTML = str
    ipython.display.display = display
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", ipython.display)
    return shown


def test_in_a_notebook_a_bar_lives_in_the_cell(cell, capsys):
    assert shell() is not None
    with live_display("loss") as display:
        display.show(status(0))
        display.show(status(8, running=0))
    assert '<progress value="0" max="8"' in cell[0]
    assert '<progress value="8" max="8"' in cell[-1]
    assert "8 of 8 trials<br>" in cell[-1]
    assert "adam(learning_rate=&lt;0.1&gt;)" in cell[-1]
    assert capsys.readouterr() == ("", "")


def test_it_is_shown_a_few_times_a_second_and_at_the_end(cell):
    now = [0.0]
    bar = Bar(clock=lambda: now[0])
    for done in range(9):
        now[0] = 0.05 * done
        bar.show(done, 8, ["x", ""])
    # At 0, 0.2 and 0.4 s, where it ends.
    assert [int(text.split('"')[1]) for text in cell] == [0, 4, 8]
