"""Every public function × every argument × what it may be handed by mistake.

Functions and arguments are those of the live API, and what an argument is stands in
its annotation, so a new one is tested without a line here. What is listed here is what
each kind of argument takes; everything else of `VALUES` it must refuse, in words.
"""

import functools
import importlib
import inspect
import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiling import jit
from flax import linen
from jax.sharding import PartitionSpec
from matplotlib.figure import Figure

import optjax
import optjax.pytorch
from optjax import sweep
from optjax._arguments.checked import kinds_of

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

MODULES = [
    "optjax",
    "optjax.monitoring",
    "optjax.problems",
    "optjax.sweep",
]


def public_functions():
    for name in MODULES:
        module = importlib.import_module(name)
        for item in module.__all__:
            value = getattr(module, item)
            if inspect.isfunction(value):
                yield f"{name}.{item}", value


FUNCTIONS = dict(public_functions())

X = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
TX = optjax.monitor(optjax.sgd(0.1))
STATE = jit(lambda: TX.update(X, TX.init(X), X)[1])()
SPEC = sweep.TrialSpec(0, sweep.Config("sgd", {"learning_rate": 0.1}, {}), seed=0)
REPORT = optjax.read_report(STATE)


def schedule(count):
    return 0.1


class Writer:
    def add_scalar(self, *_):
        pass

    def add_histogram_raw(self, *_, **__):
        pass


VALUES = {
    "None": None,
    "True": True,
    "np.True_": np.True_,
    "jnp.True": jnp.array(True),
    "text": "0.5",
    "no text": "",
    "bytes": b"0.5",
    "name": "max",
    "names": ["w", "b"],
    "set": {"max"},
    "list": [0.5],
    "tuple": (0.5,),
    "no list": [],
    "dict": {"w": 0.5},
    "complex": 0.5j,
    "real complex": 0.5 + 0j,
    "np.complex64": np.complex64(0.5),
    "jnp.complex64": jnp.array(0.5 + 0.5j),
    "nan": float("nan"),
    "inf": float("inf"),
    "-inf": -float("inf"),
    "np.nan": np.float32("nan"),
    "jnp.inf": jnp.array(np.inf),
    "-1": -1,
    "-0.5": -0.5,
    "jnp.-0.5": jnp.array(-0.5),
    "0": 0,
    "0.0": 0.0,
    "0.25": 0.25,
    "0.5": 0.5,
    "np.float16": np.float16(0.5),
    "np.float32": np.float32(0.5),
    "np.float64": np.float64(0.5),
    "np.array": np.array(0.5),
    "jnp.bfloat16": jnp.bfloat16(0.5),
    "jnp.float32": jnp.float32(0.5),
    "jnp.array": jnp.array(0.5),
    "1": 1,
    "1.0": 1.0,
    "np.int64": np.int64(1),
    "jnp.int32": jnp.array(1),
    "1.5": 1.5,
    "4.5": 4.5,
    "7": 7,
    "1e-300": 1e-300,
    "1e300": 1e300,
    "-1e300": -1e300,
    "2**31": 2**31,
    "2**32": 2**32,
    "2**63": 2**63,
    "10**400": 10**400,
    "shape (1,)": jnp.array([0.5]),
    "shape (2,)": np.array([0.5, 0.5]),
    "shape (3,)": jnp.array([0.5, 0.5, 0.5]),
    "shape (3, 1)": jnp.full((3, 1), 0.5),
    "no size": jnp.zeros((0,)),
    "array of texts": np.array("0.5"),
    "array of objects": np.array(None),
    "random key": jax.random.key(0),
    "shape struct": jax.ShapeDtypeStruct((3,), jnp.float32),
    "object": object(),
    "module": np,
    "NotImplemented": NotImplemented,
    "class": type("Own", (), {}),
    "int": int,
    "bool": bool,
    "float": float,
    "jnp.int32 class": jnp.int32,
    "jnp.float32 class": jnp.float32,
    "jnp.float16 class": jnp.float16,
    "jnp.bfloat16 class": jnp.bfloat16,
    "jnp.complex64 class": jnp.complex64,
    "np.dtype": np.dtype("float32"),
    "'bfloat16'": "bfloat16",
    "'int32'": "int32",
    "schedule": schedule,
    "optax schedule": optax.cosine_decay_schedule(0.1, 10),
    "partial": functools.partial(schedule),
    "no argument": lambda: 0.1,
    "two arguments": lambda a, b: 0.1,
    "uncalled schedule": optax.cosine_decay_schedule,
    "uncalled constant": optax.constant_schedule,
    "uncalled optimizer": optjax.adam,
    "uncalled Optax optimizer": optax.adam,
    "optimizer": optjax.adam(0.1),
    "Optax optimizer": optax.sgd(0.1),
    "class of optimizers": optax.GradientTransformation,
    "row": optjax.OPTIMIZERS["adam"],
    "bounds": optjax.constant_bounds(0.1, 0.2),
    "arrays": X,
    "mask": {"w": True, "b": False},
    "mask of texts": {"w": "yes", "b": "no"},
    "text among arrays": {"w": jnp.ones(3), "b": "3"},
    "None among arrays": {"w": jnp.ones(3), "b": None},
    "optimizer among arrays": {"w": jnp.ones(3), "b": optjax.adam},
    "state": STATE,
    "report": REPORT,
    "reports": [REPORT, REPORT],
    "report and state": [REPORT, STATE],
    "axes": Figure().subplots(),
    "figure": Figure(),
    "writer": Writer(),
}

