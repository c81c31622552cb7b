"""Convolutions in another layout: the same numbers, and one form of them all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import jit, known
from flax import linen, nnx
from jax import lax
from jax.extend.core import jaxprs_in_params

from optjax import sweep
from optjax.sweep import fast_convolutions


def random(*shape, dtype=jnp.float32):
    numbers = np.random.default_rng(len(shape)).normal(size=shape)
    return jnp.asarray(numbers, dtype)


def inside(jaxpr):
    """The parameters of its convolutions, at any depth."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "conv_general_dilated":
            yield eqn.params
        for inner in jaxprs_in_params(eqn.params):
            yield from inside(inner)


def convolutions(function, *args):
    """The parameters of those in a function, loops included."""
    return list(inside(jax.make_jaxpr(function)(*args).jaxpr))


def is_fast(params):
    lhs, rhs, out = params["dimension_numbers"]
    last = len(lhs) - 1
    places = (0, last, *range(1, last))
    return (lhs, rhs, out) == (places, (last, last - 1, *range(last - 1)), places)


def check(function, *args):
    """That nothing changes but the form, of the gradients too."""
    before, after = (
        jit(f).trace(*args) for f in (function, fast_convolutions(function))
    )
    kinds, found = (list(inside(traced.jaxpr.jaxpr)) for traced in (before, after))
    assert not all(map(is_fast, kinds))
    assert len(found) == len(kinds) > 0
    assert all(map(is_fast, found))
    for was, is_ in zip(
        *(jax.tree.leaves(f.lower().compile()(*args)) for f in (before, after)),
        strict=True,
    ):
        assert (was.dtype, was.shape, was.weak_type) == (
            is_.dtype,
            is_.shape,
            is_.weak_type,
        )
        loose = 0.05 if was.dtype == jnp.bfloat16 else 2e-5
        np.testing.assert_allclose(
            np.asarray(is_, np.float32), np.asarray(was, np.float32), loose, loose
        )


def gradients(convolution, x, kernel):
    """Of both operands, in the form that a training step has them."""
    y = jax.eval_shape(convolution, x, kernel)
    weights = random(*y.shape, dtype=y.dtype)

    def weighted(x, kernel):
        return jnp.vdot(convolution(x, kernel), weights)

    return jax.value_and_grad(weighted, argnums=(0, 1)), (x, kernel)


def conv(strides=(1, 1), padding="SAME", **how):
    return lambda x, kernel: lax.conv_general_dilated(
        x, kernel, strides, padding, **how
    )


NHWC, NCHW = ("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW")
IMAGES, KERNEL = (2, 7, 6, 4), (3, 3, 4, 6)
DTYPE = jnp.bfloat16

