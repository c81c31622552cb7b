"""Group the leaves of an update that one call of the compiled step does alike."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from optjax._observe import Observation
from optjax._parts import ClipAround
from optjax._precision import precise
from optjax.fused._coverage import (
    Largest,
    Memory,
    NotCoveredError,
    Squares,
    assemble,
    term_of,
)
from optjax.fused._kernel import Bounded, Coefficients, Form, Storage, no_key
from optjax.fused._trail import PackedPlace, Told, Trail

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


def plan(
    seen: Observation, updates: Sequence[Any], params: Sequence[Any]
) -> tuple[list[Call], dict[int, str]]:
    """The calls that do what the update does, and why not, for the other leaves."""
    told = Told(seen)
    why: dict[int, str] = {}
    groups: dict[tuple[int, ...], list[tuple[int, Trail]]] = {}
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
                _check_dtype(updates[index], trail.gradient)
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
    places: list[PackedPlace], old: list[list[Any]], new: list[list[Any]]
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


#: For each array that a form keeps: the link of a trail, its tree before and after.
_Kept = list[tuple[int, Any, Any]]


def _equation(trail: Trail) -> tuple[Form, Coefficients, _Kept]:
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
    told: Told, trail: Trail, kept: _Kept, param: Any
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
        if (kept_as.array is wide) != (key is None):
            raise NotCoveredError("its state is stored in another way than it was")
    if noisy and any(key is not noisy[0] for key in keys):
        raise NotCoveredError("its state is not all stored alike, rounded by one key")
    arrays = [[x.array for x in column] for column in (before, after)]
    # By one key all are rounded, or all are codes.
    if any(x.scale is not None for x in after):
        arrays = [
            [*row, *(x.scale for x in column)]
            for row, column in zip(arrays, (before, after), strict=True)
        ]
        storage = Storage.COMPRESSED
    else:
        storage = Storage.STOCHASTIC if noisy else Storage.NEAREST
    old, new = arrays
    return storage, noisy[0] if noisy else None, old, new


def _bounds(told: Told, trail: Trail) -> tuple[Any, tuple[Any, Any]]:
    """Those of a leaf, and the squared norms that are measured of it."""
    ((place, trees),) = (
        (place, (part.lower, part.upper, *part.norms))
        for place in trail.rate
        if isinstance(part := place.link.part, ClipAround) and part.norms is not None
    )
    lower, upper, step, direction = (told.at(place, tree) for tree in trees)
    bounds = [jnp.asarray(bound, jnp.float32) for bound in (lower, upper)]
    return jnp.stack(bounds), (step, direction)


def _check_dtype(update: Any, g: Any) -> None:
    # The compiled step rounds an update to its gradient's dtype, and a gradient in
    # float16 was widened before.
    if jnp.result_type(update) != jnp.result_type(g):
        raise NotCoveredError(f"its update is {jnp.result_type(update)}")


def _check_l2(g: Any, x: Any, l2: Any) -> None:
    # g + λ x may be wider than g, which is what the compiled step rounds it to.
    # Asked as where JAX promotes: it may be told not to.
    with jax.numpy_dtype_promotion("standard"):
        widest = jnp.result_type(g, x, l2)
    if widest != jnp.result_type(g):
        raise NotCoveredError("its L2 weight decay is wider than its gradient")
