"""Read the summaries out of an optimizer's state, and print them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, TypeAlias

import jax
import numpy as np

from optjax._arguments.checked import checked
from optjax._arguments.kind import Kind
from optjax._arguments.named import OptimizerState
from optjax._arguments.objects import Instance
from optjax._groups import OVERALL
from optjax._tree import holds_arrays
from optjax.monitoring._final_rate import SuggestedFinalRate, band_notes, suggested
from optjax.monitoring._groups import as_names
from optjax.monitoring._summary import PROBABILITIES, Summary, Tables, read_tables
from optjax.monitoring._wrapper import MonitorState

__all__ = [
    "OneReport",
    "Report",
    "Reports",
    "field",
    "monitor_state",
    "read_report",
    "stack_reports",
    "suggest_final_lr",
    "tables_of",
    "transition",
]


class Report(Mapping[str, Summary]):
    """The summary of each group by its name, as NumPy arrays; "overall" is the last.

    It prints as a table. Where there is a leading axis of time or trials, the table
    shows the last of them. Below it stand `suggest_final_lr`, and a γ for bounds that
    are still far apart.
    """

    def __init__(self, groups: Mapping[str, Summary]):
        self._groups = dict(groups)

    def __getitem__(self, group: str) -> Summary:
        try:
            return self._groups[group]
        except KeyError:
            raise KeyError(
                f"no group {group!r}; there are {', '.join(self._groups)}"
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._groups)

    def __len__(self) -> int:
        return len(self._groups)

    def at(self, index: Any) -> "Report":
        """The report at one place, or some, of the leading axis."""
        return Report(
            {
                name: Summary(*(field[index] for field in summary))
                for name, summary in self.items()
            }
        )

    @property
    def steps(self) -> np.ndarray:
        """The steps that are described, of the shape of the leading axes."""
        steps: np.ndarray = self[OVERALL].step
        return steps

    def __str__(self) -> str:
        last = self
        while last.steps.ndim:
            last = last.at(-1)
        if last.steps == 0:
            return "no step has been summarised yet"
        head = ("group", "rate", "5 % to 95 %", "band", "lower", "inside", "upper")
        rows: list[tuple[str, ...]] = [(*head, "SGD since", "update/weight")]
        rows += [(name, *_cells(summary)) for name, summary in last.items()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if index == 0 else cell.rjust(width)
                for index, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        found = suggested(self if self.steps.ndim == 1 else last)
        notes = [] if found is None else [str(found)]
        return "\n".join([f"step {last.steps}", *lines, *notes, *band_notes(last)])

    def __repr__(self) -> str:
        return f"<Report of {len(self)} groups, steps of shape {self.steps.shape}>"


_READ = "Reports are what optjax.read_report(state) returns"


class _Reports(Kind):
    def accepts(self, value: Any) -> bool:
        if isinstance(value, Report):
            return True
        is_sequence = isinstance(value, Sequence) and not isinstance(value, str)
        return is_sequence and all(isinstance(item, Report) for item in value)


OneReport: TypeAlias = Annotated[Report, Instance(Report, "a report", _READ)]
Reports: TypeAlias = Annotated[
    Sequence[Report] | Report, _Reports("a report or a sequence of reports", _READ)
]


def _cells(summary: Summary) -> tuple[str, ...]:
    low, middle, high = (
        summary.quantiles[PROBABILITIES.index(p)] for p in (0.05, 0.5, 0.95)
    )
    is_bounded = bool(np.isfinite(summary.upper))
    return (
        _power(middle),
        "–" if np.isnan(middle) else f"{_power(low)} to {_power(high)}",
        f"{summary.lower:.3g} to {summary.upper:.3g}" if is_bounded else "–",
        *(
            f"{100 * share:.0f} %" if is_bounded else "–"
            for share in (summary.at_lower, summary.between, summary.at_upper)
        ),
        str(summary.sgd_since) if summary.sgd_since >= 0 else "–",
        "–" if np.isnan(summary.update_ratio) else f"{summary.update_ratio:.1e}",
    )


def _power(log: Any) -> str:
    return "–" if np.isnan(log) else f"{10.0 ** float(log):.2g}"


@checked
def read_report(state: OptimizerState) -> Report:
    """The latest summaries in an optimizer's state.

    Args:
      state: any tree with the state of an optimizer wrapped by `optjax.monitor` in it:
        the state itself, that of a chain around it, an `nnx.Optimizer`'s `opt_state`,
        a `TrainState`, what Orbax restores without a target; also a stack of them
        from `jax.lax.scan` or `jax.vmap`.

    Raises:
      ValueError: where there is none, or more than one.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx = optjax.monitor(optjax.sgd(0.5))
      >>> x = jnp.array([1.0, 2.0])
      >>> _, state = tx.update(x, tx.init(x), x)
      >>> print(optjax.read_report(state))
      step 1
      group    rate  5 % to 95 %  band  lower  inside  upper  SGD since  update/weight
      overall   0.5   0.5 to 0.5     –      –       –      –          1        5.0e-01
    """
    summaries = field(monitor_state(state), "summaries")
    # By leaves: Flax NNX wraps each in a variable.
    (names,) = jax.tree.leaves(field(summaries, "groups"))
    tables = jax.tree.map(np.asarray, tables_of(summaries))
    return Report(
        {
            name: read_tables(jax.tree.map(lambda x, i=i: x[..., i, :], tables))
            for i, name in enumerate(as_names(names))
        }
    )


def tables_of(summaries: Any) -> Tables:
    """The arrays of the summaries in a state, or in the mapping that was made of it."""
    tables = field(summaries, "tables")
    return Tables(
        *(x for n in Tables._fields for x in jax.tree.leaves(field(tables, n)))
    )


def monitor_state(state: Any) -> Any:
    """The one monitor's state in a tree.

    Raises:
      ValueError: where there is none, or more than one.
    """
    found = [
        node
        for node in jax.tree.leaves(state, is_leaf=_is_monitor_state)
        if _is_monitor_state(node)
    ]
    if len(found) != 1:
        raise ValueError(
            "the state must have one optjax.monitor in it, found "
            f"{len(found)}. "
            + (
                "Wrap the optimizer: optjax.monitor(optimizer)."
                if not found
                else "Hand over the part of the state that holds one of them."
            )
        )
    return found[0]


def _is_monitor_state(node: Any) -> bool:
    """Itself, or the mapping that Orbax and Flax make of a named tuple."""
    if isinstance(node, Mapping):
        is_one = set(node) == set(MonitorState._fields)
    else:
        is_one = isinstance(node, MonitorState)
    return is_one and holds_arrays(field(node, "summaries"))


def field(node: Any, name: str) -> Any:
    """Of a named tuple, or of the mapping that was made of one."""
    return node[name] if isinstance(node, Mapping) else getattr(node, name)


@checked
def stack_reports(reports: Reports) -> Report:
    """Reports along a leading axis of time, each summarised step once.

    Args:
      reports: reports in the order of time, or one whose first axis is time.

    Raises:
      ValueError: for no report, or one with another number of leading axes.

    Example:
      >>> import jax, jax.numpy as jnp, optjax
      >>> tx = optjax.monitor(optjax.adam(0.1), every=2)
      >>> x = jnp.ones(3)
      >>> def step(state, _):
      ...     _, state = tx.update(x, state, x)
      ...     return state, state
      >>> _, states = jax.lax.scan(step, tx.init(x), length=6)
      >>> optjax.stack_reports(optjax.read_report(states)).steps
      array([1, 2, 4, 6], dtype=int32)
    """
    if isinstance(reports, Report):
        stacked = reports
    else:
        if not reports:
            raise ValueError("stack_reports needs at least one report, got none.")
        stacked = Report(
            {
                name: Summary(
                    *map(
                        np.stack,
                        zip(*(report[name] for report in reports), strict=True),
                    )
                )
                for name in reports[0]
            }
        )
    if stacked.steps.ndim != 1:
        raise ValueError(
            "stack_reports needs one leading axis, time; the steps have the shape "
            f"{stacked.steps.shape}. Choose a trial first: report.at(index)."
        )
    _, first = np.unique(stacked.steps, return_index=True)
    return stacked.at(first[stacked.steps[first] > 0])


@checked
def transition(report: OneReport) -> dict[str, int | None]:
    """The step since which each group has been SGD, None where it is not yet.

    A group is SGD while the share of its coordinates that `optjax.monitor` was told
    (0.99) has rates within the factor that it was told (1.1) of the rate that the
    bounds converge to. The step is the first summarised one since which that has held
    at every summary, so its resolution is the monitor's `every`.

    Args:
      report: from `read_report`; with a leading axis of time, its end counts.

    Raises:
      ValueError: for what is no report.

    Example: AdaBound's band is within the factor 1.1 from t = 10/γ on.
      >>> import jax.numpy as jnp, optjax
      >>> tx = optjax.monitor(optjax.adabound(1e-3, gamma=2.0), every=1)
      >>> x = jnp.ones(3)
      >>> state = tx.init(x)
      >>> for _ in range(8):
      ...     _, state = tx.update(x, state, x)
      >>> optjax.transition(optjax.read_report(state))
      {'overall': 5}
    """
    while report.steps.ndim:
        report = report.at(-1)
    return {
        name: int(summary.sgd_since) if summary.sgd_since >= 0 else None
        for name, summary in report.items()
    }


@checked
def suggest_final_lr(report: OneReport) -> SuggestedFinalRate:
    r"""median_t ‖V_t ⊙ m_t‖ / ‖m_t‖ · max s_t: the `final_lr` that a run asks for.

    The rate at which the step of SGD with momentum is as long as the adaptive one, from
    a monitored run of `adam`, `adabound` before its bounds, or any other of the family:
    what `graftbound` measures while it runs. Looked at are the steps of the second
    half, all leaves together and each group of the monitor's, at the largest learning
    rate of the run. Where m is a sum of gradients, as of `momentum`, and not an
    average, the rate belongs to the sum.

    Args:
      report: from `read_report`; with a leading axis of time, as from
        `stack_reports`, there is a spread over time.

    Returns:
      `final_lr`, its spread over time and over the layers, and a `warning` where these
      disagree by more than ten. It prints as one line.

    Raises:
      ValueError: where no rate adapts, no step has been summarised, or the report has
        more axes than that of time.

    Example:
      >>> import jax, jax.numpy as jnp, optjax
      >>> tx, g = optjax.monitor(optjax.adam(0.1), every=1), jnp.array([3.0, 4.0])
      >>> def step(state, _):
      ...     _, state = tx.update(g, state, g)
      ...     return state, state
      >>> _, states = jax.lax.scan(step, tx.init(g), length=4)
      >>> print(optjax.suggest_final_lr(optjax.read_report(states)))
      final_lr=0.028 fits the step length of steps 2 to 4 (0.028 to 0.028)

    Reference: Agarwal et al., "Disentangling Adaptive Gradient Methods from Learning
    Rates", 2020, for the norms.
    """
    if report.steps.ndim > 1:
        raise ValueError(
            "suggest_final_lr needs a report with at most one leading axis, time; the "
            f"steps have the shape {report.steps.shape}. Choose a trial: report.at(i)."
        )
    found = suggested(report)
    if found is None:
        raise ValueError(
            "suggest_final_lr needs summaries of a rate that adapts, such as adam's or "
            "adabound's, under a gradient that is not 0; the report has none."
        )
    return found
