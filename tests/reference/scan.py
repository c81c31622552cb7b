"""Follows Optax transformations: one compiled scan over all steps of many cases."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from compiling import jit

Path = dict[str, np.ndarray]


def displacements(
    transformation: optax.GradientTransformation,
    params: Mapping[str, np.ndarray],
    grads: Sequence[Mapping[str, np.ndarray]],
    dtype: str = "float32",
) -> Path:
    """How far each leaf has moved from its start after every step: (steps, *shape)."""
    return follow({"only": transformation}, params, grads, dtype)["only"]


def follow(
    transformations: Mapping[str, optax.GradientTransformation],
    params: Mapping[str, np.ndarray],
    grads: Sequence[Mapping[str, np.ndarray]],
    dtype: str = "float32",
    l2: float = 0.0,
    cheaply: bool = False,
) -> dict[str, Path]:
    """The displacements of several transformations, each by itself, in one program.

    One program, because most of the time of a test goes into compiling. Each update is
    produced in `dtype`; they are added up here in float64, so that what is compared is
    the updates' own precision and not the rounding of adding a small update to a large
    parameter. `l2` times the parameters joins the gradient. What is ours in float32 is
    compared to few roundings, so it is compiled as users have it, and not `cheaply`.
    """
    start = {key: jnp.asarray(value, dtype) for key, value in params.items()}
    stacked = {
        key: jnp.asarray(np.stack([tree[key] for tree in grads]), dtype)
        for key in params
    }

    def step(carry, gradient):
        after, moves = {}, {}
        for name, transformation in transformations.items():
            x, state = carry[name]
            g = jax.tree.map(lambda g, x: g + l2 * x, gradient, x) if l2 else gradient
            moves[name], state = transformation.update(g, state, x)
            after[name] = optax.apply_updates(x, moves[name]), state
        return after, moves

    def scan(start, grads):
        begin = {key: (start, tx.init(start)) for key, tx in transformations.items()}
        return jax.lax.scan(step, begin, grads)[1]

    cheaply = cheaply or dtype == "float64"
    moves = (jit if cheaply else jax.jit)(scan)(start, stacked)
    return {
        name: {
            key: np.cumsum(np.asarray(value, np.float64), axis=0)
            for key, value in tree.items()
        }
        for name, tree in moves.items()
    }


def moved(path: Sequence[Mapping[str, np.ndarray]], params) -> Path:
    """A reference's trajectory as displacements from `params`: (steps, *shape)."""
    return {
        key: np.stack([tree[key] for tree in path]) - np.asarray(params[key], float)
        for key in params
    }


def assert_same_path(actual, expected, rtol: float, steps=slice(None), start=None):
    """Every coordinate agrees to `rtol` of the farthest that it travels.

    Relative to the farthest point of the coordinate's own path, because a coordinate
    that returns to its start has a displacement of nearly 0 there. With `start`, the
    error of `moved` is allowed too: the reference adds its updates to parameters of
    that size in float64, one rounding a step.
    """
    assert sorted(actual) == sorted(expected)
    for key, want in expected.items():
        assert np.all(np.isfinite(want)), f"{key}: the reference is not finite"
        allowed = rtol * np.max(np.abs(want), axis=0)
        if start is not None:
            size = np.abs(start[key]) + np.max(np.abs(want), axis=0)
            allowed = allowed + len(want) * size * 2.0**-53
        excess = np.abs(actual[key][steps] - want) - allowed
        worst = np.unravel_index(
            np.argmax(np.nan_to_num(excess, nan=np.inf)), want.shape
        )
        assert excess[worst] <= 0, (
            f"leaf {key!r}, index {worst[1:]}, step {worst[0] + 1} of those compared: "
            f"got {actual[key][steps][worst]:.9g}, expected {want[worst]:.9g}, "
            f"{excess[worst]:.2e} more than the error allowed"
        )
