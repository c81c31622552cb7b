"""More steps of a finished sweep: its trials go on from the states that it kept."""

import contextlib
import itertools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from counting import count_in_numpy
from drawn import numbers
from sweep_worker import KEYWORDS, SPACE, init, step

from optjax import sweep
from optjax.sweep import SweepError
from optjax.sweep._errors import DamagedError
from optjax.sweep._store import keep
from optjax.sweep._store.keep import Keeper
from optjax.sweep._store.store import Store

pytest.importorskip("orbax.checkpoint")
pytestmark = pytest.mark.usefixtures("cheaply_compiled")

RULELESS = {**KEYWORDS, "stopping": None, "keep": "all"}
SMALL = {"optimizer": "adam", "learning_rate": [0.01, 0.1]}


def run(out, space=SPACE, trial=(init, step), **options):
    return sweep.run(trial, space, out=out, **{**RULELESS, **options})


def sorted_curves(out):
    header, *lines = (out / "curves.csv").read_text().splitlines()
    order = [tuple(map(int, line.split(",")[:4:3])) for line in lines]
    assert len({*order}) == len(order)
    return header, [line for _, line in sorted(zip(order, lines, strict=True))]


def same_tables(out, other):
    assert (out / "results.csv").read_bytes() == (other / "results.csv").read_bytes()
    assert sorted_curves(out) == sorted_curves(other)


def same_states(result, other):
    assert result.kept.keys() == other.kept.keys() == {*result.kept}
    for number in result.kept:
        one, two = (r.restore(r.records[number]) for r in (result, other))
        for a, b in zip(*map(jax.tree.leaves, (one, two)), strict=True):
            if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
                a, b = map(jax.random.key_data, (a, b))
            np.testing.assert_array_equal(a, b)


def test_it_equals_the_sweep_of_so_many_steps_to_the_last_byte(tmp_path):
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    want = run(fresh, steps=180)
    seen, ended = [], []
    shorter = run(out)
    before = (out / "curves.csv").read_bytes()
    got = run(out, steps=180, progress=seen.append, callbacks=[ended.append])
    same_tables(out, fresh)
    assert got.records == want.records
    # Nothing that was measured is touched, and only what is new is run.
    assert (out / "curves.csv").read_bytes().startswith(before)
    finished = [r for r in shorter.records if r.status == sweep.FINISHED]
    assert 0 < len(finished) < len(shorter.records)
    assert max(status.steps for status in seen) == 90 * len(finished)
    assert seen[-1].most_steps_left == 0
    assert sorted(record.trial.number for record in ended) == [*range(24)]
    assert len(got.kept) == len(finished)
    same_states(got, want)
    assert [path.name for path in (out / "sweep" / "kept").iterdir()] == ["180"]
    # It is finished as any other.
    again = run(out, steps=180)
    assert again.finished_before
    assert again == sweep.SweepResult.load(out)
    with pytest.raises(SweepError, match="another sweep: steps were 180 and are 90; c"):
        run(out)


def test_it_grows_in_every_way_and_again(tmp_path):
    def hyper_step(state, optimizer, *, curvature=1.0):
        x, opt_state = state
        loss, gradient = jax.value_and_grad(lambda x: curvature * jnp.sum(x**2))(x)
        updates, opt_state = optimizer.update(gradient, opt_state, x)
        return (optax.apply_updates(x, updates), opt_state), {"loss": loss}

    def hyper_init(key, optimizer):
        x = numbers(key, 3).astype(jnp.bfloat16)
        return x, optimizer.init(x)

    def grown(out, **options):
        # The numbers are the optimizer's and the trial's own.
        space = {**SMALL, "curvature": [0.5, 1.0]}
        return run(out, space, (hyper_init, hyper_step), **options)

    out = tmp_path / "out"
    grown(out, steps=30)
    grown(out, steps=60, seeds=3)
    grown(out, steps=60, seeds=4)
    got = grown(out, steps=90, seeds=4)
    want = grown(tmp_path / "fresh", steps=90, seeds=4)

    def curves(result):
        return sorted(
            (*r.trial.config.hyper.items(), r.trial.seed, r.curve.values["loss"])
            for r in result.records
        )

    assert curves(got) == curves(want)
    assert {record.steps for record in got.records} == {90}
    saved = json.loads((out / "sweep" / "sweep.json").read_text())
    assert saved["generations"] == [8, 4, 4]
    assert grown(out, steps=90, seeds=4).finished_before


