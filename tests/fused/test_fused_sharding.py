"""The compiled step on two devices: the same results, and nothing is gathered."""

import os
import subprocess

import pytest
import ready

from optjax.fused._library import fused_step_available

pytestmark = pytest.mark.skipif(
    not fused_step_available(),
    reason="no compiled step: run `python hatch_build.py`, which needs a C++ compiler",
)

PRELUDE = """
import jax
jax.config.update("jax_num_cpu_devices", 2)
import jax.numpy as jnp
import numpy as np
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

mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,))
SPECS = [("d",), (), (), (None, "d"), ("d",)]

def put(tree, *batch, mesh=mesh):
    return jax.tree.map(
        lambda column: [
            jax.device_put(x, NamedSharding(mesh, P(*batch, *spec)))
            for x, spec in zip(column, SPECS, strict=True)
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

CASES = {
    "shards are updated in place where they are": """
leaves, grads = example()
# XLA makes a constant of the leaf without elements, and "copies" it.
leaves, grads = Leaves(*(c and c[:4] for c in leaves)), grads[:4]
SPECS = SPECS[:4]
expected = jax.jit(run)(0.1, leaves, grads)
sharded, grads = put(leaves), put(grads)
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
SPECS = [()] * 5
rates = jnp.array([0.1, 0.2, 0.3, 0.4])
leaves, grads = example(4)
batched = jax.jit(jax.vmap(run))
expected = batched(rates, leaves, grads)
rates = jax.device_put(rates, NamedSharding(mesh, P("d")))
arguments = rates, put(leaves, "d"), put(grads, "d")
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
}


@pytest.mark.parametrize("case", CASES)
def test_on_two_devices(case):
    result = subprocess.run(
        [*ready.python(), "-c", PRELUDE + CASES[case]],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
