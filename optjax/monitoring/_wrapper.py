"""Keep a summary of an optimizer's effective rates in its state."""

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from optjax._arguments.checked import checked
from optjax._arguments.named import Count, Size, Transformation
from optjax._arguments.numbers import at_least, between
from optjax._groups import OVERALL, Groups, group_leaves
from optjax._observe import Observation, current, tell, trace_of, trace_once
from optjax._parts import Link, Product
from optjax._tree import leaf_names
from optjax.monitoring._groups import as_names, as_numbers
from optjax.monitoring._rates import Rate, read_rates
from optjax.monitoring._summarise import summarise
from optjax.monitoring._summary import Tables, empty

__all__ = ["MonitorState", "Summaries", "monitor"]


_Share: TypeAlias = Annotated[float, between(0, 1, "It is a share of coordinates")]
_Factor: TypeAlias = Annotated[float, at_least(1, "1.1 is 10 %")]


class Summaries(NamedTuple):
    """The names of the groups, as `as_numbers` has them, and their summaries.

    The tables have a row a group, in the order of the names.
    """

    groups: Any
    tables: Tables


class MonitorState(NamedTuple):
    """Steps taken, the optimizer's own state, and what was seen of its rates.

    With `every=0` steps are not counted.
    """

    count: Any
    inner_state: optax.OptState
    summaries: Summaries


