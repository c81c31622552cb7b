"""A directory knows what it trained, and refuses everything else by name."""

import functools
import json
import os
import subprocess

import identity_worker
import jax
import jax.numpy as jnp
import numpy as np
import optax
import processes
import pytest
import ready
from identity_worker import digests

import optjax
from optjax import sweep
from optjax.sweep import Status
from optjax.sweep._engine.groups import TrialGroup, make_groups
from optjax.sweep._engine.plan import Plan
from optjax.sweep._store import fingerprint as fingerprints
from optjax.sweep._store import identity as identities
from optjax.sweep._store.identity import check_same

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

TARGETS = np.linspace(-1.0, 1.0, 24, dtype=np.float32)
LETTERS = np.frombuffer(b"the quick brown fox jumps over it", np.uint8)
SPACE = {"optimizer": ["sgd", "momentum"], "learning_rate": [0.01, 0.1]}
KEYWORDS = {
    "steps": 4,
    "evaluate_every": 1,
    "metric": "loss",
    "mode": "min",
    "seeds": 2,
    "strategy": "map",
    "progress": False,
    "checkpoint_seconds": 0.0,
    "call_seconds": 0.0,
}


def trial(
    *, scale=1.0, start=1.0, shift=0.0, data=TARGETS, text=LETTERS, dtype=jnp.float32
):
    """Functions that compute something else with each argument."""

    def init(key, optimizer):
        x = start * jax.random.normal(key, data.shape)
        return x, optimizer.init(x)

    def step(state, optimizer):
        x, opt_state = state
        weights = jnp.asarray(text)[: x.size].astype(jnp.float32) / 256

        def loss_of(x):
            off = (x - jnp.asarray(data)).astype(dtype)
            return scale * jnp.mean(weights.astype(dtype) * off**2).astype(x.dtype)

        loss, gradient = jax.value_and_grad(loss_of)(x)
        updates, opt_state = optimizer.update(gradient, opt_state, x)
        return (optax.apply_updates(x, updates), opt_state), {"loss": loss}

    def evaluate(state):
        return {"size": jnp.sum(state[0] ** 2) + shift}

    return init, step, evaluate


def run(out, made=None, space=SPACE, **keywords):
    return sweep.run(made or trial(), space, out=out, **{**KEYWORDS, **keywords})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("identity") / "finished"
    run(out)
    return out


def scaled_sgd(learning_rate):
    return optax.chain(optax.scale(3.0), optax.sgd(learning_rate))


OTHER_PROGRAMS = {
    "another loss": ({"scale": 100.0}, "the training step differs"),
    "another start": ({"start": 2.0}, "the initialisation differs"),
    "another evaluation": ({"shift": 1.0}, "the evaluation differs"),
    "other data": ({"data": TARGETS[::-1]}, "other data"),
    "one number of the data": ({"data": TARGETS + (np.arange(24) == 20)}, "other data"),
    "another text": ({"text": LETTERS[::-1]}, "other data"),
    "fewer data": ({"data": TARGETS[:20]}, "other data; the initialisation differs"),
    "another dtype": ({"dtype": jnp.bfloat16}, "the training step differs"),
}


@pytest.mark.parametrize("change", OTHER_PROGRAMS)
def test_another_program_is_refused_by_what_differs(finished, change):
    arguments, words = OTHER_PROGRAMS[change]
    with pytest.raises(sweep.SweepError) as caught:
        run(finished, trial(**arguments))
    message = str(caught.value)
    assert message.startswith(f"{finished} holds another sweep: {words}")
    assert message.endswith("; choose another out= (--out), or delete it")


def test_what_differs_is_all_that_is_named(finished):
    with pytest.raises(sweep.SweepError) as caught:
        run(finished, trial(data=TARGETS[::-1]))
    assert str(caught.value).partition("sweep: ")[2].startswith("other data; choose")


