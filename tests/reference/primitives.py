"""Each part of the equation by itself, over one array of gradients (steps, ...)."""

import numpy as np


def _walk(update, gradients, *state):
    """Stack what `update(t, g, *state)` returns first; the rest is the next state."""
    path = []
    for t, g in enumerate(gradients, start=1):
        out, *state = update(t, g, *state)
        path.append(out)
    return np.stack(path)


def trace(gradients, decay, nesterov=False):
    def update(t, g, m):
        m = g + decay * m
        return (g + decay * m if nesterov else m), m

    return _walk(update, gradients, 0 * gradients[0])


def ema(gradients, decay, debias=True, nesterov=False):
    def update(t, g, m):
        m = decay * m + (1 - decay) * g
        now, ahead = (1 - decay**t, 1 - decay ** (t + 1)) if debias else (1, 1)
        return (decay * m / ahead + (1 - decay) * g / now if nesterov else m / now), m

    return _walk(update, gradients, 0 * gradients[0])


def nadam_ema(gradients, b1, momentum_decay):
    def mu(t):
        return b1 * (1 - 0.5 * 0.96 ** (t * momentum_decay))

    def update(t, g, m, product):
        m = b1 * m + (1 - b1) * g
        product = product * mu(t)
        ahead = product * mu(t + 1)
        return (
            (1 - mu(t)) * g / (1 - product) + mu(t + 1) * m / (1 - ahead),
            m,
            product,
        )

    return _walk(update, gradients, 0 * gradients[0], 1.0)


def sum_of_squares(gradients, initial_value):
    return initial_value + np.cumsum(gradients**2, axis=0)


def mean_of_squares(gradients, gamma):
    weights = np.arange(1.0, len(gradients) + 1) ** -gamma
    shaped = weights.reshape(-1, *[1] * (gradients.ndim - 1))
    total = np.cumsum(weights).reshape(shaped.shape)
    return np.cumsum(shaped * gradients**2, axis=0) / total


def ema_of_squares(gradients, b2, initial_value, debias=True):
    def update(t, g, v):
        v = b2 * v + (1 - b2) * g**2
        return v / (1 - b2**t) if debias else v, v

    return _walk(update, gradients, 0 * gradients[0] + initial_value)


def sign_ema_of_squares(gradients, b2, initial_value, debias=True):
    def update(t, g, v):
        v = v - (1 - b2) * np.sign(v - g**2) * g**2
        return v / (1 - b2**t) if debias else v, v

    return _walk(update, gradients, 0 * gradients[0] + initial_value)


def centered_ema_of_squares(gradients, b2, initial_value, debias=False):
    def update(t, g, m, v):
        m = b2 * m + (1 - b2) * g
        v = b2 * v + (1 - b2) * g**2
        share = 1 - b2**t if debias else 1.0
        return np.maximum(v / share - (m / share) ** 2, 0.0), m, v

    return _walk(update, gradients, 0 * gradients[0], 0 * gradients[0] + initial_value)


def running_max(gradients):
    return np.maximum.accumulate(np.maximum(gradients, 0.0), axis=0)


def debias_squares(gradients, b2):
    return _walk(lambda t, g: (g / (1 - b2**t),), gradients)


def rate_by_one(gradients):
    return np.ones_like(gradients)


def rate_by_adadelta(gradients, rho, eps):
    def update(t, g, v, x):
        v = rho * v + (1 - rho) * g**2
        rate = np.sqrt(x + eps) / np.sqrt(v + eps)
        return rate, v, rho * x + (1 - rho) * (rate * g) ** 2

    return _walk(update, gradients, 0 * gradients[0], 0 * gradients[0])


def rate_by_infinity_norm(gradients, b2, eps):
    def update(t, g, v):
        v = np.maximum(np.abs(g) + eps, b2 * v)
        return 1 / v, v

    return _walk(update, gradients, 0 * gradients[0])


def correct_bias(gradients, b1, b2, learning_rate):
    return _walk(
        lambda t, g: (g * learning_rate * np.sqrt(1 - b2**t) / (1 - b1**t),),
        gradients,
    )


def rectify(gradients, b2, threshold):
    limit = 2 / (1 - b2) - 1

    def update(t, g):
        rho = limit - 2 * t * b2**t / (1 - b2**t)
        if rho < threshold:
            return (np.ones_like(g),)
        square = (rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho)
        return (np.sqrt(square) * g,)

    return _walk(update, gradients)


def limit_by_average(gradients, b3):
    def update(t, g, s):
        s = b3 * s + (1 - b3) * g
        return np.minimum(g, s), s

    return _walk(update, gradients, 0 * gradients[0])


def hyperbolic_clip(gradients, final_lr, gamma):
    return _walk(
        lambda t, g: (
            np.clip(
                g,
                final_lr * (1 - 1 / (gamma * t + 1)),
                final_lr * (1 + 1 / (gamma * t)),
            ),
        ),
        gradients,
    )


def exponential_clip(gradients, final_lr, gamma):
    def update(t, g):
        share = -np.expm1(-gamma * t)
        return (np.clip(g, final_lr * share, final_lr / share),)

    return _walk(update, gradients)


def linear_clip(gradients, final_lr, horizon):
    def update(t, g):
        low = final_lr * min(t / horizon, 1)
        return (np.clip(g, low, final_lr * max(horizon / t, 1)),)

    return _walk(update, gradients)
