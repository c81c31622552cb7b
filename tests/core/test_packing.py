"""Packed state: the optimizer's own numbers in few arrays, and where that holds."""

import functools

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from compiling import jit
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import optjax
from optjax._packing import Elsewhere, PackedState, unpack
from optjax.monitoring._summary import Tables, read_tables

ADAM = optjax.adam(0.1)
SHAPES = {"in": {"w": (2, 2, 3), "b": (4,)}, "k": (2, 2, 3), "s": ()}


def draw(seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: np.asarray(rng.standard_normal(shape), np.float32),
        SHAPES,
        is_leaf=lambda x: isinstance(x, tuple),
    )


X, GRADS = draw(0), [draw(1), draw(2), draw(3), draw(4)]
MASK = {"in": {"w": True, "b": True}, "k": False, "s": True}
LABELS = {"in": {"w": "a", "b": "a"}, "k": "b", "s": "a"}


def assert_equal(actual, expected, rtol=0.0):
    """To the bit, or within rtol of a leaf's largest: XLA may fuse in another way."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for got, want in zip(*map(jax.tree.leaves, (actual, expected)), strict=True):
        assert got.dtype == want.dtype
        got, want = np.float64(got), np.float64(want)
        np.testing.assert_allclose(got, want, 0, rtol * np.abs(want).max(initial=0))


def train(tx, grads=GRADS, carry=None):
    state = tx.init(X) if carry is None else carry
    updates = []
    for g in grads:
        update, state = tx.update(g, state, X)
        updates.append(update)
    return updates, state


@pytest.mark.parametrize(
    "row", ["momentum", "nadam", "amsbound", "graftbound", "adashift", "swats"]
)
def test_the_numbers_are_the_optimizers_to_the_bit(row):
    own = optjax.OPTIMIZERS[row].factory(0.1)
    packed = optjax.packed(own)
    expected, state = train(own, GRADS[:2])
    updates, small = train(packed, GRADS[:2])
    assert_equal(updates, expected)
    assert small.packed
    assert_equal(optjax.convert_state(small, own, X), state)
    assert_equal(optjax.convert_state(state, packed, X), small)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tx: optax.masked(tx(ADAM), MASK),
        lambda tx: tx(optax.masked(ADAM, MASK)),
        lambda tx: tx(optax.partition({"a": ADAM, "b": optjax.yogi(0.1)}, LABELS)),
        lambda tx: tx(optax.inject_hyperparams(optjax.adam)(0.1)),
        lambda tx: optax.MultiSteps(tx(ADAM), 2),
        lambda tx: optax.chain(optax.clip(1.0), tx(ADAM)),
        lambda tx: tx(optjax.stochastic_rounding(ADAM)),
        lambda tx: optjax.monitor(tx(ADAM), every=2),
    ],
    ids=[
        *("masked outside", "masked inside", "partition", "inject_hyperparams"),
        *("MultiSteps", "chain", "stochastic_rounding", "monitor"),
    ],
)
def test_within_and_around_other_wrappers(wrap):
    def run(tx):
        def step(state, g):
            updates, state = tx.update(g, state, X)
            return state, updates

        grads = jax.tree.map(lambda *g: np.stack(g), *GRADS)
        return jit(lambda: jax.lax.scan(step, tx.init(X), grads))()

    own = wrap(lambda tx: tx)
    state, updates = run(wrap(optjax.packed))
    expected_state, expected = run(own)
    assert_equal(updates, expected, rtol=1e-6)

    def is_packed(node):
        return isinstance(node, PackedState)

    nodes, structure = jax.tree.flatten(state, is_leaf=is_packed)
    assert sum(map(is_packed, nodes)) == 1
    nodes = [unpack(node, X) if is_packed(node) else node for node in nodes]
    # A number of eight bits may be rounded the other way.
    unpacked = structure.unflatten(nodes)
    assert_equal(*map(summaries_read, (unpacked, expected_state)), rtol=2**-7)


def summaries_read(state):
    """With each field of a monitor's summaries by itself."""

    def is_tables(node):
        return isinstance(node, Tables)

    return jax.tree.map(
        lambda node: read_tables(node) if is_tables(node) else node,
        state,
        is_leaf=is_tables,
    )


