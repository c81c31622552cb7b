"""The state of an Optax optimizer as that of ours of the same name."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from optjax._arguments.checked import checked
from optjax._arguments.named import ArrayTree, OptimizerState, Transformation
from optjax._places import Path, counters, is_counter, place_of

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
_THEIRS = {name for names in _MOMENTS.values() for name in names}


@checked
def from_optax_state(
    state: OptimizerState, optimizer: Transformation, params: ArrayTree
) -> optax.OptState:
    """The state with which ours goes on where Optax's optimizer of that name stands.

    Where the name is the same, so is the trajectory; a job that runs can switch. Both
    must have the same arguments, wrappers such as `optax.partition` included; what
    wraps them must be the same too.

    Args:
      state: of Optax's, such as `optax.adam(1e-3)`.
      optimizer: ours, such as `optjax.adam(1e-3)`.
      params: the parameters, or their shapes.

    Raises:
      ValueError: where one of the two keeps what the other does not.

    Example:
      >>> import jax.numpy as jnp, optax, optjax
      >>> x = jnp.array([1.0, 2.0])
      >>> old, new = optax.adam(0.1), optjax.adam(0.1)
      >>> _, state = old.update(x, old.init(x), x)
      >>> state = optjax.from_optax_state(state, new, x)
      >>> new.update(x, state, x)[0].round(3)
      Array([-0.1, -0.1], dtype=float32)
    """
    theirs: dict[tuple[Path, str], dict[Path | None, Any]] = {}
    steps: dict[Path, Any] = {}
    for path, value in jax.tree_util.tree_leaves_with_path(state):
        place = place_of(path, _THEIRS)
        theirs.setdefault((place.part, place.field), {})[place.leaf] = value
        if is_counter(path, value):
            steps[place.part] = max(value, steps.get(place.part, value))
    template = jax.eval_shape(optimizer.init, params)
    counts = counters(optimizer, params)
    used = set()

    def taken(path: Path, old: Any) -> Any:
        place = place_of(path, _MOMENTS)
        if path in counts:
            step = steps.get(place.part, steps.get(()))
            if step is None:
                raise ValueError(_difference("a count of steps", "Optax's does not"))
            return jnp.array(step, old.dtype, copy=True)
        if place.leaf is None:
            return jnp.zeros(old.shape, old.dtype)
        for name in _MOMENTS[place.field]:
            moment = theirs.get((place.part, name), {}).get(place.leaf)
            if moment is not None:
                used.add((place.part, name))
                return jnp.array(moment, old.dtype, copy=True)
        at = f"{place.field} of {jax.tree_util.keystr(place.leaf) or 'the parameter'}"
        raise ValueError(_difference(at, "Optax's does not"))

    result = jax.tree_util.tree_map_with_path(taken, template)
    for part, name in theirs:
        if name in _THEIRS and (part, name) not in used:
            raise ValueError(_difference(f"Optax's {name}", "this one does not"))
    return result


def _difference(kept: str, other: str) -> str:
    return (
        f"the two optimizers must keep the same, but one has {kept} and {other}. Give "
        "both the same name and arguments."
    )
