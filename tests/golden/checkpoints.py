"""Checkpoints of every row, one folder a version, which every later version restores.

    python -m tests.golden.checkpoints

from the repository's root writes this version's, where it has none yet, and
docs/states.md. A folder that is committed is never written anew: users have its like.
Rows that are younger than their version's folder get one of their own, 0.1.0+1.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import orbax.checkpoint as ocp

import optjax

FOLDER = Path(__file__).with_name("checkpoints")
PAGE = Path(__file__).parent.parent.parent / "docs" / "states.md"
STEPS = 3
PARAMS = {
    "kernel": jnp.array([[0.5, -1.0], [2.0, 0.25]]),
    "bias": jnp.array(0.5, jnp.bfloat16),
}

INTRODUCTION = """\
# States

What an optimizer's `init` returns, and so what a checkpoint holds: of every row of
`OPTIMIZERS` at its defaults, for `params = {"x": float32[3]}`, the path of each array
from the root of the state. These names, their order, shapes and dtypes are a contract:
a checkpoint of this version is restored by every later one, which the tests do with
the ones they keep. A number in brackets is a place in a tuple, such as the state of
`optax.chain`; states without arrays are not shown.
"""


def gradient(t: int) -> optax.Updates:
    """Of both signs, and growing."""
    return jax.tree.map(lambda x: (x * (t + 1) - 0.75).astype(x.dtype), PARAMS)


def optimizer(row: str) -> optax.GradientTransformationExtraArgs:
    """At its defaults, but that it moves within the steps."""
    few = {"keep_num": 2} if row == "adashift" else {}
    return optjax.OPTIMIZERS[row].factory(0.01, **few)


def start(row: str) -> tuple[optax.OptState, optax.Updates]:
    """A state of the row, and updates, of the right structure."""
    return optimizer(row).init(PARAMS), PARAMS


def after(
    row: str, state: optax.OptState, steps: range
) -> tuple[optax.OptState, optax.Updates]:
    """The state after these steps, and the updates of the last."""
    tx, updates = optimizer(row), None
    for t in steps:
        updates, state = tx.update(gradient(t), state, PARAMS)
    return state, updates


def restore(version: str) -> dict[str, tuple[optax.OptState, optax.Updates]]:
    """For every row of that version a state, and the updates of the step after it."""
    rows = json.loads(_list(version).read_text())
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here),
        jax.eval_shape(lambda: {row: start(row) for row in rows}),
    )
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore((FOLDER / version).resolve(), like)


def folders(version: str) -> list[str]:
    """The names of a version's folders, in the order in which they were written."""
    found = (path.stem for path in FOLDER.glob("*.json"))
    return sorted(name for name in found if name.partition("+")[0] == version)


def page() -> str:
    """docs/states.md, from the states themselves."""
    text = INTRODUCTION
    for name, row in optjax.OPTIMIZERS.items():
        state = jax.eval_shape(row.factory(0.1).init, {"x": jnp.zeros(3)})
        leaves = jax.tree_util.tree_leaves_with_path(state)
        lines = [
            f"    {jax.tree_util.keystr(path):<40} {leaf.dtype}{list(leaf.shape)}\n"
            for path, leaf in leaves
        ]
        text += f"\n## {name}\n\n" + ("".join(lines) or "No arrays.\n")
    return text


def main() -> None:
    PAGE.write_text(page())
    there = folders(optjax.__version__)
    known = {row for name in there for row in json.loads(_list(name).read_text())}
    saved = {}
    for row in optjax.OPTIMIZERS:
        if row not in known:
            state, _ = after(row, start(row)[0], range(STEPS))
            saved[row] = state, after(row, state, range(STEPS, STEPS + 1))[1]
    if not saved:
        print(f"every row is there already; only {PAGE.name} was written")
        return
    name = optjax.__version__ + (f"+{len(there)}" if there else "")
    path = FOLDER / name
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path.resolve(), saved)
    # Tells of the path on this machine, to file systems without an atomic rename.
    (path / "commit_success.txt").unlink(missing_ok=True)
    _list(name).write_text(json.dumps(list(saved)) + "\n")


def _list(name: str) -> Path:
    """The names of a folder's rows."""
    return FOLDER / f"{name}.json"


if __name__ == "__main__":
    main()
