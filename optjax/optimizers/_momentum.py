"""m and nothing else: V = 1."""

import functools

import optax

from optjax._arguments.checked import checked
from optjax._arguments.named import Decay, InexactDType, Schedule
from optjax._direction import trace
from optjax._form import basic_form
from optjax._rate import rate_by_one
from optjax.optimizers._row import Optimizer, Row

__all__ = ["sgd"]

ROWS: dict[str, Row] = {}


@checked
def sgd(
    learning_rate: Schedule,
    momentum: Decay | None = None,
    nesterov: bool = False,
    accumulator_dtype: InexactDType = None,
) -> Optimizer:
    r"""x ← x − α_t m_t: stochastic gradient descent, plain or with momentum.

    m_t = g_t without momentum, else m_t = g_t + μ m_{t−1}, and with Nesterov's
    look-ahead g_t + μ m_t.

    The momentum is a sum: with μ = 0.9 the steps are ten times those of an average
    with the same learning rate. PyTorch's SGD is the same with dampening = 0.
    `nesterov` without `momentum` has no effect, as in Optax.

    Args:
      learning_rate: α.
      momentum: μ in [0, 1), or None for plain SGD without state.
      nesterov: look one step ahead.
      accumulator_dtype: dtype in which m is stored; the parameters' by default (float32
        for float16).

    Raises:
      ValueError: for a hyper-parameter that is not what its line says.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx, g = optjax.sgd(0.1, momentum=0.9), jnp.array(1.0)
      >>> tx.update(g, tx.init(g))[0].round(3)
      Array(-0.1, dtype=float32)

    References: Robbins & Monro, 1951; Polyak, 1964; Nesterov, 1983; Sutskever et al.,
    "On the importance of initialization and momentum in deep learning", ICML 2013.
    """
    direction = (
        optax.identity()
        if momentum is None
        else trace(momentum, nesterov, accumulator_dtype)
    )
    return basic_form(direction, rate_by_one(), learning_rate)


ROWS["sgd"] = Row(sgd, "g", "1", "–", "α_t", "Robbins & Monro 1951")
ROWS["momentum"] = Row(
    functools.partial(sgd, momentum=0.9), "g + μ·m", "1", "–", "α_t", "Polyak 1964"
)
ROWS["nesterov"] = Row(
    functools.partial(sgd, momentum=0.9, nesterov=True),
    "g + μ·(g + μ·m)",
    "1",
    "–",
    "α_t",
    "Nesterov 1983",
)
