"""Look inside an update while JAX traces it, and compute of it what is needed.

A primitive tells what it did, and whoever calls `update` within `observing()` receives
the links in the order of the computation. That is Python at trace time: outside
`observing()` nothing is kept, and the compiled program is the same either way.

`trace_once` runs a function once, apart from the trace around it. `map_leaves` is one
equation there, however many leaves there are, so that an update of thousands costs
little to look at. What is wanted of it is then computed by `Program.compute`: nothing
of the function's own Python runs again, and its effects happen once.

A link's arrays belong to the trace that made them. An optimizer that is called
inside another's `lax.cond` must be observed in there.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
import optax

from optjax._parts import Link, Part


class Observation:
    """What an observer receives of the updates inside its block.

    Attributes:
      links: what was told, in the order of the computation.
    """

    def __init__(self, trace: Any = None):
        self.links: list[Link] = []
        # The trace in which leaves are deferred, and those that are, each with what it
        # is a cast of. They are kept, so that no other array gets their ids.
        self._trace = trace
        self._deferred: dict[int, tuple[Any, Any]] = {}

    def defers(self) -> bool:
        """Whether leaves are deferred here, and not inside a `cond`, say."""
        return self._trace is not None and self._trace == _current_trace()

    def defer(self, leaf: Any, source: Any = None) -> None:
        """Take note of a leaf that is not computed yet."""
        self._deferred[id(leaf)] = leaf, source

    def is_deferred(self, leaf: Any) -> bool:
        """Whether the leaf is one that the primitives here return, as they do."""
        return id(leaf) in self._deferred

    def source(self, leaf: Any) -> Any:
        """What a deferred leaf is a cast of, or None."""
        return self._deferred[id(leaf)][1]


_current: ContextVar[Observation | None] = ContextVar("observation", default=None)


def _current_trace() -> Any:
    # Here, since it loads what importing optjax should not.
    from jax.extend.core import get_opaque_trace_state

    return get_opaque_trace_state(convention="optjax")


def current() -> Observation | None:
    """The observation around, if there is one."""
    return _current.get()


@contextmanager
def _within(observation: Observation) -> Iterator[Observation]:
    token = _current.set(observation)
    try:
        yield observation
    finally:
        _current.reset(token)


@contextmanager
def observing() -> Iterator[list[Link]]:
    """Collect the links of the updates called inside the block."""
    with _within(Observation()) as observation:
        yield observation.links


# What XLA would rather compute again than keep.
_CHEAP = {"add", "sub", "mul", "neg", "max", "min", "convert_element_type"}


class Program:
    """A function that ran once, to be computed in part or whole, where it is called.

    Attributes:
      value: what it returned: a tree of this program's own arrays, and of others.
    """

    def __init__(self, closed: Any, arrays: Sequence[Any], value: Any):
        self.value = value
        self._arrays = arrays  # So that no others get their ids.
        self._jaxpr, self._consts = closed.jaxpr, list(closed.consts)
        self._variable = {
            id(array): variable
            for array, variable in zip(arrays, self._jaxpr.outvars, strict=True)
        }

    def with_effects(self, *operands: Any) -> "Program":
        """The rest, once what has effects, and what that needs, happened here.

        For these operands, which those of `compute` must equal.
        """
        return self._after(lambda eqn: bool(eqn.effects), operands)

    def with_numbers(self, *operands: Any) -> "Program":
        """The rest, once effects happened and what its numbers are made of is here.

        What is computed of the rest at two places then shares them: XLA makes a kernel
        of a number that is dear to compute, which takes as long to compile as another.
        Left are those that depend on an array or on the first operand: of a parameter
        without dimensions they are what arrays are of another.
        """
        jaxpr = self._jaxpr
        others = set(jaxpr.invars[: len(jax.tree.leaves(operands[0]))])
        others |= {v for v in (*jaxpr.invars, *jaxpr.constvars) if v.aval.shape}

        def is_dear(eqn: Any) -> bool:
            variables = {v for v in eqn.invars if not _is_literal(v)}
            if variables & others or any(v.aval.shape for v in eqn.outvars):
                others.update(eqn.outvars)
                return False
            return eqn.primitive.name not in _CHEAP

        return self._after(lambda eqn: is_dear(eqn) or eqn.effects, operands)

    def _after(self, happens: Callable[[Any], Any], operands: Any) -> "Program":
        """The rest, once these equations, and what they need, happened here."""
        here = {id(eqn) for eqn in self._jaxpr.eqns if happens(eqn)}
        these = [eqn for eqn in self._jaxpr.eqns if id(eqn) in here]
        if not these:
            return self
        results = [variable for eqn in these for variable in eqn.outvars]
        known = self.values(results, self.known(*operands), these)
        rest = Program.__new__(Program)
        rest.value, rest._arrays, rest._variable = (
            self.value,
            self._arrays,
            self._variable,
        )
        rest._jaxpr = self._jaxpr.replace(
            constvars=[*self._jaxpr.constvars, *results],
            eqns=[eqn for eqn in self._jaxpr.eqns if id(eqn) not in here],
            effects=frozenset(),
        )
        rest._consts = [*self._consts, *known]
        return rest

    def compute(
        self, tree: Any, *operands: Any, given: Mapping[int, Any] | None = None
    ) -> Any:
        """The tree with this program's arrays computed; effects are left out.

        Those `given`, by their ids, are what they are there.
        """
        leaves, structure = jax.tree.flatten(tree)
        places = [i for i, leaf in enumerate(leaves) if id(leaf) in self._variable]
        wanted = [self._variable[id(leaves[i])] for i in places]
        known = self.known(*operands)
        for name, value in (given or {}).items():
            if name in self._variable:
                known[self._variable[name]] = value
        for i, value in zip(places, self.values(wanted, known), strict=True):
            leaves[i] = value
        return jax.tree.unflatten(structure, leaves)

    @property
    def equations(self) -> list[Any]:
        """What is computed, in its order."""
        found: list[Any] = self._jaxpr.eqns
        return found

    def variable(self, leaf: Any) -> Any:
        """What an array of the program's is in its equations; None for another's."""
        return self._variable.get(id(leaf))

    def known(self, *operands: Any) -> dict[Any, Any]:
        """The variables that are there before anything is computed."""
        flat = [*self._consts, *jax.tree.leaves(operands)]
        variables = *self._jaxpr.constvars, *self._jaxpr.invars
        return dict(zip(variables, flat, strict=True))

    def values(
        self,
        variables: Sequence[Any],
        known: Mapping[Any, Any],
        always: Sequence[Any] = (),
    ) -> list[Any]:
        """The variables, by the equations that they need and those that are always."""
        needed = {v for v in variables if not _is_literal(v)} - known.keys()
        whatever = {id(eqn) for eqn in always}
        kept = []
        for eqn in reversed(self._jaxpr.eqns):
            if id(eqn) in whatever or not needed.isdisjoint(eqn.outvars):
                # An equation of many leaves may know some of them already.
                unknown = [type(v)(v.aval) if v in known else v for v in eqn.outvars]
                kept.append(eqn.replace(outvars=unknown))
                needed.update(v for v in eqn.invars if not _is_literal(v))
                needed -= known.keys()
        part = self._jaxpr.replace(
            constvars=[*known], invars=[], eqns=kept[::-1], outvars=list(variables)
        )
        found: list[Any] = jax.core.eval_jaxpr(part, [*known.values()])
        return found


def trace_once(function: Callable[..., Any], *operands: Any) -> Program:
    """Run the function of these arrays, in a trace of its own.

    It is given an `Observation` first, in which the leaves of `map_leaves` are
    deferred, and then the operands. What it returns may hold arrays of a trace within,
    such as that of a `cond`, which are over and nothing can compute.
    """
    arrays: list[Any] = []
    result: list[Any] = []

    def run(*operands: Any) -> list[Any]:
        with _within(Observation(_current_trace())) as observation:
            result.append(function(observation, *operands))
            mine = trace_of(jnp.zeros(()))
        for leaf in jax.tree.leaves(result):
            if isinstance(leaf, jax.core.Tracer) and trace_of(leaf) is mine:
                arrays.append(leaf)
        return arrays

    return Program(jax.make_jaxpr(run)(*operands), arrays, result[0])


def trace_of(x: Any) -> Any:
    """What an array belongs to, None where it is no tracer."""
    # JAX has no public way to ask; without the attribute, its own error comes later.
    return getattr(x, "_trace", None)


def _is_literal(variable: Any) -> bool:
    return hasattr(variable, "val")


def tell(link: Link) -> None:
    """Hand an observer, if there is one, what a primitive did in this update.

    A `monitor`, `sgd_equivalent` and the compiled step see what is told, and what tells
    nothing is to them an unknown part. To be called in `update`, of its very arrays.

    Args:
      link: the part, what it received and returned, its state before and after.

    Example: a transformation whose bound moves with the step tells where it is now.
      >>> import jax, jax.numpy as jnp, optax
      >>> from optjax.extend import Clip, Link, tell
      >>> def update(rates, t, params=None):
      ...     upper = 1.0 / (t + 1)
      ...     clipped = jax.tree.map(lambda v: jnp.minimum(v, upper), rates)
      ...     tell(Link(Clip(0.0, upper), rates, clipped, t, t + 1))
      ...     return clipped, t + 1
      >>> halving = optax.GradientTransformation(lambda _: jnp.zeros([], int), update)
    """
    observation = _current.get()
    if observation is not None:
        observation.links.append(link)


class Telling(optax.GradientTransformationExtraArgs):
    """A transformation that tells of its updates, and says beforehand as which part."""

    part: Part


def telling(part: Part, transformation: optax.GradientTransformation) -> Telling:
    """The same transformation, each of its updates told to an observer.

    Args:
      part: what it is, the same at every step; else let `update` call `tell`.
      transformation: the transformation.

    Example: a sum of squares in one's own words.
      >>> import jax, jax.numpy as jnp, optax
      >>> from optjax.extend import SquareSum, telling
      >>> def update(g, nu, params=None):
      ...     nu = jax.tree.map(lambda g, nu: nu + g * g, g, nu)
      ...     return nu, nu
      >>> def init(params):
      ...     return jax.tree.map(jnp.zeros_like, params)
      >>> own = telling(SquareSum(), optax.GradientTransformation(init, update))
      >>> own.part
      SquareSum()
    """
    inner = optax.with_extra_args_support(transformation)

    def update(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        returned, new_state = inner.update(updates, state, params, **extra)
        tell(Link(part, updates, returned, state, new_state))
        return returned, new_state

    told = Telling(inner.init, update)
    told.part = part
    return told