@checked
def monitor(
    optimizer: Transformation,
    every: Count = 100,
    *,
    groups: Groups = 1,
    sample: Size | None = 1024,
    share: _Share = 0.99,
    factor: _Factor = 1.1,
    audit: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""r_t = s_t · V_t, summarised in the state of the optimizer that computes it.

    Another thing than `optax.monitor`, which measures the updates that pass by.

    The updates are those of `optimizer`, untouched. After the steps 1, `every`,
    2·`every`, … the state holds a summary of the effective rates of each group of
    coordinates, which `read_report` returns. At the steps between nothing is
    computed, and the size of the summaries depends on `sample`, not on the parameters'.

    Every optimizer that is made of `basic_form` or `precondition` shows its rates, on
    its own or in a chain, `optax.masked`, `optax.partition` or
    `optax.inject_hyperparams`; SWATS and AdaShift do too. s_t is the learning rate
    of `basic_form`: one that is applied outside of it is not seen.

    Args:
      optimizer: the optimizer.
      every: steps between two summaries, a Python integer; 0 for none at all.
      groups: how many leading parts of a leaf's path are the name of its group: 1 is
        a layer in most models. None for a group a leaf, or a function from the leaf's
        path, such as "block/conv/kernel", to the group's name; 0, or the name "", for
        no group but "overall", that of all leaves.
      sample: how many coordinates of a group are looked at, evenly spread, and kept, 4
        bytes each; None for all. The standard error of a share is then at most
        0.5 / √sample, 1.6 % at 1024.
      share: the share of a group's coordinates that must be near the SGD rate for the
        group to count as SGD.
      factor: how near: SGD rate / factor ≤ r ≤ SGD rate · factor.
      audit: keep the elasticities of the learning rate and of the bounds too; those of
        every hyper-parameter, and verdicts, are `optjax.audit`'s.

    Returns:
      An optimizer whose state is a `MonitorState`.

    Raises:
      ValueError: for an argument out of range; in `update`, where the optimizer shows
        no rate, as Optax's own do not, or hides it in a `cond`, as `optax.MultiSteps`
        and `optax.apply_if_finite` do: wrap these around the monitor.

    Example:
      >>> import jax.numpy as jnp, optjax
      >>> tx = optjax.monitor(optjax.adabound(1e-3), every=10)
      >>> x, g = {"w": jnp.ones(3)}, {"w": jnp.array([1.0, 2.0, 4.0])}
      >>> _, state = tx.update(g, tx.init(x), x)
      >>> print(optjax.read_report(state)["overall"].quantiles.round(2))
      [-2.6 -2.6 -2.6 -2.3 -2.  -2.  -2. ]
    """
    every, most = int(every), None if sample is None else int(sample)
    if groups is not None and not callable(groups):
        groups = int(groups)
    inner = optax.with_extra_args_support(optimizer)

    def init(params: optax.Params) -> MonitorState:
        members = group_leaves(leaf_names(params), groups)
        total = max(1, sum(map(jnp.size, jax.tree.leaves(params))))
        looked_at = total if most is None else min(total, most)
        return MonitorState(
            jnp.zeros([], jnp.int32),
            inner.init(params),
            Summaries(
                jnp.asarray(as_numbers([*members])), empty(len(members), looked_at)
            ),
        )

    def update(
        updates: optax.Updates,
        state: MonitorState,
        params: optax.Params | None = None,
        **extra: Any,
    ) -> tuple[optax.Updates, MonitorState]:
        count, inner_state, summaries = state
        if not every:
            result, inner_state = inner.update(updates, inner_state, params, **extra)
            return result, MonitorState(count, inner_state, summaries)
        count = optax.safe_increment(count)
        is_due = (count == 1) | (count % every == 0)
        members = group_leaves(leaf_names(updates), groups)
        _check_groups([*members], summaries.groups)

        # Here, since it loads what importing optjax should not.
        from optjax._columns import Computed

        def run(seen: Observation, leaves: Any, count: Any, inner_state: Any) -> Any:
            updates, params = leaves
            returned = inner.update(updates, inner_state, params, **extra)
            _check_within_reach(seen.links, trace_of(count))
            rates = _of_leaves(members[OVERALL], read_rates(seen.links))
            return returned, rates, seen.links

        # The optimizer's Python runs here alone, and its effects happen here alone.
        program = trace_once(run, (updates, params), count, inner_state)
        program = program.with_numbers((updates, params), count, inner_state)
        (result, new_state), rates, links = program.value

        def look(carry: Any) -> Any:
            """The same update, of which only what the summaries need remains."""
            _, inner_state, params, tables = carry
            tables = summarise(
                members,
                tables,
                count,
                rates,
                _by_name(result),
                None if params is None else _by_name(params),
                Computed(program, (updates, params), count, inner_state),
                most=most,
                share=share,
                factor=factor,
                audit=audit,
            )
            # Without the barrier JAX takes the state past the loop.
            kept = jax.lax.optimization_barrier((inner_state, params))
            return jax.lax.stop_gradient((jnp.zeros_like(is_due), *kept, tables))

        # A loop of one round or none. Unlike `cond` it hands on the buffers that it
        # reads, so that the update below overwrites them in place; and under `vmap` it
        # runs only when one of the trials is due.
        before = inner_state, params
        _, *after, tables = jax.lax.while_loop(
            lambda carry: carry[0],
            look,
            jax.lax.stop_gradient((is_due, *before, summaries.tables)),
        )
        summaries = summaries._replace(tables=tables)
        inner_state, params = _with_derivative_of(before, tuple(after))
        # An observer around is told of the same update.
        told = [] if current() is None else links
        result, inner_state, told = program.compute(
            (result, new_state, told), (updates, params), count, inner_state
        )
        for link in told:
            tell(link)
        return result, MonitorState(count, inner_state, summaries)

    return optax.GradientTransformationExtraArgs(init, update)


def _check_groups(names: list[str], numbers: Any) -> None:
    """The gradients have the groups of the state, as far as can be told.

    While JAX traces, an array has no more than a length.
    """
    if isinstance(numbers, jax.core.Tracer):
        expected = f"{numbers.shape[-1]} characters"
        is_same = numbers.shape[-1] == len(as_numbers(names))
    else:
        expected = ", ".join(as_names(numbers))
        is_same = names == as_names(numbers)
    if not is_same:
        raise ValueError(
            f"monitor's state has the groups {expected}, and the gradients have "
            f"{', '.join(names)}. They must have the structure of the parameters that "
            "`init` was given, and `groups` must always give the same names."
        )


def _check_within_reach(links: Sequence[Link], trace: Any) -> None:
    """There are rates, and the trace that made them is not another, now over."""
    parts = [link.part for link in links]
    rates = [part.rate for part in parts if isinstance(part, Product)]
    if not rates:
        raise ValueError(
            "monitor reads V_t where basic_form or precondition multiplies by it, and "
            "the optimizer that it was given has neither. Take optjax's optimizer of "
            "the same name, or build it by basic_form."
        )
    if any(trace_of(leaf) not in (None, trace) for leaf in jax.tree.leaves(rates)):
        raise ValueError(
            "monitor cannot see rates inside another JAX transformation, such as the "
            "`cond` of optax.MultiSteps and optax.apply_if_finite. Put the monitor "
            "inside: optax.MultiSteps(optjax.monitor(optimizer), k)."
        )


def _of_leaves(names: Sequence[str], rates: dict[str, Rate]) -> dict[str, Rate]:
    found = {name: rates[name] for name in names if name in rates}
    if rates and not found:
        raise ValueError(
            "monitor found rates of arrays that are no parameters, such as those that "
            "optax.flatten and optax.lookahead make of them. Put the monitor inside: "
            "optax.flatten(optjax.monitor(optimizer))."
        )
    return found


@jax.custom_jvp
def _with_derivative_of(before: Any, after: Any) -> Any:
    """`after`, which is equal to `before`, with the derivative of `before`.

    There is no reverse-mode derivative of a loop.
    """
    del before
    return after


@_with_derivative_of.defjvp
def _(primals: Any, tangents: Any) -> Any:
    return primals[1], tangents[0]


def _by_name(tree: Any) -> dict[str, jax.Array]:
    return dict(zip(leaf_names(tree), jax.tree.leaves(tree), strict=True))
