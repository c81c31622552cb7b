"""Experiment trackers for `optjax.sweep.run(..., callbacks=[...])`: one run a trial.

Each function returns a callback that takes a `Record` when its trial has ended, and
hands its configuration, curves and status on. A sweep that goes on calls it again for
what had ended before; a run that is there already is not written twice, and written on
where the trial is longer now.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from optjax._arguments.checked import checked
from optjax._arguments.named import Text
from optjax.sweep._arguments import Out
from optjax.sweep._errors import SweepError, library
from optjax.sweep._records import PLAIN, Record
from optjax.sweep._store.files import as_text, write_atomically

__all__ = ["to_mlflow", "to_tensorboard", "to_wandb"]

# What a folder of event files has.
_WRITTEN = "trial.json"
# A request of MLflow's takes no more metrics.
_MOST_IN_A_BATCH = 1000


@checked
def to_tensorboard(directory: Out) -> Callable[[Record], None]:
    """A folder of event files a trial, `directory`/trial-N.

    Needs the extra `tensorboard`.

    Args:
      directory: what `tensorboard --logdir` is given, or a folder in it; one a sweep.

    Raises:
      SweepError: where tensorboardX is not installed, and at a trial of another sweep
        than the one whose trial of that number is there.

    Example:
        callbacks = [trackers.to_tensorboard("runs/board")]
        optjax.sweep.run(trial, space, callbacks=callbacks, ...)
    """
    tensorboard = _imported("tensorboardX", "tensorboard")

    def write(record: Record) -> None:
        folder = Path(directory, _name(record))
        written = folder / _WRITTEN
        which = _digest(record)
        done = -1
        if written.exists():
            there = json.loads(written.read_text(encoding="utf-8"))
            if there["trial"] != which:
                raise SweepError(
                    f"{folder} is of another sweep; choose another directory for this "
                    "one's event files, or delete it"
                )
            done = there["steps"]
        if record.steps <= done:
            return
        # Names of event files go by the second.
        suffix = f".{record.steps}"
        with tensorboard.SummaryWriter(str(folder), filename_suffix=suffix) as writer:
            for step, values in _rows(record):
                for name, value in values.items() if step > done else ():
                    writer.add_scalar(name, value, step)
            writer.add_text("status", record.status)
            writer.add_hparams(_config(record), _last(record), "hparams")
        # What was begun and not written to its end is written again.
        said = json.dumps({"trial": which, "steps": record.steps})
        write_atomically(written, lambda to: to.write_text(said, encoding="utf-8"))

    return write


@checked
def to_wandb(**settings: Any) -> Callable[[Record], None]:
    """A run of Weights & Biases a trial.

    Needs the extra `wandb`.

    Args:
      **settings: for `wandb.init`, such as `project="mine"`; `group` is what is common
        to the trials of a sweep, and its name is part of the runs' own.

    Raises:
      SweepError: where wandb is not installed.

    Example:
        callbacks = [trackers.to_wandb(project="mine", group="first")]
        optjax.sweep.run(trial, space, callbacks=callbacks, ...)
    """
    wandb = _imported("wandb", "wandb")
    group = settings.get("group", "optjax")

    def write(record: Record) -> None:
        run = wandb.init(
            **{
                # The same trial is the same run, whoever writes it again, and one of
                # another sweep is not.
                "id": f"{group}-{_name(record)}-{_digest(record)}",
                "name": _name(record),
                "resume": "allow",
                "reinit": "create_new",
                "config": _config(record),
                "tags": [record.trial.config.optimizer, record.status],
                **settings,
            }
        )
        for step, values in _rows(record):
            run.log(values, step=step)
        run.finish(exit_code=int(not record.has_score))

    return write


@checked
def to_mlflow(
    experiment: Text = "optjax", tracking_uri: Text | None = None
) -> Callable[[Record], None]:
    """A run of MLflow a trial.

    Needs the extra `mlflow`.

    Args:
      experiment: the name of MLflow's experiment, one a sweep.
      tracking_uri: such as "sqlite:///mlflow.db"; MLflow's own choice by default.

    Raises:
      SweepError: where mlflow is not installed.

    Example:
        callbacks = [trackers.to_mlflow("first", "sqlite:///mlflow.db")]
        optjax.sweep.run(trial, space, callbacks=callbacks, ...)
    """
    mlflow = _imported("mlflow", "mlflow")
    client = mlflow.MlflowClient(tracking_uri)
    found = client.get_experiment_by_name(experiment)
    where = found.experiment_id if found else client.create_experiment(experiment)

    def write(record: Record) -> None:
        number, digest = str(record.trial.number), _digest(record)
        same = f"tags.`optjax.trial` = '{number}' and tags.`optjax.digest` = '{digest}'"
        known = client.search_runs([where], same)
        # What was begun and not written to its end has none of these.
        done = int(known[0].data.tags.get("optjax.steps", -1)) if known else -1
        if record.steps <= done:
            return
        tags = {
            "mlflow.runName": _name(record),
            "optjax.trial": number,
            "optjax.digest": digest,
        }
        run = (known[0] if known else client.create_run(where, tags=tags)).info.run_id
        for name, value in _config(record).items():
            client.log_param(run, name, value)
        entities = mlflow.entities
        measured = [
            entities.Metric(name, value, timestamp=0, step=step)
            for step, values in _rows(record)
            if step > done
            for name, value in values.items()
        ]
        for first in range(0, len(measured), _MOST_IN_A_BATCH):
            client.log_batch(run, measured[first : first + _MOST_IN_A_BATCH])
        client.set_tag(run, "optjax.status", record.status)
        client.set_tag(run, "optjax.steps", record.steps)
        client.set_terminated(run, "FINISHED" if record.has_score else "FAILED")

    return write


def _imported(module: str, extra: str) -> Any:
    return library(module, f"this tracker needs {module}", f"'optjax[{extra}]'")


def _name(record: Record) -> str:
    return f"trial-{record.trial.number}"


def _config(record: Record) -> dict[str, Any]:
    """The configuration as what every tracker takes."""
    config = record.trial.config
    own = config.values.items()
    return {
        "optimizer": config.optimizer,
        **{k: v if isinstance(v, PLAIN) else as_text(v) for k, v in own},
        "seed": record.trial.seed,
    }


def _digest(record: Record) -> str:
    """Tells a trial from those of its number in other sweeps."""
    words = [f"{name}={as_text(value)}" for name, value in _config(record).items()]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:8]


def _rows(record: Record) -> list[tuple[int, Mapping[str, float]]]:
    """Every evaluation's step and metrics."""
    curve = record.curve
    return [
        (step, {name: values[i] for name, values in curve.values.items()})
        for i, step in enumerate(curve.steps)
    ]


def _last(record: Record) -> Mapping[str, float]:
    rows = _rows(record)
    # One that failed has none.
    return rows[-1][1] if rows else {}
