"""Properties of every row and part, at hyper-parameters and gradients that are drawn.

`pytest tests/core/test_properties.py --hypothesis-profile=long` draws more and others.
"""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiling import jit, known
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from reference import primitives
from reference.scan import assert_same_path
from rows import CASES, ROWS, Case, each_row

import optjax
from optjax._observe import observing
from optjax.monitoring._rates import read_rates

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

STEPS = 6
#: Of every kind: empty, one element without dimensions, and more.
SHAPES = {"empty": (0,), "scalar": (), "matrix": (2, 3)}


def number(least, most):
    """XLA takes a subnormal number for zero, NumPy does not."""
    return st.floats(least, most, allow_subnormal=False)


SHARE = number(0.0, 0.9999)
SMALL = st.sampled_from([0.0, 1e-8, 1e-4, 1e-2, 1.0])
DRAWN = {
    **dict.fromkeys(("b1", "b2", "b3", "decay", "rho", "momentum"), SHARE),
    **dict.fromkeys(("learning_rate", "final_lr"), number(1e-4, 1.0)),
    **dict.fromkeys(("weight_decay", "eps_root"), number(0.0, 0.1)),
    **dict.fromkeys(("initial_accumulator_value", "initial_scale"), number(0, 2)),
    "initial_value": number(0.0, 2.0),
    "base_lr": number(1e-4, 1.0),
    "eps": number(1e-6, 1.0),
    "gamma": number(1e-3, 10.0),
    "freeze_after": number(0.5, 20.0),
    "horizon": number(0.5, 20.0),
    "p": number(0.0, 0.5),
    "threshold": number(4.0, 20.0),
    "momentum_decay": number(0.0, 10.0),
}
GRADIENTS = st.fixed_dictionaries(
    {
        key: hnp.arrays(
            np.float64, (STEPS, *shape), elements=st.floats(-10, 10, width=32)
        )
        for key, shape in SHAPES.items()
    }
)
START = {key: np.full(shape, 0.5) for key, shape in SHAPES.items()}


NO_EPS = {
    name: Case(name, 1e-3, dict.fromkeys(("b1", "b2", *more), 0.5), {"eps": 0.0}, "0")
    for name, more in [
        ("adam", ()),
        ("adamw", ("weight_decay",)),
        ("adabound", ("gamma", "final_lr")),
        ("amsbound", ("gamma", "final_lr")),
        ("adaboundw", ("gamma", "final_lr", "weight_decay")),
    ]
}
BY_NAME = {str(case): case for case in (*CASES, *NO_EPS.values())}


def numbers_of(case):
    """Each from its range; what has none there, up to the value in `rows`."""
    values = case.hyperparameters().items()
    return st.fixed_dictionaries(
        {key: DRAWN.get(key, number(value / 2, value)) for key, value in values}
    )


@functools.cache
def compiled(name):
    """The updates of every step, and of a row the effective rates and their bounds.

    From numbers, gradients and a start; one program, whatever is asked of it.
    """
    case = BY_NAME[name]
    is_row = case in ROWS

    def path(numbers, grads, start):
        tx = case.factory(**numbers)

        def step(carry, g):
            x, state = carry
            with observing() as links:
                updates, state = tx.update(g, state, x)
            rates = read_rates(links) if is_row else {}
            return (optax.apply_updates(x, updates), state), (updates, rates)

        return jax.lax.scan(step, (start, tx.init(start)), grads)[1]

    if not is_row or optjax.OPTIMIZERS[case.row].bound == "–":
        return jit(path)
    # A rate is compared with its bounds to the bit, so XLA fuses both as for users.
    fuses = {name: True for name in known() if name == "xla_cpu_use_fusion_emitters"}
    return jax.jit(path, compiler_options=fuses)


def in_float64(case, numbers, grads):
    """The displacements after every step."""
    with jax.enable_x64(True):
        updates, _ = compiled(str(case))(numbers, grads, START)
        return {key: np.cumsum(np.asarray(u), axis=0) for key, u in updates.items()}


# Of the other, its tolerance is that of α_0, which is no part of the rule.
WITH_RULE = [case for case in CASES if str(case) != "swats-switches"]


