"""Follow the leaves of an update back to their gradients, by the links that were told.

It goes from the parameters' updates back to the gradients, leaf by leaf:
descend ← decay ← V ⊙ m, m ← its direction ← g, and V ← bound ← … ← root ← ν ← g. Every
link must have received the very array that the one before it returned. Whatever else an
optimizer does in between, such as scaling a rate, breaks the chain, and then the update
of that leaf is computed as it is written.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from optjax._compression import CompressedState
from optjax._observe import Observation
from optjax._parts import Decay, Descend, Link, Packed, Product, Rounded
from optjax.fused._coverage import NotCoveredError, name_of
from optjax.fused._kernel import DTYPES

__all__ = ["PackedPlace", "Told", "Trail"]


class _Place(NamedTuple):
    """The link that returned a leaf, as its which leaf, and what that was before."""

    link: Link
    place: int
    received: Any


class Trail(NamedTuple):
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


class PackedPlace(NamedTuple):
    """Where a leaf's state is among packed ones.

    Attributes:
      rows: for each array that the form keeps, as `Packed` has it.
      place: which leaf of each.
    """

    rows: list[tuple[Any, Any, list[Any], list[Any]]]
    place: int


class Told:
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

    def stored(self, leaf: Any) -> _Stored:
        """An array of a state as it is kept."""
        return self._stored.get(id(leaf), _Stored(leaf, None, None))

    def packed(self, old: list[Any], new: list[Any]) -> PackedPlace | None:
        """Where the arrays of a leaf's state are packed, if they are.

        Raises:
          NotCoveredError: where some are in another way than others, or rounded so.
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
        rows = [row for row, _ in before]
        whole = [array for row in rows for array in row[:2]]
        if any(self.stored(array).array is not array for array in whole):
            raise NotCoveredError(
                "its state is packed first and rounded as a whole: put packed around "
                "stochastic_rounding, and not inside"
            )
        return PackedPlace(rows, places.pop())

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

    def trail(self, update: Any, param: Any) -> Trail:
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
        return Trail(
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


def _no_product(place: _Place | None) -> str:
    if place is None:
        return "what it descends along is no part of optjax"
    return f"it descends along a {name_of(place.link.part)}, not V ⊙ m of two branches"
