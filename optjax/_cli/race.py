"""`optjax race`: the sweep of all rows over a grid of learning rates, ranked."""

import dataclasses
from collections.abc import Sequence

from optjax._cli.experiment import Experiment, load_task, perform
from optjax._cli.options import RaceOptions
from optjax._cli.words import parse
from optjax.sweep import per_optimizer, use_all_cores
from optjax.sweep._rows import ROWS
from optjax.tasks import Settings

_HELP = """\
Train a small network with every optimizer, and rank them.

  Each optimizer runs over a grid of learning rates and several seeds, all in
  one compiled program; its other hyper-parameters stay at their defaults. The
  defaults take about a minute on two cores.

  It is a sweep like any other: it ends with a ranked table, and writes into a
  new directory, or the one given with --out: results.csv (every trial),
  curves.csv (every evaluation), report.html (verdicts, pictures, all trials),
  ranking.png, curves.png and sensitivity.png.
  Ctrl-C stops it and keeps what was done; the same command goes on.

  The tasks with images and texts train by the recipe of the AdaBound paper:
  SGD with momentum, Adam, AMSGrad, AdaBound and AMSBound, each at its own
  learning rate.

Examples:
  optjax race
  optjax race --optimizers sgd adam adabound
  optjax race --optimizers adam mymodule:factory --task mymodel:trial
      --metric loss --mode min
  optjax race --learning-rates 0.001 0.01 0.1 --seeds 10 --steps 2000
  optjax race --task cifar10-densenet121 --data DIR
  optjax race --task cifar10-densenet121 --data DIR --epochs 30 --dtype bfloat16
  optjax race --task cifar10-resnet8 --data DIR --epochs 4 --examples 1280
      --test-examples 1000 --seeds 2
"""

#: Half-decade steps, wide enough that every row of the family peaks inside.
LEARNING_RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0)

# These programs run for about as long as they take to compile. LLVM's level 1 takes
# a third off the compilation and costs no measurable speed at this size.
_CPU_COMPILER_OPTIONS = {"xla_backend_optimization_level": "1"}


def run_race(words: Sequence[str]) -> int:
    """Run it, and return the exit status.

    Raises:
      UsageError: where the words cannot be read.
      SweepError: where the race cannot start or go on.
    """
    options: RaceOptions = parse(RaceOptions, words, "optjax race", _HELP)
    use_all_cores()
    said = dataclasses.asdict(options)
    settings = Settings(**{name: said[name] for name in Settings._fields})
    task = load_task(options.task, settings)
    recipe = task.learning_rates or {}
    names = options.optimizers
    if names is None:
        names = tuple(recipe or ROWS)
    rates = {name: recipe.get(name, LEARNING_RATES) for name in names}
    if options.learning_rates is not None:
        rates = dict.fromkeys(names, tuple(sorted(options.learning_rates)))
    # JAX is first used here, when the cores are known.
    import jax

    on_cpu = jax.default_backend() == "cpu"
    experiment = Experiment.of(
        options,
        task,
        command=("race", *words),
        optimizers=names,
        space={"learning_rate": per_optimizer(**rates)},
        seeds=task.seeds if options.seeds is None else options.seeds,
        # Matrices this small gain nothing from batching on a CPU, and each trial's
        # numbers then do not depend on which others are in the race.
        strategy="map" if on_cpu else "vmap",
        compiler_options=(
            _CPU_COMPILER_OPTIONS if on_cpu and not task.is_long else None
        ),
    )
    return perform(experiment)
