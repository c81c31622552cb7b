"""The family, in order of increasing complexity: each optimizer is a row.

    x[t+1] = x[t] − s_t · V_t ⊙ m_t

A factory names the direction m, the rate V, its bound and the schedule s, and its row
stands below it; `OPTIMIZERS` is the table of all rows. Where Optax has an optimizer of
the same name, arguments, defaults and trajectory are Optax's.

All hyper-parameters are numbers or traced scalars; `learning_rate` (and
`weight_decay`, as in Optax) may also be a schedule, a function of the number of steps
taken so far. Concrete values out of range raise ValueError.
"""

from collections.abc import Mapping
from types import MappingProxyType

from optjax.optimizers import (
    _bounded,
    _exponential,
    _grafted,
    _momentum,
    _partial,
    _squares,
    _switching,
    _variance,
)
from optjax.optimizers._bounded import *
from optjax.optimizers._exponential import *
from optjax.optimizers._grafted import *
from optjax.optimizers._momentum import *
from optjax.optimizers._partial import *
from optjax.optimizers._row import Row
from optjax.optimizers._squares import *
from optjax.optimizers._switching import *
from optjax.optimizers._variance import *

_FAMILIES = (
    _momentum,
    _squares,
    _exponential,
    _variance,
    _partial,
    _switching,
    _bounded,
    _grafted,
)

#: The family as data, in order of increasing complexity. Every factory takes the
#: learning rate first and has defaults for the rest.
OPTIMIZERS: Mapping[str, Row] = MappingProxyType(
    {name: row for family in _FAMILIES for name, row in family.ROWS.items()}
)

__all__ = ["OPTIMIZERS", "Row"]
__all__ += _momentum.__all__
__all__ += _squares.__all__
__all__ += _exponential.__all__
__all__ += _variance.__all__
__all__ += _partial.__all__
__all__ += _switching.__all__
__all__ += _bounded.__all__
__all__ += _grafted.__all__
