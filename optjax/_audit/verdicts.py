"""What is wrong with an optimizer, said by what its numbers do to its step."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from optjax._audit.measure import Measured
from optjax._audit.names import Role, role
from optjax._audit.subject import PROBES
from optjax._groups import OVERALL

__all__ = ["Verdict", "judge"]


class Verdict(NamedTuple):
    """Something that is wrong.

    Attributes:
      kind: a word or two to tell it by.
      cause: what is wrong, in words.
      evidence: what it was seen by.
      remedy: what to do.
      where: the groups or the leaves.
    """

    kind: str
    cause: str
    evidence: str
    remedy: str
    where: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.cause}: {self.evidence}. {self.remedy}."


# An effect below this is none; the rounding of float32 is far below.
_NO_EFFECT = 1e-2
# The share of a step from which on weight decay is what a group is trained by.
_MUCH_DECAY = 0.25
# From this share on the decay of a bias is no accident of its small default.
_SOME_DECAY = 5e-3
# An elasticity at which the learning rate enters more than once.
_MORE_THAN_ONCE = 1.5
# ε is √ν or more in this share of a group, or on average.
_MANY, _MOSTLY = 0.25, -0.4
# Gradients and updates so much smaller than those of other leaves are rounding.
_ROUNDING = 1e-6
_UPHILL, _RAW = -0.2, -0.999
_STRONG_CLIP = 0.1
# But for rounding.
_ALL = 0.99


class _Facts:
    """The measurements, with what several verdicts ask."""

    def __init__(self, layout: Any, measured: Measured, effects: Any):
        self.layout, self.measured = layout, measured
        self.moves, self.values = measured.moves, measured.values
        self.groups = {
            name: list(members) for name, members in layout.groups if name != OVERALL
        } or {OVERALL: list(range(len(layout.leaves)))}
        self._all = effects
        self.effects = {name: effects[name] for name in [*self.groups, OVERALL]}
        self.has_gradient = self._is_more_than_rounding(self.moves.gradient)
        self.moves_at_all = self._is_more_than_rounding(self.moves.update)

    def _is_more_than_rounding(self, norms: np.ndarray) -> np.ndarray:
        """Which leaves' coordinates are not small beside those of the others."""
        sizes = np.array(self.layout.sizes)
        squares = np.max(norms, axis=0).astype(np.float64) ** 2
        whole = np.sqrt(np.sum(squares) / max(np.sum(sizes), 1))
        return np.sqrt(squares / np.maximum(sizes, 1)) > _ROUNDING * whole

    def named(self, *roles: Role) -> list[tuple[int, str]]:
        """The hyper-parameters of these roles, with their index."""
        names = enumerate(self.layout.hyperparameters)
        return [(i, name) for i, name in names if role(name) in roles]

    def leaf(self, knob: int, field: str) -> np.ndarray:
        """A field of a knob's effects on each leaf, the mean of the steps with one."""
        values = getattr(self.measured.effects, field)[:, knob]
        is_step = self.moves.update > 0
        return np.sum(np.where(is_step, values, 0.0), axis=0) / np.maximum(
            np.sum(is_step, axis=0), 1
        )

    def told(self, group: str, field: str) -> float:
        """What the parts tell of a group, NaN of one that has no such part."""
        members = self.groups[group]
        values = np.mean(getattr(self.measured.told, field), axis=0)[members]
        return float(np.average(values, weights=np.array(self.layout.sizes)[members]))

    def live(self) -> list[str]:
        """The groups that move."""
        return [
            g for g, members in self.groups.items() if self.moves_at_all[members].any()
        ]

    def leaves(self, which: Any) -> tuple[str, ...]:
        return tuple(np.array(self.layout.leaves)[which])


def judge(layout: Any, measured: Measured, effects: Mapping[str, Any]) -> list[Verdict]:
    """Every rule's verdicts. What is not finite makes all else unknown."""
    with np.errstate(all="ignore"):
        facts = _Facts(layout, measured, effects)
        broken = [*_not_finite(facts), *_rounded(facts)]
        if any(verdict.kind == "not finite" for verdict in broken):
            return broken
        return broken + [verdict for rule in _RULES for verdict in rule(facts)]


def _not_finite(facts: _Facts) -> Iterator[Verdict]:
    gradient = ~np.all(facts.moves.finite_gradient, axis=0)
    if gradient.any():
        where = facts.leaves(gradient)
        yield Verdict(
            "not finite",
            f"the gradients of {_listed(where)} are not finite",
            "there is a NaN or an infinity in them",
            "Look for it in the loss, or scale the loss down",
            where,
        )
    update = ~np.all(facts.moves.finite, axis=0)
    if update.any():
        where = facts.leaves(update)
        yield Verdict(
            "not finite",
            f"the updates of {_listed(where)} are not finite",
            "the gradients are, and the optimizer made a NaN or an infinity of them",
            "Keep its numbers and its state in float32",
            where,
        )


def _rounded(facts: _Facts) -> Iterator[Verdict]:
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


def _no_gradient(facts: _Facts) -> Iterator[Verdict]:
    decayed = ~facts.has_gradient & facts.moves_at_all
    if decayed.any():
        where = facts.leaves(decayed)
        yield Verdict(
            "moved without gradient",
            f"{_listed(where)} is moved without a gradient",
            "its gradient is 0, and weight decay or what was averaged before moves it",
            "Leave it out of the optimizer by optax.masked or optax.partition",
            where,
        )
    still = ~facts.has_gradient & ~facts.moves_at_all
    if still.any():
        where = facts.leaves(still)
        yield Verdict(
            "no gradient",
            f"{_listed(where)} gets no gradient",
            "it is 0, or below 1e-6 of the others",
            "The loss does not depend on it: look for a stop_gradient, a branch that "
            "is not taken, or a bias before a normalization",
            where,
        )