def test_lanes_together_differ_as_they_do_alone(tmp_path):
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    together = {"space": SMALL, "strategy": "vmap", "lanes": 3, "seeds": 3}
    run(out, steps=45, **together)
    got, want = (run(to, steps=90, **together) for to in (out, fresh))
    for one, other in zip(got.records, want.records, strict=True):
        assert one.steps == other.steps == 90
        np.testing.assert_allclose(
            one.curve.values["loss"], other.curve.values["loss"], rtol=1e-5
        )


def test_what_cannot_go_on_is_refused_in_words(tmp_path):
    def refused(out, words, **options):
        before = contents(out)
        with pytest.raises(SweepError, match=words):
            run(out, SMALL, **options)
        assert contents(out) == before

    out = tmp_path / "some"
    run(out, SMALL, keep=3)
    words = (
        r"another sweep: steps were 90 and are 180; .* those of 1 of 4 were not kept "
        r"\(keep='all'\).* begins again, 4 trials of 180 updates: choose"
    )
    refused(out, words, keep=3, steps=180)
    refused(out, "steps were 90 and are 45; choose", keep=3, steps=45)
    refused(
        out, "180; mode was min and is max; a longer", keep=3, steps=180, mode="max"
    )

    out = tmp_path / "stopped"
    halving = sweep.SuccessiveHalving(min_steps=30)
    run(out, SMALL, stopping=halving)
    words = r"90 and are 180; what SuccessiveHalving\(.*\) stops may be other trials"
    refused(out, words, stopping=halving, steps=180)

    out = tmp_path / "unfinished"

    def interrupt(status):
        raise KeyboardInterrupt

    with pytest.raises(sweep.Interrupted):
        run(out, SMALL, progress=interrupt)
    refused(out, "has not come: run it first, with steps=90", steps=180)


def test_a_schedule_over_the_steps_is_another_sweep(tmp_path):
    space = {**SMALL, "schedule": "cosine"}
    run(tmp_path, space)
    words = (
        "another sweep: the training step differs; steps were 90 and are 180; a longer "
        "run goes on where nothing else differs, and a schedule"
    )
    with pytest.raises(SweepError, match=words):
        run(tmp_path, space, steps=180)


class RandomSearch:
    batch = 2

    def begin(self, dimensions, seed):
        return self

    def ask(self, count):
        return np.linspace(0, 1, count)[:, None]

    def tell(self, values):
        pass


def test_a_search_is_another(tmp_path):
    space = {"optimizer": "adam", "learning_rate": sweep.log_uniform(0.01, 0.1)}
    more = {"search": RandomSearch(), "draws": 2, "seeds": 1}
    run(tmp_path, space, **more)
    with pytest.raises(SweepError, match="what RandomSearch proposes may be other"):
        run(tmp_path, space, steps=180, **more)


def test_a_state_that_was_changed_is_refused(tmp_path):
    import orbax.checkpoint

    result = run(tmp_path, SMALL)
    path = result.kept[2]
    seal = (path / "digest.json").read_bytes()
    with orbax.checkpoint.PyTreeCheckpointer() as checkpointer:
        leaves = checkpointer.restore(path.absolute())
        leaves["['x']"] = leaves["['x']"] + np.float32(1e-6)
        checkpointer.save(path.absolute(), leaves, force=True)
    (path / "digest.json").write_bytes(seal)
    with pytest.raises(DamagedError, match="trial-000002 is damaged: it was changed"):
        run(tmp_path, SMALL, steps=180)
    with pytest.raises(DamagedError, match="trial-000002 is damaged: it was changed"):
        result.restore(result.records[2])


