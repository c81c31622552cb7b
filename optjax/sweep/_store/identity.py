"""What a sweep is, as plain data, and whether another is the same.

A directory belongs to one sweep: to what is computed (the programs of init, step and
evaluate, and the data that they read), to the trials, and to all that decides in which
order and to which digits they are measured. Where it lies and who runs it is no part
of it.
"""

import contextlib
import dataclasses
import functools
import importlib.metadata
import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from optjax.sweep._engine.groups import TrialGroup
from optjax.sweep._engine.plan import Plan
from optjax.sweep._errors import RefusedError
from optjax.sweep._records import PLAIN, Record, TrialSpec
from optjax.sweep._store.differences import (
    FUNCTIONS,
    changed_versions,
    differences,
    show,
)
from optjax.sweep._store.fingerprint import Fingerprint
from optjax.sweep._strategies import Strategy, StrategyName

# What turns a program into digits.
_LIBRARIES = ("jax", "jaxlib", "flax", "optax")
# What has more of it where trials have been added.
_GROWING = ("trials", "unmade", "generations", "data", "state", "lanes")
_NOT_LONGER = (
    "a longer run goes on where nothing else differs, and a schedule over the steps "
    "makes another training step"
)
_ELSEWHERE = "choose another out= (--out), or delete it"


class Asked(NamedTuple):
    """How somebody asked for a sweep, which is no part of what it is.

    Attributes:
      title: what the metric is called, or "".
      command: the words of the command line, or none.
    """

    title: str = ""
    command: tuple[str, ...] = ()

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> "Asked":
        """What a directory says."""
        said = saved.get("asked", {})
        return cls(said.get("title", ""), tuple(said.get("command", ())))


def identity(
    groups: Sequence[TrialGroup],
    plan: Plan,
    *,
    fingerprint: Fingerprint,
    about: Mapping[str, Any],
    devices: str,
    strategy: StrategyName | Strategy,
    lanes: Sequence[int],
    generations: Sequence[int],
    unmade: Sequence[Record] = (),
    search: Any = None,
    keep: int | str | None = None,
) -> dict[str, Any]:
    """A sweep as plain data; equal data are the same sweep.

    Args:
      groups: with their digests.
      plan: what the groups have in common.
      fingerprint: that made these; it knows what the programs read.
      about: the caller's own words.
      devices: that the lanes share.
      strategy: how a device runs its lanes.
      lanes: how many, by group or in common.
      generations: how many trials there were at first, and how many came each time.
      unmade: the trials of which there is no program.
      search: what proposes trials, or None.
      keep: of how many trials the state is kept, or None.
    """
    programs = [
        {
            "of": [group.name, list(group.hyper), _static(group.specs[0])],
            **{name: group.digests[name] for name in FUNCTIONS},
        }
        for group in groups
    ]
    specs = [spec for group in groups for spec in group.specs]
    specs += [record.trial for record in unmade]
    own = {"stopping": plan.stopping, "strategy": strategy, "search": search}
    codes = {
        name: fingerprint.value(value)
        for name, value in own.items()
        if not isinstance(value, PLAIN)
    }
    return {
        "about": dict(about),
        "data": fingerprint.data,
        "programs": [{"versions": _versions(), "groups": programs, "codes": codes}],
        "trials": [[spec.number, *_trial(spec)] for spec in sorted(specs)],
        "unmade": [[record.trial.number, record.message] for record in unmade],
        "generations": list(generations),
        "search": _described(search),
        "keep": 1 if keep == "best" else keep,
        "steps": plan.steps,
        "evaluate_every": plan.evaluate_every,
        "metric": plan.metric,
        "mode": plan.mode,
        "allow_nan": list(plan.allow_nan),
        "stopping": _described(plan.stopping),
        "order_seed": None if plan.stopping is None else plan.order_seed,
        "compiler_options": plan.compiler_options and dict(plan.compiler_options),
        "devices": devices,
        "strategy": _described(strategy),
        "state": [group.digests["state"] for group in groups],
        "lanes": list(lanes),
    }


def in_words(value: Any) -> str:
    """A rule or a strategy as messages name it, also as a directory says it."""
    return show(value if isinstance(value, Mapping) else _described(value))


