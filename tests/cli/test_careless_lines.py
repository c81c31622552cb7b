"""What a careless user types, and the one line that answers it."""

import re
import shlex
import sys

import pytest

from optjax._cli.main import main

MODULE = """
import jax.numpy as jnp

def deep():
    return [][3]

def raises(factory):
    raise OSError("no data\\nsecond line")

def raises_deep(factory):
    deep()

def init(key, optimizer):
    return jnp.zeros(2)

def bad_init(key, optimizer):
    return jnp.zeros(2) + jnp.ones(3)

def step(state, optimizer):
    return state, {"loss": state.sum()}

def bad_step(state, optimizer):
    return state, {"loss": undefined}

good = init, step
words = "no"

def breaks(learning_rate):
    deep()

no_init = bad_init, step
no_step = init, bad_step

def nothing_back(learning_rate):
    pass

def forgets(learning_rate):
    return {}["rate"]
"""

FILES = {
    "mine.py": MODULE,
    "imports.py": "x = 1\nimport no_such_thing\n",
    "syntax.py": "def f(:\n",
    "divides.py": "def g():\n    return 1 / 0\n\ng()\n",
    "file": "",
    "bad.toml": "steps = ",
    "text.toml": 'steps = "many"',
    "list.toml": "steps = [1, 2]",
    "key.toml": "stepps = 3",
    "date.toml": "seeds = 2020-01-01",
    "float.toml": "seeds = 1.5",
    "names.toml": "optimizers = [1, 2]",
    "comma.toml": 'optimizers = "adam,sgd"',
    "number.toml": "space = 3",
    "low.toml": "[space]\nlearning_rate = {low = 1}",
    "nested.toml": "[space.learning_rate.a]\nlow = 1",
}

