"""Training runs of PyTorch, stopped at step 50 and gone on with to step 200.

    python -m tests.golden.continuation

writes continuation.npz where PyTorch and `adabound` are installed: for every run the
weights and the optimizer's state_dict after 50 steps and after 200. Each model stands
here twice, in PyTorch and in JAX, with the function that converts its weights.
"""

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from compiling import jit

from .dialect import SCHEDULERS, Case, ours, theirs

FILE = Path(__file__).with_name("continuation.npz")
STOP, END = 50, 200


class Model(NamedTuple):
    """One network in both frameworks.

    Attributes:
        torch: makes PyTorch's module.
        apply: JAX's, from its tree and the inputs, in JAX's layout.
        convert: from PyTorch's weights by name to that tree.
        inputs: of PyTorch.
        to_jax: from PyTorch's inputs to JAX's.
        outputs: how many.
        groups: for each group the names in PyTorch, and the patterns in JAX.
    """

    torch: Callable[[], Any]
    apply: Callable[[Any, Any], Any]
    convert: Callable[[Mapping[str, Any]], Any]
    inputs: tuple[int, ...]
    to_jax: Callable[[Any], Any]
    outputs: int
    groups: tuple[Any, Any]

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(7)
        x = rng.normal(size=self.inputs)
        return x, np.sin(rng.normal(size=(self.inputs[0], self.outputs)))


def array(x: Any) -> np.ndarray:
    """What both tensors and arrays can be read as."""
    return np.asarray(x.detach() if hasattr(x, "detach") else x)


# An MLP.


def torch_mlp() -> Any:
    from torch import nn

    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))


def apply_mlp(p: Any, x: Any) -> Any:
    hidden = jnp.tanh(x @ p["hidden"]["kernel"] + p["hidden"]["bias"])
    return hidden @ p["out"]["kernel"] + p["out"]["bias"]


def convert_mlp(w: Mapping[str, Any]) -> Any:
    def dense(name: str) -> Any:
        kernel, bias = array(w[f"{name}.weight"]), array(w[f"{name}.bias"])
        return {"kernel": jnp.asarray(kernel.T), "bias": jnp.asarray(bias)}

    return {"hidden": dense("0"), "out": dense("2")}


# A convolutional network: NCHW and OIHW there, NHWC and HWIO here.


def torch_conv() -> Any:
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(3 * 2 * 3, 2)
    )


def apply_conv(p: Any, x: Any) -> Any:
    layout = ("NHWC", "HWIO", "NHWC")
    x = jax.lax.conv_general_dilated(
        x, p["conv"]["kernel"], (1, 1), "VALID", dimension_numbers=layout
    )
    x = jnp.tanh(x + p["conv"]["bias"])
    return x.reshape(len(x), -1) @ p["out"]["kernel"] + p["out"]["bias"]


def convert_conv(w: Mapping[str, Any]) -> Any:
    dense = array(w["3.weight"]).reshape(2, 3, 2, 3).transpose(2, 3, 1, 0)
    return {
        "conv": {
            "kernel": jnp.asarray(array(w["0.weight"]).transpose(2, 3, 1, 0)),
            "bias": jnp.asarray(array(w["0.bias"])),
        },
        "out": {
            "kernel": jnp.asarray(dense.reshape(18, 2)),
            "bias": jnp.asarray(array(w["3.bias"])),
        },
    }


# An LSTM: four gates in one matrix there, a kernel each here.


def torch_lstm() -> Any:
    from torch import nn

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(3, 4, batch_first=True)
            self.out = nn.Linear(4, 2)

        def forward(self, x: Any) -> Any:
            return self.out(self.lstm(x)[0][:, -1])

    return Last()


def apply_lstm(p: Any, x: Any) -> Any:
    def gate(name: str, x: Any, h: Any) -> Any:
        g = p["lstm"][name]
        return x @ g["input"] + h @ g["hidden"] + g["bias"][0] + g["bias"][1]

    h = c = jnp.zeros((len(x), 4), x.dtype)
    for t in range(x.shape[1]):
        i, f, g, o = (gate(name, x[:, t], h) for name in "ifgo")
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
    return h @ p["out"]["kernel"] + p["out"]["bias"]


def convert_lstm(w: Mapping[str, Any]) -> Any:
    def split(name: str) -> list[np.ndarray]:
        return np.split(array(w[f"lstm.{name}_l0"]), 4)

    gates = zip(
        "ifgo",
        split("weight_ih"),
        split("weight_hh"),
        split("bias_ih"),
        split("bias_hh"),
        strict=True,
    )
    return {
        "lstm": {
            name: {
                "input": jnp.asarray(inward.T),
                "hidden": jnp.asarray(hidden.T),
                "bias": jnp.asarray(np.stack([first, second])),
            }
            for name, inward, hidden, first, second in gates
        },
        "out": {
            "kernel": jnp.asarray(array(w["out.weight"]).T),
            "bias": jnp.asarray(array(w["out.bias"])),
        },
    }


