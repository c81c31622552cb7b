"""Kinds of what is no number: flags, names, dtypes, trees, functions, instances."""

from collections.abc import Iterable, Set
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from optjax._arguments.kind import Kind, is_real, is_uncalled, shown, takes, uncalled


class _Flag(Kind):
    """True or False, by which a program is chosen."""

    def __init__(self) -> None:
        super().__init__("True or False")

    def accepts(self, value: Any) -> bool:
        return isinstance(value, (bool, np.bool_))

    def advice(self, value: Any) -> str:
        if isinstance(value, str):
            return "A text that is not empty would count as true"
        if isinstance(value, jax.core.Tracer):
            return "It chooses a program, which a traced value cannot"
        return ""


#: What `bool` means.
FLAG = _Flag()


class DType(Kind):
    """A dtype of those below `of`, by any of its names."""

    def __init__(self, words: str, of: Any, hint: str = ""):
        super().__init__(words, hint)
        self.of = of

    def accepts(self, value: Any) -> bool:
        if not isinstance(value, (str, type, np.dtype)):
            return False
        try:
            return bool(jnp.issubdtype(jnp.dtype(value), self.of))
        except TypeError:
            return False


class OneOf(Kind):
    """One of a few names."""

    def __init__(self, names: Iterable[str]):
        self.names = tuple(names)
        super().__init__(f"one of {', '.join(self.names)}")

    def accepts(self, value: Any) -> bool:
        return isinstance(value, str) and value in self.names


class InitAndUpdate(Kind):
    """What has `init` and `update`."""

    def __init__(self) -> None:
        super().__init__("a gradient transformation, with init and update")

    def accepts(self, value: Any) -> bool:
        functions = getattr(value, "init", None), getattr(value, "update", None)
        return not isinstance(value, type) and all(map(callable, functions))

    def advice(self, value: Any) -> str:
        return uncalled(value) or "Such as optjax.adam(1e-3)"


class MaskTree(Kind):
    """None, a tree of booleans, or a function of the parameters that returns one."""

    def __init__(self) -> None:
        super().__init__(
            "None, a tree of booleans, or a function of the parameters that returns one"
        )

    def accepts(self, value: Any) -> bool:
        if callable(value):
            return not is_uncalled(value) and takes(value, 1)
        leaves = jax.tree.leaves(value)
        return all(isinstance(leaf, (bool, np.bool_)) for leaf in leaves)


class Tree(Kind):
    """A tree whose leaves have shape and dtype."""

    def __init__(self, words: str, hint: str, *, may_be_none: bool):
        super().__init__(words, hint)
        self.may_be_none = may_be_none

    def accepts(self, value: Any) -> bool:
        if value is None and not self.may_be_none:
            return False
        return all(map(_is_arraylike, jax.tree.leaves(value)))

    def advice(self, value: Any) -> str:
        for path, leaf in jax.tree_util.tree_leaves_with_path(value):
            if path and not _is_arraylike(leaf):
                at = jax.tree_util.keystr(path)
                return f"At {at} it has {shown(leaf)}; {self.hint}"
        return self.hint[:1].upper() + self.hint[1:]


class Function(Kind):
    """What can be called, with so many arguments where that is said.

    With `has_keywords` somebody else gives what more it requires, by keyword.
    """

    def __init__(
        self,
        words: str,
        arguments: int | None = None,
        hint: str = "",
        *,
        may_be_class: bool = False,
        has_keywords: bool = False,
    ):
        super().__init__(words, hint)
        self.arguments, self.may_be_class = arguments, may_be_class
        self.has_keywords = has_keywords

    def accepts(self, value: Any) -> bool:
        if self.arguments is None or not callable(value):
            return callable(value)
        if isinstance(value, type) and not self.may_be_class:
            return False
        return takes(value, self.arguments, or_more=self.has_keywords)


class Instance(Kind):
    """What is of a class."""

    def __init__(self, of: type | tuple[type, ...], words: str, hint: str = ""):
        super().__init__(words, hint)
        self.of = of

    def accepts(self, value: Any) -> bool:
        return isinstance(value, self.of)


class Methods(Kind):
    """What has methods of these names."""

    def __init__(self, *names: str, hint: str = ""):
        super().__init__(f"an object with {' and '.join(names)}", hint)
        self.names = names

    def accepts(self, value: Any) -> bool:
        return all(callable(getattr(value, name, None)) for name in self.names)


class Vector(Kind):
    """One axis of real numbers, so many where that is said."""

    def __init__(self, words: str, size: int | None = None):
        super().__init__(words)
        self.size = size

    def accepts(self, value: Any) -> bool:
        if not isinstance(value, (np.ndarray, jax.Array)) or value.ndim != 1:
            return False
        return is_real(value.dtype) and self.size in (None, value.size)


class NameOrNames(Kind):
    """A name or some."""

    def __init__(self) -> None:
        super().__init__("a name or names")

    def accepts(self, value: Any) -> bool:
        if isinstance(value, str):
            return True
        is_collection = isinstance(value, (list, tuple, Set))
        return is_collection and all(isinstance(name, str) for name in value)


class OrNone(Kind):
    """None, or what is of another kind."""

    def __init__(self, kind: Kind):
        super().__init__(f"None or {kind.words}")
        self.kind = kind

    def accepts(self, value: Any) -> bool:
        return not self.fault(value)

    def fault(self, value: Any) -> str:
        fault = "" if value is None else self.kind.fault(value)
        return fault.replace("must be ", "must be None or ", 1)

    def taken(self, value: Any) -> Any:
        return None if value is None else self.kind.taken(value)


def _is_arraylike(leaf: Any) -> bool:
    if isinstance(getattr(leaf, "shape", None), tuple) and hasattr(leaf, "dtype"):
        # NumPy's may also hold texts and objects.
        is_numpy = isinstance(leaf, (np.ndarray, np.generic))
        return not is_numpy or any(
            jnp.issubdtype(leaf.dtype, kind) for kind in (jnp.number, jnp.bool_)
        )
    return isinstance(leaf, (bool, int, float, complex))
