"""A torch optimizer's state_dict, whatever it was read with, and which class it is of.

Its numbers may be PyTorch's tensors, NumPy's or JAX's arrays. PyTorch itself is not
imported, and nothing is unpickled.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from optjax._arguments.kind import shown
from optjax.pytorch._rearrangement import to_numpy


def _as_array(step: int) -> np.ndarray:
    return np.asarray(step, np.float32)


class Kept(NamedTuple):
    """What a class of PyTorch's keeps.

    Attributes:
      entries: of each parameter, by the fields of our states (docs/states.md).
      step: the steps taken as it has them, or None where it does not count.
      at_first: whether a parameter has entries before the first step.
      options: of each group, beside the arguments.
    """

    entries: Mapping[str, str]
    step: Callable[[int], Any] | None = _as_array
    at_first: bool = False
    options: Mapping[str, Any] = MappingProxyType({})


_MOMENTS = {"ema": "exp_avg", "nu": "exp_avg_sq"}
_WITH_MAXIMUM = {**_MOMENTS, "nu_max": "max_exp_avg_sq"}
#: By the classes' names.
KEPT: Mapping[str, Kept] = {
    "SGD": Kept({"trace": "momentum_buffer"}, step=None),
    "Adagrad": Kept({"nu": "sum"}, at_first=True),
    "RMSprop": Kept({"nu": "square_avg", "mu": "grad_avg", "trace": "momentum_buffer"}),
    "Adadelta": Kept({"e_g": "square_avg", "e_x": "acc_delta"}),
    "Adam": Kept(_WITH_MAXIMUM),
    "AdamW": Kept(_WITH_MAXIMUM, options={"decoupled_weight_decay": True}),
    "Adamax": Kept({"ema": "exp_avg", "nu": "exp_inf"}),
    "NAdam": Kept(_MOMENTS),
    "RAdam": Kept(_MOMENTS),
    "AdaBound": Kept(_WITH_MAXIMUM, step=int),
    "AdaBoundW": Kept(_WITH_MAXIMUM, step=int),
}
#: Options that only one class has.
_TELLTALE = {
    "dampening": "SGD",
    "lr_decay": "Adagrad",
    "alpha": "RMSprop",
    "rho": "Adadelta",
    "momentum_decay": "NAdam",
    "final_lr": "AdaBound",
}


class StateDict(NamedTuple):
    """The class, the options of each group, and the entries of each parameter."""

    name: str
    groups: Sequence[Mapping[str, Any]]
    entries: Mapping[int, Mapping[str, np.ndarray]]


def flatten_state_dict(state_dict: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """One array an entry, `state.ID.ENTRY`, for `numpy.savez` or safetensors.

    The groups are JSON, as bytes under `param_groups`. `load_optimizer` reads it, and
    needs no PyTorch then.

    Args:
      state_dict: what a torch optimizer's `state_dict()` gives, or `save_optimizer`.

    Example:
      >>> import numpy as np, optjax.pytorch
      >>> entries = {0: {"momentum_buffer": np.ones(2)}}
      >>> groups = [{"lr": 0.1, "params": [0]}]
      >>> state_dict = {"state": entries, "param_groups": groups}
      >>> sorted(optjax.pytorch.flatten_state_dict(state_dict))
      ['param_groups', 'state.0.momentum_buffer']
    """
    flat = {
        f"state.{number}.{name}": to_numpy(value)
        for number, entry in state_dict["state"].items()
        for name, value in entry.items()
        if value is not None
    }
    text = json.dumps([_plain(group) for group in state_dict["param_groups"]])
    return {**flat, "param_groups": np.frombuffer(text.encode(), np.uint8)}


def read(state_dict: Any) -> StateDict:
    """The state_dict, nested as PyTorch has it or flat."""
    if not isinstance(state_dict, Mapping) or "param_groups" not in state_dict:
        raise ValueError(
            "state_dict must be an optimizer's, a mapping with state and param_groups, "
            f"got {shown(state_dict)}. It is what optimizer.state_dict() gives, not "
            "the model's."
        )
    groups = state_dict["param_groups"]
    if isinstance(groups, np.ndarray):
        groups = json.loads(groups.tobytes().decode())
    groups = [_plain(group) for group in groups]
    nested = state_dict.get("state")
    if nested is None:
        nested = {}
        for key in state_dict:
            if key.startswith("state."):
                _, number, name = key.split(".", 2)
                nested.setdefault(int(number), {})[name] = state_dict[key]
    entries = {
        number: {n: to_numpy(v) for n, v in entry.items() if v is not None}
        for number, entry in nested.items()
    }
    return StateDict(_class_of(groups[0], entries), groups, entries)


def _plain(group: Mapping[str, Any]) -> dict[str, Any]:
    """Its numbers as Python's; PyTorch allows tensors."""

    def plain(value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return [plain(v) for v in value]
        return value.item() if hasattr(value, "item") else value

    plained = {key: plain(value) for key, value in group.items()}
    if "betas" in plained:
        plained["betas"] = tuple(plained["betas"])
    return plained


def _class_of(group: Mapping[str, Any], entries: Mapping[int, Any]) -> str:
    for option, name in _TELLTALE.items():
        if option in group:
            return name
    if "amsgrad" in group:
        decoupled = group.get("decoupled_weight_decay")
        if decoupled is None and group["weight_decay"] != 0:
            raise ValueError(
                "the groups must say decoupled_weight_decay, got Adam's or AdamW's "
                "state_dict of an old PyTorch, which does not tell one from the other. "
                'Set group["decoupled_weight_decay"] in each of its param_groups.'
            )
        return "AdamW" if decoupled else "Adam"
    if "betas" in group:
        first: Mapping[str, Any] = next(iter(entries.values()), {})
        is_radam = "decoupled_weight_decay" in group or "exp_avg_sq" in first
        return "RAdam" if is_radam else "Adamax"
    raise ValueError(
        f"the optimizer must be one of {', '.join(KEPT)}, got a state_dict with the "
        f"options {shown(sorted(group))}."
    )
