"""`optjax.audit`: what is known exactly, wherever it is called."""

import functools
import re

import equinox
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiling import jit
from flax import nnx

import optjax
from optjax._audit import audit as audit_module
from optjax._audit import blocks
from optjax._audit.notes import held_since

X = {
    "dense": {"kernel": np.array([[0.5, -1.0], [2.0, 0.3]], np.float32)},
    "out": {"bias": np.ones(2, np.float32)},
}
G = jax.tree.map(lambda x: np.float32(0.1) + np.float32(0.3) * x, X)


def elasticities(found, name):
    return [effects[name].elasticity for effects in found.values()]


def test_sgd_goes_with_its_learning_rate():
    found = optjax.audit(optjax.sgd, {"learning_rate": 0.1}, G, X)
    np.testing.assert_allclose(elasticities(found, "learning_rate"), 1.0, rtol=1e-6)
    np.testing.assert_allclose(elasticities(found, "gradients"), 1.0, rtol=1e-6)
    assert found["overall"]["learning_rate"].turn < 1e-6
    assert found["dense"]["parameters"] == (0.0, 0.0, 0.0, 0.0)
    assert found.verdicts == []
    found.raise_for()


@pytest.mark.parametrize(("norm", "expected"), [(1e-3, 0.0), (1e3, 1.0)])
def test_a_clip_that_is_active_normalizes(norm, expected):
    def optimizer(learning_rate, max_norm):
        clip = optax.clip_by_global_norm(max_norm)
        return optax.chain(optax.sgd(learning_rate), clip)

    hyper = {"learning_rate": 0.1, "max_norm": norm}
    effects = optjax.audit(optimizer, hyper, G, X)["overall"]
    assert effects["learning_rate"].elasticity == pytest.approx(expected, abs=1e-6)
    assert effects["max_norm"].elasticity == pytest.approx(1 - expected, abs=1e-6)


@pytest.mark.parametrize("name", ["adabound", "amsbound"])
def test_at_their_bounds_final_lr_is_all(name):
    hyper = {"learning_rate": 1e-3, "gamma": 1e6}
    found = optjax.audit(getattr(optjax, name), hyper, G, X)
    np.testing.assert_allclose(elasticities(found, "learning_rate"), 0.0, atol=1e-6)
    np.testing.assert_allclose(elasticities(found, "final_lr"), 1.0, rtol=1e-6)
    (verdict,) = found.verdicts
    assert verdict.kind == "inert"
    assert "every rate is at its bound" in verdict.evidence


def test_a_learning_rate_outside_of_closed_bounds_is_not_said_to_be_inert():
    """It scales the step: twice the rate is twice the step, whatever is held."""

    def of_transformation(tx):
        return optjax.audit(tx, G, tx.init(X), X)

    def own(learning_rate):
        rate = optax.chain(
            optjax.rate_by_accumulated_square(optjax.ema_of_squares(0.999)),
            optjax.bound_clip(*optjax.hyperbolic_bounds(0.1, 1e6)),
        )
        return optjax.basic_form(optjax.ema(0.9), rate, learning_rate)

    assert of_transformation(own(0.01)).verdicts == []
    assert of_transformation(optjax.graftbound(0.01, gamma=1e6)).verdicts == []
    (verdict,) = of_transformation(optjax.adabound(0.01, gamma=1e6)).verdicts
    assert verdict.cause == "the learning rate is inert"
    assert verdict.evidence == "every rate is at its bound, and final_lr decides"
    found = optjax.audit(own, {"learning_rate": 0.01}, G, X)
    np.testing.assert_allclose(elasticities(found, "learning_rate"), 1.0, rtol=1e-6)
    assert found.verdicts == []


def test_a_note_of_bounds_to_come_says_what_they_will_decide():
    def own(learning_rate):
        rate = optax.chain(
            optjax.rate_by_accumulated_square(optjax.ema_of_squares(0.999)),
            optjax.bound_clip(*optjax.hyperbolic_bounds(0.1, 1e-3)),
        )
        return optjax.basic_form(optjax.ema(0.9), rate, learning_rate)

    (note,) = optjax.audit(own, {"learning_rate": 0.01}, G, X).notes
    assert "inert" not in note
    assert "final_lr" not in note


