"""The compiled step written in JAX, for derivatives and other platforms."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from optjax._compression import decode, encode
from optjax._precision import (
    abs_sq,
    away_from_zero,
    flat_at_zero,
    sqrt,
    store,
    widen,
)
from optjax._rounding import random_bits, round_stochastically
from optjax.fused._kernel import Coefficients, Direction, Form, Leaves, Storage

__all__ = ["plain_root", "step_in_jax"]


def step_in_jax(
    form: Form,
    packed: jax.Array,
    key: jax.Array,
    grads: Sequence[jax.Array],
    leaves: Leaves,
    *,
    start: int = 0,
    root: Callable[[jax.Array], jax.Array] = sqrt,
) -> Leaves:
    """The equations of `Form` and `Coefficients`, leaf by leaf.

    Where the state is packed, that of the first leaf begins at `start`.
    """
    if form.packed:
        own = form._replace(packed=False)
        apart = _taken_apart(form, leaves, start)
        new_leaves = step_in_jax(own, packed, key, grads, apart, root=root)
        return _put_together(form, leaves, new_leaves, start)
    c = Coefficients(*packed)
    params, m, nu, nu_max = leaves[:4]
    new: dict[str, Any] = {
        name: None if column is None else []
        for name, column in leaves._asdict().items()
    }

    def read(name: str, i: int) -> jax.Array:
        x: jax.Array = getattr(leaves, name)[i]
        if form.storage is Storage.COMPRESSED:
            return decode(x, getattr(leaves, f"{name}_scale")[i])
        return widen(x)

    def keep(name: str, value: jax.Array, like: jax.Array) -> None:
        if form.storage is Storage.NEAREST:
            new[name].append(store(value, like))
            return
        bits = random_bits(value, (key[0], key[1]))
        if form.storage is Storage.STOCHASTIC:
            new[name].append(round_stochastically(value, bits))
        else:
            codes, scales = encode(value, bits, like.dtype)
            new[name].append(codes)
            new[f"{name}_scale"].append(scales)

    for i, (gradient, x) in enumerate(zip(grads, params, strict=True)):
        g = widen(gradient)
        if form.l2:
            g = widen(_with_l2(gradient, c.l2, x))
        d = g
        if m is not None:
            average = c.intake * g + c.keep * read("m", i)
            ahead = c.ahead * g if form.direction is Direction.AHEAD else 0.0
            d = c.out * average + ahead
            d = widen(store(d, gradient))
            keep("m", average, m[i])
        update = c.step * d
        if nu is not None:
            squares = c.square_intake * (g * g) + c.square_keep * read("nu", i)
            keep("nu", squares, nu[i])
            squares = c.before * squares
            if nu_max is not None:
                squares = jnp.maximum(read("nu_max", i), squares)
                keep("nu_max", squares, nu_max[i])
                squares = c.after * squares
            rate = 1.0 / away_from_zero(
                root(flat_at_zero(squares, c.eps_root) + c.eps_root) + c.eps
            )
            if form.bounded:
                rate = c.scale * rate
                bounds: Any = c.lower, c.upper
                if leaves.norms is not None:
                    bounds = leaves.norms[i]
                    norms = [jnp.sum(abs_sq(y)) for y in (rate * d, d)]
                    new["norms"].append(jnp.stack(norms))
                # Of one shape, since `jet` takes a minimum of no others.
                lower, upper = (jnp.broadcast_to(b, x.shape) for b in bounds)
                rate = jnp.minimum(jnp.maximum(rate, lower), upper)
            update = c.step * (rate * d)
        if form.decay:
            update = update + c.decay * x
        new["params"].append(store(x - store(update, gradient), x))
    return Leaves(**new)


def _taken_apart(form: Form, leaves: Leaves, start: int) -> Leaves:
    """The leaves of a packed state, each by itself."""
    columns: dict[str, list[jax.Array]] = {name: [] for name in form.kept}
    for x in leaves.params:
        for name, column in columns.items():
            (array,) = getattr(leaves, name)
            column.append(array[start : start + x.size].reshape(x.shape))
        start += x.size
    return leaves._replace(**columns)


def _put_together(form: Form, leaves: Leaves, new: Leaves, start: int) -> Leaves:
    """The new leaves, those of the state at their places among the old packed ones."""
    arrays = {}
    for name in form.kept:
        (array,) = getattr(leaves, name)
        flat = jnp.concatenate([x.reshape(-1) for x in getattr(new, name)])
        arrays[name] = [jax.lax.dynamic_update_slice(array, flat, (start,))]
    return new._replace(**arrays)


def _with_l2(gradient: jax.Array, decay: jax.Array, x: jax.Array) -> jax.Array:
    """g + λ x in the gradient's dtype, rounded as its arithmetic rounds."""
    if gradient.dtype != jnp.bfloat16:
        return gradient + decay * x
    return gradient + store(store(decay, gradient) * store(x, gradient), gradient)


def plain_root(x: jax.Array) -> jax.Array:
    """√x, and 0 for the derivative at 0, for `jet`, which fails at `custom_jvp`."""
    is_positive = x > 0
    return jnp.where(is_positive, jnp.sqrt(jnp.where(is_positive, x, 1.0)), 0.0)
