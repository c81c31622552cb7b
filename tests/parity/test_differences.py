"""docs/differences.md, recomputed: its expressions, its numbers and its claims."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from reference import run
from reference.scan import displacements, moved

import optjax

PAGE = Path(__file__).parents[2] / "docs" / "differences.md"
LR = 0.01
STEPS = 100


def schedule(count):
    return LR * 0.5 ** (count // 25)


def problem(split=False):
    """The page's problem, as one array or as two."""
    t = np.arange(1, STEPS + 1)[:, None]
    constant = np.array([0.1, 0.2, -0.1, 0.3])
    frequency = np.array([0.7, 1.3, 2.1, 0.3])
    gradients = (constant + np.sin(frequency * t)) * np.exp(-t / 50)
    start = np.array([1.0, -1.0, 0.5, -2.0])

    def tree(x):
        return {"first": x[:2], "second": x[2:]} if split else {"x": x}

    return tree(start), [tree(gradient) for gradient in gradients]


def rule(name, learning_rate=LR, **hyper):
    """The other convention, by a NumPy rule."""

    def follow(params, grads):
        return moved(run(name, params, grads, learning_rate, **hyper), params)

    return follow


def live(optimizer, dtype):
    """The other convention, by the library itself."""
    return lambda params, grads: displacements(optimizer(), params, grads, dtype)


TORCH_ADAGRAD = {"initial_accumulator_value": 0.0}
SWATS = {"learning_rate": 1.0, "b1": 0.5, "b2": 0.9, "eps": 3e-3}

OTHERS = {
    "dampening": rule("sgd", momentum=0.9, dampening=0.5),
    "momentum-rate": rule("sutskever", schedule, momentum=0.9),
    "nesterov-point": rule("sutskever", momentum=0.9),
    "adagrad-initial": rule("adagrad", **TORCH_ADAGRAD),
    "adagrad-eps": rule("adagrad", eps=1e-3, eps_in_sqrt=False, **TORCH_ADAGRAD),
    "rmsprop-eps": rule("rmsprop", eps=1e-3, eps_in_sqrt=False),
    "rmsprop-decay": rule("rmsprop", decay=0.99),
    "rmsprop-order": rule("rmsprop", schedule, momentum=0.9, rate_in_buffer=False),
    "adadelta-sign": live(lambda: optax.adadelta(), "float64"),
    "adam-eps": rule("adam", eps=1e-3, debias_eps=True),
    "l2": rule("adam", l2=0.1),
    "adamw-default": rule("adamw", weight_decay=1e-2),
    "amsgrad-max": rule("amsgrad", max_before_debias=True),
    "amsgrad-paper": rule(
        "amsgrad", bias_correction_mu=False, bias_correction_nu=False
    ),
    "nadam-schedule": rule("nadam", momentum_decay=0.004),
    "radam-eps": rule("radam", eps=1e-3, debias_eps=True),
    "radam-threshold": rule("radam", threshold=4.0),
    "yogi-paper": rule("yogi", initial=0.0, debias=False),
    "bfloat16-b1": live(lambda: optjax.adam(LR, mu_dtype=jnp.bfloat16), "float32"),
    "padam-authors": rule("padam", debias=True),
    "padam-maximum": rule("padam", debias=True, running_max=False),
    "nosadam-debias": rule("nosadam", debias=True),
    "adamod-folded": rule("adamod", b3=0.99, folded=True),
    "swats-decision": rule("swats_any", **SWATS),
    "adabound-paper": rule(
        "adabound", lambda count: LR * (count + 1) ** -0.5, debias=False
    ),
    "adaboundw-decay": rule("adaboundw", fixed_decay=True),
}


def rows():
    """Key, expression as it is, number, expression of the other convention."""
    found = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            key, _, default, number, other = line.strip("| ").split(" | ")
            found[key.strip("`")] = (default.strip("`"), number, other.strip("`"))
    return found


ROWS = rows()


def evaluate(expression):
    names = {"optax": optax, "optjax": optjax, "jnp": jnp}
    return eval(expression, {**names, "lr": LR, "schedule": schedule})


def apart(actual, expected):
    """The number of the page."""
    return max(
        np.max(np.abs(actual[key][-1] - want[-1]) / np.max(np.abs(want), axis=0))
        for key, want in expected.items()
    )


def compare(key, expression, split):
    # bfloat16 against float32 is what its row is about; the others need no rounding.
    dtype = "float32" if key == "bfloat16-b1" else "float64"
    params, grads = problem(split)
    with jax.enable_x64(dtype == "float64"):
        expected = OTHERS[key](params, grads)
        actual = displacements(evaluate(expression), params, grads, dtype)
    return apart(actual, expected)


@pytest.mark.parametrize("key", OTHERS)
def test_the_difference_is_as_large_as_the_page_says(key):
    expression, number, _ = ROWS[key]
    measured = compare(key, expression, split=key == "swats-decision")
    assert measured == pytest.approx(float(number), rel=0.05)


@pytest.mark.parametrize("key", OTHERS)
def test_the_expression_removes_it(key):
    _, _, expression = ROWS[key]
    assert compare(key, expression, split=False) < 1e-5


def test_what_remains_of_swats_on_a_single_array_is_its_tolerance():
    params, grads = problem()
    hyper = {**SWATS, "learning_rate": 0.1}
    with jax.enable_x64(True):
        ours = displacements(optjax.swats(**hyper), params, grads, "float64")
    theirs = moved(run("swats_any", params, grads, **hyper), params)
    assert apart(ours, theirs) == pytest.approx(0.29, rel=0.05)
    assert "0.29 with a learning rate of 0.1" in PAGE.read_text(encoding="utf-8")


def test_the_page_and_the_test_have_the_same_rows():
    assert list(ROWS) == list(OTHERS)
    text = PAGE.read_text(encoding="utf-8")
    assert len(re.findall(r"^\| `", text, re.MULTILINE)) == len(ROWS)
