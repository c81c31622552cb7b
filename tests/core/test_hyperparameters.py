"""Hyper-parameters: bad values are named, traced ones pass, schedules scale bounds."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiling import jit
from loop import NOISE, START, assert_same_path, stack, walk
from rows import CASES, each_case, each_row

import optjax

pytestmark = pytest.mark.usefixtures("cheaply_compiled")


# One leaf is enough of a number, and an operation compiles for each shape.
START = {"vector": START["vector"]}
NOISE = [{"vector": noise["vector"]} for noise in NOISE]

RELATIVE_TO_BASE = ("swats", "adabound", "amsbound", "adaboundw")
SCALES_WITH_BASE = pytest.mark.parametrize("name", RELATIVE_TO_BASE)

NAN, INFINITY = float("nan"), float("inf")
NO_NUMBER = [None, True, "0.5", 1j]
BAD_DECAYS = [-0.1, 1.0, 1.5, NAN, INFINITY, -INFINITY, *NO_NUMBER]
BAD_SIZES = [-1e-3, NAN, INFINITY, *NO_NUMBER]
BAD_POSITIVES = [0.0, *BAD_SIZES]

DECAYS = {"b1", "b2", "b3", "rho", "decay", "momentum"}
MAY_BE_NONE = {"momentum", "momentum_decay", "base_lr"}


def bad_values(row, name):
    if name in DECAYS:
        values = BAD_DECAYS
    elif (
        name in ("final_lr", "base_lr")
        or (name == "learning_rate" and row in RELATIVE_TO_BASE)
        or (name == "eps" and row in ("adadelta", "swats"))
    ):
        values = BAD_POSITIVES
    elif name == "freeze_after":
        values = [0.0, *(v for v in BAD_SIZES if v != INFINITY)]
    elif name == "p":
        values = [*BAD_SIZES, 0.6]
    elif name == "threshold":
        values = [*BAD_SIZES[:2], *NO_NUMBER, 3.9]
    else:
        values = BAD_SIZES
    return [v for v in values if v is not None or name not in MAY_BE_NONE]


BAD = [
    (row, name, value)
    for row in optjax.OPTIMIZERS
    for name in {
        key: None for case in CASES if case.row == row for key in case.hyperparameters()
    }
    for value in bad_values(row, name)
]


@pytest.mark.parametrize(("row", "name", "value"), BAD)
def test_bad_values(row, name, value):
    """The message has the argument's name, as the caller wrote it, and the value."""
    factory = optjax.OPTIMIZERS[row].factory
    shown = re.escape(repr(value) if isinstance(value, str) else str(value))
    with pytest.raises(ValueError, match=rf"^{name} must .*\bgot {shown}\."):
        factory(**{"learning_rate": 0.1, name: value})


@pytest.mark.parametrize("value", [-0.1, 1.0, NAN])
def test_bad_arrays(value):
    """Concrete arrays are checked as numbers are, inside `jit` too."""
    for kind in (np.float32, np.float64, np.array, jnp.array, jnp.float32):
        with pytest.raises(ValueError, match="b1 must"):
            optjax.adam(0.1, b1=kind(value))

    @jit
    def step(g):
        tx = optjax.adam(0.1, b1=value)
        return tx.update(g, tx.init(g))

    with pytest.raises(ValueError, match="b1 must"):
        step(jnp.ones(2))


@pytest.mark.parametrize(
    ("keep_num", "shown"),
    [(0, "0"), (-1, "-1"), (2.5, "2.5"), (NAN, "nan"), (None, "None"), ("3", "'3'")],
)
def test_bad_keep_num(keep_num, shown):
    with pytest.raises(ValueError, match=rf"keep_num must .* got {shown}\."):
        optjax.adashift(0.1, keep_num=keep_num)


def test_traced_keep_num_says_how_to_inject_it():
    inject = optax.inject_hyperparams(optjax.adashift)
    with pytest.raises(ValueError, match=r"static_args='keep_num'"):
        jax.eval_shape(inject(0.1).init, START)


@pytest.mark.parametrize("reduction", ["min", "", None, ["max"]])
def test_unknown_reduction(reduction):
    with pytest.raises(ValueError, match=r"max, mean, none, got "):
        optjax.adashift(0.1, reduction=reduction)


