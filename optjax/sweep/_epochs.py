"""Where batches come from: a source with a state of its own, and epochs of arrays."""

import functools
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from optjax._arguments.checked import checked
from optjax._arguments.kind import Kind
from optjax._arguments.named import Size
from optjax._arguments.objects import Function
from optjax.sweep._keywords import Keywords, keywords, with_keywords

#: A batch: `(inputs, ...)`, the inputs being what the model is called with.
Batch: TypeAlias = Any
#: What a source carries from update to update, any pytree.
Carried: TypeAlias = Any
Draw: TypeAlias = Callable[..., Batch]


class Batches(NamedTuple):
    """A source of batches that carries something from one update to the next.

    Attributes:
      init: `init(key) -> carried`, any pytree.
      draw: `draw(carried, step) -> (carried, batch)`, pure; `step` is the number of
        updates done, and a batch is `(inputs, ...)`.

    What they take beyond these by keyword is a hyper-parameter.
    """

    init: Callable[..., Carried]
    draw: Callable[..., tuple[Carried, Batch]]


_DRAW = Function("a function (key, step) -> (inputs, ...)", 2, has_keywords=True)


class _BatchesOrDraw(Kind):
    def accepts(self, value: Any) -> bool:
        return isinstance(value, Batches) or _DRAW.accepts(value)


BatchesOrDraw: TypeAlias = Annotated[
    Draw | Batches, _BatchesOrDraw(f"{_DRAW.words} or Batches")
]


class _ArraysKind(Kind):
    def accepts(self, value: Any) -> bool:
        return (
            isinstance(value, (list, tuple))
            and bool(value)
            and all(isinstance(x, (np.ndarray, jax.Array)) and x.ndim for x in value)
            and len({len(x) for x in value}) == 1
        )


_Arrays: TypeAlias = Annotated[
    Sequence[np.ndarray | jax.Array],
    _ArraysKind("a tuple of arrays with equally many examples"),
]
_Prepare: TypeAlias = Annotated[
    Callable[..., Batch],
    Function("a function (key, batch) -> batch", 2, has_keywords=True),
]


class Order(NamedTuple):
    """What `epochs` carries: the run's key, and the order of the present epoch."""

    key: jax.Array
    order: jax.Array


def as_batches(batch: Draw | Batches) -> Batches:
    """The source that a function of a key and the step is: it carries the key."""
    if isinstance(batch, Batches):
        return batch

    def draw(key: jax.Array, step: jax.Array, **given: Any) -> tuple[jax.Array, Batch]:
        return key, batch(key, step, **given)

    return Batches(lambda key: key, with_keywords(draw, [keywords(batch, 2)], given=2))


def updates_an_epoch(examples: int, batch_size: int) -> int:
    """How many whole batches there are; what is left over waits for another order.

    Raises:
      ValueError: where there is not even one.
    """
    if not 1 <= batch_size <= examples:
        raise ValueError(
            f"a batch must have from 1 to {examples} examples, as many as there are "
            f"for training, got batch_size={batch_size}; choose a smaller batch or "
            "more data"
        )
    return examples // batch_size


@checked
def epochs(
    arrays: _Arrays, batch_size: Size | None = None, prepare: _Prepare | None = None
) -> Batches:
    """Batches that have every example once an epoch, in an order drawn anew for each.

    The last, incomplete batch of an epoch is left out. The arrays stay on the device,
    and only an epoch's first update draws an order, so that a batch costs no more than
    its rows.

    Args:
      arrays: inputs, then targets or whatever else the loss reads, with the examples
        along the first axis.
      batch_size: examples an update; None makes it a hyper-parameter, which the space
        gives: a program for each value.
      prepare: `prepare(key, batch) -> batch`, for instance to change images at random;
        the key is new at every update. What else it takes by keyword is a
        hyper-parameter.

    Returns:
      For `from_nnx` and `from_linen`.

    Raises:
      ValueError: where a batch is larger than the data.

    Example:
      >>> import jax, jax.numpy as jnp, optjax.sweep
      >>> x = jnp.arange(5.0)
      >>> batches = optjax.sweep.epochs((x, x**2), batch_size=2)
      >>> carried = batches.init(jax.random.key(0))
      >>> carried, (inputs, targets) = batches.draw(carried, 0)
      >>> inputs.shape, targets.shape
      ((2,), (2,))
    """
    size = len(arrays[0])
    if batch_size is not None:
        updates_an_epoch(size, batch_size)

    def init(key: jax.Array) -> Order:
        return Order(key, jnp.arange(size))

    def draw(
        carried: Order, step: jax.Array, batch_size: int, **given: Any
    ) -> tuple[Order, Batch]:
        order_key = prepare_key = carried.key
        if prepare is not None:
            order_key, prepare_key = jax.random.split(carried.key)
        epoch, batch = jnp.divmod(step, updates_an_epoch(size, batch_size))
        order = jax.lax.cond(
            batch == 0,
            lambda: jax.random.permutation(jax.random.fold_in(order_key, epoch), size),
            lambda: carried.order,
        )
        rows = jax.lax.dynamic_slice_in_dim(order, batch * batch_size, batch_size)
        drawn = tuple(jnp.asarray(array)[rows] for array in arrays)
        if prepare is not None:
            drawn = prepare(jax.random.fold_in(prepare_key, step), drawn, **given)
        return carried._replace(order=order), drawn

    takers = [] if prepare is None else [keywords(prepare, 2)]
    if batch_size is None:
        takers.append(Keywords({"batch_size": keywords(draw).named["batch_size"]}))
        return Batches(init, with_keywords(draw, takers, given=2))
    sized = functools.partial(draw, batch_size=batch_size)
    return Batches(init, with_keywords(sized, takers, given=2))
