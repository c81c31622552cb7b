"""The models: published sizes, shapes, dtypes, statistics, and PyTorch's blocks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.extend.core import jaxprs_in_params

from optjax.tasks.models import (
    MLP,
    CharLSTM,
    DenseNet,
    ResNet,
    densenet121,
    resnet8,
    resnet34,
)
from optjax.tasks.models._layers import KERNEL_INIT, global_average
from optjax.tasks.models.densenet import DenseLayer, Transition
from optjax.tasks.models.resnet import BasicBlock

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

SMALL = {
    "mlp": functools.partial(MLP, hidden=(12, 8)),
    "resnet": functools.partial(ResNet, widths=(4, 8), blocks=(1, 2)),
    "densenet": functools.partial(DenseNet, growth=4, blocks=(2, 1)),
}


@nnx.jit
def call(model, x):
    """One program in place of one for each operation."""
    return model(x)


def size(make):
    """Parameters of the model that `make` returns, without making it."""
    params = nnx.state(nnx.eval_shape(make), nnx.Param)
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(
    ("make_model", "classes", "parameters"),
    [
        # He et al.'s ResNet-8 would be 75,290; the shortcuts add 2,560 + 192.
        (resnet8, 10, 78_042),
        (resnet34, 100, 21_282_122 + 90 * 513),
    ],
)
def test_parameters_of_the_published_networks(make_model, classes, parameters):
    assert (
        size(lambda: make_model((32, 32, 3), classes, rngs=nnx.Rngs(0))) == parameters
    )


def test_parameters_of_the_mlp():
    def make():
        return MLP((28, 28, 1), 10, hidden=(100, 30), rngs=nnx.Rngs(0))

    assert size(make) == 785 * 100 + 101 * 30 + 31 * 10


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_parameters_of_the_lstm(layers):
    # A layer has four gates, each of 8 inputs, 8 recurrent values and a bias.
    expected = 20 * 8 + layers * 4 * 8 * (8 + 8 + 1) + 9 * 20
    assert (
        size(lambda: CharLSTM(20, layers=layers, hidden=8, rngs=nnx.Rngs(0)))
        == expected
    )


@pytest.mark.parametrize("shape", [(28, 28, 1), (16, 12, 3)])
@pytest.mark.parametrize("name", SMALL)
def test_any_image_size(name, shape):
    @nnx.eval_shape
    def logits():
        return SMALL[name](shape, 7, rngs=nnx.Rngs(0))(jnp.zeros((5, *shape)))

    assert logits.shape == (5, 7)
    assert logits.dtype == jnp.float32


@pytest.mark.parametrize(
    ("make_model", "parameters", "shapes"),
    [
        # Each transition keeps half of the channels.
        (
            densenet121,
            6_956_298,
            [(32, 64), (32, 256), (16, 512), (8, 1024), (4, 1024)],
        ),
        (
            resnet34,
            21_282_122,
            [(32, 64), (32, 64), (16, 128), (8, 256), (4, 512)],
        ),
    ],
)
def test_along_the_published_networks(make_model, parameters, shapes):
    """All parameters, and the channels of the stem and at each resolution's end."""
    seen, sizes = [], []

    @nnx.eval_shape
    def logits():
        model = make_model((32, 32, 3), 10, rngs=nnx.Rngs(0))
        sizes.extend(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param)))
        model.eval()
        x = model.stem(jnp.zeros((1, 32, 32, 3)))
        seen.append(x.shape)
        for layer in model.layers if make_model is densenet121 else model.blocks:
            x = layer(x)
            seen.append(x.shape)
        return model.logits(jnp.mean(x, axis=(1, 2)))

    assert sum(sizes) == parameters
    assert logits.shape == (1, 10)
    last = {shape[1]: shape for shape in seen}
    assert [seen[0], *last.values()] == [(1, n, n, c) for n, c in shapes]


@pytest.mark.parametrize("name", ["resnet", "densenet"])
def test_statistics_change_in_training_alone(name):
    model = SMALL[name]((8, 8, 3), 3, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(1), (6, 8, 8, 3)) + 1

    def statistics():
        state = nnx.state(model, nnx.BatchStat)
        return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]

    before = statistics()
    model.eval()
    together = call(model, x)
    # With running statistics an image's logits do not depend on its batch.
    other = call(model, x.at[1:].multiply(3.0))
    np.testing.assert_allclose(other[0], together[0], rtol=1e-4, atol=1e-5)
    for old, new in zip(before, statistics(), strict=True):
        np.testing.assert_array_equal(old, new)

    model.train()
    trained = call(model, x)
    for old, new in zip(before, statistics(), strict=True):
        assert (old != new).any()
    assert not np.allclose(trained, together, atol=1e-2)


