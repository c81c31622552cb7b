"""Where a state keeps what, by the names of its fields (docs/states.md)."""

from collections.abc import Collection, Container, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

Path = tuple[Any, ...]


class Place(NamedTuple):
    """Where an array of a state is.

    Attributes:
      part: the path of the part of an `optax.partition` that it is in, or ().
      field: of which moment it is, or the name of what is no moment.
      leaf: the path of the parameter that it is a moment of, or None.
    """

    part: Path
    field: str
    leaf: Path | None


def place_of(path: Sequence[Any], moments: Collection[str]) -> Place:
    """What the path of an array says, from the root of a state with these moments."""
    part: Path = ()
    name = ""
    for i, key in enumerate(path):
        if isinstance(key, jax.tree_util.GetAttrKey):
            name = key.name
            if name == "inner_states":
                part = tuple(path[: i + 2])
            if name in moments:
                return Place(part, name, path_of(path[i + 1 :]))
    return Place(part, name, None)


def end_of(path: Path, paths: Container[Path]) -> Path | None:
    """The longest end that is a parameter's path: a shorter one may be another's."""
    for start in range(len(path) + 1):
        if path[start:] in paths:
            return path[start:]
    return None


def path_of(path: Sequence[Any]) -> Path:
    """The path of a parameter, the same for a Flax NNX variable and for its array."""
    path = tuple(path)
    is_variable = (
        len(path) > 1
        and isinstance(path[-1], jax.tree_util.GetAttrKey)
        and path[-1].name == "value"
    )
    return path[:-1] if is_variable else path


def is_counter(path: Sequence[Any], leaf: Any) -> bool:
    """Whether an array of a state is a number of steps.

    It may be one that stands still, such as an average's that is not debiased, where
    `counters` has only those that do not.
    """
    *_, last = (None, *path_of(path))
    return (
        isinstance(last, jax.tree_util.GetAttrKey)
        and last.name in ("count", "step")
        and jnp.shape(leaf) == ()
        and bool(jnp.result_type(leaf) == jnp.int32)
    )


def counters(optimizer: optax.GradientTransformation, params: Any) -> set[Path]:
    """The paths of the numbers of a state that a step makes larger."""

    def numbers(state: Any) -> dict[Any, Any]:
        leaves = jax.tree_util.tree_leaves_with_path(state)
        return {p: n for p, n in leaves if not n.shape and n.dtype == jnp.int32}

    @jax.jit
    def grow() -> list[Any]:
        zeros = jax.tree.map(jnp.zeros_like, params)
        state = optimizer.init(zeros)
        _, after = optimizer.update(zeros, state, zeros)
        before = numbers(state)
        return [after - before[path] for path, after in numbers(after).items()]

    paths = numbers(jax.eval_shape(optimizer.init, params))
    return {path for path, grown in zip(paths, grow(), strict=True) if grown > 0}


def left_out(mask: Any, params: Any) -> set[Path]:
    """The paths of the parameters that a mask leaves out."""
    if mask is None:
        return set()
    chosen = mask(params) if callable(mask) else mask
    try:
        given = jax.tree.map(lambda _, keep: bool(keep), params, chosen)
    except ValueError as error:
        raise ValueError(
            "mask must be a tree of bools like the parameters, got "
            f"{jax.tree.structure(chosen)} for {jax.tree.structure(params)}."
        ) from error
    return {
        path_of(path)
        for path, is_chosen in jax.tree_util.tree_leaves_with_path(given)
        if not is_chosen
    }
