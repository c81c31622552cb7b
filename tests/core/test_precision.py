"""Numbers of the step count alone: right to 1e-6 in float32, for every decay and t."""

import decimal
import fractions
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from reference import run
from reference.scan import follow, moved

import optjax
from optjax._precision import one_minus_power
from optjax._rate import _H, _squares_held

LAST = 2**31 - 1
STEPS = np.unique(
    np.concatenate(
        [
            np.arange(1, 100),
            [2**24 - 1, 2**24, 2**24 + 1, LAST],
            *(10**k * np.arange(1, 10, 0.25) for k in range(2, 9)),
        ]
    )
).astype(np.int64)
DECAYS = [
    *(0.0, 1e-30, 1e-8, 1e-3, 0.1, 0.49, 0.5, 0.51, 0.8, 0.9, 0.95, 0.99, 0.999),
    *(0.9999, 0.99999, 1 - 1e-6, 1 - 1e-7),
]


def gathered(decay, t):
    """1 − decayᵗ in float64, from the exact value of `decay`."""
    with np.errstate(divide="ignore"):
        return -np.expm1(t * np.log1p(np.float64(decay) - 1.0))


def in_float32(t):
    return jnp.asarray(t, jnp.int32).astype(jnp.float32)


def test_one_minus_power_of_a_number():
    """Of the number as it is written, not of what float32 makes of it."""

    def every(t):
        return {decay: one_minus_power(decay, t) for decay in DECAYS}

    for f in (every, jax.jit(every)):
        for decay, actual in f(in_float32(STEPS)).items():
            expected = gathered(decay, STEPS)
            np.testing.assert_allclose(np.float64(actual), expected, 5e-7, 0, decay)


def test_one_minus_power_of_an_array():
    """Of the float32 number that it is."""
    for f in (one_minus_power, jax.jit(one_minus_power)):
        lanes = jax.vmap(f, (0, None))(np.float32(DECAYS), in_float32(STEPS))
        for decay, lane in zip(map(jnp.float32, DECAYS), lanes, strict=True):
            actual = np.float64(f(decay, in_float32(STEPS)))
            expected = gathered(decay, STEPS)
            np.testing.assert_allclose(actual, expected, 5e-7, 0, str(decay))
            np.testing.assert_array_equal(lane, actual, str(decay))


def test_one_minus_power_in_float64():
    with jax.enable_x64(True):
        for decay in DECAYS:
            for given in (decay, jnp.float64(decay)):
                actual = one_minus_power(given, jnp.asarray(STEPS, float))
                np.testing.assert_allclose(actual, gathered(decay, STEPS), rtol=1e-12)


@pytest.mark.parametrize("derivative", [jax.jacfwd, jax.jacrev])
def test_one_minus_power_has_a_derivative(derivative):
    """−t βᵗ⁻¹, at β = 0 too, forwards and backwards and once more."""
    decays = np.float32([0.0, 1e-8, 0.3, 0.9, 0.999, 0.99999])
    t = np.float32([1.0, 2.0, 3.0, 10.0, 1000.0])

    @jax.jit
    @jax.vmap
    def slopes(decay):
        once = jax.jacrev(one_minus_power)
        return derivative(one_minus_power)(decay, t), derivative(once)(decay, t)

    first, second = slopes(decays)
    exact = -t * np.float64(decays)[:, None] ** (t - 1)
    np.testing.assert_allclose(first, exact, rtol=1e-4, atol=1e-37)
    assert np.all(np.isfinite(second))


def squares_held(decay, t):
    """ρ_t by its definition, with fifty digits."""
    with decimal.localcontext(prec=50):
        b, t = decimal.Decimal(float(decay)), int(t)
        return float((1 + b) / (1 - b) - 2 * t * b**t / (1 - b**t))