def convolutions(jaxpr):
    """The dtypes that every convolution and product of matrices reads."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("conv_general_dilated", "dot_general"):
            yield {var.aval.dtype.name for var in equation.invars}
        for inner in jaxprs_in_params(equation.params):
            yield from convolutions(inner)


@pytest.mark.parametrize("name", [*SMALL, "lstm"])
def test_bfloat16_computes_with_float32_parameters(name):
    def make(dtype):
        if name == "lstm":
            return CharLSTM(9, layers=2, hidden=8, dtype=dtype, rngs=nnx.Rngs(0))
        return SMALL[name]((8, 8, 3), 3, dtype=dtype, rngs=nnx.Rngs(0))

    key = jax.random.key(1)
    x = jax.random.normal(key, (4, 8, 8, 3))
    if name == "lstm":
        x = jax.random.randint(key, (4, 7), 0, 9)

    half, single = make(jnp.bfloat16), make(jnp.float32)
    logits, exact = call(half, x), call(single, x)
    assert logits.dtype == jnp.float32
    for leaf in jax.tree.leaves(nnx.state(half)):
        assert leaf.dtype == jnp.float32

    graphdef, state = nnx.split(half)
    jaxpr = jax.make_jaxpr(lambda state: nnx.merge(graphdef, state, copy=True)(x))
    *hidden, last = convolutions(jaxpr(state).jaxpr)
    assert hidden
    assert all(dtypes == {"bfloat16"} for dtypes in hidden)
    assert last == {"float32"}

    # Eight bits of significand: near, but not the same.
    difference = np.abs(logits - exact).max()
    assert 1e-5 < difference < 0.1


def test_statistics_of_bfloat16_are_summed_in_float32():
    """A bfloat16 sum of these 4,096 values would stop growing at a few hundred."""
    model = BasicBlock(1, 1, 1, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    x = jax.random.uniform(jax.random.key(0), (4, 32, 32, 1), minval=1, maxval=2)
    x = x.astype(jnp.bfloat16)
    model.norm1(x)
    exact = np.mean(np.asarray(x, np.float64))
    np.testing.assert_allclose(model.norm1.mean[...], 0.1 * exact, rtol=1e-5)


def test_features_of_bfloat16_are_averaged_in_float32():
    x = jax.random.uniform(jax.random.key(0), (2, 8, 8, 3), minval=1, maxval=2)
    x = x.astype(jnp.bfloat16)
    exact = np.mean(np.asarray(x, np.float64), axis=(1, 2))
    np.testing.assert_allclose(global_average(x), exact, rtol=1e-6)


def test_kernels_start_as_in_pytorch():
    torch = pytest.importorskip("torch")
    ours = np.asarray(KERNEL_INIT(jax.random.key(0), (3, 3, 64, 128)))
    torch.manual_seed(0)
    theirs = torch.nn.Conv2d(64, 128, 3).weight.detach().numpy()
    assert np.abs(ours).max() == pytest.approx(1 / 24, rel=1e-3)
    assert np.abs(theirs).max() == pytest.approx(1 / 24, rel=1e-3)
    assert ours.std() == pytest.approx(theirs.std(), rel=0.01)


# PyTorch's side of the blocks, with (n, c, h, w) inside.


def from_torch(x):
    return x.detach().numpy().transpose(0, 2, 3, 1)


def torch_of(array):
    import torch

    return torch.from_numpy(np.array(array))


def torch_conv(layer, x, stride=1):
    from torch.nn import functional

    kernel = torch_of(layer.kernel[...]).permute(3, 2, 0, 1)
    padding = (kernel.shape[-1] - 1) // 2
    return functional.conv2d(x, kernel, stride=stride, padding=padding)


def torch_norm(layer, x):
    from torch.nn import functional

    scale, bias = torch_of(layer.scale[...]), torch_of(layer.bias[...])
    return functional.batch_norm(x, None, None, scale, bias, training=True, eps=1e-5)


def randomised(model):
    """The model with normal numbers for the scales and biases, which start equal."""
    rngs = nnx.Rngs(3)
    for norm in (model.norm1, model.norm2) if hasattr(model, "norm1") else [model.norm]:
        for variable in (norm.scale, norm.bias):
            variable[...] = jax.random.normal(rngs(), variable.shape)
    return model


@pytest.fixture
def images():
    return jax.random.normal(jax.random.key(1), (4, 8, 8, 6))


@pytest.mark.parametrize(("outputs", "stride"), [(6, 1), (10, 2)])
def test_basic_block_is_pytorchs(images, outputs, stride):
    torch = pytest.importorskip("torch")
    block = randomised(
        BasicBlock(6, outputs, stride, dtype=jnp.float32, rngs=nnx.Rngs(0))
    )
    x = torch_of(images).permute(0, 3, 1, 2)
    y = torch.relu(torch_norm(block.norm1, torch_conv(block.conv1, x, stride)))
    y = torch_norm(block.norm2, torch_conv(block.conv2, y))
    if stride != 1:
        conv, norm = block.shortcut
        x = torch_norm(norm, torch_conv(conv, x, stride))
    np.testing.assert_allclose(
        call(block, images), from_torch(torch.relu(x + y)), rtol=1e-4, atol=1e-5
    )


def test_dense_layer_is_pytorchs(images):
    torch = pytest.importorskip("torch")
    layer = randomised(DenseLayer(6, 5, dtype=jnp.float32, rngs=nnx.Rngs(0)))
    x = torch_of(images).permute(0, 3, 1, 2)
    y = torch_conv(layer.conv1, torch.relu(torch_norm(layer.norm1, x)))
    y = torch_conv(layer.conv2, torch.relu(torch_norm(layer.norm2, y)))
    np.testing.assert_allclose(
        call(layer, images),
        from_torch(torch.cat([x, y], dim=1)),
        rtol=1e-4,
        atol=1e-5,
    )


def test_transition_is_pytorchs(images):
    torch = pytest.importorskip("torch")
    layer = randomised(Transition(6, 3, dtype=jnp.float32, rngs=nnx.Rngs(0)))
    x = torch_of(images).permute(0, 3, 1, 2)
    y = torch_conv(layer.conv, torch.relu(torch_norm(layer.norm, x)))
    y = torch.nn.functional.avg_pool2d(y, 2)
    np.testing.assert_allclose(call(layer, images), from_torch(y), rtol=1e-4, atol=1e-5)


def test_running_statistics_are_pytorchs(images):
    torch = pytest.importorskip("torch")
    block = BasicBlock(6, 6, 1, dtype=jnp.float32, rngs=nnx.Rngs(0))
    block.norm1(images)
    theirs = torch.nn.BatchNorm2d(6)
    theirs(torch_of(images).permute(0, 3, 1, 2))
    np.testing.assert_allclose(
        block.norm1.mean[...], theirs.running_mean.numpy(), rtol=1e-4, atol=1e-6
    )
    # Theirs is the unbiased variance of 4 · 8 · 8 pixels.
    new = (theirs.running_var.numpy() - 0.9) * 255 / 256
    np.testing.assert_allclose(block.norm1.var[...] - 0.9, new, rtol=1e-4)


@pytest.mark.parametrize("layers", [1, 3])
def test_lstm_is_pytorchs(layers):
    torch = pytest.importorskip("torch")
    model = CharLSTM(7, layers=layers, hidden=5, rngs=nnx.Rngs(0))
    ids = jax.random.randint(jax.random.key(1), (3, 11), 0, 7)
    lstm = torch.nn.LSTM(5, 5, layers, batch_first=True)
    rngs = nnx.Rngs(3)
    with torch.no_grad():
        for number, cell in enumerate(model.cells):
            bias = cell.dense_h.bias
            bias[...] = jax.random.normal(rngs(), bias.shape)
            names = {
                "weight_ih": cell.dense_i.kernel,
                "weight_hh": cell.dense_h.kernel,
                "bias_hh": bias,
            }
            for name, variable in names.items():
                weight = getattr(lstm, f"{name}_l{number}")
                weight.copy_(torch_of(variable[...].T))
            getattr(lstm, f"bias_ih_l{number}").zero_()
        embedded = torch_of(model.embedding.embedding[...])[torch_of(ids).long()]
        outputs = lstm(embedded)[0]
        logits = outputs @ torch_of(model.logits.kernel[...])
    np.testing.assert_allclose(call(model, ids), logits.numpy(), rtol=1e-4, atol=1e-5)


def test_lstm_does_not_look_ahead():
    model = CharLSTM(7, layers=2, hidden=5, rngs=nnx.Rngs(0))
    ids, changed = np.array([[[0, 1, 2, 3, 4, 5]], [[0, 1, 2, 6, 4, 5]]])
    before, after = np.asarray(call(model, ids)), np.asarray(call(model, changed))
    np.testing.assert_array_equal(before[:, :3], after[:, :3])
    assert (before[:, 3:] != after[:, 3:]).any(axis=-1).all()
