"""apply_step over two processes of `jax.distributed`: each updates its own shards.

Two real processes, one device each, agree with `update` and `apply_updates` in one
process without a mesh, whatever is sharded and however.
"""

import subprocess

import pytest
from processes import pair

import optjax

pytestmark = [
    pytest.mark.usefixtures("cheaply_compiled"),
    pytest.mark.skipif(
        not optjax.fused_step_available(),
        reason="no compiled step: run `python hatch_build.py`, which needs a compiler",
    ),
]

PROGRAM = """
import sys
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
import optjax

jax.config.update("jax_num_cpu_devices", 1)
jax.distributed.initialize(f"127.0.0.1:{sys.argv[1]}", 2, int(sys.argv[2]))
mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,))
SPECS = {"rows": P("d"), "columns": P(None, "d"), "everywhere": P(), "number": P()}
SHAPES = {"rows": (8, 6), "columns": (3, 4), "everywhere": (5,), "number": ()}
ROWS = {
    "sgd": optjax.sgd(0.1, momentum=0.9, nesterov=True),
    "adamw": optjax.adamw(0.1, weight_decay=0.1),
    "amsbound": optjax.amsbound(0.1, gamma=0.1, weight_decay=0.01),
}

def values(seed):
    rng = np.random.default_rng(seed)
    return {k: rng.standard_normal(s).astype(np.float32) for k, s in SHAPES.items()}

def spread(tree):
    return {
        k: jax.make_array_from_callback(
            x.shape, NamedSharding(mesh, SPECS[k]), lambda index, x=x: x[index]
        )
        for k, x in tree.items()
    }

def in_two_calls(tx, grads, state, params):
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state

def train(step, params, all_grads):
    # All rows in one program, whose compilation is most of the time.
    def run(params, states, grads):
        after = {
            name: step(tx, grads, states[name], params[name])
            for name, tx in ROWS.items()
        }
        return tuple({k: pair[i] for k, pair in after.items()} for i in (0, 1))

    init = jax.jit(lambda params: {name: tx.init(params) for name, tx in ROWS.items()})
    states, params = init(params), dict.fromkeys(ROWS, params)
    run = jax.jit(run).lower(params, states, all_grads[0]).compile()
    for grads in all_grads:
        params, states = run(params, states, grads)
    return run.as_text(), params

start, path = values(0), [values(1 + i) for i in range(4)]
_, expected = train(in_two_calls, start, path)
hlo, after = train(optjax.apply_step, spread(start), [spread(g) for g in path])
assert hlo.count('"optjax_step"') == len(ROWS) and "all-gather" not in hlo, hlo
for name, params in after.items():
    for key, x in params.items():
        assert x.sharding.is_equivalent_to(NamedSharding(mesh, SPECS[key]), x.ndim)
        for shard in x.addressable_shards:
            # Of the steps' size, 0.1, too: a parameter may have come to nearly 0.
            np.testing.assert_allclose(
                shard.data,
                expected[name][key][shard.index],
                rtol=1e-6,
                atol=1e-7,
                err_msg=name,
            )
print("equal")
"""


def test_two_processes_update_their_own_shards():
    with pair(
        lambda port, rank: ("-c", PROGRAM, port, rank), stdout=subprocess.PIPE
    ) as processes:
        for process in processes:
            out, error = process.communicate(timeout=300)
            assert process.returncode == 0, error
            assert out.strip() == "equal"
