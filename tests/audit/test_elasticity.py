"""Elasticities: exact where they are known, and central differences everywhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import jit
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


def stepper(case):
    """One step with every knob turned by its e, compiled once for all of them."""

    @jit
    def step(e, gradient, params, state):
        hyper = case.hyperparameters()
        hyper = {name: value * jnp.exp(e[name]) for name, value in hyper.items()}
        gradient, params = (
            gradient * jnp.exp(e["gradients"]),
            params * jnp.exp(e["parameters"]),
        )
        return case.factory(**hyper).update(gradient, state, params)

    return step


def start(case, e):
    hyper = case.hyperparameters()
    hyper = {name: value * np.exp(e[name]) for name, value in hyper.items()}
    return case.factory(**hyper).init(jnp.asarray(PARAMS))


def path_of(case, step, still):
    """The parameters before each step."""
    params, state, path = jnp.asarray(PARAMS), start(case, still), []
    for g in jnp.asarray(GRADS):
        path.append(params)
        update, state = step(still, g, params, state)
        params = params + update
    return path


def steps_of(case, step, path, e):
    """The updates along a path with knobs turned."""
    state, updates = start(case, e), []
    for g, x in zip(jnp.asarray(GRADS), path, strict=True):
        update, state = step(e, g, x, state)
        updates.append(np.asarray(update))
    return np.array(updates)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_number_of_every_row(case):
    with jax.enable_x64(True):
        found = optjax.audit(
            case.factory, case.hyperparameters(), GRADS, PARAMS, steps=STEPS
        )["overall"]
        step = stepper(case)
        still = dict.fromkeys((*case.hyperparameters(), "gradients", "parameters"), 0.0)
        path = path_of(case, step, still)
        update = steps_of(case, step, path, still)
        whole = np.sum(update**2)
        for name in still:
            above, below = (
                steps_of(case, step, path, {**still, name: e}) for e in (H, -H)
            )
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
