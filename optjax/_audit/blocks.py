"""Sums over large arrays, block after block, so that no array of their size is held.

XLA keeps what two sums share: of a derivative through an optimizer that is some twenty
arrays of a leaf's size. Where all that a function does with large arrays is done
coordinate by coordinate until it is summed, each block of coordinates can go all the
way to the sums before the next begins. What waits for a sum, such as what a global norm
scales, is worked out again in the next round.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from optjax._pointwise import POINTWISE, called

#: Coordinates that are worked on at a time; what has no more is not cut.
BLOCK = 2**16

# What a sum begins with, and how two are one.
_REDUCTIONS: dict[str, tuple[Callable[[Any], Any], Callable[[Any, Any], Any]]] = {
    "reduce_sum": (lambda dtype: np.zeros((), dtype), jnp.add),
    "reduce_max": (lambda dtype: _ends(dtype)[0], jnp.maximum),
    "reduce_min": (lambda dtype: _ends(dtype)[1], jnp.minimum),
    "reduce_and": (lambda dtype: np.ones((), dtype), jnp.logical_and),
    "reduce_or": (lambda dtype: np.zeros((), dtype), jnp.logical_or),
}


def by_blocks(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function of trees of arrays, whose results are small.

    Where it does more with large arrays than is said above it is called as it is.
    """

    def blocked(*operands: Any) -> Any:
        leaves = jax.tree.leaves(operands)
        if not any(np.size(leaf) > BLOCK for leaf in leaves):
            return function(*operands)
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*operands)
        graph = _Graph()
        try:
            inputs = [graph.add(_Node(None, (), {}, _aval(leaf))) for leaf in leaves]
            results = graph.walk(closed.jaxpr, closed.consts, inputs)
        except _NotPointwise:
            return function(*operands)
        values = graph.compute(dict(zip(inputs, leaves, strict=True)), results)
        return jax.tree.unflatten(jax.tree.structure(shape), values)

    return blocked


class _NotPointwise(Exception):
    """Something looks at several coordinates of a large array."""


class _Node(NamedTuple):
    """One of a step's values: what makes it, from which others, and its rank.

    `rank` is how many sums of large arrays stand one after the other before it. What
    is given has no primitive.
    """

    primitive: Any
    operands: tuple[int, ...]
    parameters: dict[str, Any]
    aval: Any
    place: int = 0
    rank: int = 0

    @property
    def is_large(self) -> bool:
        return bool(math.prod(self.aval.shape) > BLOCK)


