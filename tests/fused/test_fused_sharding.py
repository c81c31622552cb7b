"""The compiled step on several devices: the same results, and nothing is gathered."""

import compiling
import pytest
from processes import failures_of

from optjax.fused._library import fused_step_available

pytestmark = pytest.mark.skipif(
    not fused_step_available(),
    reason="no compiled step: run `python hatch_build.py`, which needs a C++ compiler",
)

PRELUDE = """
import jax
jax.config.update("jax_num_cpu_devices", 4)
import jax.numpy as jnp
import numpy as np
import optax
import optjax
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from optjax.fused._kernel import Accumulator, Coefficients, Direction, Form, Leaves
from optjax.fused._primitive import step

ADAM = Form(Direction.AVERAGE, Accumulator.AVERAGE)

def run(rate, leaves, grads):
    c = Coefficients(intake=0.1, keep=0.9, square_intake=0.1, square_keep=0.9,
                     eps=1e-8, step=rate)
    return step(ADAM, c.pack(), grads, leaves)

def check(result, expected):
    for got, want in zip(
        jax.tree.leaves(result), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(got, want, rtol=1e-6)

def example(*batch):
    rng = np.random.default_rng(0)
    params = [
        jnp.asarray(rng.standard_normal((*batch, *shape)), jnp.float32)
        for shape in [(8, 6), (5,), (), (7, 4), (4, 0)]
    ]
    m = [p + 1 for p in params]
    return Leaves(params, m, [p * p for p in m], None), [2 * p for p in params]

def update_and_apply(tx, grads, state, params):
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state

mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,))
SPECS = [("d",), (), (), (None, "d"), ("d",)]

def put(tree, *batch, mesh=mesh, specs=SPECS):
    return jax.tree.map(
        lambda column: [
            jax.device_put(x, NamedSharding(mesh, P(*batch, *spec)))
            for x, spec in zip(column, specs, strict=True)
        ],
        tree,
        is_leaf=lambda x: isinstance(x, list),
    )

def check_hlo(hlo):
    for name in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
        assert name not in hlo, hlo
    assert "f32[4,6]" in hlo and "f32[8,6]" not in hlo, hlo
    assert hlo.count('"optjax_step"') == 1, hlo
"""

# About memory and bits, so compiled as for users.
AS_FOR_USERS = {
    "shards are updated in place where they are": """
leaves, grads = example()
# XLA makes a constant of the leaf without elements, and "copies" it.
leaves, grads = Leaves(*(c and c[:4] for c in leaves)), grads[:4]
expected = jax.jit(run)(0.1, leaves, grads)
sharded, grads = (put(x, specs=SPECS[:4]) for x in (leaves, grads))
where = [x.sharding for x in jax.tree.leaves(sharded)]
on_shards = jax.jit(run, donate_argnums=1)
hlo = on_shards.lower(0.1, sharded, grads).compile().as_text()
check_hlo(hlo)
assert " copy(" not in hlo, hlo
result = on_shards(0.1, sharded, grads)
check(result, expected)
for x, sharding in zip(jax.tree.leaves(result), where, strict=True):
    assert x.sharding.is_equivalent_to(sharding, x.ndim)
""",
    "apply_step": """
tx = optjax.adabound(0.1, gamma=0.5)
params = dict(zip("abcd", example()[0].params))
grads = jax.tree.map(lambda x: 2 * x, params)

def step(params, state, grads):
    return optjax.apply_step(tx, grads, state, params)

expected = jax.jit(step)(params, tx.init(params), grads)
specs = dict(zip("abcd", SPECS))
def split(tree):
    return {k: jax.device_put(x, NamedSharding(mesh, P(*specs[k])))
            for k, x in tree.items()}
params, grads = split(params), split(grads)
state = jax.jit(tx.init)(params)
state = jax.tree.map(
    lambda leaf: split(leaf) if isinstance(leaf, dict)
    else jax.device_put(leaf, NamedSharding(mesh, P())),
    state, is_leaf=lambda leaf: isinstance(leaf, dict))
step = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, grads).compile()
hlo = step.as_text()
check_hlo(hlo)
# XLA may copy the counts, but no array.
copies = [line for line in hlo.splitlines() if " copy(" in line]
assert all("s32[] copy(" in line for line in copies), copies
params, state = step(params, state, grads)
check((params, state), expected)
assert params["a"].sharding.spec == P("d"), params["a"].sharding
""",
    "shards round as the whole": """
tx = optjax.stochastic_rounding(optjax.adam(0.1), seed=2)
x = jnp.linspace(-1.0, 1.0, 64 * 32).reshape(64, 32)
placed = jax.device_put(x, NamedSharding(mesh, P(None, "d")))
step = jax.jit(lambda x: optjax.apply_step(tx, x, tx.init(x), x))
whole, parts = step.lower(x), step.lower(placed).compile()
assert "optjax_step" in whole.as_text()
assert "all-gather" not in parts.as_text()
for a, b in zip(*map(jax.tree.leaves, (step(x)[1], parts(placed)[1]))):
    np.testing.assert_array_equal(a, b)
""",
}

