"""Optax's own tests of optimizers and wrappers, with our rows in the place of theirs.

The installed Optax brings its tests. A module of them is executed anew without its
lists of optimizers, and with ours under the same names.
"""

import ast
import importlib.util
import re
import types
from pathlib import Path

import jax
import pytest
from optax._src import alias

from optjax import OPTIMIZERS

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

#: As Optax's tests have them where a row is in their list.
ARGUMENTS = {
    "sgd": {"learning_rate": 1e-3},
    "momentum": {"learning_rate": 1e-3},
    "nesterov": {"learning_rate": 5e-4},
    "adagrad": {"learning_rate": 1.0},
    "rmsprop": {"learning_rate": 5e-3},
    "adadelta": {"learning_rate": 0.1},
    "adam": {"learning_rate": 1e-1},
    "adamw": {"learning_rate": 1e-1},
    "adamax": {"learning_rate": 1e-1},
    "nadam": {"learning_rate": 1e-2},
    "nadamw": {"learning_rate": 1e-2},
    "amsgrad": {"learning_rate": 1e-1},
    "yogi": {"learning_rate": 1e-1},
    "adabelief": {"learning_rate": 1e-2},
    "radam": {"learning_rate": 5e-3},
    "padam": {"learning_rate": 1e-2},
    "nosadam": {"learning_rate": 1e-1},
    "adamod": {"learning_rate": 1e-1},
    "adashift": {"learning_rate": 3e-3},
    "swats": {"learning_rate": 1e-2},
    # SGD at the default final_lr diverges on Rosenbrock's function.
    "adabound": {"learning_rate": 1e-2, "final_lr": 1e-2},
    "amsbound": {"learning_rate": 1e-2, "final_lr": 1e-2},
    "adaboundw": {"learning_rate": 1e-2, "final_lr": 1e-2},
    "graftbound": {"learning_rate": 1e-2},
}
ROWS = [{"opt_name": name, "opt_kwargs": ARGUMENTS[name]} for name in OPTIMIZERS]

#: Steps that a test's loop takes in one call: its 10,000 calls took most of its time.
AT_ONCE = 20


def jit(function):
    """A `step(params, state)` as so many."""
    if getattr(function, "__name__", "") != "step":
        return jax.jit(function)

    def steps(*carry):
        return jax.lax.fori_loop(0, AT_ONCE, lambda _, carry: function(*carry), carry)

    return jax.jit(steps)


def fewer(count):
    return range(max(2, count // AT_ONCE))


def load(module, **lists):
    """The module as it would be if it had these lists and our rows in `alias`."""
    path = Path(importlib.util.find_spec(module).origin)
    tree = ast.parse(path.read_text())
    replaced = []
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and statement.targets[0].id in lists:
            name = statement.targets[0].id
            statement.value = ast.Name(f"our{name}", ast.Load())
            replaced.append(name)
    assert replaced == list(lists), "Optax's tests have other lists"
    ours = types.ModuleType(module)
    ours.__file__ = str(path)
    ours.__dict__.update({f"our{name}": value for name, value in lists.items()})
    code = compile(ast.fix_missing_locations(tree), path, "exec")
    exec(code, ours.__dict__)
    rows = {name: row.factory for name, row in OPTIMIZERS.items()}
    ours.alias = types.SimpleNamespace(**{**vars(alias), **rows})
    ours.jax = types.SimpleNamespace(**{**vars(jax), "jit": jit})
    ours.range = fewer
    return ours


def take(module, name, exceptions, **lists):
    """A class of its tests without the exceptions: (test, its arguments) and why."""
    tests = getattr(load(module, **lists), name)
    for (name, arguments), reason in exceptions.items():
        found = [
            key
            for key, test in vars(tests).items()
            if key.rstrip("0123456789") == name
            and re.search(arguments, test.__x_params_repr__)
        ]
        assert found, f"no such test of Optax: {name}, {arguments}: {reason}"
        for key in found:
            delattr(tests, key)
    return tests


INJECTED = "test_optimizers_can_be_wrapped_in_inject_hyperparams"
AliasTest = take(
    "optax._src.alias_test",
    "AliasTest",
    {
        ("test_explicit_dtype", "opt_name='adam"): (
            "mu is called ema here; test_dtypes.py has all dtypes of all rows"
        ),
        (INJECTED, "opt_name='adashift'"): (
            "keep_num needs static_args, as in test_interop.py"
        ),
        ("test_optimization", "opt_name='sgd'.*rosenbrock.*complex64"): (
            "10,000 steps of plain SGD do not suffice; Optax's list has momentum"
        ),
        ("test_optimization", "parabola"): "Rosenbrock's function is the harder one",
        ("test_state_shape_dtype_shard_stability", ""): (
            "test_dtypes.py has all dtypes of all rows, and weak types"
        ),
        ("test_preserve_dtype", ""): "test_dtypes.py has all dtypes of all rows",
    },
    _OPTIMIZERS_UNDER_TEST=ROWS,
)
