"""The doors: what a part, an optimizer, a task or a stopping rule of one's own needs.

docs/extending.md has a complete example of each.
"""

from optjax._direction import EmaState, TraceState
from optjax._observe import tell, telling
from optjax._parts import (
    Average,
    BiasCorrection,
    Clip,
    ClipAround,
    Decay,
    Descend,
    Link,
    One,
    Part,
    Product,
    Root,
    RunningMax,
    SquareAverage,
    SquareDebias,
    SquareSum,
    Trace,
)
from optjax._precision import abs_sq, widen
from optjax._tree import cast_leaves, map_leaves
from optjax.fused._coverage import Factor, Largest, Memory, Squares, cover
from optjax.tasks import Loaded, Recipe, Settings, Task

__all__ = [
    "Average",
    "BiasCorrection",
    "Clip",
    "ClipAround",
    "Decay",
    "Descend",
    "EmaState",
    "Factor",
    "Largest",
    "Link",
    "Loaded",
    "Memory",
    "One",
    "Part",
    "Product",
    "Recipe",
    "Root",
    "RunningMax",
    "Settings",
    "SquareAverage",
    "SquareDebias",
    "SquareSum",
    "Squares",
    "Task",
    "Trace",
    "TraceState",
    "abs_sq",
    "cast_leaves",
    "cover",
    "map_leaves",
    "tell",
    "telling",
    "widen",
]
