"""Which changes of the code no test would notice: one at a time, by hand.

    python tests/mutation.py [--most 60] [--seed 0] [--only _bound.py]

An operator, a comparison or a number of a file below is changed in a copy of the
package, and the tests beside it are run; a change that they let pass has survived and
is printed. tests/mutation.md has those that were read, and why they may live.
"""

import argparse
import ast
import concurrent.futures
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXACT = [
    "tests/parity/test_parity_golden.py",
    "tests/core/test_bound.py",
    "tests/core/test_form.py",
    "tests/core/test_base_rate.py",
    "tests/core/test_properties.py",
]
STEP = ["tests/fused/test_fused_kernel.py", "tests/fused/test_explain_step.py"]
SWEEP = ["tests/sweep/test_stopping.py", "tests/sweep/test_sweep_engine.py"]
FILES = {
    "optjax/_form.py": EXACT,
    "optjax/_rate.py": EXACT,
    "optjax/_accumulator.py": EXACT,
    "optjax/_bound.py": EXACT,
    **{str(p.relative_to(ROOT)): EXACT for p in (ROOT / "optjax/optimizers").glob("*")},
    "optjax/fused/_plan.py": STEP,
    "optjax/fused/_coverage.py": STEP,
    "optjax/sweep/_engine/scheduler.py": SWEEP,
}
SWAPS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


def places(tree: ast.AST) -> list[tuple[ast.AST, str]]:
    """What can be changed, each with the field to change."""
    found: list[tuple[ast.AST, str]] = []
    annotations = {
        id(part)
        for node in ast.walk(tree)
        for field in ("annotation", "returns")
        if (top := getattr(node, field, None)) is not None
        for part in ast.walk(top)
    }
    for node in ast.walk(tree):
        if id(node) in annotations:
            continue
        if isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in SWAPS:
            found.append((node, "op"))
        elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
            found.append((node, "ops"))
        elif isinstance(node, ast.Constant) and type(node.value) in (int, float, bool):
            found.append((node, "value"))
    return found


def mutant(source: str, number: int) -> tuple[str, str]:
    """The source with its change of this number, and the change in words."""
    tree = ast.parse(source)
    node, field = places(tree)[number]
    before = ast.unparse(node)
    if field == "op":
        node.op = SWAPS[type(node.op)]()
    elif field == "ops":
        node.ops[0] = SWAPS[type(node.ops[0])]()
    else:
        node.value = not node.value if type(node.value) is bool else node.value + 1
    return ast.unparse(tree), f"line {node.lineno}: {before} → {ast.unparse(node)}"


def survives(file: str, number: int) -> str | None:
    """The change in words where the tests let it pass."""
    source, words = mutant((ROOT / file).read_text(), number)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "optjax", Path(folder, "optjax"))
        Path(folder, file).write_text(source)
        # Not `python -m pytest`, which would look for the package here first.
        pytest = Path(sys.executable).with_name("pytest")
        command = [pytest, "-n", "0", "-x", "-q", *FILES[file]]
        try:
            ran = subprocess.run(
                command,
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": folder},
                capture_output=True,
                timeout=600,
            )
        except subprocess.TimeoutExpired:
            return None
    return f"{file}, {words}" if ran.returncode == 0 else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--most", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    every = [
        (file, number)
        for file in FILES
        if options.only in file and file.endswith(".py")
        for number in range(len(places(ast.parse((ROOT / file).read_text()))))
    ]
    drawn = random.Random(options.seed).sample(every, min(options.most, len(every)))
    print(f"{len(drawn)} of {len(every)} changes")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        survivors = 0
        for line in pool.map(lambda one: survives(*one), drawn):
            if line:
                survivors += 1
                print(line, flush=True)
    print(f"{survivors} survived")


if __name__ == "__main__":
    main()
