"""A monitor is of no effect on the optimizer, and of little on its program."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from loop import NOISE, START, gradient
from rows import each_row

import optjax
from optjax._groups import OVERALL
from optjax.monitoring._summary import Tables


@each_row
def test_updates_and_state_are_those_without_bit_for_bit(case):
    assert_no_effect(case.interior, {"matrix": START["matrix"]}, groups=0)


def test_nor_of_groups_of_several_leaves():
    assert_no_effect(lambda: optjax.adabound(0.05, gamma=0.5), START, groups=1)


def assert_no_effect(make, x, groups):
    """For the update alone: what XLA fuses with it may round otherwise."""
    plain, monitored = make(), optjax.monitor(make(), every=7, groups=groups)
    state, monitored_state = plain.init(x), monitored.init(x)
    update, monitored_update = jax.jit(plain.update), jax.jit(monitored.update)
    apply = jax.jit(optax.apply_updates)
    steps = []
    for n in [*NOISE, *NOISE, *NOISE, *NOISE[:6]]:
        g = gradient(x, {key: n[key] for key in x})
        updates, state = update(g, state, x)
        ours, monitored_state = monitored_update(g, monitored_state, x)
        chex.assert_trees_all_equal(
            (ours, monitored_state.inner_state), (updates, state), strict=True
        )
        x = apply(x, updates)
        steps.append(int(monitored_state.summaries.tables.words[0, 0]))
    assert len(steps) == 30
    assert sorted(set(steps)) == [1, 7, 14, 21, 28]
    report = optjax.read_report(monitored_state)
    assert np.isfinite(report[OVERALL].update_ratio)


def compiled(tx, size=4096, leaves=1):
    params = {f"w{i}": jnp.ones(size) for i in range(leaves)}

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    return jax.jit(step, donate_argnums=(0, 1)).lower(params, state, params).compile()


def test_off_costs_nothing():
    bare = compiled(optjax.adabound(1e-3)).cost_analysis()
    off = compiled(optjax.monitor(optjax.adabound(1e-3), every=0)).cost_analysis()
    on = compiled(optjax.monitor(optjax.adabound(1e-3), every=100)).cost_analysis()
    assert off["flops"] == bare["flops"]
    # The pointers to the arrays of the state, which go in and out untouched.
    untouched = len(Tables._fields) + len(["count", "groups"])
    assert off["bytes accessed"] - bare["bytes accessed"] <= 8 * untouched
    assert on["flops"] > bare["flops"] + 1000


def even_and_odd(params):
    return {name: "odd" if int(name[1:]) % 2 else "even" for name in params}


@pytest.mark.parametrize(
    "bare",
    [
        optjax.adabound(1e-3),
        optax.partition(
            {"even": optjax.sgd(0.1, 0.9), "odd": optjax.adam(0.1)}, even_and_odd
        ),
    ],
    ids=["one", "two"],
)
def test_small_leaves_are_summarised_by_the_same_kernels(bare):
    """All that one optimizer has, however many they are."""

    def kernels(leaves):
        monitored = optjax.monitor(bare, groups=0)
        counts = [
            compiled(tx, size=8, leaves=leaves).as_text().count(" fusion(")
            for tx in (monitored, bare)
        ]
        return counts[0] - counts[1]

    # Each takes as long to compile as a third of what a leaf's own do.
    assert kernels(8) == kernels(4)
    assert 4 < kernels(4) <= 10


def test_small_leaves_are_joined_whatever_the_order_of_their_names():
    """Numbers are sorted as such in a tree, and as text among names."""
    params = [jnp.ones(8)] * 12
    tx = optjax.monitor(optjax.adabound(1e-3), groups=0)
    program = jax.jit(tx.update).lower(params, tx.init(params), params)
    assert not [
        line
        for line in program.compile().as_text().splitlines()
        if "f32[8]{0} fusion(" in line and "slice" in line
    ]


@pytest.mark.parametrize("name", ["adabound", "adam", "momentum"])
def test_no_buffer_of_the_size_of_the_parameters_is_copied(name):
    tx = optjax.monitor(optjax.OPTIMIZERS[name].factory(0.1))
    text = compiled(tx, size=123_456, leaves=2).as_text()
    assert "while(" in text
    copies = [
        line
        for line in text.splitlines()
        if " copy(" in line and "123456" in line.split("copy(")[0]
    ]
    assert not copies


@pytest.mark.parametrize("audit", [False, True])
def test_a_summary_writes_down_no_leaf(audit):
    """Neither to add up its squares nor to look at some coordinates."""
    size, bare = 123_456, optjax.adabound(1e-3)
    monitored, alone = (
        compiled(tx, size=size, leaves=2).memory_analysis().temp_size_in_bytes
        for tx in (optjax.monitor(bare, audit=audit), bare)
    )
    assert monitored - alone < size
