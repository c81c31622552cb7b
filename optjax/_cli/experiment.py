"""What `optjax race` and `optjax sweep` share: where it runs, what it shows."""

import functools
import importlib.util
import math
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optjax import _signals as signals
from optjax._cli.options import RaceOptions, SweepOptions
from optjax._cli.words import names_in
from optjax._names import did_you_mean
from optjax.sweep import (
    DIVERGED,
    Interrupted,
    Record,
    Status,
    SweepError,
    SweepResult,
    run,
)
from optjax.sweep._contract import as_make_trial
from optjax.sweep._engine.peers import leave
from optjax.sweep._errors import one_line
from optjax.sweep._ranking import mode_of
from optjax.sweep._report.winner import SEEDS
from optjax.sweep._rows import YOUR_OWN, load_attribute
from optjax.sweep._store.directory import as_directory, in_a_series
from optjax.sweep._store.files import write_atomically
from optjax.sweep._store.store import MARKER, Store
from optjax.sweep._view.live import FINISHED_BEFORE, live_display
from optjax.tasks import TASKS, Loaded, Settings, Task

#: Exit statuses: all is there; a picture is not, or every trial diverged.
DONE, NOT_DONE = 0, 1

# What is needed at the end, or in the middle, and better missed before.
_NEEDED = ("jinja2", "matplotlib", "rich")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A sweep that a command line asks for, and what to show of it.

    Attributes:
      command: the words that ask for it.
      task_name: as it was given.
      task: what is trained.
      space: the hyper-parameters.
      out: the directory, or None for a new one.
      target: a value of the metric whose updates are told, or None.
      report_every: seconds between two versions of the page, or None for the last.
      keywords: the rest for `sweep.run`.
    """

    command: tuple[str, ...]
    task_name: str
    task: Loaded
    space: Mapping[str, Any]
    out: str | None
    target: float | None
    report_every: float | None
    keywords: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        options: RaceOptions | SweepOptions,
        task: Loaded,
        *,
        command: Sequence[str],
        optimizers: Sequence[str],
        space: Mapping[str, Any],
        seeds: int,
        **keywords: Any,
    ) -> "Experiment":
        """What both commands say alike, from their options; the task says the rest.

        Raises:
          SweepError: for optimizers and seeds that no sweep has.
        """
        _check_names(optimizers)
        if seeds < 1:
            raise SweepError(f"seeds must be a whole number >= 1, got {seeds}")
        every = options.report_every
        if every is not None and not every > 0:
            raise SweepError(f"report_every must be a number > 0, got {every:g}")
        first = options.first_seed
        if not 0 <= first <= 2**31 - seeds:
            raise SweepError(
                f"first_seed must be from 0 to {2**31 - seeds}, so that all seeds are "
                f"below 2**31, got {first}"
            )
        metric = _given(options.metric, task.metric)
        is_own = metric == task.metric
        default, target = (task.mode, task.target) if is_own else (None, None)
        target = _given(options.target, target)
        if target is not None and not math.isfinite(target):
            raise SweepError(f"target must be a finite number, got {target:g}")
        return cls(
            command=("optjax", *command),
            task_name=options.task,
            task=task,
            space={"optimizer": list(optimizers), **space},
            out=options.out,
            target=target,
            report_every=options.report_every,
            keywords={
                "steps": _given(options.steps, task.steps),
                "evaluate_every": _given(options.evaluate_every, task.evaluate_every),
                "metric": metric,
                "mode": mode_of(metric, _given(options.mode, default)),
                "seeds": range(first, first + seeds),
                "about": task.words(options.task),
                "keep": options.keep,
                "other_versions": options.other_versions,
                **keywords,
            },
        )

    @property
    def title(self) -> str:
        """What the metric is called."""
        metric = self.keywords["metric"]
        return self.task.title if metric == self.task.metric else metric


def load_task(task: str, settings: Settings) -> Loaded:
    """The task that a name or `module:attribute` stands for.

    A module is looked for in the current directory too. The attribute is a `Task`, a
    `Loaded`, or what `sweep.run` takes: `make_trial`, or a tuple of functions
    (init, step[, evaluate]).

    Raises:
      SweepError: for an unknown task, a module that cannot be imported, an attribute
        that is not there or is something else, and data that cannot be read.
    """
    who = f"task {task}"
    if task in TASKS:
        try:
            return TASKS[task].load(settings)
        except ValueError as error:
            raise SweepError(f"{who}: {error}") from None
    if not all(task.partition(":")):
        raise SweepError(f"unknown task {task!r}{did_you_mean(task, TASKS, YOUR_OWN)}")
    own_task = load_attribute(task, who)
    try:
        if isinstance(own_task, Task):
            return own_task.load(settings)
        for name in settings.given:
            raise SweepError(f"it has its own data and model, and takes no {name}=")
        if isinstance(own_task, Loaded):
            return own_task
        return Loaded(as_make_trial(own_task), task)
    except ValueError as error:
        raise SweepError(f"{who}: {error}") from None


def perform(experiment: Experiment) -> int:
    """Run it, print and draw what came of it, and return the exit status.

    With several processes only the first prints and draws.

    Raises:
      SweepError: where it cannot start or go on.
    """
    for package in _NEEDED:
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(f"no module {package}", name=package)
    if experiment.out is not None:
        return _run_in(experiment, as_directory(experiment.out))
    name = re.sub(r"\W+", "-", experiment.task_name)
    series = Path("runs", f"{experiment.command[1]}-{name}")
    return in_a_series(series, MARKER, functools.partial(_run_in, experiment), complain)


def complain(line: str) -> None:
    """Say on standard error what went wrong."""
    print(f"optjax: {line}", file=sys.stderr)


class _Page:
    """report.html while a sweep runs, of the trials that have ended.

    Attributes:
      records: of these.
    """

    def __init__(self, experiment: Experiment, out: Path) -> None:
        self.records: list[Record] = []
        self._experiment, self._path = experiment, out / "report.html"
        self._next = time.monotonic() + (experiment.report_every or 0.0)

    def rewrite(self, total: int) -> None:
        """Where it is time: as often as asked for, and a tenth of the time at most.

        Args:
          total: how many trials there are.
        """
        every, began = self._experiment.report_every, time.monotonic()
        if every is None or began < self._next or not self.records:
            return
        words = self._experiment.keywords
        SweepResult(
            tuple(sorted(self.records, key=lambda record: record.trial.number)),
            words["metric"],
            words["mode"],
            title=self._experiment.title,
            command=self._experiment.command,
            about={**words["about"], "unfinished": total - len(self.records)},
        ).report(self._path)
        self._next = began + max(every, 10 * (time.monotonic() - began))


def _run_in(experiment: Experiment, out: Path) -> int:
    import jax

    task, words = experiment.task, experiment.keywords
    is_first = jax.process_index() == 0
    was_there = (out / MARKER).exists()
    saved = Store(out, writes=False).saved_identity() or {}
    try:
        with live_display(
            words["metric"],
            words["mode"],
            title=experiment.title,
            unit=task.unit,
            units=task.units,
            optimizers=experiment.space["optimizer"],
            seeds=len(words["seeds"]),
            has_lines=is_first,
        ) as display:
            page = _Page(experiment, out)

            def show(status: Status) -> None:
                display.show(status)
                page.rewrite(status.total)

            result = run(
                task.make_trial,
                experiment.space,
                out=out,
                progress=show if is_first else False,
                on_group=display.on_group if is_first else None,
                callbacks=[display.on_record, page.records.append],
                title=experiment.title,
                command=experiment.command,
                **words,
            )
    except Interrupted as stopped:
        return _end_early(stopped, out, is_first)
    if was_there and not result.finished_before:
        done = saved.get("steps", 0)
        is_longer = 0 < done < words["steps"]
        print(f"optjax: went on in {out}" + is_longer * f", from {done:,} updates")
    # The others need not wait for the pictures.
    leave()
    return _show(experiment, result, out) if is_first else DONE


def _end_early(stopped: Interrupted, out: Path, is_first: bool) -> int:
    ended = stopped.result.records
    if stopped.by_all:
        leave()
    kept = ""
    if ended and is_first and (out / MARKER).exists():
        # It is made anew when the sweep goes on.
        table = out / "results.csv"
        stopped.result.to_csv(table)
        kept = f", which are in {table}"
    complain(f"{stopped} after {len(ended)} trials{kept}; the same command goes on")
    return signals.status(stopped.signal)


def _show(experiment: Experiment, result: SweepResult, out: Path) -> int:
    from rich.console import Console

    if result.finished_before:
        print(FINISHED_BEFORE)
    Console().print(result.summary(experiment.target))
    for name in ("results.csv", "curves.csv"):
        print(out / name)
    status = DONE
    written = {
        name: _saving(draw)
        for name, draw in _pictures(result, experiment.target).items()
    }
    for name, write in {**written, "report.html": result.report}.items():
        try:
            if not (result.finished_before and (out / name).exists()):
                write_atomically(out / name, write)
            print(out / name)
        except Exception as error:
            complain(f"could not write {out / name}: {one_line(error)}")
            status = NOT_DONE
    _say(result)
    if all(record.status == DIVERGED for record in result.records):
        complain(f"all {len(result.records)} trials diverged")
        status = NOT_DONE
    failures = Counter(record.message for record in result.records if record.message)
    for message, count in failures.items():
        complain(f"{count} trial{'s' * (count > 1)} failed: {message}")
        status = NOT_DONE
    return status


def _saving(draw: Callable[[], Any]) -> Callable[[Path], Any]:
    return lambda to: draw().savefig(to)


def _say(result: SweepResult) -> None:
    """The verdicts in short, the line to paste, and last what to run next."""
    print()
    verdicts = result.verdicts()
    for verdict in verdicts:
        print(f"{verdict.level}: {verdict.says}")
    code = result.best().code
    if code:
        print(code)
    steps = [verdict for verdict in verdicts if verdict.next]
    # More seeds tell apart what is tried, which may yet be too little.
    steps.sort(key=lambda verdict: (verdict.level != "warning", verdict.kind == SEEDS))
    for verdict in steps[:1]:
        print(f"next: {verdict.next}")


def _pictures(
    result: SweepResult, target: float | None
) -> dict[str, Callable[[], Any]]:
    """What has something to show, by its file's name."""
    pictures: dict[str, Callable[[], Any]] = {"ranking.png": result.plot_ranking}
    if any(len(record.curve.steps) > 1 for record in result.records):
        pictures["curves.png"] = functools.partial(result.plot_curves, target=target)
    varying = [name for name in result.hyper_names if _varies(result, name)]
    if varying:
        most = "learning_rate" if "learning_rate" in varying else varying[0]
        pictures["sensitivity.png"] = functools.partial(result.plot_sensitivity, most)
    if len(varying) == 2:
        x, y = varying
        having = [
            name
            for name in result.optimizers
            if set(varying) <= set(result.best(name).config.hyper)
        ]
        for name in having:
            file = "heatmap.png" if len(having) == 1 else f"heatmap-{name}.png"
            pictures[file] = functools.partial(result.plot_heatmap, x, y, name)
    return pictures


def _varies(result: SweepResult, name: str) -> bool:
    """Whether some optimizer has tried more than one value."""
    tried = {
        (record.trial.config.optimizer, record.trial.config.hyper.get(name))
        for record in result.records
    }
    return any(
        len({value for who, value in tried if who == optimizer} - {None}) > 1
        for optimizer in result.optimizers
    )


def _check_names(optimizers: Sequence[str]) -> None:
    if not optimizers:
        raise SweepError("optimizers= needs a name, such as adam, got none")
    for name, count in Counter(optimizers).items():
        apart = names_in(name)
        if len(apart) > 1:
            raise SweepError(
                f"--optimizers takes names with spaces between them, such as "
                f"--optimizers {' '.join(apart)}, got {name!r}"
            )
        if count > 1:
            raise SweepError(
                f"each optimizer must be given once, got {name} {count} times"
            )


def _given(option: Any, otherwise: Any) -> Any:
    return otherwise if option is None else option
