"""What came out of a sweep: a table, the best configurations, pictures."""

import dataclasses
import functools
import html
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optjax._arguments.kind import shown as shown_value
from optjax._arguments.numbers import Whole
from optjax.sweep._engine.training import Kept, Training
from optjax.sweep._errors import SweepError, check, library
from optjax.sweep._keywords import Keywords, as_data, keywords
from optjax.sweep._ranking import Best, Ranking
from optjax.sweep._records import FAILED, PLAIN, Record, TrialSpec, describe
from optjax.sweep._rows import FACTORIES
from optjax.sweep._schedules import without_schedules
from optjax.sweep._store.directory import as_directory
from optjax.sweep._store.files import as_text, write_atomically, write_csv
from optjax.sweep._store.keep import kept_states
from optjax.sweep._store.load import load
from optjax.sweep._store.store import OWN
from optjax.sweep._tables import Table, column
from optjax.sweep._trial import State
from optjax.sweep._view.notebook import as_notebook
from optjax.sweep._view.table import as_rich, shown

if TYPE_CHECKING:
    import pandas
    import rich.table
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from optjax._page.parts import Verdict
    from optjax.sweep._report.study import Study


@dataclass(frozen=True, repr=False)
class SweepResult(Ranking):
    """All trials of a sweep, in order.

    Attributes:
      records: one a trial that has ended.
      metric: the name of the metric that ranks.
      mode: "max" or "min".
      about: what the caller said of it, and how it was run (strategy, devices,
        versions).
      finished_before: whether the directory had every trial, and nothing was run.
      kept: the folders of the final states that were kept, by the trial's number, for
        Orbax: `PyTreeCheckpointer().restore(path)` gives the leaves by their paths.
      training: what was trained, for `train`; None where it was read from a directory.
      title: what the metric is called over tables and at axes; its name by default.
      command: the words of the command line that asked for it; none from Python.
      seconds: by optimizer, how long an update of a trial took: that of the calls that
        trained its trials, which share them, by the updates of all. Without compiling;
        none where no time was kept, as on Ray.
    """

    about: Mapping[str, Any] = field(default_factory=dict)
    finished_before: bool = False
    kept: Mapping[int, Path] = field(default_factory=dict, compare=False)
    training: Training | None = field(default=None, compare=False)

    @classmethod
    def load(cls, directory: str | Path) -> "SweepResult":
        """Read the result of a sweep from its directory, without the code that it ran.

        While the sweep is not finished, the trials that have ended; those that a
        stopping rule has ended come when it is. Static values that are no plain data
        are their names.

        Args:
          directory: `out` of `run`.

        Raises:
          SweepError: where there is no sweep in it, or where it is damaged.

        Example:
          >>> import tempfile, optjax.sweep
          >>> try:
          ...     optjax.sweep.SweepResult.load(tempfile.mkdtemp())
          ... except optjax.sweep.SweepError as error:
          ...     print(str(error)[-51:])
          holds no sweep; give the out= of one that has begun
        """
        path = as_directory(directory)
        saved = load(path)
        kept = kept_states(path / OWN, saved.about["steps"])
        return cls(**saved._asdict(), kept=kept)

    @functools.cached_property
    def _own(self) -> Mapping[str, Keywords]:
        if self.training is None:
            return {}
        factories = without_schedules(self.training.factories)
        if factories is FACTORIES:
            return {}
        return {name: as_data(keywords(factories[name])) for name in self.optimizers}

    def train(
        self, which: Best | Record | TrialSpec, *, steps: int | None = None
    ) -> State:
        """Train a trial again, alone, and return its state at the end.

        Under "map" it is the state that the sweep's lane had, to the last bit; under
        other strategies it differs as `run_alone`'s curve does.

        Args:
          which: a trial; of a configuration, such as `best()`, its best seed.
          steps: updates, a multiple of `evaluate_every`: such as those of the best
            value on the curve, or more than the trial had, which go on from its state
            where that was kept (`run(keep=...)`). A schedule of the space ends where
            the sweep's did. By default as many as the trial had.

        Returns:
          What `init` and `step` return of it: of `from_nnx` and `from_linen` a tuple
          with `params`, `rest` (what the model changes itself) and `opt_state`.

        Raises:
          SweepError: where the result was read from a directory, which has no code:
            `run` with the same arguments and that `out` runs nothing and has it;
            where the trial fails.
        """
        spec, done = self._one(which)
        if steps is not None:
            check(Whole(1), steps=steps)
        if self.training is None:
            raise SweepError(
                "this result was read from a directory and has no code to train; call "
                "sweep.run as before, with that out=, and train what it returns"
            )
        if steps is None or steps <= done or spec.number not in self.kept:
            return self.training.train(spec, done if steps is None else steps)
        kept = Kept(self.kept[spec.number], done)
        return self.training.train(spec, steps, kept)

    def restore(self, which: Best | Record | TrialSpec) -> State:
        """The final state of a trial that was kept (`run(keep=...)`), as `train`'s.

        Raises:
          SweepError: where it was not kept, or the result was read from a directory,
            where `kept` has the folders.
        """
        spec, _ = self._one(which)
        if spec.number not in self.kept or self.training is None:
            kept = ", ".join(map(str, self.kept)) or "no trial"
            raise SweepError(
                f"the state of trial {spec.number} is not here: that of {kept} was kept"
                + (
                    "; train(...) makes it again"
                    if self.training
                    else "; `kept` has the folders for Orbax"
                )
            )
        return self.training.restore(spec, self.kept[spec.number])

    def _one(self, which: Best | Record | TrialSpec) -> tuple[TrialSpec, int]:
        """A trial, and how many updates it had."""
        if isinstance(which, Best):
            which = max(which.records, key=lambda r: self.sign * self.score(r))
        if isinstance(which, TrialSpec):
            steps = [r.steps for r in self.records if r.trial.number == which.number]
            return which, steps[0] if steps else self.about["steps"]
        if not isinstance(which, Record):
            raise SweepError(
                "which must be a Best, a Record or a TrialSpec, such as "
                f"result.best(), got {shown_value(which)}"
            )
        return which.trial, which.steps

    def __getstate__(self) -> dict[str, Any]:
        """All but the code, whose functions may have no pickle."""
        return {**self.__dict__, "training": None}

    @functools.cached_property
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
        metric's best, the step of it, and the last value of every metric; where a
        trial has failed, its message. A diverged trial and one that failed have no
        values of metrics. A hyper-parameter whose name is a column's, such as seed, has
        the column hyper_seed.
        """
        return list(self._table.rows())

    @property
    def _table(self) -> Table:
        return Table(self, self.metric_names)

    @property
    def _drawn(self) -> "SweepResult":
        """Without the trials that failed, which have nothing to show."""
        records = tuple(record for record in self.records if record.status != FAILED)
        if not records:
            raise SweepError("there is nothing to draw: no trial has ended")
        return dataclasses.replace(self, records=records)

    def to_csv(self, path: str | Path) -> None:
        """Write the table; the file is there whole or not at all.

        A number is the shortest text that reads back to the same float32. What is
        absent stays empty.
        """
        table = self._table
        cells = ([row[name] for name in table.columns] for row in table.rows())
        write_csv(Path(path), table.columns, cells)

    def to_parquet(self, path: str | Path) -> None:
        """Write the table as Parquet (needs the extra `sweep`).

        A hyper-parameter with values of several types, or of types that Parquet does
        not know, such as functions, is written as text, as in the CSV.

        Raises:
          SweepError: where pyarrow or pandas is not installed.
        """
        _require("pyarrow", "Parquet files")
        frame = self.to_pandas()
        for name in map(column, self.hyper_names):
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

        Raises:
          SweepError: where pandas is not installed.
        """
        pandas = _require("pandas", "data frames")
        table = self._table
        frame = pandas.DataFrame(list(table.rows()), columns=table.columns)
        # Where every trial diverged there is nothing to infer the type from.
        return frame.astype(dict.fromkeys(table.measured, "float64"))

    def curves_to_pandas(self) -> "pandas.DataFrame":
        """Every evaluation as a row (needs the extra `sweep`).

        Columns: trial, optimizer, the hyper-parameters, seed, status, step, and the
        metrics as they were measured, so those of a diverged trial too, up to and with
        the first that is not finite.

        Raises:
          SweepError: where pandas is not installed.
        """
        pandas = _require("pandas", "data frames")
        columns, rows = self._table.evaluations()
        return pandas.DataFrame(rows, columns=columns)

    def summary(self, target: float | None = None) -> "rich.table.Table":
        """Each optimizer's best configuration as a rich table, best first.

        Fits in 80 columns (needs the extra `sweep`).

        Args:
          target: a value of the metric; a column then has the updates to it.

        Raises:
          SweepError: where rich is not installed.
        """
        _require("rich", "summaries")
        return as_rich(self, target)

    def verdicts(self) -> "list[Verdict]":
        """What came of it in words: who won and by more than chance, what to try next.

        Each has `kind`, `level` ("good", "note" or "warning"), `says`, `evidence` and
        `next`, a command or code to run. None where no trial has ended.
        """
        return [*self._verdicts]

    @functools.cached_property
    def _verdicts(self) -> "list[Verdict]":
        from optjax.sweep._report.verdicts import verdicts

        return verdicts(self._study) if self.records else []

    @functools.cached_property
    def _study(self) -> "Study":
        from optjax.sweep._report.study import Study

        return Study(self)

    def report(self, path: str | Path) -> None:
        """Write one HTML page: verdicts, each with its evidence, pictures, all trials.

        The file needs no other and no network. Equal results give equal bytes. Needs
        the extra `race`.

        Args:
          path: the file, such as "report.html".

        Raises:
          SweepError: where Jinja2 is not installed, or no trial has ended.
        """
        _require("jinja2", "reports")
        if not self.records:
            raise SweepError("there is nothing to report: no trial has ended")
        from optjax.sweep._report.page import write_page

        write_page(self._study, self._verdicts, self.about, Path(path))

    def plot_sensitivity(
        self, x: str = "learning_rate", ax: "Axes | None" = None
    ) -> "Figure":
        """Draw the metric against a hyper-parameter, one line an optimizer.

        Args:
          x: the hyper-parameter; where others vary too, the best over them is drawn.
          ax: axes to draw in. By default a new figure, with a panel an optimizer where
            there are many.

        Raises:
          SweepError: where matplotlib is not installed, or there is nothing to draw.
        """
        _require("matplotlib", "pictures")
        from optjax.sweep._view.plots import plot_sensitivity

        return plot_sensitivity(self._drawn, x, ax)

    def plot_curves(
        self, ax: "Axes | None" = None, *, target: float | None = None
    ) -> "Figure":
        """Draw the metric over the updates, each optimizer's best configuration.

        Args:
          ax: axes to draw in. By default a new figure, with a panel an optimizer where
            there are many.
          target: a value of the metric at which a dotted line is drawn.

        Raises:
          SweepError: where matplotlib is not installed, or there is nothing to draw.
        """
        _require("matplotlib", "pictures")
        from optjax.sweep._view.plots import plot_curves

        return plot_curves(self._drawn, ax, target)

    def plot_ranking(self, ax: "Axes | None" = None) -> "Figure":
        """Draw each optimizer's best configuration, best first, with every seed.

        Args:
          ax: axes to draw in; by default those of a new figure.

        Raises:
          SweepError: where matplotlib is not installed, or there is nothing to draw.
        """
        _require("matplotlib", "pictures")
        from optjax.sweep._view.ranking import plot_ranking

        return plot_ranking(self._drawn, ax, str(self.about.get("task", "")))

    def plot_heatmap(
        self, x: str, y: str, optimizer: str | None = None, ax: "Axes | None" = None
    ) -> "Figure":
        """Draw the metric over two hyper-parameters of one optimizer.

        Args:
          x: the hyper-parameter along the horizontal axis.
          y: along the vertical axis.
          optimizer: may be left out where only one has both.
          ax: axes to draw in; by default those of a new figure.

        Raises:
          SweepError: where matplotlib is not installed, or there is nothing to draw.
        """
        _require("matplotlib", "pictures")
        from optjax.sweep._view.heatmap import plot_heatmap

        return plot_heatmap(self._drawn, x, y, optimizer, ax)

    def __repr__(self) -> str:
        """The number of trials and the best of them, in a line."""
        if not self.records:
            return "SweepResult(no trial has ended)"
        best, count = self.best(), len(self.records)
        trials = f"{count} trial{'s' * (count > 1)}"
        if math.isinf(best.high):
            ends = sorted({record.status for record in self.records})
            return f"SweepResult({trials}, all {' or '.join(ends)})"
        return (
            f"SweepResult({trials}, best {self.metric} {shown(best.median)}: "
            f"{describe(best.config)})"
        )

    def _repr_html_(self) -> str:
        """The verdicts, the ranking and the sensitivity, for notebooks."""
        if not self.records:
            return f"<p>{html.escape(repr(self))}</p>"
        return as_notebook(self, self.verdicts())


def _require(module: str, what: str) -> Any:
    return library(module, f"{what} need {module}", "'optjax[sweep]'")
