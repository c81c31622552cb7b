"""Optimizer state in bfloat16, half the memory, with rounding that does not stall.

Plain rounding loses every step smaller than half the gap between two numbers. In
bfloat16 that gap is 2⁻⁸ to 2⁻⁷ of the number, so an average with decay 0.999, which
moves by a thousandth of what it lacks, stops at a fifth to a third of its true value.
Rounding up with probability equal to the distance covered loses nothing in
expectation.

The noise is a hash of the seed, the step, the position within the leaf and the 16 bits
that stay. XLA computes it in the loop that writes the state: no array of random
numbers, no key to store, and a sharded leaf needs no communication. The bits that stay
tell leaves apart: with an index, each leaf's loop would be another one and compile by
itself, where now equal shapes share one. The bits that go are left out, or a last bit
that comes out otherwise without `jit` would change the noise.
"""

from typing import Annotated, Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax import lax
from optax import safe_increment

from optjax._arguments.checked import checked
from optjax._arguments.named import Transformation
from optjax._arguments.numbers import Whole
from optjax._arguments.objects import DType
from optjax._observe import tell
from optjax._parts import Link, Rounded
from optjax._precision import store, widen

__all__ = ["StochasticRoundingState", "stochastic_rounding"]


_Narrow: TypeAlias = Annotated[
    Any,
    DType(
        "bfloat16",
        jnp.bfloat16,
        "Stochastic rounding cuts the tail off float32, which leaves bfloat16 and no "
        "other dtype; float16 ends at 6e-8, above the squares of most gradients",
    ),
]
Seed: TypeAlias = Annotated[
    int | jax.Array,
    Whole(
        0,
        2**32 - 1,
        "A key of jax.random is no seed; draw one by `jax.random.bits(key)`",
        may_be_traced=True,
    ),
]


class StochasticRoundingState(NamedTuple):
    """Steps taken, the rounded state, and what its arrays were where not float32.

    `dtypes` has a zero of the original dtype for each array that is kept in bfloat16
    and was not float32 before, under its index among the leaves of `inner_state`:
    float64, and arrays that the optimizer itself keeps in bfloat16. Mostly it is empty.
    """

    count: Any
    inner_state: optax.OptState
    dtypes: dict[str, Any]


