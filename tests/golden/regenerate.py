"""Recomputes the golden trajectories: python -m tests.golden.regenerate

Run from the repository's root where torch, adabound and pytorch_optimizer are
installed. Writes one NumPy archive a library beside this file: for every case the
parameters (float64) after the steps in `STORED`, and the versions used. With
--problem it first draws the gradients anew (problem.npz), which changes every file.
"""

import argparse
from importlib.metadata import version
from pathlib import Path

import numpy as np

from . import problem
from .cases import CASES
from .libraries import follow


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problem", action="store_true", help="draw new gradients")
    if parser.parse_args().problem:
        np.savez_compressed(problem.FILE, **problem.draw())

    for library in dict.fromkeys(case.library for case in CASES):
        packages = dict.fromkeys(("torch", library))
        versions = [f"{package} {version(package)}" for package in packages]
        stored = {"versions": np.array(versions)}
        for case in CASES:
            if case.library != library:
                continue
            path = follow(case)
            for key in path[0]:
                stored[f"{case.name}/{key}"] = np.stack(
                    [path[step - 1][key] for step in problem.STORED]
                )
        file = Path(__file__).with_name(f"{library}.npz")
        np.savez_compressed(file, **stored)
        print(f"{file.name}: {len(stored) - 1} arrays, {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
