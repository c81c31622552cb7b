"""What came out of a sweep: a table, the best configurations, pictures."""

import html
import importlib
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from optjax.sweep._problem import SweepError, describe
from optjax.sweep._records import (
    DIVERGED,
    OWN_COLUMNS,
    PLAIN,
    Config,
    Curve,
    Record,
    TrialSpec,
)
from optjax.sweep._store.files import as_text, write_atomically, write_csv

if TYPE_CHECKING:
    import pandas
    import rich.table
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Best", "SweepResult", "record_from_json", "record_to_json"]

_SUMMARY_COLUMNS = ("optimizer", "median", "range", "hyper-parameters", "ended")


class Best(NamedTuple):
    """A configuration over its seeds; a diverged seed counts as worst of all.

    Attributes:
      config: the configuration.
      median: of each trial's best metric; infinite in the worse direction where half
        of the seeds or more diverged.
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
      about: what the caller said of it, and how it was run (strategy, devices,
        versions).
      finished_before: whether the directory had every trial, and nothing was run.
    """

    records: tuple[Record, ...]
    metric: str
    mode: str
    about: Mapping[str, Any] = field(default_factory=dict)
    finished_before: bool = False

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
    def metric_names(self) -> tuple[str, ...]:
        """Every metric that some trial has, in order of first appearance."""
        names: dict[str, None] = {self.metric: None} if not self.records else {}
        for record in self.records:
            names.update(dict.fromkeys(record.curve.values))
        return tuple(names)

    @property
    def table(self) -> list[dict[str, Any]]:
        """A row a trial; what a trial does not have is None, never 0.

        Columns: trial, optimizer, the hyper-parameters, seed, status, steps, the
        metric's best, the step of it, and the last value of every metric. A diverged
        trial has no values of metrics. A hyper-parameter whose name is a column's, such
        as seed, has the column hyper_seed.
        """
        hyper, metrics = self.hyper_names, self.metric_names
        return [self._row(record, hyper, metrics) for record in self.records]

    def _row(
        self, record: Record, hyper: Sequence[str], metrics: Sequence[str]
    ) -> dict[str, Any]:
        curve = record.curve
        row: dict[str, Any] = {
            "trial": record.trial.number,
            "optimizer": record.trial.config.optimizer,
            **_hyper_cells(record.trial.config, hyper),
            "seed": record.trial.seed,
            "status": record.status,
            "steps": record.steps,
            **dict.fromkeys(self._measured(metrics)),
        }
        if record.status != DIVERGED:
            best = self.score(record)
            row[f"{self.metric}_best"] = best
            row[f"{self.metric}_best_step"] = curve.steps[
                curve.values[self.metric].index(best)
            ]
            for name, measured in curve.values.items():
                row[f"{name}_final"] = measured[-1]
        return row

    def _measured(self, metrics: Sequence[str]) -> list[str]:
        return [
            f"{self.metric}_best",
            f"{self.metric}_best_step",
            *(f"{name}_final" for name in metrics),
        ]

    def _columns(self) -> list[str]:
        hyper = [_column(name) for name in self.hyper_names]
        measured = self._measured(self.metric_names)
        return ["trial", "optimizer", *hyper, "seed", "status", "steps", *measured]

    def to_csv(self, path: str | Path) -> None:
        """Write the table; the file is there whole or not at all.

        Nine digits are written, which tell any two float32 numbers apart. What is
        absent stays empty.
        """
        columns, rows = self._columns(), self.table
        cells = ([row[name] for name in columns] for row in rows)
        write_csv(Path(path), columns, cells)

    def to_parquet(self, path: str | Path) -> None:
        """Write the table as Parquet (needs the extra `sweep`).

        A hyper-parameter with values of several types, or of types that Parquet does
        not know, such as functions, is written as text, as in the CSV.
        """
        _require("pyarrow", "Parquet files")
        frame = self.to_pandas()
        for name in map(_column, self.hyper_names):
            values = [value for value in frame[name] if value is not None]
            kinds = {type(value) for value in values}
            if frame[name].dtype == object and not (
                len(kinds) <= 1 and kinds <= set(PLAIN)
            ):
                frame[name] = [
                    None if value is None else as_text(value) for value in frame[name]
                ]
        write_atomically(Path(path), frame.to_parquet)

    def to_pandas(self) -> "pandas.DataFrame":
        """The table as a data frame (needs the extra `sweep`).

        What is absent among the numbers is NaN.
        """
        pandas = _require("pandas", "data frames")
        frame = pandas.DataFrame(self.table, columns=self._columns())
        # Where every trial diverged there is nothing to infer the type from.
        return frame.astype(dict.fromkeys(self._measured(self.metric_names), "float64"))

    def curves_to_pandas(self) -> "pandas.DataFrame":
        """Every evaluation as a row (needs the extra `sweep`).

        Columns: trial, optimizer, the hyper-parameters, seed, status, step, and the
        metrics as they were measured, so those of a diverged trial too, up to and with
        the first that is not finite.
        """
        pandas = _require("pandas", "data frames")
        hyper, metrics = self.hyper_names, self.metric_names
        rows = []
        for record in self.records:
            trial = {
                "trial": record.trial.number,
                "optimizer": record.trial.config.optimizer,
                **_hyper_cells(record.trial.config, hyper),
                "seed": record.trial.seed,
                "status": record.status,
            }
            rows += [
                {
                    **trial,
                    "step": step,
                    **{name: of[i] for name, of in record.curve.values.items()},
                }
                for i, step in enumerate(record.curve.steps)
            ]
        columns = ["trial", "optimizer", *map(_column, hyper), "seed", "status", "step"]
        return pandas.DataFrame(rows, columns=[*columns, *metrics])

    def configurations(self, optimizer: str | None = None) -> list[Best]:
        """Each configuration over its seeds, best first.

        Ordered by the median, then the worst seed, then the order of the trials.
        """
        members: dict[Any, list[Record]] = {}
        for record in self.records:
            config = record.trial.config
            if optimizer in (None, config.optimizer):
                members.setdefault(_key(config), []).append(record)
        found = [self._over_seeds(records) for records in members.values()]
        return sorted(found, key=self._order)

    def _order(self, best: Best) -> tuple[float, float]:
        sign = -1.0 if self.mode == "max" else 1.0
        return sign * best.median, sign * best.low

    def _over_seeds(self, records: Sequence[Record]) -> Best:
        scores = [self.score(record) for record in records]
        worst, best = sorted((min(scores), max(scores)), reverse=self.mode == "min")
        # An infinite one of the middle two makes their mean infinite: one diverged seed
        # of two counts.
        middle = statistics.median(scores)
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
        """Each optimizer's best configuration as a rich table, best first.

        Fits in 80 columns (needs the extra `sweep`).
        """
        _require("rich", "summaries")
        from rich import box
        from rich.table import Table

        table = Table(
            title=self._heading, box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False
        )
        for name in _SUMMARY_COLUMNS:
            table.add_column(
                name,
                justify="right" if name == "median" else "left",
                overflow="fold",
                no_wrap=name in ("median", "range"),
            )
        for best in self.best_of_each():
            table.add_row(*self._summary_row(best))
        return table

    @property
    def _heading(self) -> str:
        better = "higher" if self.mode == "max" else "lower"
        return f"best {self.metric} of each optimizer ({better} is better)"

    def best_of_each(self) -> list[Best]:
        """Each optimizer's best configuration, best first."""
        found: dict[str, Best] = {}
        for best in self.configurations():
            found.setdefault(best.config.optimizer, best)
        return list(found.values())

    def _summary_row(self, best: Best) -> tuple[str, ...]:
        config = best.config
        spread = "–".join(_number(end) for end in sorted((best.low, best.high)))
        return (
            config.optimizer,
            _number(best.median),
            "–" if math.isinf(best.high) else spread,
            "\n".join(
                f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
                for name, value in {**config.hyper, **config.static}.items()
            ),
            self._ends(config.optimizer),
        )

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
        """Draw the metric against a hyper-parameter, one line an optimizer.

        Args:
          x: the hyper-parameter; where others vary too, the best over them is drawn.
          ax: axes to draw in. By default a new figure, with a panel an optimizer where
            there are many.
        """
        _require("matplotlib", "pictures")
        from optjax.sweep._view.plots import plot_sensitivity

        return plot_sensitivity(self, x, ax)

    def plot_curves(self, ax: "Axes | None" = None) -> "Figure":
        """Draw the metric over the updates, each optimizer's best configuration.

        Args:
          ax: axes to draw in. By default a new figure, with a panel an optimizer where
            there are many.
        """
        _require("matplotlib", "pictures")
        from optjax.sweep._view.plots import plot_curves

        return plot_curves(self, ax)

    def plot_ranking(self, ax: "Axes | None" = None) -> "Figure":
        """Draw each optimizer's best configuration, best first, with every seed.

        Args:
          ax: axes to draw in; by default those of a new figure.
        """
        _require("matplotlib", "pictures")
        from optjax.sweep._view.ranking import plot_ranking

        return plot_ranking(self, ax)

    def plot_heatmap(
        self, x: str, y: str, optimizer: str | None = None, ax: "Axes | None" = None
    ) -> "Figure":
        """Draw the metric over two hyper-parameters of one optimizer.

        Args:
          x: the hyper-parameter along the horizontal axis.
          y: along the vertical axis.
          optimizer: may be left out where only one has both.
          ax: axes to draw in; by default those of a new figure.
        """
        _require("matplotlib", "pictures")
        from optjax.sweep._view.heatmap import plot_heatmap

        return plot_heatmap(self, x, y, optimizer, ax)

    def __repr__(self) -> str:
        """The number of trials and the best of them, in a line."""
        if not self.records:
            return "SweepResult(no trial has ended)"
        best, count = self.best(), len(self.records)
        trials = f"{count} trial{'s' * (count > 1)}"
        if math.isinf(best.high):
            return f"SweepResult({trials}, all diverged)"
        return (
            f"SweepResult({trials}, best {self.metric} {_number(best.median)}: "
            f"{describe(best.config)})"
        )

    def _repr_html_(self) -> str:
        """`summary()` for notebooks."""
        if not self.records:
            return f"<p>{html.escape(repr(self))}</p>"
        rows = [_SUMMARY_COLUMNS, *map(self._summary_row, self.best_of_each())]
        lines = [
            "".join(
                f"<{tag}>{html.escape(text).replace(chr(10), '<br>')}</{tag}>"
                for text in row
            )
            for tag, row in zip(["th", *["td"] * (len(rows) - 1)], rows, strict=True)
        ]
        body = "".join(f"<tr>{line}</tr>" for line in lines)
        return f"<p>{html.escape(self._heading)}</p><table>{body}</table>"


def record_to_json(record: Record) -> dict[str, Any]:
    """A record as plain data; `record_from_json` gives an equal one back.

    Through `json` too, to the last bit and with NaN and the infinities, but for static
    values that JSON does not know: a tuple comes back as a list.
    """
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


def _column(hyper_name: str) -> str:
    return f"hyper_{hyper_name}" if hyper_name in OWN_COLUMNS else hyper_name


def _hyper_cells(config: Config, names: Sequence[str]) -> dict[str, Any]:
    values = {**config.hyper, **config.static}
    return {_column(name): values.get(name) for name in names}


def _number(value: float) -> str:
    return "diverged" if math.isinf(value) else f"{value:.4g}"


def _require(module: str, what: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:  # installed, but broken
            raise
        raise SweepError(
            f"{what} need {module}; run: pip install 'optjax[sweep]'"
        ) from None
