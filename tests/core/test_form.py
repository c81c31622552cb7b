"""The basic form: branches multiply, the schedule is outermost and has the sign."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from loop import NOISE, START, assert_same_path, differ, stack, walk

import optjax

pytestmark = pytest.mark.usefixtures("cheaply_compiled")


def outputs_of(tx, inputs=NOISE, params=START, **extra):
    """What a transformation returns for given inputs, stacked."""
    state, path = tx.init(params), []
    for g in inputs:
        out, state = tx.update(g, state, params, **extra)
        path.append(out)
    return stack(path)


def test_precondition_multiplies_its_branches():
    """Both see the gradient: the accumulator's is not the direction's output."""
    direction = optjax.ema(0.9)
    rate = optjax.rate_by_accumulated_square(optjax.ema_of_squares(0.99), eps=1e-3)
    m, v = outputs_of(direction), outputs_of(rate)
    expected = jax.tree.map(lambda m, v: v * m, m, v)
    assert_same_path(outputs_of(optjax.precondition(direction, rate)), expected, 1e-6)
    in_a_line = optax.chain(direction, optjax.precondition(optax.identity(), rate))
    assert differ(outputs_of(in_a_line), expected, 1e-2)


def test_precondition_works_in_float32_until_the_end():
    """1e-4 times 1e8 is no trouble, though 1e8 is infinite in float16."""
    huge = optax.chain(optjax.rate_by_one(), optax.scale(1e8))
    tx = optjax.precondition(optax.identity(), huge)
    g = jnp.array([1e-4, -2e-4], jnp.float16)
    out, _ = tx.update(g, tx.init(g))
    assert out.dtype == jnp.float16
    np.testing.assert_allclose(out, [1e4, -2e4], rtol=2e-3)


def test_gradients_in_float16_are_widened_at_the_start():
    """Before any part sees them, whose sums may leave its range; others are not."""
    seen = []
    spy = optax.stateless(lambda g, _: (seen.append(g.dtype), g)[1])
    tx = optjax.precondition(spy, optjax.rate_by_one())
    for dtype in (jnp.float16, jnp.bfloat16, jnp.float32):
        g = jnp.ones(2, dtype)
        assert tx.update(g, tx.init(g))[0].dtype == dtype
    assert seen == [jnp.float32, jnp.bfloat16, jnp.float32]


def test_precondition_hands_over_what_update_was_given():
    """Parameters and extra arguments reach both branches, the direction's state one."""
    seen = {}

    def spy(name):
        def update(updates, state, params=None, **extra):
            seen[name] = params, extra
            return updates, state + 1

        return optax.GradientTransformationExtraArgs(lambda _: 0, update)

    tx = optjax.precondition(spy("direction"), spy("rate"))
    tx.update(START, tx.init(START), NOISE[0], value=3.0)
    assert seen["direction"] == (NOISE[0], {"value": 3.0})
    told = {"value": 3.0, "direction_state": 1, "direction": START, "gradient": START}
    assert seen["rate"] == (NOISE[0], told)


def test_precondition_refuses_branches_of_different_shape():
    halved = optax.stateless(lambda g, _: jax.tree.map(lambda x: x[:1], g))
    tx = optjax.precondition(optax.identity(), halved)
    g = jnp.ones(3)
    with pytest.raises(ValueError, match=r"shape \(3,\).*shape \(1,\)"):
        tx.update(g, tx.init(g))


@pytest.mark.parametrize("schedule", [0.1, 1.0, 2.0, lambda count: 0.1 * 0.5**count])
def test_basic_form_is_the_equation(schedule):
    """x[t+1] = x[t] − s_t · (V_t ⊙ m_t + λ x[t])."""
    direction = optjax.trace(0.9)
    rate = optjax.rate_by_accumulated_square(optjax.sum_of_squares(), eps=1e-3)
    x, states, path = START, (direction.init(START), rate.init(START)), []
    for count, g in enumerate(NOISE):
        m, m_state = direction.update(g, states[0], x)
        v, v_state = rate.update(g, states[1], x)
        states = m_state, v_state
        s = schedule(count) if callable(schedule) else schedule
        x = jax.tree.map(lambda x, m, v, s=s: x - s * (v * m + 0.01 * x), x, m, v)
        path.append(x)
    tx = optjax.basic_form(
        direction, rate, schedule, decay=optax.add_decayed_weights(0.01)
    )
    actual = walk(tx, gradient=lambda x, noise: noise)
    assert_same_path(actual, stack(path), rtol=1e-6)