def test_at_a_bound_are_as_many_as_are_there():
    # Of 200 one is inside a band of 0.1 ± 1e-4: Adam's rate is α / |g| at first.
    g = {"w": jnp.concatenate([jnp.linspace(1.0, 2.0, 199), jnp.array([0.1])])}
    tx = optjax.adabound(1e-2, gamma=1e4)
    (verdict,) = optjax.audit(tx, g, tx.init(g), g).verdicts
    assert verdict.evidence.startswith("99.5 % of the rates are at their bound")


@pytest.mark.parametrize("make", [optjax.inject_hyperparams, optax.inject_hyperparams])
def test_injected_the_base_goes_along(make):
    """So that a running AdaBound answers as one that is made anew."""
    tx = make(optjax.adabound)(1e-3, gamma=1e6)
    found = optjax.audit(tx, G, tx.init(X), X)["dense"]
    assert found["learning_rate"].elasticity == pytest.approx(0.0, abs=1e-6)
    assert found["final_lr"].elasticity == pytest.approx(1.0, rel=1e-6)


def test_a_given_base_is_a_number_of_its_own():
    hyper = {"learning_rate": 1e-3, "base_lr": 1e-3, "gamma": 1e6}
    found = optjax.audit(optjax.adabound, hyper, G, X)["dense"]
    assert found["learning_rate"].elasticity == pytest.approx(1.0, rel=1e-6)
    assert found["base_lr"].elasticity == pytest.approx(-1.0, rel=1e-6)


def test_adam_without_eps_forgets_the_gradients_size():
    hyper = {"learning_rate": 1e-3, "eps": 0.0}
    grads = jax.tree.map(lambda g: np.stack([g, -2 * g, 3 * g]), G)
    found = optjax.audit(optjax.adam, hyper, grads, X, steps=3)
    np.testing.assert_allclose(elasticities(found, "gradients"), 0.0, atol=1e-6)


def norm(tree):
    return np.linalg.norm(np.concatenate(list(map(np.ravel, jax.tree.leaves(tree)))))


@pytest.mark.parametrize("factory", [optjax.adamw, optax.adamw])
def test_the_share_of_decoupled_decay(factory):
    """‖αλx‖ / ‖Δx‖, by λ and by the parameters alike."""
    hyper = {"learning_rate": 0.01, "weight_decay": 0.1}
    found = optjax.audit(factory, hyper, G, X)
    tx = factory(**hyper)
    update, _ = jit(tx.update)(G, tx.init(X), X)
    share = 0.01 * 0.1 * norm(X) / norm(update)
    for name in ("weight_decay", "parameters"):
        effect = found["overall"][name]
        assert effect.decay == pytest.approx(share, rel=1e-5)
        assert np.hypot(*effect[:2]) == pytest.approx(share, rel=1e-5)


def test_a_schedule_is_turned_as_a_whole():
    hyper = {"learning_rate": optax.linear_schedule(0.1, 0.0, 4)}
    grads = jax.tree.map(lambda g: np.stack([g] * 3), G)
    found = optjax.audit(optjax.adam, hyper, grads, X, steps=3)
    assert found["overall"]["learning_rate"].elasticity == pytest.approx(1.0)
    np.testing.assert_allclose(
        found.measured.values[:, 0], [0.1, 0.075, 0.05], rtol=1e-6
    )


def test_where_a_root_has_no_derivative_differences_are_taken():
    """Optax's Adam, at a coordinate without gradient."""
    grads = {**G, "out": {"bias": np.array([0.0, 0.1], np.float32)}}
    found = optjax.audit(optax.adam, {"learning_rate": 1e-3}, grads, X)
    assert np.all(np.isfinite(found.measured.effects.elasticity))
    assert found.measured.effects.by_difference.any()
    np.testing.assert_allclose(elasticities(found, "learning_rate"), 1.0, rtol=1e-4)
    ours = optjax.audit(optjax.adam, {"learning_rate": 1e-3}, grads, X)
    assert not ours.measured.effects.by_difference.any()


def test_what_the_parts_of_a_plain_optimizer_tell():
    for tx, kind in [
        (optjax.adabound(1e-3, gamma=1e6), "inert"),
        (optjax.adam(1e-3, eps=10.0), "floor"),
        (optjax.sgd(optax.linear_schedule(0.0, 0.1, 5)), "schedule at 0"),
    ]:
        found = optjax.audit(tx, G, tx.init(X), X)
        assert [verdict.kind for verdict in found.verdicts] == [kind]


