"""Whether an installed optjax works: python .ci/smoke.py [kernel | pure]

It needs nothing but what the package itself asks for, and must not run in a checkout's
root. With `kernel` the compiled step has to be there, with `pure` it must not.
"""

import importlib.metadata
import subprocess
import sys
import sysconfig
from pathlib import Path

import jax
import jax.numpy as jnp
import optax

import optjax

place = Path(optjax.__file__).parent
assert place.parent != Path(__file__).parents[1], (
    "this is the checkout, not the package"
)
assert importlib.metadata.version("optjax") == optjax.__version__

wanted = {"kernel": True, "pure": False}.get((sys.argv[1:] or [""])[0])
available = optjax.fused_step_available()
assert wanted is None or available == wanted, f"compiled step: {available}"

# Every row takes a step down, by update and by the compiled step, to the same place.
x = {"a": jnp.array([3.0, -1.0]), "b": jnp.ones((2, 3))}
for name, row in optjax.OPTIMIZERS.items():
    tx = row.factory(learning_rate=1e-2)
    state = tx.init(x)
    updates, after = tx.update(x, state, x)
    plain = optax.apply_updates(x, updates)
    stepped, _ = jax.jit(lambda g, s, x, tx=tx: optjax.apply_step(tx, g, s, x))(
        x, state, x
    )
    for one, other in zip(
        jax.tree.leaves(plain), jax.tree.leaves(stepped), strict=True
    ):
        assert jnp.allclose(one, other, rtol=1e-5), name
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((plain, after))), (
        name
    )

tx = optjax.monitor(optjax.adabound(1e-3, gamma=1.0), every=5)
state = tx.init(x)
for _ in range(20):
    updates, state = tx.update(x, state, x)
assert optjax.transition(optjax.read_report(state))["overall"] is not None

# What is not installed is named in one line.
try:
    importlib.metadata.version("tyro")
except importlib.metadata.PackageNotFoundError:
    command = Path(sysconfig.get_path("scripts"), "optjax")
    ran = subprocess.run([command, "race"], capture_output=True, text=True)
    assert ran.returncode != 0
    assert "Traceback" not in ran.stderr, ran.stderr
    assert "pip install" in ran.stderr, ran.stderr

print(f"optjax {optjax.__version__} works, compiled step: {available}, in {place}")
