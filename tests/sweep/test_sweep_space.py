"""Spaces: which configurations, in which order, drawn how, and what is refused."""

import doctest
import functools
import importlib
import itertools
import re
import tomllib
import warnings
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.stats import kstest

import optjax
from optjax.sweep import (
    choice,
    configurations,
    grid,
    log_uniform,
    only,
    parse_dimension,
    per_optimizer,
    static,
    uniform,
)
from optjax.sweep._errors import SweepError
from optjax.sweep._records import Config
from optjax.sweep._space.distributions import Choice, LogUniform, PerOptimizer, Uniform


def column(configs, key, optimizer=None):
    return [
        config.hyper[key]
        for config in configs
        if optimizer in (None, config.optimizer) and key in config.hyper
    ]


def refused(space, **kwargs):
    with pytest.raises(SweepError) as caught:
        configurations(space, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", ["distributions", "text", "space"])
def test_docstring_examples(name):
    module = importlib.import_module(f"optjax.sweep._space.{name}")
    result = doctest.testmod(module)
    assert result.attempted > 2
    assert result.failed == 0


# ---------------------------------------------------------------- the full product


def test_product_order_is_optimizer_then_keys_as_given():
    got = configurations(
        {
            "b1": [0.8, 0.9],
            "optimizer": ["adamw", "adam"],
            "learning_rate": (0.1, 0.01, 0.001),
            "eps": 1e-6,
        }
    )
    want = [
        Config(name, {"b1": b1, "learning_rate": rate, "eps": 1e-6}, {})
        for name, b1, rate in itertools.product(
            ["adamw", "adam"], [0.8, 0.9], [0.1, 0.01, 0.001]
        )
    ]
    assert got == want
    assert [list(config.hyper) for config in got] == [
        ["b1", "learning_rate", "eps"]
    ] * 12


@pytest.mark.parametrize(
    "rates",
    [
        [0.1, 1.0],
        (0.1, 1.0),
        grid(0.1, 1.0),
        choice(0.1, 1.0),
        np.array([0.1, 1.0]),
        jnp.array([0.1, 1.0]),
        [np.float32(0.1), np.float64(1.0)],
    ],
    ids=lambda rates: type(rates).__name__,
)
def test_every_spelling_of_a_grid(rates):
    got = column(
        configurations({"optimizer": "sgd", "learning_rate": rates}), "learning_rate"
    )
    np.testing.assert_allclose(got, [0.1, 1.0], rtol=1e-7)
    assert all(type(rate) is float for rate in got)


@pytest.mark.parametrize(
    "optimizers", [["sgd", "adam"], ("sgd", "adam"), grid("sgd", "adam"), ["sgd"] * 2]
)
def test_every_spelling_of_the_optimizers(optimizers):
    got = configurations({"optimizer": optimizers, "learning_rate": 0.1})
    assert [config.optimizer for config in got] == list(
        dict.fromkeys(_names(optimizers))
    )


def _names(optimizers):
    return getattr(optimizers, "values", optimizers)


def test_configurations_equal_in_float32_are_kept_once():
    rates = [0.1, 0.2, 0.1, 0.1 + 1e-12, np.float32(0.1), 0.2001]
    got = configurations({"optimizer": "sgd", "learning_rate": rates})
    assert column(got, "learning_rate") == [0.1, 0.2, 0.2001]


def test_static_values_are_told_apart_by_more_than_their_text():
    masks = [{"w": np.arange(2000) == n} for n in (1000, 1001)]
    assert repr(masks[0]) == repr(masks[1])
    factories = {"own": lambda learning_rate, mask=None, flag=False: optax.identity()}

    def count(**space):
        return len(configurations({"learning_rate": 0.1, **space}, factories=factories))

    assert count(mask=masks) == 2
    assert count(mask=[masks[0], masks[0]]) == 1
    assert count(flag=[False, True, False]) == 2
    assert count(flag=[True, 1]) == 2


def test_every_row_of_the_family_has_a_space():
    got = configurations({"optimizer": list(optjax.OPTIMIZERS), "learning_rate": 0.1})
    assert [config.optimizer for config in got] == list(optjax.OPTIMIZERS)


# ---------------------------------------------------------------- draws


@pytest.mark.parametrize("method", ["sobol", "random"])
def test_draws_are_a_function_of_the_seed(method):
    space = {
        "optimizer": "adam",
        "learning_rate": log_uniform(1e-4, 1),
        "b1": [0.8, 0.9],
    }
    first = configurations(space, draws=16, method=method, seed=3)
    assert configurations(space, draws=16, method=method, seed=3) == first
    assert configurations(space, draws=16, method=method, seed=4) != first
    # More draws begin with the same ones, also where 16 is not a power of two.
    assert configurations(space, draws=7, method=method, seed=3) == first[:7]


def test_methods_differ():
    space = {"optimizer": "adam", "learning_rate": log_uniform(1e-4, 1)}
    sobol = configurations(space, draws=8)
    assert sobol == configurations(space, draws=8, method="sobol", seed=0)
    assert sobol != configurations(space, draws=8, method="random")


@pytest.mark.parametrize("seed", range(5))
def test_sobol_hits_each_of_eight_strata_once(seed):
    space = {
        "optimizer": ["adam", "sgd"],
        "learning_rate": log_uniform(1e-4, 1e4),
        "b1": uniform(0.0, 0.8),
        "eps": [1e-9, 1e-8, 1e-7, 1e-6],
    }
    got = configurations(space, draws=8, seed=seed)
    for name in ("adam", "sgd"):
        decades = np.floor(np.log10(column(got, "learning_rate", name)))
        assert sorted(decades) == list(range(-4, 4))
    assert sorted(int(b1 / 0.1) for b1 in column(got, "b1")) == list(range(8))
    assert sorted(column(got, "eps")) == sorted([1e-9, 1e-8, 1e-7, 1e-6] * 2)


def test_draws_that_are_no_power_of_two_are_not_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = configurations(
            {"optimizer": "sgd", "learning_rate": uniform(0, 1)}, draws=5
        )
    assert len(got) == 5


@pytest.mark.parametrize("method", ["sobol", "random"])
def test_log_uniform_is_uniform_in_the_logarithm(method):
    space = {
        "optimizer": "adam",
        "learning_rate": log_uniform(1e-5, 10),
        "b2": uniform(0.5, 0.9),
    }
    got = configurations(space, draws=1024, method=method)
    exponents = np.log10(column(got, "learning_rate"))
    assert kstest(exponents, "uniform", args=(-5, 6)).pvalue > 1e-3
    assert kstest(column(got, "b2"), "uniform", args=(0.5, 0.4)).pvalue > 1e-3
    # ... and not uniform in the number itself: a mistake would be found.
    assert kstest(column(got, "learning_rate"), "uniform", args=(0, 10)).pvalue < 1e-9


def test_distributions_reach_their_low_end_and_stay_inside():
    below_one = np.nextafter(1.0, 0.0)
    for low, high in [(1e-4, 1.0), (1e-7, 3e-7), (0.1, 0.3)]:
        for distribution in (log_uniform(low, high), uniform(low, high)):
            assert distribution.at(0.0) == pytest.approx(low, rel=1e-12)
            for unit in (0.0, 0.3, below_one):
                assert low <= distribution.at(unit) <= high
    assert [grid("a", "b", "c").at(u) for u in (0, 0.33, 0.34, 0.67, below_one)] == [
        "a",
        "a",
        "b",
        "c",
        "c",
    ]


def test_every_optimizer_draws_the_same_points():
    space = {
        "optimizer": ["sgd", "adam", "adabound"],
        "final_lr": log_uniform(1e-2, 1),
        "learning_rate": per_optimizer(
            sgd=log_uniform(1e-2, 1e2),
            adam=log_uniform(1e-4, 1.0),
            adabound=log_uniform(1e-4, 1.0),
        ),
        "b1": uniform(0, 0.9),
    }
    got = configurations(space, draws=16)
    assert len(got) == 3 * 16
    sgd, adam, adabound = (
        np.array(column(got, "learning_rate", name)) for name in space["optimizer"]
    )
    np.testing.assert_array_equal(adam, adabound)
    np.testing.assert_allclose(sgd, 100 * adam, rtol=1e-12)
    assert column(got, "b1", "adam") == column(got, "b1", "adabound")


def test_drawing_from_grids_repeats_nothing():
    space = {
        "optimizer": ["sgd", "adam"],
        "learning_rate": [0.1 * n for n in range(1, 5)],
        "b1": [n / 16 for n in range(16)],
    }
    got = configurations(space, draws=64)
    assert [config.optimizer for config in got[:5]] == ["sgd"] * 4 + ["adam"]
    assert len({repr(config) for config in got}) == len(got) <= 4 + 64


# ---------------------------------------------------------------- conditional keys


def test_keys_are_absent_where_the_factory_does_not_take_them():
    got = configurations(
        {
            "optimizer": ["sgd", "adam", "adabound"],
            "learning_rate": [0.1, 1.0],
            "final_lr": [0.01, 0.1, 1.0],
            "b1": 0.8,
        }
    )
    keys = {config.optimizer: set(config.hyper) for config in got}
    assert keys == {
        "sgd": {"learning_rate"},
        "adam": {"learning_rate", "b1"},
        "adabound": {"learning_rate", "b1", "final_lr"},
    }
    # No duplicates from the keys that are absent.
    counts = [sum(c.optimizer == name for c in got) for name in keys]
    assert counts == [2, 2, 6]


def test_presets_of_a_partial_can_be_overridden():
    got = configurations(
        {
            "optimizer": ["momentum", "nesterov"],
            "learning_rate": 0.1,
            "momentum": [0.5, 0.9],
        }
    )
    assert column(got, "momentum", "momentum") == [0.5, 0.9]
    assert column(got, "momentum", "nesterov") == [0.5, 0.9]


def test_a_positional_preset_is_not_a_key():
    def factory(decay, learning_rate):
        return optax.sgd(learning_rate, momentum=decay)

    factories = {"mine": functools.partial(factory, 0.9)}
    assert configurations({"learning_rate": 0.1}, factories=factories) == [
        Config("mine", {"learning_rate": 0.1}, {})
    ]
    message = refused({"learning_rate": 0.1, "decay": 0.5}, factories=factories)
    assert "'decay'" in message


def test_only_restricts_a_key():
    space = {
        "optimizer": ["adam", "adabound", "amsbound"],
        "learning_rate": 0.1,
        "b1": only([0.0, 0.9], "adabound", "amsbound"),
    }
    got = configurations(space)
    assert [(c.optimizer, c.hyper.get("b1")) for c in got] == [
        ("adam", None),
        ("adabound", 0.0),
        ("adabound", 0.9),
        ("amsbound", 0.0),
        ("amsbound", 0.9),
    ]
    # A space may name more optimizers than this sweep runs.
    space["optimizer"] = ["adam", "adabound"]
    assert len(configurations(space)) == 3


def test_only_one_optimizer_may_be_continuous():
    space = {
        "optimizer": ["sgd", "adam"],
        "learning_rate": per_optimizer(sgd=0.1, adam=log_uniform(1e-4, 1)),
    }
    got = configurations(space, draws=4)
    assert [config.optimizer for config in got] == ["sgd"] + ["adam"] * 4
    space["optimizer"] = "sgd"
    assert len(configurations(space)) == 1


# ---------------------------------------------------------------- numeric or static


def annotated(learning_rate: float, window: int = 3, clip: float = 1, mode: str = "a"):
    del window, clip, mode
    return optax.sgd(learning_rate)


def bare(learning_rate, window=3, decay=0.5, is_fast=False):
    del window, decay, is_fast
    return optax.sgd(learning_rate)


def in_words(
    learning_rate: "float",
    window: "int" = 3,
    model: "Unknown" = None,  # noqa: F821
):
    del window, model
    return optax.sgd(learning_rate)


def optional_in_words(learning_rate: "float", window: "int | None" = None):
    del window
    return optax.sgd(learning_rate)


def optional(learning_rate: float, window: int | None = None, beta: Any = None):
    del window, beta
    return optax.sgd(learning_rate)


def anything(learning_rate, **rest):
    del rest
    return optax.sgd(learning_rate)


@pytest.mark.parametrize(
    ("factory", "space", "hyper", "static"),
    [
        (annotated, {"learning_rate": 1}, {"learning_rate": 1.0}, {}),
        (annotated, {"window": 5}, {}, {"window": 5}),
        (annotated, {"clip": 2}, {"clip": 2.0}, {}),
        (annotated, {"mode": "b"}, {}, {"mode": "b"}),
        (bare, {"learning_rate": 1}, {"learning_rate": 1.0}, {}),
        (bare, {"window": np.int64(5)}, {}, {"window": 5}),
        (bare, {"decay": None}, {}, {"decay": None}),
        (bare, {"decay": 0}, {"decay": 0.0}, {}),
        (bare, {"is_fast": np.bool_(True)}, {}, {"is_fast": True}),
        (in_words, {"window": 5}, {}, {"window": 5}),
        (optional, {"window": 5}, {}, {"window": 5}),
        (optional_in_words, {"window": 5}, {}, {"window": 5}),
        (optional, {"beta": 5}, {"beta": 5.0}, {}),
        (anything, {"decay": 0.5}, {"decay": 0.5}, {}),
        (anything, {"window": 5}, {}, {"window": 5}),
        (optjax.adashift, {"keep_num": 5}, {}, {"keep_num": 5}),
        (optjax.adashift, {"reduction": "none"}, {}, {"reduction": "none"}),
        (optjax.sgd, {"momentum": None}, {}, {"momentum": None}),
        (optjax.sgd, {"momentum": jnp.float32(0.5)}, {"momentum": 0.5}, {}),
        (optjax.adam, {"nesterov": True}, {}, {"nesterov": True}),
        (optjax.adam, {"mu_dtype": "bfloat16"}, {}, {"mu_dtype": "bfloat16"}),
    ],
)
def test_numeric_or_static(factory, space, hyper, static):
    [got] = configurations({"learning_rate": 0.1} | space, factories={"mine": factory})
    assert got.hyper == {"learning_rate": 0.1} | hyper
    assert got.static == static
    assert all(type(value) is float for value in got.hyper.values())
    assert [type(value) for value in got.static.values()] == [
        type(value) for value in static.values()
    ]


# ---------------------------------------------------------------- what is refused

RATE = {"learning_rate": 0.1}


@pytest.mark.parametrize(
    ("space", "parts"),
    [
        # Out of range: the optimizer's own words after the key and the optimizer.
        (
            {"learning_rate": [0.1, -0.1]},
            ["learning_rate=-0.1 of adam", "finite and >= 0"],
        ),
        (RATE | {"b1": grid(0.9, 1.0)}, ["b1=1.0 of adam", "b1 must be in [0, 1)"]),
        (RATE | {"b2": uniform(0.9, 1.0)}, ["b2=1.0 of adam", "b2 must be in [0, 1)"]),
        (
            RATE | {"b1": uniform(-0.1, 0.5)},
            ["b1=-0.1 of adam", "b1 must be in [0, 1)"],
        ),
        # float32 rounds it to 1.
        (RATE | {"b2": 0.99999999}, ["b2=0.99999999 of adam", "b2 must be in [0, 1)"]),
        ({"learning_rate": "0.1"}, ["learning_rate='0.1' of adam"]),
        ({"learning_rate": True}, ["learning_rate=True of adam"]),
        # Not a number of float32.
        ({"learning_rate": float("nan")}, ["learning_rate=nan of adam", "float32"]),
        ({"learning_rate": [0.1, 1e-60]}, ["learning_rate=1e-60 of adam", "float32"]),
        ({"learning_rate": 1e39}, ["learning_rate=1e+39 of adam", "float32"]),
        ({"learning_rate": 10**400}, ["of adam", "float32"]),
        ({"learning_rate": float("inf")}, ["learning_rate=inf of adam", "finite"]),
        ({"learning_rate": log_uniform(1e-60, 1)}, ["learning_rate=1e-60", "float32"]),
        # Ranges.
        ({"learning_rate": log_uniform(0, 1)}, ["learning_rate", "0 < low", "low=0"]),
        ({"learning_rate": log_uniform(-1, 1)}, ["learning_rate", "0 < low", "low=-1"]),
        (
            {"learning_rate": log_uniform(1, 0.1)},
            ["learning_rate", "low < high", "swap"],
        ),
        ({"learning_rate": uniform(1, 1)}, ["learning_rate", "low < high", "low=1"]),
        ({"learning_rate": uniform(float("nan"), 1)}, ["learning_rate", "low", "nan"]),
        ({"learning_rate": uniform(0, float("inf"))}, ["learning_rate", "high", "inf"]),
        ({"learning_rate": uniform("0", 1)}, ["learning_rate", "low", "'0'"]),
        # Shapes.
        ({"learning_rate": []}, ["learning_rate", "at least one value"]),
        (
            {"learning_rate": grid([0.1, 1.0])},
            ["learning_rate", "grid(*values)", "list"],
        ),
        ({"learning_rate": grid(uniform(0, 1))}, ["learning_rate", "Uniform(low=0"]),
        ({"learning_rate": {0.1, 1.0}}, ["learning_rate", "got a set"]),
        ({"learning_rate": iter([0.1])}, ["learning_rate", "list_iterator"]),
        ({"learning_rate": {"low": 1, "high": 2}}, ["learning_rate", "got a dict"]),
        (
            {"learning_rate": per_optimizer(adam=only(0.1, "adam"))},
            ["learning_rate of adam", "cannot stand here"],
        ),
        # Keys.
        ({"b1": 0.9}, ["adam needs learning_rate"]),
        (
            RATE | {"lerning_rate": 1},
            ["(adam)", "'lerning_rate'", "mean learning_rate?"],
        ),
        (
            RATE | {"final_lr": 1},
            ["(adam)", "'final_lr'", "adabound, amsbound, adaboundw"],
        ),
        (RATE | {"qqq": 1}, ["'qqq'", "known: learning_rate, b1"]),
        (RATE | {"b1": only(0.1, "nadam")}, ["b1 is restricted", "other than adam"]),
        (RATE | {"b1": only(0.1, "adamm")}, ["b1", "'adamm'", "did you mean adam"]),
        (RATE | {"final_lr": only(1, "adam")}, ["final_lr is given for adam"]),
        (
            RATE | {"eps": [1e-8], "nesterov": uniform(0, 1)},
            ["nesterov of adam is a boolean"],
        ),
        # Optimizers.
        (RATE | {"optimizer": "adamm"}, ["optimizer", "'adamm'", "did you mean adam"]),
        (RATE | {"optimizer": []}, ["optimizer", "at least one"]),
        (RATE | {"optimizer": [optjax.adam]}, ["optimizer", "by its name"]),
        (RATE | {"optimizer": uniform(0, 1)}, ["optimizer", "a list or a choice"]),
        (RATE | {"optimizer": "adashift", "keep_num": 0}, ["keep_num=0 of adashift"]),
        (
            RATE | {"optimizer": "adashift", "keep_num": uniform(1.5, 9)},
            ["keep_num of adashift is an integer", "whole ends or a list"],
        ),
        (
            {"optimizer": ["sgd", "adabound"], "learning_rate": [1.0, 0.0]},
            ["learning_rate=0.0 of adabound", "positive"],
        ),
    ],
)
def test_refused(space, parts):
    message = refused({"optimizer": "adam"} | space, draws=4)
    for part in parts:
        assert part in message


def test_a_range_without_draws_is_refused_with_the_cure():
    message = refused({"optimizer": "adam", "learning_rate": log_uniform(1e-4, 1)})
    assert "learning_rate is a range, from 0.0001 to 1" in message
    assert "draws=" in message


@pytest.mark.parametrize(
    ("kwargs", "part"),
    [
        ({"draws": 0}, "draws must be None or an integer >= 1, got 0"),
        ({"draws": 2.0}, "draws must be None or an integer >= 1, got 2.0"),
        ({"draws": True}, "draws must be None or an integer >= 1, got True"),
        ({"draws": 10**7}, "10,000,000 configurations"),
        ({"draws": 4, "seed": -1}, "seed must be an integer >= 0, got -1"),
        (
            {"draws": 4, "method": "halton"},
            "must be one of sobol, random, got 'halton'",
        ),
    ],
)
def test_bad_drawings_are_refused(kwargs, part):
    assert part in refused(
        {"optimizer": "adam", "learning_rate": uniform(0, 1)}, **kwargs
    )


def test_a_product_that_would_fill_the_memory_is_refused():
    values = [i / 2000 for i in range(1001)]
    message = refused({"optimizer": "adam", "learning_rate": values, "b1": values})
    assert "1,002,001 configurations" in message


def test_a_space_without_an_optimizer_is_refused():
    assert 'no "optimizer"' in refused(RATE)


def test_factories_that_are_none_are_refused():
    assert "adam is a Row" in refused(
        RATE | {"optimizer": "adam"}, factories=optjax.OPTIMIZERS
    )

    class NoSignature:
        __signature__ = "broken"

        def __call__(self, learning_rate):
            return optax.sgd(learning_rate)

    assert "cannot tell" in refused(RATE, factories={"mine": NoSignature()})


def test_any_error_of_a_factory_names_key_and_optimizer():
    def factory(learning_rate, b1=0.9):
        if b1 == 0.5:
            raise KeyError("b2")
        if (learning_rate, b1) == (1.0, 0.25):
            raise RuntimeError("these two\ndo not go together")
        return optax.sgd(learning_rate)

    factories = {"mine": factory}
    message = refused(RATE | {"b1": [0.9, 0.5]}, factories=factories)
    assert re.fullmatch(r"b1=0.5 of mine: KeyError: 'b2' \(\S+py, line \d+\)", message)
    message = refused({"learning_rate": [1.0], "b1": 0.25}, factories=factories)
    assert message.startswith("b1=0.25 of mine: RuntimeError: these two (")


def test_a_bad_required_key_is_not_blamed_on_an_optional_one():
    space = {"optimizer": "adam", "b1": 0.9, "learning_rate": -1.0}
    assert refused(space).startswith("learning_rate=-1.0 of adam: ")


def test_optional_keys_are_tried_together():
    def factory(learning_rate, b1=0.9, b2=0.999):
        if b1 > b2:
            raise ValueError("b1 <= b2 must hold")
        return optax.adam(learning_rate, b1, b2)

    message = refused(RATE | {"b1": 0.99, "b2": 0.95}, factories={"mine": factory})
    asked = "mine(learning_rate=0.1, b1=0.99, b2=0.95)"
    assert message.startswith(f"{asked}: b1 <= b2 must hold (")


def test_with_several_required_keys_all_are_named():
    def factory(learning_rate, momentum):
        return optax.chain(optjax.trace(momentum), optjax.sgd(learning_rate))

    message = refused(
        {"learning_rate": 0.1, "momentum": 1.0}, factories={"mine": factory}
    )
    assert message.startswith("learning_rate=0.1, momentum=1.0 of mine: ")


# ---------------------------------------------------------------- text and TOML


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("log(1e-4, 1)", LogUniform(1e-4, 1)),
        (" log_uniform( 1e-4 ,1.0 ) ", LogUniform(1e-4, 1.0)),
        ("uniform(0, 1)", Uniform(0, 1)),
        ("uniform(-1, .5)", Uniform(-1, 0.5)),
        ("0.1, 0.01", Choice((0.1, 0.01))),
        ("adam, adabound", Choice(("adam", "adabound"))),
        ("adam,adabound", Choice(("adam", "adabound"))),
        ("None, 0.9", Choice((None, 0.9))),
        ("true, False", Choice((True, False))),
        ("none", "none"),
        ("1e-3", 1e-3),
        ("5", 5),
        ("adam", "adam"),
    ],
)
def test_text(text, want):
    got = parse_dimension(text)
    assert got == want
    assert type(got) is type(want)
    if isinstance(want, Choice):
        assert [type(v) for v in got.values] == [type(v) for v in want.values]


