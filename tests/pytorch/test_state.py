"""A torch run stopped half way and finished in JAX, and the way back."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from golden import continuation
from golden.continuation import END, MODELS, RUNS, STOP

import optjax
from optjax.pytorch import (
    SGD,
    AdaBound,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    NAdam,
    RAdam,
    RMSprop,
    StepLR,
    flatten_state_dict,
    load_optimizer,
    save_optimizer,
)
from optjax.pytorch._rearrangement import Rearrangement

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

# What PyTorch has in its groups beside the options, at its defaults.
MACHINERY = {"foreach", "fused", "capturable", "differentiable"} | {
    "decoupled_weight_decay"
}


def convert_of(name):
    return MODELS[RUNS[name][0]].convert


def steps_of(name):
    """What has to be said of SGD alone."""
    return {"step": STOP} if RUNS[name][1].optimizer == "SGD" else {}


@functools.cache
def loaded(name):
    weights, state_dict = continuation.committed(name, STOP)
    convert, tx = convert_of(name), continuation.our_optimizer(name)
    state = load_optimizer(state_dict, weights, convert, tx, **steps_of(name))
    return weights, state_dict, state


@functools.cache
def finished(name):
    weights, _, state = loaded(name)
    start = convert_of(name)(weights)
    return continuation.our_run(name, start, state, END - STOP)


def assert_close(ours, theirs, atol=1e-5):
    paths = jax.tree_util.tree_leaves_with_path(theirs)
    for (path, want), got in zip(paths, jax.tree.leaves(ours), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=atol, err_msg=str(path))


def assert_same_bits(ours, theirs):
    assert sorted(ours) == sorted(theirs)
    for key, want in theirs.items():
        assert np.asarray(ours[key]).dtype == want.dtype, key
        np.testing.assert_array_equal(ours[key], want, err_msg=key)


@pytest.mark.parametrize("name", RUNS)
def test_finished_in_jax_it_is_where_pytorch_is(name):
    weights, _ = continuation.committed(name, END)
    assert_close(finished(name)[0], convert_of(name)(weights))


@pytest.mark.parametrize("name", RUNS)
def test_from_pytorch_and_back_to_the_bit(name):
    weights, state_dict, state = loaded(name)
    tx = continuation.our_optimizer(name)
    saved = save_optimizer(state, weights, convert_of(name), tx)
    saved, theirs = flatten_state_dict(saved), dict(state_dict)
    ours, groups = (
        json.loads(of.pop("param_groups").tobytes()) for of in (saved, theirs)
    )
    assert_same_bits(saved, theirs)
    for our, their in zip(ours, groups, strict=True):
        assert our.keys() <= their.keys()
        assert their.keys() - our.keys() <= MACHINERY
        for key, value in our.items():
            assert value == pytest.approx(their[key], rel=1e-12), key


@pytest.mark.parametrize("name", RUNS)
def test_from_jax_and_back_to_the_bit(name):
    weights, _, _ = loaded(name)
    _, state = finished(name)
    tx, convert = continuation.our_optimizer(name), convert_of(name)
    saved = save_optimizer(state, weights, convert, tx)
    steps = {"step": END} if steps_of(name) else {}
    # By the groups that the state_dict says, one mapping each.
    if RUNS[name][1].groups:
        names = MODELS[RUNS[name][0]].groups[0]
        weights = [{key: weights[key] for key in group} for group in names]
    again = load_optimizer(saved, weights, convert, **steps)
    jax.tree.map(np.testing.assert_array_equal, again, state)
    assert jax.tree.structure(again) == jax.tree.structure(state)


@pytest.mark.parametrize("name", ["dampening", "amsgrad", "adamw", "amsbound", "conv"])
def test_back_in_pytorch_it_goes_on(name):
    """Fifty steps in JAX, the rest in PyTorch again."""
    torch = pytest.importorskip("torch")
    weights, _, state = loaded(name)
    convert, tx = convert_of(name), continuation.our_optimizer(name)
    params, state = continuation.our_run(name, convert(weights), state, STOP)
    run = continuation.start(name)
    saved = save_optimizer(state, run.weights(), convert, tx)
    moved = Rearrangement(convert, weights)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    back = moved.to_torch({path: np.asarray(leaf) for path, leaf in leaves})
    with torch.no_grad():
        for key, weight in run.weights().items():
            weight.copy_(torch.tensor(back[key]))
    run.optimizer.load_state_dict(saved)
    if run.scheduler is not None:
        run.scheduler.last_epoch = 2 * STOP
    run.go(END - 2 * STOP)
    final, _ = continuation.committed(name, END)
    assert_close({k: v.detach() for k, v in run.weights().items()}, final)


def test_tensors_are_read_and_given():
    torch = pytest.importorskip("torch")
    run = continuation.start("amsgrad")
    run.go(3)
    convert, tx = convert_of("amsgrad"), continuation.our_optimizer("amsgrad")
    state = load_optimizer(run.optimizer.state_dict(), run.weights(), convert, tx)
    saved = save_optimizer(state, run.weights(), convert, tx)
    for number, entry in run.optimizer.state_dict()["state"].items():
        for key, value in entry.items():
            assert torch.equal(saved["state"][number][key], value), key


# On one small weight, in NumPy alone.

WEIGHTS = {
    "dense.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "dense.bias": np.ones(2, np.float32),
}


def convert(weights):
    return {
        "kernel": jnp.asarray(weights["dense.weight"].T),
        "bias": jnp.asarray(weights["dense.bias"]),
    }


def trained(tx, params=None, steps=5):
    params = convert(WEIGHTS) if params is None else params
    state = tx.init(params)
    for k in range(steps):
        grads = jax.tree.map(lambda p, k=k: jnp.cos(p + k), params)
        state = tx.update(grads, state, params)[1]
    return state


def saved_by(tx, **other):
    return save_optimizer(trained(tx), WEIGHTS, convert, tx, **other)


ROWS = {
    "sgd": (optjax.sgd(0.1, momentum=0.9), SGD(lr=0.1, momentum=0.9)),
    "adagrad": (
        optjax.adagrad(
            0.1, initial_accumulator_value=0.0, eps=1e-10, eps_in_sqrt=False
        ),
        Adagrad(lr=0.1),
    ),
    "rmsprop": (
        optjax.rmsprop(0.1, decay=0.99, eps_in_sqrt=False),
        RMSprop(lr=0.1),
    ),
    "adadelta": (optjax.adadelta(), Adadelta()),
    "adam": (optjax.adam(0.1), Adam(lr=0.1)),
    "adamw": (optjax.adamw(0.1, weight_decay=0.01), AdamW(lr=0.1)),
    "amsgrad": (
        optjax.amsgrad(0.1, max_before_debias=True),
        Adam(lr=0.1, amsgrad=True),
    ),
    "adamax": (optjax.adamax(0.1), Adamax(lr=0.1)),
    "nadam": (optjax.nadam(0.1, momentum_decay=4e-3), NAdam(lr=0.1)),
    "adabound": (optjax.adabound(1e-3), AdaBound()),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_of_the_same_convention_take_the_state_and_give_it(name):
    row, tx = ROWS[name]
    there = save_optimizer(trained(tx), WEIGHTS, convert, tx)
    state = load_optimizer(there, WEIGHTS, convert, row)
    back = save_optimizer(state, WEIGHTS, convert, tx, step=5)
    assert_same_bits(flatten_state_dict(back), flatten_state_dict(there))


@pytest.mark.parametrize(
    ("theirs", "row", "words"),
    [
        (Adam(lr=0.1, amsgrad=True), optjax.amsgrad(0.1), "next step"),
        (Adam(lr=0.1, amsgrad=True), optjax.adam(0.1), "nu_max"),
        (Adam(lr=0.1), optjax.adam(0.01), "next step.*; the rate is 0.1 times"),
        (Adam(lr=0.1), Adam(lr=0.1, eps=0.1), "compare says which argument differs.$"),
        (Adam(lr=0.1), optax.chain(optax.clip(1e-9), Adam(lr=0.1)), "of a chain hand"),
        (Adam(lr=0.1), optax.adam(0.1), r"'mu', 'nu'\]. Take Adam of optjax.pytorch"),
        (Adam(lr=0.1), optjax.yogi(0.1), "next step"),
        (RMSprop(momentum=0.9), RMSprop(), "trace"),
        (NAdam(), optjax.nadam(2e-3), "next step"),
        (RAdam(eps=1e-1), optjax.radam(1e-3, eps=1e-1), "next step"),
    ],
)
def test_another_convention_is_refused(theirs, row, words):
    with pytest.raises(ValueError, match=words):
        load_optimizer(saved_by(theirs), WEIGHTS, convert, row)


def test_a_forgotten_scheduler_is_named():
    there = saved_by(Adam(lr=0.1))
    there["param_groups"][0]["initial_lr"] = 0.4
    with pytest.raises(ValueError, match=r"rate is 4 times .* with that scheduler"):
        load_optimizer(there, WEIGHTS, convert, Adam(lr=0.4))


@pytest.mark.parametrize(
    ("conversion", "words"),
    [
        (lambda w: {**convert(w), "bias": convert(w)["bias"] * 2}, "'bias' it gives"),
        (lambda w: {**convert(w), "bias": -convert(w)["bias"]}, "'bias' it gives"),
        (lambda w: {**convert(w), "bias": jnp.zeros(2)}, "convert"),
        (
            lambda w: {"kernel": convert(w)["kernel"] + convert(w)["bias"]},
            "'kernel' it gives",
        ),
        (lambda w: {"kernel": convert(w)["kernel"]}, "leaves out 'dense.bias'"),
        (lambda w: {**convert(w), "tied": convert(w)["kernel"]}, "doubles"),
    ],
)
def test_a_conversion_that_computes_is_refused_by_name(conversion, words):
    with pytest.raises(ValueError, match=words):
        load_optimizer(saved_by(Adam()), WEIGHTS, conversion)


def test_a_conversion_may_cast():
    def narrow(weights):
        return jax.tree.map(lambda x: x.astype(jnp.bfloat16), convert(weights))

    state = load_optimizer(saved_by(Adam()), WEIGHTS, narrow)
    assert state.inner_state[2][0].direction.ema["kernel"].dtype == jnp.bfloat16


def test_a_parameter_that_never_had_a_gradient():
    tx = Adam()
    there = saved_by(tx)
    del there["state"][1]
    with pytest.raises(ValueError, match=r"'dense.bias' never had one"):
        load_optimizer(there, WEIGHTS, convert, tx)
    left_out = optax.partition(
        {"train": tx, "freeze": optax.set_to_zero()},
        {"kernel": "train", "bias": "freeze"},
    )
    state = load_optimizer(there, WEIGHTS, convert, left_out)
    back = save_optimizer(state, WEIGHTS, convert, tx)
    assert_same_bits(flatten_state_dict(back), flatten_state_dict(there))


def test_before_the_first_step():
    tx = Adam()
    there = save_optimizer(tx.init(convert(WEIGHTS)), WEIGHTS, convert, tx)
    assert there["state"] == {}
    state = load_optimizer(there, WEIGHTS, convert, tx)
    jax.tree.map(np.testing.assert_array_equal, state, tx.init(convert(WEIGHTS)))


def test_different_numbers_of_steps_are_refused():
    there = saved_by(Adam())
    there["state"][1]["step"] = np.float32(3)
    with pytest.raises(ValueError, match=r"got 3 for dense\.bias and 5 for"):
        load_optimizer(there, WEIGHTS, convert, Adam())


def test_sgd_under_a_schedule_is_told_its_step():
    tx = SGD(lr=StepLR(0.1, 10), momentum=0.9)
    with pytest.raises(ValueError, match="step must be given"):
        load_optimizer(saved_by(tx), WEIGHTS, convert, tx)
    state = load_optimizer(saved_by(tx), WEIGHTS, convert, tx, step=5)
    assert int(state.step) == 5


@pytest.mark.parametrize(
    ("state_dict", "params", "words"),
    [
        ({"weight": 1}, WEIGHTS, "state_dict must be an optimizer's"),
        (None, {**WEIGHTS, "mean": np.ones(2)}, "leaves out 'mean'"),
        (None, dict(reversed(WEIGHTS.items())), "the optimizer's order"),
        (None, [1], "params must be"),
    ],
)
def test_what_does_not_fit_is_refused(state_dict, params, words):
    """The state_dict is Adam's where none is said."""
    state_dict = saved_by(Adam()) if state_dict is None else state_dict
    with pytest.raises(ValueError, match=words):
        load_optimizer(state_dict, params, convert)


