"""Summaries of effective rates: equal to NumPy's, wherever they are."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiling import jit
from flax import linen, nnx
from flax.training.train_state import TrainState
from loop import stack
from processes import run_program

import optjax
from optjax import _joint
from optjax._groups import OVERALL
from optjax._rounding import stochastic_rounding
from optjax._tree import map_leaves
from optjax.extend import Clip, Link, tell
from optjax.monitoring._groups import sample
from optjax.monitoring._summary import EDGES, PROBABILITIES, Summary

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

RANDOM = np.random.default_rng(0)
PARAMS = {
    "first": {"kernel": RANDOM.normal(size=(6, 5)), "bias": RANDOM.normal(size=5)},
    "second": {"kernel": RANDOM.normal(size=(5, 3)), "scale": RANDOM.normal()},
}
PARAMS = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), PARAMS)
STEPS = 12
# Of sizes so different that rates are at both bounds and between.
SCALE = jax.tree.map(lambda x: 10 ** RANDOM.uniform(-1.5, 0.5, size=x.shape), PARAMS)
GRADS = [
    jax.tree.map(
        lambda scale: jnp.asarray(scale * RANDOM.normal(size=scale.shape), jnp.float32),
        jax.tree.map(np.asarray, SCALE),
    )
    for _ in range(STEPS)
]
B1, B2, EPS, FINAL_LR, GAMMA = 0.8, 0.95, 1e-6, 0.05, 0.4


def train(tx, params=PARAMS, grads=GRADS, state=None):
    """The states after every step, stacked, and the updates, in one scan."""

    def step(carry, g):
        params, state = carry
        updates, state = tx.update(g, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), (state, updates, params)

    carry = params, tx.init(params) if state is None else state
    return jax.lax.scan(step, carry, stack(grads))[1]


@functools.cache
def compiled_run(tx):
    return jit(lambda params, grads: train(tx, params, grads))


def final(tx, params=PARAMS, grads=GRADS):
    """The report after the last step."""
    states, _, _ = compiled_run(tx)(params, list(grads))
    return optjax.read_report(states).at(-1)


def assert_same(ours, theirs, rtol=2e-6, atol=1e-6):
    """Two summaries, to rounding: XLA fuses the same arithmetic differently."""
    for field in Summary._fields:
        one, other = getattr(ours, field), getattr(theirs, field)
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol, atol, err_msg=field)


def assert_same_report(ours, theirs):
    assert list(ours) == list(theirs)
    for name in ours:
        assert_same(ours[name], theirs[name])


@pytest.mark.parametrize("every", [1, 3, 50])
def test_summaries_are_made_at_the_first_and_every_kth_step(every):
    tx = optjax.monitor(optjax.adam(0.1), every=every)
    states, _, _ = jit(lambda: train(tx))()
    steps = optjax.read_report(states).steps
    due = [t for t in range(1, STEPS + 1) if t == 1 or t % every == 0]
    expected = [max(d for d in due if d <= t) for t in range(1, STEPS + 1)]
    assert steps.tolist() == expected


# ----------------------------------------------------------------------------------
# Every number against NumPy


def rates_by_numpy(kind, grads, alpha, s=lambda count: 1.0):
    """V_t, lo_t, hi_t and s_t at the last step, in float64."""
    t = len(grads)
    nu = {name: np.zeros(g.shape) for name, g in grads[0].items()}
    largest = dict(nu)
    for g in grads:
        nu = {name: B2 * nu[name] + (1 - B2) * g[name] ** 2 for name in nu}
        largest = {name: np.maximum(largest[name], nu[name]) for name in nu}
    if kind == "adam":
        v = {k: 1 / (np.sqrt(x / (1 - B2**t)) + EPS) for k, x in nu.items()}
        return v, 0.0, np.inf, alpha * s(t - 1)
    used = largest if kind == "amsbound" else nu
    correction = alpha * np.sqrt(1 - B2**t) / (1 - B1**t)
    lo = FINAL_LR * (1 - 1 / (GAMMA * t + 1))
    hi = FINAL_LR * (1 + 1 / (GAMMA * t))
    v = {k: np.clip(correction / (np.sqrt(x) + EPS), lo, hi) for k, x in used.items()}
    return v, lo, hi, s(t - 1)


def flat(tree):
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(
            x, np.float64
        )
        for path, x in jax.tree_util.tree_leaves_with_path(tree)
    }


GROUPS = {
    "depth 1": (1, lambda name: name.split("/")[0]),
    "depth 2": (2, lambda name: name),
    "a leaf": (None, lambda name: name),
    "function": (lambda name: name.split("/")[-1], lambda name: name.split("/")[-1]),
    "none": (0, lambda name: None),
}


@pytest.mark.parametrize(
    ("kind", "groups"),
    [
        ("adabound", "depth 1"),
        ("adabound", "function"),
        ("adam", "a leaf"),
        ("amsbound", "depth 2"),
        ("amsbound", "none"),
    ],
)
def test_every_number_is_that_of_numpy(kind, groups):
    alpha, factor = 0.01, 1.3
    halving = {"adam": None, "adabound": lambda count: alpha * 0.5 ** (count // 5)}
    learning_rate = halving.get(kind) or alpha
    numbers = {"b1": B1, "b2": B2, "eps": EPS}
    if kind != "adam":
        numbers |= {"final_lr": FINAL_LR, "gamma": GAMMA}
    option, name_of = GROUPS[groups]
    tx = optjax.monitor(
        optjax.OPTIMIZERS[kind].factory(learning_rate, **numbers),
        every=STEPS,
        groups=option,
        factor=factor,
    )
    states, updates, params = jit(lambda: train(tx))()
    report = optjax.read_report(states).at(-1)
    v, lo, hi, s = rates_by_numpy(
        kind,
        [flat(g) for g in GRADS],
        alpha,
        (lambda count: 0.5 ** (count // 5))
        if kind == "adabound"
        else lambda count: 1.0,
    )
    step = {k: x[-1] for k, x in flat(updates).items()}
    before = {k: x[-2] for k, x in flat(params).items()}

    members = {}
    for name in v:
        if name_of(name) is not None:
            members.setdefault(name_of(name), []).append(name)
    members[OVERALL] = list(v)
    assert list(report) == list(members)
    for group, names in members.items():
        found = report[group]
        rate = np.concatenate([np.ravel(v[name]) for name in names])
        log = np.log10(s * rate)

        def close(field, expected, found=found, **tolerance):
            np.testing.assert_allclose(
                getattr(found, field), expected, err_msg=field, **tolerance
            )

        assert found.step == STEPS
        ranks = np.rint((len(rate) - 1) * np.array(PROBABILITIES)).astype(int)
        close("quantiles", np.sort(log)[ranks], atol=2e-6)
        histogram = np.histogram(np.clip(log, EDGES[0], EDGES[-1]), EDGES)[0]
        # A rate within rounding of an edge may be on either side of it.
        near_edge = np.abs(log[:, None] - EDGES).min(axis=1) < 2e-6
        moved = np.abs(found.histogram * len(rate) - histogram).sum() / 2
        assert moved <= near_edge.sum() + 1e-3
        np.testing.assert_allclose(found.histogram.sum(), 1.0, rtol=1e-6)
        close("lower", s * lo, rtol=1e-6)
        close("upper", s * hi, rtol=1e-6)
        close("at_lower", np.mean(rate <= lo), rtol=1e-6)
        close("at_upper", np.mean(rate >= hi), rtol=1e-6)
        close("between", np.mean((rate > lo) & (rate < hi)), rtol=1e-6)
        close("schedule", s, rtol=1e-6)
        is_bounded = kind != "adam"
        close("sgd_rate", s * FINAL_LR if is_bounded else np.nan, rtol=1e-6)
        near = (rate >= FINAL_LR / factor) & (rate <= FINAL_LR * factor)
        close("near_sgd", np.mean(near) if is_bounded else 0.0, rtol=1e-6)
        norm = [
            np.sqrt(sum(np.sum(tree[name] ** 2) for name in names))
            for tree in (step, before)
        ]
        close("update_ratio", norm[0] / norm[1], rtol=1e-5)
    if kind != "adam":
        # The test sees all three places.
        everything = report[OVERALL]
        assert everything.at_lower > 0
        assert everything.at_upper > 0
        assert everything.between > 0


MASK_OF = {name: name not in "bd" for name in "abcdef"}
LABELS = {name: "even" if name in "ace" else "odd" for name in "abcdef"}


@pytest.mark.parametrize(
    "tx",
    [
        # One without a rate.
        optax.masked(optjax.adabound(0.01, final_lr=0.05, gamma=0.4), MASK_OF),
        # Equations of other libraries, among them a norm of each leaf.
        optax.chain(
            optax.clip(0.3),
            optjax.adamw(0.1, mask=MASK_OF),
            optax.scale_by_trust_ratio(),
        ),
        # Two programs, and two schedules.
        optax.partition(
            {"even": optjax.sgd(0.1, 0.9), "odd": optjax.adam(0.2)}, LABELS
        ),
        # Bounds of each leaf.
        optjax.graftbound(0.1),
        optjax.adadelta(),
    ],
    ids=["masked", "chain", "partition", "graftbound", "adadelta"],
)
def test_leaves_end_to_end_are_summarised_as_each_alone(tx, monkeypatch):
    """Small and large, of two dtypes, one larger than a chunk, and a number."""
    random = np.random.default_rng(5)
    shapes = {"a": (300, 2), "b": (7,), "c": (9000,), "d": (3, 3), "e": (5,), "f": ()}
    params = {
        name: np.asarray(
            random.normal(size=shape), jnp.bfloat16 if name in "de" else "float32"
        )
        for name, shape in shapes.items()
    }
    grads = [
        {name: (0.1 * t * x + 0.01).astype(x.dtype) for name, x in params.items()}
        for t in (1, 2)
    ]

    def run():
        return final(
            optjax.monitor(tx, every=1, groups=None, audit=True), params, grads
        )

    together = run()
    monkeypatch.setattr(_joint, "_SMALL", -1)
    assert_same_report(together, run())
    assert together["a"].update_ratio > 0


@pytest.mark.parametrize("shape", [(6, 16), (4, 13)], ids=["no filling", "filling"])
def test_many_leaves_end_to_end_are_summarised_as_each_alone(shape, monkeypatch):
    """Their rows are of what divides them all, where that is not too short."""
    random = np.random.default_rng(6)
    params = {f"w{i}": random.normal(size=shape).astype("float32") for i in range(10)}
    grads = [jax.tree.map(lambda x, t=t: 0.1 * t * x + 0.01, params) for t in (1, 2)]

    def run():
        return final(
            optjax.monitor(optjax.adabound(0.01), every=1, groups=None), params, grads
        )

    together = run()
    monkeypatch.setattr(_joint, "_SMALL", -1)
    assert_same_report(together, run())


@pytest.mark.parametrize("leaves", [1, 2])
def test_bounds_that_a_part_holds_as_an_array(leaves):
    """Told of by someone's own part; of each leaf the same three."""
    low = jnp.array([0.1, 0.2, 0.3])

    def update(rates, state, params=None):
        bounded = map_leaves(lambda v: jnp.clip(v, low, 2 * low), rates)
        tell(Link(Clip(low, 2 * low), rates, bounded, state, state))
        return bounded, state

    bound = optax.GradientTransformation(lambda _: optax.EmptyState(), update)
    rate = optjax.rate_by_accumulated_square(optjax.sum_of_squares(), eps=0.0)
    form = optjax.basic_form(optax.identity(), optax.chain(rate, bound), 1.0)
    params = {name: jnp.ones(3) for name in "ab"[:leaves]}
    grads = jax.tree.map(lambda x: jnp.array([1.0, 4.0, 10.0]), params)
    report = final(monitor(form), params, [grads])[OVERALL]
    shares = [report.at_lower, report.between, report.at_upper]
    np.testing.assert_allclose(shares, 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(
        10 ** report.quantiles[[0, 3, -1]], [0.2, 0.25, 0.3], rtol=1e-6
    )


def test_norms_of_large_leaves_keep_their_digits():
    """Added up one after the other, a million squares lose three of them."""
    size = 1_000_003
    params = {"w": jnp.ones(size)}
    g = {"w": 1e-3 * jnp.linspace(1.0, 2.0, size)}
    tx = optjax.monitor(optjax.sgd(0.5), sample=None)
    report = final(tx, params, [g])
    expected = np.linalg.norm(0.5 * np.asarray(g["w"], np.float64)) / np.sqrt(size)
    np.testing.assert_allclose(report["w"].update_ratio, expected, rtol=2e-6)
    np.testing.assert_allclose(report["w"].schedule, 0.5, rtol=1e-6)


def test_a_name_that_all_leaves_share_is_no_group():
    """As Flax linen's "params"."""
    tx = optjax.monitor(optjax.sgd(0.1))
    report = optjax.read_report(tx.init({"params": PARAMS}))
    assert list(report) == ["params/first", "params/second", OVERALL]
    tx = optjax.monitor(optjax.sgd(0.1), groups=0)
    assert list(optjax.read_report(tx.init({"params": PARAMS}))) == [OVERALL]


def test_rates_out_of_the_histogram_are_in_its_first_and_last_bin():
    params = {"tiny": jnp.ones(3), "huge": jnp.ones(1)}
    tx = optjax.monitor(
        optax.partition(
            {"tiny": optjax.sgd(1e-12), "huge": optjax.sgd(1e8)},
            {"tiny": "tiny", "huge": "huge"},
        )
    )
    report = final(tx, params, [params])
    assert report[OVERALL].histogram[0] == 0.75
    assert report[OVERALL].histogram[-1] == 0.25
    assert report[OVERALL].histogram.sum() == 1


# ----------------------------------------------------------------------------------
# The sample


def test_sample_is_spread_evenly_and_in_range():
    random = np.random.default_rng(0)
    for _ in range(300):
        count = random.integers(1, 8)
        sizes = {
            f"leaf{i}": int(10 ** random.uniform(0, 4.5)) * int(random.random() < 0.9)
            for i in range(count)
        }
        names = list(sizes)
        members = {"some": names[: random.integers(0, count + 1)], OVERALL: names}
        most = int(random.integers(1, 500))
        chosen = sample(sizes, members, most)
        for size, positions in zip(sizes.values(), chosen.positions, strict=True):
            assert (np.diff(positions) >= 0).all()
            assert not len(positions) or 0 <= positions[0] <= positions[-1] < size
        starts = np.cumsum([0, *map(len, chosen.positions)])
        for row, group in enumerate(members.values()):
            total = sum(sizes[name] for name in group)
            assert chosen.sizes[row] == min(total, most)
            leaf = chosen.leaf[row, : chosen.sizes[row]]
            place = chosen.place[row, : chosen.sizes[row]]
            assert {names[i] for i in leaf} <= set(group)
            # Where each is in the group's leaves, laid end to end.
            offset = np.cumsum([0, *(sizes[name] for name in group)])
            at = np.sort(
                [
                    offset[group.index(names[i])] + chosen.positions[i][p - starts[i]]
                    for i, p in zip(leaf, place, strict=True)
                ]
            )
            assert len(set(at)) == len(at)
            # One in each of as many equal parts.
            if len(at):
                parts = (at + 1) * len(at) / total
                assert (np.ceil(parts - 1e-9) >= np.arange(len(at)) + 1 - 1e-9).all()
                assert np.abs(parts - np.arange(1, len(at) + 1)).max() <= 1 + 1e-9


def test_sample_does_not_keep_step_with_the_width_of_a_layer():
    """Each column of a matrix gets its share, though the spacing is a multiple."""
    width, height, most = 64, 1024, 1024
    chosen = sample({"w": width * height}, {OVERALL: ["w"]}, most)
    columns = np.bincount(chosen.positions[0] % width, minlength=width)
    assert columns.sum() == most
    # 16 each, binomial.
    assert columns.max() <= 16 + 5 * 4
    assert np.count_nonzero(columns) == width


def test_a_sample_as_long_as_a_power_of_two_is_no_whole_leaf():
    size, most = 16_384, 9_000
    g = np.random.default_rng(3).uniform(1.0, 2.0, size).astype(np.float32)
    bounded = optjax.basic_form(
        optax.identity(),
        optjax.rate_by_accumulated_square(optjax.ema_of_squares(0.0), 0.0),
        1.0,
    )
    tx = optjax.monitor(bounded, sample=most, groups=0)
    report = final(tx, {"w": jnp.ones(size)}, [{"w": jnp.asarray(g)}])[OVERALL]
    (positions,) = sample({"w": size}, {OVERALL: ["w"]}, most).positions
    log_rates = np.sort(-np.log10(g[np.unique(positions)].astype(np.float64)))
    assert len(log_rates) == most
    ranks = np.rint((most - 1) * np.array(PROBABILITIES)).astype(int)
    np.testing.assert_allclose(report.quantiles, log_rates[ranks], atol=2e-6)


def test_sampled_shares_are_within_their_standard_error():
    size, most = 200_000, 1024
    params = {"w": jnp.ones(size)}
    g = {
        "w": jnp.asarray(
            10 ** np.random.default_rng(3).uniform(-3, 0, size), jnp.float32
        )
    }
    reports = []
    for chosen in (most, None):
        bounded = optjax.basic_form(
            optax.identity(),
            optax.chain(
                optjax.rate_by_accumulated_square(optjax.ema_of_squares(0.5), 0.0),
                optax.scale(0.01),
                optjax.bound_clip(0.1, 1.0),
            ),
            1.0,
        )
        tx = optjax.monitor(bounded, sample=chosen, groups=0)
        reports.append(final(tx, params, [g])[OVERALL])
    sampled, full = reports
    # The share of log-uniform gradients on each side of the band is a third.
    error = 0.5 / np.sqrt(most)
    for name in ("at_lower", "between", "at_upper"):
        share = getattr(full, name)
        assert abs(share - 1 / 3) < 0.01
        assert abs(getattr(sampled, name) - share) < 3 * error
    np.testing.assert_allclose(
        np.cumsum(sampled.histogram), np.cumsum(full.histogram), atol=4 * error
    )
    np.testing.assert_allclose(sampled.quantiles[1:-1], full.quantiles[1:-1], atol=0.2)


# ----------------------------------------------------------------------------------
# Wherever the optimizer is


def adabound(learning_rate=0.01, **options):
    numbers = {"b1": B1, "b2": B2, "eps": EPS, "final_lr": FINAL_LR, "gamma": GAMMA}
    return optjax.adabound(learning_rate, **{**numbers, **options})


def monitor(optimizer, **options):
    return optjax.monitor(optimizer, **{"every": 4, "groups": None, **options})


PLAIN = monitor(adabound())


@functools.cache
def reference(steps=STEPS):
    """What most of these tests must find again."""
    return final(PLAIN, grads=GRADS[:steps])


def test_chain_with_clipping():
    clip = optax.clip(0.02)
    clipped = [
        jax.tree.map(lambda g: np.clip(np.asarray(g), -0.02, 0.02), g) for g in GRADS
    ]
    expected = final(PLAIN, grads=clipped)
    assert_same_report(final(optax.chain(clip, monitor(adabound()))), expected)
    assert_same_report(final(monitor(optax.chain(clip, adabound()))), expected)


MASK = {"first": True, "second": False}


def test_masked():
    alone = final(PLAIN, PARAMS["first"], [g["first"] for g in GRADS])
    inside = final(optax.masked(monitor(adabound()), MASK))
    assert list(inside) == ["first/bias", "first/kernel", OVERALL]
    for name in inside:
        same = inside[name]
        np.testing.assert_array_equal(
            same.quantiles, alone[name.removeprefix("first/")].quantiles
        )
    # From outside, the rest is there too, without a rate.
    outside = final(monitor(optax.masked(adabound(), MASK), groups=1))
    assert list(outside) == ["first", "second", OVERALL]
    np.testing.assert_array_equal(outside["first"].quantiles, inside[OVERALL].quantiles)
    np.testing.assert_array_equal(outside[OVERALL].quantiles, inside[OVERALL].quantiles)
    shown = outside["second"]._asdict()
    for field in ("quantiles", "lower", "upper", "at_lower", "schedule", "near_sgd"):
        assert np.isnan(shown[field]).all(), field
    assert shown["histogram"].sum() == 0
    assert shown["sgd_since"] == -1
    # Masked leaves get their gradient as update.
    assert shown["update_ratio"] > 0


def test_partition_of_two_with_bounds_and_schedules_of_their_own():
    parts = {
        "one": adabound(lambda count: 0.01 * 0.5**count, final_lr=0.2),
        "two": adabound(lambda count: 0.01 * 0.9**count, final_lr=3.0, gamma=50.0),
    }
    together = final(
        monitor(optax.partition(parts, {"first": "one", "second": "two"}), groups=1)
    )
    for part, group, decay, limit in (
        ("one", "first", 0.5, 0.2),
        ("two", "second", 0.9, 3.0),
    ):
        grads = [{group: g[group]} for g in GRADS]
        alone = final(monitor(parts[part], groups=0), {group: PARAMS[group]}, grads)
        assert_same(together[group], alone[OVERALL])
        s = decay ** (STEPS - 1)
        np.testing.assert_allclose(together[group].schedule, s, rtol=1e-5)
        np.testing.assert_allclose(together[group].sgd_rate, s * limit, rtol=1e-5)
    assert optjax.transition(together) == {"first": None, "second": 1, OVERALL: None}


def test_multi_steps():
    """Inside it counts the optimizer's steps; from outside it cannot see."""
    grads = [g for g in GRADS[:6] for _ in range(2)]
    tx = optax.MultiSteps(monitor(adabound()), 2).gradient_transformation()
    assert_same_report(final(tx, grads=grads), reference(6))
    outside = monitor(optax.MultiSteps(adabound(), 2).gradient_transformation())
    state = outside.init(PARAMS)
    for update in (outside.update, jit(outside.update)):
        with pytest.raises(
            ValueError, match=r"Put the monitor inside: optax\.MultiSteps"
        ):
            update(GRADS[0], state, PARAMS)


def test_apply_if_finite():
    broken = jax.tree.map(lambda g: g * jnp.nan, GRADS[3])
    tx = optax.apply_if_finite(monitor(adabound()), 3)
    report = final(tx, grads=[*GRADS[:3], broken, GRADS[3]])
    assert_same_report(report, reference(4))
    outside = monitor(optax.apply_if_finite(adabound(), 3))
    with pytest.raises(ValueError, match="cannot see rates inside another"):
        outside.update(GRADS[0], outside.init(PARAMS), PARAMS)


def test_inject_hyperparams_both_ways_round():
    inside = monitor(
        optjax.inject_hyperparams(optjax.adabound)(0.02, B1, B2, EPS, FINAL_LR, GAMMA)
    )
    outside = optjax.inject_hyperparams(
        lambda learning_rate: monitor(adabound(learning_rate))
    )(learning_rate=0.02)
    expected = final(monitor(adabound(0.02)))
    for tx in (inside, outside):
        report = final(tx)
        for name in expected:
            assert_same(report[name], expected[name], rtol=1e-4, atol=1e-5)


def test_stochastic_rounding_inside():
    """The state is in bfloat16, the summaries are not."""
    report = final(monitor(stochastic_rounding(adabound())))
    expected = reference()
    for name in expected:
        ours, theirs = report[name].quantiles, expected[name].quantiles
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, atol=0.01)