NUMBERS = ["np.float16", "np.float32", "np.float64", "np.array"]
NUMBERS += ["jnp.bfloat16", "jnp.float32", "jnp.array", "0.25", "0.5"]
ZERO = ["0", "0.0"]
ONE = ["1", "1.0", "np.int64", "jnp.int32"]
MORE = ["1.5", "4.5", "7"]
# Of float32; positive numbers below it are 0, and count as such.
LARGE = ["2**31", "2**32", "2**63"]
TINY = ["1e-300"]
NON_NEGATIVE = [*NUMBERS, *ZERO, *ONE, *MORE, *LARGE, *TINY]
FINITE = [*NON_NEGATIVE, "-1", "-0.5", "jnp.-0.5"]
OF_ONE = ["schedule", "optax schedule", "partial"]
FUNCTION = ["no argument", "two arguments", *OF_ONE]
CLASSES_OF_ONE = ["int", "bool", "float"]
CLASSES_OF_ONE += [f"jnp.{name} class" for name in ("int32", "float16", "float32")]
CLASSES_OF_ONE += ["jnp.bfloat16 class", "jnp.complex64 class"]
CLASSES = ["class", "class of optimizers", *CLASSES_OF_ONE]
UNCALLED = ["uncalled schedule", "uncalled constant"]
UNCALLED += ["uncalled optimizer", "uncalled Optax optimizer"]
OPTIMIZER = ["optimizer", "Optax optimizer"]
REAL_DTYPES = ["float", "jnp.float16 class", "jnp.float32 class"]
REAL_DTYPES += ["jnp.bfloat16 class", "np.dtype", "'bfloat16'"]
TEXTS = ["text", "no text", "name", "'bfloat16'", "'int32'"]
EMPTY = ["no list"]
TREES = [
    *FINITE,
    *["True", "np.True_", "jnp.True", "nan", "inf", "-inf", "np.nan", "jnp.inf"],
    *["complex", "real complex", "np.complex64", "jnp.complex64", "1e300", "-1e300"],
    *["10**400", "shape (1,)", "shape (2,)", "shape (3,)", "shape (3, 1)", "no size"],
    *["random key", "shape struct", "list", "tuple", "no list", "dict", "arrays"],
    *["mask", "None among arrays", "state", "bounds"],
]
MAPPINGS = ["dict", "arrays", "mask", "mask of texts", "text among arrays"]
MAPPINGS += ["None among arrays", "optimizer among arrays", "report"]
OF_TWO = ["two arguments", *(name for name in UNCALLED if "constant" not in name)]
SIZES = ["1", "np.int64", "jnp.int32", "7"]