@checked
def stochastic_rounding(
    optimizer: Transformation,
    dtype: _Narrow = jnp.bfloat16,
    seed: Seed = 0,
) -> optax.GradientTransformationExtraArgs:
    r"""Store state in bfloat16: x becomes ⌈x⌉ with probability (x − ⌊x⌋) / (⌈x⌉ − ⌊x⌋).

    ⌊x⌋ ≤ x ≤ ⌈x⌉ are the neighbours of x in bfloat16; else x becomes ⌊x⌋, and its
    expectation is x. The optimizer's arrays are stored so, and widened again before
    the optimizer sees them: Adam keeps 4 bytes a parameter and not 8. What bfloat16
    can represent stays as it is, infinities and NaN too; above its largest finite
    number the nearest is taken.

    Only state is rounded, never the parameters. If these are narrower than float32,
    the optimizer nevertheless computes in float32, as `optjax.adam` does, and the
    updates are cast to the gradients' dtype at the end. Single numbers (step counts,
    schedules, injected hyper-parameters, the moments of a parameter of shape ()),
    integers, complex numbers and what the optimizer itself keeps in 16 bits
    (`mu_dtype`) stay as they are; float64 is rounded to float32 first. A copy of the
    parameters in the state, such as schedule-free's z, is rounded like the rest.

    The price is variance: with decay 0.999 and gradients that are pure noise, an
    average of squares lies 4 % (root mean square) off float32's, which itself is 3 %
    off the true variance. `optjax.apply_step` rounds inside its one pass on the CPU, by
    the same noise: given equal gradients the state is equal to the bit, whichever path
    took which step, but for amsgrad's debiased ν in its last place of float32.
    On two idle cores a step of Adam on one leaf of ten million took 0.81 times as long
    as in float32 by `apply_step`; without it, and on a busy machine, memory is saved
    and not time (benchmarks/memory.md).

    Args:
      optimizer: any gradient transformation. Wrap the whole optimizer or a part of
        its chain; `optax.masked`, `optax.MultiSteps` and the rest work on both sides.
      dtype: bfloat16, which has the exponents of float32 and so lacks nothing but
        its last 16 bits.
      seed: an integer in [0, 2³²), or a traced one. Numbers that are equal to 8
        bits share their noise where seed, step and position agree: under `vmap`, give
        each lane a seed of its own.

    Returns:
      A transformation with the state `StochasticRoundingState`, all arrays. Its
      derivatives are those of the expectation, without rounding.

    Raises:
      ValueError: for another dtype or a seed outside its range.

    Example: ν after 5,000 equal gradients.
      >>> import jax, jax.numpy as jnp, optjax
      >>> tx = optjax.stochastic_rounding(optjax.ema_of_squares(0.999))
      >>> g = jnp.ones(1000)
      >>> def step(state, _):
      ...     return tx.update(g, state)[1], None
      >>> state = jax.lax.scan(step, tx.init(g), length=5000)[0]
      >>> nu = state.inner_state.nu
      >>> nu.dtype, f"{nu.astype(float).mean():.2f}"
      (dtype(bfloat16), '0.99')

    Reference: Gupta et al., "Deep Learning with Limited Numerical Precision",
    ICML 2015.
    """
    inner = optax.with_extra_args_support(optimizer)

    def init(params: optax.Params) -> StochasticRoundingState:
        count = jnp.zeros([], jnp.int32)
        inner_state = inner.init(jax.tree.map(widen_float, params))
        rounded = round_leaves(inner_state, step_key(seed, count))
        dtypes = {
            str(i): jnp.zeros([], before.dtype)
            for i, (before, after) in enumerate(
                zip(jax.tree.leaves(inner_state), jax.tree.leaves(rounded), strict=True)
            )
            if _is_stored(after) and before.dtype != jnp.float32
        }
        return StochasticRoundingState(count, rounded, dtypes)

    def update(
        updates: optax.Updates,
        state: StochasticRoundingState,
        params: optax.Params | None = None,
        **extra: Any,
    ) -> tuple[optax.Updates, StochasticRoundingState]:
        wide = widen_leaves(state.inner_state, state.dtypes)
        result, inner_state = update_wide(inner, updates, wide, params, extra)
        count = safe_increment(state.count)
        key = step_key(seed, count)
        rounded = round_leaves(inner_state, key)
        tell(Link(Rounded(key, wide, inner_state), (), (), state.inner_state, rounded))
        return result, StochasticRoundingState(count, rounded, state.dtypes)

    return optax.GradientTransformationExtraArgs(init, update)


def update_wide(
    inner: optax.GradientTransformationExtraArgs,
    updates: optax.Updates,
    wide: optax.OptState,
    params: optax.Params | None,
    extra: dict[str, Any],
) -> tuple[optax.Updates, optax.OptState]:
    """`update` in float32, what it returns in the dtypes of the gradients."""
    result, inner_state = inner.update(
        jax.tree.map(widen_float, updates),
        wide,
        jax.tree.map(widen_float, params),
        **extra,
    )
    # Where they differ, as for lookahead's two sets of parameters, there is no
    # telling which gradient an update belongs to.
    structures: Any = [jax.tree.structure(tree) for tree in (result, updates)]
    if structures[0] == structures[1]:
        result = jax.tree.map(
            lambda u, g: store(u, g) if _is_narrow(g) else u, result, updates
        )
    return result, inner_state


@jax.custom_jvp
def round_stochastically(x: jax.Array, bits: jax.Array) -> jax.Array:
    """x in bfloat16, rounded away from zero where its tail and 16 noisy bits carry.

    The carry out of the 16 bits that bfloat16 lacks has the very probability that is
    wanted, and runs into the exponent where the next number has another. `bits` are
    uint32, of which the upper half is used.
    """
    word = _word(x)
    magnitude = word & jnp.uint32(0x7FFF_FFFF)
    # Beyond the largest finite number to the nearest, half a gap away; what is added to
    # a NaN is its mark, where it has none in the bits that stay.
    nearest = jnp.where(
        magnitude > jnp.uint32(0x7F80_0000),
        ~word & jnp.uint32(0x0040_0000),
        jnp.uint32(0x8000),
    )
    carry = jnp.where(magnitude < jnp.uint32(0x7F7F_0000), bits >> 16, nearest)
    upper = ((word + carry) >> 16).astype(jnp.uint16)
    return lax.bitcast_convert_type(upper, jnp.bfloat16)


