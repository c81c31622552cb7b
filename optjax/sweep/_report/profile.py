"""Several sweeps at once: who is near the best on how many tasks.

A performance profile (Dolan and Moré 2002) is the share of the tasks on which an
optimizer needs at most τ times the updates, or the seconds, of the fastest. What is to
be reached on a task is what half of its optimizers reach at their best.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from optjax._page.parts import Page, Picture, Table, Verdict, axis
from optjax.sweep._errors import SweepError
from optjax.sweep._report.target import Reach, in_words, reaches

if TYPE_CHECKING:
    from optjax.sweep._result import SweepResult


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


def profile_page(sweeps: Mapping[str, "SweepResult"]) -> Page:
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
    going_on = [name for name, one in sweeps.items() if one.about.get("unfinished")]
    found = {name: reaches(ranking) for name, ranking in sweeps.items()}
    on_tasks = {name: [task[name] for task in found.values()] for name in common}
    updates = _ratios(
        {n: [at.standing.steps_to_target for at in of] for n, of in on_tasks.items()}
    )
    seconds = {n: [at.seconds for at in of] for n, of in on_tasks.items()}
    # Of some tasks alone it would be another profile.
    is_timed = not any(math.isnan(s) for of in seconds.values() for s in of)
    rows = [[name, *map(_cell, of)] for name, of in on_tasks.items()]
    return Page(
        title=f"{len(sweeps)} sweeps",
        lead=[
            f"{len(common)} optimizers that all have: {', '.join(common)}.",
            *[f"Not finished: {', '.join(going_on)}."] * bool(going_on),
        ],
        verdicts=[_verdict(updates)],
        pictures=[
            _picture("updates", updates),
            *[_picture("seconds", _ratios(seconds))] * is_timed,
        ],
        tables=[
            Table(
                "Ranking on each task",
                "Place, best median, and updates to what half of the task's optimizers "
                "reach" + ", with a trial's share of the machine's time." * is_timed,
                ["optimizer", *sweeps],
                rows,
            )
        ],
    )


def _ratios(times: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Of each optimizer's times on the tasks to the least there."""
    least = [min(on_task) for on_task in zip(*times.values(), strict=True)]
    return {
        name: [
            time / fastest if fastest < math.inf else math.inf
            for time, fastest in zip(of, least, strict=True)
        ]
        for name, of in times.items()
    }


def _cell(reach: Reach) -> str:
    standing, seconds = reach
    place = f"{standing.place}{'=' * standing.is_tied}"
    if math.isinf(standing.best.median):
        return f"{place}, diverged"
    steps = standing.steps_to_target
    there = f"{steps:,.0f} updates" if steps < math.inf else "not reached"
    if math.isfinite(seconds):
        there += f" in {in_words(seconds)} s"
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


def _picture(what: str, ratios: Mapping[str, list[float]]) -> Picture:
    finite = [r for of in ratios.values() for r in of if math.isfinite(r)]
    most = max([*finite, 2.0])
    series = []
    for name, of in ratios.items():
        x, y = profile(of, most)
        series.append({"name": name, "x": x, "y": y})
    return Picture(
        f"Performance profile by {what}",
        "The share of the tasks on which an optimizer needs at most so many times the "
        f"{what} of the fastest to reach what half of the optimizers reach.",
        {
            "kind": "lines",
            "x": axis(f"times the {what} of the fastest", finite),
            "y": axis("share of the tasks", [], is_log=False),
            "series": series,
            "wide": True,
        },
    )