TOML = """
optimizer = ["adam", "adabound"]
learning_rate = {low = 1e-4, high = 1, scale = "log"}
b1 = {low = 0.5, high = 0.9}
eps = "1e-8, 1e-6"
b2 = 0.99
final_lr = {values = [0.1, 1.0], only = ["adabound"]}
gamma = {low = 1e-4, high = 1e-2, scale = "log", only = "adabound"}
mu_dtype = ["None", "bfloat16"]
eps_root = {adam = [0.0, 1e-8]}
weight_decay = {adabound = "log(1e-5, 1e-2)"}
"""


def test_toml():
    space = {key: parse_dimension(value) for key, value in tomllib.loads(TOML).items()}
    assert space == {
        "optimizer": Choice(("adam", "adabound")),
        "learning_rate": LogUniform(1e-4, 1),
        "b1": Uniform(0.5, 0.9),
        "eps": Choice((1e-8, 1e-6)),
        "b2": 0.99,
        "final_lr": PerOptimizer({"adabound": Choice((0.1, 1.0))}),
        "gamma": PerOptimizer({"adabound": LogUniform(1e-4, 1e-2)}),
        "mu_dtype": Choice((None, "bfloat16")),
        "eps_root": PerOptimizer({"adam": Choice((0.0, 1e-8))}),
        "weight_decay": PerOptimizer({"adabound": LogUniform(1e-5, 1e-2)}),
    }
    got = configurations(space, draws=8)
    assert [config.optimizer for config in got] == ["adam"] * 8 + ["adabound"] * 8


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ("", ["''", "missing"]),
        ("0.1,", ["'0.1,'", "missing"]),
        ("log(1e-4, 1", ["'log(1e-4, 1'", "log(low, high)"]),
        ("log(1, 2), 3", ["'log(1, 2), 3'", "log(low, high)"]),
        ("log(1e-4)", ["log takes two numbers", "got 1"]),
        ("normal(0, 1)", ["normal is not a distribution", "uniform(low, high)"]),
        ({}, ["empty table"]),
        ({"low": 1}, ["high is missing"]),
        ({"high": 1}, ["low is missing"]),
        ({"low": 1, "hihg": 2}, ["'hihg'", "did you mean high"]),
        ({"low": 1, "high": 2, "scale": "lin"}, ["scale", '"linear"', "'lin'"]),
        ({"low": 1, "high": 2, "scale": ["log"]}, ["scale", "['log']"]),
        ({"values": [1], "low": 1}, ["'low'"]),
        ({"values": 1}, ["values must be an array"]),
        ({"values": [1], "only": 5}, ["only must be an array"]),
    ],
)
def test_what_cannot_be_read_is_refused(value, parts):
    with pytest.raises(SweepError) as caught:
        parse_dimension(value)
    for part in parts:
        assert part in str(caught.value)