OTHER_SETTINGS = {
    "seeds": ({"seeds": 1}, "seeds were 0, 1 and are 0"),
    "seeds by name": ({"seeds": (4, 5)}, "seeds were 0, 1 and are 4, 5"),
    "steps": ({"steps": 8}, "steps were 4 and are 8"),
    "evaluations": ({"evaluate_every": 2}, "evaluate every was 1 and is 2"),
    "metric": ({"metric": "size"}, "metric was loss and is size"),
    "mode": ({"mode": "max"}, "mode was min and is max"),
    "strategy": ({"strategy": "vmap"}, "strategy was map and is vmap"),
    "lanes": ({"lanes": 1}, "lanes were 4, 4 and are 1, 1"),
    "compiler options": (
        {"compiler_options": {"xla_backend_optimization_level": "1"}},
        "compiler options were none and are xla_backend_optimization_level=1",
    ),
    "stopping": (
        {"stopping": sweep.SuccessiveHalving(1, 2)},
        "stopping was none and is SuccessiveHalving(min_steps=1, eta=2)",
    ),
    "a factory": (
        {
            "factories": {
                "sgd": scaled_sgd,
                "momentum": optjax.OPTIMIZERS["momentum"].factory,
            }
        },
        "the training step of sgd differs",
    ),
    "words": ({"about": {"recipe": "mine"}}, "recipe was none and is mine"),
    "optimizers": (
        {"space": {**SPACE, "optimizer": ["sgd", "adam"]}},
        "optimizers were sgd, momentum and are sgd, adam",
    ),
    "values": (
        {"space": {**SPACE, "learning_rate": [0.01, 0.2]}},
        "learning rate was 0.01, 0.1 and is 0.01, 0.2",
    ),
}


@pytest.mark.parametrize("change", OTHER_SETTINGS)
def test_other_settings_are_refused_by_what_they_were(finished, change):
    keywords, words = OTHER_SETTINGS[change]
    with pytest.raises(sweep.SweepError) as caught:
        run(finished, **keywords)
    assert f" holds another sweep: {words}; " in str(caught.value) + " "


def test_another_constant_schedule_is_another_sweep(tmp_path):
    # A static value that is a function has no words of its own.
    def space(rate):
        schedule = optax.constant_schedule(rate)
        return {"optimizer": ["sgd"], "learning_rate": [schedule]}

    run(tmp_path, space=space(0.001))
    assert run(tmp_path, space=space(0.001)).finished_before
    with pytest.raises(sweep.SweepError, match="the training step differs"):
        run(tmp_path, space=space(0.5))


def test_killed_midway_it_does_not_go_on_with_another_loss(tmp_path):
    def interrupt(status):
        if status.optimizer == "momentum":
            raise KeyboardInterrupt

    with pytest.raises(sweep.Interrupted):
        run(tmp_path, progress=interrupt)
    with pytest.raises(sweep.SweepError, match="the training step differs"):
        run(tmp_path, trial(scale=1000.0))
    assert len(run(tmp_path).records) == 8


def test_a_finished_sweep_run_again_compiles_and_times_nothing(tmp_path, monkeypatch):
    first = run(tmp_path, strategy="auto")
    assert not first.finished_before
    monkeypatch.setattr(TrialGroup, "compile", lambda *_: pytest.fail("it compiled"))
    seen: list[Status] = []
    again = run(tmp_path, strategy="auto", progress=seen.append)
    assert again.finished_before
    assert again.records == first.records
    assert [(s.done, s.total, s.steps, s.running) for s in seen] == [(8, 8, 0, 0)]


def test_other_versions_are_named_and_can_be_gone_on_with(tmp_path, monkeypatch):
    def interrupt(status):
        if status.optimizer == "momentum":
            raise KeyboardInterrupt

    ours = identities._versions()

    def under(**versions):
        monkeypatch.setattr(identities, "_versions", lambda: {**ours, **versions})

    under(jax="0.10.2")
    with pytest.raises(sweep.Interrupted):
        run(tmp_path, progress=interrupt)
    under(jax="0.12.0")
    with pytest.raises(sweep.SweepError) as caught:
        run(tmp_path)
    assert "begun with other versions: jax 0.10.2 and now 0.12.0. " in str(caught.value)
    assert "other_versions=True (--other-versions)" in str(caught.value)
    # The flag is for versions alone: whatever can still be compared is.
    for other, words in (
        ({"made": trial(data=TARGETS[::-1])}, "other data; jax 0.10.2 and now 0.12.0"),
        ({"seeds": 1}, "seeds were 0, 1 and are 0; jax"),
        ({"about": {"task": "other"}}, "task was none and is other; jax"),
    ):
        with pytest.raises(sweep.SweepError, match=words):
            run(tmp_path, other_versions=True, **other)
    # As if another version traced the same function to another program.
    assert len(run(tmp_path, trial(scale=2.0), other_versions=True).records) == 8
    # Both are known from now on, each by its own programs.
    assert run(tmp_path, trial(scale=2.0)).finished_before
    with pytest.raises(sweep.SweepError, match="the training step differs; choose"):
        run(tmp_path)
    under(jax="0.10.2")
    assert run(tmp_path).finished_before
    under(jax="0.12.0", flax="9")
    with pytest.raises(sweep.SweepError, match=r"flax .* and now 9"):
        run(tmp_path)


