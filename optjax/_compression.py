"""Optimizer state in eight bits: blocks of 128 codes and one scale each.

A code q stands for q² times its block's scale, so that the levels lie closer together
towards zero, as the numbers of a block do. A moment m has 127 of them and a sign. Of an
accumulator ν it is the root that is stored, with 255: the rate is one over it. Both
are rounded stochastically, by the noise of `_rounding`, since a step moves an average
by less than a level; the expectation of what is stored is exact.

Codes have their parameter's shape, and are sharded like it. Where the last axis is a
multiple of the block, so are the scales, and a shard of whole blocks needs no other;
else blocks are those of the flattened leaf, and its scales are on every device.
"""

import math
from typing import Annotated, Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax import lax
from optax import safe_increment

from optjax._accumulator import (
    CenteredState,
    MaxState,
    MeanState,
    SquareState,
    SumState,
)
from optjax._adashift import AdashiftState
from optjax._arguments.checked import checked
from optjax._arguments.named import Mask, Transformation
from optjax._arguments.numbers import Whole
from optjax._direction import EmaState, NadamEmaState, TraceState
from optjax._observe import tell
from optjax._parts import Compressed, Link
from optjax._places import left_out, path_of
from optjax._rounding import Seed, random_bits, step_key, update_wide, widen_float
from optjax._swats import SwatsState

__all__ = ["CompressedState", "compressed"]

#: Numbers that share a scale.
BLOCK = 128

#: Leaves with fewer numbers stay as they are.
SMALLEST = 4096

#: By its dtype a code tells what it stands for: a number, or the square of one.
SIGNED, ROOTED = jnp.dtype(jnp.int8), jnp.dtype(jnp.uint8)

_Bits: TypeAlias = Annotated[
    int, Whole(8, 8, "Sixteen are optjax.stochastic_rounding, thirty-two no wrapper")
]

#: Of the states whose arrays are known, what each is. Others stay as they are: of an
#: array of squares that were taken for a moment the small ones would become zero.
_KINDS: dict[type[Any], dict[str, Any]] = {
    EmaState: {"ema": SIGNED},
    NadamEmaState: {"ema": SIGNED},
    TraceState: {"trace": SIGNED},
    SumState: {"nu": ROOTED},
    MeanState: {"nu": ROOTED},
    SquareState: {"nu": ROOTED},
    MaxState: {"nu_max": ROOTED},
    CenteredState: {"mu": SIGNED, "nu": ROOTED},
    SwatsState: {"ema": SIGNED, "nu": ROOTED},
    AdashiftState: {"ema": SIGNED, "nu": ROOTED},
    optax.EmaState: {"ema": SIGNED},
    optax.TraceState: {"trace": SIGNED},
    optax.ScaleByAdamState: {"mu": SIGNED, "nu": ROOTED},
    optax.ScaleByRmsState: {"nu": ROOTED},
}


class CompressedState(NamedTuple):
    """Steps taken, the state with codes for its arrays, and the codes' scales.

    `inner_state` has int8 for a moment and uint8 for an accumulator, of the shape that
    the array has; `scales` is a tree like it, with None for what is not compressed.
    """

    count: Any
    inner_state: optax.OptState
    scales: Any


