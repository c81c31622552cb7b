"""A name that Optax has too takes Optax's arguments, in Optax's order."""

import functools
import inspect

import chex
import jax.numpy as jnp
import optax
import pytest

import optjax

SHARED = sorted(
    name
    for name in optjax.__all__
    if callable(getattr(optax, name, None)) and name != "__version__"
)

#: What is not Optax's by intention; each docstring says so.
ANOTHER_THING = {"monitor"}
OTHER_DEFAULTS = {
    # Optax's None leaves out the minus sign with the rate, and ascends.
    ("adadelta", "learning_rate"): 1.0,
    # Optax's None is the parameters' dtype: in bfloat16, b2 = 0.999 is 1.
    ("inject_hyperparams", "hyperparam_dtype"): jnp.float32,
}


def test_some_names_are_shared():
    assert {"adam", "ema", "trace", "inject_hyperparams", "nadamw"} <= set(SHARED)
    assert set(SHARED) >= ANOTHER_THING


@pytest.mark.parametrize("name", sorted(set(SHARED) - ANOTHER_THING))
def test_signature(name):
    theirs = inspect.signature(getattr(optax, name)).parameters
    ours = inspect.signature(getattr(optjax, name)).parameters
    positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
    in_order = [
        [key for key, p in signature.items() if p.kind is positional]
        for signature in (ours, theirs)
    ]
    assert in_order[0] == in_order[1]
    for key, parameter in theirs.items():
        assert ours[key].kind is parameter.kind, key
        default = OTHER_DEFAULTS.get((name, key), parameter.default)
        assert ours[key].default == default, key
    for key in set(ours) - set(theirs):
        assert ours[key].kind is inspect.Parameter.KEYWORD_ONLY, key
        assert ours[key].default is not inspect.Parameter.empty, key


@pytest.mark.parametrize("name", sorted(ANOTHER_THING))
def test_what_is_another_thing_says_so(name):
    assert f"`optax.{name}`" in inspect.getdoc(getattr(optjax, name)).split("\n\n")[1]


GRADIENTS = [jnp.array([1.0, -2.0, 0.5]), jnp.array([3.0, 1.0, -0.25])]


@pytest.mark.parametrize(
    "make",
    [
        lambda lib: lib.ema(0.9),
        lambda lib: lib.ema(0.9, False),
        lambda lib: lib.ema(jnp.float32(0.9), True, jnp.bfloat16),
        lambda lib: lib.ema(decay=0.5, debias=True, accumulator_dtype=jnp.float32),
        lambda lib: lib.trace(0.9),
        lambda lib: lib.trace(0.9, True),
        lambda lib: lib.trace(decay=0.9, nesterov=True, accumulator_dtype=jnp.float32),
        lambda lib: lib.nadam(0.1, nesterov=False),
        lambda lib: lib.nadam(0.1, nesterov=True),
        lambda lib: lib.nadamw(0.1, nesterov=False),
        lambda lib: lib.scale_by_adadelta(0.8, 1e-3),
        lambda lib: lib.inject_hyperparams(inner_factory=lib.sgd)(learning_rate=0.1),
        lambda lib: lib.inject_hyperparams(lib.sgd, "nesterov", jnp.float32)(
            0.1, 0.9, nesterov=True
        ),
    ],
)
def test_same_updates(make):
    def updates(library):
        tx, taken = make(library), []
        state = tx.init(GRADIENTS[0])
        for g in GRADIENTS:
            update, state = tx.update(g, state, g)
            taken.append(update)
        return taken

    chex.assert_trees_all_close(updates(optjax), updates(optax), rtol=2e-5)


def test_the_third_argument_of_ema_is_a_dtype():
    """And not the flag of Nesterov's look-ahead."""
    dtypes = [
        lib.ema(0.9, True, jnp.bfloat16).init(GRADIENTS[0]).ema.dtype
        for lib in (optax, optjax)
    ]
    assert dtypes == [jnp.bfloat16, jnp.bfloat16]


@pytest.mark.parametrize("name", ["nadam", "nadamw"])
def test_a_schedule_of_momenta_needs_nesterov(name):
    factory = functools.partial(getattr(optjax, name), 0.1, nesterov=False)
    with pytest.raises(ValueError, match="momentum_decay is of the momentum"):
        factory(momentum_decay=0.004)
