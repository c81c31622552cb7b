"""Several sweeps at once: who is near the best on how many tasks.

A performance profile (Dolan and Moré 2002) is the share of the tasks on which an
optimizer needs at most τ times the updates of the fastest. What is to be reached on a
task is what half of its optimizers reach at their best.
"""

import math
import statistics
from collections.abc import Mapping

from optjax._page.parts import Page, Picture, Table, Verdict, axis
from optjax.sweep._errors import SweepError
from optjax.sweep._ranking import Ranking, Standing

__all__ = ["profile", "profile_page"]


def profile(ratios: list[float], most: float) -> tuple[list[float], list[float]]:
    """The share of the tasks within each ratio, as the corners of a staircase.

    Args:
      ratios: one a task, infinite where the target was never reached.
      most: where the staircase ends.
    """
    x, y, share = [1.0], [0.0], 0.0
    for ratio in sorted(filter(math.isfinite, ratios)):
        x.append(ratio)
        y.append(share)
        share += 1 / len(ratios)
        x.append(ratio)
        y.append(share)
    return [*x, most], [*y, share]


def profile_page(sweeps: Mapping[str, Ranking]) -> Page:
    """A page of several sweeps by their names, over the optimizers that all have.

    Raises:
      SweepError: where fewer than two optimizers are in all of them.
    """
    common = [
        name
        for name in next(iter(sweeps.values())).optimizers
        if all(name in ranking.optimizers for ranking in sweeps.values())
    ]
    if len(common) < 2:
        raise SweepError(
            "sweeps can be compared by the optimizers that all of them have, which are "
            f"{', '.join(common) or 'none'}; give the directory of one"
        )
    found = {name: _standings(ranking) for name, ranking in sweeps.items()}
    ratios: dict[str, list[float]] = {optimizer: [] for optimizer in common}
    for standings in found.values():
        least = min(standings[optimizer].steps_to_target for optimizer in common)
        for optimizer in common:
            steps = standings[optimizer].steps_to_target
            ratios[optimizer].append(steps / least if least < math.inf else math.inf)
    rows = [
        [
            optimizer,
            *(_cell(standings[optimizer]) for standings in found.values()),
        ]
        for optimizer in common
    ]
    return Page(
        title=f"{len(sweeps)} sweeps",
        lead=[f"{len(common)} optimizers that all have: {', '.join(common)}."],
        verdicts=[_verdict(ratios)],
        pictures=[_picture(ratios)],
        tables=[
            Table(
                "Ranking on each task",
                "Place, best median, and updates to what half of the task's optimizers "
                "reach.",
                ["optimizer", *sweeps],
                rows,
            )
        ],
    )


def _standings(ranking: Ranking) -> dict[str, Standing]:
    bests = [best.median for best in ranking.best_of_each()]
    finite = [median for median in bests if math.isfinite(median)]
    # Of an even number the better of the middle two, which somebody reaches.
    middle = statistics.median_high if ranking.mode == "max" else statistics.median_low
    target = middle(finite) if finite else None
    return {s.best.config.optimizer: s for s in ranking.standings(target)}


def _cell(standing: Standing) -> str:
    place = f"{standing.place}{'=' * standing.is_tied}"
    if math.isinf(standing.best.median):
        return f"{place}, diverged"
    steps = standing.steps_to_target
    there = f"{steps:,.0f} updates" if steps < math.inf else "not reached"
    return f"{place}, {standing.best.median:.4g}, {there}"


def _verdict(ratios: Mapping[str, list[float]]) -> Verdict:
    tasks = len(next(iter(ratios.values())))
    first = {name: sum(ratio == 1 for ratio in of) for name, of in ratios.items()}
    near = {name: sum(ratio <= 2 for ratio in of) for name, of in ratios.items()}
    best = max(ratios, key=lambda name: (near[name], first[name]))
    numbers = ", ".join(f"{name} {near[name]}" for name in ratios)
    return Verdict(
        "profile",
        "note",
        f"{best} is within twice the updates of the fastest on {near[best]} of {tasks} "
        f"tasks, and the fastest on {first[best]}.",
        f"Tasks within twice the fastest: {numbers}.",
    )


def _picture(ratios: Mapping[str, list[float]]) -> Picture:
    finite = [r for of in ratios.values() for r in of if math.isfinite(r)]
    most = max([*finite, 2.0])
    series = []
    for name, of in ratios.items():
        x, y = profile(of, most)
        series.append({"name": name, "x": x, "y": y})
    return Picture(
        "Performance profile",
        "The share of the tasks on which an optimizer needs at most so many times the "
        "updates of the fastest to reach what half of the optimizers reach.",
        {
            "kind": "lines",
            "x": axis("times the updates of the fastest", finite),
            "y": axis("share of the tasks", [], is_log=False),
            "series": series,
            "wide": True,
        },
    )
