"""`optjax audit`: a trial's first steps, in words and as a status."""

import pytest

from optjax._cli.main import main

pytestmark = pytest.mark.usefixtures("cheaply_compiled")

TRIAL = """
import jax
import jax.numpy as jnp
import optax


def init(key, optimizer):
    params = {"w": jnp.linspace(1.0, 2.0, 4)}
    return params, optimizer.init(params)


def step(state, optimizer):
    params, opt_state = state
    loss, grads = jax.value_and_grad(lambda p: jnp.sum(p["w"] ** 2))(params)
    updates, opt_state = optimizer.update(grads, opt_state, params)
    return (optax.apply_updates(params, updates), opt_state), {"loss": loss}


trial = init, step


def deaf(learning_rate, momentum=0.9):
    return optax.sgd(0.1, momentum=momentum)


def raises(learning_rate):
    raise KeyError("rate")


def bad_step(state, optimizer):
    raise OSError("no data")


def forgets(state, optimizer):
    return (state[0], ()), {"loss": 0.0}


broken = init, bad_step
forgetful = init, forgets
"""


@pytest.fixture
def audit(tmp_path, monkeypatch, capsys):
    (tmp_path / "audited_trial.py").write_text(TRIAL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def run(*words):
        status = main(["audit", "--task", "audited_trial:trial", *words])
        return status, *capsys.readouterr()

    return run


def test_all_is_well(audit):
    hyper = "learning_rate=0.01"
    status, out, err = audit("--optimizer", "sgd", "--hyper", hyper, "--steps", "3")
    assert (status, err) == (0, "")
    assert "learning_rate" in out
    assert "inert" not in out


def test_a_rate_that_is_not_used(audit):
    words = "--optimizer", "audited_trial:deaf", "--hyper", "learning_rate=0.01"
    status, out, err = audit(*words, "--steps", "3")
    assert (status, err) == (1, "")
    assert out.startswith("learning_rate is inert")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--optimizer", "adm"], "unknown optimizer 'adm'; did you mean adam"),
        (["--optimizer", "adam,sgd"], "--optimizer takes one name, such as "),
        ([], "--hyper must have a learning rate, such as learning_rate=0.001"),
        (["--hyper", "learning_rate=a"], "--hyper must be NAME=NUMBER"),
        (["--hyper", "learning_rate=1", "--steps", "0"], "--steps must be a whole"),
        (
            ["--hyper", "learning_rate=1", "lr=1"],
            "no chosen optimizer (adam) takes 'lr'",
        ),
        (["--hyper", "learning_rate=1", "b1=2"], "b1=2.0 of adam: b1 must be in"),
        (
            ["--optimizer", "audited_trial:raises", "--hyper", "learning_rate=1"],
            "learning_rate=1.0 of audited_trial:raises: KeyError: 'rate' (",
        ),
    ],
)
def test_a_mistake_is_one_line(audit, words, message):
    status, out, err = audit(*words)
    assert (status, out) == (2, "")
    assert err.startswith(f"optjax: {message}")
    assert err.count("\n") == 1


def test_a_trial_that_raises_is_one_line(audit, capsys):
    words = ["audit", "--task", "audited_trial:broken", "--hyper", "learning_rate=1"]
    assert main(words) == 2
    line = capsys.readouterr().err
    assert "adam(learning_rate=1): OSError: no data (" in line
    assert "audited_trial.py, line" in line
    assert line.count("\n") == 1


def test_a_trial_that_keeps_no_optimizers_state_is_refused(audit, capsys):
    words = ["audit", "--task", "audited_trial:forgetful", "--hyper", "learning_rate=1"]
    assert main(words) == 2
    line = capsys.readouterr().err
    assert line == (
        "optjax: audit needs a trial with one optimizer's state in its own, found 0\n"
    )