def test_compression_around():
    """Its scales are a tree like the monitor's state, and no second monitor."""
    x = {"w": jnp.linspace(0.1, 1.0, 8192)}
    tx = optjax.monitor(optjax.adabound(1e-3, gamma=10.0), every=1)
    _, state = tx.update(x, tx.init(x), x)
    around = optjax.compressed(tx)
    _, compressed = around.update(x, around.init(x), x)
    assert compressed.scales.inner_state is not None
    found, expected = map(optjax.read_report, (compressed, state))
    for got, want in zip(found["w"], expected["w"], strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6)


def test_flatten_and_lookahead_go_around_the_monitor():
    assert_same_report(
        final(optax.flatten(optjax.monitor(adabound(), groups=0))),
        final(optjax.monitor(adabound(), groups=0)),
    )
    tx = monitor(optax.flatten(adabound()))
    with pytest.raises(ValueError, match="arrays that are no parameters"):
        tx.update(GRADS[0], tx.init(PARAMS), PARAMS)
    tx = monitor(optax.lookahead(adabound(), 2, 0.5))
    both = optax.LookaheadParams.init_synced(PARAMS)
    with pytest.raises(ValueError, match="monitor's state has the groups fast/"):
        tx.update(GRADS[0], tx.init(both), both)


def test_an_optimizer_without_a_rate_is_refused():
    tx = monitor(optax.adam(0.1))
    with pytest.raises(ValueError, match="monitor reads V_t where basic_form"):
        tx.update(GRADS[0], tx.init(PARAMS), PARAMS)


