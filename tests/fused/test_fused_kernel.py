"""The compiled step against float64, and under the transformations of JAX."""

import ctypes
import functools
import importlib.util
import itertools
import os
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import ready

import optjax
from optjax._precision import one_minus_power
from optjax.fused import _library as library
from optjax.fused._kernel import (
    Accumulator,
    Bounded,
    Coefficients,
    Direction,
    Form,
    Leaves,
)
from optjax.fused._library import fused_step_available
from optjax.fused._primitive import step

pytestmark = pytest.mark.skipif(
    not fused_step_available(),
    reason="no compiled step: run `python hatch_build.py`, which needs a C++ compiler",
)

BF16, F32 = jnp.bfloat16, jnp.float32
GRADIENT, AVERAGE, AHEAD = Direction
ONE, SQUARES, MAX = Accumulator
ADAM = Form(AVERAGE, SQUARES)
FORMS = [
    Form(*parts)
    for parts in itertools.product(
        Direction,
        Accumulator,
        Bounded,
        *[(False, True)] * 2,
    )
    if not (parts[1] is ONE and parts[2])
]

# Shape, and dtypes of g, p, m, ν and ν_max.
LEAVES = [
    ((1,), [F32] * 5),
    ((7,), [F32] * 5),
    ((), [F32] * 5),
    ((0, 3), [F32] * 5),
    # Longer than what one thread takes at a time.
    ((20_003,), [F32] * 5),
    ((20_003,), [BF16] * 5),
    ((40, 25), [BF16, F32, F32, F32, F32]),
    ((40, 25), [F32, BF16, BF16, F32, F32]),
    ((40, 25), [F32, F32, BF16, F32, BF16]),
    ((1025,), [BF16, BF16, F32, BF16, F32]),
    ((0,), [BF16] * 5),
]


def gathered(decay, t):
    return one_minus_power(decay, jnp.float32(t))


def adam(t, learning_rate=0.1):
    return Coefficients(
        intake=1 - 0.9,
        keep=0.9,
        out=1 / gathered(0.9, t),
        square_intake=1 - 0.999,
        square_keep=0.999,
        before=1 / gathered(0.999, t),
        eps=1e-8,
        step=learning_rate,
    )


def jitted(form):
    @functools.partial(jax.jit, donate_argnums=1)
    def run(coefficients, leaves, grads):
        return step(form, coefficients, grads, leaves)

    return run


def zeros(params):
    return [jnp.zeros_like(p) for p in params]


def kept(form, params, m, nu, nu_max, bounds=None):
    return Leaves(
        params,
        None if form.direction is GRADIENT else m,
        None if form.accumulator is ONE else nu,
        nu_max if form.accumulator is MAX else None,
        norms=bounds if form.bounded is Bounded.OWN else None,
    )


def round_to(x, dtype):
    return np.asarray(x, np.float32).astype(dtype).astype(np.float64)


def reference(form, c, g, p, m, nu, nu_max, round_update):
    """The equations of the kernel, once through, in float64; the last are norms."""
    rounded = (lambda x: round_to(x, BF16)) if round_update else (lambda x: x)
    if form.l2:
        g = rounded(g + rounded(rounded(c.l2) * p))
    d, v, norms = g, 1.0, np.zeros(2)
    if form.direction is not GRADIENT:
        m = c.intake * g + c.keep * m
        d = c.out * m + (c.ahead * g if form.direction is AHEAD else 0.0)
        d = rounded(d)
    if form.accumulator is not ONE:
        nu = c.square_intake * g**2 + c.square_keep * nu
        used = c.before * nu
        if form.accumulator is MAX:
            nu_max = np.maximum(nu_max, used)
            used = c.after * nu_max
        v = 1 / np.maximum(np.sqrt(used + c.eps_root) + c.eps, np.sqrt(2.0**-126))
        if form.bounded:
            norms = np.sum((c.scale * v * d) ** 2), np.sum(d**2)
            v = np.clip(c.scale * v, c.lower, c.upper)
    u = c.step * v * d + (c.decay * p if form.decay else 0.0)
    return p - rounded(u), m, nu, nu_max, np.array(norms)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: "-".join(map(str, form)))