def test_a_range_of_an_integer_has_both_ends_and_each_as_often():
    space = {"optimizer": "adashift", "learning_rate": 0.1, "keep_num": uniform(2, 5)}
    drawn = [c.static["keep_num"] for c in configurations(space, draws=64)]
    assert sorted(drawn) == [2, 3, 4, 5]
    space["keep_num"] = log_uniform(1, 64)
    drawn = [c.static["keep_num"] for c in configurations(space, draws=512)]
    assert {type(n) for n in drawn} == {int}
    assert min(drawn) == 1
    assert max(drawn) == 64
    below = [log_uniform(1, 63).whole_at(u) <= 8 for u in np.linspace(0, 0.99, 100)]
    # Three of six octaves from 1 to 64, and a bit for 8 itself.
    assert 0.5 <= np.mean(below) <= 0.54


def test_static_numbers_make_programs():
    space = {"optimizer": "adam", "learning_rate": 0.1, "b1": static(0.0, 0.9)}
    assert [c.static for c in configurations(space)] == [{"b1": 0.0}, {"b1": 0.9}]
    assert parse_dimension("static(0, 0.9)") == static(0, 0.9)
    assert "b1=2.0 of adam" in refused(space | {"b1": static(2.0)})


def test_a_list_of_spaces_is_all_of_theirs():
    first = {"optimizer": "adam", "learning_rate": [0.1, 0.2]}
    second = {"optimizer": "sgd", "learning_rate": 0.1, "nesterov": True, "momentum": 0}
    both = configurations([first, second], factories=optax_like())
    assert both == [
        *configurations(first, factories=optax_like()),
        *configurations(second, factories=optax_like()),
    ]
    # Configurations too, such as the best of another sweep, each once.
    assert configurations([*both, first], factories=optax_like()) == both
    assert configurations(both[0], factories=optax_like()) == both[:1]
    wrong = {"optimizer": "adam", "learning_rate": 0.1, "lr": 0.1}
    assert "'lr'" in refused([first, wrong])
    for empty in ([], [0.1], "adam"):
        with pytest.raises(SweepError, match="a list of these"):
            configurations(empty)


