"""Reads the committed trajectories."""

from pathlib import Path

import numpy as np

from .cases import Case
from .problem import STORED, load

# The indices of the stored steps in a trajectory that begins with step 1.
INDICES = np.array(STORED) - 1


def stored(case: Case) -> dict[str, np.ndarray]:
    """The case's parameters at `INDICES`, as displacements from the start."""
    params, _ = load(case.problem)
    with np.load(Path(__file__).with_name(f"{case.library}.npz")) as file:
        return {
            key: file[f"{case.name}/{key}"] - start.astype(np.float64)
            for key, start in params.items()
        }
