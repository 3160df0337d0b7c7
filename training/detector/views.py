"""Frames to training views: crops, turns, elastic warps, spliced and pasted anatomy, scanner differences.

In: `Source`s (a frame stretched to a square, as the program does at run time, with its instance map) and a
numpy generator. Out: a `View`: float32 image in 0..1, the instance map under it, labels and boxes.

Image and instance map go through one warp, so boxes are measured after it and stay tight under
rotation and elastic deformation. `train.py` and `pretrain.py` draw from here;
`python training/detector/views.py sheet.png` shows what they get.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from scipy import ndimage

import augment

SOURCE_SIDE = 384  # sources are kept a little finer than the network's input, for views that zoom in
VISIBLE_SHARE = 0.4  # an object that a view leaves less than this share of is not a target any more
MIN_PIXELS = 24


@dataclass
class Source:
    """A frame held for training. `image` uint8 [S, S] and `instances` uint8 [S, S] at `SOURCE_SIDE`;
    `exact` uint8 [input, input]: the program's own view of it. `classes` int64 [n]."""

    image: np.ndarray
    instances: np.ndarray
    exact: np.ndarray
    classes: np.ndarray


@dataclass
class View:
    """`image` float32 [side, side]; `instances` uint8 [side, side], i + 1 the i-th object;
    `labels` int64 [n]; `boxes_cxcywh` float32 [n, 4] in shares of the side."""

    image: np.ndarray
    instances: np.ndarray
    labels: np.ndarray
    boxes_cxcywh: np.ndarray


def source_of(frame, classes: dict[str, int], input_side: int) -> Source:
    """A `data.Frame` stretched to the square; classes that are not trained become background."""
    known = [i for i, label in enumerate(frame.labels) if label in classes]
    rename = np.zeros(256, np.uint8)
    for new, old in enumerate(known):
        rename[old + 1] = new + 1
    picture = Image.fromarray(frame.image)
    instances = Image.fromarray(rename[frame.instances])
    square = (SOURCE_SIDE, SOURCE_SIDE)
    return Source(
        np.asarray(picture.resize(square, Image.BILINEAR)),
        np.asarray(instances.resize(square, Image.NEAREST)),
        np.asarray(picture.resize((input_side, input_side), Image.BILINEAR)),
        np.array([classes[frame.labels[i]] for i in known], np.int64),
    )


def joined(source: Source, instances: np.ndarray, image: np.ndarray, extra: np.ndarray) -> Source:
    """`source` with changed pixels and `extra` classes appended."""
    return Source(image, instances, source.exact, np.concatenate([source.classes, extra]))


