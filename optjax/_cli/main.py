"""The command line: `optjax race`, `optjax sweep`, `optjax list`, `optjax --version`.

Each command imports what it needs when it runs, so that help and `list` start without
Flax, scikit-learn and matplotlib.
"""

import atexit
import contextlib
import difflib
import inspect
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

from optjax import _signals as signals
from optjax._cli.words import in_shell_words, parser_fault, words_fault

_USAGE = """\
usage: optjax COMMAND [OPTIONS]

Stochastic gradient methods from SGD to AdaBound as one equation.

commands:
  race        train a small network with every optimizer, and rank them
  sweep       search hyper-parameters of a task of yours, and never lose a trial
  list        print the table of the optimizers

options:
  -h, --help  show this help, or after a command, the command's
  --version   print the version

exit status:
  0    done
  1    a file or a picture could not be written, or every trial diverged
  2    a bad argument or a missing library, said before any work
  3    another process of a distributed sweep is gone
  130  interrupted by Ctrl-C
  143  ended by SIGTERM; a sweep is saved first
"""

_RACE = """\
Train a small network with every optimizer, and rank them.

  Each optimizer runs over a grid of learning rates and several seeds, all in
  one compiled program; its other hyper-parameters stay at their defaults. The
  defaults take about a minute on two cores.

  The race ends with a ranked table, and writes into a new directory, or the
  one given with --out: results.csv (every trial), curves.csv (every
  evaluation), ranking.png, learning_curves.png and
  learning_rate_sensitivity.png. Ctrl-C stops it and keeps the optimizers that
  were done; the same command goes on.

  The tasks with images and texts train by the recipe of the AdaBound paper:
  SGD with momentum, Adam, AMSGrad, AdaBound and AMSBound, each at its own
  learning rate. They are saved after every epoch.

Examples:
  optjax race
  optjax race --optimizers sgd adam adabound
  optjax race --learning-rates 0.001 0.01 0.1 --seeds 10 --steps 2000
  optjax race --task cifar10-densenet121 --data DIR
  optjax race --task cifar10-densenet121 --data DIR --epochs 30 --dtype bfloat16
  optjax race --task cifar10-resnet8 --data DIR --epochs 4 --examples 1280
      --test-examples 1000 --seeds 2
"""

_SWEEP = """\
Train every trial of a hyper-parameter search, each optimizer's in one program.

  The same command goes on where it was, however it ended. Ctrl-C ends it at
  once, with status 130; SIGTERM saves it first, 143. It prints the best
  of each optimizer, and writes into a new directory, or the one given with
  --out: results.csv (every trial), curves.csv (every evaluation), curves.png,
  sensitivity.png and, where two numbers vary, heatmap.png.

  TASK is digits, or module:attribute for your own: a function
  make_trial(factory) or a tuple of functions (init, step[, evaluate]), as
  optjax.sweep.run takes them. Modules in the current directory are found.

  A hyper-parameter is NAME=VALUES: "0.1, 0.01" is a grid; "log(1e-4, 1)" and
  "uniform(0, 1)" are ranges, and --draws says how often. One that an optimizer
  does not have is left out for it.

  A TOML file has the same names, and the hyper-parameters in a table [space].

Examples:
  optjax sweep digits --space learning_rate="1e-3, 1e-2, 1e-1"
  optjax sweep digits --optimizers adam adabound --draws 32 --stop-early 30
      --space learning_rate="log(1e-4, 1)" final_lr="0.01, 0.1, 1"
  optjax sweep mymodel:trial --metric loss --mode min --out runs/mine
      --space learning_rate="log(1e-4, 1)" --draws 64
  optjax sweep --config sweep.toml --seeds 5
"""

_LIST = "Print the table of the optimizers, in order of increasing complexity."

# The libraries of the extras `race` and `sweep`, by the names they are imported by.
_EXTRA = {"PIL", "flax", "matplotlib", "pyarrow", "rich", "sklearn", "tyro"}

_DONE, _NOT_WRITTEN, _USAGE_ERROR = 0, 1, 2


