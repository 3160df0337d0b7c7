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
from scipy import ndimage

sys.path.append(str(Path(__file__).resolve().parent.parent))

from detector.augment import scanner  # noqa: E402
from model import EMBEDDING_STRIDE, normalise  # noqa: E402

CLASSES = ("background", "nerve", "vessel", "bone")
# The field of view that the network sees at its run-time input, and by which smaller training crops are cut, so that
# anatomy has the same size in pixels in both.
RUN_TIME_SIDE = 320
# TinyViT's windows of 7 and 14 cells need no padding here: an image costs less than half.
CROP_SIDE = 224
# Training views: scale against the run-time one, change of aspect, rotation (radians) and elastic warp (share of the side).
SCALES, ASPECT, ROTATION, WARP = (0.5, 1.35), 0.15, 0.12, 0.012
# Distances to an outline are measured this far, in pixels.
DISTANCE_REACH = 20
# What a crop must leave of an object for it to be prompted.
VISIBLE_SHARE = 0.5
SMALLEST_OBJECT_PIXELS = 24


@dataclass
class Batch:
    """`images` [B, 3, S, S]; for each of N prompts `image_index` [N], the exact `boxes_xyxy` [N, 4], `points_xy` [N, 2]
    inside the object and `distances` [N, S/2, S/2] in pixels to its outline, positive inside; `classes` [B, S, S], index
    in `CLASSES`; `view` (side, left, top): the part of the run-time square that the images stand for."""

    images: torch.Tensor
    image_index: torch.Tensor
    boxes_xyxy: torch.Tensor
    points_xy: torch.Tensor
    distances: torch.Tensor
    classes: torch.Tensor
    view: tuple[int, int, int]


def random_view(side, rng):
    """A place (side, left, top) for a crop in the run-time square, on the grid of the embedding."""
    room = (RUN_TIME_SIDE - side) // EMBEDDING_STRIDE
    left, top = (rng.integers(0, room + 1, 2) * EMBEDDING_STRIDE).tolist()
    return RUN_TIME_SIDE, left, top


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


def jittered(boxes_xyxy, rng, deviation=0.06, limit=0.2):
    """Boxes as a detector finds them: each edge off by a normal share of the box's side, at most `limit`; one in five
    is exact."""
    boxes = np.asarray(boxes_xyxy, np.float32)
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    noise = (rng.standard_normal(boxes.shape) * deviation).clip(-limit, limit)
    return (boxes + noise * sides * (rng.random((len(boxes), 1)) >= 0.2)).astype(np.float32)


def random_window(frame, share, rng):
    """A part (x1, y1, x2, y2) of the frame, about `share` of its sides, that shows one of its objects, chosen at random."""
    height, width = frame.image.shape
    share = min(1.0, share)
    w, h = (max(16, round(s * min(1.0, share * np.exp(rng.uniform(-ASPECT, ASPECT))))) for s in (width, height))
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
    share = side / RUN_TIME_SIDE / rng.uniform(*SCALES)
    x1, y1, x2, y2 = random_window(frame, share, rng)
    height, width = resized_size(y2 - y1, x2 - x1, side)
    # The change of aspect that the window made is kept, as a stretch.
    stretch = np.exp(rng.uniform(-ASPECT, ASPECT, 2)) / max(1.0, share)
    height, width = (max(16, min(side, round(s * k))) for s, k in zip((height, width), stretch))
    view = Image.fromarray(frame.image[y1:y2, x1:x2]).resize((width, height), Image.BILINEAR)
    instances = Image.fromarray(frame.instances[y1:y2, x1:x2]).resize((width, height), Image.NEAREST)
    grey, map_ = np.zeros((side, side), np.float32), np.zeros((side, side), np.uint8)
    grey[:height, :width], map_[:height, :width] = np.asarray(view), np.asarray(instances)
    if rng.random() < 0.5:
        grey[:, :width], map_[:, :width] = grey[:, width - 1 :: -1].copy(), map_[:, width - 1 :: -1].copy()
    if rng.random() < 0.5:
        grey[:height, :width], map_[:height, :width] = warped(grey[:height, :width], map_[:height, :width], rng)
    scale = np.sqrt(width * height / ((x2 - x1) * (y2 - y1)))
    return scanner(grey / 255, rng) * 255, (height, width), map_, scale


def warped(grey, instances, rng):
    """Both rotated a little and mildly, smoothly deformed, as tissue under a moving probe."""
    height, width = grey.shape
    angle, size = rng.normal(0, ROTATION / 2), max(height, width)
    knots = rng.normal(0, WARP * size, (2, 5, 5)).astype(np.float32)
    knots = torch.nn.functional.interpolate(
        torch.from_numpy(knots)[None], (height, width), mode="bicubic", align_corners=True
    )[0].numpy()
    y, x = np.mgrid[:height, :width].astype(np.float32)
    dy, dx = y - height / 2, x - width / 2
    places = (
        height / 2 + np.cos(angle) * dy + np.sin(angle) * dx + knots[0],
        width / 2 + np.cos(angle) * dx - np.sin(angle) * dy + knots[1],
    )
    return (
        ndimage.map_coordinates(grey, places, order=1, mode="constant"),
        ndimage.map_coordinates(instances, places, order=0, mode="constant"),
    )


def box_of(mask):
    """(x1, y1, x2, y2) of a boolean mask, far corner exclusive."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


def outline_distance(mask, box):
    """Signed distance [S/2, S/2] in pixels from the outline of a boolean mask [S, S], positive inside, at most
    `DISTANCE_REACH` away."""
    side, reach = len(mask), DISTANCE_REACH
    distance = np.full(mask.shape, -reach, np.float32)
    (left, top), (right, bottom) = np.maximum(0, box[:2] - reach), np.minimum(side, box[2:] + reach)
    part = mask[top:bottom, left:right]
    # Between the centres of an inner and an outer pixel lies the outline.
    inner, outer = ndimage.distance_transform_edt(part) - 0.5, ndimage.distance_transform_edt(~part) - 0.5
    distance[top:bottom, left:right] = np.where(part, inner, -outer).clip(-reach, reach)
    return distance.reshape(side // 2, 2, side // 2, 2).mean((1, 3))


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
    """A training batch: one random view of each frame, `prompts` prompts drawn from its visible objects, all of them
    before any twice."""
    images, classes, index, boxes, points, distances = [], [], [], [], [], []
    for i, frame in enumerate(frames):
        for _ in range(8):
            grey, (height, width), instances, scale = augmented(frame, side, rng)
            objects = visible_objects(frame, instances, scale)
            if objects:
                break
        images.append(square(grey[:height, :width], side))
        lookup = np.array([0] + [CLASSES.index(label) for label in frame.labels])
        classes.append(lookup[instances])
        found = {}
        for k in np.resize(rng.permutation(objects), prompts) if objects else []:
            if k not in found:
                mask = instances == k
                box = box_of(mask)
                found[k] = box, np.argwhere(mask), outline_distance(mask, box)
            box, inside, distance = found[k]
            index.append(i)
            boxes.append(box)
            points.append(inside[rng.integers(len(inside))][::-1])
            distances.append(distance)
    return Batch(
        images=torch.stack(images),
        image_index=torch.tensor(index),
        boxes_xyxy=torch.from_numpy(np.array(boxes, np.float32)),
        points_xy=torch.from_numpy(np.array(points, np.float32)),
        distances=torch.from_numpy(np.array(distances, np.float32)),
        classes=torch.from_numpy(np.array(classes)),
        view=random_view(side, rng),
    )