@pytest.mark.parametrize("case", WITH_RULE, ids=str)
@given(st.data())
def test_every_row_follows_its_equation(case, data):
    numbers, grads = data.draw(numbers_of(case)), data.draw(GRADIENTS)
    start = {key: x for key, x in START.items() if x.size}
    gradients = [{key: grads[key][t] for key in start} for t in range(STEPS)]
    path = case.follow(start, gradients, **numbers)
    expected = {key: path[key] - start[key] for key in start}
    actual = in_float64(case, numbers, grads)
    assert actual.pop("empty").shape == (STEPS, 0)
    assert_same_path(actual, expected, 1e-9, start=start)


PARTS = {
    "trace": (optjax.trace, primitives.trace, ["decay"]),
    "ema": (optjax.ema, primitives.ema, ["decay"]),
    "nadam_ema": (optjax.nadam_ema, primitives.nadam_ema, ["b1", "momentum_decay"]),
    "sum_of_squares": (
        optjax.sum_of_squares,
        primitives.sum_of_squares,
        ["initial_value"],
    ),
    "mean_of_squares": (optjax.mean_of_squares, primitives.mean_of_squares, ["gamma"]),
    "running_max": (optjax.running_max, primitives.running_max, []),
    "debias_squares": (optjax.debias_squares, primitives.debias_squares, ["b2"]),
    "rate_by_one": (optjax.rate_by_one, primitives.rate_by_one, []),
    "rate_by_adadelta": (
        optjax.rate_by_adadelta,
        primitives.rate_by_adadelta,
        ["rho", "eps"],
    ),
    "rate_by_infinity_norm": (
        optjax.rate_by_infinity_norm,
        primitives.rate_by_infinity_norm,
        ["b2", "eps"],
    ),
    "correct_bias": (
        optjax.correct_bias,
        primitives.correct_bias,
        ["b1", "b2", "learning_rate"],
    ),
    "rectify": (optjax.rectify, primitives.rectify, ["b2", "threshold"]),
    "limit_by_average": (
        optjax.limit_by_average,
        primitives.limit_by_average,
        ["b3"],
    ),
    **{
        name: (
            getattr(optjax, name),
            getattr(primitives, name),
            ["b2", "initial_value"],
        )
        for name in (
            "ema_of_squares",
            "sign_ema_of_squares",
            "centered_ema_of_squares",
        )
    },
    **{
        name: (
            lambda *, bounds=bounds, **numbers: optjax.bound_clip(*bounds(**numbers)),
            rule,
            ["final_lr", speed],
        )
        for name, bounds, rule, speed in [
            (
                "hyperbolic_bounds",
                optjax.hyperbolic_bounds,
                primitives.hyperbolic_clip,
                "gamma",
            ),
            (
                "exponential_bounds",
                optjax.exponential_bounds,
                primitives.exponential_clip,
                "gamma",
            ),
            ("linear_bounds", optjax.linear_bounds, primitives.linear_clip, "horizon"),
        ]
    },
}
FLAGS = {
    "trace": {"nesterov": st.booleans()},
    "ema": {"debias": st.booleans(), "nesterov": st.booleans()},
    "ema_of_squares": {"debias": st.booleans()},
    "sign_ema_of_squares": {"debias": st.booleans()},
    "centered_ema_of_squares": {"debias": st.booleans()},
}
#: What these are given are rates or squares.
POSITIVE = {
    "running_max",
    "debias_squares",
    "correct_bias",
    "rectify",
    "limit_by_average",
    "hyperbolic_bounds",
    "exponential_bounds",
    "linear_bounds",
}


def test_every_part_has_a_rule_of_its_own():
    parts = {
        name
        for name in optjax.__all__
        if inspect.isfunction(part := getattr(optjax, name))
        and part.__module__
        in ("optjax._accumulator", "optjax._bound", "optjax._direction", "optjax._rate")
    }
    # Products of others; those that only a row can show; and what is no part.
    in_rows = {"rate_by_accumulated_square", "ema_of_squared_residuals"}
    others = {"bound_clip", "constant_bounds", "gamma_for"}
    twins = {name for name in parts if name.startswith("scale_by_")}
    assert parts - in_rows - others - twins == set(PARTS)


