"""`optjax sweep`: its words, its TOML file, and what they make of a sweep."""

import contextlib
import dataclasses
import os
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optjax._cli.experiment import Experiment, load_task, perform
from optjax._cli.options import SweepOptions
from optjax._cli.words import UsageError, parse
from optjax._names import did_you_mean
from optjax.sweep import (
    Median,
    Optuna,
    StoppingRule,
    SuccessiveHalving,
    SweepError,
    parse_dimension,
    per_optimizer,
    use_all_cores,
)
from optjax.sweep._engine.peers import join
from optjax.sweep._errors import one_line
from optjax.sweep._optuna import SAMPLERS
from optjax.sweep._report.again import CHANGED
from optjax.tasks import Settings

_HELP = """\
Train every trial of a hyper-parameter search, each optimizer's in one program.

  The same command goes on where it was, however it ended. Ctrl-C ends it at
  once, with status 130; SIGTERM saves it first, 143. It prints the best
  of each optimizer, and writes into a new directory, or the one given with
  --out: results.csv (every trial), curves.csv (every evaluation), report.html
  (verdicts, pictures, all trials), curves.png, sensitivity.png and, where two
  numbers vary, heatmap.png.

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

_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def read_config(path: Path) -> tuple[list[str], dict[str, Any]]:
    """A TOML file as words for the command line, and its space where it is a table.

    Raises:
      SweepError: naming the file, and the key that no flag has or whose value no flag
        could take.
    """
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SweepError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SweepError(f"{path} is not TOML: {error}") from None
    defaults = {field.name: field.default for field in dataclasses.fields(SweepOptions)}
    del defaults["config"]
    words: list[str] = []
    space: dict[str, Any] = {}
    # The task comes first, where no flag can take it for a value of its own.
    for key, value in sorted(settings.items(), key=lambda item: item[0] != "task"):
        name = key.replace("-", "_")
        if name not in defaults:
            known = [known.replace("_", "-") for known in defaults]
            raise SweepError(f"{path}: unknown key {key!r}{did_you_mean(key, known)}")
        if name == "space" and isinstance(value, dict):
            space = value
            try:
                parse_space((), space)
            except SweepError as error:
                raise SweepError(f"{path}: {error}") from None
        else:
            words += _words(path, name.replace("_", "-"), value, defaults[name])
    return words, space


def _words(path: Path, key: str, value: Any, default: Any) -> list[str]:
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise SweepError(f"{path}: {key} must be true or false, got {value!r}")
        return [f"--{key}" if value else f"--no-{key}"]
    if isinstance(default, tuple):
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(item, str) for item in values):
            what = "a table or texts" if key == "space" else "texts"
            raise SweepError(f"{path}: {key} must be {what}, got {value!r}")
        return [f"--{key}", *map(str, values)]
    if isinstance(value, (bool, dict, list)):
        raise SweepError(f"{path}: {key} must be one number or text, got {value!r}")
    return [str(value)] if key == "task" else [f"--{key}={value}"]


def parse_space(words: Sequence[str], table: Mapping[str, Any]) -> dict[str, Any]:
    """The dimensions of a TOML table and of words `name=values`, which win."""
    given = dict(table)
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name.strip():
            raise SweepError(
                f"a dimension is written name=values, such as "
                f'learning_rate="log(1e-4, 1)", got {word!r}'
            )
        given[name.strip()] = text
    dimensions = {}
    for name, value in given.items():
        try:
            dimensions[name] = parse_dimension(value)
        except ValueError as error:
            raise SweepError(f"{name}: {error}") from error
    return dimensions


def parse_bytes(text: str) -> int:
    """2GB, 500 MiB or plain bytes, in units of 1024."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?\s*", text.lower())
    if not found:
        raise SweepError(f"memory_limit must be a size such as 2GB, got {text!r}")
    return int(float(found[1]) * _UNITS[found[2]])


