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


def paths(case, changes):
    """The updates with every knob turned by its e, a row of changes each.

    All along the path of the first, in one program. Of shape (steps, rows, 2, 3).
    """
    numbers = case.hyperparameters()

    def made(e):
        turned = {
            name: n * jnp.exp(e[i]) for i, (name, n) in enumerate(numbers.items())
        }
        return case.factory(**turned)

    def one(e, state, gradient, params):
        gradient, params = gradient * jnp.exp(e[-2]), params * jnp.exp(e[-1])
        return made(e).update(gradient, state, params)

    def step(carry, gradient):
        states, params = carry
        each = jax.vmap(one, in_axes=(0, 0, None, None))
        updates, states = each(changes, states, gradient, params)
        return (states, params + updates[0]), updates

    @jit
    def run(params, gradients):
        states = jax.vmap(lambda e: made(e).init(params))(changes)
        return jax.lax.scan(step, (states, params), gradients)[1]

    return np.asarray(run(PARAMS, GRADS))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_number_of_every_row(case):
    with jax.enable_x64(True):
        found = optjax.audit(
            case.factory, case.hyperparameters(), GRADS, PARAMS, steps=STEPS
        )["overall"]
        names = *case.hyperparameters(), "gradients", "parameters"
        turns = H * np.eye(len(names))
        updates = paths(case, np.concatenate([0 * turns[:1], turns, -turns]))
    update, above, below = np.split(updates, [1, 1 + len(names)], axis=1)
    whole = np.sum(update**2)
    for name, tangent in zip(
        names, np.moveaxis((above - below) / (2 * H), 1, 0), strict=True
    ):
        elasticity = np.sum(update[:, 0] * tangent) / whole
        rest = [
            dx - u * np.sum(u * dx) / max(np.sum(u**2), 1e-300)
            for u, dx in zip(update[:, 0], tangent, strict=True)
        ]
        turn = np.sqrt(np.sum(np.square(rest)) / whole)
        np.testing.assert_allclose(
            found[name].elasticity, elasticity, 0, 1e-6, err_msg=name
        )
        np.testing.assert_allclose(found[name].turn, turn, 0, 1e-6, err_msg=name)
