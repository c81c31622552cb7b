"""From a torch optimizer's state_dict to an Optax state."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optjax._places import Path, counters, path_of, place_of
from optjax._storage import demand_own_storage
from optjax.pytorch._classes import CLASSES
from optjax.pytorch._groups import name_of
from optjax.pytorch._layout import MOMENTS, Convert, Weights, grouped, weights_of
from optjax.pytorch._optimizer import Optimizer
from optjax.pytorch._rearrangement import Rearrangement
from optjax.pytorch._state_dict import KEPT, StateDict, read

# Of the largest update of an array; the schedules of both are rounded differently.
_CLOSE = 1e-4


def load_optimizer(
    state_dict: Mapping[str, Any],
    params: Weights,
    convert: Convert,
    optimizer: optax.GradientTransformation | None = None,
    step: int | None = None,
) -> optax.OptState:
    """The Optax state with which a run of PyTorch goes on.

    Args:
      state_dict: the torch optimizer's, from `torch.load(..., weights_only=True)`, or
        flat, as `flatten_state_dict` makes it, from `numpy.load` or safetensors.
      params: PyTorch's parameters, `dict(model.named_parameters())`, as tensors or
        arrays; with groups whose order is not that of the model, one mapping a group.
      convert: from such a mapping to the tree of JAX parameters. It may only rearrange.
      optimizer: the one to go on with, of `optjax.pytorch` or a row of ours whose
        convention is the same; by default what the state_dict says, without scheduler.
        Its next steps must be PyTorch's. In a chain, as with clipping, give it alone
        and put the state in its place: `(optax.EmptyState(), state)`.
      step: updates taken, where the state_dict does not say: SGD's under a schedule.

    Raises:
      ValueError: where convert computes, parameters and state do not match, some of a
        group's parameters never had a gradient, or the optimizer takes another step or
        has another storage, which its state gets by `optjax.convert_state`.

    Example:
      >>> import jax.numpy as jnp, numpy as np, optjax.pytorch
      >>> weights = {"weight": np.ones((3, 2), np.float32)}
      >>> convert = lambda w: {"kernel": jnp.asarray(w["weight"].T)}
      >>> tx = optjax.pytorch.SGD(lr=0.1, momentum=0.9)
      >>> state_dict = {
      ...     "state": {0: {"momentum_buffer": np.ones((3, 2), np.float32)}},
      ...     "param_groups": [{**tx.param_groups[0], "params": [0]}],
      ... }
      >>> state = optjax.pytorch.load_optimizer(state_dict, weights, convert, tx)
      >>> x = convert(weights)
      >>> print(f"{tx.update(x, state, x)[0]['kernel'][0, 0]:.2f}")
      -0.19
    """
    source = read(state_dict)
    weights, groups = weights_of(params)
    moved = Rearrangement(convert, weights)
    if groups is None:
        groups = _groups(source, moved, optimizer)
    entries = _by_name(source, groups, moved)
    said = _Said(source, groups, entries, moved, step)
    if optimizer is None:
        optimizer = _as_said(source, groups, moved)
        return said.state(optimizer, optimizer.param_groups)
    demand_own_storage(jax.eval_shape(optimizer.init, moved.tree))
    state = said.state(optimizer, getattr(optimizer, "param_groups", None))
    _check_step(optimizer, state, said)
    return state


class _Said:
    """What a state_dict says, by the names of the parameters."""

    def __init__(
        self,
        source: StateDict,
        groups: Sequence[Sequence[str]],
        entries: Mapping[str, Mapping[str, np.ndarray]],
        moved: Rearrangement,
        step: int | None,
    ):
        self.source, self.groups, self.entries = source, groups, entries
        self.moved, self.step = moved, step
        self.fields = {
            field: entry
            for field, entry in KEPT[source.name].entries.items()
            if any(entry in of for of in entries.values())
        }

    def state(
        self,
        optimizer: optax.GradientTransformation,
        options: Sequence[Mapping[str, Any]] | None,
    ) -> optax.OptState:
        """The optimizer's state with everything in its place; its options, if known."""
        state = optimizer.init(self.moved.tree)
        places = {
            path: place_of(path, MOMENTS)
            for path, _ in jax.tree_util.tree_leaves_with_path(state)
        }
        members = self._members(places.values())
        steps = {part: self._steps(names) for part, names in members.items()}
        together = max((n for n in steps.values() if n is not None), default=None)
        counts = counters(optimizer, self.moved.tree)

        def loaded(path: Any, old: Any) -> Any:
            place = places[path]
            names = members.get(place.part, [])
            if path in counts:
                taken = steps.get(place.part, together)
                return jnp.asarray(
                    self._unsaid(options) if taken is None else taken, old.dtype
                )
            if place.field == "base_lr" and names:
                group = self.group(names[0])
                return jnp.asarray(group.get("initial_lr", group["lr"]), old.dtype)
            if not names or names[0] not in self.entries:
                return old
            if place.field == "gathered":
                product = self.entries[names[0]]["mu_product"].astype(np.float64)
                return jnp.asarray(1.0 - product, old.dtype)
            if place.leaf is None:
                return old
            entry = self.fields[place.field]
            owners = self.moved.owners[place.leaf]
            moments = {name: self.entries[name][entry] for name in owners}
            return jnp.asarray(self.moved.to_jax(place.leaf, moments), old.dtype)

        return jax.tree_util.tree_map_with_path(loaded, state)

    def group(self, name: str) -> Mapping[str, Any]:
        """The options of a parameter's group."""
        number = next(i for i, names in enumerate(self.groups) if name in names)
        return self.source.groups[number]

    def _members(self, places: Any) -> dict[Path, list[str]]:
        """The parameters of each part of a state that has moments of them."""
        members: dict[Path, dict[str, None]] = {}
        fields = set()
        for place in places:
            if place.leaf is not None:
                fields.add(place.field)
                members.setdefault(place.part, {}).update(
                    dict.fromkeys(self.moved.owners[place.leaf])
                )
        if self.entries and fields != set(self.fields):
            raise ValueError(
                f"the optimizer must keep {sorted(self.fields)}, which are "
                f"{sorted(self.fields.values())} of {self.source.name}, got one that "
                f"keeps {sorted(fields)}. Take {self.source.name} of optjax.pytorch or "
                "its row, with the options of the state_dict, such as amsgrad, "
                "centered or momentum."
            )
        kept = {name for names in members.values() for name in names}
        for name in self.entries:
            if fields and name not in kept:
                raise ValueError(
                    "the optimizer must keep the state of every parameter that has "
                    f"one, got one that leaves out {name!r}."
                )
        return {part: list(names) for part, names in members.items()}

    def _steps(self, names: Sequence[str]) -> int | None:
        """How many steps these parameters have taken together; None if not said."""
        missing = [name for name in names if name not in self.entries]
        if len(missing) == len(names):
            return self.step or 0
        if missing:
            raise ValueError(
                "the parameters of a group must all have had a gradient, or none, but "
                f"{missing[0]!r} never had one. PyTorch passes it over, decay "
                "included: leave it out by optax.partition or optax.masked."
            )
        taken = {
            int(self.entries[name]["step"]): name
            for name in names
            if "step" in self.entries[name]
        }
        if self.step is not None:
            taken[self.step] = "step="
        if len(taken) > 1:
            (one, first), (two, second) = list(taken.items())[:2]
            raise ValueError(
                "the parameters of a group must have taken the same number of steps, "
                f"got {one} for {first} and {two} for {second}. Give them groups of "
                "their own."
            )
        return next(iter(taken), None)

    def _unsaid(self, options: Sequence[Mapping[str, Any]] | None) -> int:
        if self.step is not None:
            return self.step
        if options is None or any(map(_is_scheduled, options)):
            raise ValueError(
                "step must be given, the number of updates so far: the state_dict of "
                f"{self.source.name} does not say it, and the optimizer needs it."
            )
        # Any number but 0, at which SGD's buffer begins.
        return 1 if self.entries else 0


