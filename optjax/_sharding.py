"""Where an optimizer's state lies among devices, given where the parameters lie."""

from typing import Annotated, Any, TypeAlias

import jax
import optax
from jax.sharding import NamedSharding, PartitionSpec

from optjax._arguments.checked import checked
from optjax._arguments.kind import Kind, shown
from optjax._arguments.named import ArrayTree, Transformation
from optjax._compression import BLOCK
from optjax._places import end_of


class _Places(Kind):
    """A tree whose leaves say where an array lies."""

    def accepts(self, value: Any) -> bool:
        places = jax.tree.leaves(value, is_leaf=_is_place)
        return value is not None and all(map(_is_place, places))

    def advice(self, value: Any) -> str:
        for path, leaf in jax.tree_util.tree_leaves_with_path(value, is_leaf=_is_place):
            if path and not _is_place(leaf):
                return f"At {jax.tree_util.keystr(path)} it has {shown(leaf)}"
        return ""


_Shardings: TypeAlias = Annotated[
    Any, _Places("a tree of NamedShardings or of PartitionSpecs")
]


@checked
def state_shardings(
    optimizer: Transformation, params: ArrayTree, shardings: _Shardings
) -> optax.OptState:
    r"""s(m_x) = s(ν_x) = s(x): what is kept for a parameter x lies where x does.

    A leaf of the state belongs to the parameter whose path is the end of its own. With
    the parameter's shape it gets the parameter's sharding; with further leading axes,
    as the gradients that `adashift` keeps, these are not split. The scales of a
    `compressed` state are split along all axes but the last, and not at all where its
    blocks go over the ends of rows. All else, such as counters, hyper-parameters and
    averages over whole leaves, is on every device.

    `shardings` need not be those that the parameters have. To split the state of
    parameters that are on every device (ZeRO), give what the gradients will have.

    Args:
      optimizer: any Optax gradient transformation, wrappers included.
      params: the parameters, or their shapes (`jax.eval_shape`).
      shardings: a tree like `params`, or a prefix of it, of `NamedSharding` on one
        mesh, or of `PartitionSpec` as `shard_map` takes them.

    Returns:
      A tree like `optimizer.init(params)`, of the same kind as `shardings`.

    Raises:
      ValueError: for shardings of another kind, of several meshes, of fewer
        dimensions than they split, or of another structure than the parameters.

    Example: a state that is made where it belongs.
      >>> import jax, jax.numpy as jnp, optjax
      >>> from jax.sharding import NamedSharding, PartitionSpec
      >>> mesh = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
      >>> tx, params = optjax.adabound(1e-3), {"w": jnp.ones((8, 4))}
      >>> shardings = {"w": NamedSharding(mesh, PartitionSpec("d"))}
      >>> places = optjax.state_shardings(tx, params, shardings)
      >>> state = jax.jit(tx.init, out_shardings=places)(params)
    """
    shapes = jax.eval_shape(lambda tree: tree, params)
    paths = jax.tree_util.tree_leaves_with_path(shapes)
    try:
        given = jax.tree.leaves(
            jax.tree.broadcast(shardings, shapes, _is_place), _is_place
        )
    except ValueError as error:
        raise ValueError(
            "shardings must be a tree like params, or a prefix of it, got "
            f"{jax.tree.structure(shardings, is_leaf=_is_place)} for "
            f"{jax.tree.structure(shapes)}."
        ) from error
    by_path = {}
    for (path, leaf), place in zip(paths, given, strict=True):
        _check(jax.tree_util.keystr(path), leaf.ndim, place)
        by_path[path] = leaf.shape, place
    everywhere = _everywhere(given)

    def place_of(path: tuple[Any, ...], leaf: Any) -> Any:
        end = end_of(path, by_path)
        if end is None:
            return everywhere
        shape, place = by_path[end]
        if shape and leaf.shape == (*shape[:-1], shape[-1] // BLOCK):
            return _but_last(len(shape), place)
        extra = len(leaf.shape) - len(shape)
        if extra < 0 or leaf.shape[extra:] != shape:
            return everywhere
        return _behind(extra, place)

    return jax.tree_util.tree_map_with_path(
        place_of, jax.eval_shape(optimizer.init, shapes)
    )


def _is_place(x: Any) -> bool:
    return isinstance(x, (NamedSharding, PartitionSpec))


def _spec(place: Any) -> PartitionSpec:
    return place.spec if isinstance(place, NamedSharding) else place


def _check(path: str, ndim: int, place: Any) -> None:
    if len(_spec(place)) > ndim:
        raise ValueError(
            f"shardings must split dimensions that the parameters have: {path} has "
            f"{ndim}, its sharding is {_spec(place)}."
        )


def _everywhere(places: list[Any]) -> Any:
    """The sharding of what is on every device."""
    meshes = {p.mesh if isinstance(p, NamedSharding) else None for p in places}
    if len(meshes) != 1:
        raise ValueError(
            "shardings must be NamedShardings of one mesh, or PartitionSpecs, got "
            f"{len(meshes)} meshes: {sorted(map(str, meshes))}."
        )
    (mesh,) = meshes
    spec = PartitionSpec()
    return spec if mesh is None else NamedSharding(mesh, spec)


def _but_last(ndim: int, place: Any) -> Any:
    """The same sharding with the last axis whole, of which a block is a part."""
    spec = PartitionSpec(*_spec(place)[: ndim - 1])
    return spec if isinstance(place, PartitionSpec) else place.update(spec=spec)


def _behind(extra: int, place: Any) -> Any:
    """The sharding of an array with so many axes more in front."""
    if not extra:
        return place
    spec = PartitionSpec(*[None] * extra, *_spec(place))
    return spec if isinstance(place, PartitionSpec) else place.update(spec=spec)
