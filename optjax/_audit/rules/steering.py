"""Rules on what decides the step: bounds, clips, ε and weight decay."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from optjax._audit.facts import Facts, Verdict, count, listed
from optjax._audit.names import Role, role
from optjax._audit.notes import final_rate, held_since
from optjax._audit.subject import PROBES
from optjax._groups import OVERALL

# An effect below this is none; the rounding of float32 is far below.
_NO_EFFECT = 1e-2
# The share of a step from which on weight decay is what a group is trained by.
_MUCH_DECAY = 0.25
# From this share on the decay of a bias is no accident of its small default.
_SOME_DECAY = 5e-3
# ε is √ν or more in this share of a group, or on average.
_MANY, _MOSTLY = 0.25, -0.4
_STRONG_CLIP = 0.1
_ALL = 0.99
# Of a mean in float32.
_ROUNDING = 1e-6


def inert(facts: Facts) -> Iterator[Verdict]:
    """A hyper-parameter has no say in the step."""
    live = facts.live()
    roles = Role.STEP, Role.DECAY, Role.OTHER
    for index, name in facts.named(*roles):
        value = facts.values[:, index]
        if np.all(value == 0) or not live:
            continue

        def size(group: str, name: str = name) -> float:
            effect = facts.effects[group][name]
            return float(np.hypot(effect.elasticity, effect.turn))

        is_step = role(name) is Role.STEP
        dead = [
            group for group in live if size(group) < (_NO_EFFECT if is_step else 1e-9)
        ]
        if not dead or (not is_step and len(dead) < len(live)):
            continue
        why, remedy = _why_inert(facts, dead, role(name))
        yield Verdict(
            "inert", f"{name} is inert{count(dead, live)}", why, remedy, tuple(dead)
        )


def at_bound(facts: Facts) -> Iterator[Verdict]:
    """Of an optimizer whose numbers cannot be turned, by what its parts tell."""
    # A learning rate outside of the bounds, as graftbound's, goes on to scale the step.
    if facts.named(Role.STEP) or not np.any(facts.measured.told.is_relative):
        return
    live = facts.live()
    where = [group for group in live if facts.told(group, "at_bound") > _ALL]
    if where:
        cause = f"the learning rate is inert{count(where, live)}"
        yield Verdict("inert", cause, *_at_bound(facts, where), tuple(where))


def _at_bound(facts: Facts, groups: Sequence[str]) -> tuple[str, str]:
    leaves = [leaf for group in groups for leaf in facts.groups[group]]
    since = held_since(facts.measured, leaves)
    share = min(facts.told(group, "at_bound") for group in groups)
    much = "every rate is at its bound"
    if share < 1 - _ROUNDING:
        much = f"{math.floor(1000 * share) / 10:g} % of the rates are at their bound"
    name = final_rate(facts.layout, facts.measured)
    return (
        f"{much}{since}, and {name} decides",
        f"Turn {name}, or let the bounds close later: optjax.gamma_for",
    )


def _why_inert(facts: Facts, dead: Sequence[str], which: Role) -> tuple[str, str]:
    if which is Role.DECAY:
        return (
            "no parameter is decayed",
            "Look at the mask of what is decayed, and whether update gets the "
            "parameters",
        )
    if all(facts.told(group, "at_bound") > _ALL for group in dead):
        return _at_bound(facts, dead)
    bounds = [
        name
        for name in facts.layout.hyperparameters
        if role(name) is Role.AT_TIMES
        and all(facts.effects[g][name].moved > 0.9 for g in dead)
    ]
    if _is_coupled(facts):
        return (
            "the step is clipped or normalized after it",
            "Clip the gradients, before the optimizer, instead of its updates",
        )
    if bounds:
        return f"{bounds[0]} decides", f"Turn {bounds[0]}"
    return (
        "the step is the same whatever it is",
        "The optimizer does not use it: look where it is handed on",
    )


def _is_coupled(facts: Facts) -> bool:
    """Whether leaves move with the gradients of others, as under a norm of all."""
    probe = len(facts.layout.hyperparameters) + PROBES.index("every second gradient")
    others = np.arange(len(facts.layout.leaves)) % 2 == 0
    moved = np.abs(facts.leaf(probe, "elasticity")) + facts.leaf(probe, "turn")
    return bool(np.any(moved[others] > 1e-6))


def clip(facts: Facts) -> Iterator[Verdict]:
    """A clip decides the length of every step."""
    response, slope = facts.moves.response, facts.moves.slope
    scale = np.sqrt(np.sum(response**2, axis=1) / np.sum(slope**2, axis=1))
    everything = facts.effects[OVERALL]["gradients"]
    is_strong = np.all(np.isfinite(scale)) and np.max(scale) < _STRONG_CLIP
    if is_strong and _is_coupled(facts):
        yield Verdict(
            "clipped",
            f"a clip scales every step by {np.mean(scale):.1g}",
            "it decides the step's length: twice the gradients make "
            f"{2**everything.elasticity:.2f} times the step",
            "Clip at a larger norm, and unscaled gradients",
        )


def floor(facts: Facts) -> Iterator[Verdict]:
    """ε outweighs √ν."""
    if not facts.named(Role.FLOOR):
        told = {group: facts.told(group, "below_floor") for group in facts.live()}
        below = [group for group, share in told.items() if share > _MANY]
        if below:
            yield _floor_verdict("ε", max(told[group] for group in below), below)
        return
    for _, name in facts.named(Role.FLOOR):
        where, share = [], 0.0
        for group in facts.live():
            effect = facts.effects[group][name]
            if effect.elasticity < _MOSTLY or (
                effect.elasticity < 0 and effect.moved > _MANY
            ):
                where.append(group)
                share = max(share, effect.moved)
        if where:
            yield _floor_verdict(name, share, where)


def _floor_verdict(name: str, share: float, where: Sequence[str]) -> Verdict:
    # Within the root no coordinate's own elasticity is beyond −½.
    much = f"{100 * share:.0f} %" if share > _MANY else "most"
    return Verdict(
        "floor",
        f"{name} is larger than √ν in {much} of {listed(where)}",
        "the step is as long as the gradient there, and not as the learning rate",
        f"It is SGD with momentum: take a smaller {name}, or scale the loss up",
        tuple(where),
    )


def decay(facts: Facts) -> Iterator[Verdict]:
    """Of the part of each leaf's step that goes with its parameters."""
    decays = facts.named(Role.DECAY)
    probe = len(facts.layout.hyperparameters) + PROBES.index("parameters")
    index, name = decays[0] if decays else (probe, "weight decay")
    share = facts.leaf(index, "decay")
    vectors = np.array(facts.layout.axes) < 2
    has_both = vectors.any() and not vectors.all()
    moved = vectors & (share >= _SOME_DECAY) & facts.has_gradient
    if has_both and moved.any():
        where = facts.leaves(moved)
        is_inverted = np.all(share[~vectors] < 1e-6)
        yield Verdict(
            "decays vectors",
            f"{name} moves {listed(where)}" + (" and no matrix" if is_inverted else ""),
            f"it is {100 * np.max(share[moved]):.2g} % of the step of what looks like "
            "biases and scales",
            "The mask is the wrong way round"
            if is_inverted
            else "Mask what has fewer than two axes: mask=lambda params: "
            "jax.tree.map(lambda x: x.ndim > 1, params)",
            where,
        )
    knob = name if decays else "parameters"
    heavy = [
        group
        for group in facts.live()
        if facts.has_gradient[facts.groups[group]].any()
        and facts.effects[group][knob].decay > _MUCH_DECAY
    ]
    if heavy:
        most = max(facts.effects[group][knob].decay for group in heavy)
        yield Verdict(
            "much decay",
            f"{name} is {100 * min(most, 1):.0f} % of the step in {listed(heavy)}",
            "it takes the parameters to 0 rather than the loss",
            "Take a smaller one; AdamW's is multiplied by the learning rate here, in "
            "Optax and in PyTorch, and not in its paper",
            tuple(heavy),
        )