CASES = {
    "gradients that lie otherwise move": """
leaves, grads = example()
expected = jax.jit(run)(0.1, leaves, grads)
result = jax.jit(run)(0.1, put(leaves), grads)
check(result, expected)
assert result.m[0].sharding.spec == P("d"), result.m[0].sharding
""",
    "many steps in one scan": """
leaves, grads = example()
def steps(leaves, grads):
    return jax.lax.scan(
        lambda leaves, rate: (run(rate, leaves, grads), None),
        leaves,
        jnp.array([0.1, 0.2, 0.3]),
    )[0]
check(jax.jit(steps)(put(leaves), put(grads)), jax.jit(steps)(leaves, grads))
""",
    "a batch, its leaves sharded": """
rates = jnp.array([0.1, 0.2, 0.3, 0.4])
leaves, grads = example(4)
batched = jax.jit(jax.vmap(run))
expected = batched(rates, leaves, grads)
arguments = rates, put(leaves, None), put(grads, None)
hlo = batched.lower(*arguments).compile().as_text()
assert "f32[4,4,6]" in hlo and "f32[4,8,6]" not in hlo, hlo
check(batched(*arguments), expected)
""",
    "a batch, itself sharded": """
everywhere = [()] * 5
rates = jnp.array([0.1, 0.2, 0.3, 0.4])
leaves, grads = example(4)
batched = jax.jit(jax.vmap(run))
expected = batched(rates, leaves, grads)
rates = jax.device_put(rates, NamedSharding(mesh, P("d")))
arguments = rates, *(put(x, "d", specs=everywhere) for x in (leaves, grads))
hlo = batched.lower(*arguments).compile().as_text()
assert "f32[2,8,6]" in hlo and "f32[4,8,6]" not in hlo, hlo
assert "all-gather" not in hlo and hlo.count('"optjax_step"') == 1, hlo
check(batched(*arguments), expected)
""",
    "inside shard_map": """
leaves, grads = example()
expected = jax.jit(run)(0.1, leaves, grads)
specs = [P(*spec) for spec in SPECS]
columns = Leaves(specs, specs, specs, None)
mapped = jax.jit(
    jax.shard_map(
        run, mesh=mesh, in_specs=(P(), columns, specs), out_specs=columns
    )
)
check(mapped(0.1, put(leaves), put(grads)), expected)
""",
    "axes that are explicit": """
leaves, grads = example()
expected = jax.jit(run)(0.1, leaves, grads)
explicit = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Explicit,))
arguments = put(leaves, mesh=explicit), put(grads, mesh=explicit)
with jax.set_mesh(explicit):
    check_hlo(jax.jit(run).lower(0.1, *arguments).compile().as_text())
    result = jax.jit(run)(0.1, *arguments)
check(result, expected)
assert result.params[0].sharding.spec == P("d", None), result.params[0].sharding
""",
    "packed state": """
tx = optjax.packed(optjax.adam(0.1))
params = {"a": jnp.arange(6.0), "b": jnp.ones((4, 2))}
step = jax.jit(lambda x, state: optjax.apply_step(tx, x, state, x))
expected = step(params, tx.init(params))
places = {"a": P(), "b": P("d")}
split = {
    k: jax.device_put(x, NamedSharding(mesh, places[k])) for k, x in params.items()
}
check(step(split, tx.init(split)), expected)
""",
}

SQUARE = """
def square(kind):
    return jax.make_mesh((2, 2), ("data", "model"), axis_types=(kind,) * 2)

x = {"a": jnp.arange(16.0).reshape(4, 4) + 1, "b": jnp.ones(4)}
tx = optjax.adam(0.1)
s = tx.init(x)

def compare(mapped, *operands):
    got, want = map(jax.jit, map(mapped, (optjax.apply_step, update_and_apply)))
    check(got(*operands), want(*operands))
    return got.lower(*operands).as_text()
"""
MAPPED = {
    "shard_map over some axes only": """
double = jax.tree.map(lambda x: jnp.concatenate([x, 3 * x]), x)
for kind in (AxisType.Auto, AxisType.Explicit):
    for check_vma in (False, True):
        def mapped(step):
            return jax.shard_map(
                lambda g, s, x: step(tx, jax.lax.pmean(g, "data"), s, x),
                mesh=square(kind), in_specs=(P("data"), P(), P()), out_specs=P(),
                axis_names={"data"}, check_vma=check_vma,
            )
        with jax.set_mesh(square(kind)):
            assert "custom_call @optjax_step" not in compare(mapped, double, s, x)
""",
    "shard_map over all axes": """
double = jax.tree.map(lambda x: jnp.concatenate([x, 3 * x]), x)
for check_vma in (False, True):
    def mapped(step):
        return jax.shard_map(
            lambda g, s, x: step(tx, jax.lax.pmean(g, "data"), s, x),
            mesh=square(AxisType.Auto), in_specs=(P("data"), P(), P()), out_specs=P(),
            check_vma=check_vma,
        )
    assert "custom_call @optjax_step" in compare(mapped, double, s, x)
""",
    "shard_map, each shard its own": """
def mapped(step):
    def local(g, s, x):
        # "a" varies over the mesh and "b" does not.
        return step(tx, g, s, x)
    specs = {"a": P("data", "model"), "b": P()}
    state = jax.tree.map(
        lambda leaf: specs if isinstance(leaf, dict) else P(),
        s, is_leaf=lambda leaf: isinstance(leaf, dict))
    return jax.shard_map(local, mesh=square(AxisType.Auto),
                         in_specs=(specs, state, specs), out_specs=(specs, state))
assert "custom_call @optjax_step" in compare(mapped, x, s, x)
""",
}
CASES |= {name: SQUARE + program for name, program in MAPPED.items()}


@pytest.fixture(scope="module")
def failures():
    cheaply = {"XLA_FLAGS": compiling.flags()}
    return failures_of(AS_FOR_USERS, PRELUDE) | failures_of(
        CASES, PRELUDE, environment=cheaply
    )


@pytest.mark.parametrize("case", [*AS_FOR_USERS, *CASES])
def test_on_several_devices(case, failures):
    assert case not in failures, failures[case]
