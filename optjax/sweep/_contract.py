"""What a trial must be, found by abstract evaluation before any work."""

import functools
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from optjax.sweep._errors import SweepError, blamed, in_own_code, one_line
from optjax.sweep._keywords import keywords, of_the_trial
from optjax.sweep._records import OWN_COLUMNS, Config, describe
from optjax.sweep._trial import (
    Bound,
    Factory,
    MakeTrial,
    Metrics,
    Trial,
    from_functions,
    init_shapes,
)

_REAL = (jnp.floating, jnp.integer, jnp.bool_)


def as_make_trial(trial: Any) -> MakeTrial:
    """`make_trial`, from what a sweep may be given for it.

    Raises:
      SweepError: where it is neither a function nor functions for `from_functions`.
    """
    if isinstance(trial, Trial):
        # A tuple of functions too, but its functions are handed no optimizer.
        raise SweepError(
            "trial must be a function make_trial(factory) -> Trial, got a Trial; pass "
            "the function that makes it, such as lambda factory: Trial(init, step, "
            "evaluate), whose init and step call factory(**hyper) for the optimizer"
        )
    if isinstance(trial, tuple) and len(trial) in (2, 3) and all(map(callable, trial)):
        try:
            return from_functions(*trial)
        except ValueError as error:
            raise SweepError(f"trial must be a tuple of functions: {error}") from None
    if callable(trial):
        make_trial: MakeTrial = trial
        return make_trial
    raise SweepError(
        "trial must be a function make_trial(factory) -> Trial or a tuple of functions "
        f"(init, step[, evaluate]), got a {type(trial).__name__}"
    )


def call_make_trial(make_trial: MakeTrial, factory: Factory, config: Config) -> Trial:
    """The trial of a configuration, and of all with the same static values.

    Numbers that are the trial's own are kept in its state beside what it keeps itself,
    and it is made of them where JAX traces.

    Args:
      make_trial: takes the static hyper-parameters and the numbers that it has keywords
        for.
      factory: the optimizer's, which takes the others.
      config: the configuration.

    Raises:
      SweepError: naming the trial, where it raises or returns something else.
    """
    is_own = of_the_trial(
        [*config.hyper, *config.static], keywords(make_trial, 1), keywords(factory)
    )
    static = {k: v for k, v in config.static.items() if k in is_own}
    others = {k: v for k, v in config.static.items() if k not in is_own}
    make = functools.partial(make_trial, functools.partial(factory, **others), **static)
    if not is_own & {*config.hyper}:
        return _called(make, config)

    def init(key: jax.Array, hyper: Mapping[str, jax.Array]) -> Bound:
        own = {k: v for k, v in hyper.items() if k in is_own}
        others = {k: v for k, v in hyper.items() if k not in is_own}
        return Bound(made(own).init(key, others), own)

    def step(bound: Bound) -> tuple[Bound, Metrics]:
        state, metrics = _pair(describe(config), made(bound.hyper).step(bound.state))
        return bound._replace(state=state), metrics

    def evaluate(bound: Bound) -> Metrics:
        return made(bound.hyper).evaluate(bound.state)

    def made(own: Mapping[str, jax.Array]) -> Trial:
        return _called(functools.partial(make, **own), config)

    return Trial(init, step, evaluate)


def _called(make: Callable[[], Trial], config: Config) -> Trial:
    try:
        trial = make()
    except Exception as error:
        raise SweepError(
            f"trial {describe(config)}: make_trial raised {one_line(error)}"
            f"{in_own_code(error)}"
        ) from error
    if not all(callable(getattr(trial, name, None)) for name in Trial._fields):
        raise SweepError(
            f"trial {describe(config)}: make_trial must return a Trial of the "
            f"functions {', '.join(Trial._fields)}, got a {type(trial).__name__}; a "
            "tuple (init, step[, evaluate]) stands for itself, without make_trial"
        )
    return trial


class Traced(NamedTuple):
    """What abstract evaluation tells of a trial.

    Attributes:
      metrics: their names, in order.
      state: the shapes and dtypes of what a lane holds.
      init: a program.
      step: a program.
      evaluate: a program.
      trial: the same programs as functions, which are not traced from Python again.
    """

    metrics: tuple[str, ...]
    state: Any
    init: ClosedJaxpr
    step: ClosedJaxpr
    evaluate: ClosedJaxpr
    trial: Trial