@functools.cache
def compiled_part(name, flags):
    def path(numbers, gradients):
        tx = PARTS[name][0](**numbers, **dict(flags))
        params = 0.0 * gradients[0]

        def step(state, g):
            updates, state = tx.update(g, state, params)
            return state, updates

        return jax.lax.scan(step, tx.init(params), gradients)[1]

    return jit(path)


@pytest.mark.parametrize("name", PARTS)
@given(st.data())
def test_every_part_follows_its_equation(name, data):
    _, rule, needed = PARTS[name]
    numbers = {key: data.draw(DRAWN[key], key) for key in needed}
    flags = {key: data.draw(flag, key) for key, flag in FLAGS.get(name, {}).items()}
    gradients = data.draw(GRADIENTS)["matrix"]
    if name in POSITIVE:
        gradients = np.abs(gradients)
    with jax.enable_x64(True):
        actual = compiled_part(name, tuple(flags.items()))(numbers, gradients)
    expected = rule(gradients, **numbers, **flags)
    size = np.max(np.abs(expected))
    if name == "centered_ema_of_squares":
        # A difference of squares, of which each is rounded.
        size = np.maximum(size, np.max(gradients**2))
    atol = np.maximum(1e-13 * size, 1e-300)
    np.testing.assert_allclose(actual, expected, 1e-9, atol)


@each_row
@given(st.data())
def test_rates_are_positive_and_inside_their_bounds(case, data):
    numbers, grads = data.draw(numbers_of(case)), data.draw(GRADIENTS)
    with jax.enable_x64(True):
        _, rates = compiled(str(case))(numbers, grads, START)
    assert set(rates) == set(SHAPES)
    for name, rate in rates.items():
        v = np.asarray(rate.rate)
        assert np.all(np.isfinite(v))
        assert np.all(v > 0) or case.row in ("adashift", "adamod")
        assert np.all(v >= 0)
        assert np.all(np.asarray(rate.schedule) > 0)
        # Of AdaMod's each coordinate has one of its own.
        lower, upper = (
            np.asarray(b)
            if np.ndim(b) == v.ndim
            else np.broadcast_to(b, STEPS).reshape(STEPS, *[1] * (v.ndim - 1))
            for b in (rate.lower, rate.upper)
        )
        assert np.all((v >= lower) & (v <= upper))
        bounded = optjax.OPTIMIZERS[case.row].bound != "–"
        if case.row == "graftbound":
            # At the latest after the first gradient whose square is a number, if it
            # was measured; weight decay may make one before.
            some = np.any(np.abs(grads[name]) > 1e-100, axis=tuple(range(1, v.ndim)))
            is_measured = np.arange(1, STEPS + 1) <= numbers["freeze_after"]
            bounded = np.cumsum([False, *(some & is_measured)][:-1]) > 0
            assert np.all(upper.ravel()[bounded] < np.inf)
        else:
            assert np.all(upper < np.inf) == bounded


ADAM = {"adabound": "adam", "adaboundw": "adamw"}


@pytest.mark.parametrize("name", ADAM)
@given(st.data())
def test_without_speed_adabound_is_adam(name, data):
    """γ = 0 leaves the rate unbounded. ε, which AdaBound adds to the raw √ν and Adam
    to the debiased, must be 0; then, wherever ν > 0, they are equal to float64's
    rounding. With β₂ = 0 a coordinate without gradient has ν = 0 and m ≠ 0."""
    adam = NO_EPS[ADAM[name]]
    numbers, grads = data.draw(numbers_of(adam)), data.draw(GRADIENTS)
    numbers["b2"] = max(numbers["b2"], 0.01)
    final_lr = data.draw(DRAWN["final_lr"])
    actual = in_float64(
        NO_EPS[name], {**numbers, "gamma": 0.0, "final_lr": final_lr}, grads
    )
    expected = in_float64(adam, numbers, grads)
    for key in SHAPES:
        size = np.max(np.abs(expected[key]), initial=0.0)
        np.testing.assert_allclose(actual[key], expected[key], 1e-11, 1e-12 * size)


