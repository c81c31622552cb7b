"""A bounded optimizer and the SGD that it turns into: their trajectories join."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiling import jit
from flax import linen, nnx
from flax.training.train_state import TrainState
from loop import NOISE, START, gradient

import optjax
from optjax._direction import TraceState
from optjax._weight_decay import add_decayed_weights
from optjax.monitoring._wrapper import MonitorState
from optjax.tasks import digits

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

# Closed on f from the first step on, to the last bit of float32.
CLOSED = {"gamma": 1e12, "final_lr": 0.2, "b1": 0.8}
STEPS = 100


@pytest.fixture(scope="module")
def problem():
    """Parameters, and the gradient of the digits network at a step's batch."""
    data = digits.load()
    graphdef, params = nnx.split(digits.MLP(nnx.Rngs(0)))
    params = nnx.to_pure_dict(params)
    x, y = jnp.asarray(data.train_x[:1280]), jnp.asarray(data.train_y[:1280])
    x, y = x.reshape(20, 64, -1), y.reshape(20, 64)

    def loss(params, step):
        state = nnx.State(params)
        logits = nnx.merge(graphdef, state)(x[step % 20])
        return optax.softmax_cross_entropy_with_integer_labels(
            logits, y[step % 20]
        ).mean()

    return params, jax.grad(loss)


def walk(tx, grad):
    """A compiled function from parameters, state and step to those 100 steps later."""

    def step(carry, t):
        params, state = carry
        updates, state = tx.update(grad(params, t), state, params)
        return (optax.apply_updates(params, updates), state), None

    return jit(
        lambda params, state, first: jax.lax.scan(
            step, (params, state), first + jnp.arange(STEPS)
        )[0]
    )


