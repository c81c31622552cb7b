"""A learning rate that changes scales step and bounds, wherever the change comes from.

The golden trajectories are PyPI `adabound`'s and `pytorch_optimizer`'s under PyTorch's
schedulers and rates set by hand; tests/parity/test_parity_golden.py follows them by
schedules.
"""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiling import jit
from golden import problem
from golden.cases import CASES
from golden.trajectories import INDICES, stored
from loop import NOISE, START
from reference.scan import assert_same_path
from rows import CASES as ROW_CASES

import optjax
from optjax._base_rate import BaseRateState

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

# One leaf is enough of a rate, and an operation compiles for each shape.
START, GRADIENT = ({"vector": tree["vector"]} for tree in (START, NOISE[0]))
RELATIVE = ["swats", "adabound", "amsbound", "adaboundw"]
each_relative = pytest.mark.parametrize("name", RELATIVE)
CHANGING = [c for c in CASES if "base_lr" in c.mapped]


def rates(case):
    return [case.schedule(count) for count in range(problem.STEPS)]


def by_traced_factory(case, numbers):
    """The optimizer made anew in each step with a rate that is traced."""
    return getattr(optjax, case.ours)(case.lr, **numbers).init, lambda state, lr: (
        getattr(optjax, case.ours)(lr, **numbers),
        state,
    )


def by_hand(inject):
    def way(case, numbers):
        tx = inject(getattr(optjax, case.ours))(case.lr, **numbers)
        return tx.init, lambda state, lr: (
            tx,
            optjax.set_hyperparameters(state, learning_rate=lr),
        )

    return way


def by_injected_schedule(inject):
    """The base is given: the schedule's first value may be another."""

    def way(case, numbers):
        tx = inject(getattr(optjax, case.ours))(
            learning_rate=case.schedule, base_lr=case.lr, **numbers
        )
        return tx.init, lambda state, lr: (tx, state)

    return way


def by_stateful_schedule(case, numbers):
    tx = optax.inject_stateful_hyperparams(getattr(optjax, case.ours))(
        learning_rate=optax.schedules.WrappedSchedule(case.schedule),
        base_lr=case.lr,
        **numbers,
    )
    return tx.init, lambda state, lr: (tx, state)


WAYS = {
    "traced": by_traced_factory,
    "hand": by_hand(optjax.inject_hyperparams),
    "hand, Optax's": by_hand(optax.inject_hyperparams),
    "schedule": by_injected_schedule(optjax.inject_hyperparams),
    "schedule, Optax's": by_injected_schedule(optax.inject_hyperparams),
}
if hasattr(optax, "inject_stateful_hyperparams") and hasattr(
    optax.schedules, "WrappedSchedule"
):
    WAYS["stateful"] = by_stateful_schedule


BY_NAME = {case.name: case for case in CHANGING}


@functools.cache
def paths(name):
    """Of a case every way, in one program of one leaf: none sees its neighbours."""
    case = BY_NAME[name]
    params, grads = problem.load(case.problem)
    numbers = {key: v for key, v in case.mapped.items() if key != "base_lr"}
    start = jnp.asarray(joined(params), jnp.float32)
    stacked = jnp.asarray(np.stack([joined(g) for g in grads]), jnp.float32)
    given = stacked, jnp.asarray(rates(case), jnp.float32)

    def moves(way):
        init, at = WAYS[way](case, numbers)

        def step(carry, given):
            x, state = carry
            g, lr = given
            tx, state = at(state, lr)
            updates, state = tx.update(g, state, x)
            return (optax.apply_updates(x, updates), state), updates

        return jax.lax.scan(step, (start, init(start)), given)[1]

    every = jit(lambda: {way: moves(way) for way in WAYS})()
    return {
        way: np.cumsum(np.asarray(u, np.float64), axis=0) for way, u in every.items()
    }


def joined(tree, axes=0):
    """All leaves in one, behind the axes that they share."""
    leaves = [leaf.reshape(*leaf.shape[:axes], -1) for leaf in tree.values()]
    return np.concatenate(leaves, axis=-1)


@pytest.mark.filterwarnings("ignore:inject_stateful_hyperparams:DeprecationWarning")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", BY_NAME)
def test_every_way_to_change_the_rate_is_the_authors(name, way):
    case = BY_NAME[name]
    expected = {"joined": joined(stored(case), 1)}
    assert_same_path({"joined": paths(name)[way]}, expected, case.rtol, INDICES)