def test_every_form_and_dtype_follows_the_equations(form):
    rng = np.random.default_rng(0)
    run = jitted(form)
    columns = [
        [
            np.asarray(f(rng.standard_normal(shape)), dtypes[k])
            for shape, dtypes in LEAVES
        ]
        for k, f in enumerate([None, np.array, np.array, np.square, np.square])
        if k > 0
    ]
    leaves = kept(form, *columns, [np.zeros(2, np.float32) for _ in LEAVES])
    for _ in range(2):
        values = rng.uniform(0.2, 0.9, 16).astype(np.float32)
        c = Coefficients(*values)._replace(
            eps=np.float32(1e-3), upper=np.float32(1.2), lower=np.float32(0.3)
        )
        exact = Coefficients(*(float(x) for x in c))
        grads = [
            np.asarray(rng.standard_normal(shape), dtypes[0])
            for shape, dtypes in LEAVES
        ]
        old = [
            [0.0] * len(LEAVES)
            if column is None
            else [np.asarray(x, np.float64) for x in column]
            for column in leaves[:4]  # The rest are scales of codes, and bounds.
        ]
        own = [exact] * len(LEAVES)
        if form.bounded is Bounded.OWN:
            bounds = rng.uniform([0.1, 0.5], [0.4, 1.5], (len(LEAVES), 2))
            bounds = bounds.astype(np.float32)
            own = [
                exact._replace(lower=float(lo), upper=float(hi)) for lo, hi in bounds
            ]
            leaves = leaves._replace(norms=list(bounds))
        leaves = run(c.pack(), leaves, grads)
        for i, (_, dtypes) in enumerate(LEAVES):
            g = np.asarray(grads[i], np.float64)
            *expected, norms = reference(
                form, own[i], g, *(column[i] for column in old), dtypes[0] == BF16
            )
            if form.bounded is Bounded.OWN:
                rtol = 2**-7 if dtypes[0] == BF16 else 1e-6
                np.testing.assert_allclose(leaves.norms[i], norms, rtol, 1e-6)
            for column, want in zip(leaves[:4], expected, strict=True):
                if column is None:
                    continue
                got = np.asarray(column[i], np.float64)
                if column[i].dtype == BF16:
                    # Values next to a tie may round the other way.
                    want = round_to(want, BF16)
                    np.testing.assert_allclose(got, want, rtol=2**-7, atol=2**-7)
                    assert np.sum(got != want) <= 0.01 * got.size
                elif dtypes[0] == BF16:
                    wrong = ~np.isclose(got, want, rtol=1e-6, atol=1e-6)
                    np.testing.assert_allclose(got, want, rtol=2**-7, atol=2**-7)
                    assert np.sum(wrong) <= 0.01 * got.size
                else:
                    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


HYPER = {"b1": 0.9, "b2": 0.99}


def bounded(t, eps=1e-8):
    return Coefficients(
        intake=1 - 0.9,
        keep=0.9,
        square_intake=1 - 0.99,
        square_keep=0.99,
        eps=eps,
        scale=0.05 * gathered(0.99, t) ** 0.5 / gathered(0.9, t),
        lower=0.1 * (1 - 1 / (1e-3 * t + 1)),
        upper=0.1 * (1 + 1 / (1e-3 * t)),
    )


