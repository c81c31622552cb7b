"""Adam with another second moment, or with its variance rectified."""

from itertools import count

import numpy as np


def yogi(x, gradient, alpha, *, b1=0.9, b2=0.999, eps=1e-3, initial=1e-6, debias=True):
    # v_t = v_{t-1} − (1 − b2) sign(v_{t-1} − g²) g²;  x ← x − α m / (√v + ε)
    # (Zaheer et al. 2018, Algorithm 2, which starts both moments at 0 and does not
    # debias; Optax starts both at 10⁻⁶ and debiases both)
    m = np.full_like(x, initial)
    v = np.full_like(x, initial)
    for t in count(1):
        g = gradient(t, x)
        m = b1 * m + (1 - b1) * g
        v = v - (1 - b2) * np.sign(v - g * g) * g * g
        first, second = (1 - b1**t, 1 - b2**t) if debias else (1.0, 1.0)
        x = x - alpha(t) * (m / first) / (np.sqrt(v / second) + eps)
        yield x


def adabelief(
    x, gradient, alpha, *, b1=0.9, b2=0.999, eps=1e-16, eps_root=1e-16, nesterov=False
):
    # s_t = b2 s_{t-1} + (1 − b2)(g − m_t)² + ε_root, the ε_root kept in s
    # x ← x − α m̂ / (√(s/(1 − b2ᵗ)) + ε)   (Zhuang et al. 2020, Algorithm 2)
    m = np.zeros_like(x)
    s = np.zeros_like(x)
    for t in count(1):
        g = gradient(t, x)
        m = b1 * m + (1 - b1) * g
        s = b2 * s + (1 - b2) * (g - m) ** 2 + eps_root
        if nesterov:
            direction = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        else:
            direction = m / (1 - b1**t)
        x = x - alpha(t) * direction / (np.sqrt(s / (1 - b2**t)) + eps)
        yield x


def radam(
    x,
    gradient,
    alpha,
    *,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    eps_root=0.0,
    threshold=5.0,
    nesterov=False,
    debias_eps=False,
):
    # ρ_∞ = 2/(1 − b2) − 1,  ρ_t = ρ_∞ − 2 t b2ᵗ/(1 − b2ᵗ)   (Liu et al. 2020)
    # ρ_t ≥ threshold: x ← x − α r_t m̂ / (√v̂ + ε);  else x ← x − α m̂
    # r_t² = (ρ_t − 4)(ρ_t − 2) ρ_∞ / ((ρ_∞ − 4)(ρ_∞ − 2) ρ_t)
    # The paper's threshold is 4, Optax's and PyTorch's is 5. PyTorch divides by
    # (√v + ε)/√(1 − b2ᵗ), so that its ε is debiased too.
    m = np.zeros_like(x)
    v = np.zeros_like(x)
    limit = 2 / (1 - b2) - 1
    for t in count(1):
        g = gradient(t, x)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        if nesterov:
            direction = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        else:
            direction = m / (1 - b1**t)
        length = limit - 2 * t * b2**t / (1 - b2**t)
        if length >= threshold:
            r = np.sqrt(
                (length - 4)
                * (length - 2)
                * limit
                / ((limit - 4) * (limit - 2) * length)
            )
            if debias_eps:
                root = (np.sqrt(v) + eps) / np.sqrt(1 - b2**t)
            else:
                root = np.sqrt(v / (1 - b2**t) + eps_root) + eps
            direction = r * direction / root
        x = x - alpha(t) * direction
        yield x
