"""The final states of the best trials, kept on disk by Orbax while a sweep runs.

    sweep/kept/trial-000012/     one of them, as a dictionary of its leaves by path

One that is among the best of all that have ended is saved before the sweep says that
it has, and removed after the sweep has said that better ones have.
"""

import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from optjax.sweep._errors import DamagedError, NotWrittenError, SweepError
from optjax.sweep._ranking import Ranking
from optjax.sweep._records import Record
from optjax.sweep._trial import State, own_state

__all__ = ["Keeper", "kept_states", "leaves_of", "read_state"]

_PREFIX = "trial-"


class Keeper:
    """Keeps the states of so many trials."""

    def __init__(self, own: Path, most: int, ranking: Ranking) -> None:
        """Keep them below a sweep's own directory.

        Raises:
          SweepError: where Orbax is not installed.
        """
        _orbax()
        self._folder, self._most, self._ranking = own / "kept", most, ranking
        self._best: list[tuple[float, int]] = []

    def consider(
        self,
        ended: Iterable[Record],
        states: Mapping[int, Callable[[], State]] | None = None,
    ) -> None:
        """Take in trials that have ended.

        Args:
          ended: which.
          states: theirs, by the trials' numbers; None where they were taken in before
            the process died.

        Raises:
          NotWrittenError: where there is no room for them.
        """
        records = {r.trial.number: r for r in ended if r.has_score}
        ranked = [
            (-self._ranking.sign * self._ranking.score(record), number)
            for number, record in records.items()
        ]
        self._best = sorted([*self._best, *ranked])[: self._most]
        for _, number in self._best:
            if number in records and states is not None:
                self._save(number, leaves_of(states[number]()))

    def prune(self) -> None:
        """Remove those that are not among the best any more."""
        best = {number for _, number in self._best}
        for number, path in kept_states(self._folder.parent).items():
            if number not in best:
                shutil.rmtree(path, ignore_errors=True)

    def _save(self, number: int, leaves: Mapping[str, np.ndarray]) -> None:
        path = self._folder / f"{_PREFIX}{number:06d}"
        try:
            with _orbax().PyTreeCheckpointer() as checkpointer:
                checkpointer.save(path.absolute(), dict(leaves), force=True)
        except (OSError, ValueError) as error:
            first = (str(error).strip().splitlines() or ["no message"])[0]
            raise NotWrittenError(
                f"cannot keep the state of trial {number} in {path}: {first}"
            ) from error


def kept_states(own: Path) -> dict[int, Path]:
    """The folders of the states that are kept, by trial."""
    return {
        int(path.name.removeprefix(_PREFIX)): path
        for path in sorted((own / "kept").glob(f"{_PREFIX}*"))
        if path.name.removeprefix(_PREFIX).isdecimal()
    }


def read_state(path: Path, like: State) -> State:
    """The state in a folder, as a tree such as `like`.

    Raises:
      DamagedError: where it has other leaves.
    """
    try:
        with _orbax().PyTreeCheckpointer() as checkpointer:
            saved = checkpointer.restore(path.absolute())
    except (OSError, ValueError, KeyError) as error:
        first = (str(error).strip().splitlines() or ["no message"])[0]
        raise DamagedError(path, first) from None

    def leaf(at: Any, want: Any) -> Any:
        if not want.size:
            return jnp.zeros(want.shape, want.dtype)
        name = jax.tree_util.keystr(at)
        if name not in saved:
            raise DamagedError(path, f"it has no {name}")
        array = jnp.asarray(saved[name])
        if jnp.issubdtype(want.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(array, impl=want.dtype._impl.name)
        return array.astype(want.dtype)

    return jax.tree_util.tree_map_with_path(leaf, like)


def leaves_of(state: State) -> dict[str, np.ndarray]:
    """The leaves by their paths: keys as their words, without those of no size."""
    leaves = jax.tree_util.tree_leaves_with_path(own_state(state))
    return {
        jax.tree_util.keystr(path): np.asarray(
            jax.random.key_data(leaf)
            if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            else leaf
        )
        for path, leaf in leaves
        if leaf.size
    }


def _orbax() -> Any:
    try:
        import orbax.checkpoint
    except ModuleNotFoundError:
        raise SweepError(
            "keep= needs Orbax; run: pip install orbax-checkpoint"
        ) from None
    return orbax.checkpoint
