"""Ultramotion's matcher in a PyTorch training loop, in place of the one of D-FINE, RT-DETR or DETR.

    python examples/matcher_in_training.py

It takes what theirs takes and gives what theirs gives. In D-FINE's training code the criterion holds the matcher as a
module, so the new one takes its place like this:

    del criterion.matcher
    criterion.matcher = ultramotion.HungarianMatcher(
        weight_dict={"cost_class": 2, "cost_bbox": 5, "cost_giou": 2}, use_focal_loss=True
    )

Here a small network learns to point at the objects of a few made-up images. Every step's match is compared with SciPy's
optimum. Where PyTorch is not installed, the same arrays are matched in NumPy, and nothing is learned.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from ultramotion import HungarianMatcher

WEIGHTS = {"cost_class": 2.0, "cost_bbox": 5.0, "cost_giou": 2.0}
IMAGES, QUERIES, CLASSES = 8, 30, 3
STEPS = 100

Array = npt.NDArray[np.float64]


def corners(boxes: Array) -> Array:
    """From centre and size to two corners."""
    return np.concatenate([boxes[..., :2] - 0.5 * boxes[..., 2:], boxes[..., :2] + 0.5 * boxes[..., 2:]], -1)


def cost(logits: Array, boxes: Array, labels: npt.NDArray[np.int64], target_boxes: Array) -> Array:
    """What each pair of a query and a target costs, [Q, T]: focal loss, L1 distance, generalised IoU."""
    p = 1 / (1 + np.exp(-logits[:, labels]))
    focal = 0.25 * (1 - p) ** 2 * -np.log(p + 1e-8) - 0.75 * p**2 * -np.log(1 - p + 1e-8)
    l1 = np.abs(boxes[:, None] - target_boxes).sum(-1)
    a, b = corners(boxes)[:, None], corners(target_boxes)[None]
    inner = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None).prod(-1)
    hull = (np.maximum(a[..., 2:], b[..., 2:]) - np.minimum(a[..., :2], b[..., :2])).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - inner
    giou = inner / union - (hull - union) / hull
    total: Array = WEIGHTS["cost_class"] * focal + WEIGHTS["cost_bbox"] * l1 - WEIGHTS["cost_giou"] * giou
    return total


def check(outputs: Mapping[str, Any], targets: Sequence[Mapping[str, Any]], indices: Sequence[tuple[Any, Any]]) -> int:
    """Compare a batch's match with SciPy's; the number of pairs."""
    pairs = 0
    for image, (i, j) in enumerate(indices):
        arrays = [outputs["pred_logits"][image], outputs["pred_boxes"][image], targets[image]["boxes"]]
        logits, boxes, target_boxes = (np.asarray(array, np.float64) for array in arrays)
        costs = cost(logits, boxes, np.asarray(targets[image]["labels"]), target_boxes)
        optimum = costs[linear_sum_assignment(costs)].sum()
        found = costs[np.asarray(i), np.asarray(j)].sum()
        assert abs(found - optimum) < 1e-4, f"image {image}: {found} instead of {optimum}"
        pairs += len(i)
    return pairs


def made_up_targets(rng: np.random.Generator) -> list[dict[str, Any]]:
    """Objects of each image; the first has none."""
    targets = []
    for count in (0, *rng.integers(1, 6, IMAGES - 1)):
        boxes = np.concatenate([rng.uniform(0.2, 0.8, (count, 2)), rng.uniform(0.1, 0.3, (count, 2))], 1)
        targets.append({"labels": rng.integers(0, CLASSES, count), "boxes": boxes.astype(np.float32)})
    return targets


def with_pytorch(matcher: HungarianMatcher, rng: np.random.Generator) -> None:
    """Train for some steps."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    targets = [
        {"labels": torch.from_numpy(t["labels"]), "boxes": torch.from_numpy(t["boxes"])} for t in made_up_targets(rng)
    ]
    features = torch.randn(IMAGES, 32)
    network = nn.Sequential(nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, QUERIES * (CLASSES + 4)))
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    pairs, seconds = 0, 0.0
    for step in range(STEPS):
        answers = network(features).view(IMAGES, QUERIES, CLASSES + 4)
        outputs = {"pred_logits": answers[..., :CLASSES] - 2, "pred_boxes": answers[..., CLASSES:].sigmoid()}

        # As in any criterion of this family: queries that answer for a target learn its class and its box.
        start = time.perf_counter()
        indices = matcher(outputs, targets)["indices"]
        seconds += time.perf_counter() - start
        rows = torch.cat([torch.full_like(i, image) for image, (i, _) in enumerate(indices)])
        columns = torch.cat([i for i, _ in indices])
        wanted = torch.zeros_like(outputs["pred_logits"])
        wanted[rows, columns, torch.cat([t["labels"][j] for t, (_, j) in zip(targets, indices, strict=True)])] = 1
        boxes = torch.cat([t["boxes"][j] for t, (_, j) in zip(targets, indices, strict=True)])
        class_loss = nn.functional.binary_cross_entropy_with_logits(outputs["pred_logits"], wanted, reduction="sum")
        box_loss = (outputs["pred_boxes"][rows, columns] - boxes).abs().sum()
        loss = (class_loss + 5 * box_loss) / len(boxes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

        detached = {key: value.detach() for key, value in outputs.items()}
        pairs += check(detached, targets, indices)
        if step % 25 == 0 or step == STEPS - 1:
            print(f"step {step:3}: loss {loss.item():6.3f}")
    milliseconds = 1e3 * seconds / STEPS
    print(f"PyTorch {torch.__version__}: {pairs} pairs, {milliseconds:.2f} ms a batch; all agree with SciPy's optimum")


def with_numpy(matcher: HungarianMatcher, rng: np.random.Generator) -> None:
    """Match as many batches of random answers."""
    pairs = 0
    for _ in range(STEPS):
        outputs = {
            "pred_logits": rng.normal(0, 2, (IMAGES, QUERIES, CLASSES)).astype(np.float32),
            "pred_boxes": rng.uniform(0.1, 0.6, (IMAGES, QUERIES, 4)).astype(np.float32),
        }
        targets = made_up_targets(rng)
        pairs += check(outputs, targets, matcher(outputs, targets)["indices"])
    print(f"NumPy {np.__version__}: {pairs} pairs; all agree with SciPy's optimum")


def main() -> None:
    matcher = HungarianMatcher(WEIGHTS, use_focal_loss=True)
    rng = np.random.default_rng(0)
    with_numpy(matcher, rng)
    if importlib.util.find_spec("torch") is None:
        print("PyTorch is not installed, so nothing was trained: pip install torch")
    else:
        with_pytorch(matcher, rng)


if __name__ == "__main__":
    main()
