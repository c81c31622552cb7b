"""Convolutions in the form that XLA's CPU library runs, wherever they stand.

XLA brings the convolutions of a program into that form, images by height by width by
channels, but not those inside of a loop, a condition or a call: there it runs most of a
backward pass, and every other layout, with plain loops, tens of times slower. Here they
are brought into it before XLA sees them: by transposes, which change no number.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, ParamSpec, TypeVar

import jax
from jax.extend.core import (
    ClosedJaxpr,
    Jaxpr,
    JaxprEqn,
    Var,
    jaxpr_as_fun,
    new_jaxpr_eqn,
    no_effects,
)
from jax.extend.core.primitives import conv_general_dilated_p, transpose_p

from optjax._arguments.objects import Function
from optjax.sweep._errors import checked

_Args = ParamSpec("_Args")
_T = TypeVar("_T")

# Primitives that run a jaxpr as it stands, and the parameters where it is. Of another
# primitive nothing is known, and nothing in it is changed.
_RUN = {
    "checkpoint": ("jaxpr",),
    "closed_call": ("call_jaxpr",),
    "cond": ("branches",),
    "core_call": ("call_jaxpr",),
    "custom_jvp_call": ("call_jaxpr",),
    "custom_vjp_call": ("call_jaxpr",),
    "custom_vjp_call_jaxpr": ("fun_jaxpr",),
    "jit": ("jaxpr",),
    "pjit": ("jaxpr",),
    "remat2": ("jaxpr",),
    "scan": ("jaxpr",),
    "while": ("body_jaxpr", "cond_jaxpr"),
}


@checked
def fast_convolutions(
    function: Annotated[Callable[_Args, _T], Function("a function of arrays")],
) -> Callable[_Args, _T]:
    """The same function, whose convolutions are fast in loops on a CPU too.

    out = conv(lhs, rhs) becomes out = T⁻¹(conv(T(lhs), T(rhs))) with transposes T that
    bring the operands into the layouts (n, …, c) and (…, i, o). That is exact for every
    stride, dilation, number of groups and of dimensions; the sums may be in another
    order. A sweep does so by itself on CPUs. For a loop of your own wrap the whole
    update, the gradient in it, since it makes the convolutions that matter:

        step = optjax.sweep.fast_convolutions(step)
        state, losses = jax.lax.scan(step, state, batches)

    Convolutions are found in `jit`, `scan`, `while_loop`, `cond`, `remat` and functions
    with derivatives of their own; in other primitives, such as `shard_map` or a Pallas
    kernel, they stay as they are. On accelerators it gains nothing.

    Args:
      function: of arrays and pytrees of them, which JAX can trace. It is traced once at
        each call, so let the result be inside of a `jit` or a loop.

    Returns:
      A function of the same arguments.

    Raises:
      ValueError: for what is no function.

    Example:
      >>> import jax, jax.numpy as jnp, optjax.sweep
      >>> def loss(kernel, x):
      ...     y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME")
      ...     return jnp.mean(y**2)
      >>> def step(kernel, x):
      ...     value, gradient = jax.value_and_grad(loss)(kernel, x)
      ...     return kernel - 0.1 * gradient, value
      >>> x, kernel = jnp.ones((5, 2, 3, 8, 8)), jnp.ones((4, 3, 3, 3))
      >>> step = optjax.sweep.fast_convolutions(step)
      >>> kernel, losses = jax.lax.scan(step, kernel, x)
      >>> losses.shape
      (5,)
    """

    @functools.wraps(function)
    def rewritten(*args: _Args.args, **kwargs: _Args.kwargs) -> _T:
        jaxpr, shape = jax.make_jaxpr(function, return_shape=True)(*args, **kwargs)
        changed = _rewritten(jaxpr, {})
        out = jaxpr_as_fun(changed)(*jax.tree.leaves((args, kwargs)))
        result: _T = jax.tree.unflatten(jax.tree.structure(shape), out)
        return result

    return rewritten


def _rewritten(value: Any, known: dict[int, tuple[Any, Any]]) -> Any:
    """A jaxpr, or several, in the fast form; itself where nothing changes.

    Args:
      value: a parameter of an equation.
      known: what has been rewritten, by identity, so that what was one stays one.
    """
    if isinstance(value, tuple):
        each = tuple(_rewritten(item, known) for item in value)
        return value if all(map(_is, each, value)) else each
    # From JAX 0.12 on there is one kind, which is its own jaxpr.
    if isinstance(value, ClosedJaxpr) and value.jaxpr is not value:
        jaxpr = _rewritten(value.jaxpr, known)
        return value if jaxpr is value.jaxpr else value.replace(jaxpr=jaxpr)
    if not isinstance(value, Jaxpr):
        return value
    if id(value) not in known:
        eqns = [new for eqn in value.eqns for new in _equations(eqn, known)]
        same = len(eqns) == len(value.eqns) and all(map(_is, eqns, value.eqns))
        # With the old one, whose identity another one could have once it is gone.
        known[id(value)] = value, value if same else value.replace(eqns=eqns)
    return known[id(value)][1]


def _is(a: Any, b: Any) -> bool:
    return a is b


def _equations(eqn: JaxprEqn, known: dict[int, tuple[Any, Any]]) -> Iterator[JaxprEqn]:
    if eqn.primitive is conv_general_dilated_p:
        yield from _convolution(eqn)
        return
    changed = {}
    for name in _RUN.get(eqn.primitive.name, ()):
        before = eqn.params.get(name)
        after = _rewritten(before, known)
        if after is not before:
            changed[name] = after
    yield eqn.replace(params={**eqn.params, **changed}) if changed else eqn


def _convolution(eqn: JaxprEqn) -> Iterator[JaxprEqn]:
    """The same between transposes; by itself where its form is right."""
    lhs, rhs, out = eqn.params["dimension_numbers"]
    last = len(lhs) - 1
    spatial = tuple(range(1, last))
    form = (
        (0, last, *spatial),
        (last, last - 1, *range(last - 1)),
        (0, last, *spatial),
    )
    if (lhs, rhs, out) == form:
        yield eqn
        return
    # Places in the old array of the new one's dimensions.
    to_lhs = (lhs[0], *lhs[2:], lhs[1])
    to_rhs = (*rhs[2:], rhs[1], rhs[0])
    to_out = (out[0], *out[2:], out[1])
    new_lhs, new_rhs = _like(eqn.invars[0], to_lhs), _like(eqn.invars[1], to_rhs)
    new_out = _like(eqn.outvars[0], to_out)
    numbers = type(eqn.params["dimension_numbers"])(*form)
    yield _transpose(eqn, eqn.invars[0], new_lhs, to_lhs)
    yield _transpose(eqn, eqn.invars[1], new_rhs, to_rhs)
    yield eqn.replace(
        invars=[new_lhs, new_rhs],
        outvars=[new_out],
        params={**eqn.params, "dimension_numbers": numbers},
    )
    back = tuple(to_out.index(dimension) for dimension in range(len(to_out)))
    yield _transpose(eqn, new_out, eqn.outvars[0], back)


def _like(of: Any, permutation: Sequence[int]) -> Var:
    shape = tuple(of.aval.shape[dimension] for dimension in permutation)
    return Var(of.aval.update(shape=shape))


def _transpose(
    eqn: JaxprEqn, of: Any, to: Var, permutation: tuple[int, ...]
) -> JaxprEqn:
    return new_jaxpr_eqn(
        [of],
        [to],
        transpose_p,
        {"permutation": permutation},
        no_effects,
        eqn.source_info,
        eqn.ctx,
    )
