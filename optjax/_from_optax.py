"""The state of an Optax optimizer as that of ours of the same name."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from optjax._arguments.checked import checked
from optjax._arguments.named import ArrayTree, OptimizerState, Transformation
from optjax._places import Path, counters, is_counter, place_of
from optjax._storage import demand_own_storage
from optjax._tree import pure

#: Our moments, and Optax's names for them.
_MOMENTS = {
    "trace": ("trace",),
    "ema": ("mu", "ema"),
    "mu": ("mu",),
    "nu": ("nu", "sum_of_squares"),
    "nu_max": ("nu_max",),
    "e_g": ("e_g",),
    "e_x": ("e_x",),
}
_Injected = optax.InjectStatefulHyperparamsState
_THEIRS = {name for names in _MOMENTS.values() for name in names}


@checked
def from_optax_state(
    state: OptimizerState, optimizer: Transformation, params: ArrayTree
) -> optax.OptState:
    """The state with which ours goes on where Optax's optimizer of that name stands.

    Where the name is the same, so is the trajectory; a job that runs can switch. Both
    must have the same arguments; what wraps them, such as `optax.partition`,
    `optax.MultiSteps` or `inject_hyperparams`, must be the same too, and goes on as it
    is: batches that are gathered, numbers that were set.

    Args:
      state: of Optax's, such as `optax.adam(1e-3)`.
      optimizer: ours, such as `optjax.adam(1e-3)`.
      params: the parameters, or their shapes.

    Raises:
      ValueError: where one of the two keeps what the other does not, and for ours in
        another storage.

    Example:
      >>> import jax.numpy as jnp, optax, optjax
      >>> x = jnp.array([1.0, 2.0])
      >>> old, new = optax.adam(0.1), optjax.adam(0.1)
      >>> _, state = old.update(x, old.init(x), x)
      >>> state = optjax.from_optax_state(state, new, x)
      >>> new.update(x, state, x)[0].round(3)
      Array([-0.1, -0.1], dtype=float32)
    """
    state, params = pure(state), pure(params)
    template = jax.eval_shape(optimizer.init, params)
    demand_own_storage(template)
    counts = counters(optimizer, params)

    @functools.cache
    def begun() -> dict[Path, Any]:
        state = jax.jit(optimizer.init)(jax.tree.map(_zeros, params))
        return dict(jax.tree_util.tree_leaves_with_path(state))

    def made(path: Path) -> Any:
        """What ours has there when it begins."""
        return begun()[path]

    def goes_on(theirs: Any, ours: Any, path: Path, step: Any) -> Any:
        """A wrapper's state as it is, and what stands in it of the two likewise."""
        if isinstance(theirs, _Injected) and isinstance(ours, _Injected):
            theirs = _filled(theirs, ours, lambda key: made((*path, *key)))
        if isinstance(theirs, optax.MultiStepsState):
            # One step shows no count in it, as it only gathers.
            step = theirs.gradient_step
        children, structure = _children(ours)
        others, other_structure = _children(theirs)
        if structure != other_structure:
            return _converted(theirs, ours, path, counts, step, made)
        if not children and jax.tree.leaves(ours):
            _demand_shape(theirs, ours)
            return jnp.array(theirs, ours.dtype, copy=True)
        try:
            return structure.unflatten(
                [
                    goes_on(other, child, (*path, *key), step)
                    for (key, child), (_, other) in zip(children, others, strict=True)
                ]
            )
        except _Differs:
            # The two are chains of the same length, of other parts.
            return _converted(theirs, ours, path, counts, step, made)

    return goes_on(state, template, (), None)


class _Differs(ValueError):
    """One of the two keeps what the other does not."""


def _demand_shape(theirs: Any, ours: Any) -> None:
    if jnp.shape(theirs) != ours.shape:
        shapes = f"an array of shape {jnp.shape(theirs)}", f"one of {ours.shape}"
        raise _Differs(_difference(shapes[0], f"the other {shapes[1]}"))


def _zeros(x: Any) -> jax.Array:
    return jnp.zeros(jnp.shape(x), jnp.result_type(x))


def _children(node: Any) -> tuple[list[tuple[Path, Any]], Any]:
    """Those of a node one level below it, by their path from it; none of an array."""
    children, structure = jax.tree_util.tree_flatten_with_path(
        node, is_leaf=lambda x: x is not node
    )
    is_array = len(children) == 1 and not children[0][0]
    return ([] if is_array else children), structure


def _filled(theirs: Any, ours: Any, made: Callable[[Path], Any]) -> Any:
    """Their injected state with the hyper-parameters that ours has beside theirs."""
    for name in theirs.hyperparams:
        if name not in ours.hyperparams:
            raise ValueError(_difference(f"Optax's {name}", "this one does not"))
    attribute = jax.tree_util.GetAttrKey("hyperparams")
    hyper = {
        name: theirs.hyperparams[name]
        if name in theirs.hyperparams
        else made((attribute, jax.tree_util.DictKey(name)))
        for name in ours.hyperparams
    }
    return theirs._replace(hyperparams=hyper)


def _converted(
    theirs: Any,
    ours: Any,
    path: Path,
    counts: set[Path],
    step: Any,
    made: Callable[[Path], Any],
) -> Any:
    """An optimizer's own state: moments by their names and parameters.

    Args:
      theirs: Optax's.
      ours: the shapes of ours, which stands at `path`.
      path: from the root of the state.
      counts: the paths of all numbers of ours that a step makes larger.
      step: how many it has taken, where a wrapper says so.
      made: what ours has at a path when it begins.
    """
    moments: dict[tuple[Path, str], dict[Path | None, Any]] = {}
    steps: dict[Path, Any] = {}
    for at, value in jax.tree_util.tree_leaves_with_path(theirs):
        place = place_of(at, _THEIRS)
        found = moments.setdefault((place.part, place.field), {})
        if place.leaf is not None and place.leaf in found:
            raise _Differs(_difference(f"two of {place.field}", "this one does not"))
        found[place.leaf] = value
        if is_counter(at, value):
            steps[place.part] = max(value, steps.get(place.part, value))
    used = set()

    def taken(at: Path, old: Any) -> Any:
        place = place_of(at, _MOMENTS)
        if (*path, *at) in counts or (step is not None and is_counter(at, old)):
            taken_steps = steps.get(place.part, steps.get((), step))
            if taken_steps is None:
                raise _Differs(_difference("a count of steps", "Optax's does not"))
            return jnp.array(taken_steps, old.dtype, copy=True)
        if place.leaf is None:
            # A count that stands still does so at 0.
            is_still = is_counter(at, old)
            return jnp.zeros([], old.dtype) if is_still else made((*path, *at))
        for name in _MOMENTS[place.field]:
            moment = moments.get((place.part, name), {}).get(place.leaf)
            if moment is not None:
                _demand_shape(moment, old)
                used.add((place.part, name))
                return jnp.array(moment, old.dtype, copy=True)
        of = f"{place.field} of {jax.tree_util.keystr(place.leaf) or 'the parameter'}"
        raise _Differs(_difference(of, "Optax's does not"))

    result = jax.tree_util.tree_map_with_path(taken, ours)
    for part, name in moments:
        if name in _THEIRS and (part, name) not in used:
            raise _Differs(_difference(f"Optax's {name}", "this one does not"))
    return result


def _difference(kept: str, other: str) -> str:
    return (
        f"the two optimizers must keep the same, but one has {kept} and {other}. Give "
        "both the same name and arguments."
    )
