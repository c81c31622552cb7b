"""A report as scalars and histograms, for TensorBoard and the like."""

from typing import Annotated, Any, NamedTuple, TypeAlias

import numpy as np

from optjax._arguments.checked import checked
from optjax._arguments.named import Text
from optjax._arguments.objects import Methods
from optjax.monitoring._report import OneReport, Report
from optjax.monitoring._summary import EDGES, PROBABILITIES, Summary

__all__ = ["Histogram", "histograms", "scalars", "write_tensorboard"]


_Writer: TypeAlias = Annotated[
    Any, Methods("add_scalar", "add_histogram_raw", hint="Such as a SummaryWriter")
]


class Histogram(NamedTuple):
    """Shares, which sum to 1, between edges in log10 of the rate."""

    shares: np.ndarray
    edges: np.ndarray


@checked
def scalars(report: OneReport) -> dict[str, float]:
    """What a report says, each number by "group/name", without what is not known.

    Rates are given as log10, since they span decades: `log10_rate_p50` is the median.

    Args:
      report: of one step, from `optjax.read_report`.

    Raises:
      ValueError: for a report of several steps.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> from optjax.monitoring import scalars
      >>> tx = optjax.monitor(optjax.sgd(0.1))
      >>> x = jnp.ones(2)
      >>> _, state = tx.update(x, tx.init(x), x)
      >>> print(f"{scalars(optjax.read_report(state))['overall/update_ratio']:.2f}")
      0.10
    """
    result: dict[str, float] = {}
    for group, summary in _of_one_step(report).items():
        values = {
            f"log10_rate_p{100 * p:02.0f}": quantile
            for p, quantile in zip(PROBABILITIES, summary.quantiles, strict=True)
        }
        values |= {
            name: getattr(summary, name)
            for name in Summary._fields
            if name not in ("step", "quantiles", "histogram", "sgd_since")
        }
        if summary.sgd_since >= 0:
            values["sgd_since"] = summary.sgd_since
        result |= {
            f"{group}/{name}": float(value)
            for name, value in values.items()
            if np.isfinite(value)
        }
    return result


@checked
def histograms(report: OneReport) -> dict[str, Histogram]:
    """The histogram of log10 of the rates, by "group/log10_rate".

    Args:
      report: of one step, from `optjax.read_report`.

    Raises:
      ValueError: for a report of several steps.
    """
    return {
        f"{group}/log10_rate": Histogram(summary.histogram, EDGES)
        for group, summary in _of_one_step(report).items()
        if np.sum(summary.histogram) > 0
    }


@checked
def write_tensorboard(
    writer: _Writer, report: OneReport, prefix: Text = "optimizer"
) -> None:
    """Write a report's scalars and histograms at its step.

    Args:
      writer: a `tensorboardX.SummaryWriter` (the extra `tensorboard`), or PyTorch's,
        which has the same methods.
      report: of one step, from `optjax.read_report`. One that has not seen a step yet
        writes nothing.
      prefix: what stands before the names.

    Raises:
      ValueError: for a report of several steps.

    Example:
        writer = tensorboardX.SummaryWriter("runs/mine")
        for step in range(1000):
            params, state = train_step(params, state)
            if step % 100 == 0:
                write_tensorboard(writer, optjax.read_report(state))
    """
    step = int(report.steps)
    if step == 0:
        return
    for name, value in scalars(report).items():
        writer.add_scalar(f"{prefix}/{name}", value, step)
    for name, (shares, edges) in histograms(report).items():
        centres = (edges[1:] + edges[:-1]) / 2
        writer.add_histogram_raw(
            f"{prefix}/{name}",
            min=float(centres[shares > 0].min()),
            max=float(centres[shares > 0].max()),
            num=1.0,
            sum=float(shares @ centres),
            sum_squares=float(shares @ centres**2),
            bucket_limits=edges[1:].tolist(),
            bucket_counts=shares.tolist(),
            global_step=step,
        )


def _of_one_step(report: Report) -> Report:
    if report.steps.ndim:
        raise ValueError(
            "needs a report of one step; this one has leading axes of shape "
            f"{report.steps.shape}. Choose one: report.at(-1)."
        )
    return report
