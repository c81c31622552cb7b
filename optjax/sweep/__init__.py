"""Sweeps: every trial of a hyper-parameter search in one compiled program.

result = optjax.sweep.run(trial, space, steps=300, evaluate_every=10,
                          metric="val_accuracy", out="runs/mine")
"""

from optjax.sweep._convolutions import fast_convolutions
from optjax.sweep._engine.devices import use_all_cores
from optjax.sweep._epochs import Batches, epochs
from optjax.sweep._errors import SweepError
from optjax.sweep._optuna import Optuna
from optjax.sweep._records import (
    DIVERGED,
    FAILED,
    FINISHED,
    STOPPED,
    Config,
    Curve,
    Record,
    Status,
    TrialSpec,
)
from optjax.sweep._result import SweepResult
from optjax.sweep._run import Interrupted, run, run_alone
from optjax.sweep._schedules import schedule
from optjax.sweep._search import Search, Searcher
from optjax.sweep._space.distributions import (
    choice,
    grid,
    log_uniform,
    only,
    per_optimizer,
    static,
    uniform,
)
from optjax.sweep._space.space import configurations
from optjax.sweep._space.text import parse_dimension
from optjax.sweep._stopping import Median, Rung, StoppingRule, SuccessiveHalving
from optjax.sweep._strategies import Lane, Strategy
from optjax.sweep._supervised import from_linen, from_nnx
from optjax.sweep._trial import (
    Factory,
    MakeTrial,
    Metrics,
    State,
    Trial,
    from_functions,
)

__all__ = [
    "DIVERGED",
    "FAILED",
    "FINISHED",
    "STOPPED",
    "Batches",
    "Config",
    "Curve",
    "Factory",
    "Interrupted",
    "Lane",
    "MakeTrial",
    "Median",
    "Metrics",
    "Optuna",
    "Record",
    "Rung",
    "Search",
    "Searcher",
    "State",
    "Status",
    "StoppingRule",
    "Strategy",
    "SuccessiveHalving",
    "SweepError",
    "SweepResult",
    "Trial",
    "TrialSpec",
    "choice",
    "configurations",
    "epochs",
    "fast_convolutions",
    "from_functions",
    "from_linen",
    "from_nnx",
    "grid",
    "log_uniform",
    "only",
    "parse_dimension",
    "per_optimizer",
    "run",
    "run_alone",
    "schedule",
    "static",
    "uniform",
    "use_all_cores",
]
