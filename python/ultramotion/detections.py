"""What a detector finds in one image."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Detections(NamedTuple):
    """Structures in one image, best first."""

    boxes_xyxy: npt.NDArray[np.float32]
    """Left, top, right, bottom in pixels of the image: [N, 4]."""
    scores: npt.NDArray[np.float32]
    """0 to 1: [N]."""
    labels: list[str]
    """Name of each one's class."""
