"""State in eight bits: how far off, where it applies, and through what it goes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P
from processes import run_program
from rows import ROWS, each_row

import optjax
from optjax._compression import (
    BLOCK,
    ROOTED,
    SIGNED,
    CompressedState,
    decode,
    decode_leaves,
    encode,
)
from optjax._rounding import random_bits, step_key

ADAM = optjax.adam(0.01)
LEVELS = {SIGNED: 127, ROOTED: 255}
X = {
    name: np.ones(shape, np.float32)
    for name, shape in {"w": (32, 256), "odd": (70, 65), "b": (256,)}.items()
}


@functools.partial(jax.jit, static_argnames="kind")
def there_and_back(x, seed, kind):
    codes, scales = encode(x, random_bits(x, step_key(seed, jnp.int32(0))), kind)
    return decode(codes, scales)


@pytest.fixture(scope="module")
def numbers():
    """Blocks whose numbers span ten decades, of one decade, and equal ones."""
    rng = np.random.default_rng(0)
    wide = rng.standard_normal((40, BLOCK)) * 10 ** rng.uniform(-10, 0, (40, BLOCK))
    narrow = rng.standard_normal((40, BLOCK)) * 1e-6
    return np.concatenate([wide, narrow, np.full((2, BLOCK), -3.0)]).astype(np.float32)


def as_stored(x, kind):
    """What the error is of: a moment, or the root of an accumulator."""
    return np.sqrt(x.astype(np.float64)) if kind == ROOTED else x.astype(np.float64)


@pytest.mark.parametrize("kind", LEVELS, ids=str)
def test_the_error_is_within_what_is_said(numbers, kind):
    x = np.square(numbers) if kind == ROOTED else numbers
    n = LEVELS[kind]
    exact = as_stored(x, kind)
    top = np.abs(exact).max(axis=-1, keepdims=True)
    c = np.sqrt(np.abs(exact) / top)
    bound = (2 * c / n + 1 / n**2) * top * (1 + 1e-5)
    worst = 0.0
    for seed in range(5):
        off = np.abs(as_stored(np.asarray(there_and_back(x, seed, kind)), kind) - exact)
        assert (off <= bound).all()
        worst = max(worst, (off / bound).max())
    assert worst > 0.9  # The bound is no larger than it has to be.


@pytest.mark.parametrize("kind", LEVELS, ids=str)
def test_nothing_is_lost_in_expectation(numbers, kind):
    x = np.square(numbers) if kind == ROOTED else numbers
    exact = as_stored(x, kind)
    back = jax.vmap(lambda seed: there_and_back(x, seed, kind))(jnp.arange(400))
    drawn = as_stored(np.asarray(back), kind)
    n = LEVELS[kind]
    top = np.abs(exact).max(axis=-1, keepdims=True)
    z = np.abs(exact) / top * n**2
    q = np.floor(np.sqrt(z))
    level, p = top / n**2, np.clip((z - q * q) / (2 * q + 1), 0, 1)
    off = (np.abs(drawn).mean(axis=0) - np.abs(exact)) / (level * (2 * q + 1))
    # A ν > 0 is never 0, so below its first level it is rounded up.
    off = off[(q > 0) | (kind == SIGNED)]
    p = p[(q > 0) | (kind == SIGNED)]
    # Of few draws the rarest may be some more than they should.
    assert (np.abs(off) < 6 * np.sqrt(p * (1 - p) / len(drawn)) + 8 / len(drawn)).all()
    assert abs(off.mean()) < 5 * 0.5 / np.sqrt(off.size * len(drawn))


def test_no_accumulator_becomes_zero(numbers):
    x = np.square(numbers)
    x[:, 0] = 0.0
    back = np.asarray(there_and_back(x, 0, ROOTED))
    assert (back[:, 0] == 0).all()
    assert (back[x > 0] > 0).all()


@pytest.mark.parametrize("kind", LEVELS, ids=str)
def test_blocks_that_have_no_scale(kind):
    x = np.zeros((4, BLOCK), np.float32)
    x[1, 3], x[2, 5], x[3, 7] = np.inf, np.nan, 1e-42
    back = np.asarray(there_and_back(x, 0, kind))
    assert (back[0] == 0).all()
    assert np.isnan(back[1:3]).all()
    assert np.isfinite(back[3]).all()


def test_rows_of_whole_blocks_are_stored_as_if_they_were_flat(numbers):
    flat = there_and_back(numbers.reshape(-1), 1, SIGNED)
    np.testing.assert_array_equal(there_and_back(numbers, 1, SIGNED).reshape(-1), flat)
    odd = numbers.reshape(-1)[: 70 * 65].reshape(70, 65)
    np.testing.assert_array_equal(
        there_and_back(odd, 1, SIGNED).reshape(-1)[: 35 * BLOCK], flat[: 35 * BLOCK]
    )


def stored(state):
    """Which arrays are codes, by the paths of their parameters."""
    leaves = jax.tree_util.tree_leaves_with_path(state.inner_state)
    return {
        (path[-2].name, path[-1].key): leaf.dtype.name
        for path, leaf in leaves
        if leaf.dtype in (SIGNED, ROOTED)
    }


def test_moments_and_accumulators_of_large_leaves_are_codes():
    init = optjax.compressed(optjax.amsgrad(0.1)).init
    assert stored(jax.eval_shape(init, X)) == {
        (field, leaf): dtype
        for field, dtype in (("ema", "int8"), ("nu", "uint8"), ("nu_max", "uint8"))
        for leaf in ("w", "odd")
    }


@pytest.mark.parametrize(
    "mask",
    [{"w": True, "odd": False, "b": True}, lambda x: {**dict.fromkeys(x, 1), "odd": 0}],
    ids=["tree", "function"],
)
def test_what_a_mask_leaves_out_stays(mask):
    state = jax.eval_shape(optjax.compressed(ADAM, mask=mask).init, X)
    assert {leaf for _, leaf in stored(state)} == {"w"}


def test_a_mask_of_another_structure():
    with pytest.raises(ValueError, match="mask must be a tree of bools like"):
        optjax.compressed(ADAM, mask={"w": True}).init(X)


def test_a_state_is_made_when_its_program_runs():
    """And not, for seconds, of constants while XLA compiles it."""
    init = jax.jit(optjax.compressed(ADAM).init)
    assert " reduce(" in init.lower(X).compile().as_text()


@pytest.mark.parametrize("bits", [4, 16, 32])
def test_other_bits_are_refused(bits):
    with pytest.raises(ValueError, match="bits must be"):
        optjax.compressed(ADAM, bits=bits)


@each_row
def test_every_row_keeps_its_state(case):
    """Structure, shapes and dtypes, from step to step."""
    tx = optjax.compressed(case.interior())
    state = jax.eval_shape(tx.init, X)
    updates, new = jax.eval_shape(tx.update, X, state, X)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), new) == jax.tree.map(
        lambda x: (x.shape, x.dtype), state
    )
    assert jax.tree.structure(updates) == jax.tree.structure(X)


def steps(tx, count=4, seed=0):
    """From zero along given gradients, in one donated scan."""
    rng = np.random.default_rng(seed)
    grads = jax.tree.map(
        lambda x: rng.standard_normal((count, *x.shape)).astype(np.float32), X
    )

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def run(params, state, grads):
        def body(carry, g):
            return optjax.apply_step(tx, g, carry[1], carry[0]), None

        return jax.lax.scan(body, (params, state), grads)[0]

    return run, grads


@pytest.fixture(scope="module")
def after():
    """Parameters and state of Adam in eight bits after four steps."""
    tx = optjax.compressed(ADAM)
    run, grads = steps(tx)
    return run(jax.tree.map(jnp.array, X), tx.init(X), grads)


def test_each_step_is_the_optimizers_on_what_is_read_back(after):
    """And what is stored is what it returned, to one storing's error."""
    tx = optjax.compressed(ADAM)
    params, state = after
    grads = jax.tree.map(np.sin, params)

    @jax.jit
    def both_ways(grads, state, params):
        updates, new = tx.update(grads, state, params)
        expected, wide = ADAM.update(grads, decode_leaves(state), params)
        return (updates, expected), (decode_leaves(new), wide)

    updates, states = both_ways(grads, state, params)
    for got, want in zip(*map(jax.tree.leaves, updates), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5)
    for got, want in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=0.03 * np.abs(want).max())