# G is a grid, M a task of one's own with it; what follows is essential to the answer.
LINES = """
rac                                    | unknown command 'rac'; did you mean race?
Race                                   | did you mean race?
--steps 3 race                         | unknown command '--steps'; see optjax --help
--version extra                        | --version stands alone, got 'extra' after it
report                                 | DIR must be given; see optjax report --help
report file                            | file holds no sweep; give the --out of one
list extra                             | unknown argument extra; see optjax list --help
race adam                              | its flag before it, such as --task adam
race é                                 | unknown argument é
race -x                                | unknown argument -x
sweep --task digits                    | --task is no flag here; write digits without it
sweep --task                           | --task is no flag here; write its value without
race --step 3                          | --step, 3; did you mean --steps?
race --config x.toml                   | unknown argument --config, x.toml
race --optimizer adam                  | did you mean --optimizers?
race --optimizers adam,sgd             | such as --optimizers adam sgd, got 'adam,sgd'
race --optimizers "adam, sgd"          | such as --optimizers adam sgd
race --optimizers "adam sgd"           | such as --optimizers adam sgd
race --optimizers adam adam            | given once, got adam 2 times
race --optimizers ""                   | --optimizers needs a value that is not empty
race --optimizers                      | --optimizers needs a name, such as adam
race --optimizers mine.breaks          | ; for your own give module:attribute
race --optimizers mine:nothing_back    | must return an optimizer, got None; let it
race --optimizers mine:forgets         | KeyError: 'rate' (mine.py, line 38)$
race --optimizers Adam                 | there is no optimizer 'Adam'; did you mean adam
race --learning-rates 0.1,1            | such as --learning-rates 0.1 1, got '0.1,1'
race --learning-rates 1e-3 fast        | with spaces between them, got '1e-3 fast'
race --learning-rates 1e400            | .*finite and >= 0, got inf
race --seeds 1.5                       | --seeds must be a whole number, got '1.5'
race --seeds=many                      | --seeds must be a whole number, got 'many'
race --seeds                           | --seeds needs a value
race --seeds -1                        | --seeds must be a whole number >= 1, got -1
race --seeds 3 --seeds 4               | --seeds is given twice
race --first-seed -1                   | --first-seed must be from 0 to .*, got -1
race --steps 0                         | --steps must be an integer >= 1, got 0
race --steps 1e3                       | --steps must be a whole number, got '1e3'
race --steps ''                        | --steps needs a value that is not empty
race --epochs 3                        | takes no --epochs; set --steps, or choose
race --dtype float64                   | takes no --dtype
race --task nope                       | unknown task 'nope'; known: digits
race --task image-mlp                  | give --data, a folder with CIFAR-10
race --task image-mlp --data nowhere   | found nothing there
race --optimizers sgd --out file       | choose another --out
race --optimizers mine:nothing         | mine has no attribute 'nothing'
race --optimizers mine:words           | mine:words must be a factory or a Row, got 'no'
race --optimizers mine:breaks          | list index out of range (mine.py, line 5)$
race --optimizers divides:x            | division by zero (divides.py, line 2)$
race --optimizers adam :x              | optimizer :x: write module:attribute, got ':x'
race --task mine:good                  | has loss; pass one of them as --metric
race --task mine:good --metric loss    | --metric loss needs --mode max or --mode min
race --task mine:good --metric loss --mode up      | --mode must be one of max, min
race --out ''                          | --out needs a value that is not empty
race --out=                            | --out needs a value that is not empty
race --out 'a\\0b'                     | an argument has a NUL character
sweep                                  | adam needs learning_rate
sweep ''                               | an argument is empty
sweep nope G                           | unknown task 'nope'
sweep digits mine:good G               | unknown argument mine:good
sweep digits G --seed 3                | did you mean --seeds?
sweep digits G --distributed yes       | unknown argument yes
sweep digits G --epochs 3              | takes no --epochs; set --steps
sweep digits G --optimizers adam,sgd   | such as --optimizers adam sgd
sweep digits G --optimizers            | --optimizers needs a name
sweep digits G --optimizers Adam       | there is no optimizer 'Adam'; did you mean adam
sweep image-mlp G                      | give --data
sweep digits --space lr=0.1            | space of lr does not give it; add learning_rate
sweep digits --space learning_rate     | a dimension is written name=values
sweep digits --space learning_rate=    | cannot read '': a value is missing
sweep digits --space =0.1              | a dimension is written name=values
sweep digits --space "learning_rate=1 2"           | write commas between values
sweep digits --space "learning_rate=log(1e-4, 1)"  | pass --draws, .* --draws 16
sweep digits --space "learning_rate=log(0, 1)"     | a logarithmic range needs 0 < low
sweep digits --space "learning_rate=logs(0, 1)"    | write log(low, high)
sweep digits --space learning_rate=-1  | learning_rate must be .* got -1.0
sweep digits G b1=2                    | b1 must be in [0, 1), got 2.0
sweep digits G nesterov=1              | nesterov must be True or False, got 1
sweep digits G mu_dtype=int32          | a floating-point or complex dtype, got 'int32'
sweep digits G --space b1=0.9          | --space is given twice
sweep mine G                           | for your own give module:attribute
sweep mine:nothing G                   | mine has no attribute 'nothing'
sweep mine:goood G                     | 'goood'; did you mean good?$
sweep mine.py:good G                   | got 'mine.py:good'; mine:trial is what mine.py
sweep absent:x G                       | ModuleNotFoundError: No module named 'absent'$
sweep imports:x G                      | 'no_such_thing' (imports.py, line 2)$
sweep syntax:x G                       | invalid syntax (syntax.py, line 1)$
sweep divides:x G                      | division by zero (divides.py, line 2)$
sweep mine:raises G                    | OSError: no data (mine.py, line 8)$
sweep mine:raises_deep G               | list index out of range (mine.py, line 5)$
sweep mine:no_init G                   | (mine.py, line 17)$
sweep mine:no_step G                   | 'undefined' is not defined (mine.py, line 23)$
sweep mine:good G --metric acc         | --metric acc needs --mode max or --mode min
sweep digits G --metric val_loss       | only an accuracy has one without, max
sweep mine:good G --metric acc --mode max   | has loss; pass one of them as --metric
sweep mine:good G --metric ''          | --metric needs a value that is not empty
M --epochs 3                           | takes no --epochs
M --data file                          | takes no --data
M --dtype bfloat16                     | takes no --dtype
M --examples 3                         | takes no --examples
M --test-examples 3                    | takes no --test-examples
M --batch-size 3                       | takes no --batch-size
M --steps 0                            | --steps must be an integer >= 1, got 0
M --evaluate-every 0                   | --evaluate-every must be an integer >= 1, got 0
M --evaluate-every 7                   | --evaluate-every 7 must divide --steps 300
M --seeds 0                            | --seeds must be a whole number >= 1, got 0
sweep mine:good G --metric loss --mode up   | must be one of max, min, got 'up'
M --strategy fast                      | --strategy must be one of auto
M --engine slurm                       | --engine must be one of local, ray
M --lanes 0                            | --lanes must be an integer >= 1, got 0
M --memory-limit '3 bananas'           | --memory-limit must be a size such as 2GB
M --checkpoint-seconds soon            | -seconds must be a number, got 'soon'
M --checkpoint-seconds -1              | --checkpoint-seconds must be a number >= 0
M --checkpoint-seconds nan             | --checkpoint-seconds must be a number >= 0
M --call-seconds -1                    | --call-seconds must be a number >= 0
M --stop-early 7                       | --stop-early must be .* of --evaluate-every 10
M --stop-early 10 --eta 1              | --eta must be an integer >= 2, got 1
M --median 7                           | --median must be .* of --evaluate-every 10
M --median 10 --stop-early 10          | are two rules; give one of them
M --optimizers absent:x                | optimizer absent:x: cannot import absent
M --first-seed 2147483647              | --first-seed must be from 0 to 2147483645
M --draws 0                            | --draws must be an integer >= 1, got 0
M --draws 3 --method halton            | --method must be one of sobol, random
M --draws 3 --space-seed -1            | --space-seed must be an integer >= 0, got -1
M --out file                           | choose another --out
M --config nowhere.toml                | cannot read nowhere.toml: No such file
M --config folder                      | cannot read folder: Is a directory
M --config ''                          | --config needs a value that is not empty
M --config binary.toml                 | binary.toml is not TOML
M --config bad.toml                    | bad.toml is not TOML: Invalid value
M --config text.toml                   | text.toml: steps must be a whole number, got
M --config list.toml                   | list.toml: steps must be one number or text
M --config key.toml                    | unknown key 'stepps'; did you mean steps?
M --config date.toml                   | date.toml: seeds must be a whole number
M --config float.toml                  | float.toml: seeds must be a whole number
M --config names.toml                  | names.toml: optimizers must be texts, got [1,
M --config comma.toml                  | such as --optimizers adam sgd
sweep --config number.toml             | space must be a table or texts, got 3
sweep --config low.toml                | low.toml: learning_rate: cannot read
sweep --config nested.toml             | nested.toml: learning_rate: cannot read
"""