class Network(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(3, 4, rngs=rngs)
        self.out = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
        return self.out(jnp.tanh(self.hidden(x)))


INPUTS = jnp.asarray(np.random.default_rng(2).normal(size=(5, 3)), jnp.float32)


def test_nnx_optimizer():
    model = Network(nnx.Rngs(0))
    tx = optjax.monitor(adabound(), every=2, groups=None)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    start = nnx.as_pure(nnx.state(model, nnx.Param))
    structure = jax.tree.structure(nnx.state(optimizer))
    before = optjax.read_report(optimizer.opt_state)
    grads = []

    @nnx.jit
    def step(model, optimizer):
        g = nnx.grad(lambda m: jnp.mean(jnp.square(m(INPUTS))))(model)
        optimizer.update(model, g)
        return nnx.as_pure(g)

    for _ in range(3):
        grads.append(step(model, optimizer))
    report = optjax.read_report(optimizer.opt_state)
    names = ["hidden/bias", "hidden/kernel", "out/bias", "out/kernel", OVERALL]
    assert list(before) == list(report) == names
    assert jax.tree.structure(nnx.state(optimizer)) == structure
    assert_same_report(report, final(tx, dict(start), [dict(g) for g in grads]))


def test_linen_train_state():
    model = linen.Sequential([linen.Dense(4), linen.tanh, linen.Dense(2)])
    variables = model.init(jax.random.key(0), INPUTS)
    state = TrainState.create(
        apply_fn=model.apply,
        params=variables["params"],
        tx=optjax.monitor(optjax.sgd(0.25), every=1),
    )

    @jit
    def step(state):
        def loss(params):
            return jnp.mean(jnp.square(state.apply_fn({"params": params}, INPUTS)))

        return state.apply_gradients(grads=jax.grad(loss)(state.params))

    report = optjax.read_report(step(step(state)))
    assert list(report) == ["layers_0", "layers_2", OVERALL]
    assert report.steps == 2
    np.testing.assert_allclose(10 ** report[OVERALL].quantiles, 0.25, rtol=1e-6)


def test_scan_gives_a_report_over_time():
    tx = monitor(adabound(), every=5)
    states, _, _ = jit(lambda: train(tx))()
    over_time = optjax.stack_reports(optjax.read_report(states))
    assert over_time.steps.tolist() == [1, 5, 10]
    one_by_one = [optjax.read_report(states).at(t - 1) for t in (1, 5, 10)]
    for index, report in enumerate(one_by_one):
        assert_same_report(over_time.at(index), report)
    assert_same_report(over_time.at(1), final(tx, grads=GRADS[:5]))
    assert_same_report(optjax.stack_reports(one_by_one), over_time)
    # Reports that are read more often than made count once.
    again = [report for report in one_by_one for _ in range(3)]
    assert_same_report(optjax.stack_reports(again), over_time)


def test_a_report_for_each_of_several_learning_rates():
    rates = jnp.array([0.003, 0.03, 0.3])

    def run(learning_rate):
        states, _, _ = train(monitor(adabound(learning_rate)))
        return states

    alone = [optjax.read_report(one) for one in map(jit(run), rates)]
    for many in (jax.vmap(run), lambda rates: jax.lax.map(run, rates)):
        report = optjax.read_report(jit(many)(rates))
        assert report.steps.shape == (3, STEPS)
        for index, expected in enumerate(alone):
            for name in expected:
                ours, theirs = report.at(index).at(-1), expected.at(-1)
                assert_same(ours[name], theirs[name], rtol=1e-5)


def test_trials_that_are_due_at_different_steps():
    """Under vmap a trial that is not due keeps its summary and its path."""
    tx = monitor(adabound(), every=3)
    states = jax.device_get(jit(lambda: train(tx))()[0])
    # The state after step 2 is due next, that after step 3 is not.
    both = jax.tree.map(lambda x: x[1:3], states)
    params = jax.tree.map(lambda x: np.stack([x, x]), PARAMS)
    updates, after = jit(jax.vmap(tx.update, (None, 0, 0)))(GRADS[2], both, params)
    assert optjax.read_report(after).steps.tolist() == [3, 3]
    alone = jax.tree.map(lambda x: x[1], both)
    expected, expected_state = jit(tx.update)(GRADS[2], alone, PARAMS)
    chex.assert_trees_all_close(
        jax.tree.map(lambda x: x[1], (updates, after)),
        (expected, expected_state),
        rtol=1e-6,
        atol=1e-7,
    )


SHARDED = """
import re, jax, jax.numpy as jnp, numpy as np, optjax
from jax.sharding import NamedSharding, PartitionSpec
jax.config.update("jax_num_cpu_devices", 2)
assert len(jax.devices()) == 2
mesh = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
random = np.random.default_rng(0)
params = {
    "rows": jnp.asarray(random.normal(size=(2048, 64)), jnp.float32),
    "flat": jnp.asarray(random.normal(size=65536), jnp.float32),
}
tx = optjax.monitor(optjax.adabound(1e-3, gamma=0.5), every=1, sample=256)

def run(params, grads):
    state = tx.init(params)
    step = jax.jit(tx.update)
    for _ in range(3):
        _, state = step(grads, state, params)
    return optjax.read_report(state), step.lower(grads, state, params).compile()

alone, _ = run(params, params)
sharded = jax.device_put(params, NamedSharding(mesh, PartitionSpec("x")))
report, program = run(sharded, sharded)
for name in alone:
    for ours, theirs in zip(report[name], alone[name]):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
text = program.as_text()
assert "all-reduce" in text
for line in text.splitlines():
    if "all-gather" in line:
        shapes = re.findall(r"\\[([0-9,]+)\\]", line.split("all-gather")[0])
        sizes = [np.prod([int(n) for n in shape.split(",")]) for shape in shapes]
        assert max(sizes, default=0) < 4096, line
print("same")
"""


def test_sharded_parameters_are_not_gathered():
    result = run_program(SHARDED)
    assert result.stdout == "same\n", result.stderr


def test_orbax_saves_and_resumes(tmp_path):
    checkpoint = pytest.importorskip("orbax.checkpoint")
    tx = monitor(adabound(), every=4)
    update = jit(tx.update)

    def go_on(state, grads):
        for g in grads:
            _, state = update(g, state, PARAMS)
        return state

    state = go_on(tx.init(PARAMS), GRADS[:5])
    with checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(
            tmp_path / "state", jax.eval_shape(tx.init, PARAMS)
        )
    chex.assert_trees_all_equal(restored, state, strict=True)
    assert_same_report(optjax.read_report(restored), optjax.read_report(state))
    chex.assert_trees_all_equal(
        go_on(restored, GRADS[5:]), go_on(state, GRADS[5:]), strict=True
    )


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.complex64])
def test_dtypes(dtype):
    """Rates and norms are those of the same numbers in float32."""
    cast = functools.partial(jax.tree.map, lambda x: np.asarray(x).astype(dtype))
    back = functools.partial(
        jax.tree.map, lambda x: np.asarray(x).astype(dtype).real.astype(np.float32)
    )
    report = final(PLAIN, cast(PARAMS), [cast(g) for g in GRADS])
    expected = final(PLAIN, back(PARAMS), [back(g) for g in GRADS])
    for name in expected:
        for field in Summary._fields:
            ours, theirs = getattr(report[name], field), getattr(expected[name], field)
            assert ours.dtype == theirs.dtype
            if field not in (
                "histogram",
                "at_lower",
                "between",
                "at_upper",
                "near_sgd",
            ):
                np.testing.assert_allclose(ours, theirs, rtol=0.02, err_msg=field)


