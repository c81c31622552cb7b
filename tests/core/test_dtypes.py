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
from loop import assert_same_path, differ, stack, walk
from rows import CASES, ROWS

import optjax
from optjax._rounding import stochastic_rounding

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

each_case = pytest.mark.parametrize("case", CASES, ids=str)


def of_few_shapes(tree):
    """All numbers in two leaves: each shape compiles every operation again."""
    numbers = [jnp.ravel(leaf) for key, leaf in tree.items() if key != "scalar"]
    return {"vector": jnp.concatenate(numbers), "scalar": tree["scalar"]}


START = of_few_shapes(START_OF_SHAPES)
NOISE = [of_few_shapes(noise) for noise in NOISE_OF_SHAPES]
BY_NAME = {str(case): case for case in CASES}


@functools.cache
def path_of(name):
    """In float32, which the others are compared with."""
    return walk(BY_NAME[name].interior(), START, NOISE)


SHAPES = {"matrix": (2, 3), "scalar": (), "no_size": (0,)}
DTYPES = ["float32", "bfloat16", "float16", "float64", "complex64", "complex128"]


def abstract(dtype):
    return {key: jax.ShapeDtypeStruct(s, dtype) for key, s in SHAPES.items()}


def types(tree):
    """Weak types too: a state that loses one compiles again at the second step."""
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.weak_type), tree)


@pytest.mark.parametrize("numbers", ["python", "traced"])
@pytest.mark.parametrize("dtype", DTYPES)
@each_case
def test_state_does_not_drift(case, dtype, numbers):
    """Not with traced float32 numbers among bfloat16 either; `scan` would refuse."""
    with jax.enable_x64(dtype in ("float64", "complex128")):
        params = abstract(dtype)
        if numbers == "python":
            values, static = {}, case.hyperparameters()
        else:
            number = jax.ShapeDtypeStruct((), "float32")
            values, static = dict.fromkeys(case.hyperparameters(), number), {}

        def init(values, params):
            return case.factory(**values, **static).init(params)

        def update(values, gradients, state, params):
            tx = case.factory(**values, **static)
            return tx.update(gradients, state, params)

        state = jax.eval_shape(init, values, params)
        updates, after = jax.eval_shape(update, values, params, state, params)
        assert types(after) == types(state)
        assert types(updates) == types(params)


@each_case
def test_mixed_precision(case):
    """The state has the parameters' dtype or float32, the update the gradient's."""
    pairs = [("float32", "bfloat16"), ("bfloat16", "float32"), ("float16", "float32")]
    for of_params, of_gradients in pairs:
        params, gradients = abstract(of_params), abstract(of_gradients)
        state = jax.eval_shape(case.interior().init, params)
        updates, after = jax.eval_shape(
            case.interior().update, gradients, state, params
        )
        assert types(after) == types(state)
        assert types(updates) == types(gradients)
        stored = "float32" if of_params == "float16" else of_params
        for leaf in jax.tree.leaves(state):
            assert leaf.dtype == stored or leaf.shape == ()


@each_case
def test_float32_parameters_stay_float32_under_x64(case):
    """And nearly the same path: only scalars such as 1 − βᵗ are wider."""
    with jax.enable_x64(True):
        path = walk(case.interior(), START, NOISE)
    assert_same_path(path, path_of(str(case)), rtol=1e-5)


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
    values = case.hyperparameters()
    low = case.factory(**values, **{argument: jnp.bfloat16})
    pattern = STORED["nu" if argument == "nu_dtype" else "mu"]
    state = low.init(START)
    found = 0
    for _ in range(2):
        for path, leaf in jax.tree_util.tree_leaves_with_path(state):
            where = jax.tree_util.keystr(path)
            is_stored = re.search(pattern, where) is not None
            assert (leaf.dtype == jnp.bfloat16) == is_stored, where
            found += is_stored
        updates, state = low.update(START, state, START)
        assert updates["vector"].dtype == jnp.float32
    assert found
    path, expected = walk(low, START, NOISE), path_of(str(case))
    assert differ(path, expected, 1e-6)
    assert_same_path(path, expected, rtol=2e-2)


HAVE_MOMENTS = [case for case in CASES if dtype_arguments(case, None)]


