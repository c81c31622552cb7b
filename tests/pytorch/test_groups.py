"""Options, groups and machinery: what is taken, and what is refused in words."""

import doctest
import importlib
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import jit
from flax import nnx

import optjax
from optjax import pytorch

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

PARAMS = {"a": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}, "b": jnp.ones(2)}
OPTIMIZERS = [
    name
    for name in pytorch.__all__
    if inspect.isfunction(getattr(pytorch, name))
    and "machinery" in inspect.signature(getattr(pytorch, name)).parameters
]


def moved(tx, params=PARAMS):
    grads = jax.tree.map(jnp.ones_like, params)
    return tx.update(grads, tx.init(params), params)[0]


def test_the_first_group_that_takes_it_has_it():
    groups = [
        {"params": ["*/bias", "c"], "lr": 1.0},
        {"params": lambda name, array: array.ndim == 1, "lr": 2.0},
        {"params": "*"},
    ]
    updates = moved(pytorch.SGD(groups, lr=3.0))
    steps = {"a": {"kernel": -3.0, "bias": -1.0}, "b": -2.0}
    jax.tree.map(lambda u, s: np.testing.assert_array_equal(u, s), updates, steps)


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ([{"params": "a/*"}], "got 'b', which none of"),
        ([{"params": "*"}, {"params": "b"}], "every group must take a parameter"),
        ([{"params": "*", "beta": 1.0}], "options must be among lr, momentum"),
        ([{"params": "*", "lr": -1.0}], "lr must be"),
        ([{"lr": 1.0}], "params must be None or a list of groups"),
        (PARAMS, "params must be None or a list of groups"),
        (1e-3, "a learning rate is lr="),
    ],
)
def test_groups_that_do_not_fit_are_refused(groups, words):
    with pytest.raises(ValueError, match=words):
        pytorch.SGD(groups).init(PARAMS)


def test_names_are_the_same_for_flax_variables_and_their_arrays():
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    groups = [{"params": "bias", "weight_decay": 0.0}, {"params": "kernel"}]
    optimizer = nnx.Optimizer(model, pytorch.AdamW(groups), wrt=nnx.Param)
    grads = jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param))
    optimizer.update(model, grads)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("keyword", ["foreach", "fused", "capturable"])
def test_machinery_is_refused_with_a_word_why(name, keyword):
    factory = getattr(pytorch, name)
    with pytest.raises(ValueError, match=f"{keyword} must be left out.*: "):
        factory(**{keyword: True})
    factory(**{keyword: None})
    with pytest.raises(TypeError, match="unexpected keyword"):
        factory(speed=1)


@pytest.mark.parametrize("name", [n for n in OPTIMIZERS if "Bound" not in n])
def test_the_signature_is_pytorchs(name):
    optim = pytest.importorskip("torch").optim
    theirs = inspect.signature(getattr(optim, name)).parameters
    ours = inspect.signature(getattr(pytorch, name)).parameters
    beside = {"foreach", "fused", "capturable", "differentiable"}
    assert set(ours) - {"machinery"} == set(theirs) - beside
    for key, parameter in theirs.items():
        if key in ours and key != "params":
            assert ours[key].default == parameter.default, key
    order = [k for k, p in ours.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert order == [key for key in theirs if key in order]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: pytorch.Adam(betas=(0.9, 1.0)), "beta2 must be"),
        (lambda: pytorch.Adam(betas=0.9), "betas must be two decays"),
        (lambda: pytorch.Adam(eps=-1.0), "eps must be"),
        (lambda: pytorch.SGD(nesterov=True), "nesterov must have a momentum"),
        (
            lambda: pytorch.SGD(momentum=0.9, dampening=0.1, nesterov=True),
            "no dampening",
        ),
        (lambda: pytorch.Adam(amsgrad="yes"), "amsgrad must be True or False"),
    ],
)
def test_options_out_of_range_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_learning_rate_may_be_traced():
    def step(lr):
        return moved(pytorch.Adam(lr=lr))["b"]

    np.testing.assert_allclose(
        jit(jax.vmap(step))(np.float32([0.1, 0.2])),
        [[-0.1, -0.1], [-0.2, -0.2]],
        rtol=1e-6,
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_updates_keep_the_gradients_dtype(dtype):
    params = jax.tree.map(lambda x: x.astype(dtype), PARAMS)
    tx = pytorch.AdamW(lr=pytorch.StepLR(0.1, 10), maximize=True)
    assert {u.dtype.name for u in jax.tree.leaves(moved(tx, params))} == {dtype}


def test_the_compiled_step_takes_it():
    tx = pytorch.Adam(weight_decay=0.1, lr=pytorch.StepLR(0.1, 10))
    grads = jax.tree.map(jnp.cos, PARAMS)
    state = tx.init(PARAMS)
    step = jax.jit(optjax.apply_step, static_argnums=0)
    after, _ = step(tx, grads, state, PARAMS)
    updates, _ = tx.update(grads, state, PARAMS)
    for got, x, u in zip(*map(jax.tree.leaves, (after, PARAMS, updates)), strict=True):
        np.testing.assert_allclose(got, x + u, rtol=1e-6)


@pytest.mark.parametrize("name", pytorch.__all__)
def test_docstring_and_example(name):
    value = getattr(pytorch, name)
    module = importlib.import_module(value.__module__)
    (test,) = doctest.DocTestFinder(recurse=False).find(value, name, module, globs={})
    assert test.docstring
    if inspect.isfunction(value):
        assert test.examples
        listed = [
            line.strip().partition(":")[0].strip("*")
            for line in inspect.getdoc(value).partition("Args:\n")[2].splitlines()
            if line.startswith("  ") and not line.startswith("    ") and ":" in line
        ]
        parameters = list(inspect.signature(value).parameters)
        assert listed[: len(parameters)] == parameters
    report = []
    assert doctest.DocTestRunner().run(test, out=report.append).failed == 0, report
