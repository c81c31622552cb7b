"""What an optimizer does besides its update happens once, in apply_step and monitor."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

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


def counts(runs, jitted=True):
    """Runs of each tap after either of two steps, in Python and in the program.

    And where each optimizer is then. Of each run, a step and an optimizer around a tap,
    by its name; all are in one program, if it is jitted.
    """
    taps = {name: Tap() for name in runs}
    txs = {name: make(taps[name]) for name, (_, make) in runs.items()}
    after = {name: (X, tx.init(X)) for name, tx in txs.items()}
    for tap in taps.values():
        tap.python = tap.program = 0

    def run(before):
        after = {}
        for name, (step, _) in runs.items():
            x, state = before[name]
            after[name] = step(txs[name], X, state, x)
        return after

    run = jax.jit(run) if jitted else run
    seen = {name: [] for name in runs}
    for _ in range(2):
        after = run(after)
        jax.effects_barrier()
        for name, tap in taps.items():
            seen[name].append((tap.python, tap.program))
    return seen, {name: np.asarray(x) for name, (x, _) in after.items()}


def itself(make):
    return make


def assert_as_often(makes, others=((optjax.apply_step, itself),), jitted=True):
    """By the other steps, with something around the optimizer, as by `update`."""
    steps = ((update_and_apply, itself), *others)
    runs = {
        (name, i): (step, wrap(make))
        for name, make in makes.items()
        for i, (step, wrap) in enumerate(steps)
    }
    seen, where = counts(runs, jitted)
    for name, i in runs:
        assert seen[name, i] == seen[name, 0], name
        np.testing.assert_allclose(where[name, i], where[name, 0], 1e-6, err_msg=name)
    assert all(python > 0 for [(python, _), _] in seen.values())


def linked(row):
    """Between taps that are transformations."""
    return lambda tap: optax.chain(tap.link(), ROWS[row](0.1), tap.link())


def scheduled(row):
    """With a tap for a schedule."""
    return lambda tap: ROWS[row](tap.schedule)


def around(wrapper, make):
    return lambda tap: AROUND[wrapper](make(tap))


@pytest.mark.parametrize("row", ROWS)
def test_as_often_as_with_update(row):
    makes = {
        f"{kind.__name__}, {wrapper}": around(wrapper, kind(row))
        for wrapper in AROUND
        for kind in (linked, scheduled)
    }
    assert_as_often(makes)


@pytest.mark.parametrize(
    ("row", "wrapper"),
    [*((row, "alone") for row in ROWS), *(("adam", wrapper) for wrapper in AROUND)],
)
def test_as_often_outside_of_jit(row, wrapper):
    makes = {kind.__name__: around(wrapper, kind(row)) for kind in (linked, scheduled)}
    assert_as_often(makes, jitted=False)


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

    assert_as_often({"it": make})


OWN = [row for row in ROWS if row != "Optax's adam"]


def monitored(make):
    return lambda tap: optjax.monitor(make(tap), every=3)


@pytest.mark.parametrize(
    ("row", "jitted"),
    [*((row, True) for row in OWN), ("adam", False), ("injected", False)],
)
def test_as_often_under_a_monitor(row, jitted):
    """Whether the step is due or not: the first of the two is."""
    makes = {kind.__name__: kind(row) for kind in (linked, scheduled)}
    # Outside of `jit` they are one.
    steps = (update_and_apply, optjax.apply_step)[: 1 + jitted]
    assert_as_often(makes, [(step, monitored) for step in steps], jitted)


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

    runs = {
        "alone": (update_and_apply, make),
        "monitored": (update_and_apply, lambda tap: optjax.monitor(make(tap), every=1)),
    }
    seen, where = counts(runs)
    for runs in seen.values():
        assert [program for _, program in runs] == [1, 2]
    np.testing.assert_allclose(where["monitored"], where["alone"], rtol=1e-6)


@pytest.mark.skipif(not optjax.fused_step_available(), reason="no compiled step")
def test_an_error_of_the_planner_is_told_once(monkeypatch):
    """And raised where warnings are errors, as in this suite."""

    def fail(*_):
        raise KeyError("a mistake in here")

    monkeypatch.setattr("optjax.fused._apply.plan", fail)
    tx = optjax.adam(0.1)
    state = tx.init(X)

    def step():
        return jax.jit(lambda g, s, x: optjax.apply_step(tx, g, s, x))(X, state, X)

    with pytest.raises(UserWarning, match=r"KeyError.*a mistake in here"):
        step()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(3):
            x, _ = step()
    assert [str(w.message) for w in told if "a mistake in here" in str(w.message)]
    assert len(told) == 1
    np.testing.assert_allclose(x, update_and_apply(tx, X, state, X)[0], rtol=1e-6)