def optax_like():
    return {"adam": optjax.adam, "sgd": optax.sgd}


def test_a_schedule_has_no_optimizer_of_its_own():
    space = {
        "optimizer": ["adam", "adabound"],
        "learning_rate": 0.1,
        "schedule": ["cosine", "linear"],
        "warmup": uniform(0.0, 0.2),
    }
    found = configurations(space, draws=2)
    assert {c.optimizer for c in found} == {"adam", "adabound"}
    assert all({"learning_rate", "warmup"} == {*c.hyper} for c in found)
    assert "cosin" in refused(space | {"schedule": "cosin"}, draws=2)
    assert "warmup=1.5" in refused(space | {"warmup": 1.5})


def test_more_draws_than_a_finite_space_has_are_refused():
    space = {
        "optimizer": ["sgd", "adam"],
        "learning_rate": [0.1, 0.2],
        "b1": [0.8, 0.9],
    }
    assert len(configurations(space, draws=4)) <= 2 + 4
    message = refused(space, draws=5)
    assert "at most 4 configurations an optimizer, and draws=5 asks for more" in message
    # One that has something to draw is enough.
    some = [space, {"optimizer": "sgd", "learning_rate": log_uniform(0.01, 1.0)}]
    assert len(configurations(some, draws=64)) > 64