@checked
def compressed(
    optimizer: Transformation,
    bits: _Bits = 8,
    seed: Seed = 0,
    mask: Mask = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Keep m as ±q² s_b and √ν as q² s_b: one byte a number, one scale s_b a block.

    In each block b of 128 numbers s_b = max|m| / 127², or max √ν / 255², and q is
    rounded up with the probability at which q² s_b is m, or √ν, in expectation. With
    c = √(|m| / max|m|), or √(√ν / max √ν), what is read back is off by no more than

        |m̂ − m| ≤ (2c / 127 + 1 / 127²) max|m|
        |√ν̂ − √ν| ≤ (2c / 255 + 1 / 255²) max √ν

    and no ν > 0 is read back as 0. Adam keeps 2.06 bytes a parameter and not 8.

    The optimizer sees what is read back, and steps by float32 numbers: bounds clip the
    decoded rate, so that its band holds exactly. Inside of it the rate is off by the
    error of √ν̂, which one storing makes at most 2 / (255 c) + 1 / (255 c)² of √ν: 0.8 %
    for the largest of a block and 2.5 % for a tenth of it; clipping only brings the two
    nearer. The errors of many steps add up: with decay 0.999 and gradients that are
    noise, ν lies 9 % (root mean square) off float32's for the largest of a block and
    33 % where gradients are a hundredth of those, half as much in the rate.

    Compressed are the moments and the accumulators of the family's parts and of
    Optax's `trace`, `ema`, `scale_by_adam` and `scale_by_rms`, where they are float32.
    Leaves of fewer than 4,096 numbers, what `mask` leaves out, and every other array,
    such as adadelta's or a copy of the parameters, stay as they are;
    `optjax.memory` shows what is left.

    `optjax.apply_step` decodes and codes inside its one pass on the CPU, by the same
    noise, so that either path can take any step. What is saved is memory, not time: a
    step of Adam on one leaf of ten million took 1.5 times as long as in float32 by
    `apply_step` on two idle cores, as its arithmetic decides, and 2.5 times without it
    (benchmarks/memory.md).

    A block with an infinity or a NaN is read back as NaN. No derivative passes through
    a compressed state.

    Args:
      optimizer: any gradient transformation. Wrap the whole or a part of its chain.
      bits: 8.
      seed: an integer in [0, 2³²), or a traced one, of the noise; see
        `optjax.stochastic_rounding`.
      mask: a tree of bools like the parameters, or a function from them to it: False
        for those whose state stays as it is.

    Returns:
      A transformation with the state `CompressedState`, all arrays, for `jit`, `vmap`,
      `scan`, donation and checkpoints.

    Raises:
      ValueError: for other bits or a seed outside its range, and at `init` for a mask
        of another structure than the parameters.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx = optjax.compressed(optjax.adam(1e-3))
      >>> state = tx.init(jnp.ones((64, 128)))
      >>> state.inner_state[0].rate.nu.dtype, state.scales[0].rate.nu.shape
      (dtype('uint8'), (64, 1))

    Reference: Dettmers et al., "8-bit Optimizers via Block-wise Quantization", ICLR
    2022, whose levels are a table.
    """
    del bits
    inner = optax.with_extra_args_support(optimizer)

    def init(params: optax.Params) -> CompressedState:
        inner_state = inner.init(jax.tree.map(widen_float, params))
        # Or XLA would work out the codes of a constant as it compiles, for seconds.
        inner_state = lax.optimization_barrier(inner_state)
        kinds = _kinds(inner_state, left_out(mask, params))
        count = jnp.zeros([], jnp.int32)
        return CompressedState(
            count, *encode_leaves(inner_state, kinds, step_key(seed, count))
        )

    def update(
        updates: optax.Updates,
        state: CompressedState,
        params: optax.Params | None = None,
        **extra: Any,
    ) -> tuple[optax.Updates, CompressedState]:
        wide = decode_leaves(state)
        result, inner_state = update_wide(inner, updates, wide, params, extra)
        count = safe_increment(state.count)
        key = step_key(seed, count)
        new = CompressedState(count, *encode_leaves(inner_state, kinds_of(state), key))
        tell(Link(Compressed(key, wide, inner_state), (), (), state, new))
        return result, new

    return optax.GradientTransformationExtraArgs(init, update)


def encode(x: jax.Array, bits: jax.Array, kind: Any) -> tuple[jax.Array, jax.Array]:
    """The codes of x, of its shape, and the scales of their blocks.

    Args:
      x: float32 numbers, not negative where `kind` is ROOTED.
      bits: uint32 of noise for each, of which the upper 24 are used.
      kind: SIGNED or ROOTED.
    """
    levels = float(jnp.iinfo(kind).max)
    magnitude = lax.sqrt(x) if kind == ROOTED else jnp.abs(x)
    y, noise = blocks(magnitude), blocks(bits)
    largest = y.max(axis=-1)
    # Not divided: XLA does that in one way in a program and in another outside.
    scale = largest * (1.0 / levels**2)
    is_normal = scale >= jnp.finfo(jnp.float32).tiny
    scale = jnp.where(is_normal, scale, jnp.where(scale >= 0, 0.0, jnp.nan))
    scale = jnp.where(largest < jnp.inf, scale, jnp.nan)
    inverse = jnp.where(scale > 0, 1.0 / jnp.where(scale > 0, scale, 1.0), 0.0)
    z = y * inverse[..., None]
    below = jnp.floor(lax.sqrt(z))
    # The next code is as much more probable as z is nearer to its square: of 2²⁴, as a
    # signed number, which processors turn into a float in one step.
    chance = lax.convert_element_type((noise >> 8).astype(jnp.int32), jnp.float32)
    gap = 2.0**-23 * below + 2.0**-24
    q = below + (chance * gap < z - below * below)
    if kind == ROOTED:
        q = jnp.where(z > 0, jnp.maximum(q, 1.0), q)
    q = unblocks(jnp.minimum(q, levels), x.shape)
    if kind == SIGNED:
        q = jnp.where(x < 0, -q, q)
    # The last byte of this sum is q's own, without a look at what no code can be.
    word = lax.bitcast_convert_type(q + 1.5 * 2.0**23, jnp.uint32)
    return lax.convert_element_type(word & 0xFF, jnp.uint8).view(kind), scale


def decode(codes: jax.Array, scales: jax.Array) -> jax.Array:
    """What the codes stand for, float32."""
    q = blocks(lax.convert_element_type(codes, jnp.float32))
    y = unblocks(q * jnp.abs(q) * scales[..., None], codes.shape)
    return y * y if codes.dtype == ROOTED else y


def blocks(x: jax.Array) -> jax.Array:
    """x with an axis of `BLOCK` numbers for its last, the rest filled up by zeros."""
    if x.shape and x.shape[-1] % BLOCK == 0:
        return x.reshape(*x.shape[:-1], x.shape[-1] // BLOCK, BLOCK)
    flat = x.reshape(-1)
    return jnp.pad(flat, (0, -flat.size % BLOCK)).reshape(-1, BLOCK)


def unblocks(y: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The numbers of that shape again."""
    return y.reshape(-1)[: math.prod(shape)].reshape(shape)


def decode_leaves(state: CompressedState) -> Any:
    """The optimizer's state, in float32."""
    leaves, scales, treedef = _rows(state)
    return treedef.unflatten(
        [x if s is None else _decode(x, s) for x, s in zip(leaves, scales, strict=True)]
    )


def kinds_of(state: CompressedState) -> list[Any]:
    """What each leaf of the state is: `SIGNED`, `ROOTED` or None for as it is."""
    leaves, scales, _ = _rows(state)
    return [None if s is None else x.dtype for x, s in zip(leaves, scales, strict=True)]


def _rows(state: CompressedState) -> tuple[list[Any], list[Any], Any]:
    treedef: Any
    leaves, treedef = jax.tree.flatten(state.inner_state)
    return leaves, treedef.flatten_up_to(state.scales), treedef


def encode_leaves(
    tree: Any, kinds: list[Any], key: tuple[jax.Array, jax.Array]
) -> tuple[Any, Any]:
    treedef: Any
    leaves, treedef = jax.tree.flatten(tree)
    pairs = [
        (x, None) if kind is None else _encode(x, key, kind)
        for x, kind in zip(leaves, kinds, strict=True)
    ]
    codes, scales = zip(*pairs, strict=True) if pairs else ((), ())
    return treedef.unflatten(codes), treedef.unflatten(scales)


# Traced once a shape, which a tree of many leaves has far fewer of.
@jax.jit(static_argnames="kind")
def _encode(x: jax.Array, key: Any, kind: Any) -> tuple[jax.Array, jax.Array]:
    return encode(x, random_bits(x, key), kind)


_decode = jax.jit(decode)


def _kinds(state: Any, kept: set[Any]) -> list[Any]:
    """For each leaf of a state, what is to become of it."""

    def is_known(node: Any) -> bool:
        return type(node) in _KINDS

    def of_node(node: Any) -> list[Any]:
        if not is_known(node):
            return [None]
        kinds = []
        for name, field in node._asdict().items():
            for path, leaf in jax.tree_util.tree_leaves_with_path(field):
                kind = _KINDS[type(node)].get(name)
                is_kept = path_of(path) in kept or not _is_large(leaf)
                kinds.append(None if is_kept else kind)
        return kinds

    nodes = jax.tree.leaves(state, is_leaf=is_known)
    return [kind for node in nodes for kind in of_node(node)]


def _is_large(leaf: Any) -> bool:
    return bool(leaf.dtype == jnp.float32 and leaf.size >= SMALLEST)