def _no_update(facts: _Facts) -> Iterator[Verdict]:
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
                f"{_listed(where)} is not trained",
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


_FROM_0 = "Let a warm-up begin above 0, and a schedule end after the training"


def _schedule(facts: _Facts) -> Iterator[Verdict]:
    steps = len(facts.values)
    for index, name in facts.named(Role.STEP):
        zero = int(np.sum(facts.values[:, index] == 0))
        if zero:
            yield Verdict(
                "schedule at 0",
                f"{name} is 0",
                f"in {zero} of the {steps} steps looked at, which are lost",
                _FROM_0,
            )
    told = facts.measured.told.learning_rate
    if not facts.named(Role.STEP) and np.any(told == 0):
        yield Verdict(
            "schedule at 0",
            "the learning rate is 0",
            f"in {np.sum(told == 0)} of the {steps} steps looked at, which are lost",
            _FROM_0,
        )
    if facts.layout.counts_batches:
        yield Verdict(
            "counts batches",
            "a schedule counts batches, not updates",
            "it stands outside of optax.MultiSteps, which updates once in several",
            "Put it inside: optax.MultiSteps(optimizer with the schedule, k)",
        )


def _uphill(facts: _Facts) -> Iterator[Verdict]:
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
            f"{_listed(where) if where else 'the step'} goes uphill",
            "the cosine of the update and the gradient is "
            f"{-(cosine(raw) if where else whole):.2f}",
            "An update is added: it needs the minus sign of "
            "optax.scale_by_learning_rate. What optax.masked leaves out is still the "
            "gradient; optax.partition with optax.set_to_zero() leaves it out",
            where,
        )


def _lost(facts: _Facts) -> Iterator[Verdict]:
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
            f"{100 * share:.0f} % of the updates of {_listed(names)} are lost",
            f"update/weight is {update / parameter:.0e}, below half a unit in the last "
            f"place of {dtype} parameters",
            "Keep the parameters in float32, or wrap the optimizer in "
            "optjax.stochastic_rounding",
            names,
        )


def _inert(facts: _Facts) -> Iterator[Verdict]:
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
            "inert", f"{name} is inert{_count(dead, live)}", why, remedy, tuple(dead)
        )


_AT_BOUND = (
    "every rate is at its bound, and final_lr decides",
    "Turn final_lr, or let the bounds close later: optjax.gamma_for",
)


def _at_bound(facts: _Facts) -> Iterator[Verdict]:
    """Of an optimizer whose numbers cannot be turned, by what its parts tell."""
    if facts.named(Role.STEP):
        return
    live = facts.live()
    where = [group for group in live if facts.told(group, "at_bound") > _ALL]
    if where:
        count = (
            "" if len(where) == len(live) else f" in {len(where)} of {len(live)} groups"
        )
        cause = f"the learning rate is inert{count}"
        yield Verdict("inert", cause, *_AT_BOUND, tuple(where))


def _why_inert(facts: _Facts, dead: Sequence[str], which: Role) -> tuple[str, str]:
    if which is Role.DECAY:
        return (
            "no parameter is decayed",
            "Look at the mask of what is decayed, and whether update gets the "
            "parameters",
        )
    if all(facts.told(group, "at_bound") > _ALL for group in dead):
        return _AT_BOUND
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


def _is_coupled(facts: _Facts) -> bool:
    """Whether leaves move with the gradients of others, as under a norm of all."""
    probe = len(facts.layout.hyperparameters) + PROBES.index("every second gradient")
    others = np.arange(len(facts.layout.leaves)) % 2 == 0
    moved = np.abs(facts.leaf(probe, "elasticity")) + facts.leaf(probe, "turn")
    return bool(np.any(moved[others] > 1e-6))


def _clip(facts: _Facts) -> Iterator[Verdict]:
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


def _floor(facts: _Facts) -> Iterator[Verdict]:
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
        f"{name} is larger than √ν in {much} of {_listed(where)}",
        "the step is as long as the gradient there, and not as the learning rate",
        f"It is SGD with momentum: take a smaller {name}, or scale the loss up",
        tuple(where),
    )


def _decay(facts: _Facts) -> Iterator[Verdict]:
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
            f"{name} moves {_listed(where)}"
            + (" and no matrix" if is_inverted else ""),
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
            f"{name} is {100 * min(most, 1):.0f} % of the step in {_listed(heavy)}",
            "it takes the parameters to 0 rather than the loss",
            "Take a smaller one; AdamW's is multiplied by the learning rate here, in "
            "Optax and in PyTorch, and not in its paper",
            tuple(heavy),
        )


def _twice(facts: _Facts) -> Iterator[Verdict]:
    for _, name in facts.named(Role.STEP):
        elasticity = facts.effects[OVERALL][name].elasticity
        if elasticity > _MORE_THAN_ONCE:
            yield Verdict(
                "enters twice",
                f"{name} enters more than once",
                f"the step goes as its power {elasticity:.2f}",
                "Leave one of the factors out",
            )


def _count(some: Sequence[str], all_: Sequence[str]) -> str:
    is_all = len(some) == len(all_)
    return "" if is_all else f" in {len(some)} of {len(all_)} groups"


def _listed(names: Sequence[str], most: int = 3) -> str:
    shown = ", ".join(names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


_RULES: tuple[Callable[[_Facts], Iterator[Verdict]], ...] = (
    _no_gradient,
    _no_update,
    _schedule,
    _uphill,
    _lost,
    _inert,
    _at_bound,
    _clip,
    _floor,
    _decay,
    _twice,
)
