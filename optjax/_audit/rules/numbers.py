"""Rules on numbers as such: not finite, rounded, at 0, used twice."""

from collections.abc import Iterator

import numpy as np

from optjax._audit.facts import Facts, Verdict, listed
from optjax._audit.names import Role
from optjax._groups import OVERALL

# An elasticity at which the learning rate enters more than once.
_MORE_THAN_ONCE = 1.5
# With β₂ = 0.99 a fifth of ν is near enough to g² to stay in bfloat16.
_STALLED = 0.5


def not_finite(facts: Facts) -> Iterator[Verdict]:
    """A gradient or an update is no number."""
    gradient = ~np.all(facts.moves.finite_gradient, axis=0)
    if gradient.any():
        where = facts.leaves(gradient)
        yield Verdict(
            "not finite",
            f"the gradients of {listed(where)} are not finite",
            "there is a NaN or an infinity in them",
            "Look for it in the loss, or scale the loss down",
            where,
        )
    update = ~np.all(facts.moves.finite, axis=0)
    if update.any():
        where = facts.leaves(update)
        yield Verdict(
            "not finite",
            f"the updates of {listed(where)} are not finite",
            "the gradients are, and the optimizer made a NaN or an infinity of them",
            "Keep its numbers and its state in float32",
            where,
        )


def rounded(facts: Facts) -> Iterator[Verdict]:
    """A hyper-parameter is not what was meant, in the dtype that it is kept in."""
    for index, name in facts.named(Role.AVERAGE):
        if np.any(facts.values[:, index] >= 1):
            dtype = facts.layout.kept_in[index]
            yield Verdict(
                "rounded",
                f"{name} is 1 in {dtype}",
                "the average never forgets, and never learns",
                "Keep hyper-parameters in float32: optjax.inject_hyperparams does, and "
                "Optax's with hyperparam_dtype=jnp.float32",
            )
    for index, name in facts.named(Role.FLOOR):
        is_half = facts.layout.kept_in[index] in ("float16", "bfloat16")
        if is_half and name != "eps_root" and np.any(facts.values[:, index] == 0):
            yield Verdict(
                "rounded",
                f"{name} is 0 in {facts.layout.kept_in[index]}",
                "it keeps no denominator from 0",
                "Keep it in float32, or take a larger one such as 1e-4",
            )


def stalled(facts: Facts) -> Iterator[Verdict]:
    """ν does not move in the dtype that it is kept in."""
    # The first step makes it what it is.
    share = np.max(np.nan_to_num(facts.measured.told.stalled), axis=0)
    where = share > _STALLED
    if where.any():
        names = facts.leaves(where)
        much = np.average(share[where], weights=np.array(facts.layout.sizes)[where])
        yield Verdict(
            "stalled",
            f"ν stands still in {100 * much:.0f} % of {listed(names)}",
            "what a gradient adds to it, (1 − β₂)(g² − ν), is below half a unit in the "
            "last place of the half precision that it is kept in",
            "Keep ν in float32 (nu_dtype=jnp.float32, or float32 parameters), or wrap "
            "the optimizer in optjax.stochastic_rounding",
            names,
        )


def schedule(facts: Facts) -> Iterator[Verdict]:
    """A step is lost at a schedule's end, or a schedule counts something else."""
    steps = len(facts.values)
    rates = {name: facts.values[:, index] for index, name in facts.named(Role.STEP)}
    # Where none can be turned, what the parts tell.
    for name, values in (
        rates or {"the learning rate": facts.measured.told.learning_rate}
    ).items():
        zero = int(np.sum(values == 0))
        if zero:
            yield Verdict(
                "schedule at 0",
                f"{name} is 0",
                f"in {zero} of the {steps} steps looked at, which are lost",
                "Let a warm-up begin above 0, and a schedule end after the training",
            )
    if facts.layout.counts_batches:
        yield Verdict(
            "counts batches",
            "a schedule counts batches, not updates",
            "it stands outside of optax.MultiSteps, which updates once in several",
            "Put it inside: optax.MultiSteps(optimizer with the schedule, k)",
        )


def twice(facts: Facts) -> Iterator[Verdict]:
    """The step goes as a power of the learning rate."""
    for _, name in facts.named(Role.STEP):
        elasticity = facts.effects[OVERALL][name].elasticity
        if elasticity > _MORE_THAN_ONCE:
            yield Verdict(
                "enters twice",
                f"{name} enters more than once",
                f"the step goes as its power {elasticity:.2f}",
                "Leave one of the factors out",
            )
