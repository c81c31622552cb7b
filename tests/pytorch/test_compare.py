"""optjax.pytorch.compare: every difference of docs/differences.md from one flag."""

import ast
import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiling import jit
from reference import run
from reference.scan import displacements

import optjax
from optjax import pytorch
from optjax.pytorch import Trajectory, compare

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

PAGE = Path(__file__).parents[2] / "docs" / "differences.md"
NAMES = {
    "optax": optax,
    "optjax": optjax,
    "jnp": jnp,
    "lr": 0.01,
    "schedule": lambda count: 0.01 * 0.5 ** (count // 25),
}
ROWS = {
    key: (default, other)
    for key, default, other in re.findall(
        r"^\| `([\w-]+)` \|.*?\| `([^|]*)` \|[^|]*\| `(.*)` \|$",
        PAGE.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
}
# What no expression of the page is the other convention of.
BESIDE = ("dampening", "swats-decision")


def call_of(expression):
    """The factory and its arguments, not called."""
    call = ast.parse(expression, mode="eval").body
    value = lambda node: eval(compile(ast.Expression(node), "", "eval"), NAMES)  # noqa: E731
    keywords = {k.arg: value(k.value) for k in call.keywords}
    return functools.partial(value(call.func), *map(value, call.args), **keywords)


def test_the_page_has_26_rows():
    assert len(ROWS) == 26


# What the message must name, where it is not the argument that differs.
REMEDIES = {
    "momentum-rate": "optjax.trace",
    "nesterov-point": "nesterov=False",
    "adagrad-initial": "initial_accumulator_value=0.0",
    "adagrad-eps": "eps_in_sqrt=False",
    "rmsprop-eps": "eps_in_sqrt=False",
    "rmsprop-decay": "decay=0.99",
    "rmsprop-order": "optax.scale_by_schedule",
    "adadelta-sign": "optax.scale(-1.0)",
    "adam-eps": "correct_bias",
    "l2": "optax.add_decayed_weights",
    "adamw-default": "weight_decay=0.01",
    "amsgrad-max": "max_before_debias=True",
    "amsgrad-paper": "bias_correction_nu=False",
    "nadam-schedule": "momentum_decay=0.004",
    "radam-eps": "optjax.pytorch.RAdam",
    "radam-threshold": "threshold=4.0",
    "yogi-paper": "sign_ema_of_squares",
    "bfloat16-b1": "b1=jnp.float32(0.9)",
    "padam-authors": "(1 - b2**(count + 1))**0.5",
    "padam-maximum": "without running_max",
    "nosadam-debias": "lr / (1 - b1**(count + 1))",
    "adamod-folded": "optjax.limit_by_average",
    "adabound-paper": "(count + 1)**-0.5",
    "adaboundw-decay": "fixed_decay=True",
}


def test_every_row_is_looked_for():
    assert set(REMEDIES) | set(BESIDE) == set(ROWS)


@pytest.mark.parametrize("key", REMEDIES)
def test_finds_the_difference(key):
    default, other = ROWS[key]
    found = compare(call_of(default), eval(other, NAMES))
    assert found.equal is False
    assert len(found.reasons) == 1
    assert REMEDIES[key] in found.reasons[0].remedy
    assert found.left < (1e-5 if key == "bfloat16-b1" else 3e-7)
    assert f"pass `{found.reasons[0].remedy}`; then equal to" in str(found)


def test_finds_dampening():
    sgd = pytorch.SGD, {"lr": 0.01, "momentum": 0.9, "dampening": 0.5}
    found = compare(sgd, optjax.sgd(0.01, momentum=0.9))
    assert [reason.remedy for reason in found.reasons] == ["dampening=0.0"]


def test_finds_what_is_decided_array_by_array():
    """The switch of SWATS in pytorch_optimizer, whose tolerance is relative too."""
    hyper = {"b1": 0.5, "b2": 0.9, "eps": 3e-3}
    both = optjax.swats(1.0, **hyper)
    apart = optax.partition(
        {"first": both, "second": both}, {"first": "first", "second": "second"}
    )
    alone = optax.partition({"x": both}, lambda tree: jax.tree.map(lambda _: "x", tree))
    labelled = optax.GradientTransformationExtraArgs(
        lambda x: (apart if "first" in x else alone).init(x),
        lambda g, s, x: (apart if "first" in g else alone).update(g, s, x),
    )
    found = compare((optjax.swats, {"learning_rate": 1.0, **hyper}), labelled)
    assert "for each array by itself" in found.reasons[0].words


# Where PyTorch is, its own classes.


@pytest.mark.parametrize(
    ("name", "keywords", "ours"),
    [
        ("SGD", {"lr": 0.01, "momentum": 0.9}, optjax.sgd(0.01, momentum=0.9)),
        ("AdamW", {"lr": 0.01}, optjax.adamw(0.01, weight_decay=0.01)),
        ("NAdam", {"foreach": False}, optjax.nadam(2e-3, momentum_decay=4e-3)),
    ],
)
def test_equal_to_pytorch(name, keywords, ours):
    torch = pytest.importorskip("torch")
    found = compare((getattr(torch.optim, name), keywords), ours)
    assert found.equal
    assert str(found) == "equal to 3e-07 over 2000 steps"


def test_several_reasons_at_once_the_largest_first():
    torch = pytest.importorskip("torch")
    theirs = torch.optim.Adam, {"lr": 0.02, "amsgrad": True, "eps": 1e-3}
    found = compare(theirs, (optjax.adam, {"learning_rate": 0.01, "eps": 1e-3}))
    assert [reason.remedy for reason in found.reasons] == ["lr=0.01", "amsgrad=False"]
    assert found.left < 3e-7


# What it must not say.


def logged(tx, steps=40):
    rng = np.random.default_rng(0)
    gradients = [{"x": rng.normal(size=3)} for _ in range(steps)]
    with jax.enable_x64(True):
        path = displacements(tx, {"x": np.ones(3)}, gradients, "float64")["x"]
    after = [{"x": 1.0 + row} for row in path]
    return Trajectory(gradients, [{"x": np.ones(3)}, *after])


def test_a_log_that_agrees_proves_nothing_of_later_steps():
    found = compare(optjax.adam(0.1), logged(optjax.adam(0.1)))
    assert found.equal is None
    assert str(found).startswith("cannot tell")


def test_a_log_is_explained():
    other = logged(optjax.amsgrad(0.1, max_before_debias=True))
    found = compare((optjax.amsgrad, {"learning_rate": 0.1}), other)
    assert found.reasons[0].remedy == "max_before_debias=True"


def test_two_closed_boxes_are_apart_and_it_cannot_tell_why():
    found = compare(optjax.adam(0.1), optjax.adam(0.1, b2=0.99))
    assert found.equal is False
    assert found.reasons == ()
    assert "cannot tell why" in str(found)


@pytest.mark.parametrize("at", [250, 5_000, 900_000])
def test_what_parts_late_is_not_equal(at):
    late = optax.piecewise_constant_schedule(0.1, {at: 0.5})
    assert compare(optjax.adam(0.1), optjax.adam(late)).equal is False


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="an optimizer must be"):
        compare(optjax.adam, optjax.adam(0.1))
    with pytest.raises(ValueError, match="two trajectories"):
        compare(logged(optjax.adam(0.1)), logged(optjax.adam(0.1)))
    with pytest.raises(ValueError, match="one set of parameters more"):
        compare(optjax.adam(0.1), Trajectory([{"x": np.ones(1)}], [{"x": np.ones(1)}]))


def random_pairs():
    """Neighbours: one number or flag of a row moved, by much or hardly at all.

    The numbers are in the state, so that the neighbours of a row have one program.
    """
    rng = np.random.default_rng(5)
    rows = {
        "sgd": {"momentum": 0.9},
        "adagrad": {"initial_accumulator_value": 0.1, "eps": 1e-7},
        "adam": {"b1": 0.9, "b2": 0.999, "eps": 1e-8},
    }
    make = {
        name: optjax.inject_hyperparams(getattr(optjax, name), (), jnp.float64)
        for name in rows
    }
    update = {name: make[name](0.1, **rows[name]).update for name in rows}
    for number in range(50):
        name = ("sgd", "adagrad", "sgd", "adagrad", "adam")[number % 5]
        keywords = {"learning_rate": 10 ** rng.uniform(-3, -1), **rows[name]}
        moved = str(rng.choice(list(keywords)))
        share = 10 ** rng.uniform(-9, -1)
        other = {**keywords, moved: keywords[moved] * (1 - share)}
        yield [
            optax.GradientTransformation(make[name](**numbers).init, update[name])
            for numbers in (keywords, other)
        ]


@functools.cache
def compiled(update):
    def step(carry, gradient):
        x, state = carry
        move, state = update(gradient, state, x)
        return (optax.apply_updates(x, move), state), move

    return jit(lambda carry, gradients: jax.lax.scan(step, carry, gradients)[1])


def test_never_equal_where_300_steps_part():
    rng = np.random.default_rng(6)
    gradients = rng.normal(size=(300, 3)) * [1.0, 1e-3, 30.0]
    verdicts = []
    for pair in random_pairs():
        found = compare(*pair, steps=100)
        verdicts.append(found.equal)
        if found.equal:
            with jax.enable_x64(True):
                x = jnp.array([0.3, -1.0, 2.0])
                a, b = (
                    np.cumsum(compiled(tx.update)((x, tx.init(x)), gradients), axis=0)
                    for tx in pair
                )
            assert np.max(np.abs(a - b)) <= 1e-4 * np.max(np.abs(a))
    assert {True, False} == set(verdicts)


def test_the_numpy_rule_of_swats_is_logged_and_not_explained():
    hyper = {"b1": 0.5, "b2": 0.9, "eps": 3e-3}
    rng = np.random.default_rng(1)
    start = {"a": np.ones(2), "b": np.ones(2)}
    steady = np.exp(-np.arange(60) / 20)
    gradients = [
        {"a": s * (0.1 + np.sin(rng.normal(size=2))), "b": s * np.ones(2)}
        for s in steady
    ]
    path = run("swats_any", start, gradients, 1.0, **hyper)
    found = compare(
        (optjax.swats, {"learning_rate": 1.0, **hyper}),
        Trajectory(gradients, [start, *path]),
    )
    assert found.equal is not True