@pytest.mark.parametrize(
    "wrap", [optjax.compressed, optjax.packed, optjax.stochastic_rounding]
)
def test_another_storage_is_refused_and_not_called_another_step(wrap):
    weights = {"w": np.ones((64, 128), np.float32), "b": np.ones(3, np.float32)}
    plain = Adam(lr=0.1)
    x = jax.tree.map(jnp.asarray, weights)
    _, state = plain.update(x, plain.init(x), x)
    state_dict = save_optimizer(state, weights, dict, plain)
    with pytest.raises(ValueError, match="in their own storage"):
        load_optimizer(state_dict, weights, dict, wrap(plain))
    stored = optjax.convert_state(state, wrap(plain), x)
    with pytest.raises(ValueError, match="in their own storage"):
        save_optimizer(stored, weights, dict, plain)
    # As the refusal says.
    state = load_optimizer(state_dict, weights, dict, plain)
    wrap(plain).update(x, optjax.convert_state(state, wrap(plain), x), x)


def test_a_state_is_saved_with_the_options_of_one_of_pytorchs():
    weights = {"w": np.ones(3, np.float32)}
    row = optjax.adam(0.1)
    with pytest.raises(ValueError, match=r"one of optjax\.pytorch, .* got Grad"):
        save_optimizer(row.init(weights), weights, dict, row)


