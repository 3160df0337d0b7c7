"""Losses on mask logits and predicted IoU, and the Dice score.

Masks are compared at half the input's resolution: logits come at a quarter and are read, at run time, through a
bilinear filter, so they are trained through one.
"""

import torch
import torch.nn.functional as F

FOCAL_GAMMA = 2.0
DICE_EPSILON = 1.0


def at_half(logits, masks):
    """Logits [N, M, S/4, S/4] and boolean masks [N, S, S] to the same half resolution [N, M, S/2, S/2], [N, 1, S/2, S/2]."""
    logits = F.interpolate(logits.float(), scale_factor=2, mode="bilinear", align_corners=False)
    return logits, F.avg_pool2d(masks.unsqueeze(1).float(), 2)


def focal(logits, target):
    """Focal loss (Lin et al. 2017) for soft targets, over the object's area so that small ones count. [N, M]"""
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target.expand_as(logits), reduction="none")
    weight = (logits.sigmoid() - target).abs() ** FOCAL_GAMMA
    return (weight * cross_entropy).sum((2, 3)) / target.sum((2, 3)).clamp(min=16)


def dice(logits, target):
    """1 - Dice, soft. [N, M]"""
    p = logits.sigmoid()
    return 1 - (2 * (p * target).sum((2, 3)) + DICE_EPSILON) / (
        p.sum((2, 3)) + target.sum((2, 3)) + DICE_EPSILON
    )


def overlap(logits, target):
    """IoU and Dice of the thresholded masks. Two of [N, M], without gradient."""
    with torch.no_grad():
        own, true = logits > 0, target > 0.5
        both = (own & true).sum((2, 3)).float()
        sizes = (own.sum((2, 3)) + true.sum((2, 3))).float()
        return both / (sizes - both).clamp(min=1), 2 * both / sizes.clamp(min=1)


def mask_loss(logits, iou, masks):
    """Focal + dice + squared error of the predicted IoU. Several masks for a prompt compete: the best one learns.

    `logits` [N, M, S/4, S/4], `iou` [N, M], `masks` [N, S, S]. Returns the loss and the mean Dice score."""
    logits, target = at_half(logits, masks)
    shape_loss = focal(logits, target) + dice(logits, target)
    actual_iou, dice_score = overlap(logits, target)
    best = shape_loss.argmin(1, keepdim=True)
    loss = shape_loss.gather(1, best).mean() + F.mse_loss(iou.float(), actual_iou)
    return loss, dice_score.gather(1, best).mean().item()