def test_a_checkpoint_goes_on_to_the_same_bits(after, tmp_path):
    tx = optjax.compressed(ADAM)
    run, grads = steps(tx, seed=1)
    template = jax.eval_shape(lambda: (X, tx.init(X)))
    with ocp.StandardCheckpointer() as saver:
        saver.save(tmp_path / "at", after)
        saver.wait_until_finished()
        restored = saver.restore(tmp_path / "at", template)
    assert isinstance(restored[1], CompressedState)
    whole = run(*jax.tree.map(jnp.array, after), grads)
    for got, want in zip(
        *map(jax.tree.leaves, (run(*restored, grads), whole)), strict=True
    ):
        np.testing.assert_array_equal(got, want)


def test_lanes_of_vmap_are_runs_of_their_own():
    grads = {
        name: np.sin(np.arange(x.size, dtype=x.dtype)).reshape(x.shape)
        for name, x in X.items()
    }

    def run(seed):
        tx = optjax.compressed(ADAM, seed=seed)
        return tx.update(grads, tx.init(X), X)[1]

    lanes = jax.jit(jax.vmap(run))(jnp.arange(2))
    alone = jax.jit(run)(1)
    for got, want in zip(*map(jax.tree.leaves, (lanes, alone)), strict=True):
        np.testing.assert_array_equal(got[1], want)
    codes = lanes.inner_state[0].direction.ema["w"]
    assert (codes[0] != codes[1]).any()


