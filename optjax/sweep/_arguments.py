"""What each argument of `run` is, for type checkers and for `checked`."""

import operator
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args

import jax
import numpy as np

from optjax._arguments.kind import Kind
from optjax._arguments.numbers import FunctionOr, Number, Whole
from optjax._arguments.objects import FLAG, Function, Instance, Methods, OneOf
from optjax.sweep._contract import as_make_trial
from optjax.sweep._errors import SweepError
from optjax.sweep._records import Mode, Record, Status, TrialSpec
from optjax.sweep._stopping import StoppingRule
from optjax.sweep._store.directory import as_directory
from optjax.sweep._strategies import Strategy, StrategyName
from optjax.sweep._trial import MakeTrial


class _Functions(Kind):
    """A list of functions of one argument."""

    _each = Function("a function of a Record", 1)

    def accepts(self, value: Any) -> bool:
        return isinstance(value, (list, tuple)) and all(map(self._each.accepts, value))


class _Seeds(Kind):
    """A count of seeds, or the seeds."""

    def accepts(self, value: Any) -> bool:
        is_list = isinstance(value, (list, tuple, range, np.ndarray, jax.Array))
        if not is_list or getattr(value, "ndim", 1) == 0:
            return _is_seed(value) and operator.index(value) > 0
        if isinstance(value, range):  # Of any length: its ends say it all.
            return len(value) > 0 and _is_seed(value[0]) and _is_seed(value[-1])
        seeds = list(value)
        return (
            bool(seeds)
            and all(map(_is_seed, seeds))
            and len(set(map(int, seeds))) == len(seeds)
        )


def _is_seed(value: Any) -> bool:
    return not Whole(0).fault(value)


class _Taken(Kind):
    """What a function takes that raises a SweepError, `NAME must …`, for the rest."""

    def __init__(self, words: str, name: str, take: Callable[[Any], Any]) -> None:
        super().__init__(words)
        self.name, self.take = name, take

    def fault(self, value: Any) -> str:
        try:
            self.take(value)
        except SweepError as error:
            return str(error).removeprefix(f"{self.name} ")
        return ""


class _NameOr(Kind):
    """One of a few names, or what is of another kind."""

    def __init__(self, names: Sequence[str], other: Kind) -> None:
        self.named, self.other = OneOf(names), other
        super().__init__(self.named.words)

    def fault(self, value: Any) -> str:
        return (self.named if isinstance(value, str) else self.other).fault(value)

    def taken(self, value: Any) -> Any:
        return value if isinstance(value, str) else self.other.taken(value)


class _AboutKind(Kind):
    def accepts(self, value: Any) -> bool:
        return isinstance(value, Mapping) and all(
            isinstance(text, str) for pair in value.items() for text in pair
        )


Trainable: TypeAlias = Annotated[
    MakeTrial | tuple[Callable[..., Any], ...],
    _Taken("a trial", "trial", as_make_trial),
]
RankedBy: TypeAlias = Annotated[Mode, OneOf(get_args(Mode))]
Seeds: TypeAlias = Annotated[
    int | Sequence[int],
    _Seeds("a number of seeds >= 1, or distinct integers from 0 to 2**31 - 1"),
]
Out: TypeAlias = Annotated[
    str | Path, _Taken("the path of a directory", "out", as_directory)
]
Searches: TypeAlias = Annotated[Any, Methods("begin")]
Keep: TypeAlias = Annotated[
    int | Literal["best", "all"], _NameOr(("best", "all"), Whole(1))
]
Rule: TypeAlias = Annotated[StoppingRule, Methods("decides_at", "rung")]
RunAs: TypeAlias = Annotated[
    Literal["auto"] | StrategyName | Strategy,
    _NameOr(("auto", *get_args(StrategyName)), Function("a function of a lane", 1)),
]
Bytes: TypeAlias = Annotated[int, Whole(1, 2**63 - 1)]
Seconds: TypeAlias = Annotated[float, Number("a number >= 0", lambda x: x >= 0)]
Progress: TypeAlias = Annotated[
    bool | Callable[[Status], None],
    FunctionOr("a function of a Status,", FLAG, "It is called with a Status"),
]
OnGroup: TypeAlias = Annotated[
    Callable[[str, Sequence[Record]], None], Function("a function (name, records)", 2)
]
Callbacks: TypeAlias = Annotated[
    Sequence[Callable[[Record], None]],
    _Functions("a sequence of functions of a Record", "It is called as trials end"),
]
EngineName = Literal["local", "ray"]
Engine: TypeAlias = Annotated[EngineName, OneOf(get_args(EngineName))]
CompilerOptions: TypeAlias = Annotated[
    Mapping[str, str | bool], Instance(Mapping, "a mapping of XLA's options")
]
About: TypeAlias = Annotated[
    Mapping[str, str], _AboutKind("a mapping of names to texts", "Describe it in words")
]
Spec: TypeAlias = Annotated[TrialSpec, Instance(TrialSpec, "a TrialSpec")]