#: By the words of the kind: what it takes of `VALUES`, and one such value.
TAKES = {
    "in [0, 1)": ([*NUMBERS, *ZERO, *TINY], 0.5),
    "in [0, 1]": ([*NUMBERS, *ZERO, *ONE, *TINY], 0.5),
    "in (0, 1]": ([*NUMBERS, *ONE, *TINY], 0.5),
    "in [0, 0.5]": ([*NUMBERS, *ZERO, *TINY], 0.5),
    "a number > 0": (
        [*NUMBERS, *ONE, *MORE, *LARGE, *TINY, "1e300", "10**400", "inf", "jnp.inf"],
        0.5,
    ),
    "a rate, positive and finite, or a target that measures one": (
        [*NUMBERS, *ONE, *MORE, *LARGE],
        0.5,
    ),
    "in [4, inf]": (["4.5", "7", *LARGE, "1e300", "inf", "10**400", "jnp.inf"], 5.0),
    "finite": (FINITE, 0.5),
    "finite and >= 0": (NON_NEGATIVE, 0.5),
    "finite and >= 1": ([*ONE, *MORE, *LARGE], 1.5),
    "finite and > 1": ([*MORE, *LARGE], 1.5),
    "positive and finite": ([*NUMBERS, *ONE, *MORE, *LARGE], 0.5),
    "a schedule or finite and >= 0": ([*NON_NEGATIVE, *OF_ONE], 0.1),
    "a function of the step or finite and >= 0": ([*NON_NEGATIVE, *OF_ONE], 0.1),
    "a function of the step or a number >= 0": (
        [*NON_NEGATIVE, "1e300", "10**400", "inf", "jnp.inf", *OF_ONE],
        0.1,
    ),
    "True or False": (["True", "np.True_"], False),
    "an integer >= 0": (["0", *SIZES], 2),
    "an integer >= 1": (SIZES, 2),
    "a function from a leaf's path to its group or an integer >= 0": (
        ["0", *SIZES, *OF_ONE],
        1,
    ),
    "the integer 8": ([], 8),
    "an integer from 0 to 4294967295": (["0", *SIZES, "2**31"], 0),
    "one of max, mean, none": (["name"], "max"),
    "bfloat16": (["jnp.bfloat16 class", "'bfloat16'"], jnp.bfloat16),
    "a real floating-point dtype": (REAL_DTYPES, jnp.float32),
    "a floating-point or complex dtype": (
        [*REAL_DTYPES, "jnp.complex64 class"],
        jnp.float32,
    ),
    "a gradient transformation, with init and update": (OPTIMIZER, optjax.adam(0.1)),
    "a function that makes an optimizer": (
        [*FUNCTION, *CLASSES, *UNCALLED],
        optjax.adam,
    ),
    "a function of arrays": ([*FUNCTION, *CLASSES, *UNCALLED], jnp.sum),
    "a function of x": ([*OF_ONE, *UNCALLED[1:]], jnp.sum),
    "None, a tree of booleans, or a function of the parameters that returns one": (
        ["None", "True", "np.True_", "mask", *EMPTY, *OF_ONE],
        None,
    ),
    "a tree of arrays": (["None", *TREES], X),
    "an optimizer's state, a tree of arrays": (TREES, STATE),
    "a report": (["report"], REPORT),
    "a report or a sequence of reports": (["report", "reports", "no list"], REPORT),
    "a sequence of functions of a Record": (["no list"], []),
    "a sequence of mappings": (["reports", "no list"], [{}]),
    "a tree of NamedShardings or of PartitionSpecs": (["no list"], PartitionSpec()),
    "a vector of real numbers": (
        ["shape (1,)", "shape (2,)", "shape (3,)", "no size"],
        jnp.ones(2),
    ),
    "a vector of two real numbers": (["shape (2,)"], jnp.ones(2)),
    "a real number or an array of them": (
        [
            *FINITE,
            *["1e300", "-1e300", "10**400", "nan", "inf", "-inf", "np.nan", "jnp.inf"],
            *["shape (1,)", "shape (2,)", "shape (3,)", "shape (3, 1)", "no size"],
        ],
        0.5,
    ),
    "a text": (TEXTS, "overall"),
    "a name or names": ([*TEXTS, "names", "set", *EMPTY], ()),
    "a mapping of names to values, a configuration, or a list of these": (
        [*MAPPINGS, "reports"],
        {},
    ),
    "a mapping of names to factories": (MAPPINGS, {}),
    "a mapping of XLA's options": (MAPPINGS, {}),
    "a mapping of names to texts": (["mask of texts"], {}),
    "one of sobol, random": ([], "random"),
    "one of max, min": (["name"], "max"),
    "one of constant, linear, cosine": ([], "linear"),
    "one of local, ray": ([], "local"),
    "one of auto, vmap, map, chunked": ([*OF_ONE, *UNCALLED[1:]], "map"),
    "a number of seeds >= 1, or distinct integers from 0 to 2**31 - 1": (SIZES, 1),
    "the path of a directory": ([t for t in TEXTS if t != "no text"], "out"),
    "an integer from 1 to 9223372036854775807": ([*SIZES, "2**31", "2**32"], 1),
    "an object with decides_at and rung": ([], sweep.Median(1)),
    "an object with begin": ([], sweep.Optuna()),
    "one of best, all": (SIZES, 1),
    "a number >= 0": ([*NON_NEGATIVE, "1e300", "10**400", "inf", "jnp.inf"], 1.0),
    "a function of a Status, or True or False": (["True", "np.True_", *OF_ONE], True),
    "a TrialSpec": ([], SPEC),
    "a tuple of arrays with equally many examples": ([], (jnp.ones((4, 2)),)),
    "a trial": ([*FUNCTION, *CLASSES, *UNCALLED], schedule),
    **{
        f"a function {words}": (OF_TWO, lambda a, b: None)
        for words in (
            "(name, records)",
            "(key, optimizer) -> state",
            "(state, optimizer) -> (state, metrics)",
            "(outputs, batch) -> scalar",
            "(key, step) -> (inputs, ...) or Batches",
            "(key, batch) -> batch",
        )
    },
    **{
        f"a function {words}": (["two arguments", *OF_ONE, *UNCALLED], schedule)
        for words in (
            "(state) -> metrics",
            "(predict) -> metrics",
        )
    },
    "a class or function (rngs) -> model": (
        ["two arguments", "class of optimizers", *OF_ONE, *UNCALLED, *CLASSES_OF_ONE],
        schedule,
    ),
    "an object with init and apply, or a class or function that makes one": (
        [*FUNCTION, *CLASSES, *UNCALLED],
        linen.Dense(1),
    ),
    "matplotlib axes": (["axes"], None),
    "an object with add_scalar and add_histogram_raw": (["writer"], Writer()),
}


