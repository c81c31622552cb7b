"""Builds a case's optimizer of the family."""

import optax

import optjax

from .cases import Case


def optimizer(case: Case) -> optax.GradientTransformationExtraArgs:
    """The factory that the case names, with its mapped arguments."""
    assert case.ours is not None
    factory = getattr(optjax, case.ours)
    if case.outer_schedule:
        # factory(1.0) already descends, so the schedule keeps its sign.
        return optax.chain(
            factory(1.0, **case.mapped),
            optax.scale_by_schedule(case.learning_rate),
        )
    return factory(case.learning_rate, **case.mapped)
