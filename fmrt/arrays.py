"""Names of array types that several modules share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
# The vectors of items, one row per item; or of patches.
Vectors = NDArray[np.float32]
# Positions in another array.
Rows = NDArray[np.int64]
# What a graph takes, by the names of its inputs.
Feeds = Mapping[str, NDArray[Any]]