@each_case
def test_traced_values_are_not_checked(case):
    """No value is known, so none can be wrong, and none is asked for."""

    def step(values):
        tx = case.factory(**values)
        return tx.update(NOISE[0], tx.init(START), START)

    jax.eval_shape(step, case.hyperparameters())


def test_bad_traced_values_run():
    @jit
    @jax.vmap
    def step(b1):
        tx = optjax.adabound(0.1, b1=b1, gamma=-b1)
        return tx.update(NOISE[0], tx.init(START), START)[0]["vector"]

    first = optjax.adabound(0.1, b1=0.5, gamma=0.0)
    expected, _ = first.update(NOISE[0], first.init(START), START)
    steps = step(jnp.array([0.5, 1.0, 1.5, NAN]))
    np.testing.assert_allclose(steps[0], expected["vector"], rtol=1e-6)
    assert np.all(steps[1] == 0.0)  # With b1 = 1 the average never leaves its start.
    assert np.all(np.isnan(steps[3]))


@pytest.mark.parametrize(
    "kind",
    [np.float32, np.float64, np.array, jnp.float32, jnp.array],
    ids=["np.float32", "np.float64", "np.array", "jnp.float32", "jnp.array"],
)
@each_row
def test_kinds_of_numbers(case, kind):
    """Python, NumPy and JAX numbers are the same hyper-parameter."""
    values = {key: kind(value) for key, value in case.hyperparameters().items()}
    path = walk(case.factory(**values), START, NOISE[:3])
    assert_same_path(path, case.path(START, NOISE[:3]), rtol=1e-6)


def test_integers_are_numbers():
    path = updates_of(optjax.adabound(1, b1=0, b2=0, eps=1, final_lr=1, gamma=1))
    expected = updates_of(
        optjax.adabound(1.0, b1=0.0, b2=0.0, eps=1.0, final_lr=1.0, gamma=1.0)
    )
    assert_same_path(path, expected, rtol=0)


