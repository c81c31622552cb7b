"""Draw a run's way from Adam to SGD: python docs/figures/monitor.py.

AdaBound trains the digits network; writes monitor_rates.png, monitor_transition.png
and monitor_quantiles.png beside this file. Needs the extra `race`.
"""

from pathlib import Path

import jax
import jax.numpy as jnp

import optjax
from optjax.monitoring import plot_quantiles, plot_rates, plot_transition
from optjax.tasks import digits

STEPS = 2000


def optimizer(learning_rate):
    # The band is within a factor 1.1 of the SGD rate after half of the run.
    gamma = optjax.gamma_for(STEPS, fraction=0.5)
    bounded = optjax.adabound(learning_rate, final_lr=0.1, gamma=gamma)
    return optjax.monitor(bounded, every=1, groups=2)


def step(state, _):
    state, _ = trial.step(state)
    return state, state.opt_state.summaries


trial = digits.trial(optimizer)
state = trial.init(jax.random.key(0), {"learning_rate": jnp.float32(1e-3)})
last, summaries = jax.jit(lambda s: jax.lax.scan(step, s, length=STEPS))(state)
print({k: round(float(v), 3) for k, v in trial.evaluate(last).items()})

over_time = optjax.read_report(last.opt_state._replace(summaries=summaries))
print(over_time)
here = Path(__file__).parent
for name, figure in {
    "rates": plot_rates(over_time),
    "transition": plot_transition(over_time),
    "quantiles": plot_quantiles(over_time),
}.items():
    figure.savefig(here / f"monitor_{name}.png")
    print(f"wrote monitor_{name}.png")