def taken(kind):
    """What a kind takes, and one such value."""
    words = kind.words.removeprefix("None or ")
    if words == kind.words or kind.words in TAKES:
        return TAKES[kind.words]
    return ["None", *TAKES[words][0]], None


ARGUMENTS = [
    (name, argument)
    for name, function in FUNCTIONS.items()
    for argument in kinds_of(function)
]
#: What `configurations` judges, which knows the key and the factory, or what is handed
#: on as it is.
FREE = {
    "apply_step": ["extra"],
    "explain_step": ["extra"],
    "grid": ["values"],
    "choice": ["values"],
    "static": ["values"],
    "uniform": ["low", "high"],
    "log_uniform": ["low", "high"],
    "only": ["distribution", "optimizers"],
    "per_optimizer": ["by_name"],
    "parse_dimension": ["value"],
    "to_wandb": ["settings"],
    # Two calls of one name: what an argument is, the first one says.
    "audit": ["optimizer", "first", "second", "params", "state", "extra"],
}
#: What the required of those get.
GOOD = {"optimizer": TX, "first": X, "second": STATE, "params": X}


@functools.cache
def signature(name):
    """Its parameters and their kinds, which all its cases ask for."""
    function = FUNCTIONS[name]
    return inspect.signature(function).parameters, kinds_of(function)


