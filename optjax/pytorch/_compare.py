"""Whether two optimizers take the same steps, and if not, which argument is why."""

import functools
import inspect
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optjax._arguments.kind import shown
from optjax._places import is_counter
from optjax.pytorch._classes import CLASSES
from optjax.pytorch._conventions import Call, Change, changes
from optjax.pytorch._optimizer import MACHINERY

#: Of the farthest that a coordinate gets from its start.
_EQUAL = 3e-7
#: How many times more steps two that seem equal are followed for; and at which share of
#: them the steps counted so far grow by how many, as far as schedules go.
_LONGER = 10
_JUMPS = {0.5: 10_000, 0.6: 100_000, 0.7: 1_000_000, 0.8: 10_000_000}
_MOST_CHANGES = 4


class Trajectory(NamedTuple):
    """A run that was logged: a gradient a step, and one set of parameters more.

    Attributes:
      gradients: a tree a step.
      parameters: a tree before each step, and one after the last.
    """

    gradients: Sequence[Any]
    parameters: Sequence[Any]


#: A transformation; a class or factory and its keywords; or a run that was logged.
Side: TypeAlias = (
    optax.GradientTransformation
    | tuple[Callable[..., Any], Mapping[str, Any]]
    | Trajectory
)


class Comparison(NamedTuple):
    """What `compare` found; its text says it.

    Attributes:
      equal: whether they are; None where that cannot be told.
      apart: how far they are, as a fraction of the farthest from the start.
      steps: over how many steps.
      reasons: what makes one like the other, the one that matters most first.
      left: how far apart they are with all reasons removed.
    """

    equal: bool | None
    apart: float
    steps: int
    reasons: tuple[Change, ...] = ()
    left: float = math.nan

    def __str__(self) -> str:
        if self.equal:
            return f"equal to {max(self.apart, _EQUAL):.0e} over {self.steps} steps"
        if self.equal is None:
            return (
                f"cannot tell: equal to {_EQUAL:.0e} over the {self.steps} steps that "
                "were logged, which show nothing of what comes after them"
            )
        parted = f"apart by {self.apart:.2g} over {self.steps} steps"
        if not self.reasons:
            return (
                f"{parted}; cannot tell why. Hand over a factory and its keywords, "
                "such as (optjax.adam, {'learning_rate': 1e-3}), to learn which "
                "argument differs"
            )
        lines = [f"{r.words}: pass `{r.remedy}`" for r in self.reasons]
        return "; ".join(
            [parted, *lines, f"then equal to {max(self.left, _EQUAL):.0e}"]
        )


def compare(optimizer_a: Side, optimizer_b: Side, steps: int = 200) -> Comparison:
    """Run both on gradients that separate conventions, and say why they part.

    The gradients are of many sizes, fade, and do not depend on the parameters. Where
    two are equal they are followed for ten times as many steps before that is said, in
    the last of which their counters of steps stand at 10⁴ to 10⁷.

    Args:
      optimizer_a: an Optax transformation; a pair of a factory, of optjax, Optax or
        torch.optim, and its keywords; or a `Trajectory`. A reason can be named where
        one of the two is such a pair.
      optimizer_b: the other.
      steps: how many.

    Raises:
      ValueError: for what is no optimizer, and for two trajectories.

    Example:
      >>> import optjax, optjax.pytorch
      >>> ours = optjax.adagrad, {"learning_rate": 0.1, "eps": 1e-3}
      >>> other = optjax.adagrad(0.1, eps=1e-3, eps_in_sqrt=False)
      >>> found = optjax.pytorch.compare(ours, other)
      >>> print(found.reasons[0].words)
      ε is inside the root in one and outside in the other
      >>> print(found.reasons[0].remedy)
      eps_in_sqrt=False
    """
    sides = [optimizer_a, optimizer_b]
    logged = [side for side in sides if isinstance(side, Trajectory)]
    if len(logged) == 2:
        raise ValueError(
            "one of the two must be an optimizer, got two trajectories. What their "
            "optimizers do with other gradients is not in them."
        )
    calls = [_call(side) for side in sides]
    made = [
        side if call is None or isinstance(side, Trajectory) else call
        for side, call in zip(sides, calls, strict=True)
    ]
    if logged:
        problem = _problem_of(logged[0])
        steps = len(logged[0].gradients)
    else:
        problem = _problem(steps)
    dtype = _dtype(made, problem[0])
    with jax.enable_x64(dtype == "float64"):
        runs = [
            m.make() if isinstance(m, Call) and not _is_torch(side) else side
            for side, m in zip(sides, made, strict=True)
        ]
    follow = functools.partial(_follow, problem=problem, dtype=dtype, piece=steps)
    paths = [follow(side) for side in runs]
    apart = _apart(*paths)
    if apart <= _EQUAL:
        if logged:
            return Comparison(None, apart, steps)
        # What parts them late is looked for where it shows.
        steps = _LONGER * steps
        jumps = {int(share * steps): jump for share, jump in _JUMPS.items()}
        problem = _problem(steps)
        follow = functools.partial(follow, problem=problem, jumps=jumps)
        paths = [follow(side) for side in runs]
        apart = _apart(*paths)
        if apart <= _EQUAL:
            return Comparison(True, apart, steps)
    limit = _EQUAL if dtype == "float64" else 1e-5
    for number, call in enumerate(calls):
        if call is not None:
            found = _explain(call, calls[1 - number], paths[1 - number], follow, limit)
            if found is not None:
                reasons, left = found
                return Comparison(False, apart, steps, reasons, left)
    if not logged:
        whole = jax.tree.map(_joined, problem, is_leaf=lambda x: isinstance(x, dict))
        left = _apart(*(follow(side, problem=whole) for side in runs))
        if left <= limit:
            return Comparison(False, apart, steps, (_BY_ARRAY,), left)
    return Comparison(False, apart, steps)