def start_distributed() -> None:
    """Join the other processes, as JAX's variables or its cluster detection say.

    Raises:
      SweepError: for a variable that is no number, or where they cannot be joined.
    """

    def number(name: str) -> int | None:
        text = os.environ.get(name)
        if text is None:
            return None
        if not text.isdecimal():
            raise SweepError(f"{name} must be a whole number, got {text!r}")
        return int(text)

    count, mine = number("JAX_NUM_PROCESSES"), number("JAX_PROCESS_ID")
    try:
        join(os.environ.get("JAX_COORDINATOR_ADDRESS"), count, mine)
    except (RuntimeError, ValueError) as error:
        raise SweepError(
            f"cannot join the other processes: {one_line(error)}; set "
            "JAX_COORDINATOR_ADDRESS=host:port, JAX_NUM_PROCESSES and JAX_PROCESS_ID"
        ) from None


def run_sweep(words: Sequence[str]) -> int:
    """Run it, and return the exit status.

    Raises:
      UsageError: where the words or the file cannot be read.
      SweepError: where the sweep cannot start or go on.
    """
    options: SweepOptions = parse(SweepOptions, words, "optjax sweep", _HELP)
    table: dict[str, Any] = {}
    in_file: list[str] = []
    if options.config is not None:
        in_file, table = read_config(options.config)
        try:
            default = parse(SweepOptions, in_file, "optjax sweep", _HELP)
        except UsageError as error:
            # A file has keys, where the command line has flags.
            in_words = str(error).replace("; see optjax sweep --help", "")
            raise UsageError(
                f"{options.config}: {in_words.replace('--', '')}"
            ) from None
        options = parse(SweepOptions, words, "optjax sweep", _HELP, default)
    if options.distributed:
        start_distributed()
    else:
        use_all_cores()
    said = [*words, *_beside(words, in_file)]
    return perform(_experiment(said, options, table))


def _beside(words: Sequence[str], in_file: Sequence[str]) -> list[str]:
    """What a file says of the flags that a next command changes, by verdicts."""
    given = {word.partition("=")[0] for word in words}
    flags = [(word.partition("=")[0], word) for word in in_file]
    return [word for flag, word in flags if flag in CHANGED and flag not in given]


def _experiment(
    words: Sequence[str], options: SweepOptions, table: Mapping[str, Any]
) -> Experiment:
    if options.distributed and options.out is None:
        raise SweepError(
            "--distributed needs --out, a directory that all processes see"
        )
    space = parse_space(options.space, table)
    limit = options.memory_limit
    memory_limit = None if limit is None else parse_bytes(limit)
    said = dataclasses.asdict(options)
    settings = Settings(**{name: said[name] for name in Settings._fields})
    task = load_task(options.task, settings)
    if "learning_rate" not in space and task.learning_rates is not None:
        space["learning_rate"] = per_optimizer(
            **{
                name: rates
                for name, rates in task.learning_rates.items()
                if name in options.optimizers
            }
        )
    if options.engine == "ray":
        _send_by_value(options)
    as_they_are = (
        "draws",
        "method",
        "space_seed",
        "strategy",
        "lanes",
        "checkpoint_seconds",
        "call_seconds",
        "engine",
    )
    return Experiment.of(
        options,
        task,
        command=("sweep", *words),
        optimizers=options.optimizers,
        space=space,
        seeds=options.seeds,
        memory_limit=memory_limit,
        stopping=_stopping(options),
        search=_search(options),
        **{name: said[name] for name in as_they_are},
    )


def _search(options: SweepOptions) -> Optuna | None:
    if options.search is None:
        return None
    if options.search not in SAMPLERS:
        known = ", ".join(SAMPLERS)
        raise SweepError(f"search must be one of {known}, got {options.search!r}")
    return Optuna(options.search, options.search_batch)


def _stopping(options: SweepOptions) -> StoppingRule | None:
    if options.stop_early is None:
        return None if options.median is None else Median(options.median)
    if options.median is not None:
        raise SweepError("--stop-early and --median are two rules; give one of them")
    return SuccessiveHalving(options.stop_early, options.eta)


def _send_by_value(options: SweepOptions) -> None:
    """Let Ray's workers have the user's modules though they lie here only."""
    # The engine says what to install.
    with contextlib.suppress(ModuleNotFoundError):
        from ray import cloudpickle

        for words in (options.task, *options.optimizers):
            module = sys.modules.get(words.partition(":")[0])
            if ":" in words and module is not None:
                cloudpickle.register_pickle_by_value(module)