def test_phase_of_complex_numbers_does_not_matter():
    turned = functools.partial(
        jax.tree.map,
        lambda x: np.complex64(x * np.exp(1j * np.arange(x.size).reshape(x.shape))),
    )
    report = final(PLAIN, turned(PARAMS), [turned(g) for g in GRADS[:4]])
    expected = reference(4)
    for name in expected:
        for field in ("quantiles", "update_ratio", "at_lower", "upper"):
            np.testing.assert_allclose(
                getattr(report[name], field),
                getattr(expected[name], field),
                rtol=1e-5,
                atol=1e-5,
            )


def test_float64():
    with jax.enable_x64(True):
        wide = functools.partial(jax.tree.map, lambda x: np.asarray(x, np.float64))
        states, _, _ = jit(
            lambda: train(monitor(adabound()), wide(PARAMS), [*map(wide, GRADS)])
        )()
        report = optjax.read_report(states).at(-1)
    for name, expected in reference().items():
        for field in Summary._fields:
            found = getattr(report[name], field)
            assert found.dtype == getattr(expected, field).dtype
            if field != "histogram":
                np.testing.assert_allclose(
                    found, getattr(expected, field), rtol=1e-4, atol=1e-5
                )


def test_none_leaves_and_leaves_of_size_zero_do_not_count():
    def around(tree):
        return {**tree, "nothing": None, "empty": jnp.ones((0, 3)), "list": [None, ()]}

    report = final(PLAIN, around(PARAMS), [*map(around, GRADS)])
    expected = reference()
    assert list(report) == ["empty", *expected]
    assert np.isnan(report["empty"].quantiles).all()
    assert np.isnan(report["empty"].upper)
    for name in expected:
        assert_same(report[name], expected[name])


