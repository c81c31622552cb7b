"""Rates from a sum or a plain average of squared gradients."""

from itertools import count

import numpy as np


def adagrad(
    x, gradient, alpha, *, initial_accumulator_value=0.1, eps=1e-7, eps_in_sqrt=True
):
    # G_t = G_{t-1} + g²;  x ← x − α g / √(G + ε)   (Duchi et al. 2011)
    # or α g / (√G + ε), PyTorch's. A coordinate with G = 0 has not moved.
    total = np.full_like(x, initial_accumulator_value)
    for t in count(1):
        g = gradient(t, x)
        total = total + g * g
        root = np.sqrt(total + eps) if eps_in_sqrt else np.sqrt(total) + eps
        x = x - alpha(t) * np.divide(g, root, out=np.zeros_like(x), where=total > 0)
        yield x


def rmsprop(
    x,
    gradient,
    alpha,
    *,
    decay=0.9,
    eps=1e-8,
    initial_scale=0.0,
    eps_in_sqrt=True,
    centered=False,
    momentum=None,
    nesterov=False,
    bias_correction=False,
    rate_in_buffer=True,
):
    # v_t = ρ v_{t-1} + (1 − ρ) g²;  d = g / √(v + ε) or g / (√v + ε)
    # centered: v − a², a the average of g. Bias correction divides v and a by 1 − ρᵗ.
    # Optax: b = μ b + α d, x ← x − b.  PyTorch: b = μ b + d, x ← x − α b.
    v = np.full_like(x, initial_scale)
    a = np.zeros_like(x)
    buffer = np.zeros_like(x)
    for t in count(1):
        g = gradient(t, x)
        v = decay * v + (1 - decay) * g * g
        a = decay * a + (1 - decay) * g
        correction = 1 - decay**t if bias_correction else 1.0
        spread = v / correction - (a / correction) ** 2 if centered else v / correction
        root = np.sqrt(spread + eps) if eps_in_sqrt else np.sqrt(spread) + eps
        d = alpha(t) * g / root if rate_in_buffer else g / root
        if momentum is not None:
            buffer = momentum * buffer + d
            d = d + momentum * buffer if nesterov else buffer
        x = x - (d if rate_in_buffer else alpha(t) * d)
        yield x


def adadelta(x, gradient, alpha, *, rho=0.9, eps=1e-6, weight_decay=0.0):
    # E_t = ρ E_{t-1} + (1 − ρ) g²;  d = g √(D_{t-1} + ε) / √(E_t + ε)
    # D_t = ρ D_{t-1} + (1 − ρ) d²;  x ← x − α d   (Zeiler 2012; decay is coupled)
    squares = np.zeros_like(x)
    deltas = np.zeros_like(x)
    for t in count(1):
        factor = weight_decay(t - 1) if callable(weight_decay) else weight_decay
        g = gradient(t, x) + factor * x
        squares = rho * squares + (1 - rho) * g * g
        d = g * np.sqrt(deltas + eps) / np.sqrt(squares + eps)
        deltas = rho * deltas + (1 - rho) * d * d
        x = x - alpha(t) * d
        yield x