# Attention: queries, keys and values in one matrix there, (features, heads, size) here.


def torch_attention() -> Any:
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
            self.out = nn.Linear(4, 2)

        def forward(self, x: Any) -> Any:
            mixed, _ = self.attention(x, x, x, need_weights=False)
            return self.out((x + mixed).mean(1))

    return Block()


def apply_attention(p: Any, x: Any) -> Any:
    q, k, v = (
        jnp.einsum("btf,fhd->bthd", x, p[n]["kernel"]) + p[n]["bias"]
        for n in ("query", "key", "value")
    )
    scores = jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", q, k) / 2.0**0.5)
    mixed = jnp.einsum("bhts,bshd->bthd", scores, v)
    mixed = jnp.einsum("bthd,hdf->btf", mixed, p["project"]["kernel"])
    pooled = (x + mixed + p["project"]["bias"]).mean(1)
    return pooled @ p["out"]["kernel"] + p["out"]["bias"]


def convert_attention(w: Mapping[str, Any]) -> Any:
    kernels = np.split(array(w["attention.in_proj_weight"]), 3)
    biases = np.split(array(w["attention.in_proj_bias"]), 3)
    project = array(w["attention.out_proj.weight"]).T.reshape(2, 2, 4)
    tree = {
        name: {
            "kernel": jnp.asarray(kernel.T.reshape(4, 2, 2)),
            "bias": jnp.asarray(bias.reshape(2, 2)),
        }
        for name, kernel, bias in zip(
            ("query", "key", "value"), kernels, biases, strict=True
        )
    }
    bias = jnp.asarray(array(w["attention.out_proj.bias"]))
    tree["project"] = {"kernel": jnp.asarray(project), "bias": bias}
    kernel = jnp.asarray(array(w["out.weight"]).T)
    tree["out"] = {"kernel": kernel, "bias": jnp.asarray(array(w["out.bias"]))}
    return tree


def same(x: Any) -> Any:
    return x


def channels_last(x: Any) -> Any:
    return x.transpose(0, 2, 3, 1)


MODELS = {
    "mlp": Model(
        torch_mlp,
        apply_mlp,
        convert_mlp,
        (16, 3),
        same,
        2,
        ((["0.bias", "2.bias"], ["0.weight", "2.weight"]), (["*/bias"], ["*"])),
    ),
    "conv": Model(
        torch_conv,
        apply_conv,
        convert_conv,
        (8, 2, 4, 5),
        channels_last,
        2,
        ((["0.bias", "3.bias"], ["0.weight", "3.weight"]), (["*/bias"], ["*"])),
    ),
    "lstm": Model(
        torch_lstm,
        apply_lstm,
        convert_lstm,
        (8, 3, 3),
        same,
        2,
        (
            (
                ["lstm.bias_ih_l0", "lstm.bias_hh_l0", "out.bias"],
                ["lstm.weight_ih_l0", "lstm.weight_hh_l0", "out.weight"],
            ),
            (["*/bias"], ["*"]),
        ),
    ),
    "attention": Model(
        torch_attention,
        apply_attention,
        convert_attention,
        (8, 5, 4),
        same,
        2,
        (
            (
                ["attention.in_proj_bias", "attention.out_proj.bias", "out.bias"],
                [
                    "attention.in_proj_weight",
                    "attention.out_proj.weight",
                    "out.weight",
                ],
            ),
            (["*/bias"], ["*"]),
        ),
    ),
}

# With an ε at which the rounding of small gradients does not grow: that of a variance,
# and of the keys' bias, which a softmax does not see.
_TWO = ({"weight_decay": 0.0}, {"lr": 0.02, "weight_decay": 0.1})
_COSINE, _CYCLE = SCHEDULERS["cosine"], SCHEDULERS["onecycle"]
_MOMENTUM = {"lr": 0.05, "momentum": 0.9}

