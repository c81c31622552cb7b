"""Read from the links of an update which compiled step does the same.

An update is followed from the parameters' updates back to the gradients, leaf by leaf:
descend ← decay ← V ⊙ m, m ← its direction ← g, and V ← bound ← … ← root ← ν ← g. Every
link must have received the very array that the one before it returned. Whatever else an
optimizer does in between, such as scaling a rate, breaks the chain, and then the update
of that leaf is computed as it is written.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from optjax._compression import CompressedState
from optjax._observe import Observation
from optjax._parts import ClipAround, Decay, Descend, Link, Packed, Product, Rounded
from optjax._precision import precise
from optjax.fused._coverage import (
    Largest,
    Memory,
    NotCoveredError,
    Squares,
    assemble,
    name_of,
    term_of,
)
from optjax.fused._kernel import (
    DTYPES,
    Bounded,
    Coefficients,
    Form,
    Storage,
    no_key,
)

__all__ = ["Call", "plan"]


class Call(NamedTuple):
    """Leaves that share a form and its coefficients.

    Attributes:
      form: the compiled loop.
      coefficients: its scalars, packed.
      places: for each leaf, its place among the leaves of the parameters.
      grads: the gradients.
      key: the words of the noise that their state is rounded with.
      old: for each array that the form keeps, m, ν and ν_max, its leaves before, or
        the one array that they are packed in; and the bounds of leaves that have their
        own.
      new: its leaves after, which nothing has computed yet; in place of bounds the
        pairs of squared norms.
    """

    form: Form
    coefficients: Any
    places: list[int]
    grads: list[Any]
    key: Any
    old: list[list[Any]]
    new: list[list[Any]]


class _Place(NamedTuple):
    """The link that returned a leaf, as its which leaf, and what that was before."""

    link: Link
    place: int
    received: Any


class _Trail(NamedTuple):
    """What a leaf's update came through.

    Attributes:
      gradient: the gradient.
      direction: from g to m, nothing where that is g.
      rate: from g to V.
      descend: −s_t, of V ⊙ m.
      decays: λ x before the gradient meets the branches, before s_t and after it.
    """

    gradient: Any
    direction: tuple[_Place, ...]
    rate: tuple[_Place, ...]
    descend: Descend
    decays: tuple[Decay | None, Decay | None, Decay | None]

    @property
    def parts(self) -> tuple[_Place, ...]:
        """Those of both branches."""
        return (*self.direction, *self.rate)

    def key(self) -> tuple[int, ...]:
        """Leaves with equal keys share a form and its coefficients."""
        links = (place.link for place in self.parts)
        return tuple(map(id, (self.descend, *self.decays, *links)))


class _Stored(NamedTuple):
    """An array as it is kept.

    Attributes:
      array: its numbers or its codes.
      scale: the scales of codes, or None.
      key: that of the noise it was rounded with, if any.
    """

    array: Any
    scale: Any
    key: tuple[Any, Any] | None


class _Packed(NamedTuple):
    """Where a leaf's state is among packed ones.

    Attributes:
      rows: for each array that the form keeps, as `Packed` has it.
      place: which leaf of each.
    """

    rows: list[tuple[Any, Any, list[Any], list[Any]]]
    place: int


class _Told:
    """What was told of an update, from each leaf back to what it was made of."""

    def __init__(self, seen: Observation):
        self._seen = seen
        # With the trees, so that no others get their ids.
        self._flat: dict[int, tuple[Any, list[Any]]] = {}
        self._made_by: dict[int, _Place] = {}
        # What is stored of a state that is computed in float32, by the latter's ids.
        self._stored: dict[int, _Stored] = {}
        # By the ids of packed leaves, before and after, their array and their place.
        self._packed: tuple[dict[int, Any], dict[int, Any]] = {}, {}
        for link in seen.links:
            if isinstance(link.part, Rounded):
                self._note(link.part.wide, link.state, None)
                self._note(link.part.new_wide, link.new_state, link.part.key)
            if isinstance(link.part, Packed):
                for row in link.part.rows:
                    for places, leaves in zip(self._packed, row[2:], strict=True):
                        for i, leaf in enumerate(leaves):
                            places[id(leaf)] = row, i
            received, returned = map(self._leaves, (link.received, link.returned))
            if len(received) != len(returned):
                continue
            for i, (before, after) in enumerate(zip(received, returned, strict=True)):
                # A masked transformation hands some leaves on.
                if before is not after:
                    self._made_by.setdefault(id(after), _Place(link, i, before))

    def _note(self, wide: Any, state: Any, key: Any) -> None:
        treedef: Any = jax.tree.structure(wide)
        scales = [None] * treedef.num_leaves
        if isinstance(state, CompressedState):
            scales = treedef.flatten_up_to(state.scales)
            state = state.inner_state
        rows = zip(self._leaves(wide), self._leaves(state), scales, strict=True)
        for before, after, scale in rows:
            if before is not after:
                self._stored[id(before)] = _Stored(after, scale, key)

    def stored(self, leaf: Any) -> "_Stored":
        """An array of a state as it is kept."""
        return self._stored.get(id(leaf), _Stored(leaf, None, None))

    def packed(self, old: list[Any], new: list[Any]) -> _Packed | None:
        """Where the arrays of a leaf's state are packed, if they are.

        Raises:
          NotCoveredError: where some are in another way than others.
        """
        before, after = (
            [places.get(id(x), (None, -1)) for x in arrays]
            for places, arrays in zip(self._packed, (old, new), strict=True)
        )
        places = {place for _, place in (*before, *after)}
        if places <= {-1}:
            return None
        moved = any(a is not b for (a, _), (b, _) in zip(before, after, strict=True))
        if moved or len(places) > 1:
            raise NotCoveredError("its state is not all packed alike")
        return _Packed([row for row, _ in before], places.pop())

    def _leaves(self, tree: Any) -> list[Any]:
        """Of a tree that every leaf asks for, flattened once."""
        if id(tree) not in self._flat:
            self._flat[id(tree)] = tree, jax.tree.leaves(tree)
        return self._flat[id(tree)][1]

    def at(self, place: _Place, tree: Any) -> Any:
        """The same leaf of another tree of the link."""
        leaves = self._leaves(tree)
        if len(leaves) != len(self._leaves(place.link.returned)):
            name = name_of(place.link.part)
            raise NotCoveredError(f"its {name} keeps or was given another tree")
        return leaves[place.place]

    def _maker(self, leaf: Any) -> _Place | None:
        """What returned it, but for casts."""
        while self._seen.is_deferred(leaf) and id(leaf) not in self._made_by:
            leaf = self._seen.source(leaf)
        return self._made_by.get(id(leaf))

    def trail(self, update: Any, param: Any) -> _Trail:
        """From one parameter's gradient to its update.

        Raises:
          NotCoveredError: where they are not those of one basic form.
        """
        if not self._seen.is_deferred(update):
            raise NotCoveredError("what returns its update is no part of optjax")

        outside, u = self._decay(update, param)
        last = self._maker(u)
        if last is None or not isinstance(last.link.part, Descend):
            raise NotCoveredError("its update is not the last step of a basic_form")
        inside, u = self._decay(last.received, param)
        before = self._maker(u)
        if before is None or type(before.link.part) is not Product:
            raise NotCoveredError(_no_product(before))
        g = before.received
        l2, gradient = self._decay(g, param)
        if self._seen.is_deferred(gradient):
            raise NotCoveredError("its gradient comes from another part of optjax")
        product = before.link.part
        return _Trail(
            gradient,
            self._branch(self.at(before, product.direction), g, "direction"),
            self._branch(self.at(before, product.rate), g, "rate"),
            last.link.part,
            (l2, inside, outside),
        )

    def _decay(self, u: Any, param: Any) -> tuple[Decay | None, Any]:
        """The weight decay that returned u, if one did, and what it received."""
        place = self._maker(u)
        if place is None or not isinstance(place.link.part, Decay):
            return None, u
        if self.at(place, place.link.params) is not param:
            raise NotCoveredError("its weight decay is of another array")
        return place.link.part, place.received

    def _branch(self, leaf: Any, g: Any, name: str) -> tuple[_Place, ...]:
        """From the gradient to the leaf."""
        places: list[_Place] = []
        while leaf is not g:
            place = self._maker(leaf)
            if place is None or len(places) > len(self._seen.links):
                raise NotCoveredError(f"a part of its {name} tells nothing of itself")
            places.append(place)
            leaf = place.received
        return tuple(places[::-1])

    def check(self, x: Any, param: Any, name: str) -> None:
        """Whether the compiled step can take an array of a leaf.

        Raises:
          NotCoveredError: where it cannot.
        """
        if self._seen.is_deferred(x):
            raise NotCoveredError(f"its {name} comes from another part of optjax")
        if jnp.shape(x) != jnp.shape(param):
            raise NotCoveredError(f"its {name} has another shape than the parameter")
        if jnp.result_type(x) not in DTYPES:
            raise NotCoveredError(f"its {name} is {jnp.result_type(x)}")


def plan(
    seen: Observation, updates: Sequence[Any], params: Sequence[Any]
) -> tuple[list[Call], dict[int, str]]:
    """The calls that do what the update does, and why not, for the other leaves."""
    told = _Told(seen)
    why: dict[int, str] = {}
    groups: dict[tuple[int, ...], list[tuple[int, _Trail]]] = {}
    for index, (update, param) in enumerate(zip(updates, params, strict=True)):
        try:
            trail = told.trail(update, param)
        except NotCoveredError as error:
            why[index] = str(error)
        else:
            groups.setdefault(trail.key(), []).append((index, trail))
    calls = []
    for members in groups.values():
        try:
            form, coefficients, kept = _equation(members[0][1])
        except NotCoveredError as error:
            why |= dict.fromkeys((index for index, _ in members), str(error))
            continue
        scalars = coefficients.pack()
        # Leaves without dimensions are not rounded where the others are.
        alike: dict[Any, tuple[Any, Any, list[tuple[Any, ...]]]] = {}
        for index, trail in members:
            try:
                storage, key, old, new = _row(told, trail, kept, params[index])
                packed = told.packed(old, new)
                if form.bounded is Bounded.OWN:
                    bounds, norms = _bounds(told, trail)
                    old, new = [*old, bounds], [*new, norms]
                if form.l2:
                    _check_l2(trail.gradient, params[index], coefficients.l2)
            except NotCoveredError as error:
                why[index] = str(error)
            else:
                arrays = () if packed is None else tuple(map(id, packed.rows))
                _, places, rows = alike.setdefault(
                    (storage, id(key), arrays), (key, [], [])
                )
                places.append(packed)
                rows.append((index, trail.gradient, *old, *new))
        for (storage, _, arrays), (key, places, rows) in alike.items():
            indices, grads, *columns = map(list, zip(*rows, strict=True))
            half = len(columns) // 2
            old, new = columns[:half], columns[half:]
            if arrays:
                try:
                    old, new = _whole(places, old, new)
                except NotCoveredError as error:
                    why |= dict.fromkeys(indices, str(error))
                    continue
            calls.append(
                Call(
                    form._replace(storage=storage, packed=bool(arrays)),
                    scalars,
                    indices,
                    grads,
                    no_key() if key is None else jnp.stack(key),
                    old,
                    new,
                )
            )
    return calls, why


def _whole(
    places: list[_Packed], old: list[list[Any]], new: list[list[Any]]
) -> tuple[list[list[Any]], list[list[Any]]]:
    """The columns with the packed array in place of its leaves.

    Raises:
      NotCoveredError: where they are not all of its leaves.
    """
    rows = places[0].rows
    ours = [at.place for at in places]
    if any(ours != [*range(len(leaves))] for _, _, leaves, _ in rows):
        raise NotCoveredError("its state is packed with that of leaves not compiled")
    columns = [([before], [after]) for before, after, _, _ in rows]
    n = len(rows)
    return [x for x, _ in columns] + old[n:], [x for _, x in columns] + new[n:]


def _no_product(place: _Place | None) -> str:
    if place is None:
        return "what it descends along is no part of optjax"
    return f"it descends along a {name_of(place.link.part)}, not V ⊙ m of two branches"


#: For each array that a form keeps: the link of a trail, its tree before and after.
_Kept = list[tuple[int, Any, Any]]


def _equation(trail: _Trail) -> tuple[Form, Coefficients, _Kept]:
    links = [place.link for place in trail.parts]
    terms = [term_of(link.part, link.state, link.new_state) for link in links]
    kept = [
        (k, term.old, term.new)
        for k, term in enumerate(terms)
        if isinstance(term, Memory | Squares | Largest)
    ]
    s = precise(trail.descend.now)
    l2, inside, outside = (None if d is None else precise(d.now) for d in trail.decays)
    decay = None
    if inside is not None or outside is not None:
        decay = s * (0.0 if inside is None else inside)
        decay -= 0.0 if outside is None else outside
    n = len(trail.direction)
    return *assemble(terms[:n], terms[n:], s, decay, l2), kept


def _row(
    told: _Told, trail: _Trail, kept: _Kept, param: Any
) -> tuple[Storage, Any, list[Any], list[Any]]:
    """How the arrays of one leaf are stored that its form keeps; before and after."""
    old = [told.at(trail.parts[k], tree) for k, tree, _ in kept]
    new = [told.at(trail.parts[k], tree) for k, _, tree in kept]
    told.check(param, param, "parameter")
    told.check(trail.gradient, param, "gradient")
    for before, after in zip(old, new, strict=True):
        told.check(before, param, "state")
        if jnp.result_type(before) != jnp.result_type(after):
            raise NotCoveredError("its state changes its dtype")
    before, after = ([told.stored(x) for x in arrays] for arrays in (old, new))
    keys = [stored.key for stored in after]
    noisy = [key for key in keys if key is not None]
    for kept_as, wide, key in zip(before, old, keys, strict=True):
        if kept_as.scale is None:
            told.check(kept_as.array, param, "state")
        if (kept_as.array is wide) != (key is None):
            raise NotCoveredError("its state is stored in another way than it was")
    if noisy and any(key is not noisy[0] for key in keys):
        raise NotCoveredError("its state is not all stored alike, rounded by one key")
    is_coded = {x.scale is not None for x in (*before, *after)}
    if len(is_coded) > 1:
        raise NotCoveredError("its state is not all codes")
    arrays = [[x.array for x in column] for column in (before, after)]
    if is_coded == {True}:
        arrays = [
            [*row, *(x.scale for x in column)]
            for row, column in zip(arrays, (before, after), strict=True)
        ]
        storage = Storage.COMPRESSED
    else:
        storage = Storage.STOCHASTIC if noisy else Storage.NEAREST
    old, new = arrays
    return storage, noisy[0] if noisy else None, old, new


def _bounds(told: _Told, trail: _Trail) -> tuple[Any, tuple[Any, Any]]:
    """Those of a leaf, and the squared norms that are measured of it."""
    ((place, trees),) = (
        (place, (part.lower, part.upper, *part.norms))
        for place in trail.rate
        if isinstance(part := place.link.part, ClipAround) and part.norms is not None
    )
    lower, upper, step, direction = (told.at(place, tree) for tree in trees)
    bounds = [jnp.asarray(bound, jnp.float32) for bound in (lower, upper)]
    return jnp.stack(bounds), (step, direction)


def _check_l2(g: Any, x: Any, l2: Any) -> None:
    # g + λ x may be wider than g, which is what the compiled step rounds it to.
    if jnp.result_type(g, x, l2) != jnp.result_type(g):
        raise NotCoveredError("its L2 weight decay is wider than its gradient")
