"""What an optimizer does besides its update happens once, in apply_step and monitor."""

import itertools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiling import jit

import optjax

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

X = jnp.array([1.0, -2.0, 0.5])


class Tap:
    """Counts its runs in Python and in the program; also a schedule."""

    def __init__(self):
        self.python = self.program = 0

    def __call__(self):
        self.python += 1
        jax.debug.callback(self._run)

    def _run(self):
        self.program += 1

    def link(self):
        """A transformation of a user's own."""

        def update(updates, state, params=None):
            self()
            return updates, state

        return optax.GradientTransformation(lambda _: optax.EmptyState(), update)

    def schedule(self, count):
        """One that keeps its own counts."""
        self()
        return 0.1 / (1.0 + self.python + 0 * count)


ROWS = {
    "adam": optjax.adam,
    "sgd": optjax.sgd,
    "adamw": lambda rate: optjax.adamw(rate, weight_decay=rate),
    "yogi": optjax.yogi,
    "Optax's adam": optax.adam,
    "injected": lambda rate: optjax.inject_hyperparams(optjax.adam)(rate),
    "injected by Optax": lambda rate: optax.inject_hyperparams(optjax.sgd)(rate),
}
AROUND = {
    "alone": lambda tx: tx,
    "masked": lambda tx: optax.masked(tx, True),
    "partition": lambda tx: optax.partition({"a": tx}, lambda x: "a"),
    "clipped after": lambda tx: optax.chain(tx, optax.clip_by_global_norm(1.0)),
    "MultiSteps": lambda tx: optax.MultiSteps(tx, 2).gradient_transformation(),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 2),
    "twice": lambda tx: optax.chain(tx, optjax.sgd(0.5)),
}


def update_and_apply(tx, grads, state, params):
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state


def counts(step, makes, jitted):
    """Runs of each tap after either of two steps, in Python and in the program.

    And where each optimizer is then. All are in one program, if it is jitted.
    """
    taps = [Tap() for _ in makes]
    txs = [make(tap) for make, tap in zip(makes, taps, strict=True)]
    after = [(X, tx.init(X)) for tx in txs]
    for tap in taps:
        tap.python = tap.program = 0

    def run(grads, before):
        pairs = zip(txs, before, strict=True)
        return [step(tx, grads, state, x) for tx, (x, state) in pairs]

    run = jit(run) if jitted else run
    seen = []
    for _ in range(2):
        after = run(X, after)
        jax.effects_barrier()
        seen.append([(tap.python, tap.program) for tap in taps])
    return seen, np.asarray([x for x, _ in after])


def assert_as_often(got, want):
    assert got[0] == want[0]
    assert all(python > 0 for python, _ in want[0][0])
    np.testing.assert_allclose(got[1], want[1], rtol=1e-6)


@pytest.mark.parametrize("jitted", [True, False], ids=["jitted", "eager"])
@pytest.mark.parametrize(("row", "around"), list(itertools.product(ROWS, AROUND)))
def test_as_often_as_with_update(row, around, jitted):
    def linked(tap):
        return AROUND[around](optax.chain(tap.link(), ROWS[row](0.1), tap.link()))

    def scheduled(tap):
        return AROUND[around](ROWS[row](tap.schedule))

    steps = (optjax.apply_step, update_and_apply)
    assert_as_often(*(counts(step, (linked, scheduled), jitted) for step in steps))


@pytest.mark.parametrize("seed", range(8))
def test_random_compositions(seed):
    """Of wrappers around rows, with taps in between."""

    def make(tap):
        rng = np.random.default_rng(seed)

        def pick(table):
            return table[list(table)[rng.integers(len(table))]]

        tx = pick(ROWS)(tap.schedule if rng.integers(2) else 0.1)
        for _ in range(rng.integers(1, 4)):
            if rng.integers(2):
                tx = optax.chain(tx, tap.link())
            tx = pick(AROUND)(tx)
        return optax.chain(tap.link(), tx)

    steps = (optjax.apply_step, update_and_apply)
    assert_as_often(*(counts(step, [make], jitted=True) for step in steps))


OWN = [row for row in ROWS if row != "Optax's adam"]


@pytest.mark.parametrize("step", [update_and_apply, optjax.apply_step])
@pytest.mark.parametrize("jitted", [True, False], ids=["jitted", "eager"])
@pytest.mark.parametrize("row", OWN)
def test_as_often_under_a_monitor(row, jitted, step):
    """Whether the step is due or not: the first of the two is."""

    def linked(tap):
        return optax.chain(tap.link(), ROWS[row](0.1), tap.link())

    def scheduled(tap):
        return ROWS[row](tap.schedule)

    makes = (linked, scheduled)
    monitored = [
        lambda tap, make=make: optjax.monitor(make(tap), every=3) for make in makes
    ]
    want = counts(update_and_apply, makes, jitted)
    assert_as_often(counts(step, monitored, jitted), want)


def test_the_effects_of_a_bound_under_a_monitor():
    """Which asks for the rate that the bound converges to, and makes no step there."""

    def make(tap):
        def upper(t):
            tap()
            return 0.1 + 1.0 / t

        rate = optjax.rate_by_accumulated_square(optjax.ema_of_squares(0.9))
        return optjax.basic_form(
            optax.identity(), optax.chain(rate, optjax.bound_clip(0.1, upper)), 1.0
        )

    want = counts(update_and_apply, [make], jitted=True)
    got = counts(
        update_and_apply, [lambda tap: optjax.monitor(make(tap), every=1)], jitted=True
    )
    assert [program for [(_, program)] in got[0]] == [1, 2]
    assert [program for [(_, program)] in want[0]] == [1, 2]
    np.testing.assert_allclose(got[1], want[1], rtol=1e-6)


@pytest.mark.skipif(not optjax.fused_step_available(), reason="no compiled step")
def test_an_error_of_the_planner_is_told_once(monkeypatch):
    """And raised where warnings are errors, as in this suite."""

    def fail(*_):
        raise KeyError("a mistake in here")

    monkeypatch.setattr("optjax.fused._apply.plan", fail)
    tx = optjax.adam(0.1)
    state = tx.init(X)

    def step():
        return jit(lambda g, s, x: optjax.apply_step(tx, g, s, x))(X, state, X)

    with pytest.raises(UserWarning, match=r"KeyError.*a mistake in here"):
        step()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(3):
            x, _ = step()
    assert [str(w.message) for w in told if "a mistake in here" in str(w.message)]
    assert len(told) == 1
    np.testing.assert_allclose(x, update_and_apply(tx, X, state, X)[0], rtol=1e-6)