def test_of_an_old_pytorch_adam_and_adamw_cannot_be_told_apart():
    there = saved_by(AdamW())
    del there["param_groups"][0]["decoupled_weight_decay"]
    with pytest.raises(ValueError, match="decoupled_weight_decay"):
        load_optimizer(there, WEIGHTS, convert)


def test_groups_are_given_one_mapping_each():
    groups = [{"params": "bias", "lr": 0.01}, {"params": "*"}]
    tx = Adam(groups)
    there = saved_by(tx)
    assert [group["params"] for group in there["param_groups"]] == [[0], [1]]
    with pytest.raises(ValueError, match="one mapping a group"):
        load_optimizer(there, WEIGHTS, convert)
    each = [{name: WEIGHTS[name]} for name in ("dense.bias", "dense.weight")]
    for params, optimizer in ((each, tx), (each, None), (WEIGHTS, tx)):
        state = load_optimizer(there, params, convert, optimizer)
        jax.tree.map(np.testing.assert_array_equal, state, trained(tx))


def test_files_without_pytorch(tmp_path):
    tx = AdamW(amsgrad=True)
    np.savez(tmp_path / "adam.npz", **flatten_state_dict(saved_by(tx)))
    with np.load(tmp_path / "adam.npz") as file:
        state = load_optimizer(file, WEIGHTS, convert, tx)
    jax.tree.map(np.testing.assert_array_equal, state, trained(tx))


def test_safetensors(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    tx = AdamW(amsgrad=True)
    flat = flatten_state_dict(saved_by(tx))
    safetensors.save_file(flat, tmp_path / "adam.safetensors")
    file = safetensors.load_file(tmp_path / "adam.safetensors")
    state = load_optimizer(file, WEIGHTS, convert, tx)
    jax.tree.map(np.testing.assert_array_equal, state, trained(tx))