def command() -> NoReturn:
    """`main` for a process of its own, which ends with its status at any signal."""
    signals.take()
    status = main()
    if status not in (signals.LOST, *map(signals.status, signals.SIGNALS)):
        # What libraries do at the end, such as waiting for processes, which are there.
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    # Without taking apart what JAX may be compiling in other threads; Python would let
    # a signal kill it then.
    os._exit(status)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv`, by default the process's, and return its status.

    0: done. 1: a file could not be written. 2: a bad argument or a missing library,
    said in one line before any work. 3: another process of a distributed sweep is
    gone. 130: interrupted. 143: ended by SIGTERM.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        # A terminal without Greek letters shows "?", rather than ending the race.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        return _run(args)
    except _UsageError as error:
        return _fail(str(error), _USAGE_ERROR)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRA:
            raise
        needs_sweep = args[:1] == ["sweep"] or package == "pyarrow"
        extra = "sweep" if needs_sweep else "race"
        return _fail(
            f"the package {package} is missing; run: pip install 'optjax[{extra}]'",
            _USAGE_ERROR,
        )
    except KeyboardInterrupt as stopped:
        number = signals.number_of(stopped)
        return _fail(signals.in_words(number), signals.status(number))


class _UsageError(Exception):
    """What is wrong with the command line, in one line."""


def _run(args: Sequence[str]) -> int:
    command, *options = args or ["--help"]
    if command == "race":
        return _race(options)
    if command == "sweep":
        return _sweep(options)
    if command == "list":
        return _list(options)
    if command in ("-h", "--help"):
        print(_USAGE, end="")
        return _DONE if args else _USAGE_ERROR
    if command == "--version":
        if options:
            raise _UsageError(f"--version stands alone, got {options[0]!r} after it")
        from optjax import __version__

        print(f"optjax {__version__}")
        return _DONE
    close = difflib.get_close_matches(command, ["race", "sweep", "list", "--version"])
    hint = f"did you mean {close[0]}?" if close else "see optjax --help"
    raise _UsageError(f"unknown command {command!r}; {hint}")


def _race(options: Sequence[str]) -> int:
    import tyro

    from optjax._race.plan import check_known, make_directory, make_plan
    from optjax.sweep import use_all_cores
    from optjax.tasks import TASKS, Settings
    from optjax.tasks._options import (
        BatchSize,
        Data,
        Dtype,
        Epochs,
        Examples,
        TestExamples,
    )

    use_all_cores()
    default = make_plan()

    def arguments(
        task: Annotated[
            str, tyro.conf.arg(help=f"What to train: {', '.join(TASKS)}.")
        ] = default.task,
        data: Data = None,
        optimizers: Annotated[
            tuple[str, ...] | None,
            tyro.conf.arg(
                help="Rows of the table that `optjax list` prints.",
                metavar="NAME ...",
                help_behavior_hint="(default: all, or the recipe's)",
            ),
        ] = None,
        learning_rates: Annotated[
            tuple[float, ...] | None,
            tyro.conf.arg(
                help="The grid that every optimizer tries.",
                metavar="FLOAT ...",
                help_behavior_hint="(default: half decades from 1e-4 to 10, or the "
                "recipe's for each optimizer)",
            ),
        ] = None,
        seeds: Annotated[
            int | None,
            tyro.conf.arg(
                help="How many seeds. A seed fixes the initial parameters and the "
                "order of the batches, alike for every optimizer.",
                metavar="INT",
                help_behavior_hint="(default: 3, or 1 where trials are long)",
            ),
        ] = None,
        first_seed: Annotated[
            int, tyro.conf.arg(help="The first seed; the others count up from it.")
        ] = default.seeds[0],
        steps: Annotated[
            int | None,
            tyro.conf.arg(
                help="Updates in each trial.",
                metavar="INT",
                help_behavior_hint="(default: 300, or all epochs)",
            ),
        ] = None,
        evaluate_every: Annotated[
            int | None,
            tyro.conf.arg(
                help="Updates between two evaluations.",
                metavar="INT",
                help_behavior_hint="(default: 10, or an epoch)",
            ),
        ] = None,
        epochs: Epochs = None,
        examples: Examples = None,
        test_examples: TestExamples = None,
        batch_size: BatchSize = None,
        dtype: Dtype = "float32",
        out: Annotated[
            str | None,
            tyro.conf.arg(
                help="Directory for the files: not there, empty, or of this race.",
                metavar="DIR",
                help_behavior_hint="(default: a new one, runs/race-TASK-1, then -2; or "
                "the newest, where it is of this race and not finished)",
            ),
        ] = None,
        other_versions: Annotated[
            bool,
            tyro.conf.arg(
                help="Go on in --out though it was begun with other versions of jax, "
                "flax, optax, optjax or Python."
            ),
        ] = False,
    ) -> dict[str, Any]:
        return locals()

    asked = _parse(arguments, options, "optjax race", _RACE)
    names = [*inspect.signature(arguments).parameters]
    _check_apart(asked["optimizers"] or ())
    out, other_versions = asked.pop("out"), asked.pop("other_versions")
    settings = Settings(**{name: asked.pop(name) for name in Settings._fields})
    try:
        check_known("task", [asked["task"]], TASKS)
        task = TASKS[asked["task"]].load(settings)
        recipe: dict[str, Any] = {
            "seeds": task.seeds,
            "steps": task.steps,
            "evaluate_every": task.evaluate_every,
        }
        if task.learning_rates is not None and asked["learning_rates"] is None:
            recipe["learning_rates"] = task.learning_rates
        if task.learning_rates is not None:
            recipe["optimizers"] = tuple(task.learning_rates)
        given = {name: value for name, value in asked.items() if value is not None}
        plan = make_plan(**{**recipe, **given})
    except ValueError as error:
        raise _UsageError(in_shell_words(str(error), names)) from error

    from rich.console import Console

    from optjax._race.run import MARKER, race
    from optjax.sweep._problem import NotWrittenError, SweepError
    from optjax.sweep._store.directory import as_directory, in_a_series

    def run_in(out: Path) -> int:
        try:
            make_directory(out)
        except ValueError as error:
            raise _UsageError(str(error)) from error
        return race(
            plan,
            task,
            out,
            Console(),
            Console(stderr=True),
            other_versions=other_versions,
        )

    try:
        if out is not None:
            return run_in(as_directory(out))
        series = Path("runs", f"race-{plan.task}")
        return in_a_series(series, MARKER, run_in, _complain)
    except NotWrittenError as error:
        return _fail(in_shell_words(str(error), names), _NOT_WRITTEN)
    except SweepError as error:
        raise _UsageError(in_shell_words(str(error), names)) from error


def _sweep(words: Sequence[str]) -> int:
    from optjax._cli.options import SweepOptions

    options = _parse(SweepOptions, words, "optjax sweep", _SWEEP)
    names = [*inspect.signature(SweepOptions).parameters]

    from optjax import sweep
    from optjax._cli.sweep import read_config, run_command, start_distributed
    from optjax.sweep._engine.peers import LostProcessError, leave
    from optjax.sweep._problem import NotWrittenError

    table: dict[str, Any] = {}
    try:
        if options.config is not None:
            in_file, table = read_config(options.config)
            try:
                default = _parse(SweepOptions, in_file, "optjax sweep", _SWEEP)
            except _UsageError as error:
                # A file has keys, where the command line has flags.
                in_words = str(error).replace("; see optjax sweep --help", "")
                raise _UsageError(
                    f"{options.config}: {in_words.replace('--', '')}"
                ) from None
            options = _parse(SweepOptions, words, "optjax sweep", _SWEEP, default)
        _check_apart(options.optimizers)
        if options.distributed:
            start_distributed()
        else:
            sweep.use_all_cores()
        all_drawn = run_command(options, table, say=print, complain=_complain)
    except sweep.Interrupted as stopped:
        ended = len(stopped.result.records)
        if stopped.by_all:
            leave()
        return _fail(
            f"{stopped} after {ended} trials; the same command goes on",
            signals.status(stopped.signal),
        )
    except NotWrittenError as error:
        return _fail(in_shell_words(str(error), names), _NOT_WRITTEN)
    except LostProcessError as error:
        return _fail(str(error), signals.LOST)
    except sweep.SweepError as error:
        raise _UsageError(in_shell_words(str(error), names)) from error
    return _DONE if all_drawn else _NOT_WRITTEN


def _check_apart(optimizers: Sequence[str]) -> None:
    for name in optimizers:
        apart = re.split(r"[\s,]+", name.strip())
        if len(apart) > 1:
            raise _UsageError(
                f"--optimizers takes names with spaces between them, such as "
                f"--optimizers {' '.join(apart)}, got {name!r}"
            )


def _list(options: Sequence[str]) -> int:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from optjax.optimizers import OPTIMIZERS

    _parse(lambda: None, options, "optjax list", _LIST)
    console = Console()
    wide = console.width >= 110
    table = Table(
        title=Text("x[t+1] = x[t] − s_t · V_t ⊙ m_t"),
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1 if wide else 0),
    )
    table.add_column("row", no_wrap=True)
    table.add_column("direction m", overflow="fold")
    table.add_column("rate V", overflow="fold")
    table.add_column("bound", no_wrap=True)
    if wide:
        table.add_column("schedule s", no_wrap=True)
    table.add_column("paper", overflow="fold")
    for name, row in OPTIMIZERS.items():
        schedule = [row.schedule] if wide else []
        cells = [name, row.direction, row.rate, row.bound, *schedule, row.paper]
        table.add_row(*map(Text, cells))
    console.print(table)
    return _DONE


def _parse(
    function: Callable[..., Any],
    options: Sequence[str],
    prog: str,
    description: str,
    default: Any = None,
) -> Any:
    """Call `function` with what `options` say; raise `_UsageError` if they cannot.

    `default` is a result of `function` that has what `options` leave out.
    """
    import tyro

    if fault := words_fault(function, options):
        raise _UsageError(f"{fault}; see {prog} --help")
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(
                function,
                prog=prog,
                description=description,
                args=list(options),
                **({} if default is None else {"default": default}),
            )
    except SystemExit as stop:
        if stop.code != _USAGE_ERROR:
            raise
        line = parser_fault(function, options, errors.getvalue())
        raise _UsageError(f"{line}; see {prog} --help") from None


def _fail(line: str, status: int) -> int:
    _complain(line)
    return status


def _complain(line: str) -> None:
    print(f"optjax: {line}", file=sys.stderr)