def _is_scheduled(group: Mapping[str, Any]) -> bool:
    options = [value for key, value in group.items() if key not in ("params", "betas")]
    return any(map(callable, [*options, *group.get("betas", ())]))


def _groups(source: StateDict, moved: Rearrangement, optimizer: Any) -> list[list[str]]:
    """The names of each group: as PyTorch says, as the optimizer's groups, or all."""
    if all("param_names" in group for group in source.groups):
        return [list(group["param_names"]) for group in source.groups]
    if len(source.groups) == 1:
        return [list(moved.shapes)]
    if isinstance(optimizer, Optimizer):
        return grouped(optimizer, moved)
    raise ValueError(
        "params must be one mapping a group, got one mapping and a state_dict of "
        f"{len(source.groups)} groups, which numbers parameters group by group."
    )


def _by_name(
    source: StateDict, groups: Sequence[Sequence[str]], moved: Rearrangement
) -> dict[str, Mapping[str, np.ndarray]]:
    """The entries of those parameters that have had a gradient."""
    sizes = [len(group["params"]) for group in source.groups]
    if [len(names) for names in groups] != sizes:
        raise ValueError(
            f"params must have as many parameters as the optimizer, {sizes} a group, "
            f"got {[len(names) for names in groups]}. Hand over "
            "dict(model.named_parameters()), without buffers and in the optimizer's "
            "order."
        )
    entries = {}
    for names, group in zip(groups, source.groups, strict=True):
        for name, number in zip(names, group["params"], strict=True):
            entry = source.entries.get(number, {})
            for key in set(entry) & set(KEPT[source.name].entries.values()):
                if entry[key].shape != moved.shapes[name]:
                    raise ValueError(
                        f"params must be in the optimizer's order, got {name!r} of "
                        f"shape {moved.shapes[name]} where the state has "
                        f"{entry[key].shape}. With groups, give one mapping a group."
                    )
            if entry and entry.get("step", 1) > 0:
                entries[name] = entry
    return entries


