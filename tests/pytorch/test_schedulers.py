"""The schedules of optjax.pytorch against PyTorch's own, and far along."""

import math

import numpy as np
import pytest
from compiling import jit
from golden import dialect
from golden.dialect import SCHEDULERS

from optjax import pytorch

FAR = np.array([0, 1, 999, 10_000, 123_456, 1_000_000])


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_rate_is_pytorchs(name):
    """In float32, at every count of a run and at the one after it."""
    torch = pytest.importorskip("torch")
    lr, steps = 0.02, 200
    case = dialect.Case("SGD", {"lr": lr, "momentum": 0.9}, SCHEDULERS[name])
    params = {key: torch.nn.Parameter(torch.zeros(1)) for key in dialect.SHAPES}
    optimizer, scheduler = dialect.theirs(case, params)
    rates, momenta = [], []
    for _ in range(steps + 1):
        rates.append(optimizer.param_groups[0]["lr"])
        momenta.append(optimizer.param_groups[0]["momentum"])
        optimizer.step()
        if len(rates) <= steps:
            scheduler.step()
    ours = dialect.our_schedule(lr, SCHEDULERS[name])
    counts = np.arange(steps + 1)
    np.testing.assert_allclose(jit(ours)(counts), rates, rtol=2e-6, atol=1e-8)
    if ours.momentum is not None:
        np.testing.assert_allclose(jit(ours.momentum)(counts), momenta, rtol=2e-6)


@pytest.mark.parametrize(
    ("schedule", "exact"),
    [
        (pytorch.StepLR(0.1, 5000, 0.9), lambda n: 0.1 * 0.9 ** (n // 5000)),
        (pytorch.ExponentialLR(0.1, 0.99999), lambda n: 0.1 * 0.99999**n),
        (
            pytorch.CosineAnnealingLR(0.1, 300_000),
            lambda n: 0.05 * (1 + math.cos(math.pi * n / 300_000)),
        ),
        (
            pytorch.LinearLR(0.1, 0.1, 1.0, 700_000),
            lambda n: 0.1 * (0.1 + 0.9 * min(n, 700_000) / 700_000),
        ),
    ],
    ids=["StepLR", "ExponentialLR", "CosineAnnealingLR", "LinearLR"],
)
def test_far_along_no_digits_are_lost(schedule, exact):
    wanted = [exact(int(n)) for n in FAR]
    np.testing.assert_allclose(jit(schedule)(FAR), wanted, rtol=3e-6, atol=1e-8)


def test_restarts_are_at_whole_numbers():
    """Where a logarithm of the count would be off by one."""
    schedule = jit(pytorch.CosineAnnealingWarmRestarts(1.0, T_0=3, T_mult=3))
    restarts = 3 * (3 ** np.arange(12) - 1) // 2
    assert np.all(np.asarray(schedule(restarts)) == 1.0)
    assert np.all(np.asarray(schedule(restarts - 1))[1:] < 0.3)


def test_an_epochs_schedule_by_updates():
    by_epoch = pytorch.OneCycleLR(0.1, max_lr=1.0, total_steps=10)
    by_update = pytorch.per_epoch(by_epoch, steps_per_epoch=7)
    assert by_update.base_lr == 0.1
    for count in (0, 6, 7, 69):
        assert by_update(count) == by_epoch(count // 7)
        assert by_update.momentum(count) == by_epoch.momentum(count // 7)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: pytorch.StepLR(0.1, 0), "step_size must be an integer >= 1, got 0"),
        (lambda: pytorch.StepLR(pytorch.Adam(), 3), "lr must be a number, got Opt"),
        (lambda: pytorch.OneCycleLR(0.1, 1.0), "must be given total_steps"),
        (
            lambda: pytorch.OneCycleLR(0.1, [0.5, 1.0], 10),
            r"max_lr must be a number, got \[0.5, 1.0\].*each group a schedule",
        ),
        (
            lambda: pytorch.OneCycleLR(0.1, 1.0, 10, anneal_strategy="exp"),
            "anneal_strategy must be",
        ),
        (
            lambda: pytorch.SequentialLR(0.1, [pytorch.LinearLR(0.1)], [3]),
            "one milestone less",
        ),
        (
            lambda: pytorch.SequentialLR(0.1, [pytorch.LinearLR(0.2)], []),
            "base learning rate lr=0.1, got one with 0.2",
        ),
    ],
)
def test_wrong_input_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
