"""Every dtype: states keep theirs, updates have the gradient's, few bits suffice."""

import functools
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiling import jit
from loop import NOISE as NOISE_OF_SHAPES
from loop import START as START_OF_SHAPES
from loop import assert_same_path, differ, gradient, last, walk
from rows import CASES, ROWS, each_case

import optjax
from optjax._rounding import stochastic_rounding

pytestmark = pytest.mark.usefixtures("cheaply_compiled")


# Each shape compiles every operation again.
START = {"vector": jnp.concatenate([*map(jnp.ravel, jax.tree.leaves(START_OF_SHAPES))])}
NOISE = [
    {"vector": jnp.concatenate([*map(jnp.ravel, jax.tree.leaves(noise))])}
    for noise in NOISE_OF_SHAPES
]

SHAPES = {"matrix": (2, 3), "scalar": (), "no_size": (0,)}
DTYPES = ["float32", "bfloat16", "float16", "complex64"]
WIDE_DTYPES = ["float64", "complex128"]
#: Of a parameter and of its gradient.
MIXED = [("float32", "bfloat16"), ("bfloat16", "float32"), ("float16", "float32")]


def abstract(dtypes):
    """A leaf of each dtype and shape."""
    return {
        dtype: {key: jax.ShapeDtypeStruct(s, dtype) for key, s in SHAPES.items()}
        for dtype in dtypes
    }


def types(tree):
    """Weak types too: a state that loses one compiles again at the second step."""
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.weak_type), tree)


def one_step(factory, values, params, gradients):
    """The types of the first state, of the updates, and of the state after them."""

    def step(values, params, gradients):
        tx = factory(**values)
        state = tx.init(params)
        return state, *tx.update(gradients, state, params)

    return jax.eval_shape(step, values, params, gradients)


@pytest.mark.parametrize("numbers", ["python", "traced"])
@each_case
def test_state_does_not_drift(case, numbers):
    """Not with traced float32 numbers among bfloat16 either; `scan` would refuse."""
    if numbers == "python":
        factory, values = functools.partial(case.factory, **case.hyperparameters()), {}
    else:
        number = jax.ShapeDtypeStruct((), "float32")
        factory, values = case.factory, dict.fromkeys(case.hyperparameters(), number)
    for x64, dtypes in (False, DTYPES), (True, WIDE_DTYPES):
        params = abstract(dtypes)
        with jax.enable_x64(x64):
            state, updates, after = one_step(factory, values, params, params)
        assert types(after) == types(state)
        assert types(updates) == types(params)


@each_case
def test_mixed_precision(case):
    """The state has the parameters' dtype or float32, the update the gradient's."""
    params, gradients = (
        {pair: jax.ShapeDtypeStruct((2, 3), pair[i]) for pair in MIXED} for i in (0, 1)
    )
    factory = functools.partial(case.factory, **case.hyperparameters())
    state, updates, after = one_step(factory, {}, params, gradients)
    assert types(after) == types(state)
    assert types(updates) == types(gradients)
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if leaf.shape:
            (of_param, _), *_ = (k.key for k in path if hasattr(k, "key"))
            stored = "float32" if of_param == "float16" else of_param
            assert leaf.dtype == stored, jax.tree_util.keystr(path)


@each_case
def test_float32_parameters_stay_float32_under_x64(case):
    """And nearly the same path: only scalars such as 1 − βᵗ are wider."""
    with jax.enable_x64(True):
        path = walk(case.interior(), START, NOISE)
    assert_same_path(path, case.path(START, NOISE), rtol=1e-5)


def dtype_arguments(case, dtype):
    """Each that the row has for what it stores."""
    names = ("accumulator_dtype", "mu_dtype", "nu_dtype")
    signature = inspect.signature(optjax.OPTIMIZERS[case.row].factory).parameters
    return {name: dtype for name in names if name in signature}


STORED = {
    "mu": (
        r"\.direction\.ema\[|^(\.inner_state)?\[0\]\.ema\[|\.window\[|\.trace\[|\.mu\["
    ),
    "nu": r"\.nu\[|\.nu_max\[|\.e_g\[|\.e_x\[",
}
WITH_MOMENTS = [
    (case, argument)
    for case in CASES
    for argument in dtype_arguments(case, None)
    # Without momentum these two have nothing that `mu_dtype` could be of.
    if (str(case), argument)
    not in [("sgd", "accumulator_dtype"), ("rmsprop", "mu_dtype")]
]


