"""In which words two sweeps differ, each told as plain data."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

#: The functions of a trial whose programs are compared.
FUNCTIONS = {
    "init": "the initialisation",
    "step": "the training step",
    "evaluate": "the evaluation",
}
# What follows from the rest, and tells something only where nothing else does.
_CONSEQUENCES = ("state", "lanes", "metrics", "unmade")
_CODES = {
    "stopping": "the stopping rule",
    "strategy": "the strategy",
    "search": "the search",
}
_MOST_VALUES = 6


def differences(
    saved: Mapping[str, Any], wanted: Mapping[str, Any], made: Any
) -> list[str]:
    """All that differs, the most telling first.

    `made` are the saved programs by the versions of now, or None.
    """
    apart = {"about", "data", "programs", "trials", "generations", "asked"}
    apart |= {*_CONSEQUENCES}
    was, is_ = _columns(saved["trials"]), _columns(wanted["trials"])
    # Another version may read the same data in another order.
    as_read = list if made else sorted
    (now,) = wanted["programs"]
    telling = [
        *_changed(saved["about"], wanted["about"]),
        *(["other data"] if as_read(saved["data"]) != as_read(wanted["data"]) else []),
        *(_changed_programs(made, now) if made else []),
        *_changed(was, is_),
        *_changed(saved, wanted, without=apart),
        *(_changed_codes(saved, wanted, made, now) if made else []),
    ]
    if not telling and saved["trials"] != wanted["trials"]:
        telling = ["the trials are others, or in another order"]
    return telling or list(_changed(saved, wanted, only=_CONSEQUENCES))


def _changed_programs(was: Mapping[str, Any], is_: Mapping[str, Any]) -> Iterator[str]:
    # Those of the same optimizer and hyper-parameters; of others the trials tell.
    pairs = [
        (old, new)
        for old, new in zip(was["groups"], is_["groups"], strict=False)
        if old["of"] == new["of"]
    ]
    for function, words in FUNCTIONS.items():
        other = [new["of"][0] for old, new in pairs if old[function] != new[function]]
        if other:
            whose = "" if len(other) == len(pairs) else f" of {show(_once(other))}"
            yield f"{words}{whose} differs"


def _changed_codes(
    was: Mapping[str, Any], is_: Mapping[str, Any], made: Any, now: Any
) -> Iterator[str]:
    # Where the object is another one, that is said.
    for name, words in _CODES.items():
        codes = [of["codes"].get(name) for of in (made, now)]
        if was[name] == is_[name] and codes[0] != codes[1]:
            yield f"{words} {show(is_[name])} differs"


def _columns(trials: Sequence[Any]) -> dict[str, list[Any]]:
    """The values of the optimizers, seeds and hyper-parameters of the trials."""
    columns: dict[str, list[Any]] = {"optimizers": [], "seeds": []}
    for _, optimizer, hyper, static, seed in trials:
        row = {"optimizers": optimizer, "seeds": seed, **hyper, **static}
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    return {name: _once(values) for name, values in columns.items()}


def _once(values: Sequence[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _changed(
    was: Mapping[str, Any],
    is_: Mapping[str, Any],
    *,
    only: Collection[str] | None = None,
    without: Collection[str] = (),
) -> Iterator[str]:
    for name in dict.fromkeys([*is_, *was] if only is None else only):
        if name not in without and was.get(name) != is_.get(name):
            yield _was_and_is(name, was.get(name), is_.get(name))


def _was_and_is(name: str, was: Any, is_: Any) -> str:
    before, after = show(was), show(is_)
    name = name.replace("_", " ")
    if before == after:
        return f"other {name}"
    are = ("were", "are") if name.endswith("s") else ("was", "is")
    return f"{name} {are[0]} {before} and {are[1]} {after}"


def changed_versions(was: Mapping[str, str], is_: Mapping[str, str]) -> str:
    """The versions of libraries that differ."""
    return ", ".join(
        f"{name} {was.get(name, 'none')} and now {is_.get(name, 'none')}"
        for name in dict.fromkeys([*is_, *was])
        if was.get(name) != is_.get(name)
    )


def show(value: Any) -> str:
    """A value of the data in words."""
    if value is None or value == [] or value == {}:
        return "none"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        more = f", … ({len(value)} in all)" if len(value) > _MOST_VALUES else ""
        return ", ".join(map(show, value[:_MOST_VALUES])) + more
    if isinstance(value, dict):
        named = dict(value)
        kind = named.pop("is", "")
        inside = ", ".join(f"{name}={show(value)}" for name, value in named.items())
        return f"{kind}({inside})" if kind else inside
    return str(value)
