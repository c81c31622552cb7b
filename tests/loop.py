"""A small problem whose gradient depends on the parameters, and loops over it."""

from collections.abc import Callable, Iterable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

STEPS = 8
START = {
    "matrix": jnp.array([[0.5, -1.0, 2.0], [1.5, 0.2, -0.3]]),
    "vector": jnp.array([1.0, -0.5, 0.1]),
    "scalar": jnp.array(-2.0, jnp.float32),
}
_RANDOM = np.random.default_rng(0)
NOISE = [
    jax.tree.map(lambda x: jnp.asarray(_RANDOM.normal(size=x.shape), x.dtype), START)
    for _ in range(STEPS)
]


def gradient(x: Any, noise: Any) -> Any:
    """Of ½|x + noise|²."""
    return jax.tree.map(jnp.add, x, noise)


def stack(trees: Iterable[Any]) -> Any:
    """One tree with a new leading axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def last(path: Any) -> Any:
    """The parameters after the last step of a path."""
    return jax.tree.map(lambda leaf: leaf[-1], path)


def walk(
    tx: optax.GradientTransformation,
    start: Any = START,
    noise: Iterable[Any] = NOISE,
    gradient: Callable[[Any, Any], Any] = gradient,
) -> Any:
    """The parameters after every step, stacked; one operation at a time, no jit."""
    x, state, path = start, tx.init(start), []
    for n in noise:
        updates, state = tx.update(gradient(x, n), state, x)
        x = optax.apply_updates(x, updates)
        path.append(x)
    return jax.tree.map(lambda *leaves: np.stack(leaves), *path)


def scan(
    tx: optax.GradientTransformation,
    start: Any = START,
    noise: Iterable[Any] = NOISE,
    gradient: Callable[[Any, Any], Any] = gradient,
    state: Any = None,
) -> Any:
    """The same as `walk` in one `lax.scan`, to be compiled or transformed."""

    def step(carry: Any, n: Any) -> Any:
        x, state = carry
        updates, state = tx.update(gradient(x, n), state, x)
        x = optax.apply_updates(x, updates)
        return (x, state), x

    carry = start, tx.init(start) if state is None else state
    return jax.lax.scan(step, carry, stack(noise))[1]


def assert_same_path(actual: Any, expected: Any, rtol: float = 2e-5) -> None:
    """To float32 rounding, which the curvature of the problem does not amplify."""
    chex.assert_trees_all_equal_shapes_and_dtypes(actual, expected)
    chex.assert_trees_all_close(actual, expected, rtol=rtol, atol=rtol)


def differ(a: Any, b: Any, by: float = 1e-4) -> bool:
    """Whether two trees differ somewhere by more than rounding."""
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return any(np.any(np.abs(np.asarray(x) - np.asarray(y)) > by) for x, y in leaves)
