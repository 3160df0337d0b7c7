"""Frames to network inputs and prompts, the SAM way.

In: `Frame`s of `data.py`. Out: normalised squares, and for training a `Batch` of several prompts an image.

The preprocessing here is what the program does at run time: the longest side is resized to the network's input by an
antialiased bilinear filter, grey levels are normalised in three equal channels, and the square is filled up with
zeros at the bottom and right *after* that.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.append(str(Path(__file__).resolve().parent.parent))

from detector.augment import scanner  # noqa: E402
from model import normalise  # noqa: E402

CLASSES = ("background", "nerve", "vessel", "bone")
# The field of view that the network sees at its run-time input, and by which smaller training crops are cut, so that
# anatomy has the same size in pixels in both.
RUN_TIME_SIDE = 320
# What a crop must leave of an object for it to be prompted.
VISIBLE_SHARE = 0.5
SMALLEST_OBJECT_PIXELS = 24


@dataclass
class Batch:
    """`images` [B, 3, S, S]; for each of N prompts `image_index` [N], the exact `boxes_xyxy` [N, 4], `points_xy` [N, 2]
    inside the object and boolean `masks` [N, S, S]; `classes` [B, S, S], index in `CLASSES`."""

    images: torch.Tensor
    image_index: torch.Tensor
    boxes_xyxy: torch.Tensor
    points_xy: torch.Tensor
    masks: torch.Tensor
    classes: torch.Tensor


def resized_size(height, width, side):
    """Height and width with the longest side at `side`, rounded to the nearest pixel."""
    scale = side / max(height, width)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def square(grey, side):
    """Normalised `[3, side, side]` of float grey levels [h, w] in 0..255, h and w at most `side`."""
    height, width = grey.shape
    image = torch.zeros(3, side, side)
    image[:, :height, :width] = normalise(torch.from_numpy(np.ascontiguousarray(grey, np.float32))[None])[0]
    return image


def preprocess(image, side):
    """uint8 [H, W] of any size to the normalised `[3, side, side]`, and the size the frame has within it."""
    height, width = resized_size(*image.shape, side)
    grey = np.asarray(Image.fromarray(image).resize((width, height), Image.BILINEAR))
    return square(grey, side), (height, width)


def jittered(boxes_xyxy, rng, deviation=0.05, limit=0.12):
    """Boxes as a detector finds them: each edge off by a normal share of the box's side, at most `limit`; one in five
    is exact."""
    boxes = np.asarray(boxes_xyxy, np.float32)
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    noise = (rng.standard_normal(boxes.shape) * deviation).clip(-limit, limit)
    return (boxes + noise * sides * (rng.random((len(boxes), 1)) >= 0.2)).astype(np.float32)


def random_window(frame, side, rng):
    """A part (x1, y1, x2, y2) of the frame that shows one of its objects, chosen at random."""
    height, width = frame.image.shape
    share = min(1.0, side / RUN_TIME_SIDE * rng.uniform(0.65, 1.25))
    w, h = (max(16, round(s * min(1.0, share * np.exp(rng.uniform(-0.1, 0.1))))) for s in (width, height))
    if len(frame.labels) == 0:
        return (x := rng.integers(0, width - w + 1)), (y := rng.integers(0, height - h + 1)), x + w, y + h
    x1, y1, x2, y2 = frame.boxes_xyxy[rng.integers(len(frame.labels))]
    corner = []
    for low, high, window, full in ((x1, x2, w, width), (y1, y2, h, height)):
        # From the object touching the window's far edge to touching its near edge, within the frame.
        first, last = sorted((high - window, low))
        corner.append(int(np.clip(round(rng.uniform(first, last)), 0, full - window)))
    return corner[0], corner[1], corner[0] + w, corner[1] + h


def augmented(frame, side, rng):
    """A random view of a frame: grey levels [side, side], its size (h, w) within, the instance map [side, side], and
    the view's pixels for one of the frame's."""
    x1, y1, x2, y2 = random_window(frame, side, rng)
    height, width = resized_size(y2 - y1, x2 - x1, side)
    view = Image.fromarray(frame.image[y1:y2, x1:x2]).resize((width, height), Image.BILINEAR)
    instances = Image.fromarray(frame.instances[y1:y2, x1:x2]).resize((width, height), Image.NEAREST)
    grey, map_ = np.zeros((side, side), np.float32), np.zeros((side, side), np.uint8)
    grey[:height, :width], map_[:height, :width] = np.asarray(view), np.asarray(instances)
    if rng.random() < 0.5:
        grey[:, :width], map_[:, :width] = grey[:, width - 1 :: -1].copy(), map_[:, width - 1 :: -1].copy()
    return scanner(grey / 255, rng) * 255, (height, width), map_, width / (x2 - x1)


def box_of(mask):
    """(x1, y1, x2, y2) of a boolean mask, far corner exclusive."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def visible_objects(frame, instances, scale):
    """Values in the instance map of a view of those objects of which it keeps enough."""
    whole = np.bincount(frame.instances.ravel(), minlength=256) * scale**2
    left = np.bincount(instances.ravel(), minlength=256)
    return [
        i
        for i in range(1, len(frame.labels) + 1)
        if left[i] >= max(SMALLEST_OBJECT_PIXELS, VISIBLE_SHARE * whole[i])
    ]


def batch_of(frames, side, prompts, rng):
    """A training batch: one random view of each frame, `prompts` prompts drawn from its visible objects."""
    images, classes, index, boxes, points, masks = [], [], [], [], [], []
    for i, frame in enumerate(frames):
        for _ in range(8):
            grey, (height, width), instances, scale = augmented(frame, side, rng)
            objects = visible_objects(frame, instances, scale)
            if objects:
                break
        images.append(square(grey[:height, :width], side))
        lookup = np.array([0] + [CLASSES.index(label) for label in frame.labels])
        classes.append(lookup[instances])
        for k in rng.choice(objects, prompts) if objects else []:
            mask = instances == k
            inside = np.argwhere(mask)
            index.append(i)
            boxes.append(box_of(mask))
            points.append(inside[rng.integers(len(inside))][::-1])
            masks.append(mask)
    return Batch(
        images=torch.stack(images),
        image_index=torch.tensor(index),
        boxes_xyxy=torch.from_numpy(np.array(boxes, np.float32)),
        points_xy=torch.from_numpy(np.array(points, np.float32)),
        masks=torch.from_numpy(np.array(masks)),
        classes=torch.from_numpy(np.array(classes)),
    )
