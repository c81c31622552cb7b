"""apply_step under export, other platforms, checkify and jet."""

import functools
import math
import os
import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental import checkify, jet, serialize_executable

import optjax

pytestmark = [
    pytest.mark.usefixtures("cheaply_compiled"),
    pytest.mark.skipif(
        not optjax.fused_step_available(),
        reason="no compiled step: run `python hatch_build.py`, which needs a compiler",
    ),
]

ROWS = {
    "sgd": optjax.sgd(0.1),
    "nesterov": optjax.sgd(0.1, 0.9, True),
    "adam": optjax.adam(0.1),
    "amsbound": optjax.amsbound(0.1, gamma=0.1, weight_decay=0.1),
    "adamw": optjax.adamw(0.1, weight_decay=0.1),
}
X = jnp.array([1.0, -2.0, 0.5])


def update_and_apply(tx, grads, state, params):
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state


def step_of(step, tx):
    return jax.jit(lambda grads, state, params: step(tx, grads, state, params))


@functools.cache
def expected_of(row):
    """The step by `update`, once for all tests."""
    return step_of(update_and_apply, ROWS[row])


def assert_close(actual, expected, rtol=1e-6, atol=1e-7):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for got, want in zip(
        jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(got, want, rtol=rtol, atol=atol)


def run(program, *arguments):
    result = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("platforms", [["cpu"], ["cuda"], ["tpu"], ["cpu", "cuda"]])
def test_export_for_any_platform(row, platforms):
    """As the step in JAX: what is exported runs where optjax is not installed."""
    tx = ROWS[row]
    operands = X, tx.init(X), X
    export = jax.export.export(step_of(optjax.apply_step, tx), platforms=platforms)
    exported = export(*operands)
    assert "custom_call @" not in exported.mlir_module()
    if "cpu" in platforms:
        assert_close(exported.call(*operands), expected_of(row)(*operands))


def test_an_exported_step_runs_without_optjax(tmp_path):
    pytest.importorskip("flatbuffers")
    tx = ROWS["adam"]
    leaves, tree = jax.tree.flatten((X, tx.init(X), X))

    def step(*leaves):
        return jax.tree.leaves(optjax.apply_step(tx, *jax.tree.unflatten(tree, leaves)))

    exported = jax.export.export(jax.jit(step), platforms=["cpu", "cuda"])(*leaves)
    (tmp_path / "step").write_bytes(exported.serialize())
    np.savez(tmp_path / "leaves.npz", *map(np.asarray, leaves))
    program = """
import pathlib, sys, jax, numpy as np
folder = pathlib.Path(sys.argv[1])
step = jax.export.deserialize(bytearray((folder / "step").read_bytes()))
leaves = list(np.load(folder / "leaves.npz").values())
np.savez(folder / "new.npz", *step.call(*leaves))
assert "optjax" not in sys.modules
"""
    run(program, str(tmp_path))
    new = list(np.load(tmp_path / "new.npz").values())
    assert_close(new, [np.asarray(leaf) for leaf in step(*leaves)])


@pytest.mark.parametrize("platforms", [("cuda",), ("tpu",), ("cpu",), ("cpu", "cuda")])
def test_lowered_for_another_platform(platforms):
    """The CPU's program calls the compiled step, and no other program does."""
    tx = ROWS["adam"]
    traced = step_of(optjax.apply_step, tx).trace(X, tx.init(X), X)
    text = traced.lower(lowering_platforms=platforms).as_text()
    assert text.count("custom_call @optjax_step") == ("cpu" in platforms)


def test_a_deserialized_executable_finds_the_step(tmp_path):
    """After `import optjax` alone."""
    tx = optjax.adam(0.0234)
    operands = X, tx.init(X), X
    # No other test compiles this program, and it is not kept for the next run: what
    # comes from JAX's cache of programs does not survive being serialized again.
    least = "jax_persistent_cache_min_compile_time_secs"
    before = getattr(jax.config, least)
    jax.config.update(least, math.inf)
    try:
        step = step_of(optjax.apply_step, tx).lower(*operands).compile()
    finally:
        jax.config.update(least, before)
    assert "optjax_step" in step.as_text()
    payload = serialize_executable.serialize(step)[0]
    expected = [np.asarray(x) for x in jax.tree.leaves(step(*operands))]
    (tmp_path / "step").write_bytes(pickle.dumps((payload, expected)))
    program = """
import pathlib, pickle, sys
import jax, jax.numpy as jnp, numpy as np
import optjax
assert "flax" not in sys.modules
payload, expected = pickle.loads(pathlib.Path(sys.argv[1], "step").read_bytes())
tx, x = optjax.adam(0.1), jnp.array([1.0, -2.0, 0.5])
operands = x, tx.init(x), x
out = jax.tree.structure((x, tx.init(x)))
from jax.experimental.serialize_executable import deserialize_and_load
step = deserialize_and_load(payload, jax.tree.structure((operands, {})), out)
for got, want in zip(jax.tree.leaves(step(*operands)), expected, strict=True):
    np.testing.assert_array_equal(got, want)
"""
    run(program, str(tmp_path))


@pytest.mark.parametrize("row", ROWS)
def test_checkify_sees_nan_in_the_step(row):
    tx = ROWS[row]
    checked = jax.jit(
        checkify.checkify(
            lambda *operands: optjax.apply_step(tx, *operands),
            errors=checkify.nan_checks,
        )
    )
    x, state, with_nan = np.asarray(X), tx.init(X), np.array([np.nan, -2.0, 0.5], "f4")
    for grads, params in [(x, x), (with_nan, x), (x, with_nan)]:
        operands = grads, state, params
        error, result = checked(*operands)
        has_nan = grads is with_nan or params is with_nan
        assert ("nan generated" in (error.get() or "")) == has_nan
        assert_close(result, expected_of(row)(*operands))


@pytest.mark.parametrize("row", ROWS)
def test_jet(row):
    """Two derivatives of the new parameters along a line of gradients."""
    tx = ROWS[row]

    @jax.jit
    def both_ways(state):
        def along(step):
            return lambda t: step(tx, X + t, state, X)[0]

        value, series = jet.jet(along(optjax.apply_step), (0.0,), ([1.0, 0.0],))
        expected = along(update_and_apply)
        first = jax.jacfwd(expected)
        return (value, series), (expected(0.0), [first(0.0), jax.jacfwd(first)(0.0)])

    (value, series), (expected, derivatives) = both_ways(tx.init(X))
    assert_close(value, expected)
    assert_close(series, derivatives, rtol=1e-4, atol=1e-6)