@pytest.mark.parametrize("decay", [d for d in DECAYS if d >= 0.1])
def test_squares_held(decay):
    """RAdam's ρ_t, a difference of two numbers near 2 / (1 − β)."""
    steps = STEPS[:: len(STEPS) // 60]
    for given in (decay, jnp.float32(decay)):
        exact = [squares_held(given, t) for t in steps]
        rho, rho_inf = _squares_held(given, in_float32(steps))
        np.testing.assert_allclose(rho, exact, rtol=1e-6)
        assert float(rho_inf) == pytest.approx(squares_held(given, LAST), rel=1e-6)


@pytest.mark.parametrize("decay", [d for d in DECAYS if d >= 0.1])
def test_squares_held_in_float64(decay):
    """Every term of the series counts here; late steps feel the rounding of λt."""
    steps = STEPS[:: len(STEPS) // 60]
    with jax.enable_x64(True):
        rho, rho_inf = _squares_held(decay, jnp.asarray(steps, float))
    exact = [squares_held(decay, t) for t in steps]
    np.testing.assert_allclose(rho, exact, rtol=1e-12)
    assert float(rho_inf) == pytest.approx(squares_held(decay, LAST), rel=1e-12)


def test_the_series_of_squares_held():
    """y coth y = Σ 4ᵏ B_2k y²ᵏ / (2k)!, to the last digit of each coefficient."""
    bernoulli = [fractions.Fraction(1)]
    for n in range(1, 2 * len(_H) + 1):
        earlier = sum(math.comb(n + 1, k) * b for k, b in enumerate(bernoulli))
        bernoulli.append(-earlier / (n + 1))
    assert list(_H) == [
        float(4**k * bernoulli[2 * k] / math.factorial(2 * k))
        for k in range(1, len(_H) + 1)
    ]


def test_the_rate_is_used_from_the_threshold_on():
    """At ρ_t itself too, and not where the next number above it is wanted."""
    step = jnp.int32(8)
    rho, _ = _squares_held(0.9, jnp.float32(step))

    def at(threshold):
        tx = optjax.rectify(0.9, threshold)
        state = tx.init(jnp.zeros([]))._replace(count=step - 1)
        return tx.update(jnp.float32(100.0), state)[0]

    assert at(float(rho)) > 1
    assert at(float(np.nextafter(np.float32(rho), np.float32(9)))) == 1


def test_rectification_has_a_derivative():
    decays = np.array([0.0, 0.6, 0.9, 0.999, 0.99999])

    def last(decay):
        tx, one = optjax.rectify(decay), jnp.ones_like(decay)
        step = lambda state, _: tx.update(one, state)[::-1]  # noqa: E731
        return jax.lax.scan(step, tx.init(one), length=8)[1][-1]

    slopes = jax.jit(jax.vmap(jax.grad(last)))(np.float32(decays))
    assert np.all(np.isfinite(slopes))
    h = 1e-7
    with jax.enable_x64(True):
        around = np.stack([decays[2:4] + h, decays[2:4] - h])
        above, below = np.asarray(jax.jit(jax.vmap(jax.vmap(last)))(around))
    np.testing.assert_allclose(slopes[2:4], (above - below) / (2 * h), rtol=1e-2)


ROWS = ["adam", "nadam", "amsgrad", "radam", "adabelief", "yogi", "adabound", "swats"]
FIRST_STEPS = [(name, b2) for name in ROWS for b2 in (0.999, 0.9999, 0.99999)]


@pytest.fixture(scope="module")
def first_steps():
    """Of all in one program, and what they are taken on."""
    rng = np.random.default_rng(0)
    params = {"x": np.ones(4, np.float32)}
    grads = [{"x": np.float32(rng.uniform(0.5, 1.5, 4))} for _ in range(12)]
    every = {key: getattr(optjax, key[0])(1e-2, b2=key[1]) for key in FIRST_STEPS}
    return params, grads, follow(every, params, grads)


@pytest.mark.parametrize(("name", "b2"), FIRST_STEPS)
def test_the_first_steps(name, b2, first_steps):
    """Of rows that divide by 1 − β₂ᵗ, against NumPy in float64."""
    params, grads, actual = first_steps
    expected = moved(run(name, params, grads, 1e-2, b2=b2), params)
    np.testing.assert_allclose(actual[name, b2]["x"], expected["x"], rtol=2e-6)


def test_what_the_documentation_says_of_optax():
    """docs/differences.md: the first steps of Adam and RAdam in float32."""
    for b2, off in [(0.999, 1e-5), (0.9999, 1.1e-4), (0.99999, 6.9e-4)]:
        assert _apart(optax.adam(1.0, b2=b2), optax.adam(1.0, b2=b2)) == (
            pytest.approx(off, rel=0.1)
        )
        assert _apart(optjax.adam(1.0, b2=b2), optax.adam(1.0, b2=b2)) < 1e-6
    assert _apart(optax.radam(1.0), optax.radam(1.0)) == pytest.approx(1.2e-2, rel=0.1)
    assert _apart(optjax.radam(1.0), optax.radam(1.0)) < 1e-6


def _apart(actual, expected):
    """In float32, from the other in float64; five steps, or seven for RAdam's sixth."""
    steps = {}
    for dtype, optimizer in (("float32", actual), ("float64", expected)):
        with jax.enable_x64(dtype == "float64"):
            g = jnp.ones([], dtype)
            state, taken = optimizer.init(g), []
            for _ in range(7):
                update, state = optimizer.update(g, state)
                taken.append(float(update))
            steps[dtype] = np.array(taken)
    return np.max(np.abs(steps["float32"] / steps["float64"] - 1))


@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.5, 1.0, 2.0])
def test_the_sum_of_weights_of_nosadam(gamma):
    """B_t after five million steps, γ traced, and ν of equal gradients."""
    steps = 5_000_000

    def last(gamma):
        tx = optjax.mean_of_squares(gamma)

        def step(state, _):
            return tx.update(jnp.float32(3.0), state)[1], None

        return jax.lax.scan(step, tx.init(jnp.float32(0.0)), length=steps)[0]

    state = jax.jit(last)(jnp.float32(gamma))
    exact = np.sum(np.arange(1, steps + 1, dtype=np.float64) ** -np.float32(gamma))
    assert float(state.total_weight) == pytest.approx(exact, rel=1e-6)
    assert float(state.nu) == pytest.approx(9.0, rel=1e-5)


def test_the_product_of_momenta_of_nadam():
    """1 − Π μ_i is no difference: small where the first momenta are near 1."""
    gradients = np.random.default_rng(0).uniform(0.5, 1.5, 8)

    def follow():
        tx, g = optjax.nadam_ema(0.99999, 300.0), jnp.zeros([], float)
        state, taken = tx.init(g), []
        for g in gradients:
            m, state = tx.update(jnp.asarray(g, float), state)
            taken.append(float(m))
        return taken

    with jax.enable_x64(True):
        expected = follow()
    np.testing.assert_allclose(follow(), expected, rtol=2e-6)
