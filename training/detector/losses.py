"""D-FINE's training objective: matching, denoising queries and losses.

In: `DFine`'s training output and targets, one dict an image: `labels` int64 [T], `boxes` float32
[T, 4] cxcywh in shares of the image. Out: a dict of weighted scalar losses; their sum is minimised.

- VFL: classification with the IoU as the positive target (VarifocalNet, arXiv:2008.13367).
- L1 and GIoU on boxes (DETR, arXiv:2005.12872).
- FGL, DDF: D-FINE (arXiv:2410.13842), sections 4.1 and 4.2: the edge distributions learn the offset of
  the true edge, and earlier layers learn from the last layer's distributions.
- Denoising queries: DINO (arXiv:2203.03605).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from decoder import REG_MAX, edge_weights, inverse_sigmoid

COST = {"class": 2.0, "bbox": 5.0, "giou": 2.0}
WEIGHT = {"vfl": 1.0, "bbox": 5.0, "giou": 2.0, "fgl": 0.15, "ddf": 1.5}
FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0
VFL_ALPHA, VFL_GAMMA = 0.75, 2.0
DDF_TEMPERATURE = 5.0
LABEL_NOISE, BOX_NOISE = 0.5, 1.0

Pairs = list[tuple[Tensor, Tensor]]  # an image: query indices, target indices


def to_xyxy(boxes: Tensor) -> Tensor:
    centre, extent = boxes[..., :2], boxes[..., 2:]
    return torch.cat([centre - extent / 2, centre + extent / 2], -1)


def pairwise_giou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and GIoU of broadcast boxes in xyxy."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    overlap = (high - low).clamp(min=0).prod(-1)
    area_a, area_b = (a[..., 2:] - a[..., :2]).prod(-1), (b[..., 2:] - b[..., :2]).prod(-1)
    union = area_a + area_b - overlap
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(-1)
    iou = overlap / union.clamp(min=1e-9)
    return iou, iou - (hull - union) / hull.clamp(min=1e-9)


# Denoising queries


def make_denoising(targets: list[dict], num_classes: int, queries: int, count: int, generator) -> dict | None:
    """Noisy copies of the targets as extra queries: in each group one close and one far copy.

    Returns the decoder's `denoising` argument plus `pairs`, which of them must find which target,
    and `groups`.
    """
    most = max(len(t["labels"]) for t in targets)
    if most == 0 or count == 0:
        return None
    groups = max(1, count // most)
    b = len(targets)
    labels = torch.full((b, most), num_classes)
    boxes = torch.zeros(b, most, 4)
    present = torch.zeros(b, most, dtype=torch.bool)
    for i, target in enumerate(targets):
        n = len(target["labels"])
        labels[i, :n], boxes[i, :n], present[i, :n] = target["labels"], target["boxes"], True
    labels, boxes, present = labels.repeat(1, 2 * groups), boxes.repeat(1, 2 * groups, 1), present.repeat(1, 2 * groups)
    far = torch.zeros(2 * most)
    far[most:] = 1
    far = far.repeat(groups)[None, :, None]

    flipped = torch.rand(labels.shape, generator=generator) < LABEL_NOISE * 0.5
    random_labels = torch.randint(num_classes, labels.shape, generator=generator)
    labels = torch.where(flipped & present, random_labels, labels)
    corners = to_xyxy(boxes)
    reach = (boxes[..., 2:] * 0.5).repeat(1, 1, 2) * BOX_NOISE
    sign = torch.randint(2, corners.shape, generator=generator) * 2.0 - 1
    corners = (corners + sign * (torch.rand(corners.shape, generator=generator) + far) * reach).clamp(0, 1)
    # A far copy may turn inside out; as a box it keeps its extent.
    low, high = corners[..., :2], corners[..., 2:]
    noisy = torch.cat([(low + high) / 2, (high - low).abs()], -1)

    total = 2 * most * groups
    hidden = torch.zeros(total + queries, total + queries, dtype=torch.bool)
    hidden[total:, :total] = True
    group = torch.arange(total) // (2 * most)
    hidden[:total, :total] = group[:, None] != group[None]
    pairs = []
    for target in targets:
        found = torch.arange(len(target["labels"]))
        at = (torch.arange(groups)[:, None] * 2 * most + found).flatten()
        pairs.append((at, found.repeat(groups)))
    return {
        "labels": labels,
        "boxes_unact": inverse_sigmoid(noisy),
        "hidden": hidden,
        "pairs": pairs,
        "groups": groups,
        "count": total,
    }


# Matching


@torch.no_grad()
def match(logits: Tensor, boxes: Tensor, targets: list[dict]) -> Pairs:
    """The optimal one-to-one assignment of each image's targets to queries."""
    pairs = []
    for scores, found, target in zip(logits.sigmoid(), boxes, targets):
        p = scores[:, target["labels"]]
        positive = FOCAL_ALPHA * (1 - p) ** FOCAL_GAMMA * -(p + 1e-8).log()
        negative = (1 - FOCAL_ALPHA) * p**FOCAL_GAMMA * -(1 - p + 1e-8).log()
        giou = pairwise_giou(to_xyxy(found)[:, None], to_xyxy(target["boxes"])[None])[1]
        cost = COST["class"] * (positive - negative) - COST["giou"] * giou
        cost = cost + COST["bbox"] * torch.cdist(found, target["boxes"], p=1)
        rows, columns = linear_sum_assignment(cost.nan_to_num(1.0).numpy())
        pairs.append((torch.as_tensor(rows), torch.as_tensor(columns)))
    return pairs


