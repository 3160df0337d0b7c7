"""The picture itself: the program's preprocessing, and the ways in which scanners differ.

In: an image and, for the differences, a numpy generator. Out: float32 [side, side] in 0..1. Where an image
is cut, turned and bent is `views.py`.
"""

from __future__ import annotations

import numpy as np
from PIL import Image


def plain(image: np.ndarray, side: int) -> np.ndarray:
    """The run-time preprocessing: uint8 [H, W] to float32 [side, side], not rounded in between."""
    return np.asarray(Image.fromarray(image.astype(np.float32)).resize((side, side), Image.BILINEAR)) / 255


def scanner(image: np.ndarray, rng) -> np.ndarray:
    """Gain, dynamic range, depth gain, speckle and a little blur."""
    side = image.shape[0]
    if rng.random() < 0.7:
        image = image ** np.float32(np.exp(rng.uniform(-0.4, 0.4)))
    if rng.random() < 0.7:
        image = image * np.float32(np.exp(rng.uniform(-0.35, 0.35)))
    if rng.random() < 0.5:
        depth = np.linspace(0, 1, side)
        sliders = np.interp(depth, np.linspace(0, 1, 6), rng.uniform(-0.4, 0.4, 6))
        image = image * np.exp(sliders + rng.uniform(-0.4, 0.4) * (depth - 0.5)).astype(np.float32)[:, None]
    if rng.random() < 0.5:
        grain = rng.integers(1, 4)
        noise = rng.standard_normal((-(-side // grain), -(-side // grain)), np.float32)
        noise = noise.repeat(grain, 0).repeat(grain, 1)[:side, :side]
        image = image * np.exp(rng.uniform(0.02, 0.25) * noise)
    if rng.random() < 0.15:
        reduced = int(side * rng.uniform(0.4, 0.8))
        small = Image.fromarray(np.ascontiguousarray(image, np.float32)).resize((reduced, reduced), Image.BILINEAR)
        image = np.asarray(small.resize((side, side), Image.BILINEAR))
    return image.clip(0, 1)