def test_the_libraries_that_make_the_numbers_are_recorded():
    versions = identities._versions()
    assert {"jax", "jaxlib", "flax", "optax", "optjax", "python"} == set(versions)
    assert versions["jax"] == jax.__version__
    assert versions["optjax"] == optjax.__version__


def test_a_directory_of_another_layout_is_refused(tmp_path):
    for saved in ({"format": 1, "trials": []}, [], {}):
        with pytest.raises(sweep.SweepError, match="of another version of optjax"):
            check_same(saved, {"format": 2}, tmp_path)


def test_words_must_be_texts(tmp_path):
    with pytest.raises(sweep.SweepError, match=r"of names to texts, got .'a': 1"):
        run(tmp_path, about={"a": 1})


def test_words_are_in_the_result(tmp_path):
    assert run(tmp_path, about={"task": "toy"}).about["task"] == "toy"


def test_every_process_works_out_the_same(tmp_path):
    """Another with another hash seed, in another directory, and this one."""
    program = "import json, identity_worker as w; print(json.dumps(w.everyones()))\n"
    done = subprocess.run(
        [*ready.python(), "-c", program + "print(hash('optjax'))"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, **processes.ENVIRONMENT},
    )
    everyones, seeded = done.stdout.splitlines()
    assert int(seeded) != hash("optjax")
    one = json.loads(everyones)
    assert one == identity_worker.everyones()
    # And trials that differ have digests that do.
    for name in ("init", "step", "evaluate", "state"):
        of_all = [digests[name] for key, digests in one.items() if key != "bfloat16"]
        assert len(set(of_all)) == len(of_all)
    assert one["bfloat16"]["step"] != one["mlp"]["step"]
    assert one["bfloat16"]["data"] == one["mlp"]["data"]
    assert [len(one[name]["data"]) for name in ("digits", "characters")] == [4, 4]


# Each a pair of evaluations. What the host computes counts, and nothing else of it.
def shape_of(x):
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


def by_host(call, primitive=jax.pure_callback):
    return lambda x: primitive(call, shape_of(x), x)


def plus(number):
    return lambda x: x + number


def helped_by(helper):
    scope = {"helper": helper}
    exec("def call(x):\n    return helper(x)", scope)
    return scope["call"]


class Counting:
    """What the host computes with something that changes."""

    def __init__(self, number=0.0):
        self.number = number
        self.seen = []

    @functools.cached_property
    def shape(self):
        return ()

    def __call__(self, x):
        self.seen.append(x)
        return x + np.float32(self.number)


class Counted(Counting):
    def __call__(self, x):
        return 2 * super().__call__(x)


def asked(counting):
    assert counting.shape == ()
    return counting


def grown(counting):
    counting(np.float32(0.0))
    return counting


def printing(text):
    def f(x):
        jax.debug.print(text, x)
        return x

    return f


def reading(array):
    return lambda x: x + jnp.sum(jnp.asarray(array) * x)


def differentiated(rule):
    @jax.custom_jvp
    def f(x):
        return 2 * x

    f.defjvp(rule)
    return f


def named(name, f):
    def call(x):
        return f(x)

    call.__name__ = name
    return jax.jit(call)


LONG = np.arange(64, dtype=np.float32)

