"""Read from the records of an update which compiled step does the same.

An update is followed from the parameters' updates back to the gradients, leaf by leaf:
descend ← decay ← V ⊙ m, m ← ema or trace ← g, and V ← bound ← bias ← root ← ν ← g.
Every link must be the very array that the primitive before returned. Whatever else an
optimizer does in between, such as scaling a rate, breaks the chain, and then there is
no plan and the update is computed as it is written.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from optjax._observe import Observation, Record
from optjax._precision import one_minus_power, precise
from optjax.fused._kernel import Coefficients, Form

__all__ = ["Group", "NotCoveredError", "plan"]


class NotCoveredError(Exception):
    """The update is not one that the compiled step can do."""


class Group(NamedTuple):
    """Leaves that share a form and its coefficients.

    Attributes:
        form: the compiled loop.
        coefficients: its scalars, `Coefficients` or packed.
        places: for each leaf, its place among the leaves of the parameters.
        grads: the gradients.
        old: for each array that the form keeps, m, ν and ν_max, its leaves before.
        new: its leaves after, which nothing has computed yet.
    """

    form: Form
    coefficients: Any
    places: list[int]
    grads: list[Any]
    old: list[list[Any]]
    new: list[list[Any]]


class _Flattened:
    """The leaves of trees, each flattened once, since every leaf asks for them."""

    def __init__(self) -> None:
        # With the tree, so that no other gets its id.
        self._known: dict[int, tuple[Any, list[Any]]] = {}

    def leaves(self, tree: Any) -> list[Any]:
        if id(tree) not in self._known:
            self._known[id(tree)] = tree, jax.tree.leaves(tree)
        return self._known[id(tree)][1]


class _Place(NamedTuple):
    """The record that returned a leaf, and which of its leaves it is."""

    record: Record
    leaf: int
    flattened: _Flattened

    def of(self, tree: Any) -> Any:
        """The same leaf of another tree of the record."""
        return self.flattened.leaves(tree)[self.leaf]


class _Path(NamedTuple):
    """The records that a leaf's update came through."""

    descend: _Place
    outer_decay: _Place | None
    inner_decay: _Place | None
    product: _Place
    l2: _Place | None
    direction: _Place | None
    bound: _Place | None
    corrections: tuple[_Place, ...]
    root: _Place | None
    accumulators: tuple[_Place, ...]
    gradient: Any

    def key(self) -> tuple[int, ...]:
        """Leaves with equal keys share a form and its coefficients."""
        places = [
            self.descend,
            self.outer_decay,
            self.inner_decay,
            self.product,
            self.l2,
            self.direction,
            self.bound,
            *self.corrections,
            self.root,
            *self.accumulators,
        ]
        return tuple(0 if place is None else id(place.record) for place in places)


def plan(
    seen: Observation, updates: Sequence[Any], params: Sequence[Any]
) -> list[Group]:
    """Group the leaves of an update by the compiled step that does it.

    Leaves that were computed, such as the zeros of frozen parameters, are left out.
    Weight decay must have been given these very parameters.

    Raises:
      NotCoveredError: where a leaf was only followed, and by no known path.
    """
    made_by: dict[int, _Place] = {}
    flattened = _Flattened()
    for record in seen.records:
        received = flattened.leaves(record.received)
        returned = flattened.leaves(record.returned)
        _require(len(received) == len(returned))
        for index, (before, after) in enumerate(zip(received, returned, strict=True)):
            # A masked transformation hands some leaves on.
            if before is not after:
                made_by.setdefault(id(after), _Place(record, index, flattened))
    groups: dict[tuple[int, ...], list[tuple[int, _Path]]] = {}
    for index, update in enumerate(updates):
        if seen.is_deferred(update):
            path = _path(update, made_by, seen)
            for place in (path.outer_decay, path.inner_decay, path.l2):
                _require(place is None or _params(place) is params[index])
            groups.setdefault(path.key(), []).append((index, path))
    return [_group(members) for members in groups.values()]


