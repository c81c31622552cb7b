"""`optjax audit`: which numbers of an optimizer move the first steps of a trial."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optjax._audit.audit import audit
from optjax._cli.experiment import DONE, NOT_DONE, load_task
from optjax._cli.options import AuditOptions
from optjax._cli.words import names_in, parse
from optjax._names import did_you_mean
from optjax.sweep import SweepError, Trial, configurations
from optjax.sweep._contract import call_make_trial
from optjax.sweep._errors import in_own_code, one_line
from optjax.sweep._records import describe
from optjax.sweep._rows import ROWS, YOUR_OWN
from optjax.tasks import Settings

_HELP = """\
Ask an optimizer which of its numbers move the first steps of a trial.

  It takes the steps, with a spy around the optimizer, and prints what is wrong,
  each with cause, evidence and remedy, and a table of elasticities: by how many
  per cent a step grows when a number grows by one. See docs/audit.md.

  The exit status is 1 where something is wrong.

Examples:
  optjax audit --optimizer adam --hyper learning_rate=0.001
  optjax audit --optimizer adabound --hyper learning_rate=0.001 gamma=10
  optjax audit --task mymodel:trial --optimizer mymodule:factory
      --hyper learning_rate=0.1 --steps 50
"""


class _Spied(NamedTuple):
    """An optimizer's state, and what its last update was given."""

    inner_state: Any
    gradients: Any
    params: Any


def run_audit(words: Sequence[str]) -> int:
    """Print the audit, and return the exit status.

    Raises:
      UsageError: where the words cannot be read.
      SweepError: where there is no such task or optimizer, or the trial fails.
    """
    options: AuditOptions = parse(AuditOptions, words, "optjax audit", _HELP)
    if options.steps < 1:
        raise SweepError(f"steps must be a whole number >= 1, got {options.steps}")
    settings = Settings(
        data=options.data,
        examples=options.examples,
        batch_size=options.batch_size,
        dtype=options.dtype,
    )
    task = load_task(options.task, settings)
    if options.optimizer not in ROWS:
        names = names_in(options.optimizer)
        if len(names) > 1:
            raise SweepError(
                f"--optimizer takes one name, such as --optimizer {names[0]}, got "
                f"{options.optimizer!r}; audit each by itself"
            )
        hint = did_you_mean(options.optimizer, ROWS, YOUR_OWN)
        raise SweepError(f"unknown optimizer {options.optimizer!r}{hint}")
    factory = ROWS[options.optimizer].factory
    recipe = (task.learning_rates or {}).get(options.optimizer, ())
    hyper: dict[str, float] = dict(zip(["learning_rate"], recipe, strict=False))
    hyper |= _read(options.hyper)
    if "learning_rate" not in hyper:
        raise SweepError("hyper must have a learning rate, such as learning_rate=0.001")
    space = {"optimizer": options.optimizer, **hyper}
    (config,) = configurations(space, trial=task.make_trial)
    trial = call_make_trial(task.make_trial, _spying(factory), config)
    try:
        seen = _steps(trial, config.hyper, options)
    except SweepError:
        raise
    except Exception as error:
        raise SweepError(
            f"trial {describe(config)}: {one_line(error)}{in_own_code(error)}"
        ) from error
    gradients = jax.tree.map(lambda *gs: jnp.stack(gs), *(s.gradients for s in seen))
    found = audit(factory, hyper, gradients, seen[0].params, steps=options.steps)
    print(found)
    return NOT_DONE if found.verdicts else DONE


def _steps(
    trial: Trial, hyper: Mapping[str, float], options: AuditOptions
) -> list["_Spied"]:
    """What the optimizer was given at each step."""
    key = jax.random.key(options.seed)
    step = jax.jit(trial.step)
    state = trial.init(key, {name: jnp.float32(x) for name, x in hyper.items()})
    seen: list[_Spied] = []
    for _ in range(options.steps):
        state, _ = step(state)
        seen.append(_find(state))
    return seen


def _read(words: Sequence[str]) -> dict[str, float]:
    hyper: dict[str, float] = {}
    for word in words:
        name, _, number = word.partition("=")
        try:
            hyper[name] = float(number)
        except ValueError:
            raise SweepError(
                f"hyper must be NAME=NUMBER with spaces between them, got {word!r}"
            ) from None
    return hyper


def _spying(
    factory: Callable[..., optax.GradientTransformation],
) -> Callable[..., optax.GradientTransformationExtraArgs]:
    """The same optimizers, whose states show what the last update was given."""

    def make(**hyper: Any) -> optax.GradientTransformationExtraArgs:
        inner = optax.with_extra_args_support(factory(**hyper))

        def init(params: Any) -> _Spied:
            none = jax.tree.map(jnp.zeros_like, params)
            return _Spied(inner.init(params), none, none)

        def update(
            updates: Any, state: _Spied, params: Any = None, **extra: Any
        ) -> Any:
            result, new = inner.update(updates, state.inner_state, params, **extra)
            given = state.params if params is None else params
            return result, _Spied(new, updates, given)

        return optax.GradientTransformationExtraArgs(init, update)

    return make


def _find(state: Any) -> _Spied:
    nodes = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, _Spied))
    found = [node for node in nodes if isinstance(node, _Spied)]
    if len(found) != 1:
        raise SweepError(
            "audit needs a trial with one optimizer's state in its own, found "
            f"{len(found)}"
        )
    return found[0]