def test_a_bound_clips_the_decoded_rate():
    """Its band holds exactly, and in it the rate is off by what is said of √ν."""
    root = optjax.rate_by_accumulated_square(
        optjax.sum_of_squares(), eps=0.0, eps_root=0.0
    )
    tx = optax.chain(root, optjax.bound_clip(0.5, 4.0))
    rng = np.random.default_rng(0)
    nu = np.square(10 ** rng.uniform(-2, 0.5, (64, BLOCK))).astype(np.float32)
    zeros = jnp.zeros_like(nu)
    state = tx.init(zeros)
    state = (state[0]._replace(nu=jnp.asarray(nu)), *state[1:])
    small = optjax.compressed(tx)
    rate, _ = jax.jit(tx.update)(zeros, state)
    read, _ = jax.jit(small.update)(zeros, optjax.convert_state(state, small, zeros))
    rate, read = np.asarray(rate), np.asarray(read)
    assert read.min() == 0.5
    assert read.max() == 4.0
    exact = np.sqrt(nu.astype(np.float64))
    c = np.sqrt(exact / exact.max(axis=-1, keepdims=True))
    error = 2 / (255 * c) + 1 / (255 * c) ** 2
    assert (np.abs(read / rate - 1) <= error / (1 - error) + 1e-5).all()
    assert (read != rate).mean() > 0.3


STORAGES = {
    "float32": ADAM,
    "bfloat16": optjax.stochastic_rounding(ADAM),
    "eight bits": optjax.compressed(ADAM),
    "packed": optjax.packed(ADAM),
    "packed eight bits": optjax.packed(optjax.compressed(ADAM)),
}


@pytest.mark.parametrize("to", STORAGES)
@pytest.mark.parametrize("of", STORAGES)
def test_a_run_changes_its_storage(after, of, to):
    wide = decode_leaves(after[1])
    state = optjax.convert_state(wide, STORAGES[of], X)
    changed = optjax.convert_state(state, STORAGES[to], X)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), changed) == jax.tree.map(
        lambda x: (x.shape, x.dtype), jax.eval_shape(STORAGES[to].init, X)
    )
    back = optjax.convert_state(changed, ADAM, X)
    for got, want in zip(*map(jax.tree.leaves, (back, wide)), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=0.05 * np.abs(want).max())


@pytest.mark.parametrize("to", ["bfloat16", "eight bits", "packed eight bits"])
@pytest.mark.parametrize("of", STORAGES)
def test_the_noise_goes_on_where_there_was_some(of, to):
    """Begun again, it would be that of the first steps a second time."""
    tx, grads = STORAGES[of], jax.tree.map(jnp.ones_like, X)
    state = tx.init(X)
    for _ in range(3):
        _, state = tx.update(grads, state, X)
    changed = optjax.convert_state(state, STORAGES[to], X)
    counted = 0 if of in ("float32", "packed") else 3
    noise = changed.inner_state if to.startswith("packed") else changed
    assert noise.count == counted


