"""`apply_step` is `update` and `optax.apply_updates`, whatever the optimizer."""

import functools
import inspect
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from loop import NOISE, START, gradient, stack
from rows import CASES

import optjax
from optjax._rounding import stochastic_rounding
from optjax.fused._apply import apply_step
from optjax.fused._library import fused_step_available

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

STEPS = 20
BF16 = jnp.bfloat16
BY_LEAF = {"matrix": True, "vector": False, "scalar": True}
# Each leaf is traced and compiled for itself; most questions are not about leaves.
PAIR = {key: START[key] for key in ("matrix", "scalar")}
ONE_LEAF = {"matrix": START["matrix"]}

needs_library = pytest.mark.skipif(
    not fused_step_available(),
    reason="no compiled step: run `python hatch_build.py`, which needs a C++ compiler",
)

COMPILED = {
    *("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw", "nadam"),
    *("nadamw", "amsgrad", "adabound", "amsbound", "adaboundw", "graftbound"),
}
BUT_FOR = {
    "rmsprop-centered",
    "rmsprop-momentum",
    "nadam-schedule",
    "nadamw-schedule",
    "graftbound-now",
}


def is_compiled(case):
    return case.row in COMPILED and str(case) not in BUT_FOR


def update_and_apply(tx, grads, state, params, **extra):
    """What `apply_step` must equal."""
    inner = optax.with_extra_args_support(tx)
    updates, state = inner.update(grads, state, params, **extra)
    return optax.apply_updates(params, updates), state


BOTH = (apply_step, update_and_apply)


def jitted_apply(tx, *operands):
    """In a `jit`, outside of which nothing is compiled."""
    return jax.jit(lambda operands: apply_step(tx, *operands))(operands)


def calls_in(lowered):
    return lowered.as_text().count("custom_call @optjax_step")


def calls(tx, params=START, grads=None, state=None):
    """The number of compiled calls that a step is lowered to."""
    grads = params if grads is None else grads
    state = tx.init(params) if state is None else state
    step = jax.jit(lambda *operands: apply_step(tx, *operands))
    return calls_in(step.lower(grads, state, params))


def both_steps(tx, *operands, **extra):
    """What either step gives, and the number of compiled calls, of one program."""
    lowered = jax.jit(
        lambda operands, extra: [step(tx, *operands, **extra) for step in BOTH]
    ).lower(operands, extra)
    return lowered.compile()(operands, extra), calls_in(lowered)


def cast(tree, dtype):
    return jax.tree.map(lambda x: x.astype(dtype), tree)


def run(tx, start=START, given=lambda grads: grads, steps=STEPS, by=BOTH):
    """The parameters and the state after every step, for each way, all in one scan."""
    rng = np.random.default_rng(1)
    noise = jax.tree.map(
        lambda x: jnp.asarray(rng.normal(size=(steps, *x.shape)), x.dtype), start
    )

    def body(carry, noise):
        carry = [
            step(tx, given(jax.tree.map(jnp.add, x, noise)), state, x)
            for step, (x, state) in zip(by, carry, strict=True)
        ]
        return carry, carry

    return jax.lax.scan(body, [(start, tx.init(start))] * len(by), noise)[1]


def both(*args, **kwargs):
    """What either way gives, and the program."""
    lowered = jax.jit(lambda: run(*args, **kwargs)).lower()
    return lowered.compile()(), lowered


def assert_both(tx, expected, *args, **kwargs):
    """They are the same, and so is the number of compiled calls."""
    paths, program = both(tx, *args, **kwargs)
    assert_same(*paths)
    assert calls_in(program) == expected * fused_step_available()