def distance(a, b):
    return max(
        float(jnp.max(jnp.abs(x - y)))
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def assert_joined(bounded, problem, *, measured=False):
    """After a hand-over at step 100 both walk the same way."""
    params, grad = problem
    run = walk(bounded, grad)
    start, state = run(params, bounded.init(params), 0)
    theirs, _ = run(start, state, STEPS)
    sgd = optjax.sgd_equivalent(bounded, params, state if measured else None)
    handed = sgd.hand_over(state, start)
    ours, _ = walk(sgd.optimizer, grad)(start, handed, STEPS)
    moved = distance(theirs, start)
    assert moved > 0.01
    assert distance(ours, theirs) < 1e-4 * moved


def mask(params):
    return jax.tree.map(lambda x: x.ndim == 2, params)


BOUNDED = {
    "adabound": optjax.adabound(1e-3, **CLOSED),
    "adabound without momentum": optjax.adabound(1e-3, **{**CLOSED, "b1": 0.0}),
    "adabound with L2": optjax.adabound(1e-3, weight_decay=0.05, **CLOSED),
    "adabound with masked L2": optjax.adabound(
        1e-3, weight_decay=0.05, mask=mask, **CLOSED
    ),
    "adabound with a schedule": optjax.adabound(
        lambda count: 1e-3 * 0.99**count, weight_decay=0.05, **CLOSED
    ),
    "amsbound": optjax.amsbound(1e-3, **CLOSED),
    "adaboundw": optjax.adaboundw(0.01, weight_decay=0.5, **CLOSED),
    "adaboundw with a mask and a schedule": optjax.adaboundw(
        lambda count: 0.01 * 0.99**count, weight_decay=0.5, mask=mask, **CLOSED
    ),
    "adaboundw with a scheduled decay": optjax.adaboundw(
        0.01, weight_decay=lambda count: 0.5 * 0.99**count, **CLOSED
    ),
    "adaboundw, fixed decay": optjax.adaboundw(
        0.01, weight_decay=0.01, fixed_decay=True, **CLOSED
    ),
    "adaboundw, amsbound": optjax.adaboundw(0.01, amsbound=True, **CLOSED),
    "monitored": optjax.monitor(optjax.adabound(1e-3, **CLOSED), every=0),
    "monitored with a schedule": optjax.monitor(
        optjax.adabound(lambda count: 1e-3 * 0.99**count, **CLOSED), every=0
    ),
}


def own_form(direction, bounds):
    rate = optax.chain(
        optjax.rate_by_accumulated_square(optjax.ema_of_squares(0.9)),
        optax.scale(0.01),
        optjax.bound_clip(*bounds),
    )
    return optjax.basic_form(direction, rate, 0.5)


CLOSE = optjax.linear_bounds(final_lr=0.1, horizon=10)
OWN = {
    "gradient": own_form(optax.identity(), CLOSE),
    "ema": own_form(optjax.ema(0.8, debias=False), CLOSE),
    "ema, Nesterov": own_form(optjax.ema(0.8, debias=False, nesterov=True), CLOSE),
    "trace": own_form(optjax.trace(0.5), CLOSE),
    "trace, Nesterov": own_form(optjax.trace(0.5, nesterov=True), CLOSE),
    "exponential bounds": own_form(
        optjax.trace(0.5), optjax.exponential_bounds(0.1, gamma=2.0)
    ),
}


@pytest.mark.parametrize("name", BOUNDED)
def test_trajectories_join(problem, name):
    assert_joined(BOUNDED[name], problem)


@pytest.mark.parametrize("name", OWN)
def test_trajectories_of_own_forms_join(problem, name):
    assert_joined(OWN[name], problem)
    sgd = optjax.sgd_equivalent(OWN[name], problem[0])
    assert sgd.nesterov == ("Nesterov" in name)


FROZEN = {"b1": 0.8, "gamma": 0.1, "freeze_after": 50}


def around(direction, decay):
    rate = optax.chain(
        optjax.rate_by_accumulated_square(optjax.ema_of_squares(0.9)),
        optjax.bound_around(
            optjax.grafted_target(), *optjax.hyperbolic_bounds(1.0), freeze_after=50
        ),
    )
    return optjax.basic_form(
        direction, rate, lambda count: 0.01 * 0.99**count, add_decayed_weights(decay)
    )


MEASURED = {
    "graftbound": optjax.graftbound(0.01, **FROZEN),
    "of all leaves": optjax.graftbound(0.01, groups=0, **FROZEN),
    "with masked L2": optjax.graftbound(0.01, weight_decay=0.05, mask=mask, **FROZEN),
    "with a schedule": optjax.graftbound(
        lambda count: 0.01 * 0.99**count, b3=0.5, **FROZEN
    ),
    "monitored": optjax.monitor(optjax.graftbound(0.01, **FROZEN), every=0),
    "own form": around(optjax.trace(0.5), 0.05),
}


@pytest.mark.parametrize("name", MEASURED)
def test_trajectories_join_where_the_rate_was_measured(problem, name):
    assert_joined(MEASURED[name], problem, measured=True)


def test_each_leaf_has_its_own_learning_rate(problem):
    params, grad = problem
    tx = MEASURED["graftbound"]
    _, state = walk(tx, grad)(params, tx.init(params), 0)
    sgd = optjax.sgd_equivalent(tx, state=state)
    assert jax.tree.structure(sgd.learning_rate) == jax.tree.structure(params)
    rates = optax.tree.get_all_with_path(state, "rate")[-1][1]
    for got, want in zip(
        *map(jax.tree.leaves, (sgd.learning_rate, rates)), strict=True
    ):
        np.testing.assert_allclose(got, 0.01 * want * (1 - 0.8), rtol=1e-6)
    handed = sgd.hand_over(state, params)
    sizes = [sum(map(jnp.size, jax.tree.leaves(x))) for x in (params, handed, state)]
    assert sizes[1] == sizes[0]  # The momentum, and no ν.
    assert sizes[2] > 2 * sizes[0]
    # The scales of a compressed state are a tree like it, without a rate.
    around = optjax.compressed(tx)
    stored = optjax.convert_state(state, around, params)
    assert optjax.sgd_equivalent(around, state=stored).learning_rate == (
        sgd.learning_rate
    )


def test_a_measured_rate_needs_a_state_that_has_frozen(problem):
    params, _ = problem
    tx = MEASURED["graftbound"]
    with pytest.raises(ValueError, match=r"state=state\), got none\."):
        optjax.sgd_equivalent(tx, params)
    other = optjax.sgd(0.1).init(params)
    with pytest.raises(ValueError, match=r"state=state\), got one with 0 such"):
        optjax.sgd_equivalent(tx, params, other)
    with pytest.raises(ValueError, match="is 50, and the state has taken 0"):
        optjax.sgd_equivalent(tx, params, tx.init(params))
    endless = optjax.graftbound(0.1)
    with pytest.raises(ValueError, match="freeze_after is inf"):
        optjax.sgd_equivalent(endless, params, endless.init(params))
    early = optjax.graftbound(0.1, freeze_after=1)
    zero = jax.tree.map(jnp.zeros_like, params)
    _, state = early.update(zero, early.init(params), params)
    with pytest.raises(ValueError, match="has had no gradient but 0"):
        optjax.sgd_equivalent(early, params, state)


def test_a_debiased_average_joins_once_its_bias_is_gone(problem):
    bounded = own_form(optjax.ema(0.5, debias=True), CLOSE)
    assert_joined(bounded, problem)


def test_the_check_sees_a_wrong_momentum_and_a_wrong_learning_rate(problem):
    params, grad = problem
    bounded = BOUNDED["adabound"]
    run = walk(bounded, grad)
    start, state = run(params, bounded.init(params), 0)
    theirs, _ = run(start, state, STEPS)
    sgd = optjax.sgd_equivalent(bounded, params)
    handed = sgd.hand_over(state, start)
    faster = optjax.sgd_equivalent(
        optjax.adabound(1e-3, **{**CLOSED, "final_lr": 1.01 * CLOSED["final_lr"]})
    )
    for tx, wrong in (
        (sgd.optimizer, sgd.optimizer.init(start)),
        (faster.optimizer, handed),
    ):
        ours, _ = walk(tx, grad)(start, wrong, STEPS)
        assert distance(ours, theirs) > 1e-3 * distance(theirs, start)


def test_numbers():
    sgd = optjax.sgd_equivalent(optjax.adabound(1e-3), START)
    np.testing.assert_allclose(sgd.learning_rate, 0.01, rtol=1e-6)
    assert sgd.momentum == 0.9
    decayed = optjax.sgd_equivalent(
        optjax.adabound(lambda count: 1e-3 / (1 + count), final_lr=0.5, b1=0.75), START
    )
    np.testing.assert_allclose(decayed.learning_rate(0), 0.125, rtol=1e-6)
    np.testing.assert_allclose(decayed.learning_rate(9), 0.0125, rtol=1e-6)
    plain = optjax.sgd_equivalent(optjax.sgd(0.3), START)
    assert (plain.learning_rate, plain.momentum) == (0.3, 0.0)
    heavy = optjax.sgd_equivalent(optjax.sgd(0.3, momentum=0.7), START)
    assert (heavy.learning_rate, heavy.momentum) == (0.3, 0.7)


@pytest.mark.parametrize("params", [None, {}, (), []], ids=str)
def test_the_optimizer_alone_is_enough(params):
    def mask(params):
        return jax.tree.map(lambda x: x.ndim == 2, params)

    for optimizer in (
        optjax.adabound(1e-3),
        optjax.adaboundw(1e-3, mask=mask),
        optjax.amsbound(lambda count: 1e-3 * 0.5**count, weight_decay=0.1),
    ):
        sgd = optjax.sgd_equivalent(optimizer, params)
        rate = sgd.learning_rate
        rate = rate(1) / 0.5 if callable(rate) else rate
        np.testing.assert_allclose((rate, sgd.momentum), (0.01, 0.9), rtol=1e-6)
        state = sgd.hand_over(optimizer.init(START), START)
        sgd.optimizer.update(START, state, START)
    with pytest.raises(ValueError, match=r"must be given the parameters.*a mask"):
        optjax.sgd_equivalent(
            optjax.adabound(1e-3, weight_decay=0.1, mask={"a": True}), params
        )


def test_shapes_are_enough():
    shapes = jax.eval_shape(lambda: START)
    sgd = optjax.sgd_equivalent(optjax.adabound(1e-3), shapes)
    np.testing.assert_allclose(sgd.learning_rate, 0.01, rtol=1e-6)


def test_inside_jit_with_concrete_numbers():
    """Only what the answer depends on must be concrete."""

    def rate(eps):
        return optjax.sgd_equivalent(optjax.adabound(1e-3, eps=eps), START)[0]

    np.testing.assert_allclose(jit(rate)(1e-8), 0.01, rtol=1e-6)


def test_the_count_of_a_schedule_goes_on():
    bounded = optjax.adabound(lambda count: 1e-3 * 0.5**count, **CLOSED)
    sgd = optjax.sgd_equivalent(bounded, START)
    state = bounded.init(START)
    for n in NOISE[:3]:
        _, state = bounded.update(gradient(START, n), state, START)
    handed = sgd.hand_over(state, START)
    ((_, count),) = optax.tree.get_all_with_path(handed, "count")
    assert count == 3


def test_momentum_keeps_the_dtype_of_the_parameters():
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), START)
    bounded = optjax.adabound(1e-3, mu_dtype=jnp.float32, **CLOSED)
    sgd = optjax.sgd_equivalent(bounded, params)
    state = sgd.hand_over(bounded.init(params), params)
    (memory,) = traces(state)
    assert {x.dtype for x in jax.tree.leaves(memory)} == {jnp.dtype(jnp.bfloat16)}
    again = jax.eval_shape(sgd.optimizer.update, params, state, params)[1]
    assert jax.tree.structure(again) == jax.tree.structure(state)


