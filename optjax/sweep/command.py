"""What `optjax sweep` does, from words to files."""

import importlib
import os
import re
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from optjax.sweep.halving import SuccessiveHalving
from optjax.sweep.problem import SweepError
from optjax.sweep.result import SweepResult
from optjax.sweep.run import run
from optjax.sweep.space import parse_dimension

__all__ = ["load_trial", "read_config", "run_command", "start_distributed"]

_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def load_trial(task: str) -> Any:
    """The trial that a task's name or `module:attribute` stands for.

    A module is looked for in the current directory too. The attribute is what
    `sweep.run` takes: `make_trial`, or a tuple of functions (init, step[, evaluate]).
    """
    from optjax.tasks import TASKS

    if task in TASKS:
        return TASKS[task].load()
    module_name, colon, attribute = task.partition(":")
    if not colon or not attribute:
        raise SweepError(
            f"unknown task {task!r}; known: {', '.join(TASKS)}; for your own give "
            "module:attribute"
        )
    sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise SweepError(
            f"task {task}: cannot import {module_name}: {error}"
        ) from error
    finally:
        sys.path.remove(os.getcwd())
    if not hasattr(module, attribute):
        raise SweepError(f"task {task}: {module_name} has no attribute {attribute!r}")
    return getattr(module, attribute)


def read_config(path: Path, known: Sequence[str]) -> dict[str, Any]:
    """A TOML file's settings, by the names of the command line's flags."""
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SweepError(f"cannot read {path}: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        raise SweepError(f"{path} is not TOML: {error}") from error
    settings = {name.replace("-", "_"): value for name, value in settings.items()}
    for name in settings:
        if name not in known:
            raise SweepError(f"{path}: unknown key {name!r}; known: {', '.join(known)}")
    return settings


def parse_space(space: Sequence[str] | Mapping[str, Any]) -> dict[str, Any]:
    """The dimensions from `name=values` words, or from a TOML table."""
    if isinstance(space, Mapping):
        pairs = list(space.items())
    else:
        pairs = []
        for word in space:
            name, equals, text = word.partition("=")
            if not equals or not name:
                raise SweepError(
                    f"a dimension is written name=values, such as "
                    f'learning_rate="log(1e-4, 1)", got {word!r}'
                )
            pairs.append((name.strip(), text))
    dimensions = {}
    for name, value in pairs:
        try:
            dimensions[name] = parse_dimension(value)
        except ValueError as error:
            raise SweepError(f"{name}: {error}") from error
    return dimensions


def parse_bytes(text: str | int | None) -> int | None:
    """2GB, 500 MiB or plain bytes, in units of 1024."""
    if text is None or isinstance(text, int):
        return text
    found = re.fullmatch(r"\s*([\d.]+)\s*([kmgt]?)i?b?\s*", text.lower())
    if not found:
        raise SweepError(f"memory-limit must be a size such as 2GB, got {text!r}")
    return int(float(found[1]) * _UNITS[found[2]])


def start_distributed() -> None:
    """Join the other processes, as JAX's variables or its cluster detection say."""
    import jax

    def number(name: str) -> int | None:
        return int(os.environ[name]) if name in os.environ else None

    # More than one CPU device a process can hang in collectives.
    jax.config.update("jax_num_cpu_devices", 1)
    jax.distributed.initialize(
        os.environ.get("JAX_COORDINATOR_ADDRESS"),
        number("JAX_NUM_PROCESSES"),
        number("JAX_PROCESS_ID"),
    )


def run_command(
    *,
    task: str,
    space: Sequence[str] | Mapping[str, Any],
    optimizers: Sequence[str],
    stop_early: int | None,
    eta: int,
    memory_limit: str | int | None,
    out: Path,
    say: Callable[[str], None],
    **keywords: Any,
) -> SweepResult:
    """Run the sweep, and print and draw what came out of it.

    Args:
      task: for `load_trial`.
      space: for `parse_space`, without the optimizers.
      optimizers: names in `OPTIMIZERS`.
      stop_early: min_steps of successive halving, or None.
      eta: of successive halving.
      memory_limit: for `parse_bytes`.
      out: directory.
      say: called with the paths written, and with what could not be drawn.
      **keywords: for `sweep.run`.
    """
    dimensions = {"optimizer": list(optimizers), **parse_space(space)}
    result = run(
        load_trial(task),
        dimensions,
        stopping=None if stop_early is None else SuccessiveHalving(stop_early, eta),
        memory_limit=parse_bytes(memory_limit),
        out=out,
        **keywords,
    )
    import jax

    if jax.process_index() == 0:
        _show(result, out, say)
    return result


def _show(result: SweepResult, out: Path, say: Callable[[str], None]) -> None:
    from rich.console import Console

    Console().print(result.summary())
    say(str(out / "results.csv"))
    pictures: dict[str, Callable[[], Any]] = {"curves.png": result.plot_curves}
    varying = [name for name in result.hyper_names if _varies(result, name)]
    if "learning_rate" in varying:
        pictures["sensitivity.png"] = result.plot_sensitivity
    if len(varying) == 2 and len(result.optimizers) == 1:
        x, y = varying
        pictures["heatmap.png"] = lambda: result.plot_heatmap(x, y)
    for name, draw in pictures.items():
        try:
            draw().savefig(out / name)
            say(str(out / name))
        except Exception as error:
            say(f"could not draw {name}: {error}")


def _varies(result: SweepResult, name: str) -> bool:
    values = {record.trial.config.hyper.get(name) for record in result.records}
    return len(values - {None}) > 1
