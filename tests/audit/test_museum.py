"""Real bugs, each rebuilt from its public report: what is wrong is found and named."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiling import jit

import optjax

RANDOM = np.random.default_rng(0)


def array(*shape):
    return RANDOM.normal(size=shape).astype(np.float32)


PARAMS = {
    "dense": {"kernel": array(4, 5), "bias": array(5)},
    "layer_norm": {"scale": np.ones(5, np.float32)},
}
GRADS = jax.tree.map(lambda x: np.float32(0.1) * array(*x.shape), PARAMS)
# Where more leaves would only be more to compile; what is global needs several.
WEIGHTS, SLOPES = ({"w": tree["dense"]["kernel"]} for tree in (PARAMS, GRADS))

MUSEUM = []


def report(repository, number, kind, *words):
    """What was reported there: an audit of it has a verdict of this kind and words."""

    def add(audited):
        name = f"{repository}-{number}"
        MUSEUM.append(pytest.param(audited, kind, words, id=name))
        return audited

    return add


def audit(factory, params=WEIGHTS, grads=SLOPES, steps=None, **hyper):
    return optjax.audit(factory, hyper, grads, params, steps=steps)


def several(steps):
    return {"w": np.stack([SLOPES["w"] * (1 + i) for i in range(steps)])}


# A learning rate that nothing depends on.


@report("keras-team/keras", 17338, "inert", "lr is inert", "does not use it")
def lr_is_a_keyword_of_another_name():
    def optimizer(lr, learning_rate=1e-3):
        return optax.adam(learning_rate)

    return audit(optimizer, lr=0.01)


@report("EdwardRaff/Inside-Deep-Learning", 8, "inert", "lr is inert", "does not use")
def the_training_function_has_its_own_rate():
    return audit(lambda lr: optax.sgd(0.001), lr=0.1)


@report("s920128/NAR-BERT-ASR", 3, "inert", "lr is inert")
def warm_up_is_absolute():
    def optimizer(lr):
        def schedule(count):
            step = count + 1.0
            return 768**-0.5 * jnp.minimum(step**-0.5, step * 12000**-1.5)

        return optax.adam(schedule)

    return audit(optimizer, lr=0.001)


@report("deepspeedai/DeepSpeed", 7303, "inert", "lr is inert")
def the_scheduler_overwrites_the_optimizers_rate():
    def optimizer(lr, weight_decay, warmup_max_lr=None):
        del lr
        return optax.adamw(
            optax.linear_schedule(1e-4, warmup_max_lr or 0.001, 2),
            weight_decay=weight_decay,
            mask=lambda params: jax.tree.map(lambda x: x.ndim > 1, params),
        )

    return audit(optimizer, lr=5e-7, weight_decay=3e-7)


@report("deepspeedai/DeepSpeed", 7713, "inert", "muon_lr is inert")
def the_scheduler_overwrites_the_rates_of_groups():
    def optimizer(muon_lr, adam_lr, warmup_max_lr):
        del muon_lr, adam_lr
        schedule = optax.linear_schedule(1e-5, warmup_max_lr, 4)
        return optax.partition(
            {True: optax.sgd(schedule, momentum=0.9), False: optax.adam(schedule)},
            lambda params: jax.tree.map(lambda x: x.ndim > 1, params),
        )

    return audit(
        optimizer, PARAMS, GRADS, muon_lr=2e-2, adam_lr=1e-5, warmup_max_lr=1e-3
    )


@report("google/sling", 237, "inert", "learning_rate is inert", "clipped or normalized")
def the_update_is_clipped_and_not_the_gradient():
    def optimizer(learning_rate):
        return optax.chain(optax.sgd(learning_rate), optax.clip_by_global_norm(1e-3))

    return audit(optimizer, PARAMS, GRADS, learning_rate=0.1)


@report("CyberZHG/keras-adabound", 1, "inert", "learning_rate", "at its bound")
def bounds_do_not_follow_a_decay_of_the_rate():
    def optimizer(learning_rate, final_lr, gamma):
        rate = optax.chain(
            optjax.rate_by_accumulated_square(optjax.ema_of_squares(0.999)),
            optax.scale(learning_rate),
            optjax.bound_clip(*optjax.hyperbolic_bounds(final_lr, gamma)),
        )
        return optjax.basic_form(optjax.ema(0.9), rate, learning_rate=1.0)

    return audit(optimizer, learning_rate=1e-4, final_lr=0.1, gamma=1e4)


# A schedule that is at 0, or counts what it should not.


@report("google-research/bert", 1293, "schedule at 0", "1 of the 3 steps")
def warm_up_begins_at_0():
    warm_up = optax.linear_schedule(0.0, 5e-5, 10)
    return audit(optax.adam, grads=several(3), steps=3, learning_rate=warm_up)


@report("LINCellularNeuroscience/VAME", 26, "schedule at 0", "2 of the 4 steps")
def a_scheduler_turned_off_multiplies_by_0():
    off = optax.exponential_decay(1e-3, 2, decay_rate=0.5, staircase=True)

    def step_lr(count):
        return off(count) * jnp.where(count < 2, 1.0, 0.0)

    return audit(optax.adam, grads=several(4), steps=4, learning_rate=step_lr)


def counting_batches(schedule, optimizer, k):
    tx = optax.chain(
        optax.MultiSteps(optimizer, k).gradient_transformation(),
        optax.scale_by_schedule(schedule),
    )
    return optjax.audit(tx, SLOPES, tx.init(WEIGHTS), WEIGHTS)


@report("huggingface/accelerate", 963, "counts batches", "MultiSteps")
def the_scheduler_steps_though_the_optimizer_does_not():
    return counting_batches(optax.cosine_decay_schedule(1.0, 100), optax.adam(1e-3), 2)


@report("Lightning-AI/pytorch-lightning", 1476, "counts batches", "MultiSteps")
def warm_up_over_forward_passes():
    return counting_batches(
        optax.linear_schedule(1e-3, 1.0, 16000), optax.adam(1e-3), 16
    )


# Numbers that are others in half precision.


@report("google-deepmind/optax", 1414, "rounded", "b2 is 1 in bfloat16", "float32")
def hyperparameters_have_the_dtype_of_the_parameters():
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), WEIGHTS)
    grads = jax.tree.map(lambda x: x.astype(jnp.bfloat16), SLOPES)
    tx = optax.inject_hyperparams(optax.adamw)(learning_rate=1e-3)
    return optjax.audit(tx, grads, tx.init(params), params)


@report("chainer/chainer", 6299, "rounded", "eps is 0 in float16")
def eps_is_0_in_float16():
    params = jax.tree.map(lambda x: x.astype(jnp.float16), WEIGHTS)
    grads = jax.tree.map(lambda x: x.astype(jnp.float16), SLOPES)
    tx = optax.inject_hyperparams(optax.adam)(learning_rate=1e-3)
    return optjax.audit(tx, grads, tx.init(params), params)


@report("FluxML/Optimisers.jl", 167, "not finite", "the optimizer made")
def squares_and_eps_vanish_in_float16():
    x = np.array([0.579, -0.729, 0.5493], np.float16)
    g = np.array([-0.001497, 0.0001875, -0.013176], np.float16)
    return audit(optax.adam, {"w": x}, {"w": g}, learning_rate=1e-4)


def in_bfloat16(learning_rate):
    params = {"w": np.ones((16, 48), jnp.bfloat16)}
    grads = {"w": array(16, 48).astype(jnp.bfloat16)}
    return audit(optax.adam, params, grads, learning_rate=learning_rate)


@report("workofart/ml-by-hand", 85, "lost in rounding", "100 %", "bfloat16")
def no_float32_copy_of_the_weights():
    return in_bfloat16(6e-4)


@report("kyegomez/SingLoRA", 6, "lost in rounding", "bfloat16", "stochastic_rounding")
def a_ramp_up_too_small_for_bfloat16():
    return in_bfloat16(optax.linear_schedule(1e-6, 1e-3, 1000))


# Weight decay of what should have none, or of nothing.


def decayed(decays, weight_decay=0.01):
    mask = jax.tree_util.tree_map_with_path(
        lambda path, _: decays(jax.tree_util.keystr(path, simple=True, separator=".")),
        PARAMS,
    )
    return audit(
        lambda learning_rate, weight_decay: optax.adamw(
            learning_rate, weight_decay=weight_decay, mask=mask
        ),
        PARAMS,
        GRADS,
        learning_rate=1e-3,
        weight_decay=weight_decay,
    )


@report("huggingface/transformers", 4360, "decays vectors", "layer_norm/scale", "Mask")
def layer_norm_is_excluded_by_another_spelling():
    return decayed(lambda name: "LayerNorm" not in name and "bias" not in name)


@report("ServiceNow/Fast-LLM", 542, "decays vectors", "layer_norm/scale", "Mask")
def norms_fall_back_to_the_default():
    return decayed(lambda name: name != "dense.bias")


@report("namisan/mt-dnn", 37, "decays vectors", "dense/bias", "Mask")
def whole_names_are_looked_for_and_not_parts():
    no_decay = ["bias", "gamma", "beta", "LayerNorm.bias", "LayerNorm.weight"]
    return decayed(lambda name: name not in no_decay)


@report("facebookresearch/BalancingGroups", 6, "decays vectors", "wrong way round")
def only_biases_and_norms_are_decayed():
    return decayed(lambda name: "bias" in name or "layer_norm.scale" in name)


@report("rwth-i6/returnn", 1439, "inert", "embedding_weight_decay is inert")
def a_parameters_own_decay_is_ignored():
    def optimizer(learning_rate, weight_decay, embedding_weight_decay):
        del embedding_weight_decay
        return optax.adamw(
            learning_rate,
            weight_decay=weight_decay,
            mask=lambda params: jax.tree.map(lambda x: x.ndim > 1, params),
        )

    hyper = {"weight_decay": 0.01, "embedding_weight_decay": 0.1}
    return audit(optimizer, learning_rate=1e-3, **hyper)


@report("tensorflow/addons", 2282, "much decay", "weight_decay", "of the step")
def decay_is_not_multiplied_by_the_learning_rate():
    return audit(
        optjax.adaboundw, learning_rate=1e-3, weight_decay=0.01, fixed_decay=True
    )


@report("KellerJordan/Muon", 54, "moved without gradient", "layer_norm")
def decay_of_what_has_no_gradient():
    grads = {**GRADS, "layer_norm": jax.tree.map(np.zeros_like, GRADS["layer_norm"])}
    return audit(optax.adamw, PARAMS, grads, learning_rate=0.02, weight_decay=0.1)


@report("OPTML-Group/Unlearn-Saliency", 32, "moved without gradient", "dense/kernel")
def a_masked_gradient_is_decayed():
    def optimizer(learning_rate, weight_decay):
        return optax.chain(
            optax.add_decayed_weights(weight_decay),
            optax.sgd(learning_rate, momentum=0.9),
        )

    grads = {**GRADS, "dense": jax.tree.map(np.zeros_like, GRADS["dense"])}
    return audit(optimizer, PARAMS, grads, learning_rate=0.01, weight_decay=5e-4)


# ε in place of √ν.


@report("tensorflow/models", 779, "floor", "epsilon", "most", "√ν")
def a_training_script_with_epsilon_1():
    def optimizer(learning_rate, epsilon):
        return optax.rmsprop(learning_rate, decay=0.9, eps=epsilon)

    return audit(optimizer, learning_rate=0.01, epsilon=1.0)


@report("mlpnlp/mlpnlp-nmt", 4, "floor", "eps is larger than √ν")
def adam_with_eps_a_tenth():
    grads = jax.tree.map(lambda g: g / 10, SLOPES)
    return audit(optax.adam, grads=grads, learning_rate=1e-3, eps=0.1)


@report("joeyan/gaussian_splatting", 33, "floor", "of opacity", "eps")
def the_default_eps_against_tiny_gradients():
    params = {"opacity": array(30), "position": array(10, 3)}
    grads = {"opacity": array(30) / 1e9, "position": array(10, 3) / 1e3}
    return audit(optax.adam, params, grads, learning_rate=1e-2)


# Parameters that are not trained, or against the gradient.


@report("google-deepmind/optax", 159, "uphill", "layer_norm/scale", "optax.masked")
def what_is_masked_out_is_still_the_gradient():
    mask = {"dense": True, "layer_norm": False}

    def optimizer(learning_rate):
        return optax.masked(optax.sgd(learning_rate), mask)

    return audit(optimizer, PARAMS, GRADS, learning_rate=0.1)


@report("DocF/multispectral-object-detection", 77, "frozen", "pos_emb is not trained")
def a_parameter_in_no_group_of_the_optimizer():
    params, grads = ({**tree, "pos_emb": array(7, 5)} for tree in (PARAMS, GRADS))
    trained = {**dict.fromkeys(PARAMS, True), "pos_emb": False}

    def optimizer(learning_rate):
        kinds = {True: optax.sgd(learning_rate), False: optax.set_to_zero()}
        return optax.partition(kinds, trained)

    return audit(optimizer, params, grads, learning_rate=0.1)


@report("4uiiurz1/pytorch-nested-unet", 39, "no gradient", "conv/bias", "normalization")
def a_bias_before_a_batch_normalization():
    x, y = array(64, 4), array(64, 5)
    params = {"conv": PARAMS["dense"], "bn": {"scale": np.ones(5), "bias": array(5)}}

    def loss(params):
        z = x @ params["conv"]["kernel"] + params["conv"]["bias"]
        z = (z - z.mean(axis=0)) / z.std(axis=0)
        z = z * params["bn"]["scale"] + params["bn"]["bias"]
        return jnp.mean((z - y) ** 2)

    return audit(optax.sgd, params, jit(jax.grad(loss))(params), learning_rate=0.1)


# A clip that decides.


def clipped_while_scaled(scale, max_norm):
    def optimizer(learning_rate):
        return optax.chain(
            optax.scale(scale),
            optax.clip_by_global_norm(max_norm),
            optax.scale(1 / scale),
            optax.sgd(learning_rate, momentum=0.9),
        )

    return audit(optimizer, PARAMS, GRADS, learning_rate=0.1)


@report("milesial/Pytorch-UNet", 468, "clipped", "a clip scales every step by 3e-05")
def gradients_are_clipped_before_they_are_unscaled():
    return clipped_while_scaled(2.0**16, 1.0)


@report("rwth-i6/returnn", 1590, "clipped", "decides the step's length", "unscaled")
def the_clip_is_65_thousand_times_too_small():
    return clipped_while_scaled(2.0**16, 5.0)


@pytest.mark.parametrize(("audited", "kind", "words"), MUSEUM)
def test_museum(audited, kind, words):
    found = audited()
    said = [str(verdict) for verdict in found.verdicts if verdict.kind == kind]
    assert said, found
    text = " ".join(said)
    assert all(word in text for word in words), text
    with pytest.raises(ValueError, match=re.escape(said[0])):
        found.raise_for()
