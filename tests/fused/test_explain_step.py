"""`explain_step` says of each parameter what `apply_step` does, and why."""

from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest
from rows import each_case

import optjax

X = {"w": jnp.ones((3, 2)), "b": jnp.ones(2)}

needs_library = pytest.mark.skipif(
    not optjax.fused_step_available(),
    reason="no compiled step: run `python hatch_build.py`, which needs a C++ compiler",
)


def compiled(tx, params):
    """How many arrays of the parameters a step hands to the compiled one."""
    step = jax.jit(lambda *operands: optjax.apply_step(tx, *operands))
    traced = step.trace(params, tx.init(params), params)
    eqns = [e for e in traced.jaxpr.jaxpr.eqns if e.primitive.name == "optjax_step"]
    return sum(e.params["leaves"] for e in eqns)


@needs_library
@each_case
def test_as_many_as_apply_step_compiles(case):
    tx = case.interior()
    told = optjax.explain_step(tx, X)
    assert len(told.compiled) == compiled(tx, X)
    assert {*told.compiled, *told.others} == {"w", "b"}


FORMS = {
    "sgd": (optjax.sgd(0.1), "g"),
    "nesterov": (optjax.sgd(0.1, 0.9, True), "m ahead"),
    "rmsprop": (optjax.rmsprop(0.1), "V of ν, g"),
    "adamw": (optjax.adamw(0.1), "V of ν, m, weight decay"),
    "amsbound": (
        optjax.amsbound(0.1, weight_decay=0.1),
        "V of max ν, m, bounded, L2",
    ),
    "graftbound": (optjax.graftbound(0.1), "V of ν, m, bounded by its norms"),
}


@needs_library
@pytest.mark.parametrize("name", FORMS)
def test_the_form_in_words(name):
    tx, form = FORMS[name]
    assert optjax.explain_step(tx, X) == ({"b": form, "w": form}, {})


EMA = optjax.ema_of_squares(0.9)
ROOT = optjax.rate_by_accumulated_square(EMA)
BOUND = optjax.bound_clip(0.1, 0.3)


def form(rate=ROOT, direction=None):
    return optjax.basic_form(direction or optjax.ema(0.9), rate, 0.1)


WHY = {
    "of Optax": (optax.adam(0.1), "what returns its update is no part of optjax"),
    "within cond": (optax.MultiSteps(optjax.adam(0.1), 2), "no part of optjax"),
    "scaled after": (optax.chain(optjax.adam(0.1), optax.scale(2.0)), "no part of"),
    "momentum after": (
        optax.chain(optjax.adam(0.1), optjax.trace(0.9)),
        "not the last step of a basic_form",
    ),
    "yogi": (optjax.yogi(0.1), "knows no sign_ema_of_squares"),
    "nosadam": (optjax.nosadam(0.1), "knows no mean_of_squares"),
    "adabelief": (optjax.adabelief(0.1), "knows no ema_of_squared_residuals"),
    "adadelta": (optjax.adadelta(), "knows no rate_by_adadelta"),
    "adamax": (optjax.adamax(0.1), "knows no rate_by_infinity_norm"),
    "radam": (optjax.radam(0.1), "knows no rectify"),
    "nadam": (optjax.nadam(0.1, momentum_decay=0.004), "knows no nadam_ema"),
    "centered": (optjax.rmsprop(0.1, centered=True), "knows no centered_ema_of_sq"),
    "swats": (optjax.swats(0.1), "descends along a Switched"),
    "adashift": (optjax.adashift(0.1), "descends along a Shifted"),
    "padam": (optjax.padam(0.1), "the power of its rate is not the number 0.5"),
    "scaled rate": (form(optax.chain(ROOT, optax.scale(2.0))), "its rate tells noth"),
    "limit of each coordinate": (
        form(optax.chain(ROOT, optjax.limit_by_average(0.9))),
        "bound is not one number",
    ),
    "around this step's rate": (
        optjax.graftbound(0.1, late=False),
        "not around the last step's grafted rate",
    ),
    "around a projection": (
        form(optax.chain(ROOT, optjax.bound_around(optjax.projected_target(), 0.5, 2))),
        "not around the last step's grafted rate",
    ),
    "bounded twice": (form(optax.chain(ROOT, BOUND, BOUND)), "no Clip at that place"),
    "no root": (form(EMA), "not one over the root of an accumulator"),
    "two averages": (
        form(direction=optax.chain(optjax.ema(0.9), optjax.trace(0.9))),
        "its direction is not one average",
    ),
    "average of rates": (form(direction=optax.chain(ROOT, EMA)), "not one average"),
    "twice": (optax.chain(optjax.adam(0.1), optjax.sgd(0.1)), "from another part"),
    "not descending": (optjax.precondition(optax.identity(), ROOT), "not the last"),
    "float16 state": (optjax.adam(0.1, mu_dtype="float16"), "its state is float16"),
    "a rate a leaf": (optjax.sgd(lambda _: jnp.ones(2)), "is not one number"),
}


