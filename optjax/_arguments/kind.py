"""A kind of argument: what it accepts, and the words that refuse the rest."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

ARRAYS = (jax.Array, np.ndarray, np.generic)


class Kind:
    """What an argument is: `words` follow "must be" in the message that refuses it."""

    def __init__(self, words: str, hint: str = ""):
        self.words, self.hint = words, hint

    def __repr__(self) -> str:
        return self.words

    def accepts(self, value: Any) -> bool:
        """Whether a value may be handed on."""
        raise NotImplementedError

    def taken(self, value: Any) -> Any:
        """What the function gets of a value that is accepted."""
        return value

    def advice(self, value: Any) -> str:
        """What to do about a value that is refused."""
        del value
        return self.hint

    def fault(self, value: Any) -> str:
        """What is wrong with a value, to follow the argument's name; "" if nothing."""
        if self.accepts(value):
            return ""
        advice = self.advice(value)
        end = f" {advice}." if advice else ""
        return f"must be {self.words}, got {shown(value)}.{end}"


def is_real_array(value: Any) -> bool:
    """Whether it is an array or scalar of NumPy's or JAX's, of real numbers."""
    return isinstance(value, ARRAYS) and is_real(value.dtype)


def is_real(dtype: Any) -> bool:
    """Whether a dtype is one of real numbers."""
    return bool(
        jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)
    )


def takes(
    function: Callable[..., Any], arguments: int, *, or_more: bool = False
) -> bool:
    """Whether it can be called with so many arguments; or more, given by keyword."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # A builtin does not say.
        return True
    bind = signature.bind_partial if or_more else signature.bind
    try:
        bind(*[None] * arguments)
    except TypeError:
        return False
    return True


def is_uncalled(value: Any) -> bool:
    """A class, or a function of these libraries that makes what is wanted.

    What it makes, a schedule or the functions of a transformation, is a local function.
    """
    if isinstance(value, type):
        return True
    module = str(getattr(value, "__module__", "")).partition(".")[0]
    # An object of theirs, such as a schedule, has no name.
    name = getattr(value, "__qualname__", "<an object>.")
    return module in ("optax", "optjax") and "." not in name


def uncalled(value: Any) -> str:
    """What to say of what has not been called; "" of all else."""
    if not callable(value) or not is_uncalled(value):
        return ""
    return f"It has not been called: {value.__name__}(...)"


_LONGEST = 60


def shown(value: Any) -> str:
    """A value as a message shows it, in one short line."""
    if isinstance(value, type):
        return value.__name__
    if inspect.isroutine(value) or isinstance(value, functools.partial):
        return f"the function {getattr(value, '__qualname__', 'functools.partial')}"
    if isinstance(value, jax.core.Tracer):
        return f"a traced {value.dtype}{list(value.shape)}"
    if isinstance(value, (np.ndarray, jax.Array)) and value.shape:
        return f"an array of shape {value.shape}"
    # Of the arrays in a container no more is formatted than the line has room for.
    with np.printoptions(threshold=8):
        if isinstance(value, (str, bytes, Mapping, list, tuple, set, frozenset)):
            text = repr(value)
        else:
            text = str(value)
    text = " ".join(text.split())
    if len(text) > _LONGEST or not text:
        text = f"{text[: _LONGEST - 1]}… (a {type(value).__name__})"
    return text