SAME = {
    "a function made anew": (by_host(plus(1)), by_host(plus(1))),
    "a helper made anew": (by_host(helped_by(plus(1))), by_host(helped_by(plus(1)))),
    "a cached property": (by_host(Counting()), by_host(asked(Counting()))),
    "what an effect remembers": (
        by_host(Counting(), jax.experimental.io_callback),
        by_host(grown(Counting()), jax.experimental.io_callback),
    ),
    "what is printed": (printing("{}"), printing("now {}")),
    "a name": (named("one", jnp.sin), named("other", jnp.sin)),
    "a rule for derivatives": (
        differentiated(lambda x, t: (2 * x[0], 2 * t[0])),
        differentiated(lambda x, t: (2 * x[0], 3 * t[0])),
    ),
    "where an array lies": (reading(LONG), reading(LONG.copy())),
    "the layout of an array": (
        reading(LONG.reshape(8, 8)),
        reading(np.asfortranarray(LONG.reshape(8, 8))),
    ),
    "who holds an array": (reading(LONG), reading(jnp.asarray(LONG))),
}
OTHER = {
    "code": (by_host(plus(1)), by_host(lambda x: x - 1)),
    "what a closure holds": (by_host(plus(1)), by_host(plus(2))),
    "what a closure holds, of an effect": (
        by_host(plus(1), jax.experimental.io_callback),
        by_host(plus(2), jax.experimental.io_callback),
    ),
    "an array that a closure holds": (by_host(plus(LONG)), by_host(plus(LONG + 1))),
    "a partial": (
        by_host(functools.partial(np.add, np.float32(1))),
        by_host(functools.partial(np.add, np.float32(2))),
    ),
    "a default": (by_host(lambda x, y=1: x + y), by_host(lambda x, y=2: x + y)),
    "a helper": (by_host(helped_by(plus(1))), by_host(helped_by(plus(2)))),
    "an object": (by_host(Counting(1.0)), by_host(Counting(2.0))),
    "a method": (by_host(Counting().__call__), by_host(Counted().__call__)),
    "a class": (by_host(Counting()), by_host(Counted())),
    "a library's function": (by_host(np.sin), by_host(np.cos)),
    "a short constant": (reading(LONG[:3]), reading(LONG[1:4])),
    "a key": tuple(
        functools.partial(lambda key, x: x + jax.random.normal(key), jax.random.key(n))
        for n in (0, 1)
    ),
    "a bfloat16 constant": tuple(
        functools.partial(
            lambda y, x: x + y.sum(), jnp.arange(n, n + 4, dtype="bfloat16")
        )
        for n in (0, 1)
    ),
    "precision": tuple(
        functools.partial(lambda p, x: jnp.dot(x[None], x[None], precision=p), p)
        for p in (None, "highest")
    ),
}


def digest_of(f):
    """Of a program, and of the data that it reads."""
    fingerprint = fingerprints.Fingerprint()
    program = fingerprint.program(jax.make_jaxpr(lambda x: f(x))(np.float32(1.0)))
    return {"program": program, "data": fingerprint.data}


@pytest.mark.parametrize("kind", SAME)
def test_what_computes_the_same_has_the_same_digest(kind):
    one, other = map(digest_of, SAME[kind])
    assert one == other


@pytest.mark.parametrize("kind", OTHER)
def test_what_computes_something_else_has_another_digest(kind):
    one, other = map(digest_of, OTHER[kind])
    differing = {name for name in one if one[name] != other[name]}
    assert differing == {"data" if "array" in kind else "program"}


def test_exchanged_data_are_other_data():
    names = ("data", "text")
    numbers = {
        name: np.random.default_rng(i).random(20) for i, name in enumerate(names)
    }
    one = digests(sweep.from_functions(*trial(**numbers)))
    other = digests(
        sweep.from_functions(*trial(data=numbers["text"], text=numbers["data"]))
    )
    assert sorted(one["data"]) == sorted(other["data"])
    assert one["data"] != other["data"]


def test_an_array_is_read_once_however_many_groups_close_over_it(monkeypatch):
    read, digest = [], fingerprints._array_digest
    monkeypatch.setattr(
        fingerprints, "_array_digest", lambda array: read.append(array) or digest(array)
    )
    configs = [
        sweep.Config("sgd", {"learning_rate": 0.1}, {"nesterov": nesterov})
        for nesterov in (False, True)
    ]
    specs = [sweep.TrialSpec(i, config, 0) for i, config in enumerate(configs)]
    settings = Plan(
        steps=2,
        evaluate_every=1,
        metric="loss",
        mode="min",
        lanes=1,
        devices=(jax.devices()[0],),
    )
    fingerprint = fingerprints.Fingerprint()
    make_trial = sweep.from_functions(*trial())
    groups = make_groups(make_trial, {"sgd": optjax.sgd}, specs, settings, fingerprint)
    assert len(groups) == 2
    assert len(read) == len(fingerprint.data) == 2
