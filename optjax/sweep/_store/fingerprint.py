"""What a traced program computes, as a digest that every process works out alike.

A program is a jaxpr: primitives, what they are told, and constants. None of these is
named here by where it lies in memory, by a file, a line or a hash of Python's; an array
is named by its content, and a function of the host's by its code and by what it holds.
"""

import dis
import enum
import functools
import hashlib
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from optjax.sweep._arrays import as_bytes

# A longer constant is data: it has a digest of its own, and the program says only that
# it reads it, so that "other data" can be told from another program.
_MOST_NUMBERS_OF_A_PROGRAM = 16
# What an array that is not contiguous is copied in.
_BLOCK_BYTES = 16 * 2**20
# Labels and places in the source, which nothing is computed from; and what a function
# that JAX has wrapped remembers of its last call.
_LABELS = frozenset(
    {"debug", "debug_info", "name", "name_and_src_info", "source_info", "stores"}
)
# A program that is only run has no use for the rules of its derivatives, and prints
# or watches beside what it computes.
_READ = {
    "custom_jvp_call": {"call_jaxpr"},
    "custom_vjp_call": {"call_jaxpr"},
    "debug_callback": set[str](),
    "debug_print": set[str](),
}
_VERSIONED = frozenset({"flax", "jax", "jaxlib", "numpy", "optax", "optjax"})
_DEEPEST = 64


