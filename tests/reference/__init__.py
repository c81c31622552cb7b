"""Independent float64 NumPy implementations of every optimizer of the family.

Each rule is written from its paper's equations, or from the equations that a
library documents where the rule is that library's own convention. No rule uses JAX,
Optax or optjax. A rule is a generator over one array: it receives the starting point
`x`, a function `gradient(t, x)` and a step size `alpha(t)`, with t = 1, 2, ..., and
yields x after every step.
"""

from .run import RULES, run

__all__ = ["RULES", "run"]