def test_lanes_of_vmap_are_runs_of_their_own():
    def run(rate):
        return train(optjax.packed(optjax.adam(rate)), GRADS[:2])

    lanes = jax.jit(jax.vmap(run))(jnp.array([0.1, 0.01]))
    alone = jax.jit(run)(0.01)
    assert_equal(jax.tree.map(lambda x: x[1], lanes), alone, rtol=1e-6)


def test_checkpoints_go_on_to_the_same_bits(tmp_path):
    tx = optjax.packed(ADAM)
    go_on = jax.jit(functools.partial(train, tx))
    _, state = go_on(GRADS[:2], tx.init(X))
    expected = go_on(GRADS[2:], state)
    with ocp.StandardCheckpointer() as saver:
        saver.save(tmp_path / "orbax", state)
        saver.wait_until_finished()
        by_orbax = saver.restore(tmp_path / "orbax", jax.eval_shape(lambda: tx.init(X)))
    as_bytes = flax.serialization.to_bytes(state)
    by_flax = flax.serialization.from_bytes(tx.init(X), as_bytes)
    for restored in (by_orbax, by_flax):
        assert_equal(go_on(GRADS[2:], restored), expected)


def test_what_is_packed():
    params = {
        "large": jnp.ones(100),
        "kept": jnp.ones(2),
        "half": jnp.ones(3, jnp.bfloat16),
        "one": jnp.ones((2, 1)),
        "two": jnp.ones(4),
    }
    mask = {name: name != "kept" for name in params}
    tx = optjax.packed(ADAM, below=100, mask=mask)
    state = tx.init(params)
    ema = state.inner_state[0].direction.ema
    apart = {name for name, leaf in ema.items() if not isinstance(leaf, Elsewhere)}
    assert apart == {"large", "kept", "half"}
    sizes = {name: array.size for name, array in state.packed.items()}
    assert sizes == {"0.direction.ema": 6, "0.rate.nu": 6}
    assert optjax.memory(tx, params).total == optjax.memory(ADAM, params).total
    # A tree of one has nothing to pack.
    assert optjax.packed(ADAM).init(jnp.ones(3)).packed == {}


def test_what_is_split_on_an_explicit_mesh_stays():
    mesh = jax.make_mesh((1,), ("d",), axis_types=(AxisType.Explicit,))
    split = jax.device_put(jnp.ones((4, 2)), NamedSharding(mesh, P("d")))
    whole = jax.device_put(jnp.ones((2, 4)), NamedSharding(mesh, P()))
    params = {"a": split, "b": whole, "c": whole}
    tx = optjax.packed(ADAM)
    for init in (tx.init, lambda params: jax.eval_shape(tx.init, params)):
        state = init(params)
        assert state.packed["0.rate.nu"].shape == (16,)
        assert state.inner_state[0].rate.nu["a"].shape == (4, 2)


def test_a_packed_array_lies_on_every_device():
    tx = optjax.packed(ADAM)
    places = optjax.state_shardings(tx, X, jax.tree.map(lambda _: P(), X))
    assert set(jax.tree.leaves(places)) == {P()}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({**X, "s": jnp.ones(2)}, "numbers of 0.direction.ema"),
        ({"in": X["in"], "k": X["k"]}, r"the state at .*\['s'\] is packed"),
    ],
    ids=["another shape", "a leaf less"],
)
def test_other_gradients_are_refused(params, message):
    tx = optjax.packed(ADAM)
    with pytest.raises(ValueError, match=message):
        tx.update(params, tx.init(X), params)


def test_in_flax_nnx():
    def trained(tx):
        model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
        optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

        @nnx.jit
        def step(model, optimizer):
            grads = nnx.grad(lambda m: jnp.sum(m(jnp.ones((1, 3))) ** 2))(model)
            optimizer.update(model, grads)

        for _ in range(2):
            step(model, optimizer)
        return nnx.to_pure_dict(nnx.state(model, nnx.Param))

    assert_equal(trained(optjax.packed(ADAM)), trained(ADAM), rtol=1e-6)