INPUTS = jnp.asarray(np.random.default_rng(0).normal(size=(8, 3)), jnp.float32)


def test_hand_over_in_nnx():
    def train(model, optimizer, steps):
        @nnx.jit
        def step(model, optimizer):
            grads = nnx.grad(lambda m: jnp.mean(jnp.square(m(INPUTS) - 1.0)))(model)
            optimizer.update(model, grads)

        for _ in range(steps):
            step(model, optimizer)

    bounded = optjax.adabound(1e-3, **CLOSED)
    ends = []
    for hands_over in (False, True):
        model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
        optimizer = nnx.Optimizer(model, bounded, wrt=nnx.Param)
        train(model, optimizer, 5)
        if hands_over:
            sgd = optjax.sgd_equivalent(bounded, nnx.state(model, nnx.Param))
            handed = optax.GradientTransformationExtraArgs(
                functools.partial(sgd.hand_over, optimizer.opt_state),
                sgd.optimizer.update,
            )
            optimizer = nnx.Optimizer(model, handed, wrt=nnx.Param)
        train(model, optimizer, 5)
        ends.append(np.asarray(model.kernel[...]))
    np.testing.assert_allclose(*ends, rtol=1e-5)


WRAPPERS = {
    "rounded": optjax.stochastic_rounding,
    "compressed": optjax.compressed,
    "packed": optjax.packed,
    "packed and compressed": lambda tx: optjax.packed(optjax.compressed(tx)),
    "monitored and packed": lambda tx: optjax.monitor(optjax.packed(tx)),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_hand_over_of_a_state_in_another_storage(name):
    x = {"w": jnp.linspace(-1.0, 1.0, 64 * 128).reshape(64, 128), "b": jnp.ones(3)}
    x["c"] = 2.0 * x["b"]
    plain = optjax.adabound(1e-3, **CLOSED)
    tx = WRAPPERS[name](plain)
    state = tx.init(x)
    for _ in range(2):
        _, state = tx.update(x, state, x)
    stored = state.inner_state if isinstance(state, MonitorState) else state
    wide = optjax.convert_state(stored, plain, x)
    found = optjax.sgd_equivalent(tx, x).hand_over(state, x)
    expected = optjax.sgd_equivalent(plain, x).hand_over(wide, x)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("name", WRAPPERS)
def test_hand_over_of_a_state_in_another_storage_in_nnx(name):
    model = nnx.Linear(64, 128, rngs=nnx.Rngs(0))
    tx = WRAPPERS[name](optjax.adabound(1e-3, **CLOSED))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    params = nnx.state(model, nnx.Param)
    optimizer.update(model, params)
    sgd = optjax.sgd_equivalent(tx, params)
    handed = sgd.hand_over(optimizer.opt_state, params)
    plain = nnx.as_pure(params)
    expected = sgd.hand_over(nnx.as_pure(optimizer.opt_state), plain)
    for a, b in zip(jax.tree.leaves(handed), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)
    momentum = next(n for n in jax.tree.leaves(handed) if jnp.ndim(n) == 2)
    assert jnp.abs(momentum).max() > 0


def test_hand_over_in_linen():
    model = linen.Dense(2)

    @jit
    def step(state):
        def loss(params):
            return jnp.mean(jnp.square(state.apply_fn({"params": params}, INPUTS) - 1))

        return state.apply_gradients(grads=jax.grad(loss)(state.params))

    bounded = optjax.adabound(1e-3, **CLOSED)
    params = model.init(jax.random.key(0), INPUTS)["params"]
    state = TrainState.create(apply_fn=model.apply, params=params, tx=bounded)
    for _ in range(5):
        state = step(state)
    sgd = optjax.sgd_equivalent(bounded, state.params)
    other = state.replace(
        tx=sgd.optimizer, opt_state=sgd.hand_over(state.opt_state, state.params)
    )
    for _ in range(5):
        state, other = step(state), step(other)
    np.testing.assert_allclose(
        state.params["kernel"], other.params["kernel"], rtol=1e-5
    )


MORE = "one basic form, with or without weight decay, and nothing around it"
REFUSED = {
    "adam": (optjax.adam(0.1), "This one goes on adapting"),
    "adamod": (optjax.adamod(0.1), "This one goes on adapting"),
    "swats": (optjax.swats(0.1), "read it from the state's sgd_rate"),
    "constant bounds": (
        own_form(optax.identity(), optjax.constant_bounds(0.1, 0.2)),
        "these stay apart",
    ),
    "gamma 0": (optjax.adabound(0.1, gamma=0.0), "these stay apart"),
    "another direction": (
        own_form(optjax.nadam_ema(0.9, 0.1), CLOSE),
        r"needs the gradient, optjax\.ema or optjax\.trace",
    ),
    "clipping before": (optax.chain(optax.clip(1.0), optjax.adabound(0.1)), MORE),
    "scaling after": (optax.chain(optjax.adabound(0.1), optax.scale(0.5)), MORE),
    "two in a row": (optax.chain(optjax.adabound(0.1), optjax.adabound(0.1)), MORE),
    "masked": (
        optax.masked(
            optjax.adabound(0.1), {"matrix": True, "vector": False, "scalar": True}
        ),
        MORE,
    ),
    "partition": (
        optax.partition(
            {"a": optjax.adabound(0.1), "b": optjax.sgd(0.1)},
            {"matrix": "a", "vector": "b", "scalar": "a"},
        ),
        MORE,
    ),
    "MultiSteps": (
        optax.MultiSteps(optjax.adabound(0.1), 2).gradient_transformation(),
        MORE,
    ),
    "of Optax": (optax.adam(0.1), MORE),
    "injected": (
        optjax.inject_hyperparams(optjax.adabound)(0.1),
        r"got traced ones.*hyperparameters\(state\)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_rest_is_refused(name):
    optimizer, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        optjax.sgd_equivalent(optimizer, START)


@pytest.mark.parametrize("name", ["final_lr", "b1", "gamma", "weight_decay"])
def test_traced_hyperparameters_are_refused(name):
    def build(value):
        optimizer = optjax.adabound(0.1, **{name: value})
        return optjax.sgd_equivalent(optimizer, START).momentum

    with pytest.raises(ValueError, match="needs concrete hyper-parameters, got traced"):
        jit(build)(0.5)


def test_injected_hyperparameters_are_read_from_the_state():
    injected = optjax.inject_hyperparams(optjax.adabound)(1e-3, **CLOSED)
    state = optjax.set_hyperparameters(injected.init(START), final_lr=0.4)
    _, state = injected.update(gradient(START, NOISE[0]), state, START)
    bounded = optjax.adabound(**optjax.hyperparameters(state))
    sgd = optjax.sgd_equivalent(bounded, START)
    np.testing.assert_allclose(sgd.learning_rate, 0.4 * 0.2, rtol=1e-6)
    handed = sgd.hand_over(state, START)
    (memory,) = traces(handed)
    # After one step m = (1 − β₁) g, and the sum that SGD keeps is g.
    np.testing.assert_allclose(
        memory.trace["matrix"], gradient(START, NOISE[0])["matrix"], rtol=1e-5
    )


def traces(state):
    def is_trace(node):
        return isinstance(node, TraceState)

    return [s for s in jax.tree.leaves(state, is_leaf=is_trace) if is_trace(s)]


def test_hand_over_of_another_state_is_refused():
    sgd = optjax.sgd_equivalent(optjax.adabound(0.1), START)
    with pytest.raises(ValueError, match=r"hand_over needs the state .* 0 momenta"):
        sgd.hand_over(optjax.sgd(0.1).init(START), START)
    two = optax.chain(optjax.adabound(0.1), optjax.adabound(0.1))
    with pytest.raises(ValueError, match="2 momenta in it"):
        sgd.hand_over(two.init(START), START)
    with pytest.raises(ValueError, match="a momentum of other shapes"):
        sgd.hand_over(optjax.adabound(0.1).init({"a": jnp.ones(2)}), START)
