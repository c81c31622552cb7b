"""How much each hyper-parameter decides, and how sure that is.

A forest of scikit-learn's learns the ranks of the medians from the hyper-parameters.
The importance of one is by how much the R² of what the forest has not seen falls when
its values are permuted (Breiman 2001), and the interval is that of the folds and of the
permutations. Ranks, so that the few worst do not decide everything.
"""

import importlib.util
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from optjax.sweep._ranking import Best, Ranking, numeric, varying
from optjax.sweep._store.files import as_text

# Fewer configurations teach a forest nothing.
_FEWEST = 16
_MOST = 2000
_TREES, _FOLDS, _REPEATS = 100, 4, 5


class Importance(NamedTuple):
    """A hyper-parameter's importance.

    Attributes:
      name: the hyper-parameter's.
      mean: the fall of R² when its values are permuted.
      low: the 5 % quantile over folds and permutations.
      high: the 95 % quantile.
    """

    name: str
    mean: float
    low: float
    high: float


def importance_of(ranking: Ranking, optimizer: str) -> list[Importance]:
    """Those that an optimizer varied, the most important first.

    Empty where there are fewer than two, too few configurations, no scikit-learn, or
    where a forest learns nothing from them.
    """
    found = ranking.configurations(optimizer)[:_MOST]
    names = varying(found)
    if len(names) < 2 or len(found) < _FEWEST or not _has_sklearn():
        return []
    inputs = np.column_stack([_column(found, name) for name in names])
    scores = np.array([ranking.sign * best.median for best in found])
    return _by_forest(names, inputs, _ranks(scores))


def _has_sklearn() -> bool:
    return importlib.util.find_spec("sklearn") is not None


def _column(found: Sequence[Best], name: str) -> Any:
    """A hyper-parameter as numbers; what is no number by its place among the words."""
    values = [numeric(best.config, name) for best in found]
    if None not in values:
        return np.array(values, float)
    words = [as_text(best.config.values.get(name)) for best in found]
    place = {word: i for i, word in enumerate(sorted(set(words)))}
    return np.array([place[word] for word in words], float)


def _ranks(scores: Any) -> Any:
    """From 0 to 1; equal scores, such as those of all that diverged, share a rank."""
    from scipy.stats import rankdata

    finite = np.where(np.isfinite(scores), scores, -np.finfo(float).max)
    return (rankdata(finite) - 1) / (len(finite) - 1)


def _by_forest(names: Sequence[str], inputs: Any, ranks: Any) -> list[Importance]:
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance
    from sklearn.model_selection import KFold

    folds = KFold(_FOLDS, shuffle=True, random_state=0)
    falls, learned = [], []
    for train, test in folds.split(inputs):
        forest = RandomForestRegressor(_TREES, random_state=0)
        forest.fit(inputs[train], ranks[train])
        learned.append(forest.score(inputs[test], ranks[test]))
        falls.append(
            permutation_importance(
                forest, inputs[test], ranks[test], n_repeats=_REPEATS, random_state=0
            ).importances
        )
    # Worse than always guessing the mean.
    if not np.mean(learned) > 0:
        return []
    over = np.concatenate(falls, axis=1)
    low, high = np.quantile(over, [0.05, 0.95], axis=1)
    found = [
        Importance(name, float(mean), float(lo), float(hi))
        for name, mean, lo, hi in zip(names, over.mean(axis=1), low, high, strict=True)
    ]
    return sorted(found, key=lambda one: -one.mean)