def assert_same(actual, expected, rtol=1e-6):
    """Structures, dtypes and weak types, and numbers to `rtol` of a leaf's largest."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    leaves = zip(
        jax.tree_util.tree_leaves_with_path(actual),
        jax.tree.leaves(expected),
        strict=True,
    )
    for (path, got), want in leaves:
        where = jax.tree_util.keystr(path)
        assert jnp.shape(got) == jnp.shape(want), where
        assert jnp.result_type(got) == jnp.result_type(want), where
        assert jax.typeof(got).weak_type == jax.typeof(want).weak_type, where
        got, want = (np.asarray(x).astype(np.complex128) for x in (got, want))
        size = np.max(np.abs(want), initial=0, where=np.isfinite(want))
        np.testing.assert_allclose(got, want, rtol=0, atol=rtol * size, err_msg=where)


def tolerance(*dtypes):
    """A last place of bfloat16: update, decay and state are rounded one by one."""
    return 2**-8 if BF16 in dtypes else 1e-6


BY_NAME = {str(case): case for case in CASES}


@functools.cache
def both_of(name):
    return both(BY_NAME[name].interior(), PAIR)


@pytest.mark.parametrize("name", BY_NAME)
def test_equals_update_and_apply(name):
    paths, _ = both_of(name)
    assert_same(*paths)


@needs_library
@pytest.mark.parametrize("name", BY_NAME)
def test_which_rows_are_compiled(name):
    _, program = both_of(name)
    assert calls_in(program) == is_compiled(BY_NAME[name])


# Of parameters and of gradients.
DTYPES = {
    "both": (BF16, BF16),
    "gradients": (jnp.float32, BF16),
    "parameters": (BF16, jnp.float32),
    "neither": (jnp.float32, jnp.float32),
}
SCHEDULE = optax.linear_schedule(0.1, 0.01, 10)
MIXED = {
    "sgd": (optjax.sgd(0.1), 1),
    "nesterov": (optjax.sgd(0.1, momentum=0.9, nesterov=True), 1),
    "float32 momentum": (
        optjax.sgd(0.1, momentum=0.9, accumulator_dtype="float32"),
        1,
    ),
    "adam": (optjax.adam(0.05, eps=1e-2), 1),
    "adam, bfloat16 m": (optjax.adam(0.05, eps=1e-2, mu_dtype=BF16), 1),
    "adam, float32 m": (optjax.adam(0.05, eps=1e-2, mu_dtype=jnp.float32), 1),
    "adam, bfloat16 m and ν": (
        optjax.adam(0.05, eps=1e-2, mu_dtype=BF16, nu_dtype=BF16),
        1,
    ),
    "amsgrad, float32 ν": (optjax.amsgrad(0.05, eps=1e-2, nu_dtype=jnp.float32), 1),
    "amsbound, bfloat16 ν": (optjax.amsbound(0.05, gamma=0.5, nu_dtype=BF16), 1),
    "adamw": (optjax.adamw(SCHEDULE, eps=1e-2, weight_decay=0.1), 1),
    "amsbound": (optjax.amsbound(0.05, gamma=0.5), 1),
    "graftbound": (optjax.graftbound(0.05, gamma=0.5), 1),
    "fixed decay": (optjax.adaboundw(0.05, fixed_decay=True), 1),
    "L2": (optjax.adabound(0.05, gamma=0.5, weight_decay=0.1), None),
    "scheduled L2": (optjax.adabound(0.05, gamma=0.5, weight_decay=SCHEDULE), None),
}


@pytest.mark.parametrize("name", MIXED)
def test_bfloat16(name):
    """Parameters, gradients or both: a leaf of each."""
    tx, expected = MIXED[name]
    start = {leaf: START["matrix"].astype(of) for leaf, (of, _) in DTYPES.items()}

    def given(grads):
        return {leaf: grads[leaf].astype(of) for leaf, (_, of) in DTYPES.items()}

    paths, program = both(tx, start, given)
    assert_same(*paths, rtol=4 * tolerance(BF16))
    for leaf, dtypes in DTYPES.items():
        actual, wanted = (of_leaf(leaf, path) for path in paths)
        stored = [x.dtype for x in wanted]
        assert_same(actual, wanted, rtol=4 * tolerance(*dtypes, *stored))
    if fused_step_available() and expected is not None:
        # All of these arrays come out of one call.
        (call,) = re.findall("custom_call @optjax_step.* -> (.*)", program.as_text())
        arrays = [x for x in jax.tree.leaves(paths[1]) if x.shape[1:] == (2, 3)]
        assert call.count("tensor<2x3x") == len(arrays)


def of_leaf(name, tree):
    """What parameters, state or the like hold of one leaf."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [x for path, x in leaves if jax.tree_util.DictKey(name) in path]


DRAWS = {
    "learning_rate": lambda u: 10 ** (4 * u - 4),
    "momentum": lambda u: 0.99 * u,
    "b1": lambda u: 0.99 * u,
    "b2": lambda u: 1 - 10 ** (-4 * u),
    "decay": lambda u: 1 - 10 ** (-4 * u),
    "eps": lambda u: 10 ** (8 * u - 9),
    "initial_accumulator_value": lambda u: u,
    "weight_decay": lambda u: 0.5 * u,
    "final_lr": lambda u: 10 ** (3 * u - 3),
    "gamma": lambda u: 10 ** (5 * u - 4),
}


WITH_L2 = ("adabound", "amsbound", "graftbound")