def trace(trial: Trial, config: Config, metric: str) -> Traced:
    """The programs and metrics of a trial, if it keeps the contract.

    Traces `init`, `step` and `evaluate` without computing anything.

    Raises:
      SweepError: naming the trial: where a function raises, `step` returns a state of
        another structure, shape or dtype, a metric is not a scalar number or stands
        in both mappings, or the sweep's metric is not among them.
    """
    who = describe(config)
    init, state = _abstractly(who, "init", trial.init, *init_shapes(config.hyper))
    step, returned = _abstractly(who, "step", trial.step, state)
    after, from_step = _pair(who, returned)
    _check_same_state(who, state, after)
    evaluate, from_evaluate = _abstractly(who, "evaluate", trial.evaluate, state)
    for source, metrics in (("step", from_step), ("evaluate", from_evaluate)):
        _check_metrics(who, source, metrics)
    both = set(from_step) & set(from_evaluate)
    if both:
        raise SweepError(
            f"trial {who}: step and evaluate must name their metrics differently, both "
            f"have {', '.join(sorted(both))}"
        )
    names = (*sorted(from_step), *sorted(from_evaluate))
    if metric not in names:
        raise SweepError(
            f"trial {who}: the sweep ranks by the metric {metric!r}, but the trial has "
            f"{', '.join(names) or 'no metrics'}; pass one of them as metric="
        )
    again = Trial(
        _function(init, state),
        _function(step, returned),
        _function(evaluate, from_evaluate),
    )
    return Traced(names, state, init, step, evaluate, again)


def _function(program: ClosedJaxpr, returned: Any) -> Callable[..., Any]:
    """A program as a function of the trees that it was traced with."""
    tree: Any = jax.tree.structure(returned)
    run = jaxpr_as_fun(program)
    return lambda *args: tree.unflatten(run(*jax.tree.leaves(args)))


def _abstractly(
    who: str, name: str, f: Callable[..., Any], *args: Any
) -> tuple[ClosedJaxpr, Any]:
    try:
        # What has made the trial says itself which it is.
        with blamed(f"trial {who}: {name}", but=jax.errors.ConcretizationTypeError):
            return jax.make_jaxpr(f, return_shape=True)(*args)
    except jax.errors.ConcretizationTypeError as error:
        raise SweepError(
            f"trial {who}: {name} asks for the value of a number that is traced"
            f"{in_own_code(error)}; {_instead(error)}"
        ) from error


def _instead(error: Exception) -> str:
    """What to write where a traced number is tested."""
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    if any("optax" in Path(file).parts and "schedule" in file for file in files):
        return (
            "Optax's schedules test some of theirs with `if`: write "
            "optjax.sweep.schedule(shape, peak, steps, warmup=, floor=), or give the "
            "space schedule=, warmup= and floor=, or static(...) values"
        )
    return (
        "write jnp.where for `if`, annotate the parameter int or bool, or give the "
        "space static(...) values, a program each"
    )


def _pair(who: str, returned: Any) -> tuple[Any, Any]:
    if not isinstance(returned, Sequence) or len(returned) != 2:
        raise SweepError(
            f"trial {who}: step must return (state, metrics), got "
            f"{type(returned).__name__}"
        )
    return returned[0], returned[1]


def _check_same_state(who: str, before: Any, after: Any) -> None:
    while isinstance(before, Bound) and isinstance(after, Bound):
        # The user's own state, so that its paths and containers are named.
        before, after = before.state, after.state
    old, new = _leaves(before), _leaves(after)
    for path in [*old, *(path for path in new if path not in old)]:
        was, is_ = old.get(path, "no leaf"), new.get(path, "no leaf")
        if was != is_:
            raise SweepError(
                f"trial {who}: step must return a state like init's, but at "
                f"{path or 'the root'} init has {was} and step {is_}"
            )
    was_tree: Any = jax.tree.structure(before)
    is_tree: Any = jax.tree.structure(after)
    if was_tree != is_tree:
        raise SweepError(
            f"trial {who}: step must return a state like init's, but the containers "
            f"differ: {was_tree} and {is_tree}"
        )


def _leaves(tree: Any) -> dict[str, str]:
    return {
        jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _check_metrics(who: str, source: str, metrics: Any) -> None:
    if not isinstance(metrics, Mapping):
        raise SweepError(
            f"trial {who}: {source} must return its metrics as a mapping of names to "
            f"scalars, got {type(metrics).__name__}"
        )
    for name, value in metrics.items():
        _check_metric_name(who, source, name)
        if not isinstance(value, jax.ShapeDtypeStruct):
            got = type(value).__name__
        elif value.shape or not _is_real(value.dtype):
            got = f"{value.dtype}{list(value.shape)}"
        else:
            continue
        raise SweepError(
            f"trial {who}: the metric {name!r} of {source} must be a real scalar, "
            f"got {got}"
        )


def _check_metric_name(who: str, source: str, name: Any) -> None:
    """It is the title of a column of curves.csv."""
    if not isinstance(name, str) or not name.isprintable() or not name.strip():
        wrong = "must be a printable text"
    elif set(name) & set(',"'):
        wrong = "must have no comma and no quote"
    elif name in OWN_COLUMNS:
        wrong = f"must not be that of a column of the tables: {', '.join(OWN_COLUMNS)}"
    else:
        return
    raise SweepError(
        f"trial {who}: the name of a metric {wrong}, got {name!r} from {source}; "
        "rename it"
    )


def _is_real(dtype: Any) -> bool:
    return any(jnp.issubdtype(dtype, kind) for kind in _REAL)