def steps(tx, state, count, g=START):
    for _ in range(count):
        updates, state = tx.update(g, state, START)
    return updates, state


@each_relative
def test_a_tenth_of_the_rate_is_a_tenth_of_the_step(name):
    """Of AdaBound on its bounds, and of SWATS before its switch and after."""
    options = {"eps": 1.0} if name == "swats" else {"gamma": 1e9}
    if name == "adaboundw":
        options["weight_decay"] = 0.0
    for before in (1, 9):
        tx = optjax.inject_hyperparams(getattr(optjax, name))(0.1, b1=0.0, **options)
        state = steps(tx, tx.init(START), before)[1]
        same, _ = steps(tx, state, 1)
        less, _ = steps(tx, optjax.set_hyperparameters(state, learning_rate=0.01), 1)
        for key in START:
            np.testing.assert_allclose(less[key], 0.1 * same[key], rtol=1e-5)


@each_relative
def test_a_traced_rate_of_zero_stands_still_until_there_is_one(name):
    factory = getattr(optjax, name)

    @jit
    def walk(rates):
        state, path = factory(rates[0]).init(START), []
        for lr in rates:
            updates, state = factory(lr).update(START, state, START)
            path.append(updates)
        return path, state.base_lr

    path, base = walk(jnp.array([0.0, 0.0, 0.1, 0.05]))
    assert base == np.float32(0.1)
    for updates in path[:2]:
        assert not any(leaf.any() for leaf in jax.tree.leaves(updates))
    for leaf in jax.tree.leaves(path[2:]):
        assert np.isfinite(leaf).all()
        assert leaf.all()
    with pytest.raises(ValueError, match=r"learning_rate must be positive.*base_lr="):
        factory(jnp.float32(0.0)).init(START)


@each_relative
def test_a_schedule_that_rises_needs_its_peak(name):
    factory = getattr(optjax, name)
    rising = optax.warmup_cosine_decay_schedule(1e-5, 1e-3, 30, 300)
    for make in (factory, optjax.inject_hyperparams(factory)):
        with pytest.raises(
            ValueError, match=r"got 1.00001e-05.* step 30.*base_lr=0\.001, "
        ):
            make(rising)
        make(rising, base_lr=1e-3)
        make(optax.cosine_decay_schedule(1e-3, 100))


def test_the_peak_is_found_far_away_and_without_effects():
    late = optax.linear_schedule(1e-4, 5e-4, 1_234_567)
    with pytest.raises(ValueError, match=r"0\.0005 at step"):
        optjax.adabound(late)
    triangle = lambda k: 1e-3 - 1e-9 * abs(k - 51_234)  # noqa: E731
    with pytest.raises(ValueError, match=r"base_lr=0\.001, the peak"):
        optjax.adabound(triangle)
    with pytest.raises(ValueError, match=r"got 1e-05, and 0\.001 at step"):
        optjax.adabound(lambda k: 1e-5 if k < 100 else 1e-3)
    calls = []

    def counted(count):
        calls.append(count)
        return 0.1

    optjax.adabound(counted)
    assert len(calls) == 1
    seen = []

    def told(count):
        jax.debug.callback(seen.append, count)
        return 0.1 * 0.5**count

    optjax.adabound(told)
    jax.effects_barrier()
    assert len(seen) == 1
    with pytest.raises(IndexError):
        optjax.adabound(lambda count: [][int(count)])