# What each row of the table is in terms of the kernel, with learning rate 0.05.
ROWS = {
    "sgd": (
        optjax.sgd(0.05),
        Form(GRADIENT, ONE),
        lambda t: Coefficients(step=0.05),
    ),
    "momentum": (
        optjax.sgd(0.05, momentum=0.9),
        Form(AVERAGE, ONE),
        lambda t: Coefficients(keep=0.9, step=0.05),
    ),
    "nesterov": (
        optjax.sgd(0.05, momentum=0.9, nesterov=True),
        Form(AHEAD, ONE),
        lambda t: Coefficients(keep=0.9, out=0.9, ahead=1.0, step=0.05),
    ),
    "adagrad": (
        optjax.adagrad(0.05, initial_accumulator_value=0.0),
        Form(GRADIENT, SQUARES),
        lambda t: Coefficients(eps_root=1e-7, step=0.05),
    ),
    "rmsprop": (
        optjax.rmsprop(0.05, eps=1e-6, eps_in_sqrt=False),
        Form(GRADIENT, SQUARES),
        lambda t: Coefficients(
            square_intake=1 - 0.9, square_keep=0.9, eps=1e-6, step=0.05
        ),
    ),
    "adam": (optjax.adam(0.05), ADAM, lambda t: adam(t, 0.05)),
    "adam without eps": (
        optjax.adam(0.05, eps=0.0),
        ADAM,
        lambda t: adam(t, 0.05)._replace(eps=0.0),
    ),
    "nadam": (
        optjax.nadam(0.05),
        Form(AHEAD, SQUARES),
        lambda t: adam(t, 0.05)._replace(
            out=0.9 / gathered(0.9, t + 1), ahead=(1 - 0.9) / gathered(0.9, t)
        ),
    ),
    "adamw": (
        optjax.adamw(0.05, weight_decay=0.1),
        Form(AVERAGE, SQUARES, decay=True),
        lambda t: adam(t, 0.05)._replace(decay=0.05 * 0.1),
    ),
    "amsgrad": (optjax.amsgrad(0.05), Form(AVERAGE, MAX), lambda t: adam(t, 0.05)),
    "amsgrad of PyTorch": (
        optjax.amsgrad(0.05, max_before_debias=True),
        Form(AVERAGE, MAX),
        lambda t: adam(t, 0.05)._replace(before=1.0, after=adam(t).before),
    ),
    "adabound": (
        optjax.adabound(0.05, **HYPER, weight_decay=0.1),
        Form(AVERAGE, SQUARES, bounded=Bounded.SHARED, l2=True),
        lambda t: bounded(t)._replace(l2=0.1),
    ),
    "amsbound": (
        optjax.amsbound(0.05, **HYPER),
        Form(AVERAGE, MAX, bounded=Bounded.SHARED),
        bounded,
    ),
    "adaboundw": (
        optjax.adaboundw(0.05, **HYPER, weight_decay=0.1),
        Form(AVERAGE, SQUARES, bounded=Bounded.SHARED, decay=True),
        lambda t: bounded(t)._replace(decay=0.05 * 0.1),
    ),
    "adaboundw with fixed decay": (
        optjax.adaboundw(0.05, **HYPER, weight_decay=0.1, fixed_decay=True),
        Form(AVERAGE, SQUARES, bounded=Bounded.SHARED, decay=True),
        lambda t: bounded(t)._replace(decay=0.1),
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_the_rows_of_the_table(name):
    """Also at gradients of 0, ±∞ and NaN, and where g² overflows or underflows."""
    optimizer, form, coefficients = ROWS[name]
    rng = np.random.default_rng(1)
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e30, -1e30, 1e-30]
    params = rng.standard_normal(50).astype(np.float32)
    params[:8] = [0.0, 1.0] * 4
    run = jitted(form)

    @jax.jit
    def in_jax(params, state, g):
        updates, state = optimizer.update(g, state, params)
        return optax.apply_updates(params, updates), state

    expected, state = params, optimizer.init(params)
    leaves = kept(form, [params], *([np.zeros(50, np.float32)] for _ in range(3)))
    for t in range(1, 5):
        g = rng.standard_normal(50).astype(np.float32)
        if t in (2, 3):
            g[:8] = special
        leaves = run(coefficients(float(t)).pack(), leaves, [g])
        expected, state = in_jax(expected, state, g)
        np.testing.assert_allclose(leaves.params[0], expected, rtol=2e-6, atol=1e-6)


def test_a_donated_step_is_in_place():
    params = [jnp.ones(1000), jnp.ones((30, 40)), jnp.ones(1000, BF16)]
    leaves = Leaves(params, zeros(params), zeros(params), None)
    grads = zeros(params)

    @functools.partial(jax.jit, donate_argnums=0)
    def run(leaves, t, grads):
        return step(ADAM, adam(t).pack(), grads, leaves)

    hlo = run.lower(leaves, jnp.float32(1), grads).compile().as_text()
    assert " copy(" not in hlo
    assert "optjax_step" in hlo
    before = {x.unsafe_buffer_pointer() for x in jax.tree.leaves(leaves)}
    leaves = run(leaves, jnp.float32(1), grads)
    assert {x.unsafe_buffer_pointer() for x in jax.tree.leaves(leaves)} == before


@pytest.mark.parametrize("name", ["adam", "amsbound", "adamw", "nesterov"])
def test_a_donated_apply_step_is_in_place(name):
    """No array of a parameter's size is copied, in `jit` or in a scan's body."""
    tx = optjax.OPTIMIZERS[name].factory(optax.linear_schedule(0.1, 0.01, 10))
    params = {"a": jnp.ones((30, 40)), "b": jnp.ones(1000), "c": jnp.ones(1000)}

    def step(params, state, grads):
        return optjax.apply_step(tx, grads, state, params)

    def train(params, state, inputs):
        def body(carry, inputs):
            params, state = carry
            grads = jax.tree.map(lambda x: x * inputs, params)
            return step(params, state, grads), None

        return jax.lax.scan(body, (params, state), inputs)[0]

    operands = params, tx.init(params)
    for f, inputs in [(step, params), (train, jnp.ones(3))]:
        compiled = jax.jit(f, donate_argnums=(0, 1)).lower(*operands, inputs).compile()
        copies = [line for line in compiled.as_text().splitlines() if " copy(" in line]
        assert "optjax_step" in compiled.as_text()
        assert not [line for line in copies if "f32[30,40]" in line or "1000]" in line]


def test_xla_has_no_loop_to_compile_beside_a_step():
    optimizer, x = optjax.sgd(0.1), jnp.ones(8)

    def run(g, state, x):
        return optjax.apply_step(optimizer, g, state, x)

    hlo = jax.jit(run).lower(x, optimizer.init(x), x).compile().as_text()
    assert '"optjax_step"' in hlo
    assert "fusion(" not in hlo


def test_arrays_that_are_not_donated_keep_their_values():
    params = [jnp.ones(1000)]
    state = zeros(params)
    leaves = Leaves(params, state, state, None)
    jax.jit(lambda leaves: step(ADAM, adam(1).pack(), params, leaves))(leaves)
    np.testing.assert_array_equal(params[0], 1)
    np.testing.assert_array_equal(state[0], 0)


def test_scan_takes_the_steps_of_a_loop_in_place():
    params = [np.ones(300, np.float32), np.ones((3, 4), np.float32)]
    grads = [np.cos(x) for x in params]
    leaves = Leaves(params, grads, params, None)

    def body(leaves, t):
        return step(ADAM, adam(t).pack(), grads, leaves), None

    @functools.partial(jax.jit, donate_argnums=0)
    def scan(leaves):
        return jax.lax.scan(body, leaves, jnp.arange(1.0, 6.0))[0]

    expected, one = leaves, jax.jit(lambda leaves, t: body(leaves, t)[0])
    for t in range(1, 6):
        expected = one(expected, float(t))
    scanned = scan(leaves)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-6), scanned, expected
    )