class Fingerprint:
    """Digests of a sweep's programs, which may share constants."""

    def __init__(self) -> None:
        """No program yet."""
        self._data: dict[str, int] = {}
        self._digests: dict[Any, tuple[Any, str]] = {}
        self._words: dict[int, tuple[Any, str]] = {}
        self._values: dict[int, tuple[Any, str]] = {}
        self._open: list[int] = []
        self._reads_state = True

    def program(self, jaxpr: ClosedJaxpr) -> str:
        """The digest of a program; its long constants are in `data`."""
        return self._jaxpr(jaxpr)

    def shapes(self, tree: Any) -> str:
        """The digest of a tree's shapes and dtypes, in order."""
        return _digest(",".join(f"{x.dtype}{x.shape}" for x in jax.tree.leaves(tree)))

    def value(self, value: Any) -> str:
        """The digest of any other value: of an object its class's code and fields.

        As it was when it was first asked for: a search may write down in its own fields
        what it hears.
        """
        if id(value) not in self._values:
            self._values[id(value)] = value, _digest(self._value(value))
        return self._values[id(value)][1]

    @property
    def data(self) -> list[str]:
        """The digests of all long constants, in the order of the programs' reading."""
        return list(self._data)

    def _jaxpr(self, jaxpr: Any) -> str:
        # A jaxpr that is called from two places is read once. It is kept, so that no
        # other can have its id.
        if (known := self._words.get(id(jaxpr))) is not None:
            return known[1]
        words = _digest("\n".join(self._lines(jaxpr)))
        self._words[id(jaxpr)] = jaxpr, words
        return words

    def _lines(self, closed: Any) -> Iterator[str]:
        jaxpr, consts = getattr(closed, "jaxpr", closed), getattr(closed, "consts", ())
        names = {
            var: self._value(value)
            for var, value in zip(jaxpr.constvars, consts, strict=False)
        }

        def bind(variables: Sequence[Any]) -> str:
            for var in variables:
                names[var] = f"%{len(names)}"
            return ",".join(f"{names[var]}:{var.aval}" for var in variables)

        def read(atom: Any) -> str:
            if isinstance(atom, Literal):
                return f"{self._value(atom.val)}:{atom.aval}"
            return names[atom]

        open_constants = [var for var in jaxpr.constvars if var not in names]
        yield bind([*open_constants, *jaxpr.invars])
        for equation in jaxpr.eqns:
            inputs = ",".join(map(read, equation.invars))
            yield f"{bind(equation.outvars)}={self._operation(equation)}({inputs})"
        yield ",".join(map(read, jaxpr.outvars))

    def _operation(self, equation: Any) -> str:
        name, told = equation.primitive.name, equation.params
        told = {key: told[key] for key in _READ.get(name, told) if key in told}
        # Somebody who calls the host for its effects expects the host to change.
        was, self._reads_state = self._reads_state, name != "io_callback"
        try:
            words = self._items(told)
        finally:
            self._reads_state = was
        context = [
            getattr(equation.ctx, part, None)
            for part in ("compute_type", "threefry_partitionable", "xla_metadata")
        ]
        return f"{name}[{words}]{self._value(context)}"

    def _value(self, value: Any) -> str:
        """A value in words: equal words where and only where it computes the same."""
        if isinstance(value, enum.Enum):
            return f"{_name(type(value))}.{value.name}"
        if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
            return f"{type(value).__name__} {value!r}"
        if isinstance(value, (ClosedJaxpr, Jaxpr)):
            return self._jaxpr(value)
        if isinstance(value, (np.ndarray, np.generic, jax.Array)):
            return self._array(value)
        if isinstance(value, (np.dtype, jax.core.AbstractValue)):
            return f"{type(value).__name__} {value}"
        if isinstance(value, jax.Device):
            return f"device {value.platform} {value.id}"
        if isinstance(value, types.ModuleType):
            return f"module {value.__name__}"
        if id(value) in self._open or len(self._open) > _DEEPEST:
            return "again"
        self._open.append(id(value))
        try:
            return self._composed(value)
        finally:
            self._open.pop()

    def _composed(self, value: Any) -> str:
        kind = _name(type(value))
        if isinstance(value, jax.tree_util.PyTreeDef):
            return f"tree({self._each([value.node_data(), *value.children()])})"
        if isinstance(value, jax.sharding.Mesh):
            return f"{value} on {self._each(value.devices.flat)}"
        if isinstance(value, jax.sharding.AbstractMesh):
            return str(value)
        if isinstance(value, jax.sharding.Sharding):
            return f"{value} on {self._value(getattr(value, 'mesh', None))}"
        if isinstance(value, (list, dict, set)) and not self._reads_state:
            return kind
        if isinstance(value, (list, tuple)):
            return f"{kind}({self._each(value)})"
        if isinstance(value, (dict, types.MappingProxyType)):
            return f"{kind}({self._items(value)})"
        if isinstance(value, (set, frozenset)):
            return f"{kind}({','.join(sorted(map(self._value, value)))})"
        if isinstance(value, types.CodeType):
            parts = [value.co_code, value.co_names, value.co_consts]
            return f"code({self._each(parts)})"
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.MethodType):
            return f"method({self._each([value.__func__, value.__self__])})"
        if isinstance(value, functools.partial):
            held = (value.func, *value.args, value.keywords)
            return f"partial({self._each(held)})"
        if isinstance(value, type):
            return self._class(value)
        if hasattr(value, "__wrapped__"):
            # Of a function that was jitted or cached, the function.
            return f"wrapped({self._value(value.__wrapped__)})"
        if isinstance(value, types.BuiltinFunctionType) or hasattr(value, "__name__"):
            return f"{kind} {_name(value)}"
        return self._object(value)

    def _each(self, values: Any) -> str:
        return ",".join(map(self._value, values))

    def _items(self, mapping: Mapping[Any, Any]) -> str:
        words = (
            f"{self._value(key)}={self._value(value)}"
            for key, value in mapping.items()
            if key not in _LABELS
        )
        return ",".join(sorted(words))

    def _function(self, function: types.FunctionType) -> str:
        cells = [_cell(cell) for cell in function.__closure__ or ()]
        held = (function.__defaults__, function.__kwdefaults__, *cells)
        used = sorted(_globals_of(function.__code__) & set(function.__globals__))
        named = [f"{name}={self._used(function.__globals__[name])}" for name in used]
        code = self._value(function.__code__)
        return f"function({code},{self._each(held)};{','.join(named)})"

    def _used(self, value: Any) -> str:
        """A global in words: of what is installed, its name."""
        is_named = hasattr(value, "__qualname__") and value.__module__
        return (
            _name(value)
            if is_named and _is_installed(value.__module__)
            else (self._value(value))
        )

    def _class(self, cls: type) -> str:
        if _is_installed(cls.__module__):
            return _name(cls)
        own = {
            name: value
            for name, value in vars(cls).items()
            if isinstance(value, (types.FunctionType, bool, int, float, str))
            and name not in ("__module__", "__qualname__", "__firstlineno__", "__doc__")
        }
        bases = ",".join(map(self._class, cls.__bases__))
        return f"class {_name(cls)}({self._items(own)})({bases})"

    def _object(self, value: Any) -> str:
        cls = type(value)
        if not self._reads_state and not cls.__module__.startswith("jax."):
            return self._class(cls)
        state = {
            name: inside
            for name, inside in getattr(value, "__dict__", {}).items()
            # A cached property is there only once somebody has asked for it.
            if not hasattr(getattr(cls, name, None), "__get__")
        }
        for base in cls.__mro__:
            slots = vars(base).get("__slots__", ())
            for slot in (slots,) if isinstance(slots, str) else slots:
                if hasattr(value, slot) and slot not in ("__dict__", "__weakref__"):
                    state[slot] = getattr(value, slot)
        return f"{self._class(cls)}({self._items(state)})"

    def _array(self, value: Any) -> str:
        dtype, shape = value.dtype, tuple(value.shape)
        if jnp.issubdtype(dtype, jax.dtypes.extended):
            if not jnp.issubdtype(dtype, jax.dtypes.prng_key):
                return f"array {dtype}{shape}"
            return f"{dtype} of {self._array(jax.random.key_data(value))}"
        if isinstance(value, jax.Array) and not value.is_fully_addressable:
            # No process has it, and JAX refuses to compile it in.
            return f"array {dtype}{shape}"
        array = np.asarray(value)
        if array.dtype.hasobject:
            return f"array {shape}({self._each(array.ravel().tolist())})"
        if array.size <= _MOST_NUMBERS_OF_A_PROGRAM:
            return f"array {dtype}{shape} {array.tobytes().hex()}"
        digest = self._array_digest(array)
        number = self._data.setdefault(digest, len(self._data))
        return f"array {dtype}{shape} {number}"

    def _array_digest(self, array: np.ndarray) -> str:
        # The memory it is in, as every trace has an array of its own over it; kept,
        # so that nothing else comes to lie there.
        where = array.__array_interface__
        key = where["data"][0], where["strides"], array.dtype.str, array.shape
        if key not in self._digests:
            self._digests[key] = array, _array_digest(array)
        return self._digests[key][1]