@pytest.mark.parametrize(
    ("case", "argument"), WITH_MOMENTS, ids=lambda value: str(value)
)
def test_dtype_of_what_is_stored(case, argument):
    """Only it is stored in fewer bits, and the path differs by its rounding."""
    low = case.factory(**case.hyperparameters(), **{argument: jnp.bfloat16})
    pattern = STORED["nu" if argument == "nu_dtype" else "mu"]
    x, state, found = START, low.init(START), 0
    for noise in NOISE[:6]:
        for path, leaf in jax.tree_util.tree_leaves_with_path(state):
            where = jax.tree_util.keystr(path)
            is_stored = re.search(pattern, where) is not None
            assert (leaf.dtype == jnp.bfloat16) == is_stored, where
            found += is_stored
        updates, state = low.update(gradient(x, noise), state, x)
        assert updates["vector"].dtype == jnp.float32
        x = optax.apply_updates(x, updates)
    assert found
    expected = last(case.path(START, NOISE[:6]))
    assert differ(x, expected, 1e-6)
    assert_same_path(x, expected, rtol=2e-2)


HAVE_MOMENTS = [case for case in CASES if dtype_arguments(case, None)]


@pytest.mark.parametrize("of_params", ["real", "complex"])
@pytest.mark.parametrize("case", HAVE_MOMENTS, ids=str)
def test_stored_dtypes_do_not_drift_with_traced_numbers(case, of_params):
    """`scan` refuses a carry that changes; ν of complex numbers is real."""
    kind = "complex64" if of_params == "complex" else "bfloat16"
    dtypes = dtype_arguments(case, kind)
    if "nu_dtype" in dtypes:
        dtypes["nu_dtype"] = "bfloat16"
    params = abstract(["complex64"] if kind == "complex64" else ["float32", "bfloat16"])
    number = jax.ShapeDtypeStruct((), "float32")
    state, updates, after = one_step(
        functools.partial(case.factory, **dtypes),
        dict.fromkeys(case.hyperparameters(), number),
        params,
        params,
    )
    assert types(after) == types(state)
    assert types(updates) == types(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(after):
        where = jax.tree_util.keystr(path)
        if re.search(STORED["nu"], where) and "nu_dtype" in dtypes:
            assert leaf.dtype == jnp.bfloat16, where


def settled(tx, dtype, steps=4000):
    """What is stored of the squares of 1 after many steps."""
    gradients = jnp.ones(16, dtype)

    def body(state, _):
        return tx.update(gradients, state)[1], None

    state = jit(lambda: jax.lax.scan(body, tx.init(gradients), length=steps)[0])()
    (nu,) = (x for x in jax.tree.leaves(state) if x.shape == (16,))
    return float(jnp.mean(nu.astype(jnp.float32)))


def test_squares_in_plain_bfloat16_stall():
    """As `nu_dtype` says, and what it says to do instead does not."""
    squares = optjax.ema_of_squares
    limit = 1 - 0.999**4000
    assert settled(squares(0.999), jnp.float32) == pytest.approx(limit, rel=1e-3)
    low = squares(0.999, nu_dtype=jnp.bfloat16)
    assert 0.2 < settled(low, jnp.float32) < 0.34
    assert settled(stochastic_rounding(squares(0.999)), jnp.float32) > 0.9
    # The other way round: parameters in bfloat16, squares in float32.
    wide = squares(0.999, nu_dtype=jnp.float32)
    assert settled(squares(0.999), jnp.bfloat16) < 0.34
    assert settled(wide, jnp.bfloat16) == pytest.approx(limit, rel=1e-3)
    assert settled(optjax.sum_of_squares(nu_dtype=jnp.bfloat16), jnp.float32) == 256


def updates_of(tx, params, gradients):
    """The updates for given gradients, stacked."""
    state, path = tx.init(params), []
    for g in gradients:
        updates, state = tx.update(g, state, params)
        path.append(updates)
    return jax.tree.map(lambda *leaves: np.stack(leaves).astype(np.float32), *path)


LOW = ("bfloat16", "float16")
#: What both have, so that one run in float32 is that of both.
COARSE = [np.asarray(x["vector"]).astype(LOW[0]) for x in (START, *NOISE)]
COARSE = [x.astype(LOW[1]).astype(np.float32) for x in COARSE]


@each_case
def test_low_precision_follows_float32(case):
    """To two units in the last place: rounded where stored, nowhere else."""
    low = [{dtype: jnp.asarray(x, dtype) for dtype in LOW} for x in COARSE]
    params, *gradients = map(jnp.asarray, COARSE)
    for tx in (case.interior(), case.default()):
        expected = updates_of(tx, params, gradients)
        # In units of the largest update.
        size = np.max(np.abs(expected), axis=0)
        for dtype, updates in updates_of(tx, low[0], low[1:]).items():
            apart = np.max(np.abs(updates - expected) / size)
            assert apart < 2 * float(jnp.finfo(dtype).eps), dtype


PHASE = np.complex64(np.exp(0.7j))


def as_complex(tree, factor=1.0):
    return jax.tree.map(
        lambda x: jnp.asarray(factor * np.asarray(x), jnp.complex64), tree
    )


@each_case
def test_complex_rotation(case):
    """|g|² is what counts: what turns all gradients turns all steps."""

    def as_complex_and_turned(tree):
        z = as_complex(tree)["vector"]
        return {"straight": z, "turned": PHASE * z}

    start, *noise = map(as_complex_and_turned, (START, *NOISE[:5]))
    path, expected = walk(case.interior(), start, noise), case.path(START, NOISE[:5])
    assert_same_path({"vector": path["straight"]}, as_complex(expected))
    assert_same_path({"vector": path["turned"]}, as_complex(expected, PHASE))


WITH_OPTAX = [
    case for case in ROWS if hasattr(optax, case.row) and case.row not in ("adadelta",)
]
COMPLEX_NOISE = [
    jax.tree.map(lambda a, b: a + 1j * b, a, b)
    for a, b in zip(NOISE, NOISE[::-1], strict=True)
]


@pytest.mark.parametrize("case", WITH_OPTAX, ids=str)
def test_complex_as_in_optax(case):
    theirs = getattr(optax, case.row)(**case.hyperparameters())
    expected = walk(theirs, as_complex(START), COMPLEX_NOISE)
    path = walk(case.interior(), as_complex(START), COMPLEX_NOISE)
    assert_same_path(path, expected, rtol=1e-6)


def test_complex_adadelta_is_the_exception():
    """Optax's squares g itself there, so its rate is complex and has no direction."""
    theirs, ours = optax.adadelta(1.0), optjax.adadelta(1.0)
    g = jnp.array([1j], jnp.complex64)
    rates = [complex((tx.update(g, tx.init(g), g)[0] / g)[0]) for tx in (theirs, ours)]
    assert abs(rates[0].imag) > 1e-4 * abs(rates[0])
    assert rates[1].imag == 0.0
    assert rates[1].real < 0.0


@pytest.mark.parametrize("numbers", ["python", "array", "default"])
@each_case
def test_without_implicit_promotion(case, numbers):
    """Every conversion is asked for, so JAX may be told to make none.

    A number takes the dtype of what it meets.
    """
    values = case.hyperparameters()
    if numbers == "array":
        values = {name: jnp.float32(value) for name, value in values.items()}
    tx = case.default() if numbers == "default" else case.factory(**values)
    x = {dtype: jax.ShapeDtypeStruct((3,), dtype) for dtype in (*LOW, "float32")}

    def step(x):
        state = tx.init(x)
        updates, state = tx.update(x, state, x)
        if numbers == "default":  # By the same compiled step as other numbers.
            return optax.apply_updates(x, updates)
        return optjax.apply_step(tx, x, state, optax.apply_updates(x, updates))[0]

    with jax.numpy_dtype_promotion("strict"):
        after = jax.eval_shape(step, x)
    assert types(after) == types(x)


def test_without_implicit_promotion_of_complex_numbers():
    """Where Optax works, which multiplies no complex number by a real array."""
    x = as_complex(START)
    with jax.numpy_dtype_promotion("strict"):
        for momentum in (None, 0.9):
            tx = optjax.sgd(0.1, momentum)
            tx.update(x, tx.init(x), x)