@pytest.mark.parametrize("batched", ["coefficients", "leaves", "both"])
def test_vmap_gives_each_row_its_own_step(batched):
    rng = np.random.default_rng(2)
    size = 5
    params = [
        jnp.asarray(rng.standard_normal((size, *shape)), dtype)
        for shape, dtype in [((), F32), ((7,), BF16), ((30, 1000), F32), ((0,), F32)]
    ]
    rates = jnp.linspace(0.1, 0.5, size)
    leaf_axis = None if batched == "coefficients" else 0
    rate_axis = None if batched == "leaves" else 0
    if leaf_axis is None:
        params = [p[0] for p in params]
    if rate_axis is None:
        rates = rates[0]

    def run(rate, params):
        leaves = Leaves(params, zeros(params), [p * p for p in params], None)
        return step(ADAM, adam(2, rate).pack(), params, leaves)

    result = jax.jit(jax.vmap(run, in_axes=(rate_axis, leaf_axis)))(rates, params)
    one = jax.jit(run)
    for i in range(size):
        expected = one(
            rates if rate_axis is None else rates[i],
            params if leaf_axis is None else [p[i] for p in params],
        )
        for got, want in zip(
            jax.tree.leaves(result), jax.tree.leaves(expected), strict=True
        ):
            np.testing.assert_array_equal(got[i], want)