def union_of(matches: list[Pairs]) -> Pairs:
    """The matches of all layers together, the most agreed-on first where a query has several."""
    merged = []
    for image in zip(*matches):
        votes: dict[tuple[int, int], int] = {}
        for rows, columns in image:
            for pair in zip(rows.tolist(), columns.tolist()):
                votes[pair] = votes.get(pair, 0) + 1
        chosen: dict[int, int] = {}
        for row, column in sorted(votes, key=lambda pair: -votes[pair]):
            chosen.setdefault(row, column)
        rows = torch.tensor(list(chosen.keys()), dtype=torch.int64)
        merged.append((rows, torch.tensor(list(chosen.values()), dtype=torch.int64)))
    return merged


# Losses


def gather(pairs: Pairs, targets: list[dict]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Image index, query index, label and box of each pair."""
    image = torch.cat([torch.full_like(rows, i) for i, (rows, _) in enumerate(pairs)])
    rows = torch.cat([rows for rows, _ in pairs])
    labels = torch.cat([t["labels"][columns] for t, (_, columns) in zip(targets, pairs)])
    boxes = torch.cat([t["boxes"][columns] for t, (_, columns) in zip(targets, pairs)])
    return image, rows, labels, boxes


def vfl_loss(logits: Tensor, boxes: Tensor, pairs: Pairs, targets: list[dict], count: float) -> Tensor:
    image, rows, labels, truth = gather(pairs, targets)
    with torch.no_grad():
        iou = pairwise_giou(to_xyxy(boxes[image, rows]), to_xyxy(truth))[0]
        quality, positive = torch.zeros_like(logits), torch.zeros_like(logits)
        quality[image, rows, labels], positive[image, rows, labels] = iou, 1.0
        weight = VFL_ALPHA * logits.sigmoid() ** VFL_GAMMA * (1 - positive) + quality
    return F.binary_cross_entropy_with_logits(logits, quality, weight=weight, reduction="sum") / count


def box_losses(boxes: Tensor, pairs: Pairs, targets: list[dict], count: float) -> dict[str, Tensor]:
    image, rows, _, truth = gather(pairs, targets)
    found = boxes[image, rows]
    giou = pairwise_giou(to_xyxy(found), to_xyxy(truth))[1]
    return {"bbox": F.l1_loss(found, truth, reduction="sum") / count, "giou": (1 - giou).sum() / count}


def edge_targets(reference: Tensor, truth: Tensor, weights: Tensor, reg_scale: Tensor):
    """Where the true edges lie between the bins: lower bin, weight of the lower, of the upper bin."""
    corners, scale = to_xyxy(truth), reg_scale.abs()
    unit = (reference[:, 2:] / scale).clamp(min=1e-9)
    low = (reference[:, :2] - corners[:, :2]) / unit - 0.5 * scale
    high = (corners[:, 2:] - reference[:, :2]) / unit - 0.5 * scale
    offset = torch.cat([low, high], -1).flatten().clamp(weights[0].item(), weights[-1].item())
    lower = (torch.searchsorted(weights, offset, right=True) - 1).clamp(0, REG_MAX - 1)
    upper_share = (offset - weights[lower]) / (weights[lower + 1] - weights[lower])
    return lower, 1 - upper_share, upper_share


def fgl_loss(layer: dict, pairs: Pairs, targets: list[dict], count: float, weights: Tensor, reg_scale: Tensor) -> Tensor:
    image, rows, _, truth = gather(pairs, targets)
    logits = layer["corners"][image, rows].reshape(-1, REG_MAX + 1)
    with torch.no_grad():
        lower, left, right = edge_targets(layer["reference"][image, rows], truth, weights, reg_scale)
        iou = pairwise_giou(to_xyxy(layer["pred_boxes"][image, rows]), to_xyxy(truth))[0]
        iou = iou[:, None].expand(-1, 4).flatten()
    loss = F.cross_entropy(logits, lower, reduction="none") * left
    loss = loss + F.cross_entropy(logits, lower + 1, reduction="none") * right
    return (loss * iou).sum() / count


def ddf_loss(layer: dict, teacher: dict, pairs: Pairs, targets: list[dict], balance: tuple[float, float]) -> Tensor:
    """`balance`: how much the matched and the other queries weigh against each other."""
    image, rows, _, truth = gather(pairs, targets)
    with torch.no_grad():
        weight = teacher["pred_logits"].sigmoid().max(-1).values
        weight[image, rows] = pairwise_giou(to_xyxy(layer["pred_boxes"][image, rows]), to_xyxy(truth))[0]
        matched = torch.zeros_like(weight, dtype=torch.bool)
        matched[image, rows] = True
        goal = (teacher["corners"].unflatten(-1, (4, -1)) / DDF_TEMPERATURE).softmax(-1)
    student = (layer["corners"].unflatten(-1, (4, -1)) / DDF_TEMPERATURE).log_softmax(-1)
    loss = F.kl_div(student, goal, reduction="none").sum(-1).mean(-1) * weight * DDF_TEMPERATURE**2
    near = loss[matched].mean() if matched.any() else loss.sum() * 0
    far = loss[~matched].mean() if (~matched).any() else loss.sum() * 0
    return (near * balance[0] + far * balance[1]) / (balance[0] + balance[1])


def split_queries(part: dict, count: int) -> tuple[dict, dict]:
    """Denoising and ordinary queries of one layer's outputs."""
    return {k: v[:, :count] for k, v in part.items()}, {k: v[:, count:] for k, v in part.items()}


def all_losses(out: dict, targets: list[dict], denoising: dict | None, up: Tensor, reg_scale: Tensor) -> dict[str, Tensor]:
    """Every layer's losses, summed by kind and weighted."""
    weights = edge_weights(up, reg_scale)
    layers, pre = out["layers"], out["pre"]
    if denoising is not None:
        noisy, layers = zip(*(split_queries(layer, denoising["count"]) for layer in layers))
        noisy_pre, pre = split_queries(pre, denoising["count"])
    totals = dict.fromkeys(WEIGHT, torch.zeros(()))

    def add(losses: dict[str, Tensor]):
        for name, loss in losses.items():
            totals[name] = totals[name] + WEIGHT[name] * loss

    def add_layers(layers, pre, own: list[Pairs], shared: Pairs, own_count, shared_count):
        b, q = layers[-1]["pred_logits"].shape[:2]
        positives = sum(len(rows) for rows, _ in shared) * 4
        balance = ((positives * 8 / b) ** 0.5, ((b * q * 4 - positives) * 8 / b) ** 0.5)
        for i, layer in enumerate([*layers, pre]):
            add({"vfl": vfl_loss(layer["pred_logits"], layer["pred_boxes"], own[i], targets, own_count)})
            add(box_losses(layer["pred_boxes"], shared, targets, shared_count))
            if "corners" in layer:
                add({"fgl": fgl_loss(layer, shared, targets, shared_count, weights, reg_scale)})
                if layer is not layers[-1]:
                    add({"ddf": ddf_loss(layer, layers[-1], shared, targets, balance)})

    own = [match(x["pred_logits"], x["pred_boxes"], targets) for x in [*layers, pre, out["encoder"]]]
    shared = union_of(own)
    count = max(1.0, float(sum(len(t["labels"]) for t in targets)))
    shared_count = max(1.0, float(sum(len(rows) for rows, _ in shared)))
    add_layers(layers, pre, own, shared, count, shared_count)
    encoder = out["encoder"]
    add({"vfl": vfl_loss(encoder["pred_logits"], encoder["pred_boxes"], own[-1], targets, count)})
    add(box_losses(encoder["pred_boxes"], shared, targets, shared_count))
    if denoising is not None:
        pairs, count = denoising["pairs"], count * denoising["groups"]
        add_layers(noisy, noisy_pre, [pairs] * (len(noisy) + 1), pairs, count, count)
    return totals
