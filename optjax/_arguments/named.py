"""The kinds that have a name: β is a `Decay`, ε is `NonNegative`, α is a `Schedule`."""

from collections.abc import Iterable
from typing import Annotated, Any, TypeAlias

import jax.numpy as jnp
import optax

from optjax._arguments.numbers import (
    Number,
    Whole,
    is_finite,
    nonnegative,
    positive,
    schedule,
)
from optjax._arguments.objects import (
    DType,
    InitAndUpdate,
    Instance,
    MaskTree,
    NameOrNames,
    OrNone,
    Tree,
)
from optjax._precision import Scalar

#: β: the share of the old average that a step keeps.
Decay: TypeAlias = Annotated[
    Scalar,
    Number(
        "in [0, 1)",
        lambda x: 0 <= x < 1,
        "It is the share of the old average that a step keeps: try 0.9 for gradients, "
        "0.999 for their squares",
    ),
]
NonNegative: TypeAlias = Annotated[Scalar, nonnegative()]
Positive: TypeAlias = Annotated[Scalar, positive()]
Finite: TypeAlias = Annotated[Scalar, Number("finite", is_finite)]
#: From 0, and from 1.
Count: TypeAlias = Annotated[int, Whole(0)]
Size: TypeAlias = Annotated[int, Whole(1)]
Schedule: TypeAlias = Annotated[
    optax.ScalarOrSchedule,
    schedule(
        "The update subtracts learning_rate times the direction, so a positive value "
        "descends"
    ),
]
WeightDecay: TypeAlias = Annotated[optax.ScalarOrSchedule, schedule()]
_CUT = "Such as jnp.bfloat16; integers would cut what is stored"
#: Of a first moment, which may be complex, and of squares, which are real.
InexactDType: TypeAlias = Annotated[
    Any, OrNone(DType("a floating-point or complex dtype", jnp.inexact, _CUT))
]
FloatDType: TypeAlias = Annotated[
    Any, OrNone(DType("a real floating-point dtype", jnp.floating, _CUT))
]
Transformation: TypeAlias = Annotated[optax.GradientTransformation, InitAndUpdate()]
Mask: TypeAlias = Annotated[Any, MaskTree()]
ArrayTree: TypeAlias = Annotated[
    Any, Tree("a tree of arrays", "its leaves must be arrays", may_be_none=True)
]
OptimizerState: TypeAlias = Annotated[
    Any,
    Tree(
        "an optimizer's state, a tree of arrays",
        "it is what init returned or update",
        may_be_none=False,
    ),
]

Text: TypeAlias = Annotated[str, Instance(str, "a text")]
Names: TypeAlias = Annotated[str | Iterable[str], NameOrNames()]
