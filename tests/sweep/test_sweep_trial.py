"""Trials made from functions, linen modules and NNX models."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from optjax import sweep

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

X = np.linspace(-1.0, 1.0, 32, dtype=np.float32)[:, None]
Y = X**2
KEYWORDS = {
    "steps": 40,
    "evaluate_every": 10,
    "metric": "loss",
    "mode": "min",
    "seeds": 2,
    "strategy": "map",
    "progress": False,
}
SPACE = {"optimizer": "adam", "learning_rate": [0.01, 0.03]}


def batch(key, step):
    rows = jax.random.randint(jax.random.fold_in(key, step), (8,), 0, 32)
    return jnp.asarray(X)[rows], jnp.asarray(Y)[rows]


def squared_error(outputs, batch):
    return jnp.mean((outputs - batch[1]) ** 2)


def evaluate(predict):
    return {"val": jnp.mean((predict(X) - Y) ** 2)}


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x, train=True):
        x = nn.Dense(8)(x)
        x = nn.BatchNorm(use_running_average=not train)(x)
        return nn.Dense(1)(nn.tanh(x))


class Plain(nnx.Module):
    def __init__(self, rngs):
        self.inner = nnx.Linear(1, 8, rngs=rngs)
        self.outer = nnx.Linear(8, 1, rngs=rngs)

    def __call__(self, x):
        return self.outer(jnp.tanh(self.inner(x)))


class Stateful(nnx.Module):
    def __init__(self, rngs):
        self.inner = nnx.Linear(1, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.outer = nnx.Linear(8, 1, rngs=rngs)

    def __call__(self, x):
        x = self.dropout(jnp.tanh(self.norm(self.inner(x))))
        return self.outer(x)


class Dropping(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dropout(0.5, deterministic=False)(jnp.tile(x, 8))
        x += 0.1 * jax.random.normal(self.make_rng("jitter"), x.shape)
        return nn.Dense(1)(x)


class DroppingNNX(nnx.Module):
    def __init__(self, rngs):
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.linear = nnx.Linear(8, 1, rngs=rngs)

    def __call__(self, x):
        return self.linear(self.dropout(jnp.tile(x, 8)))


@functools.cache
def make(adapter, model):
    """A trial, its state before and after three updates, and the last metrics."""
    trial = adapter(model, squared_error, batch, evaluate)(optax.adam)
    hyper = {"learning_rate": jnp.float32(0.01)}
    states = [jax.jit(trial.init)(jax.random.key(0), hyper)]
    step = jax.jit(trial.step)
    for _ in range(3):
        state, metrics = step(states[-1])
        states.append(state)
    return trial, states, metrics


@pytest.mark.parametrize(
    ("adapter", "model"),
    [
        (sweep.from_linen, nn.Dense(1)),
        (sweep.from_linen, Linen()),
        (sweep.from_nnx, Plain),
        (sweep.from_nnx, Stateful),
    ],
)
def test_it_trains(adapter, model):
    def on_bare_targets(outputs, batch):
        return squared_error(outputs, (None, 1.0 - 2.0 * batch[0]))

    trial = adapter(model, on_bare_targets, batch)
    result = sweep.run(trial, SPACE, **KEYWORDS)
    assert len(result.records) == 4
    for record in result.records:
        losses = record.curve.values["loss"]
        assert record.status == sweep.FINISHED
        assert losses[-1] < 0.8 * losses[0]
    # Each seed has parameters and batches of its own.
    assert len({record.curve.values["loss"][0] for record in result.records}) == 4


def test_linen_keeps_batch_statistics_and_predicts_with_them():
    trial, states, _ = make(sweep.from_linen, Linen())
    means = [state.rest["batch_stats"]["BatchNorm_0"]["mean"] for state in states]
    for before, after in itertools.pairwise(means):
        assert not np.array_equal(before, after)
    by_running = sweep.from_linen(
        Linen(),
        squared_error,
        batch,
        lambda predict: {"val": jnp.mean((predict(X, train=False) - Y) ** 2)},
    )(optax.adam)
    last = states[-1]
    predict = jax.jit(lambda variables: Linen().apply(variables, X, train=False))
    outputs = np.asarray(predict({"params": last.params, **last.rest}))
    measured = jax.jit(by_running.evaluate)(last)
    np.testing.assert_allclose(measured["val"], np.mean((outputs - Y) ** 2), rtol=1e-6)
    assert measured != jax.jit(trial.evaluate)(last)


def test_nnx_keeps_batch_statistics_and_dropouts_count():
    trial, states, _ = make(sweep.from_nnx, Stateful)
    rest = [nnx.to_pure_dict(state.rest) for state in states]
    for before, after in itertools.pairwise(rest):
        assert not np.array_equal(before["norm"]["mean"], after["norm"]["mean"])
        count = [part["dropout"]["rngs"]["count"] for part in (before, after)]
        assert count[1] == count[0] + 1
    # Evaluation neither drops nor uses the statistics of what it is given.
    evaluate = jax.jit(trial.evaluate)
    first, second = (evaluate(states[-1])["val"] for _ in range(2))
    assert first == second
    last = states[-1]
    model = Stateful(nnx.Rngs(0))
    nnx.update(model, last.params, last.rest)
    model.eval()
    outputs = np.asarray(nnx.jit(lambda model: model(X))(model))
    np.testing.assert_allclose(first, np.mean((outputs - Y) ** 2), rtol=1e-6)


@pytest.mark.parametrize(
    "adapt",
    [
        lambda *rest: sweep.from_linen(Dropping(), *rest, rngs=("dropout", "jitter")),
        lambda *rest: sweep.from_nnx(DroppingNNX, *rest),
    ],
    ids=["linen", "nnx"],
)
def test_noise_is_new_at_every_update_and_decided_by_the_seed(adapt):
    def same_batch(key, step):
        return X, Y

    trial = adapt(squared_error, same_batch)(optax.sgd)
    init, step = jax.jit(trial.init), jax.jit(trial.step)

    def losses(seed):
        # Nothing is learned, so the noise alone makes the losses differ.
        state = init(jax.random.key(seed), {"learning_rate": jnp.float32(0.0)})
        found = []
        for _ in range(4):
            state, metrics = step(state)
            found.append(float(metrics["loss"]))
        return found

    first = losses(0)
    assert len(set(first)) == 4
    assert losses(0) == first
    assert not set(losses(1)) & set(first)


def test_a_linen_stream_that_is_not_named_is_an_error():
    trial = sweep.from_linen(Dropping(), squared_error, batch)
    with pytest.raises(sweep.SweepError, match=r"InvalidRngError: .*jitter"):
        sweep.run(trial, SPACE, **KEYWORDS)


def test_nnx_is_the_loop_one_would_write():
    trial = sweep.from_nnx(Plain, squared_error, batch, evaluate)
    result = sweep.run(trial, SPACE, **KEYWORDS)
    record = result.records[3]
    assert (record.trial.config.hyper, record.trial.seed) == (
        {"learning_rate": 0.03},
        1,
    )
    model_key, batch_key, _ = jax.random.split(jax.random.key(1), 3)
    model = Plain(nnx.Rngs(model_key))
    optimizer = nnx.Optimizer(model, optax.adam(0.03), wrt=nnx.Param)

    @nnx.jit
    def update(model, optimizer, drawn):
        def loss(model):
            return squared_error(model(drawn[0]), drawn)

        value, gradient = nnx.value_and_grad(loss)(model)
        optimizer.update(model, gradient)
        return value

    predict = nnx.jit(lambda model: model(X))
    for i in range(4):
        losses = [
            update(model, optimizer, batch(batch_key, n))
            for n in range(10 * i, 10 * i + 10)
        ]
        np.testing.assert_allclose(
            record.curve.values["loss"][i], np.mean(losses), rtol=1e-5
        )
        np.testing.assert_allclose(
            record.curve.values["val"][i], np.mean((predict(model) - Y) ** 2), rtol=1e-5
        )


def test_linen_is_the_loop_one_would_write():
    _, states, metrics = make(sweep.from_linen, Linen())
    variables_key, batch_key, _ = jax.random.split(jax.random.key(0), 3)
    variables = Linen().init(variables_key, batch(batch_key, 0)[0])
    optimizer = optax.adam(0.01)
    params, stats = variables["params"], variables["batch_stats"]
    opt_state = optimizer.init(params)

    @jax.jit
    def update(params, stats, opt_state, n):
        drawn = batch(batch_key, n)

        def loss(params):
            outputs, changed = Linen().apply(
                {"params": params, "batch_stats": stats},
                drawn[0],
                mutable=["batch_stats"],
            )
            return squared_error(outputs, drawn), changed["batch_stats"]

        (value, stats_), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), stats_, opt_state, value

    for n in range(3):
        params, stats, opt_state, value = update(params, stats, opt_state, n)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-6)
    jax.tree.map(
        lambda ours, theirs: np.testing.assert_allclose(ours, theirs, atol=1e-6),
        (states[-1].params, states[-1].rest["batch_stats"]),
        (params, stats),
    )


def test_functions_without_evaluate_have_the_steps_metrics_only():
    def init(key, optimizer):
        x = jax.random.normal(key, (2,))
        return x, optimizer.init(x)

    def step(state, optimizer):
        x, opt_state = state
        updates, opt_state = optimizer.update(2 * x, opt_state, x)
        return (optax.apply_updates(x, updates), opt_state), {"loss": jnp.sum(x**2)}

    trial = sweep.from_functions(init, step)(optax.sgd)
    state = trial.init(jax.random.key(0), {"learning_rate": jnp.float32(0.25)})
    assert trial.evaluate(state) == {}
    after, metrics = trial.step(state)
    # 1 - 2 · 0.25 of it is left.
    np.testing.assert_array_equal(after.state[0], state.state[0] / 2)
    np.testing.assert_array_equal(metrics["loss"], jnp.sum(state.state[0] ** 2))
