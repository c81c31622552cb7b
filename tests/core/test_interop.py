"""Every row behaves as any Optax transformation does, inside whatever wraps it.

What a wrapper should do is done by hand around the plain optimizer or its rule, step by
step without jit, and compared with the wrapper, most often in one compiled scan.
"""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiling import jit
from loop import (
    NOISE,
    START,
    STEPS,
    assert_same_path,
    differ,
    gradient,
    last,
    scan,
    stack,
    walk,
)
from optax import contrib
from rows import CASES, each_case, each_row

import optjax

pytestmark = pytest.mark.usefixtures("cheaply_compiled")


MOMENTUM = ["sgd", "momentum", "nesterov"]
BY_LEAF = {"matrix": True, "scalar": False}


def without(tree, *keys):
    return {key: value for key, value in tree.items() if key not in keys}


# Where no leaf is treated apart two suffice: each is a program's operations once more.
FEW, FEW_NOISE = without(START, "vector"), [without(n, "vector") for n in NOISE]


def compiled(tx, start=FEW, noise=FEW_NOISE, **others):
    return jit(lambda: scan(tx, start, noise, **others))()


def test_no_two_cases_have_the_same_name():
    assert len({str(case) for case in CASES}) == len(CASES)


@pytest.mark.parametrize("name", optjax.OPTIMIZERS)
def test_the_table_of_rows_has_every_hyperparameter(name):
    """So that no test below leaves one out."""
    signature = inspect.signature(optjax.OPTIMIZERS[name].factory).parameters
    cases = [case for case in CASES if case.row == name]
    covered = {key for case in cases for key in (*case.hyperparameters(), *case.flags)}
    # A row that is another row's factory with flags has its numbers there.
    covered |= {"momentum", "nesterov"} if name in MOMENTUM else set()
    # Without it they are Adam and AdamW, as test_same_names has it.
    covered |= {"nesterov"} if name in ("nadam", "nadamw") else set()
    not_numbers = {"mask", "weight_decay_mask"}
    not_numbers |= {"mu_dtype", "nu_dtype", "accumulator_dtype"}
    assert set(signature) - covered <= not_numbers


@each_case
def test_plain_update_needs_no_jit(case):
    """Each row alone is its rule; that `scan` needs no care is in test_inputs."""
    tx = case.interior()
    assert isinstance(tx, optax.GradientTransformationExtraArgs)
    path = walk(tx, FEW, FEW_NOISE)
    assert_same_path(path, case.path(FEW))
    assert differ(path, FEW)


@each_case
def test_update_of_arrays_from_the_host(case):
    """As of those on a device."""
    tx = case.interior()
    x, state = jax.device_get((FEW, tx.init(FEW)))
    for noise in jax.device_get(FEW_NOISE[:3]):
        updates, state = tx.update(gradient(x, noise), state, x)
        x, state = jax.device_get((optax.apply_updates(x, updates), state))
    assert_same_path(x, last(case.path(FEW, NOISE[:3])))


@each_case
def test_chain(case):
    """With clipping and L2 before it and a multiplier after it."""
    tx = case.interior()
    x, state, expected = FEW, tx.init(FEW), []
    for noise in FEW_NOISE:
        g = gradient(x, noise)
        norm = jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in g.values()))
        g = {key: g[key] / jnp.maximum(norm, 1.0) + 0.1 * x[key] for key in g}
        updates, state = tx.update(g, state, x)
        x = {key: x[key] + 0.5 * updates[key] for key in x}
        expected.append(x)
    chained = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.add_decayed_weights(0.1),
        tx,
        optax.scale(0.5),
    )
    assert_same_path(compiled(chained), stack(expected))


@pytest.mark.parametrize("mask", [BY_LEAF, lambda _: BY_LEAF], ids=["tree", "function"])
@each_row
def test_masked(case, mask):
    """The masked leaf gets its gradient back, the rest is as if it were alone."""
    path = walk(optax.masked(case.interior(), mask), FEW, FEW_NOISE)
    assert_same_path({"matrix": path.pop("matrix")}, case.path(without(FEW, "scalar")))
    ascends = walk(optax.identity(), FEW, FEW_NOISE)
    assert_same_path(path, without(ascends, "matrix"))


@each_row
def test_partition(case):
    """Two optimizers on two parts of a tree do not see each other."""
    labels = {"matrix": "row", "vector": "sgd", "scalar": "row"}
    parts = {"row": case.interior(), "sgd": optax.sgd(0.1)}
    path = compiled(optax.partition(parts, labels), START, NOISE)
    assert_same_path(without(path, "vector"), case.path(without(START, "vector")))
    assert_same_path(path["vector"], walk(optax.sgd(0.1))["vector"])


def inject(case, **options):
    factory = optjax.OPTIMIZERS[case.row].factory
    # What shapes the state is no number.
    shaping = {"keep_num", "groups"} & set(inspect.signature(factory).parameters)
    if shaping:
        options["static_args"] = tuple(shaping)
    return functools.partial(optax.inject_hyperparams(factory, **options), **case.flags)


@each_case
def test_inject_hyperparams(case):
    """An edited state is another hyper-parameter, without another compilation."""
    values = case.hyperparameters()
    tx = inject(case)(**values)
    state = tx.init(FEW)
    traces = []

    @jit
    def run(state):
        traces.append(1)
        return scan(tx, FEW, FEW_NOISE, state=state)

    plain = run(state)
    assert_same_path(plain, case.path(FEW))
    # What the accumulator starts from is used up by `init`.
    for key in without(values, "initial_accumulator_value", "initial_scale"):
        changed = 0.8 * values[key]
        hyperparams = {**state.hyperparams, key: jnp.asarray(changed, jnp.float32)}
        path = run(state._replace(hyperparams=hyperparams))
        as_made = {**values, key: changed}
        if (
            "base_lr"
            in inspect.signature(optjax.OPTIMIZERS[case.row].factory).parameters
        ):
            # The state was made with the rate as it was.
            as_made.setdefault("base_lr", values["learning_rate"])
        assert_same_path(path, case.path(FEW, **as_made))
        assert differ(path, plain, 1e-6) == case.has_effect(key), key
    assert len(traces) == 1