def test_a_learning_rate_of_one_negates_and_does_not_multiply():
    tx = optjax.basic_form(optax.identity(), optjax.rate_by_one(), 1.0)
    update = jax.make_jaxpr(lambda g: tx.update(g, tx.init(g))[0])(jnp.ones(3))
    names = [eqn.primitive.name for eqn in update.eqns]
    assert names.count("neg") == 1
    assert "mul" not in names


def test_an_outermost_schedule_scales_the_bounds():
    """s · clip(r, lo, hi) = clip(s r, s lo, s hi)."""

    def scaled(s):
        return optjax.basic_form(
            optax.identity(),
            optax.chain(
                optjax.rate_by_accumulated_square(optjax.ema_of_squares(0.9)),
                optax.scale(s * 0.1),
                optjax.bound_clip(s * 0.05, lambda t: s * 0.3 / t),
            ),
            1.0,
        )

    inside = outputs_of(scaled(0.3))
    outside = jax.tree.map(lambda u: 0.3 * u, outputs_of(scaled(1.0)))
    assert_same_path(inside, outside, rtol=1e-6)


@pytest.mark.parametrize("b1", [0.9, 0.5])
@pytest.mark.parametrize("name", ["adabound", "amsbound", "adaboundw"])
def test_the_limit_of_adabound_is_sgd(name, b1):
    """V = f and m an average: SGD with momentum β₁ and learning rate f (1 − β₁)."""
    more = {"weight_decay": 0.0} if name == "adaboundw" else {}
    tx = getattr(optjax, name)(1e-3, b1=b1, final_lr=0.1, gamma=1e6, **more)
    limit = optjax.sgd(0.1 * (1 - b1), momentum=b1)
    assert_same_path(walk(tx), walk(limit), rtol=1e-5)
    early = getattr(optjax, name)(1e-3, b1=b1, final_lr=0.1, gamma=1e-3, **more)
    assert differ(walk(early), walk(limit), 1e-2)


def test_adabound_arrives_at_sgd_late_in_a_run():
    """The published γ: by t = 1e6 the band is within 0.1 % of f."""
    tx = optjax.adabound(1e-3, final_lr=0.1)
    state = jax.tree.map(
        lambda leaf: jnp.full_like(leaf, 10**6) if leaf.dtype == jnp.int32 else leaf,
        tx.init(START),
    )
    limit = optjax.sgd(0.01, momentum=0.9)
    limit_state = limit.init(START)
    for g in NOISE:
        updates, state = tx.update(g, state, START)
        expected, limit_state = limit.update(g, limit_state, START)
        for u, e in zip(*map(jax.tree.leaves, (updates, expected)), strict=True):
            np.testing.assert_allclose(u, e, rtol=2e-3)


def test_without_a_band_adabound_is_adam():
    """γ = 0, and ε as AdaBound has it, small beside the root."""
    tx = optjax.adabound(0.1, gamma=0.0, eps=0.0)
    assert_same_path(walk(tx), walk(optjax.adam(0.1, eps=0.0)), rtol=1e-5)


TWINS = [
    (
        optjax.scale_by_accumulated_square,
        optjax.rate_by_accumulated_square,
        {"accumulator": optjax.ema_of_squares(0.9), "eps": 1e-3, "power": 0.25},
    ),
    (optjax.scale_by_adadelta, optjax.rate_by_adadelta, {"rho": 0.8, "eps": 1e-3}),
    (
        optjax.scale_by_infinity_norm,
        optjax.rate_by_infinity_norm,
        {"b2": 0.8, "eps": 1e-3},
    ),
]


@pytest.mark.parametrize(("scale_by", "rate_by", "arguments"), TWINS)
def test_scale_by_is_the_rate_times_the_gradient(scale_by, rate_by, arguments):
    rates = outputs_of(rate_by(**arguments))
    assert all(bool(jnp.all(leaf > 0)) for leaf in jax.tree.leaves(rates))
    expected = jax.tree.map(lambda v, g: v * g, rates, stack(NOISE))
    assert_same_path(outputs_of(scale_by(**arguments)), expected, 1e-6)