def _as_said(
    source: StateDict, groups: Sequence[Sequence[str]], moved: Rearrangement
) -> Optimizer:
    """The optimizer with the options and groups of the state_dict."""
    factory = CLASSES[source.name]
    known = set(inspect.signature(factory).parameters) - {"params"}
    options = [{k: v for k, v in g.items() if k in known} for g in source.groups]
    if len(groups) == 1:
        return factory(**options[0])

    def taker(names: Sequence[str]) -> Any:
        paths = {name_of(p) for p, of in moved.owners.items() if set(of) <= set(names)}
        return lambda name, leaf: name in paths

    return factory(
        [
            {"params": taker(names), **of}
            for names, of in zip(groups, options, strict=True)
            if names
        ]
    )


def _check_step(optimizer: Any, state: Any, said: _Said) -> None:
    """Whether the next update is the one that the state_dict's options give."""
    moved, source = said.moved, said.source
    # What the optimizer leaves out has no state to compare.
    names = set(said.entries) or set(moved.shapes)
    groups = [[name for name in of if name in names] for of in said.groups]
    as_said = _as_said(source, groups, moved)
    reference = optax.masked(
        as_said,
        lambda tree: jax.tree_util.tree_map_with_path(
            lambda path, _: set(moved.owners[path_of(path)]) <= names, tree
        ),
    )

    def updates(tx: Any, state: Any, params: Any) -> Any:
        def wave(x: Any) -> np.ndarray:
            return np.cos(np.arange(x.size)).reshape(x.shape)

        def waves(x: Any) -> jax.Array:
            return jnp.asarray((0.1 * wave(x)).astype(x.dtype))

        def peaks(x: Any) -> jax.Array:
            # Here ν rises and there it falls, where conventions of its maximum part.
            return jnp.asarray(np.where(wave(x) > 0, 1e3, 0.0).astype(x.dtype))

        first, state = tx.update(jax.tree.map(waves, params), state, params)
        return first, tx.update(jax.tree.map(peaks, params), state, params)[0]

    params = jax.tree.map(jnp.asarray, moved.tree)
    steps = zip(
        updates(optimizer, state, params),
        updates(reference, said.state(reference, as_said.param_groups), params),
        strict=True,
    )
    for number, (ours, theirs) in enumerate(steps):
        if number and isinstance(optimizer, Optimizer):
            break  # The class is the same, and a schedule may go on.
        pairs = zip(
            jax.tree_util.tree_leaves_with_path(ours),
            jax.tree.leaves(theirs),
            strict=True,
        )
        kept = [
            (path, np.asarray(u, np.float64), np.asarray(w, np.float64))
            for (path, u), w in pairs
            if set(moved.owners[path_of(path)]) <= names and u.size
        ]
        # The second rate may be another, all over.
        squares = sum(np.sum(w * w) for _, _, w in kept)
        factor = sum(np.sum(u * w) for _, u, w in kept) / (squares or 1.0)
        for path, u, w in kept:
            apart = np.max(np.abs(u - (factor * w if number else w)))
            largest = np.max(np.abs(w))
            if apart > _CLOSE * largest:
                group = said.group(moved.owners[path_of(path)][0])
                options = {
                    k: v
                    for k, v in group.items()
                    if k[:5] != "param" and v is not None and v is not False
                }
                hint = "optjax.pytorch.compare says which argument differs"
                ratio = np.sum(u * w) / (np.sum(w * w) or 1.0)
                if np.max(np.abs(u - ratio * w)) <= _CLOSE * abs(ratio) * largest:
                    hint = f"the rate is {ratio:.3g} times as large"
                    if group.get("initial_lr", group["lr"]) != group["lr"]:
                        hint += ", as a scheduler has changed it: make the optimizer "
                        hint += "with that scheduler"
                if not isinstance(optimizer, Optimizer):
                    hint += "; of a chain hand over the optimizer alone"
                raise ValueError(
                    "the optimizer must take PyTorch's next steps, got an update of "
                    f"{name_of(path)!r} off by {apart / (largest or 1.0):.1g} of its "
                    f"size. {source.name} had {options}; {hint}."
                )