class _Graph:
    """All values, by their numbers, with calls of functions written out."""

    def __init__(self) -> None:
        self._nodes: list[_Node] = []
        self._given: dict[int, Any] = {}

    def add(self, node: _Node) -> int:
        self._nodes.append(node)
        return len(self._nodes) - 1

    def _constant(self, value: Any) -> int:
        number = self.add(_Node(None, (), {}, _aval(value)))
        self._given[number] = value
        return number

    def walk(
        self, jaxpr: Any, constants: Sequence[Any], inputs: Sequence[int]
    ) -> list[int]:
        """Add what a jaxpr computes, and return the numbers of its results."""
        # Twenty-five modules, which `import optjax` does without.
        from jax.extend.core import Literal

        known = dict(zip(jaxpr.invars, inputs, strict=True))
        known |= {
            var: self._constant(value)
            for var, value in zip(jaxpr.constvars, constants, strict=True)
        }

        def number(atom: Any) -> int:
            return (
                self._constant(atom.val) if isinstance(atom, Literal) else known[atom]
            )

        for equation in jaxpr.eqns:
            operands = [number(atom) for atom in equation.invars]
            inner = called(equation)
            if inner is not None:
                results = self.walk(inner.jaxpr, inner.consts, operands)
            else:
                results = self._equation(equation, operands)
            known.update(zip(equation.outvars, results, strict=True))
        return [number(atom) for atom in jaxpr.outvars]

    def _equation(self, equation: Any, operands: Sequence[int]) -> list[int]:
        nodes = [self._nodes[operand] for operand in operands]
        avals = [var.aval for var in equation.outvars]
        rank = max((node.rank for node in nodes), default=0)
        large = {node.aval.shape for node in nodes if node.is_large}
        large |= {aval.shape for aval in avals if math.prod(aval.shape) > BLOCK}
        name = equation.primitive.name
        if large:
            of_scalars = all(node.is_large or not node.aval.shape for node in nodes)
            is_whole = of_scalars and len(large) == 1
            if name in _REDUCTIONS and is_whole and not avals[0].shape:
                rank += 1
            elif not (is_whole and (name in POINTWISE or name == "broadcast_in_dim")):
                raise _NotPointwise(name)
        return [
            self.add(
                _Node(
                    equation.primitive,
                    tuple(operands),
                    equation.params,
                    aval,
                    place,
                    rank,
                )
            )
            for place, aval in enumerate(avals)
        ]

    def compute(self, given: dict[int, Any], results: Sequence[int]) -> list[Any]:
        """The results, from the values of the inputs."""
        if any(self._nodes[number].is_large for number in results):
            raise ValueError("results of by_blocks must be small")
        known, needed = self._given | given, self._needed(results)
        sums = [
            number
            for number in sorted(needed)
            if self._nodes[number].operands
            and not self._nodes[number].is_large
            and self._nodes[self._nodes[number].operands[0]].is_large
        ]
        rounds: dict[tuple[int, tuple[int, ...]], list[int]] = {}
        for number in sums:
            node = self._nodes[number]
            shape = self._nodes[node.operands[0]].aval.shape
            rounds.setdefault((node.rank, shape), []).append(number)
        for (rank, shape), members in sorted(rounds.items()):
            # Of what is small, all that stands before these sums.
            self._small(known, (n for n in needed if self._nodes[n].rank < rank))
            known.update(self._sum(known, members, math.prod(shape)))
        self._small(known, needed)
        return [known[number] for number in results]

    def _needed(self, results: Sequence[int]) -> set[int]:
        needed: set[int] = set()
        waiting = list(results)
        while waiting:
            number = waiting.pop()
            if number not in needed:
                needed.add(number)
                waiting.extend(self._nodes[number].operands)
        return needed

    def _small(self, known: dict[int, Any], numbers: Any) -> None:
        for number in sorted(numbers):
            if number not in known and not self._nodes[number].is_large:
                known[number] = self._bind(number, known)

    def _bind(self, number: int, known: dict[int, Any]) -> Any:
        node = self._nodes[number]
        operands = [known[operand] for operand in node.operands]
        result = node.primitive.bind(*operands, **node.parameters)
        return result[node.place] if node.primitive.multiple_results else result

    def _sum(
        self, known: dict[int, Any], members: Sequence[int], size: int
    ) -> dict[int, Any]:
        """Reductions of arrays of one shape, in one loop over their blocks."""
        operands = {number: self._nodes[number].operands[0] for number in members}
        order = sorted(
            number
            for number in self._needed([*operands.values()])
            if self._nodes[number].is_large
        )
        flat = {n: jnp.ravel(known[n]) for n in order if n in known}

        def follow(index: Any, totals: list[Any]) -> list[Any]:
            # The last begins earlier, where some are counted already.
            start = jnp.minimum(index * BLOCK, size - BLOCK)
            is_new = start + jnp.arange(BLOCK) >= index * BLOCK
            values = dict(known)
            for number in order:
                if number in flat:
                    part = jax.lax.dynamic_slice(flat[number], (start,), (BLOCK,))
                    values[number] = part
                else:
                    values[number] = self._of_block(number, values)
            return [
                self._joined(number, total, values[operands[number]], is_new)
                for number, total in zip(members, totals, strict=True)
            ]

        first = [
            jnp.asarray(_REDUCTIONS[node.primitive.name][0](node.aval.dtype))
            for node in map(self._nodes.__getitem__, members)
        ]
        totals = jax.lax.fori_loop(0, -(-size // BLOCK), follow, first)
        return dict(zip(members, totals, strict=True))

    def _of_block(self, number: int, values: dict[int, Any]) -> Any:
        node = self._nodes[number]
        if node.primitive.name != "broadcast_in_dim":
            return self._bind(number, values)
        value = values[node.operands[0]]
        return value if jnp.ndim(value) else jnp.broadcast_to(value, (BLOCK,))

    def _joined(self, number: int, total: Any, part: Any, is_new: Any) -> Any:
        node = self._nodes[number]
        start, join = _REDUCTIONS[node.primitive.name]
        part = jnp.where(is_new, part, start(part.dtype))
        parameters = {**node.parameters, "axes": (0,)}
        return join(total, node.primitive.bind(part, **parameters))


def _aval(value: Any) -> Any:
    return jax.ShapeDtypeStruct(np.shape(value), jnp.result_type(value))


def _ends(dtype: Any) -> tuple[Any, Any]:
    """What no value is smaller and larger than."""
    if jnp.issubdtype(dtype, jnp.floating):
        return np.array(-np.inf, dtype), np.array(np.inf, dtype)
    if jnp.issubdtype(dtype, jnp.bool_):
        return np.array(False), np.array(True)
    limits = jnp.iinfo(dtype)
    return np.array(limits.min, dtype), np.array(limits.max, dtype)
