"""Compute in float32 or wider, store in the dtype the state was made with.

In bfloat16 the decay 0.999 rounds to 1 and in float16 the usual eps 1e-8 rounds to
0, so no arithmetic of an optimizer is done in either; only its storage is.
"""

import math
from collections.abc import Callable
from typing import Any, TypeAlias, TypeGuard

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

#: A hyper-parameter: a Python number, or a concrete or traced array of shape ().
Scalar: TypeAlias = float | jax.Array


def widen(x: ArrayLike) -> jax.Array:
    """x in its own dtype or float32, whichever is wider."""
    return _converted(x, _wide(jnp.result_type(x)))


def _converted(x: Any, dtype: Any) -> jax.Array:
    """x in a dtype that is no weak one, without a word to JAX where it has it."""
    if isinstance(x, jax.Array) and x.dtype == dtype and not x.weak_type:
        return x
    return lax.convert_element_type(x, dtype)


def _wide(dtype: Any) -> Any:
    # Not by promotion, which JAX can be told to refuse.
    is_wide = jnp.issubdtype(dtype, jnp.inexact) and dtype.itemsize >= 4
    return dtype if is_wide else jnp.dtype(jnp.float32)


def precise(value: Any) -> Any:
    """A hyper-parameter, or what a schedule returns, in float32 or wider.

    1 − β or s λ of arrays in half precision would else be worked out in it. Python
    numbers stay what they are: JAX gives them the precision of what they meet.
    """
    if callable(value):
        return lambda count: precise(value(count))
    if isinstance(value, (int, float)):
        return value
    dtype = jnp.result_type(value)
    return value if dtype == _wide(dtype) else widen(value)


def store(value: jax.Array, like: Any) -> jax.Array:
    """Value in the dtype of `like`, so that a state's dtype never drifts.

    An integer, whose updates are fractions, has no dtype to give.
    """
    dtype = jnp.result_type(like)
    if not jnp.issubdtype(dtype, jnp.inexact):
        return value
    return _converted(value, dtype)


def full_like(params: Any, fill: Scalar, dtype: Any = None) -> Any:
    """A state leaf for every parameter, in its dtype unless another is given.

    In float32 for float16: that has nothing below 6e-8 and above 65504, and squares of
    ordinary gradients are on both sides. For integers too, starting from what of `fill`
    is an integer, as in Optax.
    """
    return _map_params(params, fill, lambda own: own if dtype is None else dtype)


def real_full_like(params: Any, fill: Scalar, dtype: Any = None) -> Any:
    """The same in the real dtype of each parameter, for squares of complex ones."""
    return _map_params(
        params, fill, lambda own: jnp.finfo(own).dtype if dtype is None else dtype
    )


def _map_params(params: Any, fill: Scalar, choose: Callable[[Any], Any]) -> Any:
    """`fill` for each parameter, in the dtype chosen after the one it has by itself."""

    def leaf(path: Any, p: Any) -> Any:
        dtype = jnp.result_type(p)
        if jnp.issubdtype(dtype, jax.dtypes.extended):
            raise ValueError(
                "parameters must be numbers, got an array of the dtype "
                f"{dtype} at {jax.tree_util.keystr(path) or 'the root'}. Keep keys "
                "outside of the parameters, or leave the leaf out by optax.masked."
            )
        if not jnp.issubdtype(dtype, jnp.inexact):
            return jnp.full_like(p, fill).astype(choose(jnp.dtype(jnp.float32)))
        own = jnp.dtype(jnp.float32) if dtype == jnp.float16 else dtype
        return jnp.full_like(p, fill, dtype=choose(own))

    return jax.tree_util.tree_map_with_path(leaf, params)


def abs_sq(g: jax.Array) -> jax.Array:
    """|g|², real and in float32 or wider."""
    g = widen(g)
    return jnp.square(g.real) + jnp.square(g.imag) if jnp.iscomplexobj(g) else g * g