RUNS: dict[str, tuple[str, Case]] = {
    "sgd": ("mlp", Case("SGD", {"lr": 0.1})),
    "nesterov": ("mlp", Case("SGD", _MOMENTUM | {"nesterov": True})),
    "dampening": ("mlp", Case("SGD", _MOMENTUM | {"dampening": 0.3}, _COSINE)),
    "sgd_groups": ("mlp", Case("SGD", _MOMENTUM, groups=_TWO)),
    "sgd_cycle": ("mlp", Case("SGD", _MOMENTUM, _CYCLE)),
    "adagrad": ("mlp", Case("Adagrad", {"lr": 0.05, "lr_decay": 0.01})),
    "rmsprop": ("mlp", Case("RMSprop", {"lr": 0.002, "momentum": 0.9}, _COSINE)),
    "centered": ("mlp", Case("RMSprop", {"lr": 0.002, "centered": True, "eps": 0.01})),
    "adadelta": ("mlp", Case("Adadelta", {"eps": 1e-3})),
    "adam": ("mlp", Case("Adam", {"lr": 0.01, "weight_decay": 0.01})),
    "amsgrad": ("mlp", Case("Adam", {"lr": 0.01, "amsgrad": True}, groups=_TWO)),
    "adam_cycle": ("mlp", Case("Adam", {}, _CYCLE)),
    "adamw": ("mlp", Case("AdamW", {"lr": 0.01}, _COSINE, groups=_TWO)),
    "adamax": ("mlp", Case("Adamax")),
    "nadam": ("mlp", Case("NAdam")),
    "radam": ("mlp", Case("RAdam", {"lr": 0.01})),
    "adabound": ("mlp", Case("AdaBound", {"gamma": 0.01}, SCHEDULERS["linear"])),
    "amsbound": ("mlp", Case("AdaBound", {"amsbound": True}, groups=_TWO)),
    "conv": ("conv", Case("AdamW", {"lr": 0.01, "amsgrad": True}, _COSINE)),
    "lstm": ("lstm", Case("Adam", {"lr": 0.01}, _COSINE, groups=_TWO)),
    "attention": ("attention", Case("AdamW", {"eps": 1e-3}, _CYCLE, groups=_TWO)),
}


class Run(NamedTuple):
    """A run of PyTorch between steps, its module, optimizer and scheduler."""

    module: Any
    optimizer: Any
    scheduler: Any
    data: Any

    def weights(self) -> dict[str, Any]:
        return dict(self.module.named_parameters())

    def go(self, steps: int) -> None:
        x, y = self.data
        for _ in range(steps):
            self.optimizer.zero_grad()
            ((self.module(x) - y) ** 2).mean().backward()
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="This overload of")
                self.optimizer.step()
            if self.scheduler is not None:
                self.scheduler.step()


def start(name: str) -> Run:
    """PyTorch's run at its start, in float32."""
    import torch

    kind, case = RUNS[name]
    model = MODELS[kind]
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module = model.torch()
    weights = dict(module.named_parameters())
    optimizer, scheduler = theirs(case, weights, model.groups[0])
    data = [torch.tensor(a, dtype=torch.float32) for a in model.data()]
    return Run(module, optimizer, scheduler, data)


def our_optimizer(name: str) -> Any:
    kind, case = RUNS[name]
    return ours(case, MODELS[kind].groups[1])


def our_run(name: str, params: Any, state: Any, steps: int) -> tuple[Any, Any]:
    """Parameters and state after so many steps in JAX."""
    model, tx = MODELS[RUNS[name][0]], our_optimizer(name)
    x, y = (jnp.asarray(a, jnp.float32) for a in model.data())
    x = model.to_jax(x)

    def loss(params: Any) -> Any:
        return jnp.mean((model.apply(params, x) - y) ** 2)

    def step(carry: Any, _: Any) -> Any:
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        params = jax.tree.map(lambda p, u: p + u, params, updates)
        return (params, state), None

    scan = lambda carry: jax.lax.scan(step, carry, length=steps)[0]  # noqa: E731
    return jit(scan)((params, state))


def main() -> None:
    from optjax.pytorch import flatten_state_dict

    stored = {}
    for name in RUNS:
        run = start(name)
        for steps in (STOP, END):
            run.go(STOP if steps == STOP else END - STOP)
            for key, value in run.weights().items():
                stored[f"{name}/{steps}/weight/{key}"] = array(value).copy()
            flat = flatten_state_dict(run.optimizer.state_dict())
            for key, value in flat.items():
                stored[f"{name}/{steps}/{key}"] = np.array(value)
    np.savez_compressed(FILE, **stored)
    print(f"{FILE.name}: {len(RUNS)} runs, {FILE.stat().st_size} bytes")


def committed(name: str, steps: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The weights and the flat state_dict after so many steps."""
    weights, flat = {}, {}
    with np.load(FILE) as file:
        for key in file.files:
            if key.startswith(f"{name}/{steps}/"):
                rest = key.removeprefix(f"{name}/{steps}/")
                if rest.startswith("weight/"):
                    weights[rest.removeprefix("weight/")] = file[key]
                else:
                    flat[rest] = file[key]
    assert json.loads(flat["param_groups"].tobytes())
    return weights, flat


if __name__ == "__main__":
    main()
