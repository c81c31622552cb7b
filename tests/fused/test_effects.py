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


def counts(step, make, jitted):
    """Runs of the tap in two steps, in Python and in the program, and the results."""
    tap = Tap()
    tx = make(tap)
    state = tx.init(X)
    tap.python = tap.program = 0

    def run(grads, state, params):
        return step(tx, grads, state, params)

    run = jit(run) if jitted else run
    x = X
    for _ in range(2):
        x, state = run(X, state, x)
    jax.effects_barrier()
    return tap.python, tap.program, np.asarray(x)


@pytest.mark.parametrize("jitted", [True, False], ids=["jitted", "eager"])
@pytest.mark.parametrize(("row", "around"), list(itertools.product(ROWS, AROUND)))
def test_as_often_as_with_update(row, around, jitted):
    def linked(tap):
        return AROUND[around](optax.chain(tap.link(), ROWS[row](0.1), tap.link()))

    def scheduled(tap):
        return AROUND[around](ROWS[row](tap.schedule))

    for make in (linked, scheduled):
        want = counts(update_and_apply, make, jitted)
        got = counts(optjax.apply_step, make, jitted)
        assert got[:2] == want[:2]
        assert want[0] > 0
        np.testing.assert_allclose(got[2], want[2], rtol=1e-6)


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

    want = counts(update_and_apply, make, jitted=True)
    got = counts(optjax.apply_step, make, jitted=True)
    assert got[:2] == want[:2]
    assert want[0] > 0
    np.testing.assert_allclose(got[2], want[2], rtol=1e-6)


OWN = [row for row in ROWS if row != "Optax's adam"]


@pytest.mark.parametrize("step", [update_and_apply, optjax.apply_step])
@pytest.mark.parametrize("jitted", [True, False], ids=["jitted", "eager"])
@pytest.mark.parametrize("row", OWN)
def test_as_often_under_a_monitor(row, jitted, step):
    """Whether the step is due or not."""

    def linked(tap):
        return optax.chain(tap.link(), ROWS[row](0.1), tap.link())

    def scheduled(tap):
        return ROWS[row](tap.schedule)

    for make in (linked, scheduled):
        want = counts(update_and_apply, make, jitted)
        for every in (1, 5):
            got = counts(
                step,
                lambda tap, make=make, every=every: optjax.monitor(make(tap), every),
                jitted,
            )
            assert got[:2] == want[:2]
            np.testing.assert_allclose(got[2], want[2], rtol=1e-6)


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

    want = counts(update_and_apply, make, jitted=True)
    got = counts(
        update_and_apply, lambda tap: optjax.monitor(make(tap), every=1), jitted=True
    )
    assert got[1] == want[1] == 2
    np.testing.assert_allclose(got[2], want[2], rtol=1e-6)


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
