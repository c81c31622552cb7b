"""Trials of every kind, and their digests.

They are the same in every process, whatever its hash seed and its directory.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import optjax
from optjax import sweep
from optjax.sweep._engine.groups import make_groups
from optjax.sweep._engine.plan import Plan
from optjax.sweep._store.fingerprint import Fingerprint
from optjax.tasks import digits, models
from optjax.tasks import images as image_task
from optjax.tasks import text as text_task
from optjax.tasks._data.images import Images
from optjax.tasks._data.text import Text

X = np.linspace(-1.0, 1.0, 40, dtype=np.float32)[:, None]


def batch(key, step):
    rows = jax.random.randint(jax.random.fold_in(key, step), (8,), 0, 32)
    return jnp.asarray(X)[rows], jnp.asarray(X)[rows] ** 2


def square(outputs, drawn):
    return jnp.mean((outputs - drawn[1]) ** 2)


class WithDropout(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(1, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.out = nnx.Linear(8, 1, rngs=rngs)

    def __call__(self, x):
        return self.out(self.dropout(nnx.gelu(self.norm(self.hidden(x)))))


class LinenWithDropout(nn.Module):
    @nn.compact
    def __call__(self, x, train=True):
        x = nn.silu(nn.Dense(8)(x))
        return nn.Dense(1)(nn.Dropout(0.5, deterministic=not train)(x))


def host_sine(scale):
    def sine(x):
        return (scale * np.sin(x)).astype(np.float32)

    return sine


@jax.custom_jvp
def cube(x):
    return x**3


cube.defjvp(lambda primals, tangents: (cube(*primals), 3 * primals[0] ** 2))


@jax.custom_batching.custom_vmap
def double(x):
    return 2 * x


@double.def_vmap
def _(axis_size, batched, x):
    return 2 * x, batched[0]


def init(key, optimizer):
    x = jax.random.normal(key, (20,))
    return {"x": x, "opt_state": optimizer.init(x), "key": key, "empty": jnp.zeros(0)}


def step(state, optimizer):
    noise = jax.random.normal(jax.random.fold_in(jax.random.key(7), 1), (20,))
    x = state["x"]
    loss, gradient = jax.value_and_grad(lambda x: jnp.sum(cube(x) ** 2))(x)
    kept, opt_state = optjax.apply_step(
        optimizer, gradient + noise, state["opt_state"], x
    )
    return {**state, "x": kept, "opt_state": opt_state}, {"loss": loss}


def evaluate(state):
    x = double(cube(jax.nn.relu(state["x"])))
    x = jax.lax.while_loop(lambda x: jnp.sum(x) < 0, jnp.exp, x)
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    x = jax.pure_callback(host_sine(2.0), shape, x, vmap_method="sequential")
    jax.debug.print("{}", x)
    by_key = jax.random.key_data(jax.random.split(state["key"]))
    solved = jnp.linalg.solve(jnp.eye(20), jax.checkpoint(jnp.sort)(x))
    spec = jax.sharding.PartitionSpec()
    mesh = jax.make_mesh((1,), ("a",), axis_types=(jax.sharding.AxisType.Auto,))
    solved = jax.lax.with_sharding_constraint(
        solved, jax.sharding.NamedSharding(mesh, spec)
    )
    return {"sum": jnp.sum(solved) + jnp.sum(by_key).astype(jnp.float32)}


def trials():
    rng = np.random.default_rng(0)
    of_bytes = functools.partial(rng.integers, dtype=np.uint8)
    images = Images(
        of_bytes(0, 256, (40, 8, 8, 3)),
        of_bytes(0, 3, 40).astype(np.int32),
        of_bytes(0, 256, (20, 8, 8, 3)),
        of_bytes(0, 3, 20).astype(np.int32),
        3,
    )
    text = Text(of_bytes(0, 3, 200), of_bytes(0, 3, 100), "abc")
    of_images = functools.partial(
        image_task.trial,
        data=images,
        recipe=image_task.PAPER._replace(batch_size=8),
    )
    return {
        "functions": sweep.from_functions(init, step, evaluate),
        "nnx": sweep.from_nnx(
            lambda rngs: WithDropout(rngs), square, batch, lambda f: {"sum": f(X).sum()}
        ),
        "linen": sweep.from_linen(
            LinenWithDropout(),
            square,
            batch,
            lambda f: {"sum": f(X, train=False).sum()},
        ),
        "digits": functools.partial(digits.trial, data=digits.load()),
        "mlp": functools.partial(of_images, make_model=models.MLP),
        # Of the same layers as the published networks, which are long in tracing.
        "resnet": functools.partial(
            of_images,
            make_model=functools.partial(models.ResNet, widths=(4, 8), blocks=(1, 1)),
        ),
        "densenet": functools.partial(
            of_images,
            make_model=functools.partial(models.DenseNet, growth=4, blocks=(1, 1)),
        ),
        "bfloat16": functools.partial(
            of_images, make_model=models.MLP, dtype=jnp.bfloat16
        ),
        "characters": functools.partial(
            text_task.trial,
            data=text,
            recipe=text_task.RECIPE._replace(batch_size=4),
            sequence_length=5,
            layers=2,
            hidden=8,
        ),
    }


def digests(make_trial, metric="loss", factories=None):
    """Of the trial's programs, and of the data that they read."""
    factories = factories or {"adabound": optjax.adabound}
    spec = sweep.TrialSpec(0, sweep.Config("adabound", {"learning_rate": 0.1}, {}), 0)
    settings = Plan(
        steps=2,
        evaluate_every=1,
        metric=metric,
        mode="min",
        lanes=1,
        devices=(jax.devices()[0],),
    )
    fingerprint = Fingerprint()
    (group,) = make_groups(make_trial, factories, [spec], settings, fingerprint)
    return {**group.digests, "data": fingerprint.data}


def everyones():
    """Of each trial."""
    own = ("functions", "nnx", "linen")
    return {
        name: digests(trial, "loss" if name in own else "train_loss")
        for name, trial in trials().items()
    }