def next_count(count: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The step t = 1, 2, … as the int32 to store (it saturates) and as a float."""
    count = jnp.asarray(count)
    # XLA would count again, and copy, for every use of anything cheaper than a select.
    count = lax.select(count < jnp.iinfo(count.dtype).max, count + 1, count)
    return count, lax.convert_element_type(count, jnp.result_type(float))


def one_minus_power(decay: Scalar, t: jax.Array) -> jax.Array:
    """1 − decayᵗ, the weight that an average started at zero has gathered by step t.

    As −(e^{t log decay} − 1), whose relative error is no larger than that of the
    exponent: below 1e-6 in float32 for every decay in [0, 1) and t from 1 to 2³¹. The
    difference itself has lost the digits of a decay near 1, which is rounded before it
    is taken to the power: 0.99999 is 1 − 1.001e-5 in float32. A Python number has them
    all, an array those of its own dtype.
    """
    if is_known(decay):
        return 0.0 - jnp.expm1(t * log_decay(decay, t))
    return _one_minus_power(lax.convert_element_type(decay, t.dtype), t)


def bias_correction(
    learning_rate: Scalar, b1: Scalar, b2: Scalar, t: jax.Array
) -> jax.Array:
    """α √(1 − β₂ᵗ) / (1 − β₁ᵗ): Adam's two corrections."""
    root = jnp.sqrt(one_minus_power(b2, t))
    scale: jax.Array = learning_rate * root / one_minus_power(b1, t)
    return scale


def log_decay(decay: Scalar, t: jax.Array) -> Scalar:
    """The logarithm of a decay in [0, 1), in the dtype of t; −∞ for 0."""
    if is_known(decay):
        return math.log(decay) if decay else -math.inf
    # For a decay of ½ or more the difference is exact.
    return jnp.log1p(lax.convert_element_type(decay, t.dtype) - 1.0)


@jax.custom_jvp
def _one_minus_power(decay: jax.Array, t: jax.Array) -> jax.Array:
    # Subtracted, since for a decay of 1, out of range but traced, it is 0 and not −0.
    return 0.0 - jnp.expm1(t * log_decay(decay, t))


def _power_slope(
    tangent: jax.Array, _: Any, decay: jax.Array, t: jax.Array
) -> jax.Array:
    """−t βᵗ⁻¹. The chain rule would pass the logarithm's infinite one at β = 0."""
    above_zero = jnp.maximum(decay, jnp.finfo(decay.dtype).tiny)
    return -t * lax.pow(above_zero, t - 1.0) * tangent


# Steps are counted: there is no derivative with respect to t.
_one_minus_power.defjvps(_power_slope, None)


def is_known(value: Any) -> TypeGuard[float]:
    """Whether a hyper-parameter is a Python number, the same at every call."""
    return isinstance(value, (int, float))


def is_zero(value: Any) -> bool:
    """Whether a hyper-parameter is known to be 0, so that nothing is computed of it."""
    return is_known(value) and value == 0


def away_from_zero(x: jax.Array, at_least: Scalar = 0.0) -> jax.Array:
    """max(x, √tiny), for a denominator x ≥ `at_least` ≥ 0.

    Both 1/x and its derivative −1/x² are then finite. At `tiny` itself the latter is
    not, and infinity times the zero tangent or cotangent of a coordinate without
    gradient is NaN. Nothing is computed where `at_least` is known to be enough.
    """
    floor = float(jnp.finfo(x.dtype).tiny) ** 0.5
    if is_known(at_least) and at_least >= floor:
        return x
    return jnp.maximum(x, floor)


def flat_at_zero(x: jax.Array, offset: Scalar) -> jax.Array:
    """x ≥ 0, to be followed by 1/√(x + offset): that has no infinite derivative.

    At x = 0 it has derivative 0 where the true one, −½ offset^−3/2, overflows: infinity
    times the zero cotangent of a coordinate without gradient is NaN.
    """
    least = float(jnp.finfo(x.dtype).tiny) ** (2 / 3)
    # XLA sees that both are x.
    return jnp.where((x == 0) & (offset < least), lax.stop_gradient(x), x)


@jax.custom_jvp
def sqrt(tree: Any) -> Any:
    """√x of every leaf, with derivative 0 at x = 0.

    The true derivative there is infinite, and infinity times the zero tangent of a
    coordinate without gradient would turn every gradient through a hyper-parameter
    into NaN. One call for a whole tree is traced and lowered faster than one a leaf.
    """
    return jax.tree.map(lax.sqrt, tree)


@sqrt.defjvp
def _sqrt_jvp(primals: tuple[Any], tangents: tuple[Any]) -> tuple[Any, Any]:
    (x,), (dx,) = primals, tangents
    y = sqrt(x)

    def tangent(x: jax.Array, y: jax.Array, dx: jax.Array) -> jax.Array:
        return dx * jnp.where(x > 0, 0.5 / jnp.where(x > 0, y, 1.0), 0.0)

    return y, jax.tree.map(tangent, x, y, dx)
