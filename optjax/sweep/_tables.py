"""The columns and rows of a result's tables: a row a trial, or a row an evaluation."""

from collections.abc import Iterator, Sequence
from typing import Any

from optjax.sweep._ranking import Ranking
from optjax.sweep._records import OWN_COLUMNS, Record


def column(hyper_name: str) -> str:
    """The title of a hyper-parameter's column."""
    return f"hyper_{hyper_name}" if hyper_name in OWN_COLUMNS else hyper_name


class Table:
    """The trials of a ranking, and all metrics that they have.

    Attributes:
      measured: the columns of metrics, in order.
      columns: all columns.
    """

    def __init__(self, ranking: Ranking, metrics: Sequence[str]) -> None:
        self._ranking, self._metrics = ranking, metrics
        metric = ranking.metric
        finals = [f"{name}_final" for name in metrics]
        self.measured = [f"{metric}_best", f"{metric}_best_step", *finals]
        self._hyper = [*map(column, ranking.hyper_names)]
        failed = any(record.message for record in ranking.records)
        self.columns = [
            *("trial", "optimizer", *self._hyper, "seed", "status", "steps"),
            *(*self.measured, *["message"] * failed),
        ]

    def rows(self) -> Iterator[dict[str, Any]]:
        """A row a trial; what a trial does not have is None."""
        return map(self._row, self._ranking.records)

    def evaluations(self) -> tuple[list[str], list[dict[str, Any]]]:
        """The columns and rows of all evaluations."""
        rows = [
            {
                **trial,
                "step": step,
                **{name: of[i] for name, of in record.curve.values.items()},
            }
            for record in self._ranking.records
            for trial in [self._trial(record)]
            for i, step in enumerate(record.curve.steps)
        ]
        own = ["trial", "optimizer", *self._hyper, "seed", "status", "step"]
        return [*own, *self._metrics], rows

    def _trial(self, record: Record) -> dict[str, Any]:
        """What both tables say of a trial."""
        spec, values = record.trial, record.trial.config.values
        return {
            "trial": spec.number,
            "optimizer": spec.config.optimizer,
            **{column(name): values.get(name) for name in self._ranking.hyper_names},
            "seed": spec.seed,
            "status": record.status,
        }

    def _row(self, record: Record) -> dict[str, Any]:
        row = {**dict.fromkeys(self.columns), **self._trial(record)}
        row["steps"] = record.steps
        if record.message:
            row["message"] = record.message
        if record.has_score:
            metric, curve = self._ranking.metric, record.curve
            best = self._ranking.score(record)
            row[f"{metric}_best"] = best
            row[f"{metric}_best_step"] = curve.steps[curve.values[metric].index(best)]
            for name, values in curve.values.items():
                row[f"{name}_final"] = values[-1]
        return row
