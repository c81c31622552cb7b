"""Bounds: in order, closing on f, finite at the ends, and counted from t = 1."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optjax
from optjax._bound import band_note

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

F = 0.1
T = np.arange(1, 20_001, dtype=np.float64)

CLOSING = {
    "hyperbolic": lambda speed: optjax.hyperbolic_bounds(F, speed),
    "exponential": lambda speed: optjax.exponential_bounds(F, speed),
    "linear": lambda speed: optjax.linear_bounds(F, 1 / speed),
}
SPEEDS = [1e-3, 0.1, 1.0, 50.0]

each_kind = pytest.mark.parametrize("kind", CLOSING)
each_speed = pytest.mark.parametrize("speed", SPEEDS)


def band(bounds, t=T):
    with jax.enable_x64(True):
        t = jnp.asarray(t)
        return np.asarray(bounds.lower(t)), np.asarray(bounds.upper(t))


@each_speed
@each_kind
def test_lower_is_below_upper_and_both_close_on_f(kind, speed):
    lo, hi = band(CLOSING[kind](speed))
    assert np.all(lo > 0)
    assert np.all(lo <= F * (1 + 1e-12))
    assert np.all(hi >= F * (1 - 1e-12))
    assert np.all(np.diff(lo) >= 0)
    assert np.all(np.diff(hi) <= 0)
    far = band(CLOSING[kind](speed), 1e9 / speed)
    np.testing.assert_allclose(far, [F, F], rtol=2e-9)


@each_speed
@each_kind
def test_the_bounds_are_each_others_mirror_image(kind, speed):
    """lo_t · hi_t = f²: as far below f as above, as a factor."""
    lo, hi = band(CLOSING[kind](speed))
    np.testing.assert_allclose(lo * hi, F**2, rtol=1e-9)


@each_speed
def test_the_formulas(speed):
    lo, hi = band(optjax.hyperbolic_bounds(F, speed))
    np.testing.assert_allclose(lo, F * (1 - 1 / (speed * T + 1)), rtol=1e-9)
    np.testing.assert_allclose(hi, F * (1 + 1 / (speed * T)), rtol=1e-9)
    lo, hi = band(optjax.exponential_bounds(F, speed))
    np.testing.assert_allclose(lo, F * (1 - np.exp(-speed * T)), rtol=1e-9)
    np.testing.assert_allclose(hi, F / (1 - np.exp(-speed * T)), rtol=1e-9)
    lo, hi = band(optjax.linear_bounds(F, 1 / speed))
    np.testing.assert_allclose(lo, F * np.minimum(speed * T, 1), rtol=1e-9)
    np.testing.assert_allclose(hi, F * np.maximum(1 / (speed * T), 1), rtol=1e-9)


def test_the_order_of_how_fast_they_close():
    """At γt = 5, and with the horizon at γt = 5: linear, exponential, hyperbolic."""
    lows = [
        float(bounds.lower(500.0))
        for bounds in (
            optjax.constant_bounds(0.01, 0.2),
            optjax.hyperbolic_bounds(F, 0.01),
            optjax.exponential_bounds(F, 0.01),
            optjax.linear_bounds(F, 500),
        )
        if callable(bounds.lower)
    ]
    np.testing.assert_allclose(lows, [F * 5 / 6, F * (1 - np.exp(-5)), F], rtol=1e-6)


@pytest.mark.parametrize("kind", ["hyperbolic", "exponential"])
def test_no_speed_is_no_bound(kind):
    """γ = 0 leaves [0, something huge] and nothing infinite or NaN, nor a gradient."""
    bounds = CLOSING[kind](0.0)
    for t in (1.0, 1e6, 2.0**31):
        assert bounds.lower(jnp.float32(t)) == 0.0
        assert 1e15 < bounds.upper(jnp.float32(t)) < np.inf

    def both(gamma):
        bounds = CLOSING[kind](gamma)
        return jnp.stack([bounds.lower(3.0), bounds.upper(3.0)])

    assert np.all(np.isfinite(jax.jacfwd(both)(0.0)))
    assert np.all(np.isfinite(jax.jacrev(both)(0.0)))


@each_kind
def test_in_float32_they_stay_in_order(kind):
    """Where rounding has closed the band, and where t has no float32 neighbours."""
    for speed in (1e-8, 1e-3, 1.0, 1e6):
        bounds = CLOSING[kind](speed)
        for t in (1.0, 7.0, 1e3, 1e6, 1e9, 2.0**31):
            lo, hi = bounds.lower(jnp.float32(t)), bounds.upper(jnp.float32(t))
            assert 0 < lo <= hi * (1 + 1e-6) < np.inf


def test_linear_bounds_are_closed_from_the_horizon_on():
    bounds = optjax.linear_bounds(F, 100)
    lo, hi = band(bounds, [99, 100, 101, 1000])
    assert lo[0] < F < hi[0]
    np.testing.assert_allclose(lo[1:], F, rtol=1e-15)
    np.testing.assert_allclose(hi[1:], F, rtol=1e-15)


def test_constant_bounds_are_the_numbers():
    assert optjax.constant_bounds(0.01, 0.1) == optjax.Bounds(0.01, 0.1)
    with pytest.raises(ValueError, match="upper"):
        optjax.constant_bounds(0.1, 0.01)


def test_the_count_starts_at_one():
    """Optax schedules start at 0, where 1/(γt) would be infinite."""
    seen = []

    def upper(t):
        seen.append(float(t))
        return 1.0 / t

    tx = optjax.bound_clip(0.0, upper)
    rate = jnp.array([5.0, 0.1])
    state, path = tx.init(rate), []
    for _ in range(4):
        clipped, state = tx.update(rate, state)
        path.append(clipped)
    assert seen == [1.0, 2.0, 3.0, 4.0]
    np.testing.assert_allclose(np.stack(path)[:, 0], [1, 1 / 2, 1 / 3, 1 / 4])
    np.testing.assert_allclose(np.stack(path)[:, 1], 0.1)
    assert int(state.count) == 4


def test_clip_takes_numbers_functions_and_traced_numbers():
    rate = jnp.array([1e-3, 0.5, 2.0])

    @jax.jit
    @jax.vmap
    def clip(lower, upper):
        tx = optjax.bound_clip(lower, upper)
        return tx.update(rate, tx.init(rate))[0]

    both = clip(jnp.array([0.01, 0.1]), jnp.array([1.0, 0.2]))
    np.testing.assert_allclose(both, [[0.01, 0.5, 1.0], [0.1, 0.2, 0.2]])
    above = optjax.bound_clip(0.1, np.inf)
    np.testing.assert_allclose(above.update(rate, above.init(rate))[0], [0.1, 0.5, 2])


def test_the_upper_bound_wins():
    tx = optjax.bound_clip(lambda t: 0.5, lambda t: 0.1)
    rate = jnp.array([0.01, 0.3, 2.0])
    np.testing.assert_allclose(tx.update(rate, tx.init(rate))[0], [0.1, 0.1, 0.1])


def test_clip_keeps_a_rates_dtype():
    for dtype in (jnp.bfloat16, jnp.float32):
        rate = jnp.ones(2, dtype)
        tx = optjax.bound_clip(*optjax.hyperbolic_bounds(0.1, 1e-3))
        assert tx.update(rate, tx.init(rate))[0].dtype == dtype


@pytest.mark.parametrize("steps", [100, 10_000, 1_234])
@pytest.mark.parametrize("fraction", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("factor", [1.01, 1.1, 2.0])
def test_gamma_for(steps, fraction, factor):
    """From that step on and not before, the band is within the factor of f."""
    gamma = optjax.gamma_for(steps, fraction, factor)
    closes_at = fraction * steps
    t = np.array([0.99 * closes_at, closes_at, 1.01 * closes_at, 10 * closes_at])
    lo, hi = band(optjax.hyperbolic_bounds(F, gamma), t)
    slack = 1 + 1e-12
    is_within = (lo * factor * slack >= F) & (hi <= F * factor * slack)
    assert is_within.tolist() == [False, True, True, True]
    np.testing.assert_allclose([lo[1], hi[1]], [F / factor, F * factor], rtol=1e-12)


def test_gamma_for_has_the_documented_number():
    """The published γ = 1e-3 closes within 10 % at t = 10,000."""
    assert optjax.gamma_for(10_000, 1.0, 1.1) == pytest.approx(1e-3)
    assert optjax.gamma_for(20_000) == pytest.approx(1e-3)


def test_the_note_of_a_band_that_is_open():
    """Beyond a factor of 1.1 from its middle to either end, and only there."""
    assert band_note(0.039, 0.256, 640) == (
        "the band is still 0.039 to 0.26 wide at step 640; "
        "gamma=0.031 closes it half way"
    )
    assert band_note(1.0, 1.22, 1)
    for lower, upper, steps in [
        (1.0, 1.1**2, 100),
        (1.0, 1.2, 100),
        (2.0, 2.3, 100),
        (0.1, np.inf, 100),
        (0.1, 0.5, 0),
    ]:
        assert band_note(lower, upper, steps) == ""


BAD = [
    (optjax.hyperbolic_bounds, {"final_lr": 0.0}),
    (optjax.hyperbolic_bounds, {"final_lr": -0.1}),
    (optjax.hyperbolic_bounds, {"gamma": -1e-3}),
    (optjax.hyperbolic_bounds, {"gamma": float("nan")}),
    (optjax.exponential_bounds, {"final_lr": 0.0}),
    (optjax.exponential_bounds, {"gamma": -1e-3}),
    (optjax.linear_bounds, {"final_lr": 0.0, "horizon": 10}),
    (optjax.linear_bounds, {"horizon": 0, "final_lr": 0.1}),
    (optjax.linear_bounds, {"horizon": -5, "final_lr": 0.1}),
    (optjax.gamma_for, {"steps": 0}),
    (optjax.gamma_for, {"steps": -10}),
    (optjax.gamma_for, {"fraction": 0.0, "steps": 10}),
    (optjax.gamma_for, {"fraction": 1.5, "steps": 10}),
    (optjax.gamma_for, {"factor": 1.0, "steps": 10}),
    (optjax.gamma_for, {"factor": 0.5, "steps": 10}),
    (optjax.bound_clip, {"lower": -0.1, "upper": 1.0}),
    (optjax.bound_clip, {"upper": 0.01, "lower": 0.1}),
]


@pytest.mark.parametrize(("function", "arguments"), BAD)
def test_bad_values(function, arguments):
    name, value = next(iter(arguments.items()))
    with pytest.raises(ValueError, match=rf"^{name} must .*got {value}"):
        function(**arguments)


def test_bad_traced_values_pass():
    @jax.jit
    def f(x):
        optjax.hyperbolic_bounds(x, x)
        optjax.exponential_bounds(x, x)
        optjax.linear_bounds(x, x)
        optjax.bound_clip(x, x)
        optjax.bound_clip(0.1, x)
        optjax.bound_clip(x, 0.1)
        return x

    assert f(-1.0) == -1.0


@pytest.mark.parametrize(
    "bounds", [optjax.hyperbolic_bounds, optjax.exponential_bounds]
)
@pytest.mark.parametrize("gamma", [1e12, 1e30, 3e38])
@pytest.mark.parametrize("t", [1e30, np.float32(2**31), jnp.float32(2**31)])
def test_bounds_are_closed_where_their_product_overflows(bounds, gamma, t):
    """γt, of which float32 holds no more than 3.4e38."""
    lower, upper = bounds(final_lr=0.1, gamma=gamma)
    for compiled in (lambda f: f, jax.jit):
        for bound in (lower, upper):
            np.testing.assert_allclose(compiled(bound)(t), 0.1, rtol=1e-6)
