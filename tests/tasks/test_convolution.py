"""The convolution: its gradients, and the form that they are compiled to."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from optjax.tasks.models.convolution import convolve


def plain(x, kernel, stride):
    """JAX's own, with its own gradients."""
    pad = kernel.shape[0] // 2
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((pad, pad), (pad, pad)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def gradients(convolution, stride):
    def weighted(x, kernel, weights):
        return jnp.vdot(convolution(x, kernel, stride), weights)

    return jax.grad(weighted, argnums=(0, 1))


def operands(size, stride, height, width):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (2, height, width, 3))
    kernel = jax.random.normal(keys[1], (size, size, 3, 4))
    shape = (2, -(-height // stride), -(-width // stride), 4)
    return x, kernel, jax.random.normal(keys[2], shape)


@pytest.mark.parametrize(
    ("size", "stride", "height", "width"),
    [(3, 1, 8, 7), (3, 2, 8, 7), (1, 1, 5, 6), (1, 2, 8, 7), (5, 3, 10, 9)],
)
def test_gradients_are_those_of_jax(size, stride, height, width):
    x, kernel, weights = operands(size, stride, height, width)
    ours = jax.jit(gradients(convolve, stride))(x, kernel, weights)
    theirs = jax.jit(gradients(plain, stride))(x, kernel, weights)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="a matter of CPUs")
@pytest.mark.parametrize("stride", [1, 2])
def test_in_a_loop_every_convolution_has_the_form_of_the_library(stride):
    def forms(convolution):
        gradient = gradients(convolution, stride)

        def descend(carry, _):
            x, kernel, weights = carry
            dx, dkernel = gradient(x, kernel, weights)
            weights = convolution(x, kernel, stride)
            return (x - dx, kernel - dkernel, weights), None

        program = jax.jit(lambda *carry: jax.lax.scan(descend, carry, length=5)[0])
        text = program.lower(*operands(3, stride, 8, 8)).compile().as_text()
        return re.findall(r" convolution\(.*dim_labels=(\S+?),", text)

    assert forms(convolve) == ["b01f_01io->b01f"] * 3
    # Where this fails XLA does it by itself, and the module has become needless.
    assert set(forms(plain)) != {"b01f_01io->b01f"}


def test_other_devices_get_the_gradients_of_jax():
    shapes = operands(3, 2, 8, 8)

    def dimensions(convolution):
        traced = jax.jit(gradients(convolution, 2)).trace(*shapes)
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
        found = re.findall(r"dim_numbers = (\[.*?\]->\[.*?\])", text)
        return sorted(found)

    assert dimensions(convolve) == dimensions(plain)
    assert len(dimensions(plain)) >= 2
