"""Augmentation: every window and mirroring is drawn, and only these; pixels scale."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from optjax.tasks._augment import (
    CIFAR10_MEAN,
    CIFAR10_STD,
    normalise,
    random_crop_and_flip,
)

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

PAD = 2
augment = jax.jit(random_crop_and_flip, static_argnames="pad")


def picture(height=5, width=7, channels=2, dtype=np.uint8):
    """No two pixels alike, and none 0, so that any change shows."""
    shape = (height, width, channels)
    return (1 + np.arange(np.prod(shape))).reshape(shape).astype(dtype)


def every_outcome(image, pad):
    """All (2·pad + 1)² windows and their mirror images, by plain slicing."""
    height, width, _ = image.shape
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    return {
        (top, left, mirrored): (window[:, ::-1] if mirrored else window)
        for top in range(2 * pad + 1)
        for left in range(2 * pad + 1)
        for window in [padded[top : top + height, left : left + width]]
        for mirrored in (False, True)
    }


def which(images, outcomes):
    """What was drawn for each image; fails for an image that is no outcome."""
    drawn = {outcome.tobytes(): name for name, outcome in outcomes.items()}
    assert len(drawn) == len(outcomes)
    return [drawn[image.tobytes()] for image in np.asarray(images)]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, jnp.bfloat16])
def test_every_window_and_mirroring_equally_often(dtype):
    image, count = picture(dtype=dtype), 5000
    images = np.broadcast_to(image, (count, *image.shape))
    out = augment(jax.random.key(0), images, pad=PAD)
    assert out.shape == images.shape
    assert out.dtype == images.dtype
    names = which(out, every_outcome(image, PAD))
    assert len(set(names)) == 2 * (2 * PAD + 1) ** 2
    _, times = np.unique([str(name) for name in names], return_counts=True)
    # Of 5,000 in 50 cells: 100 each, with a standard deviation of 10.
    assert times.min() > 55
    assert times.max() < 145


def test_images_keep_their_places():
    images = np.stack([picture() + 80 * i for i in range(3)])
    out = augment(jax.random.key(3), images, pad=PAD)
    for image, changed in zip(images, np.asarray(out), strict=True):
        which([changed], every_outcome(image, PAD))


def test_the_usual_pad_is_4():
    images = np.broadcast_to(picture(), (2000, 5, 7, 2))
    names = which(augment(jax.random.key(1), images), every_outcome(picture(), 4))
    assert {top for top, _, _ in names} == {left for _, left, _ in names} == {*range(9)}


def test_without_pad_images_are_only_mirrored():
    images = np.broadcast_to(picture(), (64, 5, 7, 2))
    names = which(
        augment(jax.random.key(0), images, pad=0), every_outcome(picture(), 0)
    )
    assert set(names) == {(0, 0, False), (0, 0, True)}


def test_the_key_decides():
    images = np.broadcast_to(picture(), (64, 5, 7, 2))
    first, again, other = (augment(jax.random.key(k), images) for k in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_scan_and_vmap_give_what_a_loop_gives():
    images = np.broadcast_to(picture(), (16, 5, 7, 2))
    keys = jax.random.split(jax.random.key(0), 3)
    loop = np.stack([augment(key, images) for key in keys])

    @jax.jit
    def both_ways(keys):
        lanes = jax.vmap(random_crop_and_flip, in_axes=(0, None))(keys, images)
        _, scanned = jax.lax.scan(
            lambda carry, key: (carry, random_crop_and_flip(key, images)), None, keys
        )
        return lanes, scanned

    lanes, scanned = both_ways(keys)
    np.testing.assert_array_equal(lanes, loop)
    np.testing.assert_array_equal(scanned, loop)
    assert (loop[0] != loop[1]).any()


def test_wrong_arguments():
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=r"\(n, h, w, c\), got \(5, 7, 2\)"):
        random_crop_and_flip(key, picture())
    with pytest.raises(ValueError, match="pad must be 0 or more pixels, got -1"):
        random_crop_and_flip(key, picture()[None], pad=-1)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32, jnp.bfloat16])
def test_normalise(dtype):
    raw = np.arange(0, 256, 5, dtype=np.uint8)[:51].reshape(1, 17, 1, 3)
    whole = np.issubdtype(dtype, np.integer)
    images = (raw if whole else raw / 255).astype(dtype)
    out = normalise(jnp.asarray(images))
    assert out.dtype == jnp.float32
    unit = images.astype(np.float64) / (255 if whole else 1)
    expected = (unit - [0.4914, 0.4822, 0.4465]) / [0.2023, 0.1994, 0.2010]
    np.testing.assert_allclose(out, expected, atol=2e-6)


def test_normalise_by_other_values():
    images = np.full((2, 3, 3, 1), 51, np.uint8)
    np.testing.assert_allclose(normalise(images, [0.1], [0.5]), 0.2, atol=1e-6)
    with pytest.raises(ValueError, match="each of the 1 channels"):
        normalise(images, CIFAR10_MEAN, CIFAR10_STD)
