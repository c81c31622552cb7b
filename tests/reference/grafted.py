"""AdaBound around the rate at which SGD's step is as long as Adam's (optjax's own)."""

from itertools import count

import numpy as np


def graftbound(
    xs,
    gradient,
    alpha,
    *,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    gamma=1e-3,
    weight_decay=None,
    groups=None,
    b3=0.0,
    late=True,
    freeze_after=np.inf,
):
    # r_t = √(1 − b2ᵗ)/(1 − b1ᵗ) / (√v_t + ε),  f_t = ‖r_t m_t‖/‖m_t‖, of each
    # array or (groups=0) of all together, averaged with the decay b3 from the first on;
    # x ← x − α_t clip(r_t, f γt/(γt + 1), f (1 + 1/(γt))) m_t,
    # with f = f_{t−1} if late, else f_t, and after t = freeze_after
    # x ← x − α_t f m_t.  Without a direction f_t is what it was.  Where there is none
    # yet, nothing is clipped.
    m = [np.zeros_like(x) for x in xs]
    v = [np.zeros_like(x) for x in xs]
    f = [None for _ in xs]
    decays = [0.0] * len(xs) if weight_decay is None else weight_decay
    for t in count(1):
        gs = gradient(t, xs)
        rates = []
        for i, (x, g) in enumerate(zip(xs, gs, strict=True)):
            factor = decays[i](t - 1) if callable(decays[i]) else decays[i]
            g = g + factor * x
            m[i] = b1 * m[i] + (1 - b1) * g
            v[i] = b2 * v[i] + (1 - b2) * g * g
            scale = np.sqrt(1 - b2**t) / (1 - b1**t)
            rates.append(scale / (np.sqrt(v[i]) + eps))
        used = list(f)
        together = [range(len(xs))] if groups == 0 else [[i] for i in range(len(xs))]
        for group in together if t <= freeze_after else []:
            steps = np.concatenate([(rates[i] * m[i]).ravel() for i in group])
            directions = np.concatenate([m[i].ravel() for i in group])
            length = np.linalg.norm(directions)
            if length == 0:
                continue
            now = np.linalg.norm(steps) / length
            for i in group:
                weight = 1.0 if f[i] is None else (1 - b3) / (1 - b3**t)
                f[i] = weight * now + (1 - weight) * (0.0 if f[i] is None else f[i])
        used = used if late else f
        moved = []
        for i, x in enumerate(xs):
            r = rates[i]
            if used[i] is not None and t > freeze_after:
                r = np.full_like(r, used[i])
            elif used[i] is not None:
                low = used[i] * (gamma * t / (gamma * t + 1))
                r = np.clip(r, low, used[i] * (1 + 1 / (gamma * t)))
            moved.append(x - alpha(t) * r * m[i])
        xs = moved
        yield xs
