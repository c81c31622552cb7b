"""What came out of a sweep: a table, the best configurations, pictures."""

import csv
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from optjax.sweep.files import write_atomically
from optjax.sweep.problem import SweepError, describe
from optjax.sweep.records import DIVERGED, Config, Curve, Record, TrialSpec

if TYPE_CHECKING:
    import pandas
    import rich.table
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Best", "SweepResult", "record_from_json", "record_to_json"]


class Best(NamedTuple):
    """A configuration over its seeds; a diverged seed counts as worst of all.

    Attributes:
      config: the configuration.
      median: of each trial's best metric; infinite in the worse direction where most
        seeds diverged.
      low: the worst seed's.
      high: the best seed's.
      records: the trials, in order of their seeds.
    """

    config: Config
    median: float
    low: float
    high: float
    records: tuple[Record, ...]


@dataclass(frozen=True, repr=False)
class SweepResult:
    """All trials of a sweep, in order.

    Attributes:
      records: one a trial that has ended.
      metric: the name of the metric that ranks.
      mode: "max" or "min".
      about: how it was run (strategy, devices, versions).
    """

    records: tuple[Record, ...]
    metric: str
    mode: str
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def worst(self) -> float:
        """What a diverged trial counts as: infinite, in the worse direction."""
        return -math.inf if self.mode == "max" else math.inf

    def score(self, record: Record) -> float:
        """The best value of the metric on a trial's curve; `worst` if it diverged."""
        if record.status == DIVERGED:
            return self.worst
        pick = max if self.mode == "max" else min
        return pick(record.curve.values[self.metric])

    @property
    def hyper_names(self) -> tuple[str, ...]:
        """Every hyper-parameter that some trial has, in order of first appearance."""
        names: dict[str, None] = {}
        for record in self.records:
            names.update(dict.fromkeys(record.trial.config.hyper))
            names.update(dict.fromkeys(record.trial.config.static))
        return tuple(names)

    @property
    def table(self) -> list[dict[str, Any]]:
        """A row a trial; what a trial does not have is None, never 0.

        Columns: trial, optimizer, the hyper-parameters, seed, status, steps, the
        metric's best, the step of it, and the last value of every metric. A diverged
        trial has no values of metrics.
        """
        names = self.hyper_names
        return [self._row(record, names) for record in self.records]

    def _row(self, record: Record, names: Sequence[str]) -> dict[str, Any]:
        config, curve = record.trial.config, record.curve
        values = {**config.hyper, **config.static}
        row: dict[str, Any] = {
            "trial": record.trial.number,
            "optimizer": config.optimizer,
            **{name: values.get(name) for name in names},
            "seed": record.trial.seed,
            "status": record.status,
            "steps": record.steps,
        }
        diverged = record.status == DIVERGED
        best = None if diverged else self.score(record)
        row[f"{self.metric}_best"] = best
        row[f"{self.metric}_best_step"] = (
            None if best is None else curve.steps[curve.values[self.metric].index(best)]
        )
        for name, measured in curve.values.items():
            row[f"{name}_final"] = None if diverged else measured[-1]
        return row

    def to_csv(self, path: str | Path) -> None:
        """Write the table; the file is there whole or not at all."""
        rows = self.table

        def write(temporary: Path) -> None:
            with temporary.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(rows[0] if rows else ())
                writer.writerows(
                    [_text(value) for value in row.values()] for row in rows
                )

        write_atomically(Path(path), write)

    def to_parquet(self, path: str | Path) -> None:
        """Write the table as Parquet (needs the extra `sweep`)."""
        frame = self.to_pandas()
        write_atomically(Path(path), frame.to_parquet)

    def to_pandas(self) -> "pandas.DataFrame":
        """The table as a data frame (needs the extra `sweep`)."""
        return _pandas().DataFrame(self.table)

    def curves_to_pandas(self) -> "pandas.DataFrame":
        """Every evaluation as a row: trial, optimizer, seed, step, metrics."""
        rows = [
            {
                "trial": record.trial.number,
                "optimizer": record.trial.config.optimizer,
                **record.trial.config.hyper,
                "seed": record.trial.seed,
                "step": step,
                **{name: values[i] for name, values in record.curve.values.items()},
            }
            for record in self.records
            for i, step in enumerate(record.curve.steps)
        ]
        return _pandas().DataFrame(rows)

    def configurations(self, optimizer: str | None = None) -> list[Best]:
        """Each configuration over its seeds, best first.

        Ordered by the median, then the worst seed, then the order of the trials.
        """
        members: dict[Any, list[Record]] = {}
        for record in self.records:
            config = record.trial.config
            if optimizer in (None, config.optimizer):
                members.setdefault(_key(config), []).append(record)
        sign = -1.0 if self.mode == "max" else 1.0
        found = [self._over_seeds(records) for records in members.values()]
        return sorted(found, key=lambda best: (sign * best.median, sign * best.low))

    def _over_seeds(self, records: Sequence[Record]) -> Best:
        scores = [self.score(record) for record in records]
        worst, best = sorted((min(scores), max(scores)), reverse=self.mode == "min")
        # The lower of the middle two, so that one diverged seed of two counts.
        middle = (
            statistics.median_low(scores)
            if self.mode == "max"
            else statistics.median_high(scores)
        )
        ordered = sorted(records, key=lambda record: record.trial.seed)
        return Best(records[0].trial.config, middle, worst, best, tuple(ordered))

    def best(self, optimizer: str | None = None) -> Best:
        """The configuration with the best median over its seeds.

        Args:
          optimizer: among this optimizer's only.

        Raises:
          ValueError: where there is no trial, or none of that optimizer.
        """
        found = self.configurations(optimizer)
        if not found:
            raise ValueError(
                "no trial has ended"
                if optimizer is None
                else f"no trial of {optimizer!r} has ended; there are those of "
                f"{', '.join(self.optimizers) or 'none'}"
            )
        return found[0]

    @property
    def optimizers(self) -> tuple[str, ...]:
        """The optimizers, in order of first appearance."""
        names = (record.trial.config.optimizer for record in self.records)
        return tuple(dict.fromkeys(names))

    def summary(self) -> "rich.table.Table":
        """Each optimizer's best configuration as a rich table, best first."""
        from rich.table import Table

        table = Table(title=f"best {self.metric} ({self.mode}) by optimizer")
        for name in ("optimizer", "median", "range", "hyper-parameters", "ended"):
            right = name in ("median", "range")
            table.add_column(
                name, justify="right" if right else "left", overflow="fold"
            )
        sign = -1.0 if self.mode == "max" else 1.0
        bests = [self.best(name) for name in self.optimizers]
        for best in sorted(bests, key=lambda best: sign * best.median):
            name = best.config.optimizer
            inside = describe(best.config).removeprefix(f"{name}(").removesuffix(")")
            table.add_row(
                name,
                _number(best.median),
                f"{_number(best.low)} to {_number(best.high)}",
                inside,
                self._ends(name),
            )
        return table

    def _ends(self, optimizer: str) -> str:
        statuses = [
            record.status
            for record in self.records
            if record.trial.config.optimizer == optimizer
        ]
        return "\n".join(
            f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses)
        )

    def plot_sensitivity(
        self, x: str = "learning_rate", ax: "Axes | None" = None
    ) -> "Figure":
        """Draw the metric against a hyper-parameter, one line an optimizer."""
        from optjax.sweep.plots import plot_sensitivity

        return plot_sensitivity(self, x, ax)

    def plot_curves(self, ax: "Axes | None" = None) -> "Figure":
        """Draw the metric over the updates, each optimizer's best configuration."""
        from optjax.sweep.plots import plot_curves

        return plot_curves(self, ax)

    def plot_heatmap(
        self, x: str, y: str, optimizer: str | None = None, ax: "Axes | None" = None
    ) -> "Figure":
        """Draw the metric over two hyper-parameters of one optimizer."""
        from optjax.sweep.plots import plot_heatmap

        return plot_heatmap(self, x, y, optimizer, ax)

    def __repr__(self) -> str:
        """The number of trials and the best of them, in a line."""
        if not self.records:
            return "SweepResult(no trial has ended)"
        best = self.best()
        return (
            f"SweepResult({len(self.records)} trials, best {self.metric} "
            f"{_number(best.median)}: {describe(best.config)})"
        )


