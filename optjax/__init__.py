"""optjax: stochastic gradient methods from SGD to AdaBound as one equation.

    x[t+1] = x[t] − s_t · V_t ⊙ m_t

`OPTIMIZERS` is the table of the family; `basic_form` builds a new member from a
direction m, a rate V and a schedule s.
"""

from optjax._signals import prepare as _prepare

# Before the imports of JAX that follow.
_prepare()

from optjax import optimizers
from optjax._accumulator import (
    centered_ema_of_squares,
    debias_squares,
    ema_of_squared_residuals,
    ema_of_squares,
    mean_of_squares,
    running_max,
    sign_ema_of_squares,
    sum_of_squares,
)
from optjax._adashift import scale_by_adashift
from optjax._audit.audit import audit
from optjax._bound import (
    Bounds,
    bound_clip,
    constant_bounds,
    exponential_bounds,
    gamma_for,
    hyperbolic_bounds,
    linear_bounds,
)
from optjax._compression import compressed
from optjax._direction import ema, nadam_ema, trace
from optjax._form import basic_form, precondition
from optjax._from_optax import from_optax_state
from optjax._memory import memory
from optjax._packing import packed
from optjax._rate import (
    correct_bias,
    limit_by_average,
    rate_by_accumulated_square,
    rate_by_adadelta,
    rate_by_infinity_norm,
    rate_by_one,
    rectify,
    scale_by_accumulated_square,
    scale_by_adadelta,
    scale_by_infinity_norm,
)
from optjax._rounding import stochastic_rounding
from optjax._sharding import state_shardings
from optjax._storage import convert_state
from optjax._swats import scale_by_swats
from optjax._target import Target, bound_around, grafted_target, projected_target
from optjax.fused._apply import apply_step
from optjax.fused._explain import explain_step
from optjax.fused._library import fused_step_available
from optjax.monitoring._hyperparameters import (
    hyperparameters,
    inject_hyperparams,
    set_hyperparameters,
)
from optjax.monitoring._report import (
    read_report,
    stack_reports,
    suggest_final_lr,
    transition,
)
from optjax.monitoring._sgd import sgd_equivalent
from optjax.monitoring._wrapper import monitor
from optjax.optimizers import *

__version__ = "0.1.0"

__all__ = [
    "Bounds",
    "Target",
    "apply_step",
    "audit",
    "basic_form",
    "bound_around",
    "bound_clip",
    "centered_ema_of_squares",
    "compressed",
    "constant_bounds",
    "convert_state",
    "correct_bias",
    "debias_squares",
    "ema",
    "ema_of_squared_residuals",
    "ema_of_squares",
    "explain_step",
    "exponential_bounds",
    "from_optax_state",
    "fused_step_available",
    "gamma_for",
    "grafted_target",
    "hyperbolic_bounds",
    "hyperparameters",
    "inject_hyperparams",
    "limit_by_average",
    "linear_bounds",
    "mean_of_squares",
    "memory",
    "monitor",
    "nadam_ema",
    "packed",
    "precondition",
    "projected_target",
    "rate_by_accumulated_square",
    "rate_by_adadelta",
    "rate_by_infinity_norm",
    "rate_by_one",
    "read_report",
    "rectify",
    "running_max",
    "scale_by_accumulated_square",
    "scale_by_adadelta",
    "scale_by_adashift",
    "scale_by_infinity_norm",
    "scale_by_swats",
    "set_hyperparameters",
    "sgd_equivalent",
    "sign_ema_of_squares",
    "stack_reports",
    "state_shardings",
    "stochastic_rounding",
    "suggest_final_lr",
    "sum_of_squares",
    "trace",
    "transition",
]
__all__ += optimizers.__all__
