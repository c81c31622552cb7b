"""Small problems with a known answer, on which optimizers can be watched."""

from typing import Annotated, Any, TypeAlias

import jax
import jax.numpy as jnp
import optax

from optjax._arguments.checked import checked
from optjax._arguments.named import ArrayTree, Count, Size, Transformation
from optjax._arguments.numbers import at_least
from optjax._arguments.objects import Function, Vector

__all__ = ["minimize", "online_convex", "quadratic", "rosenbrock"]


_Vector: TypeAlias = Annotated[jax.Array, Vector("a vector of real numbers")]
_Point: TypeAlias = Annotated[jax.Array, Vector("a vector of two real numbers", 2)]
_Condition: TypeAlias = Annotated[
    float, at_least(1, "It is the largest curvature over the smallest")
]
_Objective: TypeAlias = Annotated[Any, Function("a function of x", 1)]


@checked
def quadratic(x: _Vector, condition: _Condition = 1.0) -> jax.Array:
    r"""f(x) = ½ Σ_i h_i x_i², h_i from 1 to `condition`, evenly in the logarithm.

    Minimum 0 at the origin; with `condition=1` a parabola.

    Args:
      x: a vector.
      condition: ratio of the largest to the smallest curvature, ≥ 1.

    Raises:
      ValueError: for an argument that is not what its name says.

    Example:
      >>> import jax.numpy as jnp
      >>> from optjax.problems import quadratic
      >>> quadratic(jnp.array([1.0, 1.0]), condition=100.0)
      Array(50.5, dtype=float32)
    """
    curvature = condition ** jnp.linspace(0.0, 1.0, x.shape[0])
    return 0.5 * jnp.sum(curvature * x**2)


@checked
def rosenbrock(x: _Point) -> jax.Array:
    r"""f(x, y) = (1 − x)² + 100 (y − x²)²: a curved valley, minimum 0 at (1, 1).

    Raises:
      ValueError: for an argument that is not what its name says.

    Example:
      >>> import jax.numpy as jnp
      >>> from optjax.problems import rosenbrock
      >>> rosenbrock(jnp.array([0.0, 0.0]))
      Array(1., dtype=float32)

    Reference: Rosenbrock, "An automatic method for finding the greatest or least value
    of a function", 1960.
    """
    return (1.0 - x[0]) ** 2 + 100.0 * (x[1] - x[0] ** 2) ** 2


@checked
def minimize(
    optimizer: Transformation, f: _Objective, x: ArrayTree, steps: Count
) -> tuple[jax.Array, jax.Array]:
    """The last iterate of `steps` full-gradient steps from x, and f along the way.

    Raises:
      ValueError: for an argument that is not what its name says.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> from optjax.problems import minimize, quadratic
      >>> x, values = minimize(optjax.sgd(0.5), quadratic, jnp.array([4.0]), steps=2)
      >>> x, values
      (Array([1.], dtype=float32), Array([8., 2.], dtype=float32))
    """

    def step(carry: Any, _: Any) -> tuple[Any, jax.Array]:
        x, state = carry
        value, gradient = jax.value_and_grad(f)(x)
        updates, state = optimizer.update(gradient, state, x)
        return (optax.apply_updates(x, updates), state), value

    (x, _), values = jax.lax.scan(step, (x, optimizer.init(x)), None, steps)
    return x, values


@checked
def online_convex(
    optimizer: Transformation, steps: Size, chunks: Size = 100
) -> jax.Array:
    r"""The iterates' mean in each of `chunks` equal parts of a run from x = 0.

    f_t(x) = 1010 x where t mod 101 = 1, else −10 x, on [−1, 1]. Over a period of 101
    steps the slopes add to 10, so x = −1 is the best fixed point and +1 the worst. The
    rare large gradient raises Adam's ν and is divided by it, the many small ones are
    not: Adam with b1 = 0.9, b2 = 0.99 and α/√t converges to +1.

    Args:
      optimizer: its schedule should decay like 1/√t for the theory to apply.
      steps: a multiple of `chunks`.
      chunks: how many means to return.

    Raises:
      ValueError: for an argument that is not what its line says, and steps that are no
        multiple of chunks.

    Example:
      >>> import optjax
      >>> from optjax.problems import online_convex
      >>> schedule = lambda count: 0.1 / (count + 1.0) ** 0.5
      >>> online_convex(optjax.sgd(schedule), steps=10_100, chunks=1).shape
      (1,)

    Reference: Reddi et al., "On the Convergence of Adam and Beyond", ICLR 2018,
    section 5 (synthetic experiments).
    """
    if steps % chunks:
        raise ValueError(
            f"steps must be a multiple of chunks, got {steps} and {chunks}."
        )

    def step(carry: Any, t: jax.Array) -> tuple[Any, jax.Array]:
        x, state = carry
        gradient = jnp.where(t % 101 == 1, 1010.0, -10.0)
        updates, state = optimizer.update(gradient, state, x)
        x = jnp.clip(optax.apply_updates(x, updates), -1.0, 1.0)
        return (x, state), x

    def chunk(carry: Any, ts: jax.Array) -> tuple[Any, jax.Array]:
        carry, xs = jax.lax.scan(step, carry, ts)
        return carry, jnp.mean(xs)

    x = jnp.array(0.0)
    ts = jnp.arange(1, steps + 1).reshape(chunks, -1)
    _, means = jax.lax.scan(chunk, (x, optimizer.init(x)), ts)
    return means