def test_waiting_is_not_failing():
    """AdaShift's first gradients are gathered, and those of a larger batch."""
    for tx in [
        optjax.adashift(0.1),
        optax.MultiSteps(optjax.adam(0.1), 2),
        optax.MultiSteps(optax.adam(0.1), 2).gradient_transformation(),
    ]:
        assert optjax.audit(tx, G, tx.init(X), X).verdicts == []


def test_compiled_it_is_arrays_and_read_outside():
    tx = optjax.inject_hyperparams(optjax.adam)(1e-3)

    @jax.jit
    def step(state, grads):
        found = optjax.audit(tx, grads, state, X)
        updates, state = tx.update(grads, state, X)
        return updates, state, found

    state = tx.init(X)
    plain = jax.jit(tx.update)(G, state, X)
    updates, after, found = step(state, G)
    assert all(map(np.array_equal, *map(jax.tree.leaves, ((updates, after), plain))))
    assert found["dense"]["learning_rate"].elasticity == pytest.approx(1.0)
    assert found.verdicts == []
    assert jax.tree.structure(found) == jax.tree.structure(step(after, G)[2])
    assert "learning_rate" in str(found)


class Model(nnx.Module):
    def __init__(self):
        self.dense = nnx.Linear(2, 2, rngs=nnx.Rngs(0))


def test_trees_of_other_libraries():
    model = Model()
    tx = optjax.inject_hyperparams(optjax.adam)(1e-3)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    params = nnx.state(model, nnx.Param)
    grads = jax.tree.map(jnp.ones_like, params)
    found = optjax.audit(tx, grads, optimizer.opt_state, params)
    assert list(found) == ["dense/bias", "dense/kernel", "overall"]
    assert found["dense/bias"]["learning_rate"].elasticity == pytest.approx(1.0)

    linear = equinox.nn.Linear(2, 2, key=jax.random.key(0))
    grads = jax.tree.map(jnp.ones_like, linear)
    found = optjax.audit(tx, grads, tx.init(linear), linear, groups=None)
    assert list(found) == ["weight", "bias", "overall"]


def test_groups_and_steps():
    grads = jax.tree.map(lambda g: np.stack([g, 2 * g]), G)
    audit = functools.partial(optjax.audit, optjax.sgd, {"learning_rate": 0.1})
    found = audit(grads, X, steps=2, groups=lambda name: name.rpartition("/")[2])
    assert list(found) == ["kernel", "bias", "overall"]
    assert found.at(1)["kernel"]["learning_rate"].elasticity == pytest.approx(1.0)
    with pytest.raises(IndexError, match="one of 2, got 2"):
        found.at(2)
    with pytest.raises(KeyError, match="no group 'head'; there are kernel, bias"):
        found["head"]
    with pytest.raises(ValueError, match=r"leading axis of steps=3: .* must be \(3,"):
        audit(grads, X, steps=3)


def test_what_cannot_have_a_gradient_is_not_said_to_lack_one():
    x = {"w": jnp.ones(3), "empty": jnp.ones((0, 3)), "n": jnp.arange(3)}
    grads = jax.grad(lambda x: jnp.sum(x["w"] ** 2), allow_int=True)(x)
    found = optjax.audit(optjax.adam, {"learning_rate": 1e-3}, grads, x)
    assert found.verdicts == []
    x["dead"] = jnp.ones(2)
    grads = jax.grad(lambda x: jnp.sum(x["w"] ** 2), allow_int=True)(x)
    (verdict,) = optjax.audit(optjax.adam, {"learning_rate": 1e-3}, grads, x).verdicts
    assert (verdict.kind, verdict.where) == ("no gradient", ("dead",))
    assert repr(verdict.where) == "('dead',)"


WHOLE = {"n": jnp.zeros(3, jnp.int32)}, {"n": jnp.arange(3)}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((3, G, None, X), "a function that makes one, got 3"),
        ((optjax.adam, 1e-3, G, X), r'"learning_rate": 1e-3}, got 0\.001'),
        ((optjax.adam, {"lr": 1e-3}, G, X), "that adam takes, got {'lr': 0.001}"),
        ((optjax.adam(0.1), G, optax.sgd(0.1).init(X), X), "the state of this opt"),
        ((optjax.adam(0.1), G, None, X), "the state of this optimizer"),
        ((optjax.sgd, {"learning_rate": 0.1}, G, None), "must be absent, got"),
        ((optjax.sgd, {"learning_rate": 0.1}, {}, X), "got nothing"),
        ((optjax.sgd, {"learning_rate": 0.1}, {}, {}), "at least one parameter"),
        ((optjax.sgd, {"learning_rate": 0.1}, *WHOLE), "as jax.grad .* of n is int32"),
    ],
)
def test_other_arguments_are_refused_in_words(arguments, words):
    with pytest.raises(ValueError, match=words):
        optjax.audit(*arguments)


