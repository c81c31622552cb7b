"""SWATS: Adam until a criterion is met, then SGD (Keskar & Socher 2017)."""

from itertools import count

import numpy as np


def swats(xs, gradient, alpha, *, b1=0.9, b2=0.999, eps=1e-9, positive=False):
    # Adam's step p_k, with ε outside the root of the raw a_k, and for all coordinates
    # together γ = p·p / (−p·g),  λ_k = b2 λ + (1 − b2) γ.  Switch after the step where
    # k > 1 and |λ_k/(1 − b2ᵏ) − γ| < ε, with Λ = λ_k/(1 − b2ᵏ) and v = 0. From then on
    # v_k = b1 v + g,  w ← w − (1 − b1) Λ v_k   (Algorithm 1)
    # The paper does not require that Λ > 0, without which SGD would ascend; `positive`
    # adds that.
    sizes = np.cumsum([x.size for x in xs])[:-1]
    shapes = [x.shape for x in xs]

    def split(flat):
        parts = np.split(flat, sizes)
        return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]

    w = np.concatenate([x.ravel() for x in xs])
    m, a, v = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)
    lam, switched = 0.0, None
    for k in count(1):
        g = np.concatenate([part.ravel() for part in gradient(k, split(w))])
        if switched is not None:
            v = b1 * v + g
            w = w - (1 - b1) * switched * v
        else:
            m = b1 * m + (1 - b1) * g
            a = b2 * a + (1 - b2) * g * g
            step = -alpha(k) * np.sqrt(1 - b2**k) / (1 - b1**k) * m / (np.sqrt(a) + eps)
            w = w + step
            if step @ g != 0:
                gamma = step @ step / -(step @ g)
                lam = b2 * lam + (1 - b2) * gamma
                rate = lam / (1 - b2**k)
                close = abs(rate - gamma) < eps
                if k > 1 and close and (rate > 0 or not positive):
                    switched = rate
        yield split(w)


def swats_any(xs, gradient, alpha, *, b1=0.9, b2=0.999, eps=1e-9):
    # pytorch_optimizer's reading: γ and λ for each array; the tolerance is
    # 10⁻⁸ + ε|γ|; Λ must be positive; the first array that meets the criterion (the
    # last of them in a tie) switches them all, with its own Λ. The root's argument
    # carries another 10⁻¹⁵.
    m = [np.zeros_like(x) for x in xs]
    a = [np.zeros_like(x) for x in xs]
    v = [np.zeros_like(x) for x in xs]
    lam = [0.0 for _ in xs]
    switched = None
    for k in count(1):
        gs = gradient(k, xs)
        if switched is not None:
            v = [b1 * old + g for old, g in zip(v, gs, strict=True)]
            xs = [x - (1 - b1) * switched * one for x, one in zip(xs, v, strict=True)]
            yield xs
            continue
        scale = alpha(k) * np.sqrt(1 - b2**k) / (1 - b1**k)
        moved, found = [], None
        for i, (x, g) in enumerate(zip(xs, gs, strict=True)):
            m[i] = b1 * m[i] + (1 - b1) * g
            a[i] = b2 * a[i] + (1 - b2) * g * g
            step = -scale * m[i] / (np.sqrt(a[i] + 1e-15) + eps)
            moved.append(x + step)
            dot = np.sum(step * g)
            if dot != 0:
                gamma = np.sum(step * step) / -dot
                lam[i] = b2 * lam[i] + (1 - b2) * gamma
                rate = lam[i] / (1 - b2**k)
                close = abs(rate - gamma) <= 1e-8 + eps * abs(gamma)
                if k > 1 and rate > 0 and close:
                    found = rate
        xs, switched = moved, found
        yield xs