@pytest.mark.parametrize("of", STORAGES)
def test_a_run_of_nnx_changes_its_storage(of):
    """Whose arrays are in variables, of parameters and of the optimizer's state."""
    model = nnx.Linear(64, 128, rngs=nnx.Rngs(0))
    params = nnx.state(model, nnx.Param)
    optimizer = nnx.Optimizer(model, STORAGES[of], wrt=nnx.Param)
    optimizer.update(model, params)
    found = optjax.convert_state(optimizer.opt_state, ADAM, params)
    plain = nnx.as_pure((optimizer.opt_state, params))
    expected = optjax.convert_state(plain[0], ADAM, plain[1])
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert jnp.abs(found[0].direction.ema["kernel"]).max() > 0


def test_a_state_of_another_optimizer_is_refused(after):
    with pytest.raises(ValueError, match="must be one of the same optimizer"):
        optjax.convert_state(after[1], optjax.amsgrad(0.1), X)
    with pytest.raises(ValueError, match="must be one of the same optimizer"):
        optjax.convert_state(after[1], ADAM, {**X, "b": jnp.ones(7)})
    trace = optax.trace(0.9)
    for other in ({"w": X}, None, ()):
        with pytest.raises(ValueError, match="must be one of the same optimizer"):
            optjax.convert_state(optax.TraceState({"w": other}), trace, {"w": X["b"]})


def test_scales_lie_with_their_rows():
    tx = optjax.compressed(ADAM)
    spec = P("i", "j")
    places = optjax.state_shardings(tx, X, {"w": spec, "odd": spec, "b": P("i")})
    assert places.inner_state[0].rate.nu["w"] == spec
    assert places.scales[0].rate.nu["w"] == P("i")
    # Their blocks go over the ends of rows.
    assert places.inner_state[0].rate.nu["odd"] == spec
    assert places.scales[0].rate.nu["odd"] == P()


SHARDED = """
import jax
jax.config.update("jax_num_cpu_devices", 4)
import numpy as np, optjax
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
tx = optjax.compressed(optjax.adam(0.05))
x = {"w": np.sin(np.arange(64 * 256, dtype="f4")).reshape(64, 256),
     "odd": np.cos(np.arange(64 * 130, dtype="f4")).reshape(64, 130)}
mesh = jax.make_mesh((2, 2), ("i", "j"), axis_types=(AxisType.Auto,) * 2)
places = {k: NamedSharding(mesh, P("i", "j")) for k in x}
state = optjax.state_shardings(tx, x, places)
def step(x, s):
    return optjax.apply_step(tx, x, s, x)
whole = jax.jit(lambda x: step(x, tx.init(x)))(x)
start = jax.device_put(x, places), jax.jit(tx.init, out_shardings=state)(x)
split = jax.jit(step, out_shardings=(places, state))
for a, b in zip(*map(jax.tree.leaves, (split(*start)[1], whole[1])), strict=True):
    np.testing.assert_array_equal(a, b)
print("equal")
"""


def test_shards_are_stored_as_the_whole():
    ran = run_program(SHARDED)
    assert ran.stdout.strip() == "equal", ran.stderr


def test_memory_by_part():
    x = {"w": jax.ShapeDtypeStruct((1000, 1280), jnp.float32)}
    half = optjax.memory(optjax.stochastic_rounding(ADAM), x)
    assert half.state == {
        "numbers": 12,
        "direction.ema": 2_560_000,
        "rate.nu": 2_560_000,
    }
    assert (half.size, half.params, half.total) == (1_280_000, 5_120_000, 10_240_012)
    eighth = optjax.memory(optjax.compressed(ADAM), x)
    kept = sum(eighth.state.values()) - eighth.state["numbers"]
    assert kept / eighth.size == 2 * (1 + 4 / 128)
    assert str(eighth).splitlines()[-1].endswith(" 6.06")
    none = str(optjax.memory(ADAM, {}))
    assert none.splitlines()[-1].split() == ["together", "8", "–"]


def test_memory_counts_a_state_as_it_is():
    for case in ROWS[::4]:
        use = optjax.memory(case.interior(), X)
        state = case.interior().init(X)
        assert sum(use.state.values()) == sum(x.nbytes for x in jax.tree.leaves(state))
