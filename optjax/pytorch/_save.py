"""From an Optax state to a torch optimizer's state_dict."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optjax._places import Path, Place, is_counter, place_of
from optjax._storage import demand_own_storage
from optjax.pytorch._layout import MOMENTS, Convert, Weights, grouped, weights_of
from optjax.pytorch._optimizer import Optimizer, at_step
from optjax.pytorch._rearrangement import Rearrangement
from optjax.pytorch._state_dict import KEPT, Kept


def save_optimizer(
    state: optax.OptState,
    params: Weights,
    convert: Convert,
    optimizer: Optimizer,
    step: int | None = None,
) -> dict[str, Any]:
    """The state_dict with which PyTorch goes on, the reverse of `load_optimizer`.

    Args:
      state: of the optimizer, or of a row of ours whose convention is the same.
      params: PyTorch's parameters, as in `load_optimizer`.
      convert: from such a mapping to the tree of JAX parameters.
      optimizer: the one of `optjax.pytorch` that has the options and groups. The value
        of a schedule at this step becomes `lr`.
      step: updates taken, where the state does not say, as that of `optjax.rmsprop`.

    Returns:
      For `torch_optimizer.load_state_dict`: tensors where `params` has some, otherwise
      NumPy's arrays. A parameter of which the state keeps nothing has no entry.

    Raises:
      ValueError: where convert computes, or state and parameters do not match, for
        another optimizer, and for a state in another storage.

    Example:
      >>> import jax.numpy as jnp, numpy as np, optjax.pytorch
      >>> weights = {"weight": np.ones((3, 2), np.float32)}
      >>> convert = lambda w: {"kernel": jnp.asarray(w["weight"].T)}
      >>> tx = optjax.pytorch.SGD(lr=0.1, momentum=0.9)
      >>> x = convert(weights)
      >>> _, state = tx.update(x, tx.init(x))
      >>> saved = optjax.pytorch.save_optimizer(state, weights, convert, tx)
      >>> saved["state"][0]["momentum_buffer"].shape
      (3, 2)
    """
    if not hasattr(optimizer, "param_groups"):
        raise ValueError(
            "optimizer must be one of optjax.pytorch, whose options the state_dict "
            f"has, got {optimizer!r}. Give the one whose convention the state has, "
            "such as optjax.pytorch.Adam(lr=1e-3)."
        )
    demand_own_storage(state)
    weights, groups = weights_of(params)
    moved = Rearrangement(convert, weights)
    if groups is None:
        groups = grouped(optimizer, moved)
    leaves = jax.tree_util.tree_leaves_with_path(state)
    placed = [(place_of(path, MOMENTS), np.asarray(value)) for path, value in leaves]
    kept = KEPT[optimizer.name]
    moments, part_of = _moments(placed, optimizer.name, moved)
    taken = {place.part: 0 for place, _ in placed}
    for (path, value), (place, _) in zip(leaves, placed, strict=True):
        if is_counter(path, value):
            taken[place.part] = max(taken[place.part], int(value))
    if step is not None:
        taken = dict.fromkeys(taken, step)
    gathered = {p.part: value for p, value in placed if p.field == "gathered"}

    entries: dict[int, dict[str, Any]] = {}
    saved_groups = []
    number = 0
    for names, group in zip(groups, optimizer.param_groups, strict=True):
        parts = [part_of[name] for name in names if name in part_of]
        now = taken[parts[0]] if parts else max(taken.values(), default=0)
        options = _options(kept, group, now)
        saved_groups.append(
            {**options, "params": list(range(number, number + len(names)))}
        )
        for name in names:
            entry = {key: of[name] for key, of in moments.items() if name in of}
            if entry and (now > 0 or kept.at_first):
                if kept.step is not None:
                    entry["step"] = kept.step(now)
                if part_of[name] in gathered:
                    here = gathered[part_of[name]]
                    entry["mu_product"] = _product(here, now, options)
                entries[number] = _like(entry, weights[name])
            number += 1
    return {"state": entries, "param_groups": saved_groups}


def _moments(
    placed: list[tuple[Place, np.ndarray]], optimizer: str, moved: Rearrangement
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, Path]]:
    """Each entry by the parameters' names, and the part of the state of each name."""
    leaves: dict[str, dict[Path, np.ndarray]] = {}
    part_of: dict[str, Path] = {}
    entries = KEPT[optimizer].entries
    for place, value in placed:
        if place.leaf is None:
            continue
        if place.field not in entries or place.leaf not in moved.owners:
            raise ValueError(
                f"the state must be one of {optimizer}, for the tree that convert "
                f"gives, got {place.field} at {jax.tree_util.keystr(place.leaf)}."
            )
        leaves.setdefault(place.field, {})[place.leaf] = value
        part_of |= dict.fromkeys(moved.owners[place.leaf], place.part)
    return {entries[field]: moved.to_torch(of) for field, of in leaves.items()}, part_of


def _options(kept: Kept, group: Mapping[str, Any], step: int) -> dict[str, Any]:
    """The options at this step, schedules in all digits, and what schedulers add."""
    options = {**getattr(group["lr"], "options", {}), **kept.options}
    with jax.enable_x64(True):
        for name, value in group.items():
            if name != "params":
                now = at_step(value, jnp.asarray(step, jnp.int32))
                options[name] = jax.tree.map(_python, now)
    if callable(group["lr"]):
        options.setdefault("initial_lr", at_step(group["lr"], jnp.asarray(0)).item())
    return options


def _python(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float)) else value.item()


def _product(gathered: np.ndarray, step: int, options: Mapping[str, Any]) -> np.ndarray:
    """Π μ_i: what the options give, or 1 − `gathered`, whichever that is to the bit."""
    b1, decay = options["betas"][0], options["momentum_decay"]
    product = gathered.dtype.type(1.0)
    for t in range(1, step + 1):
        product = product * gathered.dtype.type(
            b1 * (1.0 - 0.5 * (0.96 ** (t * decay)))
        )
        if product == 0:
            break
    again = gathered.dtype.type(1.0 - np.float64(product))
    return np.asarray(product if again == gathered else 1 - gathered)


def _like(entry: Mapping[str, Any], weight: Any) -> dict[str, Any]:
    """The entry as tensors where the weight is one."""
    if not hasattr(weight, "new_tensor"):
        return dict(entry)
    import torch  # It is there: the user has handed over a tensor of it.

    def tensor(name: str, value: Any) -> Any:
        if not isinstance(value, np.ndarray):
            return value
        if value.dtype == jnp.bfloat16:
            return torch.tensor(value.astype(np.float32)).to(torch.bfloat16)
        made = torch.tensor(value)
        return made if name in ("step", "mu_product") else made.to(weight.device)

    return {name: tensor(name, value) for name, value in entry.items()}
