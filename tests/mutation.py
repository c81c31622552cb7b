"""Changes of the code that no test would notice: an hour by hand, not in the suite.

    python tests/mutation.py [FILE ...] [--sample N] [--seed S] [--listed]

In the files of `FILES`, or those named, one operator, comparison, number, condition or
call at a time is changed, and the tests beside the file are run: first those that have
the name of the changed function in theirs, which notice most, then wider ones. What
passes them all has survived. tests/mutants.md has the survivors that were read and may
live, and why; one that is not there is printed and fails, and so does an entry whose
place is gone. Those listed are run only with `--listed`, which prints the ones that
some test notices by now.

A process forks for each run, with the libraries imported and JAX not yet started, and
puts the change in where Python imports the file. Nothing is written but programs that
were compiled, into JAX_COMPILATION_CACHE_DIR or a directory that is deleted.
"""

import argparse
import ast
import collections
import functools
import importlib.machinery
import os
import pathlib
import random
import re
import resource
import shlex
import signal
import sys
import tempfile
from types import CodeType
from typing import Any, NamedTuple

import hypothesis
import pytest

ROOT = pathlib.Path(__file__).parents[1]
LIST = ROOT / "tests/mutants.md"
#: Of the processor, for one run. A change that takes longer is noticed.
SECONDS = 150
#: Imported before the processes fork. None of them starts a thread.
LIBRARIES = ["jax", "optax", "flax.nnx", "chex", "hypothesis.extra.numpy", "pandas"]

#: The runs of a change: arguments of pytest, where NAME is the changed function's, and
#: for one that is in no test's name the public ones of its file.
CORE = [
    "docs/test_docstrings.py parity/test_same_names.py parity/test_parity_numpy.py "
    "core/test_properties.py core/test_bound.py core/test_form.py "
    "-k 'test_bound or test_form or ((NAME) and not float32 and not trees)'",
    "fused/test_explain_step.py core/test_precision.py core/test_hyperparameters.py "
    "core/test_extend.py core/test_leaf_types.py core/test_wrong_input.py",
    "core/test_dtypes.py core/test_transformations.py core/test_base_rate.py "
    "-k 'strict or the_defaults or rises'",
]
STEP = [
    "fused/test_explain_step.py",
    "fused/test_apply_step.py -k 'forms_of or odd_ways or half_prec'",
    "fused/test_packed_step.py fused/test_narrow_state.py core/test_extend.py "
    "fused/test_apply_step.py",
]
SWEEP = [
    "sweep/test_scheduler.py",
    "sweep/test_sweep_failures.py sweep/test_sweep_engine.py sweep/test_stopping.py "
    "-k 'not kill_9'",
]
FILES = {
    **dict.fromkeys(["_form", "_rate", "_bound", "_accumulator"], CORE),
    **{
        f"optimizers/{file.stem}": CORE
        for file in sorted((ROOT / "optjax/optimizers").glob("_[a-z]*.py"))
    },
    **dict.fromkeys(["fused/_plan", "fused/_trail", "fused/_coverage"], STEP),
    "sweep/_engine/scheduler": SWEEP,
}

_PAIRS = [
    *((ast.Add, ast.Sub), (ast.Mult, ast.Div), (ast.And, ast.Or)),
    *((ast.Lt, ast.LtE), (ast.Gt, ast.GtE), (ast.Eq, ast.NotEq)),
    *((ast.Is, ast.IsNot), (ast.In, ast.NotIn)),
]
SWAPS = {a: b for pair in _PAIRS for a, b in (pair, pair[::-1])}
SWAPS |= {ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr}


def changed(node: ast.AST) -> ast.AST | None:
    """What is put in the place of a part of a file."""
    new = type(node)(**vars(node))
    match new:
        case ast.BinOp() | ast.BoolOp() | ast.AugAssign() if type(node.op) in SWAPS:
            new.op = SWAPS[type(node.op)]()
        case ast.Compare() if type(node.ops[0]) in SWAPS:
            new.ops = [SWAPS[type(node.ops[0])](), *node.ops[1:]]
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            return node.operand
        case ast.Constant(value=bool()):
            new.value = not node.value
        case ast.Constant(value=int() | float()):
            new.value = node.value + 1
        # The others are changed inside.
        case ast.If(test=test) | ast.IfExp(test=test) if isinstance(
            test, ast.Name | ast.Attribute | ast.Call
        ):
            new.test = ast.UnaryOp(ast.Not(), test)
        case ast.Expr(value=ast.Call()):
            return ast.Pass()
        case _:
            return None
    return new


class Change(NamedTuple):
    """One change of a file: for whose tests, and what is in another's place there."""

    file: str
    name: str
    words: str
    code: CodeType


