"""A monitored optimizer's rates as metrics, in a compiled step."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from optjax._arguments.checked import checked
from optjax._arguments.named import OptimizerState
from optjax.monitoring._report import field, monitor_state, tables_of
from optjax.monitoring._summary import EDGES, quantiles_of

__all__ = ["NO_RATE", "RATE_METRICS", "rate_metrics"]

#: Of a state without a rate, and of a rate that is 0.
NO_RATE = float(np.float32(10 ** EDGES[0]))
#: Their names, and the quantile that each is.
RATE_METRICS = {"rate_p05": 0.05, "rate_p50": 0.5, "rate_p95": 0.95}


@checked
def rate_metrics(state: OptimizerState) -> dict[str, Any]:
    """The quantiles 0.05, 0.5 and 0.95 of the effective rates, for a step's metrics.

    Where a sweep's trials return them, its page shows each optimizer's effective rates
    over the updates. They are those of all coordinates at the monitor's last summary,
    and never what a sweep would take for a divergence: below 1e-10, or where there is
    no rate, they are 1e-10.

    Args:
      state: any tree with the state of an optimizer wrapped by `optjax.monitor` in it.

    Returns:
      Scalars by `rate_p05`, `rate_p50` and `rate_p95`.

    Raises:
      ValueError: where there is no monitor in the state, or more than one.

    Example:
      >>> import jax, jax.numpy as jnp, optjax, optjax.monitoring
      >>> tx = optjax.monitor(optjax.sgd(0.5), every=1)
      >>> @jax.jit
      ... def step(x, state):
      ...     updates, state = tx.update(x, state, x)
      ...     return optjax.monitoring.rate_metrics(state)
      >>> x = jnp.ones(2)
      >>> print(f"{step(x, tx.init(x))['rate_p50']:.2f}")
      0.50
    """
    tables = tables_of(field(monitor_state(state), "summaries"))
    # All leaves' group is the last.
    overall = jax.tree.map(lambda x: x[..., -1, :], tables)
    rates = quantiles_of(overall, [*RATE_METRICS.values()])
    most = float(10 ** EDGES[-1])
    rates = jnp.clip(jnp.nan_to_num(rates, nan=NO_RATE), NO_RATE, most)
    return {name: rates[..., i] for i, name in enumerate(RATE_METRICS)}