def kind_of(name, argument):
    return signature(name)[1][argument]


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
def test_every_argument_says_what_it_is(name, argument):
    kind = kind_of(name, argument)
    free = FREE.get(name.rpartition(".")[2], [])
    assert (kind is None) == (argument in free)
    assert kind is None or taken(kind)


KINDED = [(n, a) for n, a in ARGUMENTS if kind_of(n, a) is not None]


def call(name, **given):
    parameters, kinds = signature(name)
    good = {
        p.name: GOOD[p.name] if kind is None else taken(kind)[1]
        for p in parameters.values()
        for kind in [kinds[p.name]]
        if p.default is p.empty and p.kind is not p.VAR_KEYWORD
    }
    by_name = {**good, **given}
    only = [n for n, p in parameters.items() if p.kind is p.POSITIONAL_ONLY]
    return FUNCTIONS[name](*[by_name.pop(n) for n in only], **by_name)


@pytest.mark.parametrize(("name", "argument"), KINDED)
def test_what_is_wrong_is_refused_in_words(name, argument):
    """The message names the argument, says what it must be and what it got."""
    values, _ = taken(kind_of(name, argument))
    for label in [label for label in VALUES if label not in values]:
        value = VALUES[label]
        with pytest.raises(ValueError, match=rf"^{argument} must .*got .+") as caught:
            call(name, **{argument: value})
        message = str(caught.value)
        assert "\n" not in message, label
        assert len(message) < 500, label
        if isinstance(value, (bool, int, float)) and label != "10**400":
            got = f"{re.escape(str(value))}|a {type(value).__name__}"
            assert re.search(rf"got ({got})(\.|$)", message), message


@pytest.mark.parametrize(("name", "argument"), KINDED)
def test_what_is_right_is_taken(name, argument):
    kind = kind_of(name, argument)
    for label in taken(kind)[0]:
        assert kind.fault(VALUES[label]) == "", label


FACTORIES = [
    (name, argument)
    for name, argument in KINDED
    if FUNCTIONS[name] in [row.factory for row in optjax.OPTIMIZERS.values()]
]


@pytest.mark.parametrize(("name", "argument"), FACTORIES)
def test_numbers_of_any_library_are_numbers(name, argument):
    """A scalar of NumPy or JAX makes the optimizer that Python's number makes."""
    values, _ = taken(kind_of(name, argument))
    for label in [label for label in NUMBERS if label in values]:
        call(name, **{argument: VALUES[label]})


def test_a_traced_value_has_a_shape_and_a_dtype():
    """That is all that is known of it, and enough to refuse these."""
    for bad in (jnp.ones(3), jnp.array(0.5j), jnp.array(True), jax.random.key(0)):
        with pytest.raises(ValueError, match=r"b1 must be in .*got a traced"):
            jax.eval_shape(lambda b1: optjax.adam(0.1, b1=b1).init(X), bad)
    jax.eval_shape(lambda b1: optjax.adam(0.1, b1=b1).init(X), jnp.array(7.0))