@each_row
def test_inject_hyperparams_with_bfloat16_parameters(case):
    tx = inject(case, hyperparam_dtype=jnp.float32)(case.learning_rate)
    start, noise = jax.tree.map(lambda x: x.astype(jnp.bfloat16), (FEW, FEW_NOISE[:3]))
    path, expected = walk(tx, start, noise), walk(case.default(), start, noise)
    assert_same_path(path, expected, rtol=2**-7)


def test_inject_hyperparams_in_bfloat16_is_refused():
    """b2 = 0.999 would be 1."""
    start = jax.tree.map(lambda x: x.astype(jnp.bfloat16), START)
    tx = optax.inject_hyperparams(optjax.adam)(1e-3)
    with pytest.raises(ValueError, match=r"b2 must .* got 1.*hyperparam_dtype"):
        tx.init(start)


def test_inject_hyperparams_with_schedules():
    def schedule(count):
        return 0.1 * 0.5 ** (count // 3)

    injected = optax.inject_hyperparams(optjax.adam)(
        schedule, b1=lambda count: 0.9 - 0.1 * count
    )
    x, state, expected = FEW, optjax.adam(0.1).init(FEW), []
    for count, noise in enumerate(FEW_NOISE):
        tx = optjax.adam(schedule(count), b1=0.9 - 0.1 * count)
        updates, state = tx.update(gradient(x, noise), state, x)
        x = optax.apply_updates(x, updates)
        expected.append(x)
    assert_same_path(compiled(injected), stack(expected))


@pytest.mark.parametrize("factory", [optjax.adamw, optjax.nadamw, optjax.adaboundw])
def test_inject_hyperparams_with_a_function_as_mask(factory):
    def mask(params):
        assert set(params) == set(FEW)
        return BY_LEAF

    inject = optax.inject_hyperparams(factory, static_args="mask")
    path = compiled(inject(0.05, weight_decay=0.5, mask=mask))
    expected = walk(factory(0.05, weight_decay=0.5, mask=BY_LEAF), FEW, FEW_NOISE)
    assert_same_path(path, expected)
    undecayed = walk(factory(0.05, weight_decay=0.0), FEW, FEW_NOISE)
    assert_same_path(path["scalar"], undecayed["scalar"])
    assert differ(path["matrix"], undecayed["matrix"])


@each_row
def test_multi_steps(case):
    """One step with the mean of two gradients, and none in between."""
    pairs = zip(FEW_NOISE[::2], FEW_NOISE[1::2], strict=True)
    means = [jax.tree.map(lambda a, b: (a + b) / 2, *pair) for pair in pairs]
    moved = {
        key: np.concatenate([[FEW[key]], np.repeat(path, 2, axis=0)])[:STEPS]
        for key, path in case.path(FEW, means).items()
    }
    path = compiled(optax.MultiSteps(case.interior(), 2).gradient_transformation())
    assert_same_path(path, moved)


@each_row
def test_apply_if_finite(case):
    """A gradient that is not finite is skipped and leaves no trace in the state."""
    infinite, nan = (
        {**FEW_NOISE[0], "scalar": jnp.float32(value)} for value in (jnp.inf, jnp.nan)
    )
    noise = [infinite, *FEW_NOISE[:4], nan, infinite, *FEW_NOISE[4:]]
    path = compiled(optax.apply_if_finite(case.interior(), 3), noise=noise)
    skipped = [0, 5, 6]
    kept = {key: np.delete(leaf, skipped, axis=0) for key, leaf in path.items()}
    assert_same_path(kept, case.path(FEW))
    for key, leaf in path.items():
        np.testing.assert_array_equal(leaf[0], FEW[key])
        np.testing.assert_array_equal(leaf[5:7], np.stack([leaf[4]] * 2))


@each_row
def test_lookahead(case):
    """Two steps forward, half the way back."""
    tx = case.interior()
    fast, slow, state, expected = FEW, FEW, tx.init(FEW), []
    for step, noise in enumerate(FEW_NOISE):
        updates, state = tx.update(gradient(fast, noise), state, fast)
        fast = optax.apply_updates(fast, updates)
        if step % 2 == 1:
            slow = jax.tree.map(lambda f, s: s + 0.5 * (f - s), fast, slow)
            fast = slow
        expected.append(optax.LookaheadParams(fast, slow))
    path = compiled(
        optax.lookahead(tx, sync_period=2, slow_step_size=0.5),
        optax.LookaheadParams.init_synced(FEW),
        gradient=lambda params, noise: gradient(params.fast, noise),
    )
    assert_same_path(path, stack(expected))


@each_row
def test_schedule_free(case):
    """With a constant learning rate: the mean of z, and gradients between it and z."""
    tx = case.interior()
    x = y = z = FEW
    state, expected = tx.init(FEW), []
    for t, noise in enumerate(FEW_NOISE, start=1):
        updates, state = tx.update(gradient(y, noise), state, y)
        z = optax.apply_updates(z, updates)
        x = jax.tree.map(lambda x, z, t=t: x + (z - x) / t, x, z)
        y = jax.tree.map(lambda x, z: 0.9 * x + 0.1 * z, x, z)
        expected.append(y)
    path = compiled(contrib.schedule_free(tx, case.learning_rate, b1=0.9))
    assert_same_path(path, stack(expected))
