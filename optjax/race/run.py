"""Run a race from plan to files."""

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from optjax.optimizers import OPTIMIZERS
from optjax.race.execute import Curves, execute
from optjax.race.files import write_atomically, write_curves, write_results
from optjax.race.plan import Plan
from optjax.race.plots import plot_learning_curves, plot_sensitivity
from optjax.race.progress import progress
from optjax.race.results import Result, results
from optjax.race.standings import rank
from optjax.race.table import ranking_table
from optjax.tasks import TASKS, Trial

COMPLETE, INCOMPLETE, INTERRUPTED = 0, 1, 130


def race(plan: Plan, out: Path, console: Console, messages: Console) -> int:
    """Train, print the ranking, write the files, and return the exit status.

    The tables are written however the training ends, with every optimizer that was
    done by then; the pictures come last, and cannot take the tables with them.

    Args:
        plan: what to train.
        out: an existing directory.
        console: where the ranking and the paths go.
        messages: where progress and errors go.
    """
    curves: dict[str, Curves] = {}
    trials: list[Result] = []
    try:
        try:
            with progress(plan, messages) as report:
                for name, measured in execute(plan, _trials(plan)):
                    curves[name] = measured
                    new = results(plan, name, measured)
                    trials.extend(new)
                    report(name, new)
        finally:
            if trials:
                write_results(out / "results.csv", trials)
                write_curves(out / "curves.csv", plan, curves)
    except KeyboardInterrupt:
        kept = f"they are in {out / 'results.csv'}" if trials else "nothing was written"
        _say(
            messages,
            f"interrupted after {len(curves)} of {len(plan.optimizers)} optimizers; "
            f"{kept}",
        )
        return INTERRUPTED

    standings = rank(trials)
    console.print(ranking_table(plan, standings))
    paths = [out / "results.csv", out / "curves.csv"]
    status = COMPLETE
    for picture, draw in (
        (
            out / "learning_curves.png",
            lambda path: plot_learning_curves(path, plan, standings, curves),
        ),
        (
            out / "learning_rate_sensitivity.png",
            lambda path: plot_sensitivity(path, plan, standings, trials),
        ),
    ):
        try:
            write_atomically(picture, draw)
            paths.append(picture)
        except Exception as error:
            _say(messages, f"could not draw {picture}: {error!r}")
            status = INCOMPLETE
    for path in paths:
        console.print(str(path), soft_wrap=True, markup=False, highlight=False)
    return status


def _trials(plan: Plan) -> Iterator[tuple[str, Trial]]:
    make_trial = TASKS[plan.task].load()
    for name in plan.optimizers:
        yield name, make_trial(OPTIMIZERS[name].factory)


def _say(messages: Console, line: str) -> None:
    messages.print(line, soft_wrap=True, markup=False, highlight=False)
