"""What `optjax sweep` does, from words to files."""

import contextlib
import functools
import importlib
import importlib.util
import os
import re
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from optjax._cli.options import SweepOptions
from optjax.sweep._blame import in_own_code
from optjax.sweep._engine.peers import join, leave
from optjax.sweep._problem import SweepError, as_make_trial
from optjax.sweep._records import DIVERGED
from optjax.sweep._result import SweepResult
from optjax.sweep._run import run
from optjax.sweep._space.distributions import per_optimizer
from optjax.sweep._space.text import parse_dimension
from optjax.sweep._stopping import SuccessiveHalving
from optjax.sweep._store.directory import as_directory, in_a_series
from optjax.sweep._store.files import write_atomically
from optjax.sweep._store.store import MARKER
from optjax.sweep._view.progress import FINISHED_BEFORE, live_display
from optjax.tasks import TASKS, Loaded, Settings, Task

__all__ = [
    "load_task",
    "parse_bytes",
    "parse_space",
    "read_config",
    "run_command",
    "start_distributed",
]

_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
# What is needed at the end of a sweep, or in the middle, and better missed before.
_NEEDED = ("matplotlib", "rich")


def load_task(task: str, settings: Settings) -> Loaded:
    """The task that a name or `module:attribute` stands for.

    A module is looked for in the current directory too. The attribute is a `Task`,
    or what `sweep.run` takes: `make_trial`, or a tuple of functions
    (init, step[, evaluate]).

    Raises:
      SweepError: for an unknown task, a module that cannot be imported, an attribute
        that is not there or is something else, and data that cannot be read.
    """
    if task in TASKS:
        try:
            return TASKS[task].load(settings)
        except ValueError as error:
            raise SweepError(f"task {task}: {error}") from None
    module_name, colon, attribute = task.partition(":")
    if not module_name or not colon or not attribute:
        raise SweepError(
            f"unknown task {task!r}; known: {', '.join(TASKS)}; for your own give "
            "module:attribute"
        )
    if os.getcwd() not in sys.path:
        # It stays there, for what the module imports later.
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise SweepError(
            f"task {task}: cannot import {module_name}: {_in_one_line(error)}"
            f"{in_own_code(error)}"
        ) from None
    if not hasattr(module, attribute):
        raise SweepError(f"task {task}: {module_name} has no attribute {attribute!r}")
    found = getattr(module, attribute)
    try:
        if isinstance(found, Task):
            return found.load(settings)
        make_trial = as_make_trial(found)
    except ValueError as error:
        raise SweepError(f"task {task}: {error}") from None
    for name in settings.given:
        raise SweepError(
            f"task {task}: it has its own data and model, and takes no {name}="
        )
    return Loaded(make_trial, task)


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
    defaults = {field.name: field.default for field in fields(SweepOptions)}
    del defaults["config"]
    words: list[str] = []
    space: dict[str, Any] = {}
    # The task comes first, where no flag can take it for a value of its own.
    for key, value in sorted(settings.items(), key=lambda item: item[0] != "task"):
        name = key.replace("-", "_")
        if name not in defaults:
            known = ", ".join(known.replace("_", "-") for known in defaults)
            raise SweepError(f"{path}: unknown key {key!r}; known: {known}")
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
            f"cannot join the other processes: {_in_one_line(error)}; set "
            "JAX_COORDINATOR_ADDRESS=host:port, JAX_NUM_PROCESSES and JAX_PROCESS_ID"
        ) from None