def spliced(left: Source, right: Source, rng: np.random.Generator) -> Source | None:
    """The left part of one frame beside the right part of another: layers stay layers. The seam
    passes where it cuts no object; None where there is no such place."""
    crossed = (left.instances > 0).any(0) | (right.instances > 0).any(0)
    side = len(crossed)
    free = np.flatnonzero(~crossed[side // 5 : side * 4 // 5]) + side // 5
    if len(free) == 0:
        return None
    seam, soft = int(rng.choice(free)), 6.0
    share = 1 / (1 + np.exp((np.arange(side) - seam) / soft * 2))
    image = left.image * share + right.image * (1 - share)
    other = np.where(right.instances > 0, right.instances + len(left.classes), 0).astype(np.uint8)
    instances = np.where(np.arange(side) < seam, left.instances, other)
    return joined(left, instances, image.round().astype(np.uint8), right.classes)


def pasted(host: Source, donor: Source, rng: np.random.Generator) -> Source | None:
    """An object of `donor` with a feathered rim of its surroundings, at about its own depth, its
    brightness moved towards the host's. None where it would cover an object."""
    if len(donor.classes) == 0:
        return None
    rarest = 1.0 + 1.5 * (donor.classes == 0)  # nerves are the harder class
    chosen = int(rng.choice(len(donor.classes), p=rarest / rarest.sum()))
    rows, columns = np.nonzero(donor.instances == chosen + 1)
    if len(rows) < MIN_PIXELS:
        return None
    side = len(host.image)
    h, w = np.ptp(rows) + 1, np.ptp(columns) + 1
    my, mx = int(0.35 * h) + 6, int(0.35 * w) + 6
    y0, y1 = max(0, rows.min() - my), min(side, rows.max() + 1 + my)
    x0, x1 = max(0, columns.min() - mx), min(side, columns.max() + 1 + mx)
    scale = np.exp(rng.uniform(-0.25, 0.25))
    size = (max(8, int((x1 - x0) * scale)), max(8, int((y1 - y0) * scale)))
    if size[0] >= side or size[1] >= side:
        return None
    patch = np.asarray(Image.fromarray(donor.image[y0:y1, x0:x1]).resize(size, Image.BILINEAR), np.float32)
    mask = Image.fromarray((donor.instances[y0:y1, x0:x1] == chosen + 1).astype(np.uint8))
    mask = np.asarray(mask.resize(size, Image.NEAREST)) > 0
    if rng.random() < 0.5:
        patch, mask = patch[:, ::-1], mask[:, ::-1]
    reach = 0.18 * max(h, w) * scale + 3
    distance = ndimage.distance_transform_edt(~mask)
    alpha = np.clip(1.5 - distance / reach, 0, 1).astype(np.float32)
    border = np.minimum(
        np.minimum(*np.ogrid[: size[1], : size[0]]), np.minimum(*np.ogrid[size[1] : 0 : -1, size[0] : 0 : -1])
    )
    alpha *= np.clip(border / 5, 0, 1)
    top = int(np.clip(y0 + rng.normal(0, 0.08 * side), 0, side - size[1]))
    edge = int(rng.integers(0, side - size[0] + 1))
    where = np.s_[top : top + size[1], edge : edge + size[0]]
    if (host.instances[where][alpha > 0.3] > 0).any():
        return None
    ground = host.image[where].astype(np.float32)
    ring = (alpha > 0.02) & ~mask
    if not ring.any() or ground[ring].mean() < 4:  # outside of the picture
        return None
    gain = np.clip((ground[ring].mean() + 5) / (patch[ring].mean() + 5), 0.5, 2.0) ** 0.8
    image = host.image.copy()
    image[where] = (ground * (1 - alpha) + (patch * gain).clip(0, 255) * alpha).round()
    instances = host.instances.copy()
    instances[where][mask] = len(host.classes) + 1
    return joined(host, instances, image, donor.classes[chosen : chosen + 1])


def sampling_grid(side: int, input_side: int, rng: np.random.Generator) -> torch.Tensor:
    """Where each pixel of the view looks in the source, [1, side, side, 2] in -1..1.

    A view shows the source at its run-time scale, more or less; what lies outside is black.
    """
    zoom = np.exp(rng.uniform(-0.45, 0.35))
    stretch = np.exp(rng.uniform(-0.2, 0.2) * np.array([1, -1]))
    share = side / input_side * zoom * stretch  # of the source, in x and y
    angle = np.deg2rad(rng.uniform(-10, 10)) if rng.random() < 0.6 else 0.0
    slack = np.abs(1 - share)
    centre = rng.uniform(-slack, slack)
    axis = torch.linspace(-1 + 1 / side, 1 - 1 / side, side)
    y, x = torch.meshgrid(axis * share[1], axis * share[0], indexing="ij")
    if rng.random() < 0.5:
        x = -x
    grid = torch.stack([x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)], -1)
    if rng.random() < 0.5:
        knots = int(rng.integers(3, 7))
        bend = torch.from_numpy(rng.standard_normal((1, 2, knots, knots), np.float32))
        bend = F.interpolate(bend, size=(side, side), mode="bicubic", align_corners=True)
        grid = grid + bend[0].permute(1, 2, 0) * float(rng.uniform(0.005, 0.03))
    return (grid + torch.tensor(centre, dtype=torch.float32)).float()[None]


def shadowed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Dark below an echo or a bad contact: one column band, from some depth down."""
    side = image.shape[0]
    x = np.arange(side, dtype=np.float32)
    band = np.exp(-(((x - rng.uniform(0, side)) / rng.uniform(0.02, 0.12) / side) ** 2))
    depth = 1 / (1 + np.exp(-(x - rng.uniform(-0.2, 0.7) * side) / (0.03 * side)))
    return image * (1 - np.float32(rng.uniform(0.3, 0.85)) * depth[:, None] * band[None]).astype(np.float32)


def erased(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A few rectangles as grey and grainy as their mean: an object must be known by any of its parts and by what lies
    around it (random erasing, arXiv:1708.04896)."""
    side, image = image.shape[0], image.copy()
    for _ in range(int(rng.integers(1, 4))):
        h, w = (side * np.exp(rng.uniform(np.log(0.04), np.log(0.2), 2))).astype(int)
        top, left = int(rng.integers(0, side - h)), int(rng.integers(0, side - w))
        patch = image[top : top + h, left : left + w]
        patch[:] = patch.mean() * np.exp(0.2 * rng.standard_normal((h, w), np.float32))
    return image


def objects_of(instances: np.ndarray, classes: np.ndarray, full_areas: np.ndarray):
    """Objects still visible in a warped instance map: the map renumbered, labels, boxes in shares."""
    side = instances.shape[0]
    areas = np.bincount(instances.ravel(), minlength=len(classes) + 1)[1:]
    labels, boxes, rename = [], [], np.zeros(256, np.uint8)
    for index, found in enumerate(ndimage.find_objects(instances, max_label=len(classes))):
        if found is None or areas[index] < max(MIN_PIXELS, VISIBLE_SHARE * full_areas[index]):
            continue
        rows, columns = found
        labels.append(classes[index])
        rename[index + 1] = len(labels)
        w, h = columns.stop - columns.start, rows.stop - rows.start
        boxes.append((columns.start + w / 2, rows.start + h / 2, w, h))
    boxes = np.array(boxes, np.float32).reshape(-1, 4) / side
    return rename[instances], np.array(labels, np.int64), boxes


def view(
    source: Source, others: list[Source], side: int, input_side: int, rng: np.random.Generator, strength: float = 1.0
) -> View:
    """One training sample of `source`; splices and pastes take from `others`. At a lower `strength` there
    are fewer of these, and more frames as they are."""
    if side == input_side and rng.random() < 0.5 - 0.25 * strength:  # the very picture that the program will see
        image = source.exact.astype(np.float32) / 255
        instances = np.asarray(Image.fromarray(source.instances).resize((side, side), Image.NEAREST))
        if rng.random() < 0.5:
            image, instances = image[:, ::-1], instances[:, ::-1]
        full_areas = np.zeros(len(source.classes))
    else:
        if others and rng.random() < 0.3 * strength:
            source = spliced(source, others[rng.integers(len(others))], rng) or source
        if others and rng.random() < 0.5 * strength:
            source = pasted(source, others[rng.integers(len(others))], rng) or source
        grid = sampling_grid(side, input_side, rng)
        both = torch.from_numpy(np.stack([source.image, source.instances])).float()[None]
        image = F.grid_sample(both[:, :1], grid, "bilinear", "zeros", False)[0, 0].numpy() / 255
        instances = F.grid_sample(both[:, 1:], grid, "nearest", "zeros", False)[0, 0].numpy().astype(np.uint8)
        # Source pixels that a pixel of the view stands for, from the grid's first two corners.
        step = (grid[0, side // 2, side // 2 + 1] - grid[0, side // 2, side // 2]).norm() * SOURCE_SIDE / 2
        down = (grid[0, side // 2 + 1, side // 2] - grid[0, side // 2, side // 2]).norm() * SOURCE_SIDE / 2
        areas = np.bincount(source.instances.ravel(), minlength=len(source.classes) + 1)[1:]
        full_areas = areas / float(step * down)
    instances, labels, boxes = objects_of(np.ascontiguousarray(instances), source.classes, full_areas)
    if rng.random() < 0.2:
        image = shadowed(image, rng)
    if rng.random() < 0.35 * strength:
        image = erased(image, rng)
    return View(augment.scanner(image, rng).astype(np.float32), instances, labels, boxes)


def blended(a: View, b: View, share: float) -> View:
    """`share` of one view and the rest of another, with the objects of both (mixup, arXiv:1710.09412)."""
    other = np.where(b.instances > 0, b.instances + len(a.labels), 0).astype(np.uint8)
    return View(
        a.image * np.float32(share) + b.image * np.float32(1 - share),
        np.where(a.instances > 0, a.instances, other),
        np.concatenate([a.labels, b.labels]),
        np.concatenate([a.boxes_cxcywh, b.boxes_cxcywh]),
    )


def mixed(samples: list[View], rng: np.random.Generator, chance: float) -> list[View]:
    """Some of `samples` blended with their neighbour in the list."""
    neighbours = samples[1:] + samples[:1]
    return [blended(a, b, rng.uniform(0.4, 0.7)) if rng.random() < chance else a for a, b in zip(samples, neighbours)]


def batch_of(samples: list[View]) -> tuple[torch.Tensor, list[dict]]:
    """Images [B, 3, side, side], channels last, and targets as the losses want them."""
    images = torch.from_numpy(np.stack([s.image for s in samples]))[:, None].expand(-1, 3, -1, -1)
    targets = [{"labels": torch.from_numpy(s.labels), "boxes": torch.from_numpy(s.boxes_cxcywh)} for s in samples]
    return images.contiguous(memory_format=torch.channels_last), targets


def class_maps(samples: list[View], classes: int, cells: int) -> torch.Tensor:
    """The share of each cell that each class covers, float32 [B, classes, cells, cells]."""
    side = samples[0].image.shape[0]
    maps = np.zeros((len(samples), classes, side, side), np.float32)
    for b, sample in enumerate(samples):
        for index, label in enumerate(sample.labels):
            maps[b, label][sample.instances == index + 1] = 1
    return F.adaptive_avg_pool2d(torch.from_numpy(maps), cells)


def sheet(columns: int = 6, rows: int = 4, side: int = 320) -> Image.Image:
    """Training views with their boxes, to look at: nerves light, vessels dark."""
    import data

    classes = {"nerve": 0, "vessel": 1}
    sources = [source_of(frame, classes, side) for frame in data.load("train", ["usgra"])]
    picture = Image.new("RGB", (columns * side, rows * side))
    for cell in range(columns * rows):
        rng = np.random.default_rng(cell)
        drawn = view(sources[rng.integers(len(sources))], sources, side, side, rng)
        tile = Image.fromarray((drawn.image * 255).astype(np.uint8)).convert("RGB")
        for label, (cx, cy, w, h) in zip(drawn.labels, drawn.boxes_cxcywh * side):
            colour = (255, 220, 0) if label == 0 else (220, 40, 40)
            ImageDraw.Draw(tile).rectangle((cx - w / 2, cy - h / 2, cx + w / 2 - 1, cy + h / 2 - 1), outline=colour)
        picture.paste(tile, (cell % columns * side, cell // columns * side))
    return picture


if __name__ == "__main__":
    import sys

    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    sheet().save(sys.argv[1])
