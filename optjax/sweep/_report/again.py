"""What to run next: the sweep's own command with other values in it, or the code."""

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from optjax.sweep._ranking import numeric
from optjax.sweep._records import Config
from optjax.sweep._space.distributions import LogUniform
from optjax.sweep._space.text import RANGES, parse_dimension
from optjax.sweep._store.files import as_text

_SWEEP = ("optjax", "sweep")

#: The flags of which it depends on what stands there what is next.
CHANGED = ("--out", "--draws", "--search", "--epochs", "--stop-early", "--median")


class Range(NamedTuple):
    """What is drawn from, evenly in the values or in their logarithms."""

    low: float
    high: float
    is_log: bool

    def __str__(self) -> str:
        """As on a command line."""
        return f"{'log' if self.is_log else 'uniform'}({_listed(self[:2])})"


Space = Mapping[str, Range | Sequence[float]]


def again(
    command: Sequence[str],
    space: Space | None = None,
    *,
    of: Config,
    seeds: int | None = None,
    twice_the_steps: int | None = None,
    spared: int | None = None,
    grows: bool = False,
) -> str:
    """The command with other values, to be pasted into a shell.

    Of a sweep from Python the arguments of `run`, or the entries of its space.

    Args:
      command: its words, or none.
      space: values by hyper-parameter.
      of: a configuration that these values are for.
      seeds: how many.
      twice_the_steps: how many these are.
      spared: the updates that the stopping rule lets every trial have.
      grows: whether no trial is left out, so that the directory may be the same.
    """
    if not command:
        return _code(space or {}, seeds, twice_the_steps, spared)
    flags = _Flags(command)
    is_drawn = "--search" in flags or ("--draws" in flags and bool(space))
    if seeds is not None:
        flags.put("--seeds", seeds)
    if twice_the_steps is not None:
        epochs = flags.first("--epochs")
        if epochs is None:
            flags.put("--steps", twice_the_steps)
        else:
            flags.put("--epochs", 2 * int(epochs))
    if spared is not None:
        flags.put("--stop-early" if "--median" not in flags else "--median", spared)
    if space:
        flags.search(space, of)
    out = flags.first("--out")
    if out is not None and (is_drawn or not grows):
        flags.put("--out", _beside(out))
    return str(flags)


class _Flags:
    """A command of optjax, its words by the flag that they follow."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = tuple(command[:2])
        # What stands before the first has none.
        self._words: dict[str, list[str]] = {"": []}
        flag = ""
        for word in command[2:]:
            values = [word]
            if word.startswith("--"):
                name, equals, value = word.partition("=")
                flag, values = name.replace("_", "-"), [value] * bool(equals)
            self._words.setdefault(flag, []).extend(values)

    def __contains__(self, flag: str) -> bool:
        return flag in self._words

    def __str__(self) -> str:
        words = [*self._command]
        for flag, values in self._words.items():
            words += [*[flag] * bool(flag), *map(_quoted, values)]
        return " ".join(words)

    def first(self, flag: str) -> str | None:
        return next(iter(self._words.get(flag, ())), None)

    def put(self, flag: str, value: Any) -> None:
        # What comes after a flag's one value is the task.
        self._words[flag] = [str(value), *self._words.get(flag, ())[1:]]

    def search(self, space: Space, of: Config) -> None:
        rates = space.get("learning_rate")
        if self._command != _SWEEP:
            if len(space) == 1 and rates is not None and not isinstance(rates, Range):
                self._words["--learning-rates"] = [*map(as_text, rates)]
                return
            space = {**self._as_sweep(of), **space}
        words = self._words.pop("--space", [])
        asked = {
            name.strip(): text
            for name, _, text in (word.partition("=") for word in words)
        }
        old = [word for word in words if word.partition("=")[0].strip() not in space]
        new = [
            f"{name}={_like(asked.get(name, ''), values)}"
            for name, values in space.items()
        ]
        self._words["--space"] = [*old, *new]
        # What is no longer drawn runs in full.
        if any(map(_is_range, words)) and not any(map(_is_range, (*old, *new))):
            self._words.pop("--draws", None)

    def _as_sweep(self, of: Config) -> dict[str, Range | Sequence[float]]:
        """Of a race, which varies the learning rate alone, one row's sweep."""
        self._command = _SWEEP
        task = self._words.pop("--task", ["digits"])
        for flag in ("--learning-rates", "--optimizers"):
            self._words.pop(flag, None)
        self._words = {**self._words, "": task, "--optimizers": [of.optimizer]}
        numbers = {name: numeric(of, name) for name in of.hyper}
        return {name: [at] for name, at in numbers.items() if at is not None}


def _code(
    space: Space, seeds: int | None, steps: int | None, spared: int | None
) -> str:
    given = {"seeds": seeds, "steps": steps}
    lines = [f"{name}={value}" for name, value in given.items() if value is not None]
    if spared is not None:
        lines.append(f"stopping=optjax.sweep.SuccessiveHalving({spared})")
    for name, values in space.items():
        if isinstance(values, Range):
            kind = "log_uniform" if values.is_log else "uniform"
            lines.append(f'"{name}": optjax.sweep.{kind}({_listed(values[:2])})')
        else:
            lines.append(f'"{name}": [{_listed(values)}]')
    return ",\n".join(lines)


def _beside(out: str) -> str:
    """The path of a new directory: runs/mine-2, runs/mine-3, …"""
    name, number = re.fullmatch(r"(.*?)(?:-([1-9]\d*))?/*", out, re.DOTALL).groups()  # type: ignore[union-attr]
    return f"{name}-{int(number or 1) + 1}"


def _like(asked: str, values: Range | Sequence[float]) -> str:
    """Values in words; static where those were that were asked for."""
    if isinstance(values, Range):
        return str(values)
    is_static = asked.strip().startswith("static")
    return f"static({_listed(values)})" if is_static else _listed(values)


def asked_range(command: Sequence[str], name: str) -> Range | None:
    """The range of a hyper-parameter in a command's words, where it has one."""
    for word in command:
        of, _, text = word.partition("=")
        if of.strip() == name and _is_range(word):
            dimension = parse_dimension(text)
            is_log = isinstance(dimension, LogUniform)
            return Range(dimension.low, dimension.high, is_log)
    return None


def _is_range(word: str) -> bool:
    return re.match(rf"[^=]*=\s*({'|'.join(RANGES)})\s*\(", word) is not None


def _listed(values: Sequence[float]) -> str:
    return ", ".join(map(as_text, values))


def _quoted(word: str) -> str:
    name, equals, value = word.partition("=")
    if equals and name.isidentifier():
        return f"{name}={shlex.quote(value)}"
    return shlex.quote(word)
