"""Rules between SGD and Adam that never switch."""

from itertools import count

import numpy as np


def padam(
    x,
    gradient,
    alpha,
    *,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    p=0.125,
    running_max=True,
    debias=False,
):
    # v̂_t = max(v̂_{t-1}, v_t);  x ← x − α m_t / v̂_t^p   (Chen & Gu 2018, Algorithm 1)
    # with (√v̂ + ε)^{2p} for v̂^p. The authors' code multiplies the step by
    # √(1 − b2ᵗ)/(1 − b1ᵗ); pytorch_optimizer does too, and takes no maximum.
    m = np.zeros_like(x)
    v = np.zeros_like(x)
    top = np.zeros_like(x)
    for t in count(1):
        g = gradient(t, x)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        top = np.maximum(top, v) if running_max else v
        scale = np.sqrt(1 - b2**t) / (1 - b1**t) if debias else 1.0
        x = x - alpha(t) * scale * m / (np.sqrt(top) + eps) ** (2 * p)
        yield x


def nosadam(x, gradient, alpha, *, b1=0.9, gamma=0.1, eps=1e-8, debias=False):
    # B_t = Σ_{k≤t} k^{−γ},  β_t = B_{t-1}/B_t;  v_t = β_t v_{t-1} + (1 − β_t) g²
    # x ← x − α m_t / (√v_t + ε)   (Huang et al. 2019, Algorithm 1)
    # The authors' code debiases m; the paper's pseudo-code does not.
    m = np.zeros_like(x)
    v = np.zeros_like(x)
    total = 0.0
    for t in count(1):
        g = gradient(t, x)
        earlier, total = total, total + t**-gamma
        b2 = earlier / total
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        direction = m / (1 - b1**t) if debias else m
        x = x - alpha(t) * direction / (np.sqrt(v) + eps)
        yield x


def adamod(x, gradient, alpha, *, b1=0.9, b2=0.999, b3=0.999, eps=1e-8, folded=False):
    # η_t = α / (√v̂_t + ε);  s_t = b3 s_{t-1} + (1 − b3) η_t;  x ← x − min(η, s) m̂
    # (Ding et al. 2019, Algorithm 1). Folded, as in the authors' code and in
    # pytorch_optimizer: both corrections are inside the averaged rate,
    # η_t = α √(1 − b2ᵗ)/((1 − b1ᵗ)(√v + ε)), and the direction is the raw m.
    m = np.zeros_like(x)
    v = np.zeros_like(x)
    s = np.zeros_like(x)
    for t in count(1):
        g = gradient(t, x)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        if folded:
            rate = alpha(t) * np.sqrt(1 - b2**t) / ((1 - b1**t) * (np.sqrt(v) + eps))
            direction = m
        else:
            rate = alpha(t) / (np.sqrt(v / (1 - b2**t)) + eps)
            direction = m / (1 - b1**t)
        s = b3 * s + (1 - b3) * rate
        x = x - np.minimum(rate, s) * direction
        yield x


def adashift(
    x,
    gradient,
    alpha,
    *,
    b1=0.9,
    b2=0.999,
    eps=1e-10,
    keep_num=10,
    reduction="max",
):
    # m_t = Σ_{i<n} b1ⁱ g_{t-i} / Σ_{i<n} b1ⁱ;  v_t = b2 v_{t-1} + (1 − b2) φ(g_{t-n}²)
    # x ← x − α m_t / (√(v_t/(1 − b2^{t-n})) + ε)   (Zhou et al. 2019)
    # with n = keep_num and φ over the array. The paper assumes n gradients from
    # before the start and prints no ε and no debiasing; here, as in the codes in use,
    # x waits until t = n + 1.
    reduce = {"max": np.max, "mean": np.mean, "none": lambda square: square}[reduction]
    weights = b1 ** np.arange(keep_num)
    weights = weights / weights.sum()
    history = []
    v = np.zeros_like(x)
    for t in count(1):
        history.insert(0, gradient(t, x))
        if t > keep_num:
            v = b2 * v + (1 - b2) * reduce(history[keep_num] ** 2)
            m = sum(w * g for w, g in zip(weights, history, strict=False))
            root = np.sqrt(v / (1 - b2 ** (t - keep_num))) + eps
            x = x - alpha(t) * m / root
            history.pop()
        yield x