def _path(update: Any, made_by: dict[int, _Place], seen: Observation) -> _Path:
    def maker(leaf: Any) -> _Place | None:
        while seen.is_deferred(leaf) and id(leaf) not in made_by:
            leaf = seen.source(leaf)
        return made_by.get(id(leaf))

    def back(place: _Place | None, kind: str) -> tuple[_Place | None, _Place | None]:
        """The place if it is of this kind, and the one before it."""
        if place is None or place.record.kind != kind:
            return None, place
        return place, maker(_received(place))

    outer_decay, place = back(maker(update), "add_decayed_weights")
    descend, place = back(place, "descend")
    inner_decay, product = back(place, "add_decayed_weights")
    _require(descend is not None and product is not None)
    assert descend is not None
    assert product is not None
    _require(product.record.kind == "precondition")

    g = _received(product)
    l2 = maker(g)
    _require(l2 is None or l2.record.kind == "add_decayed_weights")
    gradient = g if l2 is None else _received(l2)
    _require(not seen.is_deferred(gradient))

    m, v = (product.of(product.record.values[name]) for name in ("direction", "rate"))
    direction = None
    if m is not g:
        direction = maker(m)
        _require(direction is not None and direction.record.kind in ("ema", "trace"))
        assert direction is not None
        _require(_received(direction) is g)

    bound, place = back(maker(v), "bound_clip")
    corrections = []
    while place is not None and place.record.kind == "correct_bias":
        corrections.append(place)
        place = maker(_received(place))
    root: _Place | None = None
    accumulators: list[_Place] = []
    if place is not None and place.record.kind == "rate_by_one":
        _require(bound is None)
    else:
        root, place = back(place, "rate_by_accumulated_square")
        _require(root is not None)
        while place is not None and place.record.kind in _ACCUMULATORS:
            accumulators.insert(0, place)
            place = made_by.get(id(_received(place)))
        _require(bool(accumulators) and _received(accumulators[0]) is g)
    return _Path(
        descend,
        outer_decay,
        inner_decay,
        product,
        l2,
        direction,
        bound,
        tuple(corrections),
        root,
        tuple(accumulators),
        gradient,
    )


_ACCUMULATORS = ("sum_of_squares", "ema_of_squares", "running_max", "debias_squares")


def _group(members: list[tuple[int, _Path]]) -> Group:
    path = members[0][1]
    coefficients: dict[str, Any] = {}
    form = Form("gradient", "one", bounded=path.bound is not None)

    s = _hyper(path.descend, "learning_rate")
    if path.l2 is not None:
        form = form._replace(l2=True)
        coefficients["l2"] = _hyper(path.l2, "weight_decay")
    if path.inner_decay is not None or path.outer_decay is not None:
        form = form._replace(decay=True)
        coefficients["decay"] = s * _hyper(path.inner_decay, "weight_decay")
        coefficients["decay"] -= _hyper(path.outer_decay, "weight_decay")
    if path.direction is not None:
        is_ahead = path.direction.record.values["nesterov"]
        form = form._replace(direction="ahead" if is_ahead else "average")
        coefficients |= _of_direction(path.direction.record)
    if path.root is not None:
        root = path.root.record.values
        _require(isinstance(root["power"], float) and root["power"] == 0.5)
        kinds = [place.record.kind for place in path.accumulators]
        _require(kinds in _COVERED)
        form = form._replace(accumulator="max" if "running_max" in kinds else "average")
        coefficients |= {"eps": root["eps"], "eps_root": root["eps_root"]}
        for place in path.accumulators:
            coefficients |= _of_accumulator(place.record, coefficients)

    scale: Any = 1.0
    for correction in path.corrections:
        b1, b2, alpha = (
            precise(correction.record.values[name])
            for name in ("b1", "b2", "learning_rate")
        )
        t = _steps(correction.record)
        scale *= alpha * jnp.sqrt(one_minus_power(b2, t)) / one_minus_power(b1, t)
    if path.bound is None:
        coefficients["step"] = s * scale
    else:
        coefficients |= {
            "step": s,
            "scale": scale,
            "lower": _hyper(path.bound, "lower"),
            "upper": _hyper(path.bound, "upper"),
        }

    # Hyper-parameters with dimensions are broadcast against each leaf.
    _require(all(jnp.ndim(value) == 0 for value in coefficients.values()))
    kept = [_kept(member) for _, member in members]
    return Group(
        form,
        Coefficients(**coefficients),
        [index for index, _ in members],
        [member.gradient for _, member in members],
        [[old for old, _ in column] for column in zip(*kept, strict=True)],
        [[new for _, new in column] for column in zip(*kept, strict=True)],
    )