def test_vmap_gives_each_row_its_own_norms():
    """Also where a chunk ends within a row and a row within a chunk."""
    form = ADAM._replace(bounded=Bounded.OWN)
    rng = np.random.default_rng(4)
    size, shapes = 3, [(70_001,), (5,), (0,)]
    params = [jnp.asarray(rng.standard_normal((size, *shape)), F32) for shape in shapes]
    bounds = [jnp.asarray(rng.uniform(0, 2, (size, 2)), F32) for _ in shapes]

    def run(params, bounds):
        squares = [p * p for p in params]
        leaves = Leaves(params, zeros(params), squares, norms=bounds)
        return step(form, adam(2).pack(), params, leaves)

    result = jax.jit(jax.vmap(run))(params, bounds)
    for i in range(size):
        expected = jax.jit(run)([p[i] for p in params], [b[i] for b in bounds])
        for got, want in zip(
            jax.tree.leaves(result), jax.tree.leaves(expected), strict=True
        ):
            np.testing.assert_allclose(got[i], want, rtol=1e-6)


ON_ONE_CORE = """
import os, sys
os.sched_setaffinity(0, list(os.sched_getaffinity(0))[: int(sys.argv[1])])
import jax, jax.numpy as jnp, numpy as np, optax, optjax
tx = optjax.graftbound(0.1, gamma=0.5)
x = [jnp.asarray(np.random.default_rng(0).standard_normal(n), jnp.float32)
     for n in (300_001, 20_000, 70)]
step = jax.jit(lambda x, s: optjax.apply_step(tx, x, s, x))
s = tx.init(x)
for _ in range(3):
    x, s = step(x, s)
rates = optax.tree.get(s, "rate", filtering=lambda _, f: type(f) is list)
print([np.asarray(f).tobytes().hex() for f in rates])
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_norms_are_equal_for_any_number_of_threads():
    said = [
        subprocess.run(
            [*ready.python(), "-c", ON_ONE_CORE, cores],
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        ).stdout
        for cores in ("1", "2")
    ]
    assert said[0] == said[1]


def test_vmap_of_vmap_is_one_call():
    rates = jnp.linspace(0.1, 0.6, 6).reshape(2, 3)
    params = jnp.arange(1.0, 12.0)

    def run(rate):
        leaves = Leaves([params], [params], [params], None)
        return step(ADAM, adam(2, rate).pack(), [params], leaves).params[0]

    batched = jax.jit(jax.vmap(jax.vmap(run)))
    result = batched(rates)
    assert batched.lower(rates).compile().as_text().count('"optjax_step"') == 1
    for i, j in np.ndindex(2, 3):
        np.testing.assert_allclose(result[i, j], run(rates[i, j]), rtol=1e-6)


def test_many_leaves_go_in_few_calls():
    shapes = [(64, 64) if i % 3 else (i,) for i in range(300)]
    params = [np.full(shape, 1.0 + i, np.float32) for i, shape in enumerate(shapes)]
    state = [np.zeros_like(p) for p in params]

    @jax.jit
    def run(params, state):
        return step(ADAM, adam(1).pack(), params, Leaves(params, state, state))

    compiled = run.lower(params, state).compile()
    assert compiled.as_text().count('"optjax_step"') == 10
    for p, new in zip(params, compiled(params, state).params, strict=True):
        np.testing.assert_allclose(new, p - 0.1, rtol=1e-6)


def descend(rate, x):
    c = Coefficients(step=rate).pack()
    return step(Form(GRADIENT, ONE), c, [3 * x], Leaves([x])).params[0]


def test_derivatives_are_those_of_the_step_in_jax():
    x = jnp.arange(4.0)
    gradient = jax.jit(jax.grad(lambda rate, x: descend(rate, x).sum()))
    np.testing.assert_allclose(gradient(0.1, x), -3 * x.sum(), rtol=1e-6)
    batched = jax.jit(jax.vmap(descend, (0, None)))
    assert '"optjax_step"' in batched.lower(jnp.ones(2), x).compile().as_text()
    np.testing.assert_allclose(batched(jnp.array([0.1, 0.2]), x)[1], 0.4 * x, rtol=1e-6)


@pytest.mark.parametrize("value", ["0", "false", "No", "OFF", " off "])
def test_turned_off_in_words(monkeypatch, value):
    monkeypatch.setenv("OPTJAX_FUSED", value)
    assert not fused_step_available()


@pytest.mark.parametrize("value", ["1", "true", "Yes", "ON"])
def test_turned_on_in_words(monkeypatch, value):
    monkeypatch.setenv("OPTJAX_FUSED", value)
    assert fused_step_available()


@pytest.mark.parametrize("value", ["", "2", "disable", "none"])
def test_another_switch_is_refused(monkeypatch, value):
    monkeypatch.setenv("OPTJAX_FUSED", value)
    with pytest.raises(ValueError, match=f"must be 0, false, no or off, .* '{value}'"):
        fused_step_available()


@pytest.fixture
def loading(monkeypatch):
    """The library, loaded again."""
    register = functools.cache(library._register.__wrapped__)
    say = functools.cache(library._say.__wrapped__)
    monkeypatch.setattr(library, "_register", register)
    monkeypatch.setattr(library, "_say", say)


@pytest.mark.usefixtures("loading")
def test_a_library_for_a_newer_jax_is_not_used(monkeypatch):
    """XLA would not start with it."""
    major, minor = library._version_installed()
    monkeypatch.setattr(library, "_version_built", lambda _: (major, minor + 1))
    with pytest.warns(UserWarning, match="runs without its compiled step"):
        assert not fused_step_available()


DRIFTED = {
    "coefficients in another order": (b"intake keep out", b"keep intake out"),
    "a coefficient renamed": (b"eps_root eps scale", b"eps_root eta scale"),
    "directions in another order": (b"average ahead;", b"ahead average;"),
    "accumulators in another order": (b"one average max", b"one max average"),
    "bounds in another order": (b"no shared own", b"no own shared"),
    "arrays in another order": (b"params m nu nu_max", b"params nu m nu_max"),
    "another equation": (b"step 6;", b"step 7;"),
}


@pytest.mark.usefixtures("loading")
@pytest.mark.parametrize("name", DRIFTED)
def test_a_library_whose_lists_drifted_is_not_used(monkeypatch, tmp_path, name):
    ours, theirs = DRIFTED[name]
    content = Path(library._LIBRARY).read_bytes()
    assert content.count(ours) == 1
    drifted = tmp_path / "libstep.so"
    drifted.write_bytes(content.replace(ours, theirs))
    monkeypatch.setattr(library, "_LIBRARY", drifted)
    with pytest.warns(UserWarning, match="compiled from another version of optjax"):
        assert not fused_step_available()
    assert not fused_step_available()  # Said once.


@pytest.mark.usefixtures("loading")
@pytest.mark.parametrize("side", [Coefficients, Leaves])
def test_a_python_side_that_drifted_is_not_used(monkeypatch, side):
    monkeypatch.setattr(side, "_fields", side._fields[::-1])
    with pytest.warns(UserWarning, match="compiled from another version of optjax"):
        assert not fused_step_available()


def test_a_library_that_tells_no_interface():
    assert library._interface_of(ctypes.CDLL(None)) is None


@pytest.mark.parametrize("command", ["false", "no-such-compiler"])
def test_without_a_compiler_installation_says_so_in_one_line(
    command, tmp_path, monkeypatch, capsys
):
    spec = importlib.util.spec_from_file_location(
        "hatch_build", Path(__file__).parents[2] / "hatch_build.py"
    )
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    built = tmp_path / "libstep.so"
    built.touch()
    monkeypatch.setenv("CXX", command)
    assert not hook.build(Path(library.__file__).with_name("step.cc"), built)
    said = capsys.readouterr().err
    assert said.startswith("optjax: no compiled CPU step: ")
    assert said.count("\n") == 1
    assert not built.exists()