@pytest.mark.parametrize(
    "params", [{}, {"a": None}, {"a": jnp.ones((0, 2))}], ids=["empty", "None", "zero"]
)
def test_without_coordinates_there_is_nothing_to_report(params):
    tx = monitor(adabound())
    _, state = jit(tx.update)(params, tx.init(params), params)
    report = optjax.read_report(state)
    assert report.steps == 1
    assert np.isnan(report[OVERALL].quantiles).all()
    assert report[OVERALL].histogram.sum() == 0
    assert optjax.transition(report)[OVERALL] is None
    assert "–" in str(report)


@pytest.mark.parametrize("shape", [(), (4,), (2, 2)])
def test_a_lone_array(shape):
    x = jnp.full(shape, 2.0)
    report = final(optjax.monitor(optjax.sgd(0.5), groups=1), x, [x])
    assert list(report) == [OVERALL]
    np.testing.assert_allclose(10 ** report[OVERALL].quantiles, 0.5, rtol=1e-6)
    np.testing.assert_allclose(report[OVERALL].update_ratio, 0.5, rtol=1e-6)


def test_nan_gradients_do_not_hide():
    """They are in no share, above all quantiles, and other groups are as before."""
    broken = {**GRADS[0], "first": {**GRADS[0]["first"]}}
    broken["first"]["bias"] = broken["first"]["bias"].at[1:3].set(jnp.nan)
    report = final(PLAIN, grads=[broken])
    expected = reference(1)
    for name in ("first/kernel", "second/kernel", "second/scale"):
        assert_same(report[name], expected[name])
    hit = report["first/bias"]
    assert np.isfinite(hit.quantiles[:3]).all()
    assert np.isnan(hit.quantiles[-2:]).all()
    np.testing.assert_allclose(hit.histogram.sum(), 0.6)
    np.testing.assert_allclose(hit.at_lower + hit.between + hit.at_upper, 0.6)
    assert np.isnan(hit.update_ratio)
    assert "–" in str(report)