def errors_in_bfloat16(row, draws=32):
    """|apply_step − update| of bfloat16 gradients, of the largest number of the leaf.

    For each of the steps of a walk, both from the same state; and the compiled calls.
    """
    factory = optjax.OPTIMIZERS[row].factory
    rng = np.random.default_rng(sorted(COMPILED).index(row))
    values = {
        name: jnp.asarray(DRAWS[name](rng.uniform(size=draws)), jnp.float32)
        for name in inspect.signature(factory).parameters
        if name in DRAWS and (row, name) != ("rmsprop", "momentum")
    }
    fixed = {"nesterov": True} if row == "nesterov" else {}
    if row in WITH_L2:
        # By an array, or of float32 parameters, it would be float32: not compiled.
        decay = float(values.pop("weight_decay")[0])
        mask = {"bfloat16": True, "float32": False}
        fixed |= {"weight_decay": decay, "mask": mask}
    start = {
        name: jnp.asarray(rng.normal(size=(draws, 20)), name)
        for name in ("bfloat16", "float32")
    }
    scale = 10 ** rng.uniform(-3, 1, size=(draws, 1, 1))
    noise = jnp.asarray(scale * rng.normal(size=(draws, 6, 20)), BF16)

    def walk(values, start, noise):
        tx = factory(**values, **fixed)

        def body(carry, g):
            x, state = carry
            got, want = (step(tx, dict.fromkeys(x, g), state, x) for step in BOTH)
            return want, jax.tree.map(relative, got, want)

        return jax.lax.scan(body, (start, tx.init(start)), noise)[1]

    def relative(got, want):
        got, want = (x.astype(jnp.float32) for x in (got, want))
        return jnp.max(jnp.abs(got - want)) / jnp.max(jnp.abs(want)).clip(1e-30)

    lowered = jax.jit(jax.vmap(walk)).lower(values, start, noise)
    return lowered.compile()(values, start, noise), calls_in(lowered)


@pytest.mark.parametrize("row", sorted(COMPILED))
def test_random_bfloat16(row):
    """At the bound that the docstring of `apply_step` states."""
    errors, found = errors_in_bfloat16(row)
    for name in ("bfloat16", "float32"):
        bound = 2**-6 if row in WITH_L2 and name == "bfloat16" else 2**-7
        assert max(np.max(x) for x in of_leaf(name, errors)) <= bound
    # What is decayed and what is not are two calls.
    assert found == (1 + (row in WITH_L2)) * fused_step_available()


@needs_library
def test_l2_in_bfloat16_is_compiled_where_it_is_rounded_alike():
    """g + λ x of bfloat16 g and float32 x or λ is float32 in the pure path."""
    number, array = (
        optjax.adabound(0.05, weight_decay=decay) for decay in (0.1, jnp.float32(0.1))
    )
    low = cast(START, BF16)
    assert calls(number, low, low) == calls(number, low, START) == 1
    assert calls(array, low, START) == calls(array, START, START) == 1
    assert calls(number, START, low) == calls(array, low, low) == 0


SCHEDULED = {
    "learning rate": lambda: optjax.adam(SCHEDULE),
    "relative learning rate": lambda: optjax.adabound(SCHEDULE, gamma=0.5),
    "decay": lambda: optjax.adamw(0.05, weight_decay=SCHEDULE),
    "both": lambda: optjax.adaboundw(SCHEDULE, weight_decay=SCHEDULE),
    "both, fixed": lambda: optjax.adaboundw(
        SCHEDULE, weight_decay=SCHEDULE, fixed_decay=True
    ),
    "L2": lambda: optjax.amsbound(SCHEDULE, weight_decay=SCHEDULE),
}
MASKED = {
    "decay": lambda mask: optjax.adamw(0.05, weight_decay=0.3, mask=mask),
    "scheduled decay": lambda mask: optjax.nadamw(
        0.05, weight_decay=SCHEDULE, mask=mask
    ),
    "fixed decay": lambda mask: optjax.adaboundw(
        0.05, weight_decay=SCHEDULE, mask=mask, fixed_decay=True
    ),
    "L2": lambda mask: optjax.adabound(0.05, weight_decay=0.3, mask=mask),
    "optimizer": lambda mask: optax.masked(optjax.adam(0.05), mask),
}


@pytest.mark.parametrize("name", SCHEDULED)
def test_schedules(name):
    assert_both(SCHEDULED[name](), 1, ONE_LEAF)


@pytest.mark.parametrize("name", MASKED)
def test_masks(name):
    """Leaves that are treated alike share a call; by a function it is the same."""
    tx, by_function = (MASKED[name](mask) for mask in (BY_LEAF, lambda _: BY_LEAF))
    # The masked leaf of `optax.masked` has its gradient added.
    assert_both(tx, 1 if name == "optimizer" else 2)
    programs = [
        str(jax.make_jaxpr(functools.partial(apply_step, each))(START, state, START))
        for each in (tx, by_function)
        for state in [each.init(START)]
    ]
    assert programs[0] == programs[1]


