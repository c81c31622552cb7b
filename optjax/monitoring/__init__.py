"""See into a running optimizer: its rates, its hyper-parameters, its way to SGD.

`monitor` keeps a summary of the effective rates in an optimizer's state, `read_report`
returns it, and this package turns reports into scalars, histograms and pictures.
"""

import importlib
from typing import Any

# Pictures need matplotlib, which `import optjax` does not: they load when asked for.
_PLACES = {
    "plot_quantiles": "_plots",
    "plot_rates": "_plots",
    "plot_transition": "_plots",
    "report_page": "_page",
    "Histogram": "_scalars",
    "histograms": "_scalars",
    "rate_metrics": "_metrics",
    "scalars": "_scalars",
    "write_tensorboard": "_scalars",
}

__all__ = sorted(_PLACES)


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