CASES = [
    tuple(part.strip() for part in line.rsplit("|", 1))
    for line in LINES.strip().splitlines()
]

INTERNALS = re.compile(
    r"no type matching|NoneType|<class|\{None\}|instantiated|base 10|Traceback|Posix"
    r"|\w=[,;.]|\w=$|\bNone or\b|LogUniform|Choice\("
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    directory = tmp_path_factory.mktemp("careless")
    for name, text in FILES.items():
        (directory / name).write_text(text)
    (directory / "binary.toml").write_bytes(b"\xff\xfe\x00")
    (directory / "folder").mkdir()
    return directory


@pytest.fixture
def workplace(files, monkeypatch):
    monkeypatch.chdir(files)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in FILES:
        monkeypatch.delitem(sys.modules, name.removesuffix(".py"), raising=False)

    def fail(*_, **__):
        raise AssertionError("work has started")

    monkeypatch.setattr("optjax.sweep._engine.lanes.compile_lanes", fail)
    monkeypatch.setattr("optjax.sweep._engine.groups.compile_lanes", fail)
    return files


@pytest.mark.parametrize(("line", "essential"), CASES, ids=[line for line, _ in CASES])
def test_one_line_answers_it_before_any_work(line, essential, workplace, capsys):
    before = {path.name for path in workplace.iterdir()} | {"__pycache__"}
    line = re.sub(r"^M ", "sweep mine:good --metric loss --mode min G ", line)
    line = re.sub(r" G\b", " --space learning_rate=0.1", line)
    words = [word.replace("\\0", "\0") for word in shlex.split(line)]
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"optjax: [^\n]+\n", err), err
    assert not INTERNALS.search(err.strip()), err
    pattern = re.escape(essential).replace(r"\.\*", ".*").removesuffix(r"\$")
    assert re.search(pattern + "$" * essential.endswith("$"), err.strip()), err
    assert {path.name for path in workplace.iterdir()} <= before