def test_double_precision_has_numbers_that_single_has_not():
    with jax.enable_x64(True):
        optjax.adam(1e300, eps=1e-300)
        optjax.adabound(0.1, final_lr=1e-300)
    with pytest.raises(ValueError, match=r"got 1e-300\. In float32 it is 0\."):
        optjax.adabound(0.1, final_lr=1e-300)
    with pytest.raises(ValueError, match=r"got 1e\+300\. In float32 it is infinite\."):
        optjax.adam(1e300)


def test_what_was_not_called_is_told_so():
    with pytest.raises(ValueError, match=r"not been called: adam\(\.\.\.\)"):
        optjax.monitor(optjax.adam)
    with pytest.raises(ValueError, match=r"not been called: cosine_decay_schedule\("):
        optjax.adam(optax.cosine_decay_schedule)


def test_several_values_at_a_time_are_a_matter_of_vmap():
    with pytest.raises(ValueError, match=r"got an array of shape \(2,\).*jax\.vmap"):
        optjax.adam(jnp.array([0.1, 0.2]))


def injected(**numbers):
    tx = optjax.inject_hyperparams(optjax.adabound)(0.1, **numbers)
    return tx.init(X), tx


BAD_SETTINGS = [
    ({"final_lr": 1e300}, "final_lr must be finite in float32, got 1e+300."),
    ({"final_lr": 0.0}, "final_lr must be positive and finite, got 0.0."),
    ({"b1": 2.0}, "b1 must be in [0, 1), got 2.0."),
    ({"b2": np.float32(1.0)}, "b2 must be in [0, 1), got 1.0."),
    ({"learning_rate": -1}, "learning_rate must be a schedule or finite and >= 0, got"),
    ({"gamma": float("nan")}, "gamma must be finite in float32, got nan."),
    ({"b1": "0.5"}, "b1 must be a real number or an array of them, got '0.5'."),
]


@pytest.mark.parametrize(("values", "message"), BAD_SETTINGS)
def test_what_the_factory_refuses_cannot_be_set(values, message):
    state, tx = injected()
    after = jit(tx.update)(X, state, X)[1]
    scanned, _ = jax.lax.scan(
        lambda s, _: (tx.update(X, s, X)[1], None), state, None, 2
    )
    for known in (state, after, scanned, {"chain": (after,)}):
        with pytest.raises(ValueError, match="^" + re.escape(message)):
            optjax.set_hyperparameters(known, **values)


def test_each_trial_of_a_stack_is_judged():
    state, _ = injected()
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), state)
    optjax.set_hyperparameters(stacked, b1=np.array([0.1, 0.5, 0.9]))
    with pytest.raises(ValueError, match=r"b1 must be in \[0, 1\), got 1\.5"):
        optjax.set_hyperparameters(stacked, b1=np.array([0.1, 1.5, 0.9]))


def test_a_state_that_knows_its_factory_is_the_tree_that_optax_makes():
    state, _ = injected()
    plain = optax.inject_hyperparams(
        optjax.adabound, static_args="mask", hyperparam_dtype=jnp.float32
    )(0.1)
    assert jax.tree.structure(state) == jax.tree.structure(plain.init(X))
    assert pickle.loads(pickle.dumps(state)).hyperparams.keys() == (
        state.hyperparams.keys()
    )


def test_injected_arguments_are_refused_where_they_are_given():
    with pytest.raises(ValueError, match=r"b1 must be in \[0, 1\), got 1\.5"):
        injected(b1=1.5)
    with pytest.raises(ValueError, match=r"hyperparam_dtype must be .* got int32"):
        optjax.inject_hyperparams(optjax.adam, hyperparam_dtype=jnp.int32)
    with pytest.raises(ValueError, match=r"Hand over optjax\.adam and not"):
        optjax.inject_hyperparams(optjax.adam(1e-3))


def test_an_object_of_this_library_may_be_a_schedule():
    """It has no name of its own, unlike a factory that was not called."""
    optjax.sgd(optjax.pytorch.StepLR(0.1, step_size=30))