_BY_ARRAY = Change(
    "one works something out for each array by itself, the other for all together",
    "the parameters in one array, as optax.flatten does",
    None,
)


def _explain(
    call: Call,
    other: Call | None,
    target: np.ndarray,
    follow: Callable[[Any], np.ndarray],
    limit: float,
) -> tuple[tuple[Change, ...], float] | None:
    """Changes of the call after which it follows the target, and how closely."""

    def apart(call: Call | None) -> float:
        try:
            return _apart(follow(call), target)
        except (TypeError, ValueError):
            return math.inf  # Not a call that can be made.

    chosen: list[Change] = []
    now, best = call, math.inf
    while best > limit and len(chosen) < _MOST_CHANGES:
        tried: list[tuple[float, Change]] = []
        for change in changes(now, other):
            tried.append((apart(change.after), change))
            if tried[-1][0] <= limit:
                break
        if not tried:
            return None
        nearest, change = min(tried, key=lambda pair: pair[0])
        if not nearest < best:
            return None
        assert change.after is not None
        best, now = nearest, change.after
        chosen.append(change)
    if best > limit:
        return None
    return tuple(chosen), best


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    far = np.maximum(np.max(np.abs(a), axis=0), np.max(np.abs(b), axis=0))
    with np.errstate(invalid="ignore"):
        share = np.max(np.abs(a - b), axis=0) / np.where(far == 0, 1.0, far)
    return float(np.max(np.where(np.isnan(share), np.inf, share)))


def _problem(steps: int) -> tuple[Any, Any]:
    """A start of two arrays, and gradients for each, all steps in one array."""
    t = np.arange(1, steps + 1)[:, None]
    size = np.array([1e-7, 1e-4, 1e-2, 1.0, 1.0, 30.0, 1.0, 1e-3])
    offset = np.array([0.1, 0.2, -0.1, 0.3, 0.0, 0.5, -0.3, 0.1])
    frequency = np.array([0.7, 1.3, 2.1, 0.3, 2.9, 0.9, 0.05, 1.7])
    # It fades and comes back, so that maxima, bounds and old squares are felt.
    fading = np.exp(-(t % 400) / 50)
    gradients = (offset + np.sin(frequency * t)) * fading * size
    start = np.array([1.0, -1.0, 0.5, -2.0, 0.1, 3.0, -0.2, 0.7])
    return _halves(start), _halves(gradients)


def _halves(x: np.ndarray) -> dict[str, np.ndarray]:
    return {"first": x[..., :4], "second": x[..., 4:]}


def _joined(x: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"all": np.concatenate(list(x.values()), axis=-1)}


def _problem_of(logged: Trajectory) -> tuple[Any, Any]:
    numbers = len(logged.gradients), len(logged.parameters)
    if not numbers[0] or numbers[1] != numbers[0] + 1:
        raise ValueError(
            "a trajectory must have a gradient a step and one set of parameters more, "
            f"got {numbers[0]} and {numbers[1]}."
        )
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *logged.gradients)
    return logged.parameters[0], stacked