# Programs and states of NumPy from here on, so that every moment can be the last one.


def count_init(key, optimizer):
    return {"x": jnp.zeros(2)}


def count_step(state, optimizer):
    return state, {"loss": jnp.sum(state["x"])}


class InNumpy:
    """What a sweep calls of `orbax.checkpoint`."""

    def PyTreeCheckpointer(self):
        return contextlib.nullcontext(self)

    def save(self, path, leaves, *, force):
        path.mkdir(parents=True, exist_ok=True)
        np.savez(path / "leaves.npz", **leaves)

    def restore(self, path):
        return dict(np.load(path / "leaves.npz"))


class Killed(Exception):
    """Ends a sweep where no handler is."""


@pytest.fixture
def counted(monkeypatch, tmp_path):
    """Runs sweeps that die when so many writes are done, and says how many were."""
    count_in_numpy(monkeypatch)
    monkeypatch.setattr(keep, "_orbax", InNumpy)
    writes, last = itertools.count(), [None]

    def dying(owner, name):
        method = getattr(owner, name)

        def write(*args, **keywords):
            if next(writes) == last[0]:
                raise Killed
            return method(*args, **keywords)

        monkeypatch.setattr(owner, name, write)

    for owner, name in [
        (Store, "append"),
        (Store, "save_states"),
        (Store, "commit"),
        (Store, "_write_identity"),
        (Keeper, "_save"),
        (Keeper, "prune"),
        (Keeper, "prune_shorter"),
    ]:
        dying(owner, name)

    def run(out, steps, *, writes_left=None):
        nonlocal writes
        writes, last[0] = itertools.count(), writes_left
        sweep.run(
            (count_init, count_step),
            {"optimizer": ["sgd", "adam"], "learning_rate": [0.1, 1e9, 1e21]},
            **{**RULELESS, "steps": steps, "evaluate_every": 1, "lanes": 1, "seeds": 1},
            out=out,
            call_seconds=0.0,
            checkpoint_seconds=0.0,
        )
        return next(writes)

    return run


def contents(directory):
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name not in ("lock", "times.json")
    }


def test_killed_at_any_write_it_comes_to_the_same_end(counted, tmp_path):
    shorter, longer, fresh = (tmp_path / name for name in ("short", "long", "fresh"))
    counted(shorter, 2)
    counted(fresh, 4)
    shutil.copytree(shorter, longer)
    moments = counted(longer, 4)
    same_tables(longer, fresh)
    assert moments > 20
    for moment in range(moments):
        out = tmp_path / f"killed-{moment}"
        shutil.copytree(shorter, out)
        with pytest.raises(Killed):
            counted(out, 4, writes_left=moment)
        results = (out / "results.csv").read_bytes()
        if moment == 1:
            # Taken for known, but not yet longer: it is the shorter one still.
            as_before = tmp_path / "as-before"
            shutil.copytree(out, as_before)
            counted(as_before, 2)
            assert (as_before / "results.csv").read_bytes() == results
            counted(as_before, 4)
            same_tables(as_before, fresh)
        records = sweep.SweepResult.load(out).records
        assert {r.status for r in records} <= {sweep.FINISHED, sweep.DIVERGED}
        counted(out, 4)
        same_tables(out, fresh)
        kept = sweep.SweepResult.load(out).kept
        assert [*kept] == [0, 3]
        assert {path.parent.name for path in kept.values()} == {"4"}


def test_damaged_lanes_of_a_longer_run_begin_again(counted, tmp_path):
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    counted(out, 3)
    counted(fresh, 6)
    with pytest.raises(Killed):
        counted(out, 6, writes_left=10)
    (states,) = (out / "sweep" / "states").iterdir()
    states.write_bytes(b"")
    with pytest.warns(UserWarning, match="begins again"):
        counted(out, 6)
    same_tables(out, fresh)
