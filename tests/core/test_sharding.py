"""Every row on eight devices: sharded equals unsharded, and the update stays local."""

from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from processes import failures_of
from rows import each_row

import optjax
from optjax import state_shardings

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

P = PartitionSpec
MESH = jax.make_mesh((1,), ("d",), axis_types=(AxisType.Auto,))

PRELUDE = """
import functools
import jax
jax.config.update("jax_num_cpu_devices", 8)
import jax.numpy as jnp
import numpy as np
import optax
import optjax
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from rows import ROWS

SHAPES = {"matrix": (8, 16), "vector": (24,), "number": ()}
SPECS = {"matrix": P("a", "b"), "vector": P(("a", "b")), "number": P()}
ROWS = {str(case): case.interior() for case in ROWS}
# A maximum over the leaf, a scalar product over all leaves, and norms.
REDUCES = {"adashift", "swats", "graftbound"}
rng = np.random.default_rng(0)

def values():
    return {k: rng.normal(size=s).astype(np.float32) for k, s in SHAPES.items()}

params, path = values(), [values() for _ in range(3)]

def update_and_apply(tx, g, state, x):
    updates, state = tx.update(g, state, x)
    return optax.apply_updates(x, updates), state

def one_step(rows, step=update_and_apply):
    # All rows in one program, whose compilation is most of the time.
    def all_rows(x, states, g):
        after = {k: step(tx, g, states[k], x[k]) for k, tx in rows.items()}
        return tuple({k: pair[i] for k, pair in after.items()} for i in (0, 1))
    return all_rows

def follow(rows, step, x, states, put=lambda g: g):
    x = dict.fromkeys(rows, x)
    for g in path:
        x, states = step(x, states, put(g))
    return x, states

# Cheap code compiles sooner, and is divided among devices in the same way.
def compile(step, *arguments, **options):
    options["compiler_options"] = {"xla_backend_optimization_level": 0}
    return jax.jit(step, **options).lower(*arguments).compile()

@functools.cache
def expected():
    states = {k: tx.init(params) for k, tx in ROWS.items()}
    step = compile(one_step(ROWS), dict.fromkeys(ROWS, params), states, path[0])
    return follow(ROWS, step, params, states)

def check(actual):
    expected_of_them = tuple({k: of[k] for k in actual[0]} for of in expected())
    for (where, got), want in zip(
        jax.tree_util.tree_leaves_with_path(actual), jax.tree.leaves(expected_of_them),
        strict=True,
    ):
        np.testing.assert_allclose(
            got, want, rtol=2e-6, atol=2e-6, err_msg=jax.tree_util.keystr(where)
        )

COLLECTIVES = (
    "all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter"
)

def check_local(compiled):
    hlo = compiled.as_text()
    for name in COLLECTIVES:
        assert name not in hlo, [line for line in hlo.splitlines() if name in line]

def on(kind):
    return jax.make_mesh((4, 2), ("a", "b"), axis_types=(kind,) * 2)

def split(mesh):
    return {k: NamedSharding(mesh, spec) for k, spec in SPECS.items()}

LOCAL = {k: tx for k, tx in ROWS.items() if k not in REDUCES}
REDUCING = {k: ROWS[k] for k in REDUCES}

# Of the other rows `apply_step` is `update` and `apply_updates`.
COMPILED = [k for k, tx in ROWS.items() if optjax.explain_step(tx, params).compiled]

def steps(rows):
    yield update_and_apply, rows
    if compiled := {k: tx for k, tx in rows.items() if k in COMPILED}:
        yield optjax.apply_step, compiled
"""

FULLY = """
mesh = on(AxisType.{kind})
shardings = split(mesh)
put = lambda g: jax.device_put(g, shardings)
with jax.set_mesh(mesh):
    for step, rows in (*steps(LOCAL), *steps(REDUCING)):
        places = {{
            k: optjax.state_shardings(tx, params, shardings) for k, tx in rows.items()
        }}
        states = {{
            k: jax.device_put(tx.init(params), places[k]) for k, tx in rows.items()
        }}
        kept = dict.fromkeys(rows, shardings), places
        start = dict.fromkeys(rows, put(params)), states, put(path[0])
        run = compile(one_step(rows, step), *start, out_shardings=kept)
        if REDUCES.isdisjoint(rows):
            check_local(run)
        check(follow(rows, run, put(params), states, put))
"""

