"""Rules on what is trained: gradients and updates that do not arrive."""

from collections.abc import Iterator, Sequence

import numpy as np

from optjax._audit.facts import Facts, Verdict, listed
from optjax._audit.names import Role

_UPHILL, _RAW = -0.2, -0.999


def no_gradient(facts: Facts) -> Iterator[Verdict]:
    """A leaf has no gradient, and may be moved all the same."""
    decayed = ~facts.has_gradient & facts.moves_at_all
    if decayed.any():
        where = facts.leaves(decayed)
        yield Verdict(
            "moved without gradient",
            f"{listed(where)} is moved without a gradient",
            "its gradient is 0, and weight decay or what was averaged before moves it",
            "Leave it out of the optimizer by optax.masked or optax.partition",
            where,
        )
    still = facts.may_have_gradient & ~facts.has_gradient & ~facts.moves_at_all
    if still.any():
        where = facts.leaves(still)
        yield Verdict(
            "no gradient",
            f"{listed(where)} gets no gradient",
            "it is 0, or below 1e-6 of the others",
            "The loss does not depend on it: look for a stop_gradient, a branch that "
            "is not taken, or a bias before a normalization",
            where,
        )


def no_update(facts: Facts) -> Iterator[Verdict]:
    """A leaf has a gradient and is not moved."""
    frozen = facts.has_gradient & ~facts.moves_at_all
    told = facts.measured.told
    waits = facts.layout.in_parts or np.any(told.waits)
    if not frozen.any() or (waits and not facts.moves_at_all.any()):
        return
    zeros = [
        (index, name)
        for index, name in facts.named(Role.STEP)
        if np.any(facts.values[:, index] == 0)
    ]
    is_off = zeros or np.any(told.learning_rate == 0)
    if is_off or facts.moves_at_all.any():
        if not is_off:
            where = facts.leaves(frozen)
            yield Verdict(
                "frozen",
                f"{listed(where)} is not trained",
                "it gets a gradient, and its updates are 0",
                "Give it to the optimizer, or ignore this kind if it is meant to be",
                where,
            )
        return
    yield Verdict(
        "no step",
        "nothing is trained",
        "there are gradients, and all updates are 0",
        "Look for a factor that is 0, such as a schedule at its end",
    )


def uphill(facts: Facts) -> Iterator[Verdict]:
    """The step has the gradient's own sign."""
    update, gradient = facts.moves.response, facts.moves.gradient
    product = np.where(
        (update > 0) & (gradient > 0), facts.moves.downhill * update * gradient, 0.0
    )

    def cosine(members: Sequence[int]) -> float:
        lengths = np.sum(update[:, members] ** 2) * np.sum(gradient[:, members] ** 2)
        return float(np.sum(product[:, members]) / np.sqrt(lengths)) if lengths else 0.0

    everything = range(len(facts.layout.leaves))
    whole = cosine([*everything])
    raw = [i for i in everything if facts.layout.sizes[i] > 1 and cosine([i]) < _RAW]
    where = facts.leaves(raw) if raw and len(raw) < len(everything) else ()
    if where or whole < _UPHILL:
        yield Verdict(
            "uphill",
            f"{listed(where) if where else 'the step'} goes uphill",
            "the cosine of the update and the gradient is "
            f"{-(cosine(raw) if where else whole):.2f}",
            "An update is added: it needs the minus sign of "
            "optax.scale_by_learning_rate. What optax.masked leaves out is still the "
            "gradient; optax.partition with optax.set_to_zero() leaves it out",
            where,
        )


def lost(facts: Facts) -> Iterator[Verdict]:
    """Updates are too small for the parameters' dtype."""
    lost = np.mean(facts.moves.lost, axis=0)
    where = facts.moves_at_all & (lost >= 0.5)
    if where.any():
        update = np.mean(facts.moves.update[:, where])
        parameter = np.mean(facts.moves.parameter[:, where])
        dtype = np.array(facts.layout.dtypes)[where][0]
        names = facts.leaves(where)
        share = np.average(lost[where], weights=np.array(facts.layout.sizes)[where])
        yield Verdict(
            "lost in rounding",
            f"{100 * share:.0f} % of the updates of {listed(names)} are lost",
            f"update/weight is {update / parameter:.0e}, below half a unit in the last "
            f"place of {dtype} parameters",
            "Keep the parameters in float32, or wrap the optimizer in "
            "optjax.stochastic_rounding",
            names,
        )