def run_command(
    options: SweepOptions,
    table: Mapping[str, Any],
    say: Callable[[str], None],
    complain: Callable[[str], None],
) -> bool:
    """Run the sweep, and print and draw what came out of it, in the first process.

    Args:
      options: the command line's.
      table: the space of a TOML file.
      say: called with the paths written.
      complain: called with a line on what could not be drawn.

    Returns:
      Whether every picture is there, and some trial did not diverge.
    """
    for package in _NEEDED:
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(f"no module {package}", name=package)
    if options.distributed and options.out is None:
        raise SweepError(
            "--distributed needs --out, a directory that all processes see"
        )
    space = {
        "optimizer": list(options.optimizers),
        **parse_space(options.space, table),
    }
    limit = options.memory_limit
    memory_limit = None if limit is None else parse_bytes(limit)
    halving = None
    if options.stop_early is not None:
        halving = SuccessiveHalving(options.stop_early, options.eta)
    if options.seeds < 1:
        raise SweepError(f"seeds must be a whole number >= 1, got {options.seeds}")
    if not options.optimizers:
        raise SweepError("optimizers= needs a name, such as adam, got none")
    task = load_task(
        options.task,
        Settings(
            options.data,
            options.epochs,
            options.examples,
            options.test_examples,
            options.batch_size,
            options.dtype,
        ),
    )
    if "learning_rate" not in space and task.learning_rates is not None:
        space["learning_rate"] = per_optimizer(
            **{
                name: rates
                for name, rates in task.learning_rates.items()
                if name in options.optimizers
            }
        )
    if options.engine == "ray":
        _send_by_value(options.task)
    import jax

    is_first = jax.process_index() == 0

    def run_in(out: Path) -> tuple[Path, SweepResult]:
        was_there = (out / MARKER).exists()
        with live_display(options.metric, task.unit, task.units) as show:
            result = run(
                task.make_trial,
                space,
                steps=_given(options.steps, task.steps),
                evaluate_every=_given(options.evaluate_every, task.evaluate_every),
                metric=options.metric,
                mode=options.mode,
                seeds=options.seeds,
                out=out,
                draws=options.draws,
                method=options.method,
                space_seed=options.space_seed,
                stopping=halving,
                strategy=options.strategy,
                lanes=options.lanes,
                memory_limit=memory_limit,
                checkpoint_seconds=options.checkpoint_seconds,
                evaluations_per_call=_given(
                    options.evaluations_per_call, task.evaluations_per_call
                ),
                progress=show if is_first else False,
                engine=options.engine,
                about=task.words(options.task),
                other_versions=options.other_versions,
            )
        if was_there and not result.finished_before:
            say(f"went on in {out}")
        return out, result

    if options.out is not None:
        out, result = run_in(as_directory(options.out))
    else:
        series = Path("runs", "sweep-" + re.sub(r"\W+", "-", options.task))
        out, result = in_a_series(series, MARKER, run_in, complain)
    # The others need not wait for the pictures.
    leave()
    return not is_first or _show(result, out, say, complain)


def _given(option: int | None, otherwise: Any) -> Any:
    return otherwise if option is None else option


def _send_by_value(task: str) -> None:
    """Let Ray's workers have the task's module though it lies on this machine only."""
    module = sys.modules.get(task.partition(":")[0])
    # The engine says what to install.
    with contextlib.suppress(ModuleNotFoundError):
        from ray import cloudpickle

        if module is not None:
            cloudpickle.register_pickle_by_value(module)


def _show(
    result: SweepResult,
    out: Path,
    say: Callable[[str], None],
    complain: Callable[[str], None],
) -> bool:
    from rich.console import Console

    if result.finished_before:
        say(FINISHED_BEFORE)
    Console().print(result.summary())
    say(str(out / "results.csv"))
    all_drawn = True
    for name, draw in _pictures(result).items():
        try:
            if not (result.finished_before and (out / name).exists()):
                write_atomically(out / name, draw().savefig)
            say(str(out / name))
        except Exception as error:
            complain(f"could not draw {out / name}: {_in_one_line(error)}")
            all_drawn = False
    all_diverged = all(record.status == DIVERGED for record in result.records)
    if all_diverged:
        complain(f"all {len(result.records)} trials diverged; try other values")
    return all_drawn and not all_diverged


def _pictures(result: SweepResult) -> dict[str, Callable[[], Any]]:
    pictures: dict[str, Callable[[], Any]] = {
        "ranking.png": result.plot_ranking,
        "curves.png": result.plot_curves,
    }
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
    values = {record.trial.config.hyper.get(name) for record in result.records}
    return len(values - {None}) > 1


def _in_one_line(error: Exception) -> str:
    words = " ".join(str(error).split()) or "no message"
    is_ours = isinstance(error, SweepError)
    return words if is_ours else f"{type(error).__name__}: {words}"
