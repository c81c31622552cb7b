"""Elasticities: exact where they are known, and central differences everywhere."""

import jax
import numpy as np
from rows import each_case

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


def updates(case, places=None, *, gradients=0.0, parameters=0.0, **e):
    """By the row's rule in NumPy with numbers turned by e, and where they were taken.

    Both of shape (steps, 2, 3). Places that are given take the place of the path.
    """
    numbers = {name: case.hyperparameters()[name] * np.exp(e[name]) for name in e}
    before, after = [], []

    def gradient(t, x):
        after.append(x["x"].copy())
        if places is not None:
            x["x"][...] = places[t - 1] * np.exp(parameters)
        before.append(x["x"].copy())
        return {"x": GRADS[t - 1] * np.exp(gradients)}

    path = case.follow({"x": PARAMS.copy()}, gradient, STEPS, **numbers)["x"]
    return np.array([*after[1:], path[-1]]) - before, np.array(before)


@each_case
def test_every_number_of_every_row(case):
    with jax.enable_x64(True):
        found = optjax.audit(
            case.factory, case.hyperparameters(), GRADS, PARAMS, steps=STEPS
        )["overall"]
    update, places = updates(case)
    whole = np.sum(update**2)
    for name in (*case.hyperparameters(), "gradients", "parameters"):
        above, below = (updates(case, places, **{name: e})[0] for e in (H, -H))
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
