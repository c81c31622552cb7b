"""Gradient descent and its momenta."""

from itertools import count

import numpy as np


def sgd(x, gradient, alpha, *, momentum=None, nesterov=False, dampening=0.0):
    # b₁ = g₁,  b_t = μ b_{t-1} + (1 − d) g_t;  step α b_t, or α (g_t + μ b_t) for
    # Nesterov. PyTorch's first buffer is the gradient itself, not dampened.
    buffer = None
    for t in count(1):
        g = gradient(t, x)
        if momentum is None:
            step = g
        else:
            buffer = g if t == 1 else momentum * buffer + (1 - dampening) * g
            step = g + momentum * buffer if nesterov else buffer
        x = x - alpha(t) * step
        yield x


def sutskever(x, gradient, alpha, *, momentum):
    # v_t = μ v_{t-1} − α_t ∇f(θ_{t-1} + μ v_{t-1}),  θ_t = θ_{t-1} + v_t
    # (Sutskever et al. 2013): the parameters are the point without the look-ahead,
    # and the learning rate is inside the velocity.
    velocity = np.zeros_like(x)
    for t in count(1):
        velocity = momentum * velocity - alpha(t) * gradient(t, x + momentum * velocity)
        x = x + velocity
        yield x
