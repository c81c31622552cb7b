"""How lanes run: the named strategies, and one of a user's own."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optjax import sweep
from optjax.sweep._store.store import MARKER
from optjax.sweep._strategies import STRATEGIES, as_strategy

pytestmark = pytest.mark.usefixtures("cheaply_compiled")


def init(key, optimizer):
    x = jax.random.normal(key, (3,))
    return x, optimizer.init(x)


def step(state, optimizer):
    x, opt_state = state
    loss, gradient = jax.value_and_grad(lambda x: jnp.sum(x**2))(x)
    updates, opt_state = optimizer.update(gradient, opt_state, x)
    return (optax.apply_updates(x, updates), opt_state), {"loss": loss}


def run(strategy, out=None):
    return sweep.run(
        (init, step),
        {"optimizer": "adam", "learning_rate": [0.01, 0.1, 0.3]},
        seeds=2,
        steps=20,
        evaluate_every=10,
        metric="loss",
        mode="min",
        strategy=strategy,
        progress=False,
        out=out,
    )


@dataclasses.dataclass(frozen=True)
class Backwards:
    """One after the other, the last one first."""

    times: int = 1

    def __call__(self, lane):
        def lanes(states, told):
            turned = jax.tree.map(lambda a: a[::-1], (states, told))
            done = jax.lax.map(lambda both: lane(*both), turned)
            return jax.tree.map(lambda a: a[::-1], done)

        return lanes


def unrolled(lane):
    def lanes(states, told):
        def at(tree, i):
            return jax.tree.map(lambda array: array[i], tree)

        count = told["seed"].shape[0]
        done = [lane(at(states, i), at(told, i)) for i in range(count)]
        return jax.tree.map(lambda *parts: jnp.stack(parts), *done)

    return lanes


@pytest.mark.parametrize("name", STRATEGIES)
def test_named_strategies_run_a_lane_over_the_first_axis(name):
    def lane(state, told):
        return state + told["add"], jnp.stack([state, told["add"]])

    states, add = jnp.arange(11.0), jnp.arange(11.0) * 2
    after, rows = as_strategy(name)(lane)(states, {"add": add})
    np.testing.assert_array_equal(after, states + add)
    np.testing.assert_array_equal(rows, jnp.stack([states, add], axis=1))


def test_a_strategy_of_ones_own_gives_the_records_of_map():
    by_map = run("map")
    for strategy in (Backwards(), unrolled):
        own = run(strategy)
        assert own.records == by_map.records
    assert own.about["strategy"] == "unrolled"


def test_a_strategy_takes_part_in_the_identity(tmp_path):
    run(Backwards(), tmp_path)
    said = json.loads((tmp_path / MARKER).with_name("sweep.json").read_text())
    assert said["strategy"] == {"is": "Backwards", "times": 1}
    assert run(Backwards(), tmp_path).finished_before
    for other, words in (
        (
            Backwards(2),
            r"strategy was Backwards\(times=1\) and is Backwards\(times=2\)",
        ),
        ("map", r"strategy was Backwards\(times=1\) and is map"),
    ):
        with pytest.raises(sweep.SweepError, match=words):
            run(other, tmp_path)


def test_other_code_under_the_same_name_is_another_strategy(tmp_path):
    def as_they_are(turn):
        def same(lane):
            inside = unrolled(lane)
            return lambda states, told: inside(*turn(states, told))

        return same

    run(as_they_are(lambda states, told: (states, told)), tmp_path)
    with pytest.raises(sweep.SweepError, match=r"the strategy .*same differs; choose"):
        run(as_they_are(lambda states, told: [states, told]), tmp_path)


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("pmap", "strategy must be one of auto, vmap, map, chunked, got 'pmap'"),
        (3, "strategy must be a function of a lane, got 3"),
        (lambda: None, "strategy must be a function of a lane, got the function"),
    ],
)
def test_what_is_no_strategy_is_refused(strategy, message):
    with pytest.raises(sweep.SweepError, match=message):
        run(strategy)
