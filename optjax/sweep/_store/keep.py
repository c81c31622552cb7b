"""The final states of trials, kept on disk by Orbax while a sweep runs.

    sweep/kept/900/trial-000012/     one of them, as a dictionary of its leaves by path

The folder above is named by the steps of the sweep: one that goes on to more has those
of the shorter run too, until all have ended. One that is among the best of all that
have ended is saved before the sweep says that it has, and removed after the sweep has
said that better ones have. Each has a digest of its leaves.
"""

import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from optjax.sweep._arrays import as_bytes, as_leaf, as_plain
from optjax.sweep._errors import DamagedError, NotWrittenError, first_line, library
from optjax.sweep._ranking import Ranking
from optjax.sweep._records import Config, Record
from optjax.sweep._store.sealed import digest, read_sealed, write_sealed
from optjax.sweep._trial import State, Trial, init_shapes, own_state, whole_state

_PREFIX = "trial-"
_SEAL = "digest.json"


class Keeper:
    """Keeps the states of so many trials, or of all."""

    def __init__(
        self, own: Path, steps: int, most: int | None, ranking: Ranking
    ) -> None:
        """Keep them below a sweep's own directory.

        Raises:
          SweepError: where Orbax is not installed.
        """
        _orbax()
        self._own, self._steps = own, steps
        self._most, self._ranking = most, ranking
        self._best: list[tuple[float, int]] = []

    def consider(
        self,
        ended: Iterable[Record],
        states: Mapping[int, Callable[[], State]] | None = None,
    ) -> None:
        """Take in trials that have ended.

        Args:
          ended: which.
          states: by the trials' numbers, those of which there are any; None where
            they were taken in before the process died.

        Raises:
          NotWrittenError: where there is no room for them.
        """
        records = {r.trial.number: r for r in ended if r.has_score}
        kept = {*records}
        if self._most is not None:
            ranked = [
                (-self._ranking.sign * self._ranking.score(record), number)
                for number, record in records.items()
            ]
            self._best = sorted([*self._best, *ranked])[: self._most]
            kept &= {number for _, number in self._best}
        for number, state in (states or {}).items():
            if number in kept:
                self._save(number, leaves_of(state()))

    def prune(self) -> None:
        """Remove those that are not among the best any more."""
        if self._most is None:
            return
        best = {number for _, number in self._best}
        for number, path in kept_states(self._own, self._steps).items():
            if number not in best:
                shutil.rmtree(path, ignore_errors=True)

    def prune_shorter(self) -> None:
        """Remove those of shorter runs, from which all trials have gone on."""
        for path in (self._own / "kept").glob("*"):
            if path.name != str(self._steps):
                shutil.rmtree(path, ignore_errors=True)

    def _save(self, number: int, leaves: Mapping[str, np.ndarray]) -> None:
        path = kept_state(self._own, self._steps, number)
        try:
            with _orbax().PyTreeCheckpointer() as checkpointer:
                checkpointer.save(path.absolute(), dict(leaves), force=True)
            write_sealed(path / _SEAL, {"leaves": _digest(leaves)})
        except (OSError, ValueError) as error:
            raise NotWrittenError(
                f"cannot keep the state of trial {number} in {path}: "
                f"{first_line(error)}"
            ) from error


def kept_state(own: Path, steps: int, number: int) -> Path:
    """The folder of the state that a run of so many steps keeps of a trial."""
    return _folder(own, steps) / f"{_PREFIX}{number:06d}"


def kept_states(own: Path, steps: int) -> dict[int, Path]:
    """The folders of the states that a run of so many steps keeps, by trial."""
    return {
        int(path.name.removeprefix(_PREFIX)): path
        for path in sorted(_folder(own, steps).glob(f"{_PREFIX}*"))
        if path.name.removeprefix(_PREFIX).isdecimal()
    }


def read_trial(path: Path, trial: Trial, config: Config) -> State:
    """The state in a folder, as it is in a lane.

    Raises:
      DamagedError: where it is not that of such a trial.
    """
    hyper = {name: jnp.float32(value) for name, value in config.hyper.items()}
    shape = jax.eval_shape(trial.init, *init_shapes(hyper))
    return whole_state(shape, read_state(path, own_state(shape)), hyper)


def read_state(path: Path, like: State) -> State:
    """The state in a folder, as a tree such as `like`.

    Raises:
      DamagedError: where it has other leaves, or is not as it was written.
    """
    try:
        with _orbax().PyTreeCheckpointer() as checkpointer:
            saved = checkpointer.restore(path.absolute())
    except (OSError, ValueError, KeyError) as error:
        raise DamagedError(path, first_line(error)) from None
    if read_sealed(path / _SEAL) != {"leaves": _digest(saved)}:
        raise DamagedError(path, "it was changed after it was written")

    def leaf(at: Any, want: Any) -> Any:
        if not want.size:
            return jnp.zeros(want.shape, want.dtype)
        name = jax.tree_util.keystr(at)
        if name not in saved:
            raise DamagedError(path, f"it has no {name}")
        array = as_leaf(jnp.asarray(saved[name]), want)
        if array.shape != want.shape:
            raise DamagedError(
                path, f"its {name} has the shape {array.shape}, not {want.shape}"
            )
        return array

    return jax.tree_util.tree_map_with_path(leaf, like)


def leaves_of(state: State) -> dict[str, np.ndarray]:
    """The leaves by their paths: keys as their words, without those of no size."""
    leaves = jax.tree_util.tree_leaves_with_path(own_state(state))
    return {
        jax.tree_util.keystr(path): np.asarray(as_plain(leaf, leaf))
        for path, leaf in leaves
        if leaf.size
    }


def _folder(own: Path, steps: int) -> Path:
    return own / "kept" / str(steps)


def _digest(leaves: Mapping[str, Any]) -> str:
    seal = digest()
    for name, leaf in sorted(leaves.items()):
        array = np.asarray(leaf)
        seal.update(f"{name} {array.dtype.name} {array.shape}\n".encode())
        seal.update(as_bytes(array).data)
    return seal.hexdigest()


def _orbax() -> Any:
    return library("orbax.checkpoint", "keep= needs Orbax", "orbax-checkpoint")