def check_same(
    saved: Any,
    wanted: Mapping[str, Any],
    directory: Path,
    *,
    other_versions: bool = False,
) -> dict[str, Any]:
    """Refuse to go on with another sweep.

    Args:
      saved: what the directory says of its sweep.
      wanted: what this call's sweep is.
      directory: named in the refusal.
      other_versions: whether it may have been begun with other versions of the
        libraries. Their programs are not compared, since one version traces the same
        function to another program than the next; all else is.

    Returns:
      What the directory is to say from now on.

    Raises:
      RefusedError: naming all that differs, and what to do.
    """
    # Through JSON, so that tuples and lists are alike.
    wanted = json.loads(json.dumps(wanted))
    if not isinstance(saved, dict) or saved.get("format") != wanted.get("format"):
        raise RefusedError(
            f"{directory} holds a sweep of another version of optjax, which wrote it "
            f"in another way; {_ELSEWHERE}"
        )
    (now,) = wanted["programs"]
    known = [made for made in saved["programs"] if made["versions"] == now["versions"]]
    before = _without_what_is_new(saved, wanted)
    made = known[0] if known else None
    is_longer = saved["steps"] < wanted["steps"]
    why_not = _why_not_longer(saved) if is_longer else ""
    same_steps = {**before, "steps": saved["steps"]} if is_longer else before
    found = differences(saved, same_steps, made)
    news = changed_versions(saved["programs"][-1]["versions"], now["versions"])
    if found or why_not:
        if is_longer:
            found = [*differences(saved, before, made), why_not or _NOT_LONGER]
        words = "; ".join([*found, *([] if known else [news])])
        raise RefusedError(f"{directory} holds another sweep: {words}; {_ELSEWHERE}")
    newer = ("asked", "steps", *_GROWING)
    grown = {**saved, **{name: wanted[name] for name in newer}}
    others = [made for made in saved["programs"] if made not in known]
    if known:
        return {**grown, "programs": [*others, now]}
    if not other_versions:
        raise RefusedError(
            f"{directory} holds this sweep, begun with other versions: {news}. To go "
            "on with these, give other_versions=True (--other-versions), or "
            f"{_ELSEWHERE}"
        )
    return {**grown, "programs": [*others, now]}


def _why_not_longer(saved: Mapping[str, Any]) -> str:
    """Why trials that have ended may not be those that a longer run would have had."""
    for name, does in (("stopping", "stops"), ("search", "proposes")):
        if saved[name] is not None:
            return (
                f"what {in_words(saved[name])} {does} may be other trials in a longer "
                "run, which begins again"
            )
    return ""


def numbered(specs: Sequence[TrialSpec], saved: Any) -> list[list[TrialSpec]]:
    """The trials by when they came, with the numbers that they have in a directory.

    Args:
      specs: all that are wanted.
      saved: what the directory says of its sweep, or None.

    Returns:
      The trials of each generation that is there and, where all of these are wanted,
      those that are new. Where not, all in one: they are of another sweep.
    """
    if not isinstance(saved, dict) or "generations" not in saved:
        return [list(specs)]
    wanted: dict[str, list[TrialSpec]] = {}
    for spec in reversed(specs):
        wanted.setdefault(_words(_trial(spec)), []).append(spec)
    trials = iter(sorted(saved["trials"]))
    found: list[list[TrialSpec]] = []
    for count in saved["generations"]:
        found.append([])
        for number, *trial in itertools.islice(trials, count):
            same = wanted.get(_words(trial))
            if not same:
                return [list(specs)]
            found[-1].append(same.pop()._replace(number=number))
    left = sorted(itertools.chain(*wanted.values()))
    first = len(saved["trials"])
    new = [spec._replace(number=first + i) for i, spec in enumerate(left)]
    return [*found, new] if new else found


def _trial(spec: TrialSpec) -> list[Any]:
    config = spec.config
    return [config.optimizer, config.hyper, _static(spec), spec.seed]


def _words(trial: Any) -> str:
    return json.dumps(trial, sort_keys=True)


def _without_what_is_new(
    saved: Mapping[str, Any], wanted: Mapping[str, Any]
) -> Mapping[str, Any]:
    """The part of a sweep that was there, if all that was there is in it."""
    there = len(saved["generations"])
    if wanted["generations"][:there] != saved["generations"]:
        return wanted
    (now,) = wanted["programs"]
    groups = now["groups"][: len(saved["programs"][-1]["groups"])]
    return {
        **wanted,
        **{name: wanted[name][: len(saved[name])] for name in _GROWING},
        "programs": [{**now, "groups": groups}],
    }


def _versions() -> dict[str, str]:
    from optjax import __version__

    # A function that the host runs is told by its bytecode.
    versions = {"optjax": __version__, "python": "{}.{}".format(*sys.version_info[:2])}
    installed = {library: _version(library) for library in _LIBRARIES}
    return versions | {name: found for name, found in installed.items() if found}


# All that pip wrote about a library is parsed for it.
@functools.cache
def _version(library: str) -> str | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(library)
    return None


def _static(spec: TrialSpec) -> Mapping[str, Any]:
    static = spec.config.static
    return static and {name: _plain(value) for name, value in static.items()}


def _plain(value: Any) -> Any:
    """A value as JSON: what is not plain has an address in its repr."""
    if isinstance(value, PLAIN):
        return value
    return getattr(value, "__qualname__", type(value).__qualname__)


def _described(value: Any) -> Any:
    """A rule or a strategy as JSON: its name, and its fields where it has some."""
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
    else:
        names = [*getattr(value, "_fields", ())]
    if not names:
        return _plain(value)
    fields = {name: _plain(getattr(value, name)) for name in names}
    return {"is": _plain(value), **fields}