def test_a_negative_rate_is_unknown_but_looked_at():
    """-1 is no rate as NaN is none, and not what fills up a row."""
    params = {"up": np.ones(2, np.float32), "down": np.ones(3, np.float32)}
    ways = {"up": optjax.sgd(lambda _: -1.0), "down": optjax.sgd(0.5)}
    report = final(
        monitor(optax.partition(ways, {n: n for n in ways})), params, [params]
    )
    assert np.isnan(report["up"].quantiles).all()
    assert report["up"].near_sgd == 1
    np.testing.assert_allclose(report["down"].quantiles, np.log10(0.5), rtol=1e-6)


def test_without_params_the_ratio_alone_is_unknown():
    tx = monitor(adabound())
    _, state = tx.update(GRADS[0], tx.init(PARAMS))
    report = optjax.read_report(state)
    expected = reference(1)
    for name in expected:
        assert np.isnan(report[name].update_ratio)
        np.testing.assert_allclose(
            report[name].quantiles, expected[name].quantiles, rtol=1e-5
        )


def test_derivative_with_respect_to_a_hyperparameter():
    """In both modes equal to that without a monitor."""

    def loss(learning_rate, wrap):
        _, _, params = train(wrap(adabound(learning_rate)), grads=GRADS[:4])
        return sum(jnp.sum(jnp.square(x[-1])) for x in jax.tree.leaves(params))

    expected = jit(jax.grad(lambda lr: loss(lr, lambda tx: tx)))(0.01)
    assert abs(expected) > 0
    for every in (0, 2):

        def monitored(lr, every=every):
            return loss(lr, functools.partial(monitor, every=every))

        slope = jit(jax.grad(monitored))(0.01)
        _, tangent = jax.jvp(jit(monitored), (0.01,), (1.0,))
        np.testing.assert_allclose([slope, tangent], expected, rtol=1e-5)