CASES = {
    "plain": (conv(dimension_numbers=NHWC), IMAGES, KERNEL),
    "channels first": (conv(dimension_numbers=NCHW), (2, 4, 7, 6), (6, 4, 3, 3)),
    "strides": (conv((2, 3), dimension_numbers=NHWC), IMAGES, KERNEL),
    "uneven padding": (
        conv(padding=((2, 0), (-1, 3)), dimension_numbers=NHWC),
        IMAGES,
        KERNEL,
    ),
    "dilated": (conv(rhs_dilation=(2, 1), dimension_numbers=NHWC), IMAGES, KERNEL),
    "transposed": (
        lambda x, kernel: lax.conv_transpose(x, kernel, (2, 2), "SAME"),
        IMAGES,
        KERNEL,
    ),
    "groups": (
        conv(feature_group_count=2, dimension_numbers=NHWC),
        IMAGES,
        (3, 3, 2, 6),
    ),
    "depthwise": (
        conv(feature_group_count=4, dimension_numbers=NCHW),
        (2, 4, 7, 6),
        (4, 1, 3, 3),
    ),
    "batch groups": (
        conv(batch_group_count=2, dimension_numbers=NHWC),
        IMAGES,
        (3, 3, 4, 6),
    ),
    "one dimension": (
        conv((2,), dimension_numbers=("NCH", "OIH", "NCH")),
        (2, 3, 8),
        (4, 3, 3),
    ),
    "three dimensions": (
        conv((1, 2, 1), dimension_numbers=("NCDHW", "OIDHW", "NCDHW")),
        (2, 3, 4, 5, 4),
        (2, 3, 3, 3, 3),
    ),
    "mixed": (
        conv(dimension_numbers=("CWNH", "WOHI", "HNCW")),
        (4, 6, 2, 7),
        (3, 6, 3, 4),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_gradients_are_the_same(name):
    convolution, images, kernel = CASES[name]
    check(*flat(gradients(convolution, random(*images), random(*kernel))))


def flat(both):
    function, args = both
    return function, *args


def test_of_bfloat16_with_wider_sums():
    convolution = conv(dimension_numbers=NCHW, preferred_element_type=jnp.float32)
    x, kernel = random(2, 4, 7, 6, dtype=DTYPE), random(6, 4, 3, 3, dtype=DTYPE)
    check(convolution, x, kernel)
    check(
        *flat(
            gradients(
                conv(dimension_numbers=NHWC),
                *(random(*shape, dtype=DTYPE) for shape in (IMAGES, KERNEL)),
            )
        )
    )


@jax.custom_jvp
def scaled(x, kernel):
    return conv(dimension_numbers=NCHW)(x, kernel)


scaled.defjvp(
    lambda primals, tangents: (scaled(*primals), 2.0 * scaled(tangents[0], primals[1]))
)


@jax.custom_vjp
def clipped(x, kernel):
    return conv(dimension_numbers=NCHW)(x, kernel)


clipped.defvjp(
    lambda x, kernel: (clipped(x, kernel), (x, kernel)),
    lambda saved, dy: (3.0 * saved[0], saved[1]),
)


def test_inside_of_everything_that_runs_functions():
    """Loops, conditions, calls, rematerialisation, derivatives of one's own, lanes."""

    def layer(x, kernel):
        return jnp.tanh(conv(dimension_numbers=NCHW)(x, kernel))

    def model(x, kernel):
        x = scaled(x, kernel) + clipped(x, kernel)
        x, _ = lax.scan(lambda x, _: (layer(x, kernel), None), x, length=2)
        x = lax.cond(x.sum() > 0, lambda x: layer(x, kernel), lambda x: -x, x)
        x = jax.checkpoint(layer)(x, kernel)
        return jnp.sum(jax.jit(layer)(x, kernel) ** 2)

    def step(kernel, x):
        value, gradient = jax.value_and_grad(model, argnums=1)(x, kernel)
        return kernel - 0.1 * gradient, value

    def train(kernel, x):
        def again(carry):
            count, kernel, _ = carry
            return count + 1, *step(kernel, x)

        return lax.while_loop(lambda c: c[0] < 2, again, (0, kernel, 0.0))[1:]

    # Roundings add up from layer to layer.
    with jax.enable_x64(True):
        wide = [random(*shape, dtype=jnp.float64) for shape in (4 * (3,), (2, 3, 5, 5))]
        check(train, 0.3 * wide[0], wide[1])
    x, kernel = random(2, 3, 5, 5), 0.3 * random(3, 3, 3, 3)
    # Lanes with a kernel each become groups.
    check(jax.vmap(step, in_axes=(0, None)), jnp.stack([kernel, -kernel]), x)
    # And lanes of what is in the form already.
    lanes = jax.vmap(fast_convolutions(step), in_axes=(0, None))
    for params in convolutions(lanes, jnp.stack([kernel, -kernel]), x):
        assert is_fast(params)


def test_its_derivatives_are_those_of_the_function():
    x, kernel = random(2, 4, 7, 6), random(6, 4, 3, 3)
    functions = scaled, clipped, conv(dimension_numbers=NCHW)

    @jit
    def gradients_by(x):
        return [
            [jax.grad(lambda x, f=f: jnp.sum(f(x, kernel)))(x) for f in pair]
            for pair in zip(map(fast_convolutions, functions), functions, strict=True)
        ]

    for ours, theirs in gradients_by(x):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5)


def test_what_it_does_not_know_stays():
    mesh = jax.make_mesh((1,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec()
    inside = jax.shard_map(
        conv(dimension_numbers=NCHW), mesh=mesh, in_specs=(spec, spec), out_specs=spec
    )
    x, kernel = random(2, 4, 7, 6), random(6, 4, 3, 3)
    (params,) = convolutions(fast_convolutions(inside), x, kernel)
    assert not is_fast(params)
    np.testing.assert_array_equal(
        fast_convolutions(inside)(x, kernel), inside(x, kernel)
    )


def test_structures_keywords_and_keys_go_through():
    def function(tree, *, key, scale):
        noise = jax.random.normal(key, tree["x"].shape)
        return {"y": (tree["x"] * scale + noise, None), "key": key}

    args = {"x": jnp.ones((2, 3)), "none": None}
    keywords = {"key": jax.random.key(0), "scale": 2.0}
    ours, theirs = (
        f(args, **keywords) for f in (fast_convolutions(function), function)
    )
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    np.testing.assert_allclose(ours["y"][0], theirs["y"][0], rtol=1e-6)
    with pytest.raises(ValueError, match="must be a function of arrays, got 3"):
        fast_convolutions(3)


class Net(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.relu(linen.Conv(4, (3, 3), strides=2)(x))
        return linen.Dense(2)(x.mean((1, 2)))


class OwnNet(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), strides=2, rngs=rngs)
        self.out = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
        return self.out(nnx.relu(self.conv(x)).mean((1, 2)))


def forms(program):
    """Of the convolutions in the text of a compiled program."""
    return {
        line.partition("dim_labels=")[2].partition(",")[0].strip()
        for line in program.splitlines()
        if " convolution(" in line
    }


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="a matter of CPUs")
def test_xla_does_not_do_it_by_itself():
    """Where this fails `fast_convolutions` has become needless."""
    function, args = gradients(
        conv(dimension_numbers=NHWC), random(*IMAGES), random(*KERNEL)
    )

    def loop(function):
        def descend(args, _):
            value, (dx, dkernel) = function(*args)
            return (args[0] - dx, args[1] - dkernel), value

        program = jax.jit(lambda *args: lax.scan(descend, args, length=3))
        return forms(program.lower(*args).compile().as_text())

    assert len(loop(function)) > 1
    assert loop(fast_convolutions(function)) == {"b01f_01io->b01f"}


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="a matter of CPUs")
@pytest.mark.parametrize("framework", ["linen", "nnx"])
@pytest.mark.parametrize("strategy", ["map", "vmap"])
def test_a_sweep_compiles_them_in_the_form_of_the_library(
    framework, strategy, monkeypatch
):
    texts = []
    compile_ = jax.stages.Lowered.compile

    def listening(lowered, *args, **keywords):
        compiled = compile_(lowered, *args, **keywords)
        texts.append(compiled.as_text())
        return compiled

    monkeypatch.setattr(jax.stages.Lowered, "compile", listening)
    x = random(4, 8, 8, 3)

    def loss(y, batch):
        return jnp.mean((y - batch[0].mean()) ** 2)

    def batch(key, step):
        return (x,)

    if framework == "linen":
        trial = sweep.from_linen(Net(), loss, batch)
    else:
        trial = sweep.from_nnx(OwnNet, loss, batch)
    result = sweep.run(
        trial,
        {"optimizer": "sgd", "learning_rate": [0.1, 0.2]},
        steps=2,
        evaluate_every=1,
        metric="loss",
        mode="min",
        seeds=1,
        strategy=strategy,
        progress=False,
        compiler_options=known(),
    )
    assert all(np.isfinite(r.curve.values["loss"]).all() for r in result.records)
    (text,) = texts
    assert forms(text) == {"b01f_01io->b01f"}
