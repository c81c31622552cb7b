"""Parts of one's own, seen by monitor, `sgd_equivalent` and the compiled step."""

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiling import jit
from loop import NOISE, START

import optjax
from optjax import extend
from optjax.extend import Clip, Link, Part, cover, tell, telling
from optjax.fused import _coverage

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

X = {"w": jnp.array([[1.0, -2.0, 40.0], [0.5, 3.0, -0.1]]), "b": jnp.array([2.0])}
ROOT = optjax.rate_by_accumulated_square(optjax.ema_of_squares(0.9), eps=1e-3)


def clipping(where):
    """V ↦ min(V, upper), `where` giving the upper bound."""

    def update(rates, state, params=None):
        upper = where(rates)
        each = jax.tree.broadcast(upper, rates)
        limited = jax.tree.map(jnp.minimum, rates, each)
        tell(Link(Clip(0.0, upper), rates, limited))
        return limited, state

    return optax.GradientTransformation(optax.init_empty_state, update)


BOUNDS = {
    "one number": lambda rates: jnp.float32(0.6),
    "a number a leaf": lambda rates: jax.tree.map(jnp.median, rates),
    "a number a coordinate": lambda rates: jax.tree.map(
        lambda v: jnp.linspace(0.1, 1.0, v.size).reshape(v.shape), rates
    ),
}


def bounded(name):
    return optjax.basic_form(
        optjax.ema(0.9), optax.chain(ROOT, clipping(BOUNDS[name])), 0.1
    )


@pytest.mark.parametrize("name", BOUNDS)
def test_the_monitor_shows_a_bound_of_ones_own(name):
    tx = optjax.monitor(bounded(name), every=1)
    _, state = jit(tx.update)(X, tx.init(X), X)
    report = optjax.read_report(state)
    v = {k: 1 / (np.abs(np.float64(x)) + 1e-3) for k, x in X.items()}
    for group in ("w", "b"):
        upper = np.broadcast_to(
            np.float64(jax.tree.broadcast(BOUNDS[name](v), v)[group]), v[group].shape
        )
        assert report[group].lower == 0
        np.testing.assert_allclose(report[group].upper, 0.1 * upper.max(), rtol=1e-5)
        share = np.mean(v[group] >= upper * (1 - 1e-6))
        np.testing.assert_allclose(report[group].at_upper, share, rtol=1e-6)
        assert np.isnan(report[group].sgd_rate)


def test_the_monitor_shows_the_limit_of_adamod():
    """S_t = (1 − β₃) V_1 at the first step, at which every rate is."""
    tx = optjax.monitor(optjax.adamod(0.1, b3=0.75, eps=0.0), every=1)
    _, state = jit(tx.update)(X, tx.init(X), X)
    report = optjax.read_report(state)["w"]
    largest = 0.25 * 0.1 / np.min(np.abs(X["w"]))
    np.testing.assert_allclose(report.upper, largest, rtol=1e-5)
    assert (report.lower, report.at_upper) == (0, 1)


def step(tx, g, state, x):
    updates, state = tx.update(g, state, x)
    return optax.apply_updates(x, updates), state


def walk(step, tx, start=START):
    @jit
    def path(start):
        x, state, all_x = start, tx.init(start), []
        for g in NOISE[:4]:
            x, state = step(tx, g, state, x)
            all_x.append(x)
        return all_x, state

    return path(start)


def assert_same_walk(tx):
    ours, theirs = walk(optjax.apply_step, tx), walk(step, tx)
    for one, other in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("name", BOUNDS)
def test_apply_step_keeps_a_bound_of_ones_own(name):
    """Compiled where it is one number."""
    assert_same_walk(bounded(name))
    told = optjax.explain_step(bounded(name), X)
    if optjax.fused_step_available():
        assert set(told.compiled) == ({"w", "b"} if name == "one number" else set())


@pytest.fixture
def table(monkeypatch):
    monkeypatch.setattr(_coverage, "COVERED", dict(_coverage.COVERED))


class Lion(Part):
    """m ← g + β m, of which β m + g is returned: Nesterov's in other words."""

    b: jax.Array


def direction(part, wrong=False):
    def init(params):
        return {"memory": jax.tree.map(jnp.zeros_like, params)}

    def update(grads, state, params=None):
        m = jax.tree.map(lambda g, m: g + part.b * m, grads, state["memory"])
        ahead = jax.tree.map(lambda g, m: part.b * m + g, grads, m)
        return ahead, {"memory": [m] if wrong else m}

    return telling(part, optax.GradientTransformation(init, update))