LABELS = {"matrix": "a", "vector": "b", "scalar": "c"}


def parts(a, b, c):
    return optax.partition({"a": a, "b": b, "c": c}, LABELS)


ADAM = optjax.adam(0.05, eps=1e-2)
WRAPPED = {
    "chain": (optax.chain(optax.clip_by_global_norm(0.5), ADAM), 1),
    "Optax's L2": (
        optax.chain(optax.add_decayed_weights(0.1), optjax.sgd(0.1, momentum=0.9)),
        1,
    ),
    "inject": (optjax.inject_hyperparams(optjax.adamw)(0.05, weight_decay=0.1), 1),
    "inject a schedule": (
        optax.inject_hyperparams(optjax.adabound)(0.05, gamma=0.5),
        1,
    ),
    "MultiSteps": (optax.MultiSteps(ADAM, 2).gradient_transformation(), 0),
    "apply_if_finite": (optax.apply_if_finite(ADAM, 2), 0),
    "flatten": (optax.flatten(ADAM), 0),
    "stochastic rounding": (stochastic_rounding(ADAM), 2),
    "scaled after": (optax.chain(ADAM, optax.scale(0.5)), 0),
    "frozen after": (optax.chain(ADAM, optax.set_to_zero()), 0),
    "momentum after": (optax.chain(ADAM, optax.trace(0.9)), 0),
    "another after": (optax.chain(ADAM, optjax.sgd(0.1)), 0),
    "schedule-free": (optax.contrib.schedule_free(ADAM, 0.05), 0),
    "Optax": (optax.adamw(0.05, eps=1e-2), 0),
    "nothing": (optax.identity(), 0),
}


