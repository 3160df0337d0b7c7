"""Dense supervision: what every cell of the encoder's maps is learned to say, besides the queries.

Two losses, both much cheaper than the decoder's:

- masks: a linear head on each map predicts the class masks at a quarter of its stride, binary
  cross-entropy and Dice;
- anchors: the decoder's own first stage (`enc_output`, `enc_score_head`, `enc_bbox_head`), learned
  one-to-many: every cell inside an object answers for it, varifocal loss with the IoU as the target, L1 and GIoU.
  The auxiliary one-to-many heads of Co-DETR (arXiv:2211.12860) are the model for it: one-to-one matching
  gives the encoder one positive an object, this gives it dozens.

None of these heads is part of the exported network. `train.py` gives the anchors' loss copies of the
decoder's first stage, because the decoder's own learns one-to-one there.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import losses
import views
from decoder import make_anchors

WEIGHT = {"mask": 1.0, "anchor_class": 1.0, "anchor_bbox": 2.0, "anchor_giou": 1.0}
FINER = 4  # a head's cells per map cell and axis
NERVE_WEIGHT = 2.0


class MaskHeads(nn.Module):
    def __init__(self, dim: int, classes: int, levels: int):
        super().__init__()
        self.classes = classes
        self.heads = nn.ModuleList(nn.Conv2d(dim, classes * FINER**2, 1) for _ in range(levels))
        for head in self.heads:
            nn.init.normal_(head.weight, std=0.01)
            nn.init.constant_(head.bias, -3.0)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        return [F.pixel_shuffle(head(x), FINER) for head, x in zip(self.heads, maps)]


class AnchorHeads(nn.Module):
    """Copies of the decoder's first stage."""

    def __init__(self, decoder):
        super().__init__()
        self.enc_output = copy.deepcopy(decoder.enc_output)
        self.enc_score_head = copy.deepcopy(decoder.enc_score_head)
        self.enc_bbox_head = copy.deepcopy(decoder.enc_bbox_head)


class DenseHeads(nn.Module):
    """What `train.py` learns beside the network."""

    def __init__(self, model):
        super().__init__()
        decoder = model.decoder
        self.masks = MaskHeads(decoder.enc_score_head.in_features, model.num_classes, len(model.encoder.input_proj))
        self.anchors = AnchorHeads(decoder)


def mask_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """`logits`, `truth` [B, classes, h, w]; classes weigh differently (the first is nerve)."""
    weight = torch.ones(truth.shape[1])
    weight[0] = NERVE_WEIGHT
    p = logits.sigmoid()
    # Focal weights (arXiv:1708.02002): background is easy and everywhere.
    error = (p - truth).abs().detach() ** 1.5
    entropy = (F.binary_cross_entropy_with_logits(logits, truth, reduction="none") * error).sum((0, 2, 3))
    entropy = entropy / truth.sum((0, 2, 3)).clamp(min=20)
    overlap = (p * truth).sum((0, 2, 3))
    dice = 1 - (2 * overlap + 1) / ((p * p).sum((0, 2, 3)) + (truth * truth).sum((0, 2, 3)) + 1)
    return ((entropy + dice) * weight).sum() / weight.sum()


def anchor_outputs(decoder, maps: list[Tensor], scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Every cell's class logits [B, N, classes], box [B, N, 4] and its centre [N, 2]."""
    shapes = [tuple(x.shape[-2:]) for x in maps]
    memory = torch.cat([x.flatten(2).transpose(1, 2) for x in maps], 1)
    anchors, valid = make_anchors(shapes, memory.device, scale)
    memory = decoder.enc_output(valid.to(memory.dtype) * memory)
    boxes = (decoder.enc_bbox_head(memory) + anchors).sigmoid()
    return decoder.enc_score_head(memory), boxes, anchors.sigmoid()[0, :, :2]


def anchor_targets(centres: Tensor, instances: Tensor, boxes: Tensor) -> Tensor:
    """The object each cell answers for, -1 for none, [N]: the one whose mask its centre lies on, and
    the cell closest to each object's centre whatever it lies on."""
    side = instances.shape[-1]
    x, y = (centres * side).long().clamp(0, side - 1).unbind(-1)
    owner = instances[y, x].long() - 1
    # Cells close to an object's rim see as much of its surroundings: the inner four fifths answer.
    for index, box in enumerate(boxes):
        off = ((centres - box[:2]) / (box[2:] * 0.4).clamp(min=1e-6)).abs().max(-1).values
        owner[(owner == index) & (off > 1)] = -1
        owner[off.argmin()] = index
    return owner


def dense_losses(
    decoder, heads: MaskHeads, maps, samples: list, targets: list[dict], classes: int, scale: float
) -> dict:
    """Weighted scalars. `decoder`: what has the first stage, a decoder or `AnchorHeads`; `samples`: the
    `View`s behind `targets`; `scale`: as in `make_anchors`."""
    predicted = heads(maps)
    truth = [views.class_maps(samples, classes, x.shape[-1]) for x in predicted]
    totals = {"mask": sum(map(mask_loss, predicted, truth)) / len(predicted)}
    logits, found, centres = anchor_outputs(decoder, maps, scale)
    images, cells, objects = [], [], []
    for i, (sample, target) in enumerate(zip(samples, targets)):
        if len(target["labels"]) == 0:
            continue
        owner = anchor_targets(centres, torch.from_numpy(sample.instances), target["boxes"])
        positive = (owner >= 0).nonzero()[:, 0]
        images.append(torch.full_like(positive, i))
        cells.append(positive)
        objects.append(owner[positive])
    quality, positive = torch.zeros_like(logits), torch.zeros_like(logits)
    count = max(1, sum(len(c) for c in cells))
    if cells:
        image, cell = torch.cat(images), torch.cat(cells)
        truth = torch.cat([targets[i[0].item()]["boxes"][o] for i, o in zip(images, objects)])
        labels = torch.cat([targets[i[0].item()]["labels"][o] for i, o in zip(images, objects)])
        boxes = found[image, cell]
        iou, giou = losses.pairwise_giou(losses.to_xyxy(boxes), losses.to_xyxy(truth))
        quality[image, cell, labels], positive[image, cell, labels] = iou.detach().clamp(min=0.05), 1.0
        weight = 1 + (NERVE_WEIGHT - 1) * (labels == 0)
        totals["anchor_bbox"] = (F.l1_loss(boxes, truth, reduction="none").sum(-1) * weight).sum() / count
        totals["anchor_giou"] = ((1 - giou) * weight).sum() / count
    weight = losses.VFL_ALPHA * logits.detach().sigmoid() ** losses.VFL_GAMMA * (1 - positive) + quality
    entropy = F.binary_cross_entropy_with_logits(logits, quality, weight=weight, reduction="sum")
    totals["anchor_class"] = entropy / count
    return {name: WEIGHT[name] * value for name, value in totals.items()}
