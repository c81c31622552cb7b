"""One part of an image data set, for training or for testing."""

from typing import NamedTuple

import numpy as np


class Split(NamedTuple):
    """Images `x` (n, h, w, 3) in uint8, labels `y` (n,) in int32.

    `classes` is the number of classes that the files declare, None where they do not.
    """

    x: np.ndarray
    y: np.ndarray
    classes: int | None
