"""The command line: `optjax race`, `sweep`, `report`, `audit`, `list`, `--version`.

Each command imports what it needs when it runs, so that help and `list` start without
Flax, scikit-learn and matplotlib.
"""

import atexit
import contextlib
import inspect
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from optjax import _signals as signals
from optjax._cli.words import USAGE_ERROR, UsageError, in_shell_words
from optjax._names import meant

_USAGE = """\
usage: optjax COMMAND [OPTIONS]

Stochastic gradient methods from SGD to AdaBound as one equation.

commands:
  race        train a small network with every optimizer, and rank them
  sweep       search hyper-parameters of a task of yours, and never lose a trial
  report      write a page that says what came of a sweep or a race
  audit       ask an optimizer which of its numbers move its steps
  list        print the table of the optimizers

options:
  -h, --help  show this help, or after a command, the command's
  --version   print the version

exit status:
  0    done
  1    a file or a picture could not be written, every trial diverged, or an
       audit found something wrong
  2    a bad argument or a missing library, said before any work
  3    another process of a distributed sweep is gone
  130  interrupted by Ctrl-C
  143  ended by SIGTERM; a sweep is saved first
"""

# The libraries of the extras `race` and `sweep`, by the names they are imported by.
_EXTRA = {"PIL", "flax", "jinja2", "matplotlib", "pyarrow", "rich", "sklearn", "tyro"}

_COMMANDS = ("race", "sweep", "report", "audit", "list")

_DONE, _NOT_WRITTEN = 0, 1


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
    except UsageError as error:
        return _fail(str(error), USAGE_ERROR)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRA:
            raise
        needs_sweep = args[:1] == ["sweep"] or package == "pyarrow"
        extra = "sweep" if needs_sweep else "race"
        return _fail(
            f"the package {package} is missing; run: pip install 'optjax[{extra}]'",
            USAGE_ERROR,
        )
    except KeyboardInterrupt as stopped:
        number = signals.number_of(stopped)
        return _fail(signals.in_words(number), signals.status(number))


def _run(args: Sequence[str]) -> int:
    command, *words = args or ["--help"]
    if command in ("-h", "--help"):
        print(_USAGE, end="")
        return _DONE if args else USAGE_ERROR
    if command == "--version":
        if words:
            raise UsageError(f"--version stands alone, got {words[0]!r} after it")
        from optjax import __version__

        print(f"optjax {__version__}")
        return _DONE
    if command in _COMMANDS:
        if os.getcwd() not in sys.path:
            # It stays there, for what a module of the user's imports later.
            sys.path.insert(0, os.getcwd())
        return _command(command, words)
    hint = meant(command, [*_COMMANDS, "--version"]) or "; see optjax --help"
    raise UsageError(f"unknown command {command!r}{hint}")


def _command(command: str, words: Sequence[str]) -> int:
    # A sweep's own error is known only once it is imported, and with it JAX.
    from optjax.sweep._engine.peers import LostProcessError
    from optjax.sweep._errors import NotWrittenError, SweepError

    flags: list[str] = []
    try:
        if command == "list":
            from optjax._cli.list import run_list

            run_list(words)
            return _DONE
        if command == "audit":
            from optjax._cli.audit import run_audit
            from optjax._cli.options import AuditOptions

            flags = [*inspect.signature(AuditOptions).parameters]
            return run_audit(words)
        if command == "report":
            from optjax._cli.options import ReportOptions
            from optjax._cli.report import run_report

            flags = [*inspect.signature(ReportOptions).parameters]
            return run_report(words)
        from optjax._cli.options import RaceOptions, SweepOptions

        if command == "race":
            from optjax._cli.race import run_race

            flags = [*inspect.signature(RaceOptions).parameters]
            return run_race(words)
        from optjax._cli.sweep import run_sweep

        flags = [*inspect.signature(SweepOptions).parameters]
        return run_sweep(words)
    except NotWrittenError as error:
        return _fail(in_shell_words(str(error), flags), _NOT_WRITTEN)
    except LostProcessError as error:
        return _fail(str(error), signals.LOST)
    except SweepError as error:
        raise UsageError(in_shell_words(str(error), flags)) from error


def _fail(line: str, status: int) -> int:
    print(f"optjax: {line}", file=sys.stderr)
    return status