def record_to_json(record: Record) -> dict[str, Any]:
    """A record as plain data; `record_from_json` gives an equal one back."""
    config = record.trial.config
    return {
        "trial": record.trial.number,
        "optimizer": config.optimizer,
        "hyper": dict(config.hyper),
        "static": dict(config.static),
        "seed": record.trial.seed,
        "status": record.status,
        "steps": record.steps,
        "curve_steps": list(record.curve.steps),
        "curve": {name: list(v) for name, v in record.curve.values.items()},
    }


def record_from_json(data: Mapping[str, Any]) -> Record:
    """The record that `record_to_json` was given."""
    config = Config(data["optimizer"], data["hyper"], data["static"])
    return Record(
        TrialSpec(data["trial"], config, data["seed"]),
        data["status"],
        data["steps"],
        Curve(
            tuple(data["curve_steps"]),
            {name: tuple(values) for name, values in data["curve"].items()},
        ),
    )


def _key(config: Config) -> Any:
    return (
        config.optimizer,
        tuple(sorted(config.hyper.items())),
        tuple(sorted((name, repr(value)) for name, value in config.static.items())),
    )


def _text(value: Any) -> str:
    if value is None:
        return ""
    # Nine digits tell any two float32 numbers apart.
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def _number(value: float) -> str:
    return "diverged" if math.isinf(value) else f"{value:.4g}"


def _pandas() -> Any:
    try:
        import pandas
    except ModuleNotFoundError:
        raise SweepError(
            "data frames need pandas; run: pip install 'optjax[sweep]'"
        ) from None
    return pandas
