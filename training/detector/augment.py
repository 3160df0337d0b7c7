"""Frames to training images: random crops, flips and the ways in which scanners differ.

In: a `Frame`, an output side, a numpy generator. Out: float32 [side, side] in 0..1, labels and boxes.
Without augmentation this is exactly what the program does at run time: the whole frame, stretched to
a square by an antialiased bilinear filter.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

# An object that a crop leaves less than this share of is not a target any more.
VISIBLE_SHARE = 0.4


def plain(image: np.ndarray, side: int) -> np.ndarray:
    """The run-time preprocessing: uint8 [H, W] to float32 [side, side]."""
    return np.asarray(Image.fromarray(image).resize((side, side), Image.BILINEAR), np.float32) / 255


def random_window(height: int, width: int, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """A part of the frame (x1, y1, x2, y2), sometimes the whole."""
    if rng.random() < 0.3:
        return 0.0, 0.0, float(width), float(height)
    area, aspect = rng.uniform(0.35, 1.0), np.exp(rng.uniform(-0.3, 0.3))
    w, h = min(width, width * np.sqrt(area * aspect)), min(height, height * np.sqrt(area / aspect))
    x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
    return x, y, x + w, y + h


def augmented(frame, side: int, classes: dict[str, int], rng: np.random.Generator):
    """One training sample: image [side, side], labels int64 [n], boxes cxcywh in shares [n, 4]."""
    height, width = frame.image.shape
    x1, y1, x2, y2 = random_window(height, width, rng)
    picture = Image.fromarray(frame.image).resize((side, side), Image.BILINEAR, box=(x1, y1, x2, y2))
    image = np.asarray(picture, np.float32) / 255
    keep = [i for i, label in enumerate(frame.labels) if label in classes]
    labels = np.array([classes[frame.labels[i]] for i in keep], np.int64)
    boxes = frame.boxes_xyxy[keep].astype(np.float32)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    boxes = (boxes - [x1, y1, x1, y1]) / [x2 - x1, y2 - y1, x2 - x1, y2 - y1]
    boxes = boxes.clip(0, 1)
    left = (boxes[:, 2:] - boxes[:, :2]).prod(1) * (x2 - x1) * (y2 - y1)
    visible = left >= VISIBLE_SHARE * area
    labels, boxes = labels[visible], boxes[visible]

    if rng.random() < 0.3:  # seen smaller, as with a deeper setting
        image, boxes = shrunk(image, boxes, rng)
    if rng.random() < 0.5:
        image = image[:, ::-1]
        boxes = np.stack([1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]], 1)
    image = scanner(image, rng)
    boxes = np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], 1)
    return image, labels, boxes.astype(np.float32)


def shrunk(image: np.ndarray, boxes: np.ndarray, rng) -> tuple[np.ndarray, np.ndarray]:
    side = image.shape[0]
    w, h = (round(side * s) for s in rng.uniform(0.6, 1.0) * np.exp(rng.uniform(-0.1, 0.1, 2)).clip(0, 1))
    x, y = rng.integers(0, side - w + 1), rng.integers(0, side - h + 1)
    canvas = np.zeros_like(image)
    small = Image.fromarray(np.ascontiguousarray(image)).resize((w, h), Image.BILINEAR)
    canvas[y : y + h, x : x + w] = np.asarray(small)
    return canvas, boxes * np.array([w, h, w, h]) / side + np.array([x, y, x, y]) / side


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


def batch_of(samples) -> tuple[torch.Tensor, list[dict]]:
    """Images [B, 3, side, side] and targets as the losses want them."""
    images = torch.from_numpy(np.ascontiguousarray(np.stack([s[0] for s in samples]), np.float32))
    targets = [{"labels": torch.from_numpy(s[1]), "boxes": torch.from_numpy(s[2]).reshape(-1, 4)} for s in samples]
    return images[:, None].expand(-1, 3, -1, -1), targets