PARTITIONED = {
    "bounded": (parts(ADAM, optjax.adabound(0.05), optjax.sgd(0.1)), 3),
    "frozen": (parts(ADAM, optax.set_to_zero(), ADAM), 2),
    "beside Optax": (parts(ADAM, optax.adam(0.05, eps=1e-2), ADAM), 2),
    "beside another": (parts(ADAM, optjax.yogi(0.05), ADAM), 2),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_inside_wrappers(name):
    assert_both(*WRAPPED[name], PAIR)


@pytest.mark.parametrize("name", PARTITIONED)
def test_inside_partition(name):
    assert_both(*PARTITIONED[name])


def test_around_monitor():
    """Which computes the rates that it looks at, and sees the same."""
    assert_both(optjax.monitor(optjax.adabound(0.05, gamma=0.5)), 1, PAIR)


def test_lookahead():
    """Whose parameters are not a tree like the gradients."""
    tx = optax.lookahead(ADAM, sync_period=2, slow_step_size=0.5)
    params = optax.LookaheadParams.init_synced(START)

    @jax.jit
    def both_ways(noise, before):
        return [
            step(tx, gradient(x.fast, noise), state, x)
            for step, (x, state) in zip(BOTH, before, strict=True)
        ]

    after = [(params, jax.jit(tx.init)(params))] * 2
    for noise in NOISE[:3]:
        after = both_ways(noise, after)
    assert_same(*after)
    assert calls(tx, params, START) == 0


def test_extra_arguments():
    for tx in (optax.polyak_sgd(1.0), ADAM):
        operands = START, tx.init(START), START
        steps, found = both_steps(tx, *operands, value=np.float32(2.0))
        assert_same(*steps)
    assert found == fused_step_available()


def form(rate, direction=None):
    return optjax.basic_form(
        direction=optjax.ema(0.8) if direction is None else direction,
        rate=rate,
        learning_rate=0.1,
    )


def root(*accumulator, **arguments):
    return optjax.rate_by_accumulated_square(
        optax.chain(*accumulator), eps=1e-2, **arguments
    )


EMA, DEBIAS = optjax.ema_of_squares(0.9), optjax.debias_squares(0.9)
RAW = optjax.ema_of_squares(0.9, debias=False)
CORRECT, BOUND = optjax.correct_bias(0.8, 0.9, 0.5), optjax.bound_clip(0.1, 0.3)
ONE, MAX = optjax.rate_by_one(), optjax.running_max()
FORMS = {
    "adagrad with momentum, bounded": (
        form(optax.chain(root(optjax.sum_of_squares(0.1)), BOUND), optjax.trace(0.9)),
        1,
    ),
    "averages not debiased, ahead": (
        form(root(RAW), optjax.ema(0.8, debias=False, nesterov=True)),
        1,
    ),
    "debiased apart": (form(root(RAW, DEBIAS)), 1),
    "debiased twice": (form(root(EMA, DEBIAS)), 1),
    "debiased, maximum, debiased": (form(root(EMA, MAX, DEBIAS)), 1),
    "corrected twice": (form(optax.chain(root(EMA), CORRECT, CORRECT)), 1),
    "constant rate, corrected": (form(optax.chain(ONE, CORRECT)), 1),
    "bounds cross": (
        form(
            optax.chain(root(EMA), optjax.bound_clip(lambda t: 0.3, lambda t: 0.1 / t))
        ),
        1,
    ),
    "scaled rate": (form(optax.chain(root(EMA), optax.scale(0.5))), 0),
    "scaled direction": (
        form(root(EMA), optax.chain(optjax.ema(0.8), optax.scale(0.5))),
        0,
    ),
    "scaled before the direction": (
        form(root(EMA), optax.chain(optax.scale(0.5), optjax.ema(0.8))),
        0,
    ),
    "scaled squares": (form(root(EMA, optax.scale(0.5))), 0),
    "scaled before the squares": (form(root(optax.scale(0.5), EMA)), 0),
    "average of averages": (
        form(root(EMA), optax.chain(optjax.ema(0.8), optjax.trace(0.5))),
        0,
    ),
    "another power": (form(root(EMA, power=0.25)), 0),
    "a power in an array": (form(root(EMA, power=jnp.array(0.5))), 0),
    "bounded before corrected": (form(optax.chain(root(EMA), BOUND, CORRECT)), 0),
    "bounded twice": (
        form(optax.chain(root(EMA), BOUND, optjax.bound_clip(0.2, 0.25))),
        0,
    ),
    "constant rate, bounded": (form(optax.chain(ONE, BOUND)), 0),
    "maximum first": (form(root(MAX, EMA)), 0),
    "two maxima": (form(root(EMA, MAX, MAX)), 0),
    "maximum of a sum": (form(root(optjax.sum_of_squares(0.1), MAX)), 1),
    "debiased, then averaged": (form(root(RAW, EMA)), 0),
    "not descending": (optjax.precondition(optjax.ema(0.8), root(EMA)), 0),
    "preconditioned twice": (
        optax.chain(optjax.scale_by_accumulated_square(EMA), ADAM),
        0,
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_forms_of_ones_own(name):
    """Compiled if every part is known and in its place, and right in any case."""
    assert_both(*FORMS[name], ONE_LEAF, steps=5)


def around(tx, updating):
    """An optimizer whose `update` is `updating(tx.update, g, state, params)`."""

    def update(g, state, params=None):
        return updating(tx.update, g, state, params)

    return optax.GradientTransformation(tx.init, update)


def twice(update, g, state, params):
    _, state = update(g, state, params)
    return update(g, state, params)


def keep_the_first(update, g, state, params):
    _, first = update(g, state, params)
    updates, _ = update(g, first, params)
    return updates, first


def halve_state(update, g, state, params):
    halved = jax.tree.map(lambda x: x // 2 if x.dtype == "int32" else x / 2, state)
    return update(g, halved, params)


def swap_leaves(update, g, state, params):
    updates, state = update(g, state, params)
    swapped = jax.tree.leaves(state)[::-1]
    return updates, jax.tree.unflatten(jax.tree.structure(state), swapped)


def forget(update, g, state, params):
    return update(g, state, params)[0], state


def decay_to_ones(update, g, state, params):
    return update(g, state, jax.tree.map(lambda x: x - 1, params))


def halve_matrices(update, g, state, params):
    updates, state = update(g, state, params)
    return [u if jnp.ndim(u) < 2 else u / 2 for u in updates], state


def zeros_to_ones(update, g, state, params):
    updates, _ = update(g, state, params)
    return [jnp.where(u == 0, 1.0, 0.0) for u in updates], state


ODD = {
    "weight decay to elsewhere": (decay_to_ones, 0),
    "by the number of dimensions": (halve_matrices, 1),
    "by comparison": (zeros_to_ones, 0),
    "twice": (twice, 0),
    "the second update of the first state": (keep_the_first, 0),
    "another state before": (halve_state, 1),
    "another order after": (swap_leaves, 1),
    "the state as it was": (forget, 1),
}


@pytest.mark.parametrize("name", ODD)
def test_optimizers_used_in_odd_ways(name):
    updating, expected = ODD[name]
    tx = around(optjax.adamw(0.05, eps=1e-2, weight_decay=0.3), updating)
    start = [jnp.array([[1.0, -2.0]]), jnp.array([0.0, 3.0])]
    steps, found = both_steps(tx, start, jax.jit(tx.init)(start), start)
    assert_same(*steps)
    assert found == expected * fused_step_available()


@pytest.mark.parametrize("shape", [(1,), (3,)])
def test_hyperparameters_with_dimensions(shape):
    """Are broadcast against the leaves, which the compiled step does not do."""
    rate = jnp.linspace(0.1, 0.2, shape[0])
    for tx in (optjax.adam(lambda _: rate), optjax.sgd(lambda _: rate)):
        operands = jnp.ones(3), tx.init(jnp.ones(3)), jnp.ones(3)
        steps, found = both_steps(tx, *operands)
        assert_same(*steps)
        assert found == 0


TREES = {
    "nothing": {},
    "None": None,
    "an array": jnp.ones(3),
    "a leaf of None": {"a": jnp.ones(3), "b": None},
    "a leaf without elements": {"a": jnp.ones((0, 3)), "b": jnp.ones(2)},
    "no elements": [jnp.ones((0, 3)), jnp.ones(0)],
    "Python numbers": {"a": 1.0, "b": (2.0,)},
    "weak types": {"a": jnp.asarray(1.0)},
    "NumPy": {"a": np.ones((2, 3), np.float32), "b": np.float32(2)},
    "NumPy float64": {"a": np.ones((2, 3))},
}


@pytest.mark.parametrize("name", TREES)
def test_trees(name):
    tree = TREES[name]
    txs = ADAM, optjax.sgd(0.1), optjax.amsbound(0.1)
    states = [tx.init(tree) for tx in txs]

    def all_by(step, tree, states):
        pairs = zip(txs, states, strict=True)
        return [step(tx, tree, state, tree) for tx, state in pairs]

    lowered = jax.jit(lambda *operands: [all_by(step, *operands) for step in BOTH])
    lowered = lowered.lower(tree, states)
    assert_same(*lowered.compile()(tree, states))
    has_leaves = bool(jax.tree.leaves(tree))
    assert calls_in(lowered) == len(txs) * has_leaves * fused_step_available()
    assert_same(*(step(ADAM, tree, states[0], tree) for step in BOTH))


def test_state_in_numpy():
    """As from a checkpoint."""
    operands = jax.tree.map(np.asarray, (START, ADAM.init(START), START))
    (actual, _), found = both_steps(ADAM, *operands)
    assert_same(actual, update_and_apply(ADAM, *operands))
    assert found == fused_step_available()


@pytest.mark.parametrize(
    "dtype", ["float16", "float64", "complex64", "complex128", "int32"]
)
def test_other_dtypes_take_the_pure_path(dtype):
    with jax.enable_x64(dtype in ("float64", "complex128")):
        tx = optjax.sgd(0.1) if dtype == "int32" else ADAM
        narrow = cast(PAIR, dtype)
        for x, expected in [(narrow, 0), ({**narrow, "scalar": START["scalar"]}, 1)]:
            steps, found = both_steps(tx, x, jax.jit(tx.init)(x), x)
            assert_same(*steps)
            assert found == expected * fused_step_available()


@pytest.mark.parametrize("dtype", ["float16", "float64", "int32"])
def test_gradients_in_other_dtypes_take_the_pure_path(dtype):
    with jax.enable_x64(dtype == "float64"):
        grads = cast(NOISE[0], dtype)
        for tx in (ADAM, optjax.sgd(0.1)):
            steps, found = both_steps(tx, grads, tx.init(START), START)
            assert_same(*steps)
            assert found == 0


def test_float32_under_x64():
    with jax.enable_x64(True):
        start = cast(START, jnp.float32)
        assert_both(optjax.adabound(0.05, gamma=0.5), 1, start, steps=5)


HALF = {
    "sgd": optjax.sgd,
    "adam": optjax.adam,
    "adamw": lambda rate: optjax.adamw(rate, weight_decay=0.3),
    "adamw, both": lambda rate: optjax.adamw(rate, weight_decay=rate),
    "adabound": lambda rate: optjax.adabound(rate, gamma=0.5),
    "adaboundw": lambda rate: optjax.adaboundw(rate, weight_decay=0.3),
    "a schedule": lambda rate: optjax.adamw(lambda _: rate, weight_decay=0.3),
}


@pytest.mark.parametrize("name", HALF)
@pytest.mark.parametrize("dtype", [BF16, jnp.float16], ids=["bfloat16", "float16"])
def test_a_learning_rate_in_half_precision(name, dtype):
    """α λ is worked out in float32, as of the float32 array of the same value."""
    rate = dtype(0.013)
    tx, wide = HALF[name](rate), HALF[name](rate.astype(jnp.float32))

    def paths():
        return [
            *run(tx, ONE_LEAF, steps=3),
            *run(wide, ONE_LEAF, steps=3, by=[update_and_apply]),
        ]

    lowered = jax.jit(paths).lower()
    actual, expected, widened = (x for x, _ in lowered.compile()())
    assert_same(actual, expected)
    assert_same(expected, widened)
    assert calls_in(lowered) == fused_step_available()


ALL_COMPILED = {row: optjax.OPTIMIZERS[row].factory(0.1) for row in COMPILED}


@jax.jit
def step_of_all(grads, states, x):
    """Of all that are compiled, either way."""
    return [
        {row: step(tx, grads, states[row], x) for row, tx in ALL_COMPILED.items()}
        for step in BOTH
    ]


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, 1e30, 1e-30])
def test_extreme_gradients(value):
    x = jnp.array([1.0, -2.0])
    states = {row: tx.init(x) for row, tx in ALL_COMPILED.items()}
    assert_same(*step_of_all(jnp.array([value, 1.0]), states, x))


MISTAKES = {
    "a leaf less": (lambda g: {"matrix": g["matrix"]}),
    "a leaf more": (lambda g: {**g, "more": g["matrix"]}),
    "another shape": (lambda g: {**g, "vector": g["vector"][:1]}),
    "a list": (lambda g: list(g.values())),
    "None for a leaf": (lambda g: {**g, "vector": None}),
    "a tree for a leaf": (lambda g: {**g, "vector": [g["vector"]]}),
}


def outcome(step, tx, *operands):
    """What it returns, or the error that it raises."""
    try:
        return step(tx, *operands)
    except Exception as error:
        return type(error), str(error)


@pytest.mark.parametrize("name", MISTAKES)
@pytest.mark.parametrize("tx", [ADAM, optjax.sgd(0.1)], ids=["adam", "sgd"])
def test_mistakes_raise_what_update_raises(tx, name):
    operands = MISTAKES[name](START), tx.init(START), START
    expected = outcome(update_and_apply, tx, *operands)
    assert issubclass(expected[0], Exception)
    assert outcome(apply_step, tx, *operands) == expected
    assert outcome(jitted_apply, tx, *operands) == expected


@pytest.mark.parametrize("step", [apply_step, jitted_apply], ids=["eager", "jitted"])
@pytest.mark.parametrize(
    "tx",
    [
        optjax.sgd(0.1),
        optjax.sgd(0.1, momentum=0.9),
        optax.chain(optax.clip(1.0), optjax.sgd(0.1)),
    ],
    ids=["sgd", "momentum", "chain"],
)
def test_gradients_that_would_broadcast_are_refused(tx, step):
    x = jnp.ones(3)
    grads = jnp.ones((2, 3))
    state = tx.init(x)
    for refuses in (step, lambda tx, *operands: tx.update(*operands)):
        with pytest.raises(ValueError, match=r"\(2, 3\).*\(3,\)"):
            refuses(tx, grads, state, x)


def test_a_state_of_another_optimizer():
    operands = START, optjax.sgd(0.1).init(START), START
    expected = outcome(update_and_apply, ADAM, *operands)
    assert issubclass(expected[0], Exception)
    assert outcome(apply_step, ADAM, *operands) == expected
    assert outcome(jitted_apply, ADAM, *operands) == expected


def test_turned_off(monkeypatch):
    monkeypatch.setenv("OPTJAX_FUSED", "0")
    assert_both(ADAM, 0, steps=3)


def test_without_a_library(monkeypatch):
    monkeypatch.setattr("optjax.fused._library._LIBRARY", Path("nowhere", "libstep.so"))
    assert_both(ADAM, 0, steps=3)


def test_set_hyperparameters_without_compiling_again():
    tx = optjax.inject_hyperparams(optjax.adabound)(0.05, gamma=0.5)
    traces = []

    @jax.jit
    def step(params, state):
        traces.append(1)
        return apply_step(tx, START, state, params)

    carry = expected = START, tx.init(START)
    for rate in [0.05, 0.2, 0.01]:
        params, state = carry
        carry = step(params, optjax.set_hyperparameters(state, learning_rate=rate))
        params, state = expected
        state = optjax.set_hyperparameters(state, learning_rate=rate)
        expected = update_and_apply(tx, START, state, params)
        assert_same(carry, expected)
    assert len(traces) == 1


def test_eagerly():
    """Where the call is `update` and `apply_updates`."""
    carry = expected = START, ADAM.init(START)
    for noise in NOISE[:3]:
        carry = apply_step(ADAM, gradient(carry[0], noise), *carry[::-1])
        expected = update_and_apply(ADAM, gradient(expected[0], noise), *expected[::-1])
    assert_same(carry, expected, rtol=0)


def bounded(values):
    return optjax.adaboundw(
        values["learning_rate"],
        b1=values["b1"],
        b2=values["b2"],
        eps=values["eps"],
        final_lr=values["final_lr"],
        gamma=values["gamma"],
        weight_decay=values["weight_decay"],
    )


TRIALS = {
    "learning_rate": jnp.array([0.05, 0.1, 0.3]),
    "b1": jnp.array([0.9, 0.8, 0.0]),
    "b2": jnp.array([0.9, 0.99, 0.5]),
    "eps": jnp.array([1e-2, 1e-3, 0.1]),
    "final_lr": jnp.array([0.1, 0.2, 0.05]),
    "gamma": jnp.array([0.5, 0.1, 1.0]),
    "weight_decay": jnp.array([0.0, 0.1, 0.3]),
}


@pytest.mark.parametrize("batched", [False, True], ids=["shared", "batched"])
def test_vmap_over_hyperparameters_and_trees(batched):
    """The paths of three trials."""
    start = PAIR
    if batched:
        start = stack({key: x[key] for key in PAIR} for x in (START, *NOISE[:2]))

    def trial(values, start):
        return run(bounded(values), start, steps=5)

    trials = jax.vmap(trial, in_axes=(0, 0 if batched else None))
    lowered = jax.jit(trials).lower(TRIALS, start)
    assert_same(*lowered.compile()(TRIALS, start))
    assert calls_in(lowered) == fused_step_available()


def final_loss(values, step, dtype=jnp.float32):
    ((params, _),) = run(bounded(values), cast(ONE_LEAF, dtype), steps=4, by=[step])
    leaves = jax.tree.leaves(cast(params, jnp.float32))
    return sum(jnp.sum(jnp.square(x[-1])) for x in leaves)


VALUES = {key: value[1] for key, value in TRIALS.items()}


@pytest.fixture(scope="module")
def derivatives_in_float64():
    with jax.enable_x64(True):
        wide = {key: np.float64(value) for key, value in VALUES.items()}
        derive = jax.jacfwd(lambda x: final_loss(x, update_and_apply, jnp.float64))
        return {key: np.float64(x) for key, x in jax.jit(derive)(wide).items()}


@pytest.mark.parametrize("mode", [jax.grad, jax.jacfwd], ids=["reverse", "forward"])
def test_derivatives_with_respect_to_hyperparameters(mode, derivatives_in_float64):
    assert all(abs(x) > 1e-6 for x in derivatives_in_float64.values())
    derive = jax.jit(lambda values: [mode(final_loss)(values, step) for step in BOTH])
    # That of b2 is a difference of large terms: float32 leaves either way five digits.
    for derivatives in derive(VALUES):
        assert_same(derivatives, derivatives_in_float64, rtol=3e-5)


@pytest.mark.parametrize("row", sorted(COMPILED))
def test_derivative_of_a_step(row):
    """With respect to gradients, state and parameters, some gradients zero."""
    tx = optjax.OPTIMIZERS[row].factory(0.1)
    params = jnp.array([1.0, -2.0, 0.5])
    grads = jnp.array([0.5, -1.0, 0.0])

    def loss(step, grads, state, params):
        result = step(tx, grads, state, params)
        floats = [x for x in jax.tree.leaves(result) if x.dtype == jnp.float32]
        return sum(jnp.sum(jnp.sin(x)) for x in floats)

    @jax.jit
    def derivatives(grads, params):
        _, state = update_and_apply(tx, grads, tx.init(params), params)
        derive = jax.grad(loss, argnums=(1, 2, 3), allow_int=True)
        return [derive(step, grads, state, params) for step in BOTH]

    actual, expected = (
        [x for x in jax.tree.leaves(tree) if x.dtype == jnp.float32]
        for tree in derivatives(grads, params)
    )
    assert_same(actual, expected, rtol=1e-5)


@pytest.mark.parametrize("step", [apply_step, update_and_apply])
def test_derivative_beside_next_to_nothing_under_the_root(step):
    """−α g / √(g² + ε̄) has the slope −α / √ε̄ at 0, and next to none elsewhere."""
    tx = optjax.adam(0.1, eps=0.0, eps_root=1e-27)
    x, g = jnp.zeros(2), jnp.array([0.5, 0.0])
    slope = jax.jit(jax.jacrev(lambda g: step(tx, g, tx.init(x), x)[0]))(g)
    expected = np.diag([0.0, -0.1 / np.sqrt(1e-27)])
    np.testing.assert_allclose(slope, expected, rtol=1e-5, atol=1e-6)


@needs_library
def test_many_leaves_go_in_few_calls():
    params = [jnp.ones(2)] * 70
    assert calls(ADAM, params) == 3
