"""Elasticities: exact where they are known, and central differences everywhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rows import CASES

import optjax

# Sizes so different that rates are at both bounds and between, and no two knobs alike.
PARAMS = np.array([[0.5, -1.0, 2.0], [1.5, 0.2, -0.3]])
GRADS = np.array(
    [
        [[0.3, -0.02, 1.1], [-0.7, 0.004, 0.06]],
        [[-0.1, 0.05, 0.8], [0.4, 0.02, -0.09]],
        [[0.6, 0.03, -0.2], [-0.3, 0.001, 0.3]],
        [[0.2, -0.04, 0.5], [0.1, 0.03, 0.2]],
    ]
)
STEPS = len(GRADS)
H = 1e-5


def path_of(case):
    """The parameters before each step."""
    tx, params = case.interior(), jnp.asarray(PARAMS)
    state, path = tx.init(params), []
    for g in jnp.asarray(GRADS):
        path.append(params)
        update, state = tx.update(g, state, params)
        params = params + update
    return path


def steps_of(case, path, turned, e):
    """The updates along a path with one knob turned by e."""
    hyper = case.hyperparameters()
    if turned in hyper:
        hyper[turned] = hyper[turned] * np.exp(e)
    tx = case.factory(**hyper)
    state, updates = tx.init(path[0]), []
    for g, x in zip(jnp.asarray(GRADS), path, strict=True):
        scaled = g * np.exp(e) if turned == "gradients" else g
        at = x * np.exp(e) if turned == "parameters" else x
        update, state = tx.update(scaled, state, at)
        updates.append(np.asarray(update))
    return np.array(updates)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_number_of_every_row(case):
    with jax.enable_x64(True):
        found = optjax.audit(
            case.factory, case.hyperparameters(), GRADS, PARAMS, steps=STEPS
        )["overall"]
        path = path_of(case)
        update = steps_of(case, path, "", 0.0)
        whole = np.sum(update**2)
        for name in (*case.hyperparameters(), "gradients", "parameters"):
            above, below = (steps_of(case, path, name, e) for e in (H, -H))
            tangent = (above - below) / (2 * H)
            elasticity = np.sum(update * tangent) / whole
            rest = [
                dx - u * np.sum(u * dx) / max(np.sum(u**2), 1e-300)
                for u, dx in zip(update, tangent, strict=True)
            ]
            turn = np.sqrt(np.sum(np.square(rest)) / whole)
            np.testing.assert_allclose(
                found[name].elasticity, elasticity, 0, 1e-6, err_msg=name
            )
            np.testing.assert_allclose(found[name].turn, turn, 0, 1e-6, err_msg=name)