@round_stochastically.defjvp
def _round_jvp(primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[Any, Any]:
    """Of the expectation; the bits of a float have no derivative."""
    dx, _ = tangents
    return round_stochastically(*primals), dx.astype(jnp.bfloat16)


def random_bits(x: jax.Array, key: tuple[jax.Array, jax.Array]) -> jax.Array:
    """uint32 for each number of x, by its position, its first 16 bits and the key.

    The lower a bit, the less it depends on all of them; the upper 24 do.
    """
    position = jnp.zeros(x.shape, jnp.uint32)
    stride = 1
    for axis in reversed(range(x.ndim)):
        along = lax.broadcasted_iota(jnp.uint32, x.shape, axis)
        position += along * jnp.uint32(stride % 2**32)
        stride *= x.shape[axis]
    first, second = key
    shared = (position + first) * jnp.uint32(0x9E37_79B1) ^ second
    return _mix_upper_bits(shared ^ (_word(x) >> 16))


def step_key(seed: Any, count: Any) -> tuple[jax.Array, jax.Array]:
    """Two words, other ones at every step."""
    step = _mix(_mix(jnp.asarray(seed, jnp.uint32)) + count.astype(jnp.uint32))
    # Without the constant, the second word would be what `random_bits` makes of the
    # first at position 0, and cancel it there.
    return _mix(step), _mix(_mix(step ^ jnp.uint32(0x9E37_79B9)))


def _word(x: jax.Array) -> jax.Array:
    """The bits of x as a float32."""
    x = lax.convert_element_type(x, jnp.float32)
    return lax.bitcast_convert_type(x, jnp.uint32)


def _mix(h: jax.Array) -> jax.Array:
    """A bijection of uint32 in which every bit depends on all.

    Multiplications and shifts as in MurmurHash3's finalizer, with Wellons' constants
    (2018), which his search found to be less biased.
    """
    h = _mix_upper_bits(h)
    return h ^ (h >> 16)


def _mix_upper_bits(h: jax.Array) -> jax.Array:
    """The same without its last step, which leaves the upper 16 bits as they are."""
    h = (h ^ (h >> 16)) * jnp.uint32(0x7FEB_352D)
    mixed: jax.Array = (h ^ (h >> 15)) * jnp.uint32(0x846C_A68B)
    return mixed


def round_leaves(tree: Any, key: tuple[jax.Array, jax.Array]) -> Any:
    return jax.tree.map(
        lambda leaf: _round_leaf(leaf, key) if _is_wide_array(leaf) else leaf, tree
    )


# Traced once a shape, which a tree of many leaves has far fewer of.
@jax.jit
def _round_leaf(leaf: jax.Array, key: tuple[jax.Array, jax.Array]) -> jax.Array:
    return round_stochastically(leaf, random_bits(leaf, key))


def widen_leaves(tree: Any, dtypes: dict[str, Any]) -> Any:
    treedef: Any
    leaves, treedef = jax.tree.flatten(tree)
    return treedef.unflatten(
        [
            lax.convert_element_type(
                leaf, dtypes[str(i)].dtype if str(i) in dtypes else jnp.float32
            )
            if _is_stored(leaf)
            else leaf
            for i, leaf in enumerate(leaves)
        ]
    )


def _is_wide_array(leaf: Any) -> bool:
    return (
        jnp.ndim(leaf) > 0
        and jnp.issubdtype(leaf.dtype, jnp.floating)
        and leaf.dtype.itemsize >= 4
    )


def _is_stored(leaf: Any) -> bool:
    return jnp.ndim(leaf) > 0 and leaf.dtype == jnp.bfloat16


def _is_narrow(leaf: Any) -> bool:
    dtype = jnp.result_type(leaf)
    return jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize < 4


def widen_float(leaf: Any) -> Any:
    return widen(leaf) if _is_narrow(leaf) else leaf