def test_strict():
    dead = functools.partial(optjax.audit, lambda lr: optax.sgd(0.1), {"lr": 0.5}, G, X)
    with pytest.raises(ValueError, match="lr is inert"):
        dead(strict=True)
    dead().raise_for(ignore=("inert",))


def test_one_program_for_a_loop():
    tx, traces = optjax.sgd(0.1), []

    def update(updates, state, params=None):
        traces.append(1)
        return tx.update(updates, state, params)

    spied = optax.GradientTransformation(tx.init, update)
    for _ in range(3):
        optjax.audit(spied, G, spied.init(X), X)
    assert len(traces) < 10


def memory_of(factory, hyper, size):
    """Of an audit's program, in copies of the updates."""
    x = {"w": jax.ShapeDtypeStruct((size // 64, 64), jnp.float32)}
    audit = jax.jit(functools.partial(optjax.audit, factory, hyper))
    analysis = audit.lower(x, x).compile().memory_analysis()
    return analysis.temp_size_in_bytes / (4 * size)


def test_it_holds_no_array_of_the_updates_size():
    """But for a block of each: of 16 million coordinates 4 % of a copy."""
    assert memory_of(optjax.adabound, {"learning_rate": 0.1}, 2**24) < 0.04


def test_what_is_not_done_by_coordinates_is_audited_all_the_same(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 2)

    def ordered(learning_rate):
        tx = optax.sgd(learning_rate)

        def update(updates, state, params=None):
            return tx.update(jax.tree.map(jnp.sort, updates), state, params)

        return optax.GradientTransformation(tx.init, update)

    found = optjax.audit(ordered, {"learning_rate": 0.1}, G, X)
    assert found["overall"]["learning_rate"].elasticity == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", ["clipped", "adabound"])
def test_by_blocks_it_is_the_same(name, monkeypatch):
    """Of leaves that blocks fill, do not fill, and are larger than."""
    factory = {
        "clipped": lambda learning_rate, max_norm: optax.chain(
            optax.clip_by_global_norm(max_norm), optax.sgd(learning_rate, momentum=0.9)
        ),
        "adabound": optjax.adabound,
    }[name]
    hyper = {"learning_rate": 0.01} | ({"max_norm": 0.5} if name == "clipped" else {})
    with jax.enable_x64(True):
        random = np.random.default_rng(0)
        x = {"a": random.normal(size=(4, 6)), "b": random.normal(size=13), "c": [3.0]}
        x = jax.tree.map(jnp.asarray, x)
        g = jax.tree.map(lambda x: x**2 - 0.3, x)

        def audited(g, x):
            return optjax.audit(factory, hyper, g, x).measured

        whole = audited(g, x)
        audit_module._kept.cache_clear()
        monkeypatch.setattr(blocks, "BLOCK", 8)
        for one, other in zip(
            *map(jax.tree.leaves, (whole, audited(g, x))), strict=True
        ):
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-7)
        program = str(jax.make_jaxpr(audited)(g, x))
        audit_module._kept.cache_clear()
    # Of all that is done, nothing but the cutting is done with a whole leaf.
    done = set(re.findall(r":f64\[(?:4,6|24|13)\] = (\w+)", program))
    assert {"reshape"} <= done <= {"reshape", "optimization_barrier", "pjit", "jit"}


def test_the_monitor_keeps_two_of_them():
    """The same numbers, of a step with rates at a bound and between."""
    x = {"w": np.linspace(-1.0, 1.0, 40, dtype=np.float32)}
    g = {"w": np.logspace(-3.0, 1.0, 40, dtype=np.float32)}
    hyper = {"learning_rate": 1e-2, "final_lr": 0.05, "gamma": 0.5}
    found = optjax.audit(optjax.adabound, hyper, g, x)["overall"]
    tx = optjax.monitor(optjax.adabound(**hyper), audit=True)
    _, state = jit(tx.update)(g, tx.init(x), x)
    summary = optjax.read_report(state)["overall"]
    rate, bounds = found["learning_rate"].elasticity, found["final_lr"].elasticity
    assert 0.1 < rate < 0.9
    assert summary.rate_elasticity == pytest.approx(rate, rel=1e-5)
    assert summary.bound_elasticity == pytest.approx(bounds, rel=1e-5)
    plain = optjax.monitor(optjax.adabound(**hyper))
    _, state = jit(plain.update)(g, plain.init(x), x)
    assert np.isnan(optjax.read_report(state)["overall"].rate_elasticity)


def test_when_the_bounds_will_decide_is_told_by_the_rates_of_now():
    """Of constant gradients, whose rates stay: the steps at which it happens."""
    # Rates on both sides of the final one.
    rates = [np.logspace(-2.0, -1.5, 200), np.logspace(0.0, 0.5, 200)]
    g = {"w": np.concatenate(rates).astype(np.float32)}
    x = jax.tree.map(np.ones_like, g)
    hyper = {"learning_rate": 1e-2, "final_lr": 0.1, "gamma": 3e-4}
    tx = optjax.monitor(optjax.adabound(**hyper), every=1, sample=None)

    @jax.jit
    def run():
        last, summaries = jax.lax.scan(
            lambda state, _: ((new := tx.update(g, state, x)[1]), new.summaries),
            tx.init(x),
            length=2000,
        )
        return last._replace(summaries=summaries)

    held = 1 - optjax.read_report(run())["overall"].between
    first, last = np.argmax(held >= 0.01) + 1, np.argmax(held >= 0.99) + 1
    assert 60 < first < last < 2000
    grads = jax.tree.map(lambda g: np.tile(g, (60, 1)), g)
    found = optjax.audit(optjax.adabound, hyper, grads, x, steps=60)
    np.testing.assert_allclose(found.measured.forecast[:, 0], [first, last], rtol=0.05)
    assert found.verdicts == []
    (note,) = found.notes
    assert note in str(found)
    assert "final_lr has no effect before about step" in note
    assert "learning_rate is inert from about step" in note
    since = held_since(found.measured, [0])
    assert since == f" since about step {float(f'{last:.2g}'):,.0f}"
    # By bounds that hold it from the first step on.
    steep = jax.tree.map(lambda g: 1e3 * g, g)
    shut = optjax.audit(optjax.adabound, hyper | {"gamma": 1e4}, steep, x)
    (verdict,) = (v for v in shut.verdicts if v.kind == "inert")
    assert verdict.evidence == "every rate is at its bound, and final_lr decides"
    assert shut.notes == []
    for name in ("adam", "sgd"):
        plain = optjax.audit(getattr(optjax, name), {"learning_rate": 0.1}, g, x)
        assert plain.notes == []


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: optax.adam(1e-3), "ν stands still in 9"),
        (lambda: optjax.adam(1e-3, nu_dtype=jnp.bfloat16), "ν stands still in 9"),
        (lambda: optjax.adam(1e-3, b2=0.9, nu_dtype=jnp.bfloat16), ""),
        (lambda: optjax.stochastic_rounding(optjax.adam(1e-3)), ""),
        (lambda: optjax.adam(1e-3), ""),
    ],
    ids=["optax", "nu_dtype", "short memory", "stochastic", "float32"],
)
def test_squares_that_half_precision_keeps_where_they_are(make, says, request):
    """After steps whose gradients were ten times as large."""
    is_half = "optax" in request.node.callspec.id
    x = {"w": jnp.ones(400, jnp.bfloat16 if is_half else jnp.float32)}
    tx = make()
    noise = np.random.default_rng(0).normal(size=(20, 400))
    g = {"w": jnp.asarray(noise, x["w"].dtype)}
    run = jax.jit(
        lambda state: jax.lax.scan(
            lambda state, g: (tx.update(g, state, x)[1], None), state, g
        )[0]
    )
    state = run(tx.init(x))
    last = jax.tree.map(lambda g: g[0] / 10, g)
    found = optjax.audit(tx, last, state, x).verdicts
    said = [str(verdict) for verdict in found if verdict.kind == "stalled"]
    assert [line.startswith(says) for line in said] == [True] * bool(says)