@pytest.mark.parametrize("of_params", ["float32", "bfloat16", "complex64"])
@pytest.mark.parametrize("case", HAVE_MOMENTS, ids=str)
def test_stored_dtypes_do_not_drift_with_traced_numbers(case, of_params):
    """`scan` refuses a carry that changes; ν of complex numbers is real."""
    kind = jnp.complex64 if of_params == "complex64" else jnp.bfloat16
    dtypes = {
        name: jnp.bfloat16 if name == "nu_dtype" else kind
        for name in dtype_arguments(case, None)
    }
    params = abstract(of_params)
    number = jax.ShapeDtypeStruct((), "float32")

    def train(values, params):
        tx = case.factory(**values, **dtypes)
        start = params, tx.init(params)

        def body(carry, _):
            params, state = carry
            updates, state = tx.update(params, state, params)
            return (optax.apply_updates(params, updates), state), None

        return start, jax.lax.scan(body, start, length=2)[0]

    before, after = jax.eval_shape(
        train, dict.fromkeys(case.hyperparameters(), number), params
    )
    assert types(after) == types(before)
    for path, leaf in jax.tree_util.tree_leaves_with_path(after[1]):
        if re.search(STORED["nu"], jax.tree_util.keystr(path)) and dtypes.get(
            "nu_dtype"
        ):
            assert leaf.dtype == jnp.bfloat16


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
    state, path = tx.init(params), []
    for g in gradients:
        updates, state = tx.update(g, state, params)
        path.append(updates)
    return stack(path)


def cast(tree, dtype):
    return jax.tree.map(lambda x: x.astype(dtype), tree)


# What bfloat16 and float16 have, so that one run in float32 is that of both.
COARSE = cast(cast(cast((START, NOISE), jnp.bfloat16), jnp.float16), jnp.float32)


@functools.cache
def coarse_updates(name, made):
    return updates_of(getattr(BY_NAME[name], made)(), *COARSE)


def ulps_apart(case, made, dtype):
    """From the same run in float32, in units of the largest update's last place."""
    path = updates_of(getattr(case, made)(), *cast(COARSE, dtype))
    expected = coarse_updates(str(case), made)
    apart = jax.tree.map(
        lambda a, b: jnp.abs(a.astype(jnp.float32) - b) / jnp.max(jnp.abs(b), 0),
        path,
        expected,
    )
    return max(float(jnp.max(leaf)) for leaf in jax.tree.leaves(apart)) / float(
        jnp.finfo(dtype).eps
    )


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@each_case
def test_low_precision_follows_float32(case, dtype):
    """To two units in the last place: rounded where stored, nowhere else."""
    assert ulps_apart(case, "interior", dtype) < 2
    assert ulps_apart(case, "default", dtype) < 2


PHASE = np.complex64(np.exp(0.7j))


def as_complex(tree, factor=1.0):
    return jax.tree.map(lambda x: jnp.asarray(factor * x, jnp.complex64), tree)


@each_case
def test_complex_rotation(case):
    """|g|² is what counts: what turns all gradients turns all steps."""
    straight = walk(case.interior(), as_complex(START), as_complex(NOISE))
    turned = walk(case.interior(), as_complex(START, PHASE), as_complex(NOISE, PHASE))
    assert_same_path(turned, as_complex(straight, PHASE))
    assert_same_path(straight, as_complex(path_of(str(case))))


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


@each_case
def test_strict_dtype_promotion(case):
    """No hidden promotion: a number takes the dtype of what it meets."""
    start = jax.tree.map(lambda leaf: leaf[:2], path_of(str(case)))
    default = case.default()
    for tx, expected in [
        (case.interior(), start),
        (default, walk(default, START, NOISE[:2])),
    ]:
        with jax.numpy_dtype_promotion("strict"):
            path = walk(tx, START, NOISE[:2])
        assert_same_path(path, expected, rtol=1e-7)


@pytest.mark.parametrize("numbers", ["python", "array"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@each_case
def test_without_implicit_promotion(case, dtype, numbers):
    """Every conversion is asked for, so JAX may be told to make none."""
    values = case.hyperparameters()
    if numbers == "array":
        values = {name: jnp.float32(value) for name, value in values.items()}
    x = jax.tree.map(lambda leaf: leaf.astype(dtype), START)
    with jax.numpy_dtype_promotion("strict"):
        tx = case.factory(**values)
        state = tx.init(x)
        for _ in range(2):
            updates, state = tx.update(x, state, x)
        after, _ = optjax.apply_step(tx, x, state, optax.apply_updates(x, updates))
    assert types(after) == types(x)


def test_without_implicit_promotion_of_complex_numbers():
    """Where Optax works, which multiplies no complex number by a real array."""
    x = as_complex(START)
    with jax.numpy_dtype_promotion("strict"):
        for momentum in (None, 0.9):
            tx = optjax.sgd(0.1, momentum)
            tx.update(x, tx.init(x), x)