@pytest.mark.parametrize("name", ["adabound", "amsbound"])
@given(st.data())
def test_with_equal_bounds_adabound_is_sgd_with_momentum(name, data):
    """lo = hi = f: heavy-ball SGD with learning rate f (1 − β₁) and momentum β₁, since
    m is an average. At γ = 10¹⁵ the bounds are equal in float64."""
    numbers = data.draw(numbers_of(NO_EPS[name])) | {"gamma": 1e15}
    grads = data.draw(GRADIENTS)
    actual = in_float64(NO_EPS[name], numbers, grads)
    b1, f = numbers["b1"], numbers["final_lr"]
    sgd = {"learning_rate": f * (1 - b1), "momentum": b1}
    expected = in_float64(BY_NAME["momentum"], sgd, grads)
    for key in SHAPES:
        size = np.max(np.abs(expected[key]), initial=0.0)
        np.testing.assert_allclose(actual[key], expected[key], 1e-11, 1e-12 * size)


#: Two shapes, since an operation compiles for each; others are in test_inputs.
LEAVES = st.builds(
    lambda shape, dtype: jnp.full(shape, 0.5, dtype),
    st.sampled_from([(), (3,)]),
    st.sampled_from(["float32", "bfloat16", "float16"]),
)
TREES = st.recursive(
    LEAVES | st.none(),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    ),
    max_leaves=5,
).map(lambda tree: {"tree": tree})
#: Of a leaf's largest update so far, as a step may cancel what the one before took, for
#: one step from the same state: rounding the update, and in float16 and bfloat16 the
#: direction before it.
WITH_L2 = ("adabound", "amsbound")
ROUNDING = {"float32": 1e-5, "bfloat16": 2**-7, "float16": 2**-10}


@each_row
@given(TREES, st.integers(0, 2**32 - 1))
def test_trees_and_dtypes(case, params, seed):
    """Any containers; updates in the gradients' dtypes, state in its own; and every
    step is the step in float64, rounded, of the sum g + λ x that the dtype has."""
    rng = np.random.default_rng(seed)
    tx = case.interior()

    def gradient():
        return jax.tree.map(
            lambda x: jnp.asarray(
                rng.choice([-2.0, -0.1, 0.0, 0.5, 3.0], x.shape), x.dtype
            ),
            params,
        )

    state = tx.init(params)
    kinds = jax.tree.map(lambda x: (x.shape, x.dtype), state)
    largest = [0.0] * len(jax.tree.leaves(params))
    for _ in range(3):
        before, grads = state, gradient()
        updates, state = tx.update(grads, state, params)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == kinds
        assert jax.tree.structure(updates) == jax.tree.structure(params)
        sizes = [
            float(np.max(np.abs(u), initial=0.0)) for u in jax.tree.leaves(updates)
        ]
        largest = [*map(max, largest, sizes)]
    with jax.enable_x64(True):
        # The sum of the two is rounded before all else, and may cancel m.
        decay = case.hyperparameters()["weight_decay"] if case.row in WITH_L2 else 0.0
        sums = jax.tree.map(lambda g, x: g + decay * x, grads, params)
        start = widened(params)
        grads = jax.tree.map(lambda g, x: g - decay * x, widened(sums), start)
        exact, _ = tx.update(grads, widened(before), start)
        exact = jax.tree.map(np.asarray, exact)
    leaves = map(jax.tree.leaves, (updates, exact, params))
    for u, want, x, size in zip(*leaves, largest, strict=True):
        assert u.dtype == x.dtype
        assert u.shape == x.shape
        error = np.max(np.abs(np.asarray(u).astype(np.float64) - want), initial=0.0)
        assert error <= ROUNDING[str(x.dtype)] * size + 1e-7 * (x.dtype == "float16")


def widened(tree):
    return jax.tree.map(
        lambda x: (
            jnp.asarray(np.asarray(x).astype(np.float64))
            if jnp.issubdtype(x.dtype, jnp.floating)
            else jnp.asarray(x)
        ),
        tree,
    )
