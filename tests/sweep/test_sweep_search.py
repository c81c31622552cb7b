"""Searches: asked, told, written down, and the same after any kill."""

import math
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import ready
import search_worker
from search_worker import KEYWORDS, SPACE, init, step

from optjax import sweep
from optjax.sweep import SweepError

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

pytest.importorskip("optuna")
WORKER = str(Path(search_worker.__file__))


class Grid:
    """Proposes a fixed list, and remembers what it heard."""

    batch = 2

    def __init__(self, points):
        self.points = points

    def begin(self, dimensions, seed):
        self.dimensions, self.heard, self.at = dimensions, [], 0
        return self

    def ask(self, count):
        self.at += count
        return np.array(self.points[self.at - count : self.at])

    def tell(self, values):
        self.heard.append(values.tolist())


def run(search, space=SPACE, **options):
    return sweep.run((init, step), space, search=search, **{**KEYWORDS, **options})


def test_a_search_is_asked_in_rounds_and_told_higher_is_better():
    grid = Grid([[0.1], [0.9], [0.1], [0.5], [0.2]])
    result = run(grid, draws=5)
    assert list(grid.dimensions) == ["learning_rate"]
    # The third is the first again, which is not run again.
    assert len(result.records) == 2 * 4
    rates = [r.trial.config.hyper["learning_rate"] for r in result.records[::2]]
    low, high = math.log(1e-3), math.log(1e1)
    want = [math.exp(low + u * (high - low)) for u in (0.1, 0.9, 0.5, 0.2)]
    np.testing.assert_allclose(rates, want, rtol=1e-6)
    by_rate = {
        b.config.hyper["learning_rate"]: b.median for b in result.configurations()
    }
    medians = [by_rate[rate] for rate in rates]
    first, second, third, *_ = medians
    assert grid.heard == [[-first, -second], [-first, -third]]


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ([[0.5, 0.5], [0.1, 0.1]], "2 points of 1 numbers"),
        ([[1.5], [0.0]], "numbers from 0 to 1"),
        ([], "2 points"),
    ],
)
def test_a_search_that_proposes_something_else_is_refused(points, words):
    with pytest.raises(SweepError, match=words):
        run(Grid(points), draws=4)


def test_a_search_that_raises_is_named_with_the_line():
    class Broken(Grid):
        def ask(self, count):
            raise KeyError("why")

    words = (
        r"the search Broken raised KeyError: 'why' in ask \(.*_search\.py, line \d+\)"
    )
    with pytest.raises(SweepError, match=words):
        run(Broken([]), draws=4)


def test_refused():
    with pytest.raises(SweepError, match="draws="):
        run(Grid([[0.5]]))
    with pytest.raises(SweepError, match="sampler must be one of tpe, gp, cmaes"):
        sweep.Optuna("tpe2")
    with pytest.raises(SweepError, match="a function of a seed, got <object"):
        sweep.Optuna(object())
    with pytest.raises(SweepError, match="batch must be"):
        sweep.Optuna(batch=0)
    with pytest.raises(SweepError, match="local engine"):
        run(sweep.Optuna(), draws=4, engine="ray")


def test_every_optimizer_and_every_kind_of_dimension_is_searched():
    space = {
        "optimizer": ["adam", "adashift"],
        "learning_rate": sweep.log_uniform(1e-3, 1.0),
        "keep_num": sweep.only(sweep.uniform(2, 3), "adashift"),
        "b1": sweep.only([0.0, 0.9], "adam"),
        "eps": 1e-8,
    }
    result = run(sweep.Optuna("tpe", batch=4), space, draws=8, seeds=1, method="random")
    configs = [record.trial.config for record in result.records]
    assert {c.optimizer for c in configs} == {"adam", "adashift"}
    assert {c.static.get("keep_num") for c in configs} == {None, 2, 3}
    assert {c.hyper.get("b1") for c in configs} == {None, 0.0, np.float64(0.9)}
    assert {c.hyper["eps"] for c in configs} == {1e-8}


def test_what_cannot_be_called_fails_and_the_search_hears_of_it(tmp_path):
    # Of the second round there is no program at all; the last ends the search.
    points = [[0.2, 0.1], [0.2, 0.9], [0.4, 0.1], [0.3, 0.1], [0.5, 0.9], [0.6, 0.1]]
    space = {**SPACE, "width": [3, 2]}

    def of_width(key, optimizer, width=2):
        if width == 3:
            raise ValueError("no width of 3")
        return init(key, optimizer)

    def search(grid):
        trial, options = (of_width, step), {**KEYWORDS, "draws": 6, "out": tmp_path}
        return sweep.run(trial, space, search=grid, **options)

    grid = Grid(points)
    result = search(grid)
    ends = [record.status for record in result.records[::2]]
    assert ends == ["failed", "finished", "failed", "failed", "finished", "failed"]
    assert "no width of 3" in result.records[0].message
    assert [[math.isinf(value) for value in told] for told in grid.heard] == [
        [True, False],
        [True, True],
    ]
    again = search(Grid(points))
    assert again.finished_before
    assert again.records == result.records
    assert again == sweep.SweepResult.load(tmp_path)


def work(out, sampler, *dying):
    return subprocess.run(
        [*ready.python(), WORKER, str(out), sampler, *map(str, dying)],
        capture_output=True,
        text=True,
    )


# Before suggestions are written, and between calls.
@pytest.mark.parametrize(
    ("sampler", "deaths"),
    [
        ("tpe", [("grow", 2)]),
        ("cmaes", [("append", 3)]),
    ],
)
def test_killed_and_resumed_equals_uninterrupted(tmp_path, sampler, deaths):
    search_worker.main(tmp_path / "whole", sampler)
    out = tmp_path / "killed"
    for point, count in deaths:
        killed = work(out, sampler, point, count)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    search_worker.main(out, sampler)
    for name in ("results.csv", "curves.csv", "sweep/sweep.json"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    again = search_worker.main(out, sampler)
    assert again.finished_before
    assert again == sweep.SweepResult.load(out)
    # More of it goes on; another search is another sweep.
    more = search_worker.main(out, sampler, draws=16)
    assert more.records[: len(again.records)] == again.records
    assert len(more.records) > len(again.records)
    with pytest.raises(
        SweepError, match=r"another sweep: .*search was Optuna\(sampler="
    ):
        search_worker.main(out, "gp")
