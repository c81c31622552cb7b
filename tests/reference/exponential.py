"""Adam and the rules that differ from it in one equation."""

from itertools import count

import numpy as np


def _constant_b1(b1):
    # The weights of momentum and gradient in Optax's Nesterov direction:
    # b1 m_t / (1 − b1^{t+1}) + (1 − b1) g_t / (1 − b1ᵗ)   (Dozat 2016, constant μ)
    for t in count(1):
        yield b1 / (1 - b1 ** (t + 1)), (1 - b1) / (1 - b1**t)


def _decaying_b1(b1, momentum_decay):
    # μ_t = b1 (1 − ½ 0.96^{t ψ});  μ_{t+1} m_t / (1 − Π_{i≤t+1} μ_i)
    # + (1 − μ_t) g_t / (1 − Π_{i≤t} μ_i)   (Dozat 2016, as in PyTorch)
    product = 1.0
    for t in count(1):
        mu = b1 * (1 - 0.5 * 0.96 ** (t * momentum_decay))
        following = b1 * (1 - 0.5 * 0.96 ** ((t + 1) * momentum_decay))
        product *= mu
        yield following / (1 - product * following), (1 - mu) / (1 - product)


def _adam(
    x,
    gradient,
    alpha,
    b1,
    b2,
    eps,
    eps_root,
    weights,
    weight_decay,
    debias_eps=False,
):
    # m_t = b1 m + (1 − b1) g;  v_t = b2 v + (1 − b2) g²
    # x ← x − α ( m̂ / (√(v/(1 − b2ᵗ) + ε_root) + ε) + λ x )   (Kingma & Ba 2015,
    # Loshchilov & Hutter 2019), m̂ = m/(1 − b1ᵗ), or Nesterov's two weights. With
    # debias_eps the root is (√v + ε)/√(1 − b2ᵗ), as at the end of Adam's section 2.
    m = np.zeros_like(x)
    v = np.zeros_like(x)
    for t in count(1):
        g = gradient(t, x)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        if weights is None:
            direction = m / (1 - b1**t)
        else:
            old, new = next(weights)
            direction = old * m + new * g
        if debias_eps:
            root = (np.sqrt(v) + eps) / np.sqrt(1 - b2**t)
        else:
            root = np.sqrt(v / (1 - b2**t) + eps_root) + eps
        factor = weight_decay(t - 1) if callable(weight_decay) else weight_decay
        x = x - alpha(t) * (direction / root + factor * x)
        yield x


def adam(
    x,
    gradient,
    alpha,
    *,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    eps_root=0.0,
    nesterov=False,
    debias_eps=False,
):
    weights = _constant_b1(b1) if nesterov else None
    return _adam(x, gradient, alpha, b1, b2, eps, eps_root, weights, 0.0, debias_eps)


def adamw(
    x,
    gradient,
    alpha,
    *,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    eps_root=0.0,
    weight_decay=1e-4,
    nesterov=False,
):
    weights = _constant_b1(b1) if nesterov else None
    return _adam(x, gradient, alpha, b1, b2, eps, eps_root, weights, weight_decay)


def nadam(
    x,
    gradient,
    alpha,
    *,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    eps_root=0.0,
    momentum_decay=None,
):
    weights = (
        _constant_b1(b1) if momentum_decay is None else _decaying_b1(b1, momentum_decay)
    )
    return _adam(x, gradient, alpha, b1, b2, eps, eps_root, weights, 0.0)


def nadamw(
    x,
    gradient,
    alpha,
    *,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    eps_root=0.0,
    weight_decay=1e-4,
    momentum_decay=None,
):
    weights = (
        _constant_b1(b1) if momentum_decay is None else _decaying_b1(b1, momentum_decay)
    )
    return _adam(x, gradient, alpha, b1, b2, eps, eps_root, weights, weight_decay)


def adamax(x, gradient, alpha, *, b1=0.9, b2=0.999, eps=1e-8):
    # u_t = max(b2 u_{t-1}, |g| + ε);  x ← x − α m / ((1 − b1ᵗ) u)
    # (Kingma & Ba 2015, Algorithm 2; ε as in Optax and PyTorch)
    m = np.zeros_like(x)
    u = np.zeros_like(x)
    for t in count(1):
        g = gradient(t, x)
        m = b1 * m + (1 - b1) * g
        u = np.maximum(b2 * u, np.abs(g) + eps)
        x = x - alpha(t) * m / ((1 - b1**t) * u)
        yield x


def amsgrad(
    x,
    gradient,
    alpha,
    *,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    eps_root=0.0,
    bias_correction_mu=True,
    bias_correction_nu=True,
    max_before_debias=False,
):
    # v̂_t = max(v̂_{t-1}, v_t);  x ← x − α m / (√v̂ + ε)   (Reddi et al. 2018)
    # Optax debiases v_t and takes the maximum of that; PyTorch takes the maximum of
    # the raw v_t and debiases it afterwards.
    m = np.zeros_like(x)
    v = np.zeros_like(x)
    top = np.zeros_like(x)
    for t in count(1):
        g = gradient(t, x)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        correction = 1 - b2**t if bias_correction_nu else 1.0
        if max_before_debias:
            top = np.maximum(top, v)
            used = top / correction
        else:
            top = np.maximum(top, v / correction)
            used = top
        direction = m / (1 - b1**t) if bias_correction_mu else m
        x = x - alpha(t) * direction / (np.sqrt(used + eps_root) + eps)
        yield x