CASES = {
    "Auto axes": FULLY.format(kind="Auto"),
    "Explicit axes": FULLY.format(kind="Explicit"),
    "the state alone (ZeRO)": """
mesh = on(AxisType.Auto)
shardings, everywhere = split(mesh), NamedSharding(mesh, P())
x = jax.device_put(params, everywhere)
places = {k: optjax.state_shardings(tx, params, shardings) for k, tx in LOCAL.items()}
states = {k: jax.device_put(tx.init(params), places[k]) for k, tx in LOCAL.items()}
xs = dict.fromkeys(LOCAL, x)
update = compile(
    lambda g, states, x: {
        k: tx.update(g, states[k], x[k]) for k, tx in LOCAL.items()
    },
    jax.device_put(path[0], shardings), states, xs,
    out_shardings={k: (shardings, places[k]) for k in LOCAL},
)
check_local(update)
for g in path:
    moves = update(jax.device_put(g, shardings), states, xs)
    states = {k: state for k, (_, state) in moves.items()}
    gathered = {k: jax.device_put(u, everywhere) for k, (u, _) in moves.items()}
    xs = optax.apply_updates(xs, gathered)
check((xs, states))
""",
    "shard_map": """
for kind, names, (step, rows) in [
    # Which is `update` for some of the rows.
    (AxisType.Auto, {"a", "b"}, (optjax.apply_step, LOCAL)),
    (AxisType.Explicit, {"a", "b"}, [*steps(LOCAL)][-1]),
    *((AxisType.Auto, {"a"}, each) for each in steps(LOCAL)),
]:
    mesh = on(kind)
    specs = SPECS if len(names) == 2 else {
        "matrix": P("a"), "vector": P("a"), "number": P()
    }
    places = {k: optjax.state_shardings(tx, params, specs) for k, tx in rows.items()}
    xs = dict.fromkeys(rows, specs)
    put = lambda tree, specs: jax.device_put(
        tree, jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)
    )
    start = put({k: tx.init(params) for k, tx in rows.items()}, places)
    kept = jax.tree.map(lambda spec: NamedSharding(mesh, spec), (xs, places))
    mapped = jax.shard_map(
        one_step(rows, step),
        mesh=mesh,
        in_specs=(xs, places, specs),
        out_specs=(xs, places),
        axis_names=names,
        check_vma=False,
    )
    with jax.set_mesh(mesh):
        x = put(params, specs)
        run = compile(
            mapped, dict.fromkeys(rows, x), start, put(path[0], specs),
            out_shardings=kept,
        )
        check_local(run)
        check(follow(rows, run, x, start, lambda g: put(g, specs)))
""",
    "measured rates": """
import re
mesh = on(AxisType.Auto)
shardings = split(mesh)
put = lambda g: jax.device_put(g, shardings)
for groups in (None, 0):
    tx = optjax.graftbound(0.1, groups=groups)
    places = optjax.state_shardings(tx, params, shardings)
    state = jax.device_put(tx.init(params), places)
    run = compile(
        update_and_apply.__get__(tx), put(path[0]), state, put(params),
        out_shardings=(shardings, places),
    )
    lines = [
        line for line in run.as_text().splitlines()
        if re.search("= .*(" + "|".join(COLLECTIVES) + ")", line)
    ]
    assert lines
    for line in lines:
        # Numbers are added up, and nothing is gathered.
        what, _, _ = line.split("= ", 1)[1].partition(" all-reduce")
        assert set(re.findall(r"\\w+\\[[^\\]]*\\]", what)) == {"f32[]"}, line
""",
    "the documentation": """
import re
page = open("../docs/sharding.md").read()
for block in re.findall(r"```python\\n(.*?)```", page, flags=re.DOTALL):
    names = {}
    exec(block, names)
    assert names["mesh"].size == 8
    for leaf, place in zip(
        jax.tree.leaves(names["state"]), jax.tree.leaves(names["places"]), strict=True
    ):
        assert leaf.sharding.is_equivalent_to(place, leaf.ndim), (leaf.sharding, place)
""",
}