def changes(file: str) -> list[Change]:
    """All of a file."""
    path = ROOT / f"optjax/{file}.py"
    whole = ast.parse(path.read_text())
    public = [
        node.name
        for node in whole.body
        if isinstance(node, ast.FunctionDef) and node.name[0] != "_"
    ]
    found: list[Change] = []
    seen = collections.Counter[str]()

    def look(node: Any, put: Any, function: str) -> None:
        if isinstance(node, ast.JoinedStr) or getattr(node, "arg", "") == "strict":
            return
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            function = f"{function}.{node.name}".lstrip(".")
        new = changed(node)
        if new is not None:
            before, after = (ast.unparse(x).splitlines()[0] for x in (node, new))
            words = f"{function or 'module'}: `{before}` → `{after}`"
            seen[words] += 1
            if seen[words] > 1:
                words += f" ({seen[words]})"
            put(ast.copy_location(new, node))
            code = compile(ast.fix_missing_locations(whole), str(path), "exec")
            put(node)
            name, _, _ = function.partition(".")
            # A private function is in no test's name.
            name = name if name[:1].islower() else " or ".join(public)
            found.append(Change(file, name, words, code))
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns"):
                continue
            if isinstance(value, ast.AST):
                look(value, functools.partial(setattr, node, field), function)
            elif isinstance(value, list):
                for i, part in enumerate(value):
                    if isinstance(part, ast.AST):
                        set_part = functools.partial(value.__setitem__, i)
                        look(part, set_part, function)

    look(whole, None, "")
    return found


def put_in(change: Change) -> None:
    """Let this process import the file with its change."""
    loader = importlib.machinery.SourceFileLoader
    module, as_written = "optjax." + change.file.replace("/", "."), loader.get_code
    loader.get_code = lambda self, name: (
        change.code if name == module else as_written(self, name)
    )


class _Unshrunk:
    """A plugin: the first example that fails is enough."""

    def pytest_sessionstart(self) -> None:
        settings, phases = hypothesis.settings, hypothesis.Phase
        examples = (phases.explicit, phases.generate)
        settings.register_profile("one", settings.default, phases=examples)
        settings.load_profile("one")


def is_noticed(change: Change | None, run: str) -> bool:
    """Whether one run of the tests fails, in a process of its own."""
    name = change.name if change else "sgd"
    pid = os.fork()
    if not pid:
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        # Waiting for ever uses none.
        signal.alarm(20 * SECONDS)
        if change:
            put_in(change)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        options = ["-x", "-q", "-o", "addopts=", "-p", "no:cacheprovider"]
        options += shlex.split(run.replace("NAME", name))
        os.chdir(ROOT / "tests")
        os._exit(pytest.main(options, [_Unshrunk()]))
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code == pytest.ExitCode.USAGE_ERROR:
        raise ValueError(f"pytest takes no {run}")
    return code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)


def survives(change: Change) -> bool:
    """Whether it passes all its runs, of which some are of its function."""
    return not any(is_noticed(change, run) for run in FILES[change.file])


def known() -> dict[tuple[str, str], str]:
    """Why those of the list may live, by their file and words."""
    why, file = {}, ""
    for line in LIST.read_text().splitlines():
        if heading := re.fullmatch(r"## optjax/(.+)\.py", line):
            file = heading[1]
        elif entry := re.fullmatch(r"- (.+? → `.+?`(?: \(\d+\))?): (.+)", line):
            why[file, entry[1]] = entry[2]
    return why


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", metavar="FILE", help="of those that can be")
    parser.add_argument("--sample", type=int, metavar="N", help="so many, drawn")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--listed", action="store_true", help="those of the list")
    options = parser.parse_args()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    files = [x.removeprefix("optjax/").removesuffix(".py") for x in options.files]
    every = {
        (file, change.words): change
        for file in files or FILES
        for change in changes(file)
    }
    drawn = list(every)
    if options.sample is not None:
        random.Random(options.seed).shuffle(drawn)
        drawn = drawn[: options.sample]
    listed = {key for key in known() if key[0] in (files or FILES)}
    to_run = [every[key] for key in drawn if (key in listed) == options.listed]
    survivors = 0
    with tempfile.TemporaryDirectory() as programs:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", programs)
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        for library in LIBRARIES:
            importlib.import_module(library)
        for run in {x for file in files or FILES for x in FILES[file]}:
            if is_noticed(None, run):
                sys.exit(f"without a change these fail: {run}")
        for change in to_run:
            lives = survives(change)
            survivors += lives
            if lives != options.listed:
                print(f"optjax/{change.file}.py: {change.words}", flush=True)
    gone = sorted(listed - set(every))
    for file, words in gone:
        print(f"gone: optjax/{file}.py: {words}")
    print(f"{survivors} of {len(to_run)} survived; there are {len(every)} changes")
    sys.exit(bool(gone or (survivors and not options.listed)))


if __name__ == "__main__":
    main()