def _follow(
    side: Any,
    problem: tuple[Any, Any],
    dtype: str,
    piece: int,
    jumps: Mapping[int, int] = MappingProxyType({}),
) -> np.ndarray:
    """How far every coordinate is from its start after every step.

    Before the step of each jump the counters of steps grow by it. So many steps as are
    in a piece are one program's, called as often as it takes.
    """
    start, gradients = problem
    if isinstance(side, Trajectory):
        path = jax.tree.map(lambda *leaves: np.stack(leaves), *side.parameters[1:])
        return _rows(jax.tree.map(lambda x, y: np.subtract(y, x), start, path))
    if _is_torch(side):
        return _follow_torch(side, start, gradients, jumps)
    with jax.enable_x64(dtype == "float64"):
        tx = side.make() if isinstance(side, Call) else side
        x = jax.tree.map(lambda x: jnp.asarray(x, dtype), start)
        gradients = jax.tree.map(lambda g: np.asarray(g, dtype), gradients)
        later = np.zeros(len(jax.tree.leaves(gradients)[0]), np.int32)
        for number, jump in jumps.items():
            later[number] = jump

        def part(number: int) -> Any:
            rows = slice(number * piece, (number + 1) * piece)
            return jax.tree.map(lambda g: g[rows], (gradients, later))

        run, carry, moves = _compiled(tx.update), (x, tx.init(x)), []
        for number in range(len(later) // piece):
            carry, moved = run(carry, part(number))
            moves.append(_rows(moved))
    return np.cumsum(np.concatenate(moves), axis=0)


# What seems equal is followed for longer by the same program.
@functools.lru_cache(maxsize=16)
def _compiled(update: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    """A number of steps of an optimizer, from parameters and a state."""

    def step(carry: Any, now: Any) -> Any:
        (x, state), (gradient, jump) = carry, now
        state = jax.tree_util.tree_map_with_path(
            lambda path, n: n + jump if is_counter(path, n) else n, state
        )
        updates, state = update(gradient, state, x)
        return (optax.apply_updates(x, updates), state), updates

    # To be compiled once and run once.
    cheap = {"xla_backend_optimization_level": 0}
    return jax.jit(
        lambda carry, now: jax.lax.scan(step, carry, now), compiler_options=cheap
    )


def _rows(tree: Any) -> np.ndarray:
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]
    return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)


def _is_torch(side: Any) -> bool:
    return isinstance(side, tuple) and hasattr(side[0], "add_param_group")


def _follow_torch(
    side: Any, start: Any, gradients: Any, jumps: Mapping[int, int]
) -> np.ndarray:
    import torch  # It is there: the user has handed over a class of it.

    factory, keywords = side
    before = torch.get_default_dtype()
    # NAdam keeps the product of its momenta in the default dtype.
    torch.set_default_dtype(torch.float64)
    try:
        leaves = [np.array(x, np.float64) for x in jax.tree.leaves(start)]
        params = [torch.nn.Parameter(torch.from_numpy(x.copy())) for x in leaves]
        columns = [np.asarray(g, np.float64) for g in jax.tree.leaves(gradients)]
        optimizer = factory(params, **keywords)
        path = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for number, row in enumerate(zip(*columns, strict=True)):
                for entry in optimizer.state.values():
                    if "step" in entry:
                        entry["step"] += jumps.get(number, 0)
                for param, gradient in zip(params, row, strict=True):
                    param.grad = torch.from_numpy(np.array(gradient))
                optimizer.step()
                moved = zip(params, leaves, strict=True)
                now = [p.detach().numpy() - x for p, x in moved]
                path.append(np.concatenate([x.ravel() for x in now]))
        return np.stack(path)
    finally:
        torch.set_default_dtype(before)


def _call(side: Any) -> Call | None:
    """The factory of ours that makes a side, with every argument by name."""
    if isinstance(side, functools.partial):
        side = (
            side.func,
            inspect.signature(side.func)
            .bind_partial(*side.args, **side.keywords)
            .arguments,
        )
    if isinstance(side, Trajectory) or hasattr(side, "update"):
        return None
    if not (isinstance(side, tuple) and len(side) == 2 and callable(side[0])):
        raise ValueError(
            "an optimizer must be a transformation, a factory and its keywords or a "
            f"Trajectory, got {shown(side)}."
        )
    factory, keywords = side
    if _is_torch(side):
        name = factory.__name__
        if name not in CLASSES:
            return None
        factory = CLASSES[name]
        keywords = {k: v for k, v in keywords.items() if k not in MACHINERY}
    arguments = inspect.signature(factory).bind(**keywords)
    arguments.apply_defaults()
    named = dict(arguments.arguments)
    named.update(named.pop("machinery", {}))
    return Call(factory, named)


def _dtype(sides: Sequence[Any], start: Any) -> str:
    """float64, unless a state is in half precision, whose roundings it would shift."""
    for side in sides:
        if isinstance(side, Trajectory) or _is_torch(side):
            continue
        with jax.enable_x64(True):
            tx = side.make() if isinstance(side, Call) else side
            state = jax.eval_shape(tx.init, jax.tree.map(jnp.asarray, start))
        if any(x.dtype.itemsize == 2 for x in jax.tree.leaves(state)):
            return "float32"
    return "float64"