@pytest.fixture(scope="module")
def failures():
    """Of one process, in which what they are compared with is worked out once."""
    return failures_of(CASES, PRELUDE, cwd=Path(__file__).parents[1])


@pytest.mark.parametrize("case", CASES)
def test_on_eight_devices(case, failures):
    assert case not in failures, failures[case]


PARAMS = {"w": jnp.ones((8, 4)), "in": {"w": jnp.ones((8, 2)), "b": jnp.ones(())}}
SPLIT = {"w": P("d"), "in": {"w": P(None, "d"), "b": P()}}
WRAPPED = {
    "chain": lambda tx: optax.chain(optax.clip_by_global_norm(1.0), tx),
    "masked": lambda tx: optax.masked(tx, {"w": True, "in": False}),
    "partition": lambda tx: optax.partition(
        {"a": tx, "b": optax.adafactor(0.1)}, {"w": "a", "in": {"w": "b", "b": "a"}}
    ),
    "MultiSteps": lambda tx: optax.MultiSteps(tx, 2).gradient_transformation(),
    "inject": lambda tx: optjax.inject_hyperparams(optjax.adabound)(0.1),
    "monitor": optjax.monitor,
    "lookahead": lambda tx: optax.chain(optax.ema(0.9), optax.apply_if_finite(tx, 1)),
}


@pytest.mark.parametrize("wrapper", WRAPPED)
def test_wrappers_keep_their_parameters_places(wrapper):
    tx = WRAPPED[wrapper](optjax.adamw(0.1))
    state = tx.init(PARAMS)
    places = state_shardings(tx, PARAMS, SPLIT)
    assert jax.tree.structure(places) == jax.tree.structure(state)
    by_shape = {(8, 4): P("d"), (8, 2): P(None, "d")}
    leaves = zip(jax.tree.leaves(state), jax.tree.leaves(places), strict=True)
    seen = set()
    for leaf, place in leaves:
        assert place == by_shape.get(jnp.shape(leaf), P())
        seen.add(jnp.shape(leaf))
    assert seen & set(by_shape)


@each_row
def test_a_state_is_made_in_its_place(case):
    """Of one array too, whose path is empty, and from its shape alone."""
    tx, x = case.interior(), jnp.ones((4, 2))
    shape = jax.eval_shape(lambda: x)
    places = state_shardings(tx, shape, NamedSharding(MESH, P("d")))
    state = jax.jit(tx.init, out_shardings=places)(x)
    assert jax.tree.map(lambda leaf: leaf.sharding, state) == places
    specs = {
        leaf.shape: place.spec
        for leaf, place in zip(*map(jax.tree.leaves, (state, places)), strict=True)
    }
    assert specs.pop((), P()) == P()
    assert specs.pop((2, 4, 2), P(None, "d")) == P(None, "d")
    assert specs.pop((4, 2), P("d")) == P("d")
    assert all(spec == P() for spec in specs.values())


def test_a_parameter_that_is_called_as_a_field_of_the_state():
    params = {"count": jnp.ones(()), "ema": {"nu": jnp.ones(3)}, "nu": jnp.ones(3)}
    split = {"count": P(), "ema": {"nu": P("d")}, "nu": P()}
    direction, rate = state_shardings(optjax.adam(0.1), params, split)[0]
    assert direction.ema == split
    assert rate.nu == split
    assert direction.count == P()


@pytest.mark.parametrize(
    ("shardings", "message"),
    [
        ({"w": P()}, "must be a tree like params, or a prefix"),
        ({"w": P(), "in": {"b": 3}}, r"PartitionSpecs, .* At \['in'\]\['b'\] it has 3"),
        (P("d"), r"\['in'\]\['b'\] has 0, its sharding is"),
        (
            {"w": NamedSharding(MESH, P()), "in": P()},
            "of one mesh, or PartitionSpecs, got 2 meshes",
        ),
    ],
    ids=["structure", "type", "dimensions", "meshes"],
)
def test_what_is_no_sharding_of_the_parameters(shardings, message):
    with pytest.raises(ValueError, match=message):
        state_shardings(optjax.adam(0.1), PARAMS, shardings)
