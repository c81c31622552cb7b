"""Hyper-parameters of models, data, losses and schedules, by keyword."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import optjax
from optjax import sweep
from optjax.sweep import SweepError

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

X = jnp.linspace(-1.0, 1.0, 32)[:, None]
Y = X**2
KEYWORDS = {
    "steps": 6,
    "evaluate_every": 3,
    "metric": "loss",
    "mode": "min",
    "seeds": 1,
    "strategy": "map",
    "progress": False,
}
ADAM = {"optimizer": "adam", "learning_rate": 0.01}


class Model(nnx.Module):
    def __init__(self, rngs, width: int = 4, scale=1.0, activation="tanh"):
        self.inner = nnx.Linear(1, width, rngs=rngs)
        self.outer = nnx.Linear(width, 1, rngs=rngs)
        self.scale, self.activation = scale, activation

    def __call__(self, x):
        return self.scale * self.outer(getattr(jnp, self.activation)(self.inner(x)))


class Linen(nn.Module):
    width: int = 4
    scale: float = 1.0

    @nn.compact
    def __call__(self, x):
        return self.scale * nn.Dense(1)(jnp.tanh(nn.Dense(self.width)(x)))


def noisy(key, batch, noise=0.0):
    x, y = batch
    return x + noise * jax.random.normal(key, x.shape), y


def squared_error(outputs, batch, weight=1.0):
    return weight * jnp.mean((outputs - batch[1]) ** 2)


def evaluate(predict, shift=0.0):
    return {"val": jnp.mean((predict(X) - Y) ** 2) + shift}


BATCHES = sweep.epochs((X, Y), prepare=noisy)
OWN = {"batch_size": 8, "weight": 2.0, "noise": 0.1, "shift": 5.0, "scale": 0.5}


@pytest.mark.parametrize(
    ("adapt", "model", "bound"),
    [
        (sweep.from_nnx, Model, lambda rngs: Model(rngs, 3, 0.5)),
        (sweep.from_linen, Linen, Linen(3, 0.5)),
    ],
)
def test_each_function_has_its_own(adapt, model, bound):
    """The same numbers written into the functions are the same sweep."""
    trial = adapt(model, squared_error, BATCHES, evaluate)
    got = sweep.run(trial, {**ADAM, **OWN, "width": 3}, **KEYWORDS)
    by_hand = adapt(
        bound,
        lambda outputs, batch: squared_error(outputs, batch, jnp.float32(2.0)),
        sweep.epochs((X, Y), 8, lambda k, b: noisy(k, b, jnp.float32(0.1))),
        lambda predict: evaluate(predict, jnp.float32(5.0)),
    )
    want = sweep.run(by_hand, ADAM, **KEYWORDS)
    assert got.records[0].curve.steps == want.records[0].curve.steps
    for name, values in want.records[0].curve.values.items():
        np.testing.assert_allclose(got.records[0].curve.values[name], values, rtol=1e-6)
    assert got.table[0]["weight"] == 2.0
    assert got.table[0]["width"] == 3


def test_numbers_share_a_program_and_what_shapes_has_its_own():
    traces = []

    def loss(outputs, batch, weight=1.0):
        traces.append(weight)
        return squared_error(outputs, batch, weight)

    trial = sweep.from_nnx(Model, loss, BATCHES)
    space = {
        **ADAM,
        "batch_size": [4, 8],
        "width": 2,
        "activation": "sin",
        "weight": [0.5, 1.0, 2.0, 4.0],
    }
    configs = sweep.configurations(space, trial=trial)
    assert {tuple(sorted(c.static)) for c in configs} == {
        ("activation", "batch_size", "width")
    }
    result = sweep.run(trial, space, **KEYWORDS)
    assert len(result.records) == 8
    assert all(isinstance(weight, jax.core.Tracer) for weight in traces)
    # Once for each of the two programs.
    assert len(traces) == 2
    by_weight = {r.trial.config.hyper["weight"]: r for r in result.records[:4]}
    first = {w: r.curve.values["loss"][0] for w, r in by_weight.items()}
    assert first[4.0] > 3 * first[1.0]


def test_functions_of_the_optimizer_have_theirs_too():
    def init(key, optimizer, size=3):
        x = jax.random.normal(key, (size,))
        return x, optimizer.init(x)

    def step(state, optimizer, *, curvature):
        x, opt_state = state
        loss, g = jax.value_and_grad(lambda x: curvature * jnp.sum(x**2))(x)
        updates, opt_state = optimizer.update(g, opt_state, x)
        return (optax.apply_updates(x, updates), opt_state), {"loss": loss}

    space = {
        "optimizer": "sgd",
        "learning_rate": 0.1,
        "curvature": [1.0, 2.0],
        "size": [2, 5],
    }
    result = sweep.run((init, step), space, **KEYWORDS)
    losses = [record.curve.values["loss"][-1] for record in result.records]
    assert len({*losses}) == 4
    for record in result.records:
        curvature = record.trial.config.hyper["curvature"]
        x = jax.random.normal(jax.random.key(0), (record.trial.config.static["size"],))
        want = [
            curvature * float(x @ x) * (1 - 0.2 * curvature) ** (2 * t)
            for t in range(3)
        ]
        np.testing.assert_allclose(
            record.curve.values["loss"][0], np.mean(want), rtol=1e-5
        )


def test_a_trial_of_ones_own_has_its_keywords():
    def make_trial(factory, *, target, dim: int = 2):
        def init(key, hyper):
            x = jnp.zeros(dim)
            return x, factory(**hyper).init(x), hyper

        def step(state):
            x, opt_state, hyper = state
            loss, g = jax.value_and_grad(lambda x: jnp.sum((x - target) ** 2))(x)
            updates, opt_state = factory(**hyper).update(g, opt_state, x)
            return (optax.apply_updates(x, updates), opt_state, hyper), {"loss": loss}

        return sweep.Trial(init, step, lambda state: {"x": state[0][0]})

    space = {"optimizer": "sgd", "learning_rate": 0.5, "target": [1.0, 3.0], "dim": 2}
    result = sweep.run(make_trial, space, **KEYWORDS)
    assert [r.curve.values["x"][-1] for r in result.records] == [1.0, 3.0]


@pytest.mark.parametrize(
    ("space", "parts"),
    [
        (
            {"batch_size": 8, "widht": 3},
            ["no function of the trial", "'widht'", "did you mean width"],
        ),
        ({"eps": 1e-3}, ["eps", "of adam", "the trial's", "rename"]),
        ({}, ["the trial needs batch_size"]),
        ({"batch_size": 99}, ["batch must have from 1 to 32"]),
        (
            {"batch_size": 8, "width": "3"},
            ["adam(learning_rate=0.01", "hyper.py, line"],
        ),
    ],
)
def test_refused(space, parts):
    def loss(outputs, batch, eps=0.0):
        return squared_error(outputs, batch) + eps

    trial = sweep.from_nnx(Model, loss, BATCHES)
    with pytest.raises(SweepError) as caught:
        sweep.run(trial, ADAM | space, **KEYWORDS)
    for part in parts:
        assert part in str(caught.value)


def test_a_traced_number_that_is_tested_says_what_to_write():
    class Dropping(nnx.Module):
        def __init__(self, rngs, rate=0.1):
            self.dropout = nnx.Dropout(rate, rngs=rngs)
            self.linear = nnx.Linear(1, 1, rngs=rngs)

        def __call__(self, x):
            return self.linear(self.dropout(x))

    batches = sweep.epochs((X, Y), 8)
    trial = sweep.from_nnx(Dropping, squared_error, batches)
    with pytest.raises(SweepError, match=r"traced.*static\(\.\.\.\) values"):
        sweep.run(trial, ADAM | {"rate": [0.0, 0.5]}, **KEYWORDS)
    space = ADAM | {"rate": sweep.static(0.0, 0.5)}
    result = sweep.run(trial, space, **KEYWORDS)
    assert len({r.curve.values["loss"] for r in result.records}) == 2

    def warmed(learning_rate, half):
        return optax.adam(optax.linear_schedule(0.0, learning_rate, half))

    def tested(learning_rate, decay_rate):
        rate = optax.exponential_decay(learning_rate, 10, decay_rate)
        return optax.adam(rate)

    trial = sweep.from_nnx(Model, squared_error, sweep.epochs((X, Y), 8))
    for factory, name in ((warmed, "half"), (tested, "decay_rate")):
        space = {"optimizer": "own", "learning_rate": 0.1, name: [0.3, 0.5]}
        with pytest.raises(SweepError, match=r"optjax\.sweep\.schedule\(shape, peak"):
            sweep.run(trial, space, factories={"own": factory}, **KEYWORDS)


@pytest.mark.parametrize("floor", [0.0, 0.1])
@pytest.mark.parametrize("warmup", [0.0, 0.25, 1.0])
def test_schedules_are_optaxs(warmup, floor):
    at, rising = np.arange(0, 120), int(100 * warmup)
    up = [optax.linear_schedule(0.0, 0.3, max(rising, 1)), [rising]]
    downs = {
        "cosine": optax.cosine_decay_schedule(0.3, max(100 - rising, 1), alpha=floor),
        "linear": optax.linear_schedule(0.3, 0.3 * floor, max(100 - rising, 1)),
        "constant": optax.constant_schedule(0.3),
    }
    for shape, down in downs.items():
        want = optax.join_schedules([up[0], down], up[1]) if rising else down

        def traced(peak, warmup, floor, shape=shape):
            rate = sweep.schedule(shape, peak, 100, warmup=warmup, floor=floor)
            return jax.vmap(rate)(jnp.arange(120))

        got = jax.jit(traced)(0.3, warmup, floor)
        # At T the one is at the peak and the other at the floor.
        whole = at if warmup < 1 else at[:100]
        np.testing.assert_allclose(
            got[whole], jax.vmap(want)(whole), rtol=1e-6, atol=3e-8
        )
        np.testing.assert_array_equal(got[100:], got[100])
        assert math.isfinite(jax.grad(lambda w, f=traced: f(0.3, w, 0.1).sum())(0.2))


def test_a_schedule_in_a_space_is_the_one_of_its_steps():
    def rate_of(state, optimizer):
        x, opt_state = state
        updates, opt_state = optimizer.update(jnp.ones(()), opt_state, x)
        return (x, opt_state), {"loss": -updates}

    def init(key, optimizer):
        return jnp.zeros(()), optimizer.init(jnp.zeros(()))

    space = {
        "optimizer": "sgd",
        "learning_rate": [0.1, 1.0],
        "schedule": ["cosine", "linear"],
        "warmup": 0.5,
        "floor": [0.0, 0.1],
    }
    result = sweep.run((init, rate_of), space, **KEYWORDS | {"evaluate_every": 1})
    assert len(result.records) == 8
    for record in result.records:
        hyper = {**record.trial.config.hyper}
        shape = record.trial.config.static["schedule"]
        want = sweep.schedule(shape, hyper.pop("learning_rate"), 6, **hyper)
        np.testing.assert_allclose(
            record.curve.values["loss"], jax.vmap(want)(np.arange(6)), rtol=1e-6
        )


def test_a_schedule_moves_the_bounds_of_adabound():
    """Its base is the peak, though the warm-up begins at 0."""
    rate = sweep.schedule("cosine", 0.01, 40, warmup=0.25)
    by_hand = optjax.adabound(rate, base_lr=0.01, final_lr=0.1)

    def init(key, optimizer):
        return jnp.ones(2), optimizer.init(jnp.ones(2))

    def step(state, optimizer):
        x, opt_state = state
        updates, opt_state = optimizer.update(2 * x, opt_state, x)
        return (optax.apply_updates(x, updates), opt_state), {"loss": jnp.sum(x**2)}

    space = {
        "optimizer": "adabound",
        "learning_rate": 0.01,
        "final_lr": 0.1,
        "schedule": "cosine",
        "warmup": 0.25,
    }
    keywords = KEYWORDS | {"steps": 40, "evaluate_every": 1}
    result = sweep.run((init, step), space, **keywords)
    state, want = init(None, by_hand), []
    one_step = jax.jit(lambda state: step(state, by_hand))
    for _ in range(40):
        state, metrics = one_step(state)
        want.append(float(metrics["loss"]))
    np.testing.assert_allclose(result.records[0].curve.values["loss"], want, rtol=1e-5)