def test_the_base_is_read_and_set():
    tx = optjax.inject_hyperparams(optjax.adabound)(1e-3, gamma=1e9)
    state = tx.init(START)
    assert optjax.hyperparameters(state)["base_lr"] == 1e-3
    both = optjax.set_hyperparameters(state, learning_rate=1e-4, base_lr=1e-4)
    assert jax.tree.structure(both) == jax.tree.structure(state)
    for a, b in zip(*(steps(tx, s, 1)[0].values() for s in (state, both)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    given = optjax.inject_hyperparams(optjax.adabound)(1e-3, base_lr=2e-3)
    state = optjax.set_hyperparameters(given.init(START), base_lr=4e-3)
    _, state = given.update(START, state, START)
    assert state.inner_state.base_lr == np.float32(4e-3)


def test_the_monitor_shows_the_rates_as_they_are_set():
    tx = optjax.monitor(
        optjax.inject_hyperparams(optjax.adabound)(1e-3, gamma=1e6), every=1
    )
    _, state = steps(tx, tx.init(START), 1)
    state = optjax.set_hyperparameters(state, learning_rate=1e-4)
    report = optjax.read_report(steps(tx, state, 1)[1])["overall"]
    found = report.schedule, report.sgd_rate, report.lower, report.upper
    np.testing.assert_allclose(found, [0.1, 0.01, 0.01, 0.01], rtol=1e-5)


@pytest.mark.parametrize("name", RELATIVE[1:])
def test_sgd_takes_the_base_from_the_state(name):
    """Also where the optimizer that it is made from was made with another rate."""
    numbers = {"gamma": 1e9, "weight_decay": 0.05}
    factory = getattr(optjax, name)
    _, state = steps(factory(1e-2, **numbers), factory(1e-2, **numbers).init(START), 3)
    later = factory(1e-3, **numbers)
    sgd = optjax.sgd_equivalent(later)
    handed = sgd.hand_over(state, START)
    for key, leaf in steps(later, state, 1)[0].items():
        actual = steps(sgd.optimizer, handed, 1)[0][key]
        np.testing.assert_allclose(actual, leaf, rtol=1e-5)


@each_relative
def test_state_is_one_tree_that_can_be_donated(name):
    injected = optjax.inject_hyperparams(getattr(optjax, name))(0.1, base_lr=0.2)
    for tx in (injected, getattr(optjax, name)(jnp.float32(0.1))):
        state, update = tx.init(START), jit(tx.update, donate_argnums=1)
        for _ in range(3):
            _, state = update(START, state, START)
        shapes = jax.eval_shape(tx.init, START)
        assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, state)
        assert jax.tree.structure(shapes) == jax.tree.structure(state)
    lanes = jax.vmap(lambda lr: getattr(optjax, name)(lr).init(START))(
        jnp.array([0.1, 0.2])
    )
    assert isinstance(lanes, BaseRateState)
    np.testing.assert_allclose(lanes.base_lr, [0.1, 0.2])


NUMBERS = sorted(
    {
        (case.row, name)
        for case in ROW_CASES
        for name in case.hyperparameters()
        if name in inspect.signature(optjax.OPTIMIZERS[case.row].factory).parameters
    }
)


@pytest.mark.parametrize(("row", "name"), NUMBERS)
def test_no_value_of_a_number_changes_the_tree(row, name):
    factory = optjax.OPTIMIZERS[row].factory

    def tree(value):
        return jax.tree.structure(
            factory(**{"learning_rate": 0.1, name: value}).init(START)
        )

    found = [jax.tree.structure(factory(0.1).init(START))]
    default = inspect.signature(factory).parameters[name].default
    found = found if default is not None else []
    for value in (0.0, 0, 1e-4, 0.25, 5.0):
        try:
            found.append(tree(value))
        except ValueError:
            assert value not in (1e-4, 0.25) or name in ("threshold",)
    seen = []
    jax.eval_shape(lambda value: seen.append(tree(value)), 0.0)
    assert len({*found, *seen}) == 1


@pytest.mark.parametrize("row", ["adadelta", "graftbound", *RELATIVE[1:]])
def test_a_known_decay_of_zero_needs_no_parameters(row):
    factory = optjax.OPTIMIZERS[row].factory
    tx = factory(0.1, weight_decay=0.0)
    updates, state = tx.update(GRADIENT, tx.init(START))
    traced = jit(
        lambda decay: factory(0.1, weight_decay=decay).update(
            GRADIENT, factory(0.1, weight_decay=decay).init(START), START
        )
    )(0.0)
    assert jax.tree.structure(traced[1]) == jax.tree.structure(state)
    for key, leaf in updates.items():
        np.testing.assert_allclose(leaf, traced[0][key], rtol=1e-6)


@pytest.mark.parametrize("b1", [1.0, 1.1, -0.1])
def test_adashift_forgets(b1):
    for factory in (optjax.adashift, optjax.scale_by_adashift):
        with pytest.raises(ValueError, match=r"b1 must be in \[0, 1\)"):
            factory(
                b1=b1, **({"learning_rate": 0.1} if factory is optjax.adashift else {})
            )
