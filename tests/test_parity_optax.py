"""Live parity with Optax of every row that Optax has under the same name."""

import functools
import inspect

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from golden import problem
from reference.flags import MASK, SAME_NAME, Flags, halved
from reference.scan import assert_same_path, follow

import optjax

NAMES = list(dict.fromkeys(flags.name for flags in SAME_NAME))

# As a Python number b1 takes the dtype of what it multiplies, so Optax's bfloat16
# average decays by bfloat16(0.9) = 0.8984; docs/differences.md measures the effect.
# As a float32 array it is 0.9 in Optax too. Ours is 0.9 either way.
BFLOAT16 = {"mu_dtype": jnp.bfloat16, "b1": np.float32(0.9)}

OTHERS = [
    *[
        Flags(name, 1e-2, {**BFLOAT16, **more}, "-".join(["mu_dtype", *more]))
        for name, more in [
            ("adam", {}),
            ("adam", {"nesterov": True}),
            ("adamw", {"weight_decay": 0.1}),
            ("nadam", {}),
            ("nadamw", {}),
            ("amsgrad", {}),
        ]
    ],
    Flags(
        "sgd",
        0.1,
        {"momentum": np.float32(0.9), "accumulator_dtype": jnp.bfloat16},
        "accumulator_dtype",
    ),
    Flags(
        "sgd",
        0.1,
        {"momentum": 0.9, "nesterov": True, "accumulator_dtype": jnp.float32},
        "accumulator_dtype-float32",
    ),
    Flags(
        "adamw", 1e-2, {"weight_decay": 0.1, "mask": lambda _: MASK}, "mask-function"
    ),
    Flags(
        "adadelta",
        1.0,
        {"weight_decay": 0.1, "weight_decay_mask": lambda _: MASK},
        "mask-function",
    ),
    Flags("adam", np.float32(1e-2), {"b1": np.float32(0.9)}, "arrays"),
    Flags("sgd", optax.cosine_decay_schedule(0.1, 100), {"momentum": 0.9}, "cosine"),
    Flags(
        "adamw",
        optax.warmup_cosine_decay_schedule(0.0, 1e-2, 20, 110),
        {"weight_decay": halved(0.1)},
        "warmup_cosine",
    ),
]


ALL = SAME_NAME + OTHERS


@functools.cache
def paths(name, problem_name):
    """Both libraries, for all flags of a row together."""
    params, grads = problem.load(problem_name)
    return follow(
        {
            f"{library.__name__} {flags}": flags.optimizer(library)
            for library in (optax, optjax)
            for flags in ALL
            if (flags.name, flags.problem) == (name, problem_name)
        },
        params,
        grads,
    )


@pytest.mark.parametrize("flags", ALL, ids=str)
def test_same_trajectory(flags):
    both = paths(flags.name, flags.problem)
    expected = both[f"optax {flags}"]
    assert_same_path(both[f"optjax {flags}"], expected, 1e-6)
    assert any(np.any(value) for value in expected.values())


def test_no_two_cases_have_the_same_name():
    assert len({str(flags) for flags in ALL}) == len(ALL)


@pytest.mark.parametrize("name", NAMES)
def test_same_arguments_and_defaults(name):
    theirs = dict(inspect.signature(getattr(optax, name)).parameters)
    ours = dict(inspect.signature(getattr(optjax, name)).parameters)
    if isinstance(getattr(optax, name), functools.partial):
        # nadam is optax.adam with nesterov=True filled in: that is no choice there.
        assert theirs.pop("nesterov").default is True
    shared = list(ours)[: len(theirs)]
    assert shared == list(theirs)
    for key in theirs:
        assert ours[key].kind == theirs[key].kind, key
        if (name, key) == ("adadelta", "learning_rate"):
            assert theirs[key].default is None
            assert ours[key].default == 1.0
        else:
            assert ours[key].default == theirs[key].default, key
    for key in list(ours)[len(theirs) :]:
        assert ours[key].kind is inspect.Parameter.KEYWORD_ONLY, key
        assert ours[key].default is not inspect.Parameter.empty, key


def test_every_name_that_optax_shares_is_compared():
    shared = {name for name in optjax.OPTIMIZERS if hasattr(optax, name)}
    assert shared == set(NAMES)


def test_adadelta_without_a_learning_rate_descends():
    gradient = {"x": jnp.array([1.0, -2.0])}
    ours, theirs = optjax.adadelta(), optax.adadelta()
    down, _ = ours.update(gradient, ours.init(gradient), gradient)
    up, _ = theirs.update(gradient, theirs.init(gradient), gradient)
    assert np.all(np.sign(down["x"]) == -np.sign(gradient["x"]))
    np.testing.assert_allclose(up["x"], -down["x"], rtol=1e-6)