def _digest(words: str) -> str:
    # Half of it tells any two programs apart.
    return hashlib.sha256(words.encode()).hexdigest()[:32]


def _array_digest(array: np.ndarray) -> str:
    hasher = hashlib.sha256(f"{array.dtype} {array.shape} ".encode())
    if array.flags.c_contiguous:
        hasher.update(as_bytes(array).data)
    else:
        rows = max(1, _BLOCK_BYTES * len(array) // array.nbytes)
        for start in range(0, len(array), rows):
            hasher.update(as_bytes(array[start : start + rows]).data)
    return hasher.hexdigest()[:32]


def _name(thing: Any) -> str:
    qualified = getattr(thing, "__qualname__", None) or thing.__name__
    return f"{getattr(thing, '__module__', None)}.{qualified}"


def _cell(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a function that is not defined yet
        return None


def _globals_of(code: types.CodeType) -> set[str]:
    names = {
        instruction.argval
        for instruction in dis.get_instructions(code)
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    }
    inner = (const for const in code.co_consts if isinstance(const, types.CodeType))
    return names.union(*map(_globals_of, inner))


@functools.cache
def _is_installed(module: str) -> bool:
    """Whether a module is no part of what the user writes and changes."""
    package = module.partition(".")[0]
    if package in _VERSIONED or package in sys.stdlib_module_names:
        return True
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    return "site-packages" in file or "dist-packages" in file