# ----------------------------------------------------------------------------------
# The transition


@pytest.mark.parametrize("gamma", [0.5, 1.0, 4.0])
def test_adabound_is_sgd_from_the_step_of_the_closed_form(gamma):
    """hi_t ≤ 1.1 f from t = 10/γ on, and f/1.1 ≤ lo_t from t = 10/γ too."""
    params = {"slow": jnp.ones(2), "fast": jnp.ones(2)}
    # Rates far below and far above the band.
    g = {"slow": jnp.full(2, 1e3), "fast": jnp.full(2, 1e-6)}
    tx = optjax.monitor(optjax.adabound(1e-3, gamma=gamma, eps=1e-12), every=1)
    expected = round(10 / gamma)
    report = final(tx, params, [g] * (expected + 3))
    # Both ends meet the factor exactly at that step: rounding decides.
    for name, step in optjax.transition(report).items():
        assert step in (expected, expected + 1), name
    early = final(tx, params, [g] * (expected - 1))
    assert set(optjax.transition(early).values()) == {None}


def test_transition_is_taken_back_where_the_share_falls():
    """A rate inside the factor by chance is not SGD for good."""
    bounded = optjax.adabound(1.0, b1=0.0, b2=0.0, eps=0.0, final_lr=0.1, gamma=0.02)
    # With b2 = 0 the rate is 1/|g| where the band, [0.002 t, 0.1 + 5/t], is wide.
    sizes = [10.0, 10.0, 10.0, 1.0, 10.0, 10.0]
    tx = optjax.monitor(bounded, every=1)
    states, _, _ = jit(
        lambda: train(tx, {"w": jnp.ones(3)}, [{"w": jnp.full(3, g)} for g in sizes])
    )()
    since = optjax.read_report(states)["w"].sgd_since.tolist()
    assert since == [1, 1, 1, -1, 5, 5]