@pytest.mark.parametrize("power", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("eps", [0.0, 1.0])
@pytest.mark.parametrize("eps_root", [0.0, 1.0])
def test_the_rate_is_one_over_the_power_of_the_root(power, eps, eps_root):
    tx = optjax.rate_by_accumulated_square(
        optjax.sum_of_squares(1.0), eps, eps_root, power
    )
    g = np.array([-2.0, 4.0], np.float32)
    expected = (np.sqrt(1 + g**2 + eps_root) + eps) ** (-2 * power)
    np.testing.assert_allclose(tx.update(g, tx.init(g))[0], expected, rtol=1e-6)


@pytest.mark.parametrize("power", [0.25, 0.5])
@pytest.mark.parametrize("eps_root", [0.0, 1e-36, 1e-27, 5e-26, 6e-26, 1e-8])
@pytest.mark.parametrize("traced", [False, True])
def test_a_coordinate_without_gradient_has_no_slope(traced, eps_root, power):
    """Both ways round, whatever is added under the root; another one has its own."""
    g = jnp.array([0.0, 0.5])

    def rate(g, eps_root):
        tx = optjax.rate_by_accumulated_square(
            optjax.sum_of_squares(), 0.0, eps_root, power
        )
        return tx.update(g, tx.init(g))[0]

    for derivative in (jax.jacfwd, jax.jacrev):
        f = derivative(lambda g, eps_root=eps_root: rate(g, eps_root))
        slope = jax.jit(f)(g, jnp.float32(eps_root)) if traced else f(g)
        expected = np.diag([0.0, -4 * power * 4.0**power])
        np.testing.assert_allclose(slope, expected, rtol=1e-6)


def test_a_rate_has_its_curvature_at_zero():
    """−ε̄^−3/2 of a square that is 0, where float32 has that number."""

    def rate(g, eps_root):
        tx = optjax.rate_by_accumulated_square(optjax.sum_of_squares(), 0.0, eps_root)
        return tx.update(g, tx.init(g))[0]

    for eps_root in (4.0, jnp.float32(4.0)):
        curvature = jax.grad(jax.grad(rate))(0.0, eps_root)
        assert curvature == pytest.approx(-1 / 8, rel=1e-6)


#: Whose defaults are whose; of the names that both have.
SAME_DEFAULTS = [
    *((scale_by, rate_by) for scale_by, rate_by, _ in TWINS),
    (optjax.rate_by_accumulated_square, optjax.adam),
    (optjax.rate_by_adadelta, optjax.adadelta),
    (optjax.rate_by_infinity_norm, optjax.adamax),
    (optjax.rectify, optjax.radam),
    (optjax.ema_of_squared_residuals, optjax.adabelief),
    (optjax.hyperbolic_bounds, optjax.adabound),
    (optjax.exponential_bounds, optjax.adabound),
]


@pytest.mark.parametrize(("part", "whole"), SAME_DEFAULTS)
def test_a_part_has_the_defaults_of_its_row(part, whole):
    theirs = inspect.signature(whole).parameters
    ours = {
        name: parameter.default
        for name, parameter in inspect.signature(part).parameters.items()
        if parameter.default is not parameter.empty and name in theirs
    }
    assert set(ours) - {"nu_dtype"}
    assert ours == {name: theirs[name].default for name in ours}


def test_defaults_of_parts_alone():
    """No power but the root's, ν_0 and α as if they were not there."""
    powers = inspect.signature(optjax.rate_by_accumulated_square).parameters
    assert powers["power"].default == 0.5
    for name in ("sum_of_squares", "ema_of_squares", "centered_ema_of_squares"):
        accumulator = inspect.signature(getattr(optjax, name)).parameters
        assert accumulator["initial_value"].default == 0.0
    signed = inspect.signature(optjax.sign_ema_of_squares).parameters
    assert signed["initial_value"].default == 1e-6
    assert inspect.signature(optjax.mean_of_squares).parameters["gamma"].default == 0.0
    alpha = inspect.signature(optjax.correct_bias).parameters["learning_rate"]
    assert alpha.default == 1.0


def test_scale_by_belongs_in_a_chain_of_ones_own():
    """Clipped, scaled and descending: RMSProp by Optax's own building blocks."""
    ours = optjax.scale_by_accumulated_square(
        optjax.ema_of_squares(0.9, debias=False), eps=0.0, eps_root=1e-8
    )
    theirs = optax.scale_by_rms(0.9)

    def chain(scale_by):
        return optax.chain(
            optax.clip_by_global_norm(1.0), scale_by, optax.scale_by_learning_rate(0.1)
        )

    assert_same_path(walk(chain(ours)), walk(chain(theirs)), rtol=1e-6)


def test_yogis_accumulator_stands_still_at_the_square():
    tx = optjax.sign_ema_of_squares(0.9, debias=False, initial_value=4.0)
    g = jnp.array([-2.0, 1.0, 3.0])
    nu, _ = tx.update(g, tx.init(g))
    np.testing.assert_allclose(nu, [4.0, 3.9, 4.9], rtol=1e-6)


def test_adabelief_adds_to_its_accumulator():
    """ν_1 = (1 − β₂) (g − m)² + ε̄."""
    tx = optjax.ema_of_squared_residuals(0.75, eps_root=0.5, debias=False)
    ema, g = optjax.ema(0.5, debias=False), jnp.array([4.0, -8.0])
    _, average = ema.update(g, ema.init(g))
    nu, _ = tx.update(g, tx.init(g), direction_state=average)
    np.testing.assert_allclose(nu, [1.5, 4.5], rtol=1e-6)


def test_adabelief_needs_an_average_to_believe_in():
    rate = optjax.rate_by_accumulated_square(optjax.ema_of_squared_residuals(0.999))
    tx = optjax.precondition(optax.identity(), rate)
    with pytest.raises(ValueError, match=r"direction branch.*EmptyState.*optjax\.ema"):
        tx.update(START, tx.init(START))


def test_the_direction_may_be_optaxs():
    """Any gradient transformation will do, and so will a chain of them."""
    rate = optjax.rate_by_accumulated_square(optjax.ema_of_squares(0.999))
    ours = optjax.basic_form(optjax.ema(0.9), rate, 0.1)
    theirs = optjax.basic_form(optax.ema(0.9), rate, 0.1)
    assert_same_path(walk(theirs), walk(ours), rtol=1e-6)
    assert_same_path(walk(ours), walk(optjax.adam(0.1)), rtol=1e-6)
    clipped = optjax.basic_form(
        optax.chain(optax.clip(0.5), optjax.ema(0.9)), rate, 0.1
    )
    assert differ(walk(clipped), walk(ours))


GRADIENTS = np.array([[3.0, -0.05], [1.0, 0.2], [-2.0, 0.01], [0.5, 0.05]] * 5)


def bounded_yogi():
    accumulator = optjax.sign_ema_of_squares(0.999)
    rate = optjax.rate_by_accumulated_square(accumulator, 1e-3)
    return optax.chain(rate, optax.scale(0.05)), optjax.ema(0.9)


def bounded_rmsprop():
    rate = optjax.rate_by_accumulated_square(optjax.ema_of_squares(0.9, debias=False))
    return optax.chain(rate, optax.scale(0.05)), optax.identity()


def bounded_adabelief():
    accumulator = optjax.ema_of_squared_residuals(0.999)
    rate = optjax.rate_by_accumulated_square(accumulator, 1e-16)
    return optax.chain(rate, optax.scale(0.05)), optjax.ema(0.9)


def numpy_yogi(gradients):
    m, v = 0.0, np.full(2, 1e-6)
    for t, g in enumerate(gradients, start=1):
        m = 0.9 * m + 0.1 * g
        v = v - 0.001 * np.sign(v - g * g) * g * g
        yield m / (1 - 0.9**t), 0.05 / (np.sqrt(v / (1 - 0.999**t)) + 1e-3)


def numpy_rmsprop(gradients):
    v = 0.0
    for g in gradients:
        v = 0.9 * v + 0.1 * g * g
        yield g, 0.05 / (np.sqrt(v) + 1e-8)


def numpy_adabelief(gradients):
    m = v = 0.0
    for t, g in enumerate(gradients, start=1):
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * (g - m) ** 2 + 1e-16
        yield m / (1 - 0.9**t), 0.05 / (np.sqrt(v / (1 - 0.999**t)) + 1e-16)


@pytest.mark.parametrize(
    ("parts", "reference"),
    [
        (bounded_yogi, numpy_yogi),
        (bounded_rmsprop, numpy_rmsprop),
        (bounded_adabelief, numpy_adabelief),
    ],
)
def test_bounds_compose_with_everything(parts, reference):
    """Three lines each, and each clipped at both ends on the way."""
    rate, direction = parts()
    bound = optjax.bound_clip(*optjax.hyperbolic_bounds(final_lr=0.05, gamma=0.1))
    tx = optjax.basic_form(direction, optax.chain(rate, bound), learning_rate=1.0)

    expected, below, above = [], 0, 0
    for t, (m, v) in enumerate(reference(GRADIENTS), start=1):
        lo, hi = 0.05 * (1 - 1 / (0.1 * t + 1)), 0.05 * (1 + 1 / (0.1 * t))
        expected.append(-np.clip(v, lo, hi) * m)
        below, above = below + np.sum(v < lo), above + np.sum(v > hi)
    assert below
    assert above
    gradients = [jnp.asarray(g, jnp.float32) for g in GRADIENTS]
    actual = outputs_of(tx, gradients, jnp.zeros(2))
    np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=1e-7)


def test_only_what_debiases_counts():
    """A counter is a kernel and a scalar of the state that nobody would read."""
    x = jnp.ones(3)
    for make in (optjax.ema, optjax.ema_of_squares, optjax.centered_ema_of_squares):
        for debias in (False, True):
            tx = make(0.9, debias=debias)
            state = tx.update(x, tx.update(x, tx.init(x))[1])[1]
            assert state.count == (2 if debias else 0)
