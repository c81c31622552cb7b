"""Optuna's samplers as a search (the extra `optuna`)."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from optjax._arguments.numbers import Whole
from optjax.sweep._errors import SweepError, check, library
from optjax.sweep._space.distributions import Choice, Distribution


@dataclass(frozen=True)
class Optuna:
    """Propose configurations by one of Optuna's samplers.

    Every optimizer has a study of its own, in memory: what it needs after a crash is
    worked out again from the sweep's directory.

    Attributes:
      sampler: "tpe" (tree-structured Parzen estimator), "gp" (a Gaussian process, needs
        PyTorch), "cmaes" (covariance matrix adaptation), or a function of a seed that
        returns a sampler, such as `lambda seed: TPESampler(seed=seed, gamma=...)`.
      batch: configurations at a time: as many as can run at once cost no more time.

    Example:
      >>> import optjax.sweep
      >>> search = optjax.sweep.Optuna("tpe", batch=4)

    References: Akiba et al., "Optuna: a next-generation hyperparameter optimization
    framework", KDD 2019; Bergstra et al., "Algorithms for hyper-parameter
    optimization", NeurIPS 2011 (TPE); Hansen, "The CMA evolution strategy: a tutorial",
    2016.
    """

    sampler: str | Callable[[int], Any] = "tpe"
    batch: int = 8

    def __post_init__(self) -> None:
        is_known = callable(self.sampler) or (
            isinstance(self.sampler, str) and self.sampler in SAMPLERS
        )
        if not is_known:
            raise SweepError(
                f"sampler must be one of {', '.join(SAMPLERS)}, or a function of a "
                f"seed, got {self.sampler!r}"
            )
        check(Whole(1), batch=self.batch)

    def begin(self, dimensions: Mapping[str, Distribution], seed: int) -> "_Study":
        """A study of these dimensions.

        Raises:
          SweepError: where Optuna is not installed.
        """
        who = "Optuna's samplers need Optuna"
        optuna = library("optuna", who, "'optjax[optuna]'")
        with warnings.catch_warnings():
            # What is new in Optuna says so.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            if isinstance(self.sampler, str):
                sampler = SAMPLERS[self.sampler](optuna.samplers, seed)
            else:
                sampler = self.sampler(seed)
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            study = optuna.create_study(sampler=sampler, direction="maximize")
        finally:
            optuna.logging.set_verbosity(verbosity)
        return _Study(study, dimensions)


class _Study:
    def __init__(self, study: Any, dimensions: Mapping[str, Distribution]) -> None:
        self._study = study
        self._sizes = {
            key: len(of.values) if isinstance(of, Choice) else 0
            for key, of in dimensions.items()
        }
        self._kinds = {key: _as_optunas(of) for key, of in dimensions.items()}
        self._asked: list[Any] = []
        self._worst = np.inf

    def ask(self, count: int) -> np.ndarray:
        """The points, each for a lane of its own."""
        self._asked = [self._study.ask(self._kinds) for _ in range(count)]
        return np.array(
            [
                [
                    (trial.params[key] + 0.5) / size if size else trial.params[key]
                    for key, size in self._sizes.items()
                ]
                for trial in self._asked
            ]
        ).reshape(count, len(self._sizes))

    def tell(self, values: np.ndarray) -> None:
        """The values; for what has diverged the worst so far, as samplers need one."""
        finite = values[np.isfinite(values)]
        self._worst = min([self._worst, *finite.tolist()])
        worst = self._worst if np.isfinite(self._worst) else 0.0
        for trial, value in zip(self._asked, values.tolist(), strict=True):
            self._study.tell(trial, value if np.isfinite(value) else worst)
        self._asked = []


def _as_optunas(of: Distribution) -> Any:
    from optuna import distributions

    if not isinstance(of, Choice):
        # Of the range's own scale: its logarithm is taken there.
        return distributions.FloatDistribution(0.0, 1.0)
    last = len(of.values) - 1
    if all(isinstance(x, Real) and not isinstance(x, bool) for x in of.values):
        return distributions.IntDistribution(0, last)
    return distributions.CategoricalDistribution(range(last + 1))


# Of the module `optuna.samplers` and a seed.
SAMPLERS: Mapping[str, Callable[[Any, int], Any]] = {
    "tpe": lambda samplers, seed: samplers.TPESampler(
        seed=seed, multivariate=True, constant_liar=True
    ),
    "gp": lambda samplers, seed: samplers.GPSampler(seed=seed),
    "cmaes": lambda samplers, seed: samplers.CmaEsSampler(
        seed=seed, warn_independent_sampling=False
    ),
}