# What may stand between the gradient and the root.
_COVERED = (
    ["sum_of_squares"],
    ["ema_of_squares"],
    ["ema_of_squares", "debias_squares"],
    ["ema_of_squares", "running_max"],
    ["ema_of_squares", "running_max", "debias_squares"],
)

# The arrays that primitives keep, by the names of the fields of their states.
_KEPT = {
    "ema": "ema",
    "trace": "trace",
    "sum_of_squares": "nu",
    "ema_of_squares": "nu",
    "running_max": "nu_max",
}


def _of_direction(record: Record) -> dict[str, Any]:
    if record.kind == "trace":
        momentum = precise(record.values["momentum"])
        ahead = {"out": momentum, "ahead": 1.0} if record.values["nesterov"] else {}
        return {"keep": momentum, **ahead}
    b1, debias = precise(record.values["b1"]), record.values["debias"]
    t = _steps(record)
    now = one_minus_power(b1, t) if debias else 1.0
    if not record.values["nesterov"]:
        return {"intake": 1 - b1, "keep": b1, "out": 1.0 / now}
    later = one_minus_power(b1, t + 1) if debias else 1.0
    return {
        "intake": 1 - b1,
        "keep": b1,
        "out": b1 / later,
        "ahead": (1 - b1) / now,
    }


def _of_accumulator(record: Record, before: dict[str, Any]) -> dict[str, Any]:
    if record.kind == "sum_of_squares":
        return {"square_keep": 1.0}
    if record.kind == "running_max":
        # From here on what is divided is the maximum.
        return {"after": 1.0}
    b2 = precise(record.values["b2"])
    debiased = 1.0 / one_minus_power(b2, _steps(record))
    if record.kind == "debias_squares":
        name = "after" if "after" in before else "before"
        return {name: before[name] * debiased}
    return {
        "square_intake": 1 - b2,
        "square_keep": b2,
        "before": debiased if record.values["debias"] else 1.0,
    }


def _kept(path: _Path) -> list[tuple[Any, Any]]:
    """The arrays that this leaf's form keeps, m, ν and ν_max: before and after."""
    places = [] if path.direction is None else [path.direction]
    places += [place for place in path.accumulators if place.record.kind in _KEPT]
    return [
        tuple(
            place.of(getattr(state, _KEPT[place.record.kind]))
            for state in (place.record.state, place.record.new_state)
        )
        for place in places
    ]


def _hyper(place: _Place | None, name: str) -> Any:
    """A hyper-parameter at this step, 0 without the primitive that has it."""
    return 0.0 if place is None else precise(place.record.at_this_step(name))


def _steps(record: Record) -> jax.Array:
    return record.new_state.count.astype(jnp.result_type(float))


def _received(place: _Place) -> Any:
    return place.of(place.record.received)


def _params(place: _Place) -> Any:
    leaves, returned = map(
        place.flattened.leaves, (place.record.params, place.record.returned)
    )
    _require(len(leaves) == len(returned))
    return leaves[place.leaf]


def _require(condition: bool) -> None:
    if not condition:
        raise NotCoveredError
