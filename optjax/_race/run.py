"""Run a race from plan to files."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from optjax import _signals as signals
from optjax._race.execute import Curves, execute
from optjax._race.files import write_curves, write_results
from optjax._race.plan import Plan
from optjax._race.plots import plot_learning_curves, plot_sensitivity
from optjax._race.progress import Report, progress
from optjax._race.results import DIVERGED, Result, results
from optjax._race.standings import rank
from optjax._race.table import ranking_table
from optjax.sweep import Status, SweepResult
from optjax.sweep._store import store as sweep_store
from optjax.sweep._store.directory import claim
from optjax.sweep._store.files import write_atomically
from optjax.sweep._view.progress import FINISHED_BEFORE, live_display
from optjax.tasks import Loaded

COMPLETE, INCOMPLETE = 0, 1

_TRIALS = "trials"
#: Where a race's directory has the progress of its sweep.
MARKER = f"{_TRIALS}/{sweep_store.MARKER}"


def race(
    plan: Plan,
    task: Loaded,
    out: Path,
    console: Console,
    messages: Console,
    *,
    other_versions: bool = False,
) -> int:
    """Train, print the ranking, write the files, and return the exit status.

    The tables are written however the training ends, with every optimizer that was
    done by then; the pictures come last, and cannot take the tables with them.

    The trials are kept in `out`/trials, which is the directory of a sweep, so the same
    race goes on from there. What is written beside it is made from them.

    Args:
        plan: the trials.
        task: what they train.
        out: an existing directory, empty or of the same race.
        console: where the ranking and the paths go.
        messages: where progress and errors go.
        other_versions: whether other libraries may have begun it in `out`.

    Raises:
        SweepError: where `out` has something else in it.
    """
    claim(out, _TRIALS, MARKER)
    was_there = (out / MARKER).exists()
    result: SweepResult | None = None
    curves: dict[str, Curves] = {}
    trials: list[Result] = []
    stopped: int | None = None
    try:
        with _display(plan, task, messages) as (report, on_status):

            def on_done(name: str, measured: Curves) -> None:
                curves[name] = measured
                new = results(plan, name, measured)
                trials.extend(new)
                report(name, new)

            result = execute(
                plan,
                task,
                on_done,
                on_status=on_status,
                store=out / _TRIALS,
                other_versions=other_versions,
            )
    except KeyboardInterrupt as error:
        stopped = signals.number_of(error)
    finally:
        written = _write_tables(plan, out, trials, curves, messages)
    if stopped is not None:
        kept = f"they are in {written[0]}" if written else "nothing was written"
        _say(
            messages,
            f"{signals.in_words(stopped)} after {len(curves)} of "
            f"{len(plan.optimizers)} optimizers; {kept}",
        )
        return signals.status(stopped)

    assert result is not None
    standings = rank(trials)
    if result.finished_before:
        console.print(FINISHED_BEFORE)
    elif was_there:
        _say(console, f"went on in {out}")
    console.print(ranking_table(plan, standings))
    pictures: dict[Path, Callable[[Path], None]] = {
        out / "ranking.png": lambda path: result.plot_ranking().savefig(path),
        out / "learning_curves.png": lambda path: plot_learning_curves(
            path, plan, standings, curves
        ),
        out / "learning_rate_sensitivity.png": lambda path: plot_sensitivity(
            path, plan, standings, trials
        ),
    }
    for picture, draw in pictures.items():
        try:
            if not (result.finished_before and picture.exists()):
                write_atomically(picture, draw)
            written.append(picture)
        except Exception as error:
            _say(messages, f"could not draw {picture}: {error!r}")
    for path in written:
        console.print(str(path), soft_wrap=True, markup=False, highlight=False)
    all_diverged = all(trial.status == DIVERGED for trial in trials)
    if all_diverged:
        _say(messages, f"all {len(trials)} trials diverged; try smaller learning rates")
    is_all_there = len(written) == len(pictures) + 2
    return COMPLETE if is_all_there and not all_diverged else INCOMPLETE


@contextmanager
def _display(
    plan: Plan, task: Loaded, messages: Console
) -> Iterator[tuple[Report, Callable[[Status], None] | None]]:
    """A live display of updates where an optimizer takes long, of optimizers else."""
    if not (task.is_long and messages.is_terminal):
        with progress(plan, messages) as report:
            yield report, None
        return
    with live_display("val_accuracy", task.unit, task.units) as on_status:
        yield (lambda name, trials: None), on_status


def _write_tables(
    plan: Plan,
    out: Path,
    trials: list[Result],
    curves: dict[str, Curves],
    messages: Console,
) -> list[Path]:
    """Write what there is, and return the paths of what could be written."""
    written = []
    tables: dict[Path, Callable[[Path], None]] = {
        out / "results.csv": lambda path: write_results(path, trials),
        out / "curves.csv": lambda path: write_curves(path, plan, curves),
    }
    for table, write in tables.items() if trials else ():
        try:
            write(table)
            written.append(table)
        except OSError as error:
            _say(messages, f"could not write {table}: {error.strerror}")
    return written


def _say(messages: Console, line: str) -> None:
    messages.print(f"optjax: {line}", soft_wrap=True, markup=False, highlight=False)