@pytest.mark.usefixtures("table")
def test_a_part_of_ones_own_is_compiled():
    lion = Lion(jnp.float32(0.8))
    tx = optjax.basic_form(direction(lion), ROOT, 0.1)
    before = optjax.explain_step(tx, START)
    assert not before.compiled

    @cover(Lion)
    def rule(part, old, new):
        return extend.Memory(
            old["memory"], new["memory"], keep=part.b, out=part.b, ahead=1.0
        )

    assert_same_walk(tx)
    if optjax.fused_step_available():
        assert set(before.others.values()) == {"the compiled step knows no Lion"}
        assert set(optjax.explain_step(tx, START).others) == set()


@pytest.mark.usefixtures("table")
def test_a_subclass_is_not_taken_for_what_it_is_of():
    class Other(extend.Trace):
        pass

    other = telling(Other(0.9, nesterov=False), optax.scale(2.0))
    tx = optjax.basic_form(other, ROOT, 0.1)
    assert not optjax.explain_step(tx, START).compiled
    assert_same_walk(tx)


def test_what_terms_are_by_default():
    """m ← g and ν ← ν + g², and they are what is returned."""
    assert extend.Memory("old", "new") == ("old", "new", 1.0, 0.0, 1.0, None)
    assert extend.Squares("old", "new") == ("old", "new", 1.0, 1.0, 1.0)


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (lambda part, old, new: extend.Memory({}, new["memory"]), "another tree"),
        (lambda part, old, new: extend.Factor(2.0), "not one average of gradients"),
        (
            lambda part, old, new: extend.Memory(
                jax.tree.map(lambda m: m.astype(jnp.bfloat16), old["memory"]),
                new["memory"],
            ),
            "changes its dtype",
        ),
        (
            lambda part, old, new: extend.Memory(
                old["memory"], new["memory"], keep=jnp.ones(3)
            ),
            "is not one number",
        ),
    ],
)
def test_a_rule_that_does_not_fit(rule, reason):
    cover(Lion)(rule)
    tx = optjax.basic_form(direction(Lion(jnp.float32(0.8))), ROOT, 0.1)
    if optjax.fused_step_available():
        assert reason in str(optjax.explain_step(tx, START))
    assert_same_walk(tx)


def test_sgd_equivalent_of_a_bound_with_ends():
    def update(rates, state, params=None):
        low, high = 0.2, 0.2 + 1 / (state + 1)
        clipped = jax.tree.map(lambda v: jnp.clip(v, low, high), rates)
        tell(Link(Clip(low, high, ends=(low, 0.2)), rates, clipped))
        return clipped, state + 1

    own = optax.GradientTransformation(lambda _: jnp.zeros([]), update)
    tx = optjax.basic_form(optjax.ema(0.75), optax.chain(ROOT, own), 0.5)
    sgd = optjax.sgd_equivalent(tx)
    np.testing.assert_allclose((sgd.learning_rate, sgd.momentum), (0.025, 0.75))
    report = optjax.monitor(tx, every=1)
    _, state = report.update(X, report.init(X), X)
    np.testing.assert_allclose(optjax.read_report(state)["w"].sgd_rate, 0.1, rtol=1e-6)
    tx = optjax.basic_form(
        optax.identity(), optax.chain(ROOT, clipping(lambda _: 1.0)), 1
    )
    with pytest.raises(ValueError, match="goes on adapting"):
        optjax.sgd_equivalent(tx)


def test_a_part_is_frozen_and_a_tree():
    part = Lion(jnp.float32(0.8))
    with pytest.raises(AttributeError):
        part.b = 1.0
    assert jax.tree.map(lambda b: 2 * b, part).b == jnp.float32(1.6)
    with pytest.raises(TypeError):
        Lion()


@pytest.mark.parametrize("name", extend.__all__)
@pytest.mark.usefixtures("table")
def test_doors_are_documented(name):
    """And their examples hold."""
    value = getattr(extend, name)
    (test,) = doctest.DocTestFinder(recurse=False).find(value, name, globs={}) or [None]
    assert value.__doc__
    if test is not None:
        report = []
        assert doctest.DocTestRunner().run(test, out=report.append).failed == 0, report