def halving(count):
    return 0.1 * 0.5 ** (count // 2)


def rising_from_zero(count):
    return 0.02 * count


def updates_of(tx, gradients=NOISE):
    """For given gradients, so that the parameters play no part."""
    zeros = jax.tree.map(jnp.zeros_like, START)
    state, path = tx.init(zeros), []
    for g in gradients:
        updates, state = tx.update(g, state, zeros)
        path.append(updates)
    return stack(path)


def times(factors, path):
    """Multiply the update of step t by factors[t]."""
    return jax.tree.map(
        lambda leaf: leaf * np.reshape(factors, (-1,) + (1,) * (leaf.ndim - 1)), path
    )


STEP_COUNTS = np.arange(len(NOISE))
# A row whose schedule is 1 has α_t in its rate, as AdaMod, which averages it; RMSProp's
# momentum sums past steps, α_t included.
OUTERMOST = [
    case
    for case in CASES
    if optjax.OPTIMIZERS[case.row].schedule != "1" and str(case) != "rmsprop-momentum"
]


@pytest.mark.parametrize("case", OUTERMOST, ids=str)
def test_the_schedule_is_outermost(case):
    """s · clip(r, lo, hi) = clip(s r, s lo, s hi): the bounds scale with α_t / α_0."""
    values = {**case.hyperparameters(), "learning_rate": 0.1}
    values.pop("base_lr", None)
    constant = updates_of(case.factory(**values))
    values["learning_rate"] = halving
    factors = np.array([halving(count) / 0.1 for count in range(len(NOISE))])
    assert_same_path(
        updates_of(case.factory(**values)),
        times(factors.astype(np.float32), constant),
        rtol=1e-6,
    )


@pytest.mark.parametrize("name", ["adabound", "amsbound", "adaboundw"])
def test_bounds_scale_with_the_schedule(name):
    """A rate at a bound is α_t / α_0 times the bound of a constant α."""
    gamma, final_lr, g = 0.5, 0.01, jnp.array([1e-6, 1e6])
    tx = getattr(optjax, name)(halving, b1=0.0, final_lr=final_lr, gamma=gamma)
    state, x = tx.init(g), jnp.zeros(2)
    for count in range(6):
        updates, state = tx.update(g, state, x)
        t, share = count + 1, halving(count) / halving(0)
        lower = final_lr * (1 - 1 / (gamma * t + 1))
        upper = final_lr * (1 + 1 / (gamma * t))
        np.testing.assert_allclose(
            -updates / g, [share * upper, share * lower], rtol=1e-5
        )


@SCALES_WITH_BASE
def test_a_schedule_from_zero_needs_a_base(name):
    factory = getattr(optjax, name)
    with pytest.raises(ValueError, match=r"learning_rate\(0\) .*got 0.*base_lr="):
        factory(rising_from_zero)
    with pytest.raises(ValueError, match=r"learning_rate must .*got 0.*base_lr="):
        factory(0.0)
    with pytest.raises(ValueError, match=r"learning_rate\(0\) .*got -1"):
        factory(lambda count: -1.0)
    factors = rising_from_zero(STEP_COUNTS) / 0.05
    assert_same_path(
        updates_of(factory(rising_from_zero, base_lr=0.05)),
        times(factors.astype(np.float32), updates_of(factory(0.05))),
        rtol=1e-6,
    )


@SCALES_WITH_BASE
def test_the_base_of_a_number_is_the_number(name):
    factory = getattr(optjax, name)
    assert_same_path(
        updates_of(factory(0.1, base_lr=0.1)), updates_of(factory(0.1)), rtol=1e-6
    )
    doubled = times(np.full(len(NOISE), 2.0, np.float32), updates_of(factory(0.1)))
    assert_same_path(updates_of(factory(0.2, base_lr=0.1)), doubled, rtol=1e-6)


@SCALES_WITH_BASE
def test_a_schedule_may_hold_a_traced_number(name):
    """Its first value is then not known, and the base is traced too."""
    factory = getattr(optjax, name)

    @jit
    @jax.vmap
    def traced(lr):
        return updates_of(factory(lambda count: lr * 0.5**count), NOISE[:3])

    both = traced(jnp.array([0.1, 0.3]))
    for i, lr in enumerate([0.1, 0.3]):
        expected = updates_of(factory(lambda count, lr=lr: lr * 0.5**count), NOISE[:3])
        assert_same_path(jax.tree.map(lambda leaf, i=i: leaf[i], both), expected)


@SCALES_WITH_BASE
def test_the_optax_schedules(name):
    """Inside `jit`, where the schedule's first value must still be a number."""
    factory = getattr(optjax, name)
    schedule = optax.warmup_cosine_decay_schedule(0.01, 0.1, 3, 20)
    tx = factory(schedule, base_lr=0.1)
    with_schedule = jit(lambda: updates_of(tx, NOISE[:4]))()
    factors = np.array([schedule(count) / 0.1 for count in range(4)], np.float32)
    assert_same_path(with_schedule, times(factors, updates_of(factory(0.1), NOISE[:4])))

    def rises(first):
        return factory(optax.warmup_cosine_decay_schedule(first, 0.1, 3, 20))

    for first in (0.0, 0.01):
        with pytest.raises(ValueError, match=r"base_lr=0\.1, the peak\."):
            jit(functools.partial(rises, first))()


def test_adamod_averages_its_schedule():
    """η_t contains α_t, and its average the α of the past."""
    b3 = 0.5
    constant, scheduled = (
        updates_of(optjax.adamod(lr, b3=b3))["vector"] for lr in (0.1, halving)
    )
    m, v, average, expected = 0.0, 0.0, 0.0, []
    for count, g in enumerate(np.asarray([n["vector"] for n in NOISE], np.float64)):
        t = count + 1
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        eta = halving(count) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        average = b3 * average + (1 - b3) * eta
        expected.append(-np.minimum(eta, average) * m / (1 - 0.9**t))
    np.testing.assert_allclose(scheduled, expected, rtol=1e-4)
    factors = halving(STEP_COUNTS)[:, None] / 0.1
    assert not np.allclose(scheduled, factors * constant)


@pytest.mark.parametrize("name", ["adamw", "nadamw", "adadelta", "adaboundw"])
def test_weight_decay_may_be_a_schedule(name):
    """Zero gradients leave the decay alone: α λ_t x, or in Adadelta its sign."""
    tx = getattr(optjax, name)(0.1, weight_decay=lambda count: 0.5 * count)
    x, zero = jnp.array([1.0, -2.0]), jnp.zeros(2)
    state = tx.init(x)
    for count in range(3):
        updates, state = tx.update(zero, state, x)
        if name == "adadelta":
            assert np.array_equal(np.sign(updates), -np.sign(x) * (count > 0))
        else:
            np.testing.assert_allclose(updates, -0.1 * 0.5 * count * x, rtol=1e-6)
