"""AdaBound and its relatives (Luo et al. 2019)."""

from itertools import count

import numpy as np


def _adabound(
    x,
    gradient,
    alpha,
    *,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    final_lr=0.1,
    gamma=1e-3,
    weight_decay=0.0,
    base_lr=None,
    running_max=False,
    decoupled=False,
    fixed_decay=False,
    root_eps=0.0,
    debias=True,
):
    # lo_t = f (1 − 1/(γt + 1)),  hi_t = f (1 + 1/(γt)),  f = final_lr · α_t/α_0
    # r_t = clip(α_t √(1 − b2ᵗ)/(1 − b1ᵗ) / (√v_t + ε), lo_t, hi_t);  x ← x − r_t m_t
    # as in the authors' code, where m is not debiased by itself. AMSBound puts the
    # running maximum of v_t under the root. Decay: coupled, g + λx; or decoupled,
    # x ← x − r_t m_t − λ' x with λ' = λ (fixed) or α_t λ.
    # pytorch_optimizer adds root_eps = 10⁻¹⁵ under the root. The paper's Algorithm 2
    # debiases nothing and has α_t = α/√t.
    m = np.zeros_like(x)
    v = np.zeros_like(x)
    top = np.zeros_like(x)
    base = alpha(1) if base_lr is None else base_lr
    for t in count(1):
        g = gradient(t, x)
        factor = weight_decay(t - 1) if callable(weight_decay) else weight_decay
        if not decoupled:
            g = g + factor * x
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        top = np.maximum(top, v) if running_max else v
        rate = alpha(t) / (np.sqrt(top + root_eps) + eps)
        if debias:
            rate = rate * np.sqrt(1 - b2**t) / (1 - b1**t)
        limit = final_lr * alpha(t) / base
        lower = limit * (1 - 1 / (gamma * t + 1))
        upper = limit * (1 + 1 / (gamma * t))
        step = np.clip(rate, lower, upper) * m
        if decoupled:
            step = step + (factor if fixed_decay else alpha(t) * factor) * x
        x = x - step
        yield x


def adabound(x, gradient, alpha, **hyper):
    return _adabound(x, gradient, alpha, **hyper)


def amsbound(x, gradient, alpha, **hyper):
    return _adabound(x, gradient, alpha, running_max=True, **hyper)


def adaboundw(
    x,
    gradient,
    alpha,
    *,
    weight_decay=5e-4,
    fixed_decay=False,
    amsbound=False,
    **hyper,
):
    return _adabound(
        x,
        gradient,
        alpha,
        weight_decay=weight_decay,
        running_max=amsbound,
        decoupled=True,
        fixed_decay=fixed_decay,
        **hyper,
    )