@needs_library
@pytest.mark.parametrize("name", WHY)
def test_why_not(name):
    tx, reason = WHY[name]
    told = optjax.explain_step(tx, X)
    assert told.compiled == {}
    assert list(told.others) == ["b", "w"]
    (only,) = set(told.others.values())
    assert reason in only


@needs_library
def test_why_not_by_leaf():
    params = {
        "a": jnp.ones(3),
        "b": jnp.ones(3, jnp.float16),
        "c": {"d": jnp.ones(3, jnp.complex64), "e": jnp.ones(3, jnp.bfloat16)},
    }
    told = optjax.explain_step(optjax.adam(0.1), params)
    assert told.compiled == {"a": "V of ν, m", "c/e": "V of ν, m"}
    assert told.others == {
        "b": "its parameter is float16",
        "c/d": "its parameter is complex64",
    }
    assert str(told) == (
        "by the compiled step: 2 of 4 parameters\n"
        "  V of ν, m: a, c/e\n"
        "by `update`: 2 of 4 parameters\n"
        "  its parameter is float16: b\n"
        "  its parameter is complex64: c/d"
    )


@needs_library
def test_many_names_are_cut():
    told = optjax.explain_step(optjax.sgd(0.1), [jnp.ones(2)] * 300)
    assert str(told).splitlines()[1] == "  g: 0, 1, 2, 3, 296 more"
    assert "(all)" in str(optjax.explain_step(optjax.sgd(0.1), jnp.ones(2)))
    assert str(optjax.explain_step(optjax.sgd(0.1), {})) == ""


@needs_library
def test_another_tree():
    tx = optax.stateless(lambda g, _: {"other": g["w"]})
    assert "another tree" in str(optjax.explain_step(tx, X))


def test_nothing_is_compiled(monkeypatch):
    def only(tx=FORMS["sgd"][0]):
        told = optjax.explain_step(tx, X)
        assert not told.compiled
        (reason,) = set(told.others.values())
        return reason

    with monkeypatch.context() as patch:
        patch.setenv("OPTJAX_FUSED", "off")
        assert only() == "OPTJAX_FUSED turns the compiled step off"
    with monkeypatch.context() as patch:
        patch.setattr("optjax.fused._library._LIBRARY", Path("nowhere.so"))
        assert only() == "optjax was installed without a C++ compiler"
    if optjax.fused_step_available():
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        assert only() == "the compiled step is for the CPU, and JAX computes on gpu"


@needs_library
def test_shapes_and_extra_arguments_are_enough():
    shapes = jax.eval_shape(lambda: X)
    assert optjax.explain_step(optjax.adam(0.1), shapes).compiled.keys() == X.keys()
    polyak = optax.chain(optax.polyak_sgd(1.0), optjax.sgd(0.1))
    told = optjax.explain_step(polyak, shapes, value=jnp.array(2.0))
    assert told.compiled.keys() == X.keys()


def test_nothing_runs_but_python_once():
    runs = []

    def update(updates, state, params=None):
        runs.append(1)
        jax.debug.callback(lambda: runs.append("an effect"))
        return updates, state

    tap = optax.GradientTransformation(optax.init_empty_state, update)
    optjax.explain_step(optax.chain(tap, optjax.adam(0.1)), X)
    jax.effects_barrier()
    assert runs == [1] * optjax.fused_step_available()