@pytest.mark.parametrize(("share", "since"), [(0.5, 1), (0.75, 1), (0.8, -1)])
def test_share_is_that_of_coordinates(share, since):
    tx = optjax.monitor(
        optjax.adabound(1.0, b1=0.0, b2=0.0, eps=0.0, final_lr=0.1, gamma=0.02),
        share=share,
    )
    g = {"w": jnp.array([10.0, 10.0, 10.0, 1.0])}
    report = final(tx, g, [g])
    assert report["w"].near_sgd == 0.75
    assert report["w"].sgd_since == since


def test_sgd_is_sgd_and_adam_never():
    small, grads = {"w": jnp.ones(3)}, [{"w": jnp.ones(3)}] * 3
    for name in ("sgd", "nesterov"):
        report = final(monitor(optjax.OPTIMIZERS[name].factory(0.3)), small, grads)
        assert set(optjax.transition(report).values()) == {1}
        np.testing.assert_allclose(report[OVERALL].sgd_rate, 0.3, rtol=1e-6)
    for name in ("adam", "adamod"):
        tx = optjax.monitor(optjax.OPTIMIZERS[name].factory(0.3), every=1)
        report = final(tx, small, grads)
        assert set(optjax.transition(report).values()) == {None}
        assert np.isnan(report[OVERALL].sgd_rate)
        assert report[OVERALL].lower == 0
        # AdaMod's rate has a limit, its own average; Adam's has none.
        assert np.isinf(report[OVERALL].upper) == (name == "adam")


def test_swats_is_sgd_after_its_switch():
    tx = optjax.monitor(optjax.swats(0.05, b1=0.8, b2=0.95, eps=0.5), every=1)
    states, _, _ = jit(lambda: train(tx))()
    report = optjax.read_report(states)
    (inner,) = (
        node
        for node in jax.tree.leaves(
            states.inner_state, is_leaf=lambda n: hasattr(n, "switched_at")
        )
        if hasattr(node, "switched_at")
    )
    switched = int(inner.switched_at[-1])
    assert 0 < switched < STEPS - 1
    # Its rate is Λ from the next step on.
    assert optjax.transition(report)[OVERALL] == switched + 1
    np.testing.assert_allclose(
        report[OVERALL].sgd_rate[-1], inner.sgd_rate[-1], rtol=1e-6
    )
    assert np.isnan(report[OVERALL].sgd_rate[:switched]).all()


# ----------------------------------------------------------------------------------
# Reading, printing and errors


def test_print_is_a_table():
    text = str(final(optjax.monitor(adabound(), every=1)))
    head, columns, *rows = text.splitlines()
    rows, notes = rows[:3], rows[3:]
    assert [note.split("=")[0] for note in notes[:1]] == ["final_lr"]
    assert head == f"step {STEPS}"
    assert columns.split("  ")[0] == "group"
    assert [row.split()[0] for row in rows] == ["first", "second", OVERALL]
    assert max(map(len, text.splitlines())) <= 110
    assert len({len(line) for line in [columns, *rows]}) == 1


def test_print_before_the_first_step():
    state = monitor(adabound()).init(PARAMS)
    assert str(optjax.read_report(state)) == "no step has been summarised yet"


def test_one_monitor_must_be_in_the_state():
    with pytest.raises(ValueError, match=r"found 0\. Wrap the optimizer"):
        optjax.read_report(adabound().init(PARAMS))
    two = optax.chain(monitor(adabound()), monitor(optjax.sgd(1.0)))
    with pytest.raises(ValueError, match=r"found 2\. Hand over the part"):
        optjax.read_report(two.init(PARAMS))


def test_a_group_that_is_not_there_is_named():
    report = final(PLAIN, grads=GRADS[:1])
    with pytest.raises(KeyError, match="no group 'third'; there are first/bias"):
        report["third"]


def test_reports_over_trials_are_not_over_time():
    reports = optjax.read_report(
        jax.tree.map(
            lambda x: jnp.broadcast_to(x, (2, 3, *x.shape)),
            monitor(adabound()).init(PARAMS),
        )
    )
    with pytest.raises(ValueError, match=r"one leading axis, time.*\(2, 3\)"):
        optjax.stack_reports(reports)
    with pytest.raises(ValueError, match="at least one report"):
        optjax.stack_reports([])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": -1}, "every must be an integer >= 0, got -1"),
        ({"every": 1.5}, r"every must be an integer >= 0, got 1\.5"),
        ({"every": True}, "every must be an integer"),
        ({"sample": 0}, "sample must be None or an integer >= 1, got 0"),
        ({"groups": -1}, "groups must be .* an integer >= 0, got -1"),
        ({"groups": "layer"}, "groups must be .* an integer >= 0, got 'layer'"),
        ({"share": 1.5}, r"share must be in \[0, 1\], got 1.5"),
        ({"factor": 0.9}, "factor must be finite and >= 1, got 0.9"),
        ({"factor": float("nan")}, "factor must be .*got nan"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        optjax.monitor(optjax.sgd(0.1), **options)


def test_bad_groups():
    with pytest.raises(ValueError, match=r"a string, got 3 for 'first/bias'"):
        optjax.monitor(optjax.sgd(0.1), groups=lambda name: 3).init(PARAMS)
    with pytest.raises(ValueError, match="'overall' is the group of all leaves"):
        optjax.monitor(optjax.sgd(0.1)).init({"overall": jnp.ones(2), "b": jnp.ones(2)})
    twice = {"a/b": jnp.ones(2), "a": {"b": jnp.ones(2)}}
    with pytest.raises(ValueError, match=r"two are called 'a/b'"):
        optjax.monitor(optjax.sgd(0.1)).init(twice)
    tx = optjax.monitor(optjax.sgd(0.1))
    with pytest.raises(ValueError, match="has the groups first, second, overall, and"):
        tx.update({"first": GRADS[0]["first"]}, tx.init(PARAMS), PARAMS)
